"""Label rules: which class a patient's clinical table says (Experimental Setup, Dataset)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mmmil.tcga import CohortError, read_table

MISSING = {"", "--", "'--", "not reported", "[not available]", "[not evaluated]", "[unknown]", "unknown"}
# First name found in a file wins: GDC's export (old and new), BCR's and the TCGA-CDR's tables, Xena's matrix,
# TCGAbiolinks' subtypes.
PATIENT_COLUMNS = [
    *("case_submitter_id", "cases.submitter_id", "bcr_patient_barcode", "_PATIENT", "submitter_id", "patient"),
]
FIELDS = {
    "grade": [
        ["tumor_grade", "diagnoses.tumor_grade", "neoplasm_histologic_grade", "histological_grade", "Grade"],
    ],
    "project": [["project_id", "project.project_id", "cases.project.project_id"]],
    "ihc": [
        ["er_status", "er_status_by_ihc", "breast_carcinoma_estrogen_receptor_status", "ER_Status_nature2012"],
        ["pr_status", "pr_status_by_ihc", "breast_carcinoma_progesterone_receptor_status", "PR_Status_nature2012"],
        [
            "her2_status",
            "her2_status_by_ihc",
            "lab_proc_her2_neu_immunohistochemistry_receptor_status",
            "HER2_Final_Status_nature2012",
        ],
    ],
}


def _merge(values: pd.Series) -> str:
    """One value per patient: exports repeat a patient per treatment or sample; contradictions stay visible."""
    known = sorted({value for value in values if value.lower() not in MISSING})
    return " / ".join(known) if known else next(iter(values)) or "empty"


def clinical_values(rule: str, paths: list[Path]) -> dict[str, str]:
    """{patient: value that the label rule reads} from clinical tables.

    grade: the grade column; project: the project; ihc: 'Luminal A' = (ER or PR positive) and HER2 negative,
    'TNBC' = all three negative, else the reason why it is neither. Contradictory rows give 'a / b'.
    """
    values: dict[str, str] = {}
    for path in paths:
        table = read_table(path)
        patient = next((name for name in PATIENT_COLUMNS if name in table), None)
        fields = [next((name for name in names if name in table), None) for names in FIELDS[rule]]
        for name, wanted in zip([patient, *fields], [PATIENT_COLUMNS, *FIELDS[rule]], strict=True):
            if name is None:
                raise CohortError(
                    f"{path}: label_rule '{rule}' needs one of the columns {', '.join(wanted)}; "
                    "rename the column, or name another table in `clinical`"
                )
        merged = table.groupby(patient)[fields].agg(_merge)
        found = merged.apply(lambda row: _subtype(*row), axis=1) if rule == "ihc" else merged[fields[0]]
        for name, value in found.items():
            if name in values and values[name] != value:
                raise CohortError(f"{path}: patient {name} is '{value}' here and '{values[name]}' in another table")
            values[name] = value
    return values


def _subtype(er: str, pr: str, her2: str) -> str:
    er, pr, her2 = er.lower(), pr.lower(), her2.lower()
    if her2 != "negative":
        return "HER2 positive" if her2 == "positive" else f"HER2 {her2}"
    if "positive" in (er, pr):
        return "Luminal A"
    if er == pr == "negative":
        return "TNBC"
    return f"ER {er}, PR {pr}"
