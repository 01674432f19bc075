"""Who is in the study: patients with label and files, from an own table or from GDC files.

Everything is checked before any slide is opened. What a rule leaves out is counted with its reason; what contradicts
itself is one error that names the file, the patient, the field and the remedy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from mmmil import paper, record
from mmmil.cohort import features as cohort_features
from mmmil.cohort import files as cohort_files
from mmmil.cohort import labels as label_rules
from mmmil.cohort import matrices, own_table
from mmmil.cohort.flow import Tally, no_steps
from mmmil.cohort.split import again, fold_patients, split
from mmmil.params import FEATURES, Params
from mmmil.sources import aliquots, barcodes, sample_sheets
from mmmil.sources.findings import Finding
from mmmil.sources.tables import CohortError, absolute, distinct, fail

__all__ = [
    "Cohort",
    "CohortError",
    "again",
    "beside_paper",
    "build",
    "fold_patients",
    "folds_of",
    "split",
]


UNMATCHED = "clinical rows without a patient"


@dataclass(frozen=True)
class Cohort:
    """patients: index patient_id (unique, sorted), columns label (0, 1; -1 where a table has none), site, slide_id,
    slide_path, expression_path (absolute; '' for a modality the cohort lacks; with expression_matrix the matrix).
    Where features stand in the place of slides, slide_id and slide_path are those of a patient's first file.

    excluded: patient_id, reason and step, one row per patient or file that is left out; class_names: of class 0 and
    1; flow: one row per step with unit (files, columns, patients), entered, excluded, left (see mmmil.cohort.flow);
    notes: what building it found worth a look (mmmil.cohort.findings has it all); features: files made beforehand,
    one row each in the patients' order, columns encoder (FEATURES: in the place of slides), patient_id, slide_id, path.
    """

    patients: pd.DataFrame
    excluded: pd.DataFrame
    class_names: list[str]
    flow: pd.DataFrame = field(default_factory=no_steps)
    notes: list[Finding] = field(default_factory=list)
    features: pd.DataFrame = field(default_factory=cohort_features.no_features)

    @property
    def labels(self) -> pd.Series:
        return self.patients["label"]

    def __len__(self) -> int:
        return len(self.patients)


def build(p: Params, to_train: bool = True) -> Cohort:
    """The cohort that the parameters describe (Experimental Setup, Dataset); to_train: False where models are applied
    to it, which asks for no labels, no number of patients, and of no file whether it is there.

    From `cohort_table`, or from GDC `sample_sheets`, the columns of `expression_matrix` or the files of `features_dir`,
    with labels by `label_rule`. A slides-only table without the column label gives label -1: its slides can be tiled,
    no more.
    Raises CohortError for contradictions, missing files, classes too small to be split, and an empty cohort.
    """
    tally = Tally()
    notes: list[Finding] = []
    if p.cohort_table:
        source = str(p.path(p.cohort_table))
        patients, features = _from_table(p, tally, notes, to_train)
    else:
        source = (
            "the sample sheets and matrices"
            if FEATURES not in p.feature_folders
            else ("the features, sample sheets and matrices")
        )
        patients, features = _from_gdc(p, tally, notes)
    features = cohort_features.further(p, patients, features, notes)
    patients = _complete(patients, p, source, tally, features)
    excluded, steps = tally.tables()
    if patients.empty:
        reasons = [f"  {n} x {reason}" for reason, n in excluded["reason"].value_counts().items()]
        reasons += [f"  {note.text}" for note in notes if note.check in (label_rules.NOBODY_HAS, UNMATCHED)]
        raise CohortError(
            f"task '{p.task}': no patient is left from {source}; left out:\n"
            + ("\n".join(reasons) or "  nothing: no rows")
            + "\n"
            "name sheets or features of diagnostic slides and primary tumours, or correct label_rule and class_values"
        )
    if to_train:
        cohort_files.require(patients, p, source)
    patients = patients.sort_index()[own_table.COLUMNS[1:]]
    patients.index.name = "patient_id"
    if to_train and not (patients["label"] < 0).all():
        _require_classes(patients, p, excluded)
    place = {patient: i for i, patient in enumerate(patients.index)}
    features = features[features["patient_id"].isin(place)]
    order = [*p.feature_folders]
    at = features["encoder"].map(order.index), features["patient_id"].map(place)
    features = features.iloc[np.lexsort((features["slide_id"], at[1], at[0]))].reset_index(drop=True)
    return Cohort(patients, excluded, list(p.class_names), steps, notes, features)


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
def _from_table(p: Params, tally: Tally, notes: list[Finding], labelled: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Patients, and their features in the place of slides."""
    patients = own_table.read(p, labelled)
    features = cohort_features.of_table(p, patients, notes)
    if p.has_genes and p.expression_matrix:
        matrix_of = matrices.patients_of(p, tally, notes, keep=set(patients.index))
        patients["expression_path"] = [matrix_of.get(patient, "") for patient in patients.index]
    tally.step("table", "patients", len(patients), len(patients), [])  # a row that cannot be used is an error
    return patients, features


# -- from GDC files ----------------------------------------------------------------------------------------------
def _from_gdc(p: Params, tally: Tally, notes: list[Finding]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Patients, and their features in the place of slides."""
    from_sheets = p.has_pixels or (p.has_genes and not p.expression_matrix)
    from_sheets |= FEATURES in p.feature_folders and bool(p.sample_sheets) and p.label_rule == "project"
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
        expected = [sample_sheets.SLIDE] * p.has_pixels + [sample_sheets.EXPRESSION] * (
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
    features, slide_ids = cohort_features.no_features(), {i: path.stem for i, path in slides.items()}
    if FEATURES in p.feature_folders:
        folder = cohort_features.read(p, FEATURES)
        notes += folder.notes
        features = folder.rows(folder.of_patient)
        tally.step("features", "files", len(folder.files), len(features), folder.left_out)
        slide_ids = {i: names[0] for i, names in folder.of_patient.items()}
        slides = {i: folder.files[name] for i, name in slide_ids.items()}
    if p.has_genes and p.expression_matrix:
        files = matrices.patients_of(p, tally, notes)
    if FEATURES in p.feature_folders:
        fail(
            [
                f"{FEATURES}: {slides[i]}, patient {i}: is '{other}' in the matrices or sample sheets; write both alike"
                for i, other in barcodes.nearly_the_same(slides, files)
            ]
        )
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
    patients["slide_id"] = [slide_ids.get(i, "") for i in ids]
    patients["expression_path"] = [str(files.get(i, "")) for i in ids]
    return patients, features[features["patient_id"].isin(labels)]


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
def _complete(patients: pd.DataFrame, p: Params, source: str, tally: Tally, features: pd.DataFrame) -> pd.DataFrame:
    """Patients with every modality of the cohort, and the features of every encoder that is a folder; the others are an
    error or counted, by `incomplete`.
    """
    needed = [("slide_path", "slide")] * p.has_slides + [("expression_path", "expression")] * p.has_genes
    lacking = [(i, field, modality) for field, modality in needed for i in patients.index[patients[field] == ""]]
    for encoder in [name for name in p.feature_folders if name != FEATURES]:
        there = set(features["patient_id"][features["encoder"] == encoder])
        lacking += [(i, "encoders", f"features of {encoder}") for i in patients.index if i not in there]
    if p.incomplete == "error":
        other = {"slide_path": "genes", "expression_path": "slides"}
        none = {field: len(needed) > 1 and (patients[field] == "").all() for field, _ in needed}
        whole = {
            field: f", or set inputs: {other[field]}, since no patient has one" if none[field] else "" for field in none
        }
        whole["encoders"] = ", or leave the encoder out"
        remedy = "add it, or set incomplete: exclude"
        shown = {"slide_path": FEATURES} if p.features_dir else {}
        steps = {"features": "slide"}
        why = {
            (i, steps.get(step, step)): f" ({reason.removeprefix(f'{step}: ')})" for i, reason, step in tally.left_out
        }
        fail(
            [
                f"{source}, patient {i}: {shown.get(field, field)}: has no {modality}{why.get((i, modality), '')}; "
                f"{remedy}{whole[field]}"
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
