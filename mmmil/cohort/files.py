"""Where a cohort's files lie, and whether each is there and whole, before any of them is opened."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mmmil.params import Params
from mmmil.sources.manifests import unfinished
from mmmil.sources.tables import fail, is_file


def place(p: Params, folder: str, row: pd.Series) -> Path:
    """Where a file of the sheet lies: <folder>/<File Name>, or <folder>/<File ID>/<File Name> as gdc-client puts it."""
    flat = (p.data / folder / row["File Name"]).resolve()
    nested = flat.parent / row["File ID"] / row["File Name"]
    return nested if not is_file(flat) and (is_file(nested) or unfinished(nested)) else flat


def stated_sizes(p: Params) -> dict[str, int]:
    """{file name: bytes} by the `manifests`; names of GDC files are unique."""
    if not p.manifests:
        return {}
    from mmmil.sources.manifests import read_manifest

    tables = [read_manifest(p.path(name)) for name in p.manifests]
    return {name: int(size) for table in tables for name, size in zip(table["filename"], table["size"], strict=True)}


def require(patients: pd.DataFrame, p: Params, source: str) -> None:
    """Raise CohortError naming every slide or expression file that is missing, empty or not of the stated size.

    patients: a cohort's table; source: what named the files. A file that no manifest names is taken as it is.
    """
    sizes = stated_sizes(p)
    faults = []
    for field in ("slide_path", "expression_path"):
        for patient, name in patients[field][patients[field] != ""].items():
            fault = _fault(Path(name), sizes.get(Path(name).name))
            if fault:
                faults.append(f"{source}, patient {patient}: {field}: {name} {fault}")
    fail(faults)


def _fault(path: Path, stated: int | None) -> str:
    if not is_file(path):
        part = unfinished(path)
        if part:
            return f"is only there as {part.name}: download not finished; start it again, it goes on from there"
        return "is not there; download it or correct it"
    size = path.stat().st_size
    if size == 0:
        return "is empty (0 bytes); download it again"
    if stated is not None and size < stated:
        return f"is truncated: {size:,} of {stated:,} bytes; download it again"
    if stated is not None and size > stated:
        return f"is too large: {size:,} bytes where the manifest states {stated:,}; download it again"
    return ""
