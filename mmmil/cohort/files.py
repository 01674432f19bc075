"""Where a cohort's files lie, and whether each is there and whole, before any of them is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from mmmil.params import Params
from mmmil.sources.findings import Finding
from mmmil.sources.manifests import read_manifest, unfinished
from mmmil.sources.slide_files import SUFFIXES, images_of, is_pattern, parts_of
from mmmil.sources.tables import absolute, fail, is_file

LEFT_BY_TOOLS = (".", "annotations.txt", "MANIFEST", "gdc_manifest", "Thumbs.db", "desktop.ini")


def place(p: Params, folder: str, row: pd.Series) -> Path:
    """Where a file of the sheet lies: <folder>/<File Name>, or <folder>/<File ID>/<File Name> as gdc-client puts it.

    A link keeps its own name, by which manifests and tables of slides know it.
    """
    flat = absolute(p.data / folder / row["File Name"])
    nested = flat.parent / row["File ID"] / row["File Name"]
    return nested if not is_file(flat) and (is_file(nested) or unfinished(nested)) else flat


def stated_sizes(p: Params) -> dict[str, int]:
    """{file name: bytes} by the `manifests`; CohortError where two of them state different sizes of a file."""
    sizes: dict[str, int] = {}
    faults = []
    for path in map(p.path, p.manifests):
        table = read_manifest(path)
        for name, size in zip(table["filename"], table["size"], strict=True):
            if sizes.setdefault(name, int(size)) != size:
                faults.append(
                    f"{path}: {name} has {size:,} bytes, by another manifest {sizes[name]:,}; name the newer one alone"
                )
    fail(faults)
    return sizes


def used_names(patients: pd.DataFrame, p: Params) -> pd.Series:
    """Paths of a cohort's slides and expression files, the index the patient."""
    paths = pd.concat([patients["slide_path"]] * p.has_pixels + [patients["expression_path"]])
    return paths[paths != ""]


def require(patients: pd.DataFrame, p: Params, source: str) -> None:
    """Raise CohortError naming every slide or expression file that is missing, empty or not of the stated size.

    patients: a cohort's table; source: what named the files. A file that no manifest names is taken as it is, unless
    one names it with other capitals: then the two names contradict each other.
    """
    sizes = stated_sizes(p)
    by_folded = {name.casefold(): name for name in sizes}
    faults = []
    whose: dict[Path, str] = {}
    for field in ("slide_path", "expression_path"):
        for patient, path in patients[field][patients[field] != ""].items():
            name = Path(path).name
            if field == "slide_path" and is_pattern(path):
                faults += [
                    f"{source}, patient {patient}: {field}: {path} {fault}"
                    for fault in _of_images(path, whose, patient)
                ]
                continue
            fault = _fault(Path(path), sizes.get(name))
            near = by_folded.get(name.casefold(), name)
            if not fault and name not in sizes and near != name:
                fault = f"is {near} in the manifest; rename the file"
            if fault:
                setting = "features_dir" if field == "slide_path" and p.features_dir else field
                faults.append(f"{source}, patient {patient}: {setting}: {path} {fault}")
    fail(faults)


def _of_images(pattern: str, whose: dict[Path, str], patient: str) -> list[str]:
    """What is wrong with a pattern of images of tiles. whose: image -> patient, to which the pattern's are added."""
    images = images_of(pattern)
    if not images:
        return ["matches no file; correct the pattern, or copy the images"]
    shared = [path for path in images if whose.setdefault(path, patient) != patient]
    if shared:
        return [f"names {len(shared):,} images of patient {whose[shared[0]]}, as {shared[0].name}; give each its own"]
    return []


def _fault(path: Path, stated: int | None) -> str:
    if not is_file(path):
        part = unfinished(path)
        if part:
            return f"is only there as {part.name}: download not finished; start it again, it goes on from there"
        if _is_link(path):
            return f"is a link to {path.readlink()}, which is not there; fetch that file, or mount its disk"
        if os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises for a name that no file can have
            return "is a folder; name the file in it (of DICOM any one of the slide's series)"
        if near := _in_other_case(path):
            return f"is not there, but {near} is; write its name as it is"
        return "is not there; download it or correct it"
    size = path.stat().st_size
    if size == 0:
        return "is empty (0 bytes); download it again"
    if stated is not None and size < stated:
        return f"is truncated: {size:,} of {stated:,} bytes; download it again"
    if stated is not None and size > stated:
        return f"is too large: {size:,} bytes where the manifest states {stated:,}; download it again"
    return ""


def _in_other_case(path: Path) -> str:
    """The name of a file there that differs from the path's in its capitals only, or ''."""
    try:
        return next((p.name for p in path.parent.iterdir() if p.name.casefold() == path.name.casefold()), "")
    except (OSError, ValueError):
        return ""


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:  # a name that no file can have
        return False


def manifest_findings(patients: pd.DataFrame, p: Params) -> list[Finding]:
    """Rows of the manifests whose file the cohort does not use, and used files that no manifest names, counted."""
    if not p.manifests:
        return []
    sizes, names = stated_sizes(p), {Path(path).name for path in used_names(patients, p)}
    if p.expression_matrix:
        names -= {Path(name).name for name in p.expression_matrix}
    unused, unstated = sorted(set(sizes) - names), sorted(names - set(sizes))
    file = ", ".join(p.manifests)
    found = []
    if unused:
        text = f"{len(unused):,} of {len(sizes):,} files are not used by the cohort, as {unused[0]}"
        found.append(Finding("manifest rows not used", text, "see the flow for the reasons they were left out", file))
    if unstated:
        text = f"{len(unstated):,} of {len(names):,} files of the cohort are in no manifest, as {unstated[0]}"
        remedy = "name the manifest of their download, without which a file that was cut short is not seen"
        found.append(Finding("files without a stated size", text, remedy, file))
    return found


def stray_findings(p: Params, named: set[str]) -> list[Finding]:
    """Files in slides/ and expression/ that no table names, where the cohort reads files of that kind.

    named: file names that the sheets or the table name, used or left out. The parts of such a slide, files in slides/
    that are none (outlines, thumbnails), and what tools leave beside a download (`annotations.txt`, manifests, logs,
    unfinished files) do not count.
    """
    found = []
    for folder in ["slides"] * p.has_pixels + ["expression"] * (p.has_genes and not p.expression_matrix):
        paths = [path for depth in ("*", "*/*") for path in (p.data / folder).glob(depth)]
        parts = {part for path in paths if path.name in named for part in parts_of(path)}
        strays = sorted(
            str(path.relative_to(p.data))
            for path in paths
            if is_file(path)
            and path.name not in named
            and path not in parts
            and (folder != "slides" or path.suffix.lower() in SUFFIXES)
            and not path.name.startswith(LEFT_BY_TOOLS)
            and path.parent.name != "logs"
            and path.suffix not in (".part", ".partial", ".parcel", ".md5")
        )
        if strays:
            text = f"{len(strays):,} files lie there that no table names, as {strays[0]}"
            remedy = "if they belong to the cohort, name them in its sample sheet or table; else remove them"
            found.append(Finding("files that no table names", text, remedy, str(p.data / folder)))
    return found
