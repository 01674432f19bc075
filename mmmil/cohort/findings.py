"""What a look at a cohort finds before anything is fitted: who was chosen with a doubt, and what matches nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mmmil.cohort import files as cohort_files
from mmmil.cohort import own_table
from mmmil.cohort.build import Cohort
from mmmil.params import FEATURES, Params
from mmmil.sources import barcodes, sample_sheets
from mmmil.sources.findings import Finding
from mmmil.sources.tables import absolute

CLASS_OF_FILE = "class is a file"


def find(cohort: Cohort, p: Params) -> list[Finding]:
    """Findings on who is in the study.

    Of building it (`cohort.notes`): patients whose only RNA is FFPE or may be, aliquots that cannot be told apart,
    class values that are nearly met or that nobody has, clinical rows without a patient, named slides without features.
    Then columns of an own table that nobody reads, slides that are not DX1
    or, in an own table, no diagnostic slides; manifest rows that are not used, files without a stated size, and files
    that no table names.
    """
    found = [*cohort.notes, *class_of_file(cohort.patients, p), *_later_slides(cohort, p), *_unread_columns(p)]
    return (
        found + cohort_files.manifest_findings(cohort.patients, p) + cohort_files.stray_findings(p, _named(cohort, p))
    )


def class_of_file(patients: pd.DataFrame, p: Params) -> list[Finding]:
    """Whether each expression matrix holds patients of one class alone, so that class and file cannot be told apart.

    With `label_rule: matrix` it is so by definition. patients: as `Cohort.patients`.
    """
    if not p.has_genes or not p.expression_matrix or set(patients["label"]) != {0, 1}:
        return []
    names = {str(absolute(p.path(name))): Path(name).name for name in p.expression_matrix}
    of_file = patients.groupby("expression_path")["label"].agg(set)
    if any(len(labels) > 1 for labels in of_file):
        return []
    files = [
        " and ".join(names.get(str(path), str(path)) for path, labels in of_file.items() if labels == {label})
        for label in (0, 1)
    ]
    zero, one = p.class_names
    text = f"all patients of {zero} are in {files[0]} and all of {one} in {files[1]}: whatever was done to one file "
    text += "alone (batch, scaling, rounding) tells the classes apart, and a model of genes may have learnt no more"
    remedy = "read both classes from one table, or from tables that were made alike"
    return [Finding(CLASS_OF_FILE, text, remedy, ", ".join(p.expression_matrix))]


def _later_slides(cohort: Cohort, p: Params) -> list[Finding]:
    """Patients of whom another diagnostic slide than the first is used."""
    named = [(i, Path(path).name) for i, path in cohort.patients["slide_path"].items()] if p.has_pixels else []
    if p.cohort_table:  # of a sheet's or a folder's own slides the slide rule has chosen
        named += [(row.patient_id, row.slide_id) for row in cohort.features.itertuples() if row.encoder == FEATURES]
    later, other = [], []
    for patient, name in named:
        section = barcodes.slide_section(name)
        if section and (section[1] != "DX" or section[0].code != barcodes.PRIMARY):
            other.append(f"{patient} ({section[0].code}, {section[1]})")
        elif section and section[2] != "1":
            later.append(f"{patient} (DX{section[2]})")
    if p.cohort_table:  # its slides are somebody's choice
        text = f"by their names, sample type and section, the slides of {_listed(other)} are no DX of a primary tumour"
        remedy = "name the diagnostic slides (01, DX) unless these are meant"
        return [Finding("no diagnostic slide", text, remedy, p.cohort_table)] if other else []
    if not later:
        return []
    text = f"the lowest diagnostic slide of {_listed(later)} is used, no DX1 is there"
    remedy = "add their DX1 to the sample sheet if the GDC has it"
    return [Finding("no DX1", text, remedy, ", ".join(p.sample_sheets))]


def _unread_columns(p: Params) -> list[Finding]:
    """Columns of an own table that decide nothing, whatever their names promise."""
    names = own_table.unread_columns(p) if p.cohort_table else []
    if not names:
        return []
    text = f"nothing reads {_listed(names)}"
    remedy = f"nothing to do if so; what is read is called {', '.join(own_table.COLUMNS)}"
    return [Finding("columns that are not read", text, remedy, p.cohort_table)]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _named(cohort: Cohort, p: Params) -> set[str]:
    """Names of the files that the cohort uses or that its sample sheets and manifests list."""
    names = {Path(path).name for path in cohort_files.used_names(cohort.patients, p)}
    names |= set(cohort_files.stated_sizes(p))
    if not p.cohort_table and p.sample_sheets:
        names |= set(sample_sheets.read_sample_sheets([p.path(name) for name in p.sample_sheets])["File Name"])
    if p.cohort_table:  # those of patients who are left out, too
        names |= {Path(path).name for path in cohort_files.used_names(own_table.read(p), p)}
    return names
