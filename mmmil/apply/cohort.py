"""The patients to whom a kept model is applied: an own table, or a task's YAML, read with the model's own settings.

What decides how a patient is read into the model is the model's. Where a cohort says otherwise of it, that is an error
that names both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmmil import params
from mmmil.apply.folder import GENE_TABLE, KeptModel
from mmmil.cohort import build as cohorts
from mmmil.cohort import labels as label_rules
from mmmil.cohort import own_table
from mmmil.params import FEATURES, Params
from mmmil.schema import STAGES
from mmmil.slides import scale
from mmmil.sources.tables import absolute, read_table

MATRIX_KINDS = ("counts", "log2tpm", "zscore")
MADE = "made"  # where tiles and the like lie, under the folder of the output
PLACES = (
    *("data_dir", "cohort_table", "sample_sheets", "manifests", "clinical", "expression_matrix"),
    *("gene_table", "mpp_table", "coords_dir", "features_dir", "weights_dir"),
)
SINGLE = tuple(name for name in PLACES if name.endswith(("_table", "weights_dir", "features_dir", "coords_dir")))
# Settings of the new cohort's own; all others are the model's.
ITS_OWN = (*PLACES, *("task", "title", "overlay", "results_dir", "label_rule", "class_values", "device", "synthetic"))
# Settings of a YAML that must not say otherwise than the model: how expression and slides are read into it.
DECIDING = {"expression_kind", "counts_level", "round_counts", "class_names", *STAGES["tiles"].model_fields}
DECIDING -= {*PLACES, "few_tiles"}
WORDS = {"both": "slides and genes", "slides": "slides", "genes": "genes"}


class ApplyError(ValueError):
    """A model cannot be applied to these patients; says why, and what to do."""


def settings(kept: KeptModel, cohort: Params | Path | str, out: Path, places: Mapping[str, str]) -> Params:
    """The model's parameters with the cohort's own in them; cohort: a table (CSV, TSV), or a task's parameters.

    places: setting of SINGLE -> path, where files lie that a table cannot name. Raises ApplyError where the cohort
    contradicts the model, or lacks what it reads.
    """
    if isinstance(cohort, Params):
        _require_same(kept, cohort)
        own = {name: getattr(cohort, name) for name in ITS_OWN}
    else:
        own = _of_table(kept, Path(cohort).resolve(), out)
    own |= dict(places)
    image, encoders = kept.about["image"], kept.about["parameters"]["encoders"]
    own["encoders"] = {name: source for name, source in encoders.items() if name == image.get("encoder")}
    if image.get("kind") == "features":
        own |= _features(kept, own, cohort.encoders if isinstance(cohort, Params) else {})
    if (kept.folder / GENE_TABLE).is_file() and not own.get("gene_table"):
        own["gene_table"] = literal(kept.folder.resolve() / GENE_TABLE)
    of_model = kept.about["parameters"] | {"inputs": kept.inputs, "incomplete": "exclude"}
    of_model |= {"n_tiles": image["tiles"]} if image else {}
    of_model |= {"few_tiles": "exclude"} if of_model["few_tiles"] == "error" else {}
    return params.check(of_model | own | {"results_dir": literal(out.resolve() / MADE)})


def places(given: Sequence[str]) -> dict[str, str]:
    """Settings of SINGLE from texts `setting=path`, the path as all of a command line is: from the current folder on.

    Raises ApplyError for another setting, and where nothing lies there.
    """
    pairs = [text.partition("=") for text in given]
    for name, _, text in pairs:
        if name not in SINGLE or not text:
            raise ApplyError(f"place: write setting=path, with one of {', '.join(SINGLE)}")
    found = {name: Path(text).expanduser().absolute() for name, _, text in pairs}
    for name, path in found.items():
        if not path.exists():
            raise ApplyError(f"place: {name}: {path} is not there; correct it")
    return {name: literal(path) for name, path in found.items()}


def _features(kept: KeptModel, own: Mapping[str, Any], encoders: Mapping[str, str]) -> dict[str, Any]:
    """Settings by which the folder of the new cohort's features is that which the model reads.

    features_dir stays as it is, for where it is set nobody asks for slides.
    """
    name, folder = kept.about["image"]["encoder"], own.get("features_dir", "")
    theirs = encoders.get(name, "")
    if name != FEATURES and theirs.startswith("features:"):
        return {"encoders": {name: theirs}}
    if not folder:
        raise ApplyError(
            f"the model {kept.folder} reads features that were made beforehand ({_encoder(kept)}): name the folder of "
            "these patients' features (features_dir; --place features_dir=<folder>)"
        )
    return {} if name == FEATURES else {"encoders": {name: f"features:{folder}"}}


def _encoder(kept: KeptModel) -> str:
    image = kept.about["image"]
    return f"{image['stated_encoder'] or image['encoder']}, {image['width']} numbers an instance"


def literal(path: Path) -> str:
    """A path as a setting that means just it: braces and dollar signs are no placeholders."""
    return str(path).replace("{", "{{").replace("}", "}}").replace("$", "$$")


def _require_same(kept: KeptModel, p: Params) -> None:
    """Raise ApplyError where a task's parameters contradict the model."""
    model, faults = kept.about["parameters"], []
    lacking = {"slides": p.has_slides, "genes": p.has_genes}
    read = [what for what in lacking if kept.inputs in (what, "both")]
    if absent := [what for what in read if not lacking[what]]:
        faults.append(
            f"inputs: the task has {WORDS[p.inputs]}, the model reads {WORDS[kept.inputs]}; {_alone(absent[0])}"
        )
    if p.features_dir and kept.about["image"].get("kind") in ("pixels", "frozen"):
        faults.append(f"features_dir: the task brings features, the model reads pixels; {_alone('slides')}")
    said = _said(p)
    for name in sorted(DECIDING):
        theirs, ours = getattr(p, name), model[name]
        always = name == "class_names" or (name == "expression_kind" and "genes" in read)
        of_modality = (
            name in ("class_names",) or ("slides" if name in STAGES["tiles"].model_fields else "genes") in read
        )
        if theirs != ours and of_modality and (always or name in said):
            faults.append(f"{name}: the task says {theirs!r}, the model was trained with {ours!r}")
    if faults:
        raise ApplyError(
            f"task {p.task} contradicts the kept model {kept.folder}:\n"
            + "\n".join(f"  {fault}" for fault in faults)
            + "\nleave these lines out of the task's file where its files are as the model's, or keep another model"
        )


def _said(p: Params) -> set[str]:
    """The settings that a task's files give, as opposed to those left at their default."""
    names = [name for name in (p.task, p.overlay) if name]
    there = [name for name in names if (params.root() / "params" / f"{name}.yaml").is_file()]
    return {key for name in there for key in params.read_yaml(name)}


def _alone(lacking: str) -> str:
    other = {"slides": "genes", "genes": "images"}[lacking]
    return f"keep a model of {other} alone and apply that"


def _of_table(kept: KeptModel, path: Path, out: Path) -> dict[str, Any]:
    """What an own table says of where things are: beside it, in its columns."""
    table = read_table(path)
    model = kept.about["parameters"]
    own: dict[str, Any] = {
        "task": kept.about["task"],
        "data_dir": literal(path.parent),
        "cohort_table": literal(Path(path.name)),
        "label_rule": "table",
        "synthetic": kept.about["synthetic"],
    }
    for column, what in (("slide_path", "slides"), ("expression_path", "genes")):
        is_file = what == "genes" or kept.about["image"].get("kind") != "features"
        if is_file and kept.inputs in (what, "both") and (column not in table or not table[column].str.strip().any()):
            raise ApplyError(
                f"{path}: has no {column}, and the model {kept.folder} reads {WORDS[kept.inputs]}; add it, or "
                f"{_alone(what)}"
            )
    if kept.inputs != "slides" and model["expression_kind"] in MATRIX_KINDS:
        named = [name.strip() for name in table["expression_path"] if name.strip()]
        own["expression_matrix"] = [literal(Path(name)) for name in dict.fromkeys(named)]
    return own


def stated_scales(cohort: Params | Path | str, p: Params) -> dict[str, str]:
    """Slide, as a whole path -> what the column mpp of an own table says of it; none where a task names a mpp_table."""
    table = pd.DataFrame() if isinstance(cohort, Params) else read_table(Path(cohort).resolve())
    if not {"mpp", "slide_path"} <= set(table):
        return {}
    pairs = zip(table["slide_path"], table["mpp"], strict=True)
    return {str(absolute(p.data / path)): mpp.strip() for path, mpp in pairs if not label_rules.is_missing(mpp)}


def patients(p: Params) -> tuple[cohorts.Cohort, pd.Series]:
    """The cohort as it is built to be trained on, and patient -> why one who is left out of it cannot be predicted.

    Labels are -1 where there are none. Raises CohortError for a table that cannot be read as one.
    """
    cohort = cohorts.build(p, to_train=False)
    out = cohort.excluded
    steps = out["step"].isin(["incomplete", "label"]) if len(out) else []
    reasons = out[steps].drop_duplicates("patient_id").set_index("patient_id")["reason"] if len(out) else pd.Series()
    return cohort, reasons[[patient not in cohort.patients.index for patient in reasons.index]]


def table_of(patients: pd.DataFrame, p: Params) -> pd.DataFrame:
    """Patients of a task as an own table: the columns of `own_table`, files by absolute paths, and mpp where stated.

    patients: index patient_id, as `Cohort.patients` has them.
    """
    columns = [name for name in own_table.COLUMNS[1:] if (patients[name] != "").any()]
    table = patients[columns].copy()
    if p.mpp_table and "slide_path" in table:
        stated = scale.read_mpp_table(p.path(p.mpp_table))
        table["mpp"] = [scale.table_mpp(Path(path), stated) for path in table["slide_path"]]
    return table.reset_index()
