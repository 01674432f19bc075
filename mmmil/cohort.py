"""Who is in the study: patients with label and files, from an own table or from GDC files.

Everything is checked before any slide is opened. What a rule leaves out is counted with its reason; what contradicts
itself is one error that names the file, the patient, the field and the remedy.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmmil import expression_files, label_rules, tcga
from mmmil.params import Params
from mmmil.splits import fold_patients, split, write_splits
from mmmil.tcga import CohortError

__all__ = ["Cohort", "CohortError", "build", "fold_patients", "split", "write_splits"]

TABLE_COLUMNS = ["patient_id", "label", "site", "slide_id", "slide_path", "expression_path"]
SHOWN = 20  # faults spelled out in one error; the rest is counted


@dataclass(frozen=True)
class Cohort:
    """patients: index patient_id (unique, sorted), columns label (0, 1; -1 where a table has none), site, slide_id,
    slide_path, expression_path (absolute; '' for a modality the cohort lacks; with expression_matrix the matrix).

    excluded: patient_id and reason, one row per patient or file that is left out; class_names: of class 0 and 1.
    """

    patients: pd.DataFrame
    excluded: pd.DataFrame
    class_names: list[str]

    @property
    def labels(self) -> pd.Series:
        return self.patients["label"]

    def __len__(self) -> int:
        return len(self.patients)


def build(p: Params) -> Cohort:
    """The cohort that the parameters describe (Experimental Setup, Dataset).

    From `cohort_table`, or from GDC `sample_sheets` or the columns of `expression_matrix`, with labels by
    `label_rule`. A slides-only table without the column label gives label -1: its slides can be tiled, no more.
    Raises CohortError for contradictions, missing files, classes too small to be split, and an empty cohort.
    """
    excluded: list[tuple[str, str]] = []
    if p.cohort_table:
        patients, source = _own_table(p, excluded), p.path(p.cohort_table)
    else:
        patients, source = _from_gdc(p, excluded), "the sample sheets and matrices"
    patients = _complete(patients, p, source, excluded)
    counts = pd.DataFrame(excluded, columns=["patient_id", "reason"])
    if patients.empty:
        reasons = "\n".join(f"  {n} x {reason}" for reason, n in counts["reason"].value_counts().items())
        raise CohortError(
            f"task '{p.task}': no patient is left from {source}; left out:\n{reasons or '  nothing: no rows'}\n"
            "name sheets of diagnostic slides and primary tumours, or correct label_rule and class_values"
        )
    _require_files(patients, source)
    patients = patients.sort_index()[TABLE_COLUMNS[1:]]
    patients.index.name = "patient_id"
    if not (patients["label"] < 0).all():
        _require_classes(patients["label"], p, counts)
    return Cohort(patients, counts, list(p.class_names))


def _fail(faults: list[str]) -> None:
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise CohortError("the cohort cannot be used:\n" + "\n".join(f"  {f}" for f in faults[:SHOWN] + more))


# -- from an own table -------------------------------------------------------------------------------------------
def _own_table(p: Params, excluded: list) -> pd.DataFrame:
    path = p.path(p.cohort_table)
    if p.label_rule != "table":
        raise CohortError(
            f"{path} has its own labels, but label_rule is '{p.label_rule}'; set label_rule: table, or no cohort_table"
        )
    table = tcga.read_table(path)
    needed = ["patient_id"]
    needed += ["slide_path"] if p.has_slides else []
    needed += ["label"] if p.has_genes else []
    needed += ["expression_path"] if p.has_genes and not p.expression_matrix else []
    faults = [f"{path}: the column '{name}' is missing; add it" for name in needed if name not in table]
    for name in set(table.columns) - set(TABLE_COLUMNS):
        near = difflib.get_close_matches(name, TABLE_COLUMNS, n=1, cutoff=0.8)
        if near and near[0] not in table:
            faults.append(f"{path}: the column '{name}' is unknown; rename it to '{near[0]}'")
    _fail(faults)
    names = {"0": 0, "1": 1} | _classes(p) | {name: i for i, name in enumerate(p.class_names)}
    where = [f"{path}, line {i + 2}, patient {name or '?'}" for i, name in enumerate(table["patient_id"])]
    for i, row in table.iterrows():
        if not row["patient_id"]:
            faults.append(f"{where[i]}: patient_id is empty; fill it in or delete the row")
        if "label" in table and row["label"] not in names:
            faults.append(
                f"{where[i]}: label '{row['label']}' is none of {', '.join(names)}; correct it or delete the row"
            )
    for name, what in {
        "patient_id": "stands there more than once; keep one row per patient",
        "slide_id": "belongs to more than one patient; correct it",
        "slide_path": "belongs to more than one patient; correct it",
    }.items():
        again = table[name].duplicated() & (table[name] != "") if name in table else []
        faults += [f"{where[i]}: {name} '{table[name][i]}' {what}" for i in np.flatnonzero(again)]
    _fail(faults)
    patients = pd.DataFrame(index=pd.Index(table["patient_id"], name="patient_id"))
    patients["label"] = table["label"].map(names).to_numpy() if "label" in table else -1
    for name in ("site", "slide_id", "slide_path", "expression_path"):
        patients[name] = table[name].to_numpy() if name in table else ""
    for name, used in (("slide_path", p.has_slides), ("expression_path", p.has_genes)):
        patients[name] = [str((p.data / value).resolve()) if value and used else "" for value in patients[name]]
    stems = [Path(value).stem if value else "" for value in patients["slide_path"]]
    patients["slide_id"] = patients["slide_id"].where(patients["slide_id"] != "", stems)
    if p.has_genes and p.expression_matrix:
        matrices = _matrix_patients(p, excluded, keep=set(patients.index))
        patients["expression_path"] = [matrices.get(patient, "") for patient in patients.index]
    return _with_sites(patients)


def _with_sites(patients: pd.DataFrame) -> pd.DataFrame:
    """TCGA barcodes hold the site that the table does not give."""
    return patients.assign(
        site=[site or tcga.site_of(patient) for patient, site in patients["site"].items()],
        label=patients["label"].astype(int),
    )


# -- from GDC files ----------------------------------------------------------------------------------------------
def _from_gdc(p: Params, excluded: list) -> pd.DataFrame:
    from_sheets = p.has_slides or not p.expression_matrix
    if from_sheets and not p.sample_sheets:
        raise CohortError(f"task '{p.task}': name a cohort_table, or the GDC's sample_sheets")
    if p.label_rule == "table":
        raise CohortError(f"task '{p.task}': label_rule 'table' needs a cohort_table; or use grade, project or ihc")
    slides, files, projects = {}, {}, {}
    if from_sheets:
        sheet = tcga.read_sample_sheets([p.path(name) for name in p.sample_sheets])
        projects = dict(zip(sheet["Case ID"], sheet["Project ID"], strict=True))
        other = sheet[~sheet["Data Type"].isin([tcga.SLIDE, tcga.EXPRESSION])]
        excluded += [(r["Case ID"], f"file: data type {r['Data Type']} is not used") for _, r in other.iterrows()]
        if p.has_slides:
            rows, left_out = tcga.choose_slides(sheet)
            excluded += left_out
            slides = {patient: _downloaded(p, "slides", row) for patient, row in rows.iterrows()}
        if p.has_genes and not p.expression_matrix:
            rows, left_out = tcga.choose_expression(sheet, p.expression_kind)
            excluded += left_out
            files = {patient: _downloaded(p, "expression", row) for patient, row in rows.iterrows()}
    if p.has_genes and p.expression_matrix:
        files = _matrix_patients(p, excluded)
    ids = sorted(slides.keys() | files.keys())
    values = _label_values(p, ids, files, projects)
    classes = _classes(p)
    excluded += [(i, f"label: {p.label_rule} is '{values[i]}'") for i in ids if values[i] not in classes]
    ids = [i for i in ids if values[i] in classes]
    patients = pd.DataFrame(index=pd.Index(ids, name="patient_id", dtype=object))
    patients["label"] = [classes[values[i]] for i in ids]
    patients["site"] = ""
    patients["slide_path"] = [str(slides.get(i, "")) for i in ids]
    patients["slide_id"] = [Path(value).stem if value else "" for value in patients["slide_path"]]
    patients["expression_path"] = [str(files.get(i, "")) for i in ids]
    return _with_sites(patients)


def _classes(p: Params) -> dict[str, int]:
    """{value of the label rule: class}."""
    both = {value for value in p.class_values[0] if value in p.class_values[1]} if p.class_values else ()
    if both:
        raise CohortError(f"class_values: {', '.join(sorted(both))} cannot mean both classes; name it once")
    return {value: i for i, values in enumerate(p.class_values) for value in values}


def _downloaded(p: Params, folder: str, row: pd.Series) -> Path:
    """Where a file of the sheet lies: <folder>/<File Name>, or <folder>/<File ID>/<File Name> as gdc-client puts it."""
    flat = (p.data / folder / row["File Name"]).resolve()
    nested = flat.parent / row["File ID"] / row["File Name"]
    return nested if nested.is_file() and not flat.is_file() else flat


def _matrix_patients(p: Params, excluded: list, keep: set[str] | None = None) -> dict[str, str]:
    """{patient: matrix that holds the patient's column}; `keep`: only these patients."""
    found: dict[str, str] = {}
    faults = []
    for name in p.expression_matrix:
        path = p.path(name).resolve()
        columns, left_out = tcga.primary_columns(expression_files.matrix_columns(path))
        excluded += [(patient, reason) for patient, reason in left_out if keep is None or patient in keep]
        for patient in columns:
            if patient in found:
                faults.append(f"{path}, patient {patient}: is in {found[patient]}, too; delete one of the columns")
            elif keep is None or patient in keep:
                found[patient] = str(path)
    _fail(faults)
    return found


def _label_values(p: Params, ids: list[str], files: dict[str, str], projects: dict[str, str]) -> dict[str, str]:
    """{patient: what the label rule reads}."""
    if p.label_rule == "matrix":
        named = sorted(value for values in p.class_values for value in values)
        if named != sorted(p.expression_matrix) or not p.has_genes:
            raise CohortError("label_rule 'matrix': class_values must name every file of expression_matrix, once")
        names = {str(p.path(name).resolve()): name for name in p.expression_matrix}
        return {i: names.get(files.get(i), "no matrix") for i in ids}
    if p.label_rule == "project" and projects:
        return {i: projects.get(i, "not in the sample sheets") for i in ids}
    if not p.clinical:
        raise CohortError(f"label_rule '{p.label_rule}' reads a clinical table; name it in `clinical`")
    values = label_rules.clinical_values(p.label_rule, [p.path(name) for name in p.clinical])
    return {i: values.get(i, "not in the clinical tables") for i in ids}


# -- checks ------------------------------------------------------------------------------------------------------
def _complete(patients: pd.DataFrame, p: Params, source, excluded: list) -> pd.DataFrame:
    """Patients with every modality of the cohort; the others are an error or counted, by `incomplete`."""
    needed = [("slide_path", "slide")] * p.has_slides + [("expression_path", "expression")] * p.has_genes
    lacking = [(i, field, what) for field, what in needed for i in patients.index[patients[field] == ""]]
    if p.incomplete == "error":
        remedy = "add it, or set incomplete: exclude"
        _fail([f"{source}, patient {i}: {field}: has no {what}; {remedy}" for i, field, what in lacking])
    excluded += [(i, f"incomplete: no {what}") for i, _, what in lacking]
    return patients.drop({i for i, _, _ in lacking})


def _require_files(patients: pd.DataFrame, source) -> None:
    faults = []
    for field in ("slide_path", "expression_path"):
        for patient, name in patients[field][patients[field] != ""].items():
            path = Path(name)
            if not path.is_file():
                faults.append(f"{source}, patient {patient}: {field}: {path} is not there; download it or correct it")
            elif path.stat().st_size == 0:
                faults.append(f"{source}, patient {patient}: {field}: {path} is empty (0 bytes); download it again")
    _fail(faults)


def _require_classes(labels: pd.Series, p: Params, excluded: pd.DataFrame) -> None:
    sizes = [int((labels == c).sum()) for c in (0, 1)]
    if min(sizes) < p.n_folds + 1:
        reasons = "".join(f"\n  {n} x {reason}" for reason, n in excluded["reason"].value_counts().items())
        raise CohortError(
            f"task '{p.task}': {sizes[0]} patients of {p.class_names[0]} and {sizes[1]} of {p.class_names[1]}, but "
            f"{p.n_folds} folds and a test set need {p.n_folds + 1} of each; lower n_folds or add patients. "
            f"Left out:{reasons or ' none'}"
        )
    split(labels, p.test_fraction, p.n_folds, p.seed)
