"""A kept model as a folder: JSON, safetensors and a model card, all checked by their SHA-256 when they are read.

It holds all that was fitted and nothing of a patient, so that it can be copied to another machine and given away.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmil import record
from mmmil.variants import Variant

FORMAT = 3
ABOUT, MANIFEST, CARD, EXPRESSION = "model.json", "manifest.json", "README.md", "expression.json"
GENE_TABLE, DISTANCE, WEIGHTS, STAIN = "gene_table.csv", "distance.safetensors", "model.safetensors", "stain.json"
FINAL = "final"


class ModelError(ValueError):
    """A kept model cannot be made, read or used; says which folder or file, and what to do."""


@dataclass(frozen=True)
class KeptModel:
    """folder: where it lies; about: what `model.json` says."""

    folder: Path
    about: dict[str, Any]

    @property
    def variant(self) -> Variant:
        row = self.about["variant"]
        return Variant(**row | {"tables": tuple(row["tables"])})

    @property
    def class_names(self) -> list[str]:
        return self.about["parameters"]["class_names"]

    @property
    def models(self) -> list[str]:
        """Folders of its models: the final one, then those of the folds."""
        return list(self.about["models"])

    @property
    def inputs(self) -> str:
        """What the model reads, as the setting `inputs` says it."""
        v = self.variant
        return "both" if v.uses_slides and v.uses_genes else "slides" if v.uses_slides else "genes"

    @cached_property
    def distances(self) -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        return load_file(self.folder / DISTANCE)

    @cached_property
    def expression(self) -> dict[str, Any]:
        return json.loads((self.folder / EXPRESSION).read_text())


def of_model(kept: KeptModel, table: pd.DataFrame) -> pd.DataFrame:
    """A table of what a model gave, with a first column `model_of`: the cohort that the model was trained on."""
    about = kept.about
    title = f"{'synthetic cohort ' if about['synthetic'] else ''}{about['title']}"  # of folders that name no cohort
    return table.assign(model_of=about.get("cohort", title))[["model_of", *table.columns]]


def read(folder: Path | str) -> KeptModel:
    """A kept model, every file of it as it was written.

    Raises ModelError for a folder that is none, for a file that is missing, damaged or edited, and for a newer format.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    if manifest is None:
        raise ModelError(f"{folder} is no kept model: it has no {MANIFEST} that can be read; make one by mmmil keep")
    if manifest["format"] != FORMAT:
        raise ModelError(
            f"{folder} has format {manifest['format']}, this version reads {FORMAT}; keep the model anew, or apply it "
            "with the version that kept it"
        )
    if faults := _faults(folder, manifest["files"]):
        raise ModelError(
            f"{folder} is not as it was kept: {'; '.join(faults[:3])}{' and more' * (len(faults) > 3)}; copy it again, "
            "or keep the model anew (mmmil keep)"
        )
    return KeptModel(folder, json.loads((folder / ABOUT).read_text()))


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return manifest if {"format", "key", "files"} <= manifest.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _faults(folder: Path, files: dict[str, str]) -> list[str]:
    faults = []
    for name, checksum in files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif record.file_digest(path) != checksum:
            faults.append(f"{name} is damaged or was edited (its SHA-256 is not that of {MANIFEST})")
    return faults


def is_kept(folder: Path, key: str) -> bool:
    """Whether a folder holds the whole model of this key."""
    manifest = _manifest(folder)
    return manifest is not None and manifest["key"] == key and not _faults(folder, manifest["files"])


def write(folder: Path, key: str, make: Callable[[Path], object]) -> Path:
    """Have `make` fill a folder, and put it in its place whole, in that of an older model if there is one.

    Raises ModelError where something else lies there.
    """
    if folder.exists() and _manifest(folder) is None and (folder.is_file() or any(folder.iterdir())):
        raise ModelError(f"{folder} is there and is no kept model; name another folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("new", "old"))
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        make(unfinished)
        paths = sorted(path for path in unfinished.rglob("*") if path.is_file())
        files = {path.relative_to(unfinished).as_posix(): record.file_digest(path) for path in paths}
        (unfinished / MANIFEST).write_text(json.dumps({"format": FORMAT, "key": key, "files": files}, indent=1))
        if folder.exists():
            folder.rename(old)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return folder
