"""An own table as a cohort's source: one row per patient with label and files, every fault named at once."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from pathlib import Path

import pandas as pd

from mmmil.cohort import features
from mmmil.cohort import labels as label_rules
from mmmil.params import Params
from mmmil.sources import barcodes
from mmmil.sources.slide_files import is_pattern
from mmmil.sources.tables import CohortError, absolute, fail, folded, read_table

COLUMNS = ["patient_id", "label", "site", "slide_id", "slide_path", "expression_path"]
ALSO_CALLED = {"slide": "slide_id", "slides": "slide_id", "patient": "patient_id"}
LONGEST = 200  # bytes of a slide_id: file systems take 255, and results add words of their own to it
ONCE = {
    "patient_id": "stands there more than once; keep one row per patient",
    "slide_id": "belongs to more than one patient; give each slide its own in the column slide_id",
    "slide_path": "belongs to more than one patient; correct it",
    "expression_path": "belongs to more than one patient; correct it, or name a matrix of all in expression_matrix",
}


def read(p: Params, labelled: bool = True) -> pd.DataFrame:
    """The patients of `cohort_table`: index patient_id, the other COLUMNS; files as absolute paths, '' where unused.

    Where features stand in the place of slides, slide_id names the slides of a patient, separated by ';' (by the names
    of slide_path where it has none; else the patient's own name counts, `mmmil.cohort.features`). A slide_path with
    ``*``, ``?`` or ``[`` is a pattern of images of tiles (`sources.slide_files`), whose slide is called as its patient.
    The label is 0, 1, a class's name or one of its class_values, in any case; -1 where slides only have no such
    column. labelled: False where labels are not needed: column and cells may be missing, which is -1. A TCGA barcode in
    any spelling is its patient, and has a site where the table gives none. Of other cells what says that nothing is
    known (R's NA, pandas' nan) is empty. Raises CohortError with every fault: file, line, patient, field, remedy.
    """
    path = p.path(p.cohort_table)
    if p.label_rule != "table":
        raise CohortError(
            f"{path} has its own labels, but label_rule is '{p.label_rule}'; set label_rule: table, or no cohort_table"
        )
    table = read_table(path)
    _require_columns(p, path, table, labelled)
    for name in set(COLUMNS) - {"label"} & set(table):
        table[name] = table[name].where(~table[name].map(label_rules.is_missing), "")
    names = {"0": 0, "1": 1} | label_rules.classes(p) | {name: i for i, name in enumerate(p.class_names)}
    table["patient_id"] = _patients(path, table["patient_id"])
    where = {line: f"{path}, line {line}, patient {name or '?'}" for line, name in table["patient_id"].items()}
    faults = [
        f"{where[line]}: patient_id is empty; fill it in or delete the row"
        for line in table.index[table["patient_id"] == ""]
    ]
    if "label" in table:
        table["label"] = table["label"].str.replace(
            r"^([01])\.0$", r"\1", regex=True
        )  # as pandas writes it beside gaps
        faults += [
            f"{where[line]}: label '{label}' is none of {', '.join(names)}; correct it or delete the row"
            for line, label in table["label"].items()
            if label_rules.class_of(label, names) is None and (labelled or not label_rules.is_missing(label))
        ]
    patients = pd.DataFrame({name: table.get(name, "") for name in COLUMNS}, index=table.index)
    patients["label"] = -1
    if "label" in table:
        classes = [label_rules.class_of(label, names) for label in table["label"]]
        patients["label"] = [-1 if label is None else label for label in classes]  # None: a fault, or not needed
    used = {"slide_path": p.has_pixels, "expression_path": p.has_genes and not p.expression_matrix}
    for name, needed in used.items():
        if needed and name in table:
            faults += [
                f"{where[line]}: {name} '{value}' {fault}"
                for line, value in table[name].items()
                if (fault := _no_path(value) or _of_another(value, table["patient_id"][line]))
            ]
        patients[name] = [str(absolute(p.data / value)) if value and needed else "" for value in patients[name]]
    first: dict[tuple[str, ...], str] = {}  # a site in two spellings would lie in two folds
    sites = [site or barcodes.site_of(i) for site, i in zip(patients["site"], patients["patient_id"], strict=True)]
    patients["site"] = [first.setdefault(barcodes.near_key(site), site) for site in sites]
    named = table["slide_path"] if p.features_dir and "slide_path" in table else patients["slide_path"]
    stems = [
        patient if is_pattern(value) else Path(value).stem  # of images of tiles nobody knows the slide
        for value, patient in zip(named, patients["patient_id"], strict=True)
    ]
    patients["slide_id"] = patients["slide_id"].where(patients["slide_id"] != "", stems)
    slides = patients["slide_id"].map(features.names_of if p.features_dir else lambda name: [name]).explode().fillna("")
    if p.features_dir or "slide_id" in table:  # features are found by it
        faults += [
            f"{where[line]}: slide_id '{name}' {fault}"
            for line, name in slides.items()
            if (fault := _of_another(name, table["patient_id"][line]))
        ]
    for name, fault in ONCE.items():
        of_file = patients[name].map(os.path.realpath) if name in used else patients[name]  # two links to one file
        if name == "slide_id":  # results lie in a folder of this name, on some disks in any case
            of_file = slides.map(lambda value: unicodedata.normalize("NFC", value).casefold())
        again = of_file.index[of_file.duplicated() & (of_file.index.map(patients[name]) != "")]
        written = table[name] if name in table else patients[name]
        faults += [f"{where[line]}: {name} '{written[line] or patients[name][line]}' {fault}" for line in again]
    faults += [  # a slide's results lie in a folder of this name
        f"{where[line]}: slide_id '{name}' cannot be a folder's name; leave out / and \\, and keep below "
        f"{LONGEST} bytes{'; several slides are separated by a semicolon' if p.features_dir else ''}"
        for line, name in slides.items()
        if name in (".", "..")
        or "/" in name
        or ("\\" in name and "slide_id" in table and table["slide_id"][line])
        or len(os.fsencode(name)) > LONGEST
    ]
    faults += [
        f"{path}: patient_id '{one}' and '{other}' differ in their spelling only; if they are one patient keep one "
        "row, else give them names that differ"
        for one, other in barcodes.spelled_twice(name for name in patients["patient_id"] if not barcodes.site_of(name))
    ]
    fail(faults)
    return patients.set_index("patient_id")


def _no_path(value: str) -> str:
    """Why a cell is no path of this system, or ''."""
    if re.match("[A-Za-z][A-Za-z0-9+.-]+://", value):
        return "is an address; download the file and write its path, without file://"
    return "is a path of Windows; write it with / and from data_dir on" if "\\" in value else ""


def _of_another(value: str, patient: str) -> str:
    """What a TCGA file's name says against its row, or ''."""
    named = barcodes.named_patient(Path(value).name)
    return f"is of {named} by its name; correct it" if named and barcodes.site_of(patient) and named != patient else ""


def _patients(path: Path, names: pd.Series) -> pd.Series:
    """The patients of the table's barcodes; CohortError for a sample that is no primary tumour."""
    patients = barcodes.identifiers(names, path)
    read = {line: barcodes.parse(name) for line, name in names.items()}
    fail(
        [
            f"{path}, line {line}, patient {barcode.patient}: '{names[line]}' is sample type {barcode.code}, "
            f"not a primary tumour; delete the row, or write {barcode.patient} if its files are the right ones"
            for line, barcode in read.items()
            if barcode and barcode.code not in ("", barcodes.PRIMARY)
        ]
    )
    return patients


def _require_columns(p: Params, path: Path, table: pd.DataFrame, labelled: bool) -> None:
    needed = {"patient_id": "add it"}
    if p.has_pixels:
        needed["slide_path"] = "add it, or set inputs: genes for a cohort without slides" if p.has_genes else "add it"
    if p.has_genes:
        if labelled:
            needed["label"] = "add it"
        if not p.expression_matrix:
            needed["expression_path"] = "add it, or set inputs: slides" if p.has_slides else "add it"
    faults = [
        f"{path}: the column '{name}' is missing; {remedy}" for name, remedy in needed.items() if name not in table
    ]
    for name in sorted(set(table.columns) - set(COLUMNS)):
        near = _column_meant(name)
        if near and near not in table:
            faults.append(f"{path}: the column '{name}' is unknown; rename it to '{near}'")
    fail(faults)


def _column_meant(name: str) -> str:
    """The column of COLUMNS that a name is nearly, or ''."""
    written = folded(name).replace(" ", "_")
    near = difflib.get_close_matches(written, COLUMNS, n=1, cutoff=0.8)
    return ALSO_CALLED.get(written, near[0] if near else "")


def unread_columns(p: Params) -> list[str]:
    """The columns of `cohort_table` that nobody reads, as they are written there."""
    return [name for name in read_table(p.path(p.cohort_table)).columns if name and name not in COLUMNS]
