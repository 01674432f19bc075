"""The GDC's sample sheets of any year: which slide and which counts file is a patient's.

Each rule that leaves something out returns it with its reason, so that a cohort can be counted down to what is used.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from mmmil.sources.aliquots import Aliquot, one_aliquot_each
from mmmil.sources.barcodes import PRIMARY, Barcode, parse, slide_section
from mmmil.sources.tables import MISSING, CohortError, fail, folded, read_table, repeated_column

SLIDE, EXPRESSION = "Slide Image", "Gene Expression Quantification"
SHEET_COLUMNS = ["File ID", "File Name", "Data Type", "Project ID", "Case ID", "Sample ID"]
# What newer sheets state besides, and `python -m mmmil.gdc query` writes.
MORE_COLUMNS = ["Sample Type", "Tissue Type", "Tumor Descriptor", "Preservation Method", "Aliquot ID"]
COUNTS_FILE = {
    "star": re.compile(r"\.augmented_star_gene_counts\.tsv(\.gz)?$", re.IGNORECASE),
    "htseq": re.compile(r"\.htseq\.counts(\.gz)?$", re.IGNORECASE),
}


def read_sample_sheets(paths: list[Path]) -> pd.DataFrame:
    """GDC sample sheets of any year in one table: SHEET_COLUMNS, `Sample Type`, code, vial, aliquot, ffpe,
    contradiction.

    Case, sample and aliquot are spelled as TCGA's barcodes ('a, b' where a row is of several); code and vial are the
    sample's, '' where it is no TCGA sample or of several; `Sample Type` in words (tissue type and tumour descriptor in
    sheets since 2024, the code where none is stated); ffpe: yes or no by the
    `Preservation Method`, '' where it states none. contradiction: what in the
    row is of another patient or sample than the rest, or ''. Raises CohortError for a missing column, an empty cell, a
    barcode that cannot be read, and a file that two rows describe differently.
    """
    sheet = pd.concat([_read_sheet(path) for path in paths], ignore_index=True)
    differ = sheet.drop_duplicates([*SHEET_COLUMNS]).duplicated("File ID")
    if differ.any():
        row = sheet.loc[differ.index[differ][0]]
        raise CohortError(
            f"{row['place']}: file {row['File ID']} is described differently on another line; "
            "delete the wrong one, or download the sample sheets again"
        )
    for name in ("aliquot", "ffpe"):  # what one of two sheets says of a file, and the other one does not
        sheet[name] = sheet.groupby("File ID")[name].transform("max")
    return sheet.drop(columns="place")


def _read_sheet(path: Path) -> pd.DataFrame:
    sheet = read_table(path, repeated=True)
    known = {folded(name): name for name in [*SHEET_COLUMNS, *MORE_COLUMNS]}
    plain = [folded(re.sub(r"[._]", " ", name)) for name in sheet.columns]  # R writes File.Name
    sheet.columns = [known.get(name, original) for name, original in zip(plain, sheet.columns, strict=True)]
    missing = [name for name in SHEET_COLUMNS if name not in sheet]
    if missing:
        raise CohortError(
            f"{path}: not a GDC sample sheet, it lacks the column(s) {', '.join(missing)}; "
            "download it with the button 'Sample Sheet' of the GDC cart"
        )
    for name in [*SHEET_COLUMNS, *MORE_COLUMNS]:
        if (sheet.columns == name).sum() > 1:
            raise repeated_column(path, name)
    for name in SHEET_COLUMNS:
        if (sheet[name] == "").any():
            line = sheet.index[sheet[name] == ""][0]
            raise CohortError(f"{path}, line {line}: '{name}' is empty; download the sample sheet again")
    faults: list[str] = []
    rows = [_read_row(row, f"{path}, line {line}", faults) for line, row in sheet.iterrows()]
    fail(faults)
    columns = [*SHEET_COLUMNS, "Sample Type", "code", "vial", "aliquot", "ffpe", "contradiction", "place"]
    return pd.DataFrame(rows, columns=columns)


def _listed(cell: str) -> list[str]:
    """The different values of a cell that lists one per sample: 'X, X' is X."""
    return list(dict.fromkeys(part.strip() for part in cell.split(",") if part.strip()))


def _read_row(row: pd.Series, place: str, faults: list[str]) -> dict:
    """A sheet's row with its barcodes read; those that cannot be read are added to `faults`."""
    read: dict[str, list[Barcode | str]] = {"Case ID": [], "Sample ID": [], "Aliquot ID": []}
    if folded(row["Data Type"]) != folded(EXPRESSION):  # of a slide it would be the barcode of a portion
        row = row.drop("Aliquot ID", errors="ignore")
    for name, barcodes in read.items():
        for part in _listed(row.get(name, "")):
            try:
                barcodes.append(parse(part, f"{place}, '{name}'") or part)
            except CohortError as error:
                faults.append(str(error))
    cases = [b.patient if isinstance(b, Barcode) else b for b in read["Case ID"]]
    samples, aliquots = ([str(b) for b in dict.fromkeys(read[name])] for name in ("Sample ID", "Aliquot ID"))
    sample = read["Sample ID"][0] if len(samples) == 1 else None
    sample = sample if isinstance(sample, Barcode) else Barcode("")
    kind = _kind(row) or f"code {sample.code}"
    return {
        **{name: row[name] for name in ("File ID", "File Name", "Project ID")},
        "Data Type": {folded(n): n for n in (SLIDE, EXPRESSION)}.get(folded(row["Data Type"]), row["Data Type"]),
        "Case ID": ", ".join(dict.fromkeys(cases)),
        "Sample ID": ", ".join(samples),
        "Sample Type": kind,
        "code": sample.code,
        "vial": sample.vial,
        "aliquot": aliquots[0] if len(aliquots) == 1 else "",
        "ffpe": _ffpe(row.get("Preservation Method", "")),
        "contradiction": _contradiction(row["File Name"], read, sample, kind),
        "place": place,
    }


def _ffpe(preservation: str) -> str:
    """'yes', 'no', or '' where nothing is stated."""
    if folded(preservation) in MISSING:
        return ""
    return "yes" if "ffpe" in preservation.casefold() else "no"


def _kind(row: pd.Series) -> str:
    """The sample's type in words: one column until 2023, since 2024 tissue type and tumour descriptor apart."""
    old, descriptor, tissue = (
        ", ".join(_listed(row.get(name, ""))) for name in ("Sample Type", "Tumor Descriptor", "Tissue Type")
    )
    return old or " ".join(text for text in (descriptor, tissue) if text and folded(text) != "not applicable")


def _contradiction(file_name: str, read: dict[str, list[Barcode | str]], sample: Barcode, kind: str) -> str:
    """What in a sheet's row is of another patient or sample than the rest of it, or ''."""
    section = slide_section(file_name)
    told = [(name, b) for name in ("Sample ID", "Aliquot ID") for b in read[name] if isinstance(b, Barcode)]
    told += [("File Name", section[0])] if section else []
    patients = {b.patient for b in read["Case ID"] if isinstance(b, Barcode)}
    for name, barcode in told:
        if patients and barcode.patient not in patients:
            return f"its {name} is of another patient than its Case ID"
        if name != "Sample ID" and sample.code and barcode.code != sample.code:
            return f"its {name} is of another sample than its Sample ID"
    normal = "normal" in kind.casefold()
    if sample.code and (normal or "tumor" in kind.casefold()) and normal != ("10" <= sample.code < "20"):
        return f"its sample type {kind} is not that of its Sample ID (code {sample.code})"
    return ""


def used_files(sheet: pd.DataFrame, kinds: list[str]) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The sheet's files of some data types, each once, and (patient, reason) of the other rows."""
    reasons = pd.Series("", index=sheet.index, dtype=object)
    reasons[sheet["File ID"].duplicated()] = "file: stands in the sample sheets more than once"
    unused = ~sheet["Data Type"].isin(kinds)
    reasons[unused] = "file: data type " + sheet["Data Type"][unused] + " is not used"
    return sheet[reasons == ""], list(zip(sheet["Case ID"][reasons != ""], reasons[reasons != ""], strict=True))


def _unusable(row: pd.Series) -> str:
    """Why a row's file is of no one primary tumour, or ''."""
    if "," in row["Case ID"] or "," in row["Sample ID"]:
        return f"of several {'patients' if ',' in row['Case ID'] else 'samples'}"
    if not row["code"]:
        return "its sample is no TCGA barcode"
    if row["code"] != PRIMARY:
        return f"sample type {row['Sample Type']}, not a primary tumour"
    return row["contradiction"]


def choose_slides(sheet: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The diagnostic slide with the lowest number (DX1) of each patient's primary tumour, and (patient, reason) of the
    others: frozen sections (TS, BS, MS), later diagnostic slides, slides of other samples and of several.

    A patient without DX1 keeps the lowest that there is. Of two with the same number the first file name is used.
    """
    sheet = sheet[sheet["Data Type"] == SLIDE]
    excluded, candidates = [], []
    for line, row in sheet.iterrows():
        section = slide_section(row["File Name"])
        reason = _unusable(row)
        if not reason and not section:
            reason = "its file name is no TCGA slide barcode"
        elif not reason and section and section[1] != "DX":
            reason = f"frozen section ({section[1]}), not a diagnostic slide (DX)"
        if reason or not section:
            excluded.append((row["Case ID"], f"slide: {reason}"))
        else:
            number = section[2]
            order = (not number.isdigit(), int(number) if number.isdigit() else 0, number, row["File Name"])
            candidates.append((row["Case ID"], order, line, number))
    chosen: dict[str, tuple[int, str]] = {}
    for patient, _, line, number in sorted(candidates):
        _, lowest = chosen.setdefault(patient, (line, number))
        if chosen[patient][0] == line:
            continue
        reason = f"another DX{lowest} of the patient is used"
        if number != lowest:
            reason = "diagnostic slide other than DX1"
            reason += "" if lowest == "1" else ", the patient has no DX1 and the lowest number is used"
        excluded.append((patient, f"slide: {reason}"))
    return sheet.loc[[line for line, _ in chosen.values()]].set_index("Case ID"), excluded


def choose_expression(sheet: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """One counts file of `kind` ('star' or 'htseq') per patient by `one_aliquot_each`, (patient, reason) of others."""
    sheet = sheet[sheet["Data Type"] == EXPRESSION]
    excluded, aliquots, line_of = [], [], {}
    for line, row in sheet.iterrows():
        reason = _unusable(row)
        if not reason and not COUNTS_FILE[kind].search(row["File Name"]):
            reason = f"not a file of {kind} counts"
        if reason:
            excluded.append((row["Case ID"], f"expression: {reason}"))
            continue
        aliquots.append(row_aliquot(row))
        line_of[row["Case ID"], row["File Name"]] = line
    chosen, more = one_aliquot_each(aliquots)
    lines = [line_of[patient, aliquot.name] for patient, aliquot in sorted(chosen.items())]
    return sheet.loc[lines].set_index("Case ID"), excluded + more


def row_aliquot(row: pd.Series, patient: str = "") -> Aliquot:
    """The aliquot that a sheet's row is; `patient`: where `Case ID` is the index."""
    barcode = parse(row["aliquot"] or row["Sample ID"])
    return Aliquot(patient or row["Case ID"], row["File Name"], barcode, {"yes": True, "no": False}.get(row["ffpe"]))
