"""Who is in the study: patients with label and files, from an own table or from GDC files.

Everything is checked before any slide is opened. What a rule leaves out is counted with its reason; what contradicts
itself is one error that names the file, the patient, the field and the remedy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mmmil import paper, record
from mmmil.cohort import files as cohort_files
from mmmil.cohort import labels as label_rules
from mmmil.cohort import own_table
from mmmil.cohort.flow import Tally, no_steps
from mmmil.cohort.split import fold_patients, split, write_splits
from mmmil.params import Params
from mmmil.sources import aliquots, barcodes, sample_sheets
from mmmil.sources import expression as expression_files
from mmmil.sources.findings import Finding
from mmmil.sources.tables import CohortError, absolute, distinct, fail

__all__ = ["Cohort", "CohortError", "beside_paper", "build", "fold_patients", "folds_of", "split", "write_splits"]


UNMATCHED = "clinical rows without a patient"
UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Cohort:
    """patients: index patient_id (unique, sorted), columns label (0, 1; -1 where a table has none), site, slide_id,
    slide_path, expression_path (absolute; '' for a modality the cohort lacks; with expression_matrix the matrix).

    excluded: patient_id, reason and step, one row per patient or file that is left out; class_names: of class 0 and
    1; flow: one row per step with unit (files, columns, patients), entered, excluded, left (see mmmil.cohort.flow);
    notes: what building it found worth a look (mmmil.cohort.findings has it all).
    """

    patients: pd.DataFrame
    excluded: pd.DataFrame
    class_names: list[str]
    flow: pd.DataFrame = field(default_factory=no_steps)
    notes: list[Finding] = field(default_factory=list)

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
    tally = Tally()
    notes: list[Finding] = []
    if p.cohort_table:
        patients, source = _from_table(p, tally, notes), str(p.path(p.cohort_table))
    else:
        patients, source = _from_gdc(p, tally, notes), "the sample sheets and matrices"
    patients = _complete(patients, p, source, tally)
    excluded, steps = tally.tables()
    if patients.empty:
        reasons = [f"  {n} x {reason}" for reason, n in excluded["reason"].value_counts().items()]
        reasons += [f"  {note.text}" for note in notes if note.check in (label_rules.NOBODY_HAS, UNMATCHED)]
        raise CohortError(
            f"task '{p.task}': no patient is left from {source}; left out:\n"
            + ("\n".join(reasons) or "  nothing: no rows")
            + "\n"
            "name sheets of diagnostic slides and primary tumours, or correct label_rule and class_values"
        )
    cohort_files.require(patients, p, source)
    patients = patients.sort_index()[own_table.COLUMNS[1:]]
    patients.index.name = "patient_id"
    if not (patients["label"] < 0).all():
        _require_classes(patients, p, excluded)
    return Cohort(patients, excluded, list(p.class_names), steps, notes)


def beside_paper(cohort: Cohort, p: Params) -> pd.DataFrame | None:
    """Patients per class beside the paper's (Experimental Setup, Dataset), or None.

    Columns class, in the paper, found, difference. None for classes that the paper does not have, and for a synthetic
    cohort: its numbers are never set beside the paper's.
    """
    in_the_paper = paper.PATIENTS.get((p.class_names[0], p.class_names[1]))
    if in_the_paper is None or p.synthetic:
        return None
    counts = [int((cohort.labels == label).sum()) for label in (0, 1)]
    table = pd.DataFrame({"class": cohort.class_names, "in the paper": in_the_paper, "found": counts})
    return table.assign(difference=table["found"] - table["in the paper"])


# -- from an own table -------------------------------------------------------------------------------------------
def _from_table(p: Params, tally: Tally, notes: list[Finding]) -> pd.DataFrame:
    patients = own_table.read(p)
    if p.has_genes and p.expression_matrix:
        matrices = _matrix_patients(p, tally, notes, keep=set(patients.index))
        patients["expression_path"] = [matrices.get(patient, "") for patient in patients.index]
    tally.step("table", "patients", len(patients), len(patients), [])  # a row that cannot be used is an error
    return patients


# -- from GDC files ----------------------------------------------------------------------------------------------
def _from_gdc(p: Params, tally: Tally, notes: list[Finding]) -> pd.DataFrame:
    from_sheets = p.has_slides or not p.expression_matrix
    if from_sheets and not p.sample_sheets:
        raise CohortError(f"task '{p.task}': name a cohort_table, or the GDC's sample_sheets")
    if p.label_rule == "table":
        rules = ", ".join([*label_rules.RULES, "matrix"])
        raise CohortError(f"task '{p.task}': label_rule 'table' needs a cohort_table; or use one of {rules}")
    slides: dict[str, Path] = {}
    files: Mapping[str, Path | str] = {}
    projects: dict[str, str] = {}
    if from_sheets:
        rows = sample_sheets.read_sample_sheets([p.path(name) for name in p.sample_sheets])
        projects = rows.groupby("Case ID")["Project ID"].agg(lambda names: " / ".join(distinct(names))).to_dict()
        expected = [sample_sheets.SLIDE] * p.has_slides + [sample_sheets.EXPRESSION] * (
            p.has_genes and not p.expression_matrix
        )
        sheet, left_out = sample_sheets.used_files(rows, expected)
        tally.step("file", "files", len(rows), len(sheet), left_out)
        if sample_sheets.SLIDE in expected:
            chosen, left_out = sample_sheets.choose_slides(sheet)
            tally.step("slide", "files", (sheet["Data Type"] == sample_sheets.SLIDE).sum(), len(chosen), left_out)
            slides = {patient: cohort_files.place(p, "slides", row) for patient, row in chosen.iterrows()}
        if sample_sheets.EXPRESSION in expected:
            chosen, left_out = sample_sheets.choose_expression(sheet, p.expression_kind)
            used = {patient: sample_sheets.row_aliquot(row, patient) for patient, row in chosen.iterrows()}
            notes += aliquots.aliquot_findings(used, left_out, ", ".join(p.sample_sheets))
            tally.step(
                "expression", "files", (sheet["Data Type"] == sample_sheets.EXPRESSION).sum(), len(chosen), left_out
            )
            files = {patient: cohort_files.place(p, "expression", row) for patient, row in chosen.iterrows()}
    if p.has_genes and p.expression_matrix:
        files = _matrix_patients(p, tally, notes)
    either = sorted(slides.keys() | files.keys())
    values = _label_values(p, either, files, projects, notes)
    classes = label_rules.classes(p)
    notes += label_rules.value_findings(p, values)
    labels = {i: label for i in either if (label := label_rules.class_of(values[i], classes)) is not None}
    ids = list(labels)
    unlabelled = [(i, f"label: {p.label_rule} is '{values[i]}'") for i in either if i not in labels]
    tally.step("label", "patients", len(either), len(ids), unlabelled)
    patients = pd.DataFrame(index=pd.Index(ids, name="patient_id", dtype=object))
    patients["label"] = pd.Series(labels, dtype=int)
    patients["site"] = [barcodes.site_of(i) for i in ids]
    patients["slide_path"] = [str(slides.get(i, "")) for i in ids]
    patients["slide_id"] = [Path(value).stem if value else "" for value in patients["slide_path"]]
    patients["expression_path"] = [str(files.get(i, "")) for i in ids]
    return patients


def _matrix_patients(p: Params, tally: Tally, notes: list[Finding], keep: set[str] | None = None) -> dict[str, str]:
    """{patient: matrix that holds the patient's column}; `keep`: the patients of an own table, the others are left out.

    Raises CohortError for a patient in two matrices, and where a column differs from a patient of the table, or of
    another matrix, in its spelling only, and where no column is a patient of the table.
    """
    matrix_of: dict[str, str] = {}
    faults, left_out, entered = [], [], 0
    for name in p.expression_matrix:
        path = str(absolute(p.path(name)))
        columns = aliquots.column_aliquots(expression_files.matrix_columns(Path(path)), path)
        entered += len(columns)
        if keep is not None:
            there = {aliquot.patient for aliquot in columns}
            faults += [
                f"{p.path(p.cohort_table)}, patient {patient}: is '{column}' in {path}; write both alike"
                for patient, column in barcodes.nearly_the_same(sorted(keep), there)
                if column not in keep
            ]
            strangers = [aliquot for aliquot in columns if aliquot.patient not in keep]
            left_out += [(aliquot.patient, "expression: the patient is not in the own table") for aliquot in strangers]
            columns = [aliquot for aliquot in columns if aliquot.patient in keep]
        chosen, more = aliquots.one_aliquot_each(columns)
        notes += aliquots.aliquot_findings(chosen, more, name)
        if keep is None and all(UUID.fullmatch(patient) for patient in chosen):
            text = f"its {len(chosen):,} columns are named by UUIDs; of files or columns, several may be of one patient"
            notes.append(Finding("UUIDs as patients", text, "name the columns by TCGA barcodes or patients", name))
        left_out += more
        faults += [
            f"{path}, patient {patient}: is '{other}' in {matrix_of[other]}; write both alike, or delete one"
            for patient, other in barcodes.nearly_the_same(chosen, matrix_of)
        ]
        for patient in chosen:
            if patient in matrix_of:
                faults.append(f"{path}, patient {patient}: is in {matrix_of[patient]}, too; delete one of the columns")
            matrix_of[patient] = path
    notes += _perhaps_there(sorted((keep or set()) - set(matrix_of)), left_out, ", ".join(p.expression_matrix))
    if keep and not matrix_of and not faults:
        strange = ", ".join(f"'{patient}'" for patient, _ in left_out[:3]) or "no column"
        faults.append(
            f"{', '.join(p.expression_matrix)}: holds no patient of {p.cohort_table}, which has '{min(keep)}', but "
            f"{strange}; name the columns as the patients"
        )
    fail(faults)
    tally.step("expression", "columns", entered, len(matrix_of), left_out)
    return matrix_of


def _perhaps_there(lacking: list[str], left_out: list[tuple[str, str]], file: str) -> list[Finding]:
    """Patients of an own table without a column, where one that is left out has a longer name."""
    pairs = barcodes.perhaps_meant(lacking, (patient for patient, _ in left_out))
    if not pairs:
        return []
    text = f"{len(pairs):,} patients of the table have no column, and columns have longer names, as "
    text += f"'{pairs[0][1]}' for {pairs[0][0]}"
    return [Finding("columns perhaps of patients", text, "name the columns as the patients if they are theirs", file)]


def _label_values(
    p: Params, ids: list[str], files: Mapping[str, Path | str], projects: dict[str, str], notes: list[Finding]
) -> dict[str, str]:
    """{patient: what the label rule reads}."""
    if p.label_rule == "matrix":
        named_files = sorted(value for values in p.class_values for value in values)
        if named_files != sorted(p.expression_matrix) or not p.has_genes:
            alone = "" if p.has_genes else f" and inputs is '{p.inputs}'; set inputs: genes"
            raise CohortError(
                f"label_rule 'matrix': class_values must name every file of expression_matrix, once{alone}"
            )
        names = {str(absolute(p.path(name))): name for name in p.expression_matrix}
        return {i: names.get(str(files.get(i, "")), "no matrix") for i in ids}
    if p.label_rule == "project" and projects:
        return {i: projects.get(i, f"{label_rules.NOT_IN}sample sheets") for i in ids}
    if not p.clinical:
        raise CohortError(f"label_rule '{p.label_rule}' reads a clinical table; name it in `clinical`")
    tables = ", ".join(p.clinical)
    values = label_rules.clinical_values(p.label_rule, [p.path(name) for name in p.clinical])
    fail(
        [
            f"{tables}, patient {other}: is '{i}' in the matrices or sample sheets; write both alike"
            for i, other in barcodes.nearly_the_same(ids, values)
        ]
    )
    unmatched = sorted(values.keys() - set(ids))
    if unmatched:
        text = f"{len(unmatched):,} of {len(values):,} patients have no file in the cohort, as {unmatched[0]}"
        remedy = "nothing to do if the table is of a whole project; else look at how its patients are written"
        notes.append(Finding(UNMATCHED, text, remedy, tables))
    return {i: values.get(i, f"{label_rules.NOT_IN}clinical tables") for i in ids}


# -- checks ------------------------------------------------------------------------------------------------------
def _complete(patients: pd.DataFrame, p: Params, source: str, tally: Tally) -> pd.DataFrame:
    """Patients with every modality of the cohort; the others are an error or counted, by `incomplete`."""
    needed = [("slide_path", "slide")] * p.has_slides + [("expression_path", "expression")] * p.has_genes
    lacking = [(i, field, modality) for field, modality in needed for i in patients.index[patients[field] == ""]]
    if p.incomplete == "error":
        other = {"slide_path": "genes", "expression_path": "slides"}
        none = {field: len(needed) > 1 and (patients[field] == "").all() for field, _ in needed}
        whole = {
            field: f", or set inputs: {other[field]}, since no patient has one" if none[field] else "" for field in none
        }
        remedy = "add it, or set incomplete: exclude"
        why = {(i, step): f" ({reason.removeprefix(f'{step}: ')})" for i, reason, step in tally.left_out}
        fail(
            [
                f"{source}, patient {i}: {field}: has no {modality}{why.get((i, modality), '')}; {remedy}{whole[field]}"
                for i, field, modality in lacking
            ]
        )
    reasons: dict[str, str] = {}
    for i, _, modality in lacking:
        reasons[i] = f"{reasons[i]}, no {modality}" if i in reasons else f"incomplete: no {modality}"
    complete = patients.drop(list(reasons))
    tally.step("incomplete", "patients", len(patients), len(complete), reasons.items())
    return complete


def folds_of(patients: pd.DataFrame, p: Params) -> pd.Series:
    """The split of a cohort's patients (index patient_id, columns label and site) that the parameters ask for."""
    groups = patients["site"] if p.fold_groups == "site" else None
    labels = patients["label"]
    inputs = {
        "patients": labels.index.tolist(),
        "labels": labels.tolist(),
        "groups": None if groups is None else groups.tolist(),
        "parameters": [p.test_fraction, p.n_folds, p.seed],
        "versions": record.versions("numpy", "pandas", "scikit-learn"),
    }

    def make(folder: Path) -> None:
        folds = split(labels, p.test_fraction, p.n_folds, p.seed, groups)
        (folder / "folds.json").write_text(json.dumps(folds.tolist()))

    cached_folder = record.cached(p.results / "folds", inputs, make)
    return pd.Series(json.loads((cached_folder / "folds.json").read_text()), index=labels.index, name="fold")


def _require_classes(patients: pd.DataFrame, p: Params, excluded: pd.DataFrame) -> None:
    labels = patients["label"]
    sizes = [int((labels == c).sum()) for c in (0, 1)]
    if min(sizes) < p.n_folds + 1:
        reasons = "".join(f"\n  {n} x {reason}" for reason, n in excluded["reason"].value_counts().items())
        raise CohortError(
            f"task '{p.task}': {sizes[0]} patients of {p.class_names[0]} and {sizes[1]} of {p.class_names[1]}, but "
            f"{p.n_folds} folds and a test set need {p.n_folds + 1} of each; lower n_folds or add patients. "
            f"Left out:{reasons or ' none'}"
        )
    folds_of(patients, p)
