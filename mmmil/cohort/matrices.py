"""Whose the columns of a cohort's expression matrices are."""

from __future__ import annotations

import re
from pathlib import Path

from mmmil.cohort.flow import Tally
from mmmil.params import Params
from mmmil.sources import aliquots, barcodes
from mmmil.sources import expression as expression_files
from mmmil.sources.findings import Finding
from mmmil.sources.tables import absolute, fail

UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def patients_of(p: Params, tally: Tally, notes: list[Finding], keep: set[str] | None = None) -> dict[str, str]:
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
