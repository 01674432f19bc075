"""What TCGA means by its barcodes and the GDC by its sample sheets: which slide and which aliquot is a patient's.

Each rule that leaves something out returns it with its reason, so that a cohort can be counted down to what is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

SLIDE, EXPRESSION = "Slide Image", "Gene Expression Quantification"
SHEET_COLUMNS = ["File ID", "File Name", "Data Type", "Project ID", "Case ID", "Sample ID"]
PRIMARY = "01"  # TCGA's code of a primary solid tumour
SAMPLE = re.compile(r"^(TCGA-\w{2}-\w{4})(?:-(\d{2})([A-Z]?)(?:-.*)?)?$")
SECTION = re.compile(r"^TCGA-\w{2}-\w{4}-\d{2}[A-Z]-\d{2}-([A-Z]{2})(\w?)")
COUNTS_FILE = {
    "star": re.compile(r"\.augmented_star_gene_counts\.tsv(\.gz)?$"),
    "htseq": re.compile(r"\.htseq\.counts(\.gz)?$"),
}


class CohortError(ValueError):
    """A cohort's files contradict the parameters or each other; names the file, the patient, the field, the remedy."""


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or (`.tsv`, `.txt`) tab-separated table as text, nothing turned into NaN, cells stripped."""
    if not path.is_file():
        raise CohortError(f"{path}: the file is not there; correct its name in the parameters, or put it there")
    sep = "\t" if path.suffix.lower() in (".tsv", ".txt") else ","
    try:
        table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise CohortError(f"{path}: not a table that can be read ({error}); one header line, then rows") from None
    table.columns = table.columns.str.strip()
    return table.fillna("").apply(lambda column: column.str.strip())


def site_of(patient_id: str) -> str:
    """Tissue source site: the second field of a TCGA barcode, '' for any other identifier."""
    return patient_id.split("-")[1] if SAMPLE.match(patient_id) else ""


def primary_columns(columns: Iterable[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """One matrix column per patient: primary tumours only, and of several aliquots the last barcode in text order.

    The last barcode has the highest plate, as in Broad GDAC's replicate rule. Columns that are no TCGA barcode are
    patient identifiers themselves. Returns {patient: column} and (patient, reason) of each column left out.
    """
    found: dict[str, list[str]] = {}
    excluded = []
    for column in columns:
        match = SAMPLE.match(column)
        patient, code = (match[1], match[2]) if match else (column, None)
        if code not in (None, PRIMARY):
            excluded.append((patient, f"expression: sample type {code}, not a primary tumour (01)"))
        else:
            found.setdefault(patient, []).append(column)
    for patient, names in found.items():
        excluded += [(patient, "expression: another aliquot of the patient is used")] * (len(names) - 1)
    return {patient: max(names) for patient, names in found.items()}, excluded


def read_sample_sheets(paths: list[Path]) -> pd.DataFrame:
    """GDC sample sheets in one table with SHEET_COLUMNS and `Sample Type` (its code where the sheet has none)."""
    sheets = []
    for path in paths:
        sheet = read_table(path)
        sheet.columns = sheet.columns.str.replace(".", " ")  # R writes File.Name
        missing = [name for name in SHEET_COLUMNS if name not in sheet]
        if missing:
            raise CohortError(
                f"{path}: not a GDC sample sheet, it lacks the column(s) {', '.join(missing)}; "
                "download it with the button 'Sample Sheet' of the GDC cart"
            )
        for name in SHEET_COLUMNS:
            if (sheet[name] == "").any():
                line = int((sheet[name] == "").to_numpy().argmax()) + 2
                raise CohortError(f"{path}, line {line}: '{name}' is empty; download the sample sheet again")
        sheets.append(sheet)
    sheet = pd.concat(sheets, ignore_index=True).drop_duplicates("File ID", ignore_index=True)
    sheet["code"] = sheet["Sample ID"].str.extract(SAMPLE.pattern)[1].fillna("")
    sheet["vial"] = sheet["Sample ID"].str.extract(SAMPLE.pattern)[2].fillna("")
    if "Sample Type" not in sheet:  # sheets since 2024 state tissue and tumour type apart; the barcode has both
        sheet["Sample Type"] = "code " + sheet["code"]
    return sheet


def _first_per_patient(sheet: pd.DataFrame, reasons: pd.Series, order: list[str], again: str):
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

    def reason(row) -> str:
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

    def reason(row) -> str:
        if row["code"] != PRIMARY:
            return f"expression: sample type {row['Sample Type']}, not a primary tumour"
        return "" if COUNTS_FILE[kind].search(row["File Name"]) else f"expression: not a file of {kind} counts"

    reasons = pd.Series([reason(row) for _, row in sheet.iterrows()], index=sheet.index, dtype=object)
    again = "expression: another sample or aliquot of the patient is used"
    return _first_per_patient(sheet, reasons, ["vial", "File Name"], again)
