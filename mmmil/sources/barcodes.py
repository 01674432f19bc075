"""What TCGA means by its barcodes and the GDC by its sample sheets: which slide and which aliquot is a patient's.

Each rule that leaves something out returns it with its reason, so that a cohort can be counted down to what is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mmmil.sources.tables import CohortError, read_table, repeated_column

__all__ = ["CohortError", "choose_expression", "choose_slides", "primary_columns", "read_sample_sheets", "read_table"]

SLIDE, EXPRESSION = "Slide Image", "Gene Expression Quantification"
SHEET_COLUMNS = ["File ID", "File Name", "Data Type", "Project ID", "Case ID", "Sample ID"]
PRIMARY = "01"  # TCGA's code of a primary solid tumour
SAMPLE = re.compile(r"^(TCGA-\w{2}-\w{4})(?:-(\d{2})([A-Z]?)(?:-.*)?)?$")
SECTION = re.compile(r"^TCGA-\w{2}-\w{4}-\d{2}[A-Z]-\d{2}-([A-Z]{2})(\w*)")
COUNTS_FILE = {
    "star": re.compile(r"\.augmented_star_gene_counts\.tsv(\.gz)?$"),
    "htseq": re.compile(r"\.htseq\.counts(\.gz)?$"),
}


def site_of(patient_id: str) -> str:
    """Tissue source site: the second field of a TCGA barcode, '' for any other identifier."""
    return patient_id.split("-")[1] if SAMPLE.match(patient_id) else ""


def patient_of(column: str) -> str:
    """The patient of a matrix's column: the start of a TCGA barcode, else the column itself."""
    match = SAMPLE.match(column)
    return match[1] if match else column


def primary_columns(columns: Iterable[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """One matrix column per patient: primary tumours only, and of several aliquots the last barcode in text order.

    The last barcode has the highest plate, as in Broad GDAC's replicate rule. Columns that are no TCGA barcode are
    patient identifiers themselves. Returns {patient: column} and (patient, reason) of each column left out.
    """
    columns_of: dict[str, list[str]] = {}
    excluded = []
    for column in columns:
        match, patient = SAMPLE.match(column), patient_of(column)
        code = match[2] if match else None
        if code not in (None, PRIMARY):
            excluded.append((patient, f"expression: sample type {code}, not a primary tumour (01)"))
        else:
            columns_of.setdefault(patient, []).append(column)
    for patient, names in columns_of.items():
        excluded += [(patient, "expression: another aliquot of the patient is used")] * (len(names) - 1)
    return {patient: max(names) for patient, names in columns_of.items()}, excluded


def read_sample_sheets(paths: list[Path]) -> pd.DataFrame:
    """GDC sample sheets in one table with SHEET_COLUMNS, `Sample Type` (its code where the sheet has none), code, vial.

    Raises CohortError for a missing column, an empty cell, and a file that two rows describe differently.
    """
    sheets = []
    for path in paths:
        sheet = read_table(path, repeated=True)
        sheet.columns = sheet.columns.str.replace(".", " ")  # R writes File.Name
        missing = [name for name in SHEET_COLUMNS if name not in sheet]
        if missing:
            raise CohortError(
                f"{path}: not a GDC sample sheet, it lacks the column(s) {', '.join(missing)}; "
                "download it with the button 'Sample Sheet' of the GDC cart"
            )
        for name in [*SHEET_COLUMNS, "Sample Type"]:
            if (sheet.columns == name).sum() > 1:
                raise repeated_column(path, name)
        for name in SHEET_COLUMNS:
            if (sheet[name] == "").any():
                line = sheet.index[sheet[name] == ""][0]
                raise CohortError(f"{path}, line {line}: '{name}' is empty; download the sample sheet again")
        barcode = sheet["Sample ID"].str.extract(SAMPLE.pattern).fillna("")
        sheet["code"], sheet["vial"] = barcode[1], barcode[2]
        if "Sample Type" not in sheet:  # sheets since 2024 state tissue and tumour type apart; the barcode has both
            sheet["Sample Type"] = "code " + sheet["code"]
        sheet["place"] = [f"{path}, line {line}" for line in sheet.index]
        sheets.append(sheet[[*SHEET_COLUMNS, "Sample Type", "code", "vial", "place"]])
    sheet = pd.concat(sheets, ignore_index=True)
    differ = sheet.drop_duplicates([*SHEET_COLUMNS]).duplicated("File ID")
    if differ.any():
        row = sheet.loc[differ.index[differ][0]]
        raise CohortError(
            f"{row['place']}: file {row['File ID']} is described differently on another line; "
            "delete the wrong one, or download the sample sheets again"
        )
    return sheet.drop(columns="place")


def used_files(sheet: pd.DataFrame, kinds: list[str]) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The sheet's files of some data types, each once, and (patient, reason) of the other rows."""
    reasons = pd.Series("", index=sheet.index, dtype=object)
    reasons[sheet["File ID"].duplicated()] = "file: stands in the sample sheets more than once"
    unused = ~sheet["Data Type"].isin(kinds)
    reasons[unused] = "file: data type " + sheet["Data Type"][unused] + " is not used"
    return sheet[reasons == ""], list(zip(sheet["Case ID"][reasons != ""], reasons[reasons != ""], strict=True))


def _first_per_patient(
    sheet: pd.DataFrame, reasons: pd.Series, order: list[str], again: str
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    chosen = sheet[reasons == ""].sort_values(["Case ID", *order])
    repeated = chosen[chosen["Case ID"].duplicated()]
    excluded = list(zip(sheet["Case ID"][reasons != ""], reasons[reasons != ""], strict=True))
    excluded += [(patient, again) for patient in repeated["Case ID"]]
    return chosen.drop_duplicates("Case ID").set_index("Case ID"), excluded


def choose_slides(sheet: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The first diagnostic slide (DX1) of each patient's primary tumour, and (patient, reason) of the others.

    Frozen sections (TS, BS), later diagnostic slides and slides of other samples are left out.
    """
    sheet = sheet[sheet["Data Type"] == SLIDE]

    def reason(row: pd.Series) -> str:
        if row["code"] != PRIMARY:
            return f"slide: sample type {row['Sample Type']}, not a primary tumour"
        section = SECTION.match(row["File Name"])
        if not section:
            return "slide: its file name is no TCGA slide barcode"
        if section[1] != "DX":
            return f"slide: frozen section ({section[1]}), not a diagnostic slide (DX)"
        return "" if section[2] == "1" else "slide: diagnostic slide other than DX1"

    reasons = pd.Series([reason(row) for _, row in sheet.iterrows()], index=sheet.index, dtype=object)
    return _first_per_patient(sheet, reasons, ["File Name"], "slide: another DX1 of the patient is used")


def choose_expression(sheet: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """One counts file of `kind` ('star' or 'htseq') per patient, and (patient, reason) of the others.

    Primary tumours only; of several, the lowest vial letter of the sample, then the first file name.
    """
    sheet = sheet[sheet["Data Type"] == EXPRESSION]

    def reason(row: pd.Series) -> str:
        if row["code"] != PRIMARY:
            return f"expression: sample type {row['Sample Type']}, not a primary tumour"
        return "" if COUNTS_FILE[kind].search(row["File Name"]) else f"expression: not a file of {kind} counts"

    reasons = pd.Series([reason(row) for _, row in sheet.iterrows()], index=sheet.index, dtype=object)
    again = "expression: another sample or aliquot of the patient is used"
    return _first_per_patient(sheet, reasons, ["vial", "File Name"], again)
