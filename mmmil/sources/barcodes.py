"""What TCGA means by its barcodes and the GDC by its sample sheets: which slide and which aliquot is a patient's.

The one reader of barcodes is `parse`, and the one rule for aliquots `one_aliquot_each`: matrices, sample sheets, own
tables and clinical tables all go through them. Each rule that leaves something out returns it with its reason, so that
a cohort can be counted down to what is used.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mmmil.sources.findings import Finding
from mmmil.sources.tables import MISSING, CohortError, fail, folded, read_table, repeated_column

SLIDE, EXPRESSION = "Slide Image", "Gene Expression Quantification"
SHEET_COLUMNS = ["File ID", "File Name", "Data Type", "Project ID", "Case ID", "Sample ID"]
# What newer sheets state besides, and `python -m mmmil.gdc query` writes.
MORE_COLUMNS = ["Sample Type", "Tissue Type", "Tumor Descriptor", "Preservation Method", "Aliquot ID"]
PRIMARY = "01"  # TCGA's code of a primary solid tumour
COUNTS_FILE = {
    "star": re.compile(r"\.augmented_star_gene_counts\.tsv(\.gz)?$", re.IGNORECASE),
    "htseq": re.compile(r"\.htseq\.counts(\.gz)?$", re.IGNORECASE),
}

# -- reading -----------------------------------------------------------------------------------------------------
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"  # what a word processor makes of '-'
BLANKS = "\u00a0\u2007\u202f\t\r\n"
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
PLAIN = str.maketrans(dict.fromkeys(DASHES, "-") | dict.fromkeys(BLANKS, " ") | dict.fromkeys(INVISIBLE, ""))
BETWEEN = "(?: *[-._] *| +)"
# A participant is four digits, or a letter and three more: a letter among digits is a slip (O for 0, I for 1), and so
# it is in a site unless there are sites of that name (O1, O2, O8, O9).
SITE = "(?![0-9][OI]|I[0-9]|O[03-7])[A-Z0-9]{2}"
PARTICIPANT = "(?:[0-9]{4}|(?![OIL][0-9OIL]{3})[A-Z][A-Z0-9]{3})"
STEM = f"TCGA(?P<mark>{BETWEEN})(?P<site>{SITE}){BETWEEN}(?P<participant>{PARTICIPANT})"
PORTION = f"{BETWEEN}(?P<portion>[0-9]{{2}})(?P<analyte>[A-Z]?)"
PLATE = f"{BETWEEN}(?P<plate>[A-Z0-9]{{4}})(?:{BETWEEN}(?P<center>[0-9]{{2}}))?"
SAMPLE = f"(?P<sample_mark>{BETWEEN})(?P<code>[0-9]{{2}})(?P<vial>[A-Z]?)(?:{PORTION}(?:{PLATE})?)?"
REPEATED = (
    "(?:[._](?:[1-9][0-9]{0,2}|[XY]))*"  # pandas' and R's numbers of a name that was there before; .x, .y of a merge
)
BARCODE = re.compile(f"{STEM}(?:{SAMPLE})?{REPEATED}", re.IGNORECASE | re.ASCII)
SECTION = re.compile(
    f"{STEM}{BETWEEN}(?P<code>[0-9]{{2}})(?P<vial>[A-Z]?){BETWEEN}[0-9]{{2}}{BETWEEN}(?P<kind>[A-Z]{{2}})"
    r"(?P<number>[A-Z0-9]*)(?![A-Z0-9])",
    re.IGNORECASE | re.ASCII,
)
# What is meant as a barcode, read as generously as can be: it starts with TCGA, a whole one stands inside it, or the
# first of three fields is TCGA with letters exchanged, left out, doubled or taken for others that look like them.
LIKE_LATIN = str.maketrans("АСТЕОІΑΤΟΙ", "ACTEOIATOI")
INSIDE = re.compile(r"TCGA[^A-Z0-9]+[A-Z0-9]{2}[^A-Z0-9]+[A-Z0-9]{4}|(?<![A-Z])TCGA[A-Z0-9]{6}")
THREE_FIELDS = re.compile(r"[^A-Z0-9]*([A-Z0-9]{3,5})[^A-Z0-9]{1,3}[A-Z0-9]{2}[^A-Z0-9]{1,3}[A-Z0-9]{4}(?![A-Z0-9])")
SLIPS = {"TCG", "TCA", "TGA", "CGA"}


@dataclass(frozen=True)
class Barcode:
    """A TCGA barcode as far as it goes; what it does not say is ''.

    patient: `TCGA-44-2656`; code and vial of the sample: `01`, `A`; portion, analyte, plate, center of the aliquot:
    `02`, `R`, `A278`, `07`.
    """

    patient: str
    code: str = ""
    vial: str = ""
    portion: str = ""
    analyte: str = ""
    plate: str = ""
    center: str = ""

    def __str__(self) -> str:
        fields = [self.patient, self.code + self.vial, self.portion + self.analyte, self.plate, self.center]
        return "-".join(text for text in fields if text)


def parse(text: str, where: str = "") -> Barcode | None:
    """The TCGA barcode that a name is, or None where it is none (an own cohort's name).

    Any case, blanks around, one of '-', '.', '_', a dash or blanks between the fields, and the numbers that pandas and
    R give to repeated names (`.1`, `_1`, `.x`, `.y`). Raises CohortError for what nearly is a barcode and cannot be
    read as one, naming `where` (the file, the column or line).
    """
    plain = text.translate(PLAIN).strip()
    match = BARCODE.fullmatch(plain)
    if match:
        part = {name: (value or "").upper() for name, value in match.groupdict().items()}
        code, mark = part["code"], part["sample_mark"]
        # Behind another separator than the barcode's own, 11 may be normal tissue or a name's twelfth repetition.
        unsure = code and code[0] != "0" and mark != part["mark"] and mark in "._" and not part["vial"]
        if not unsure or part["portion"]:
            patient = f"TCGA-{part['site']}-{part['participant']}"
            return Barcode(patient, code, *(part[name] for name in ("vial", "portion", "analyte", "plate", "center")))
    if match or _meant_as_barcode(plain):
        raise CohortError(
            f"{where + ': ' if where else ''}'{text}' is nearly a TCGA barcode but cannot be read as one; correct it "
            "to the form TCGA-44-1000 (patient), TCGA-44-1000-01A (sample) or TCGA-44-1000-01A-11R-1858-07 (aliquot)"
        )
    return None


def _meant_as_barcode(plain: str) -> bool:
    text = unicodedata.normalize("NFKC", plain).upper().translate(LIKE_LATIN).translate(PLAIN)
    fields = THREE_FIELDS.match(text)
    first = fields[1].translate(str.maketrans("647", "GAT")) if fields else ""
    slip = first in SLIPS or sorted(first) == sorted("TCGA") or re.fullmatch("T+C+G+A+", first)
    return bool(re.match("[^A-Z0-9]*TCGA", text) or INSIDE.search(text) or slip)


def identifier(text: str, where: str = "") -> str:
    """The patient that a name stands for: of a TCGA barcode `TCGA-44-2656`, else the name itself without blanks around.

    Raises CohortError as `parse` does.
    """
    barcode = parse(text, where)
    return barcode.patient if barcode else text.translate(PLAIN).strip()


def identifiers(names: pd.Series, path: Path) -> pd.Series:
    """`identifier` of each cell of a table's column; the index is the line. Raises one CohortError for all faults."""
    faults = []
    read = {}
    for line, name in names.drop_duplicates().items():
        try:
            read[name] = identifier(name, f"{path}, line {line}, {names.name}")
        except CohortError as error:
            faults.append(str(error))
    fail(faults)
    return names.map(read)


def patient_of(column: str, where: str = "") -> str:
    """The patient of a matrix's column."""
    return identifier(column, where)


def site_of(patient_id: str) -> str:
    """Tissue source site: the second field of a TCGA barcode, '' for any other identifier."""
    try:
        barcode = parse(patient_id)
    except CohortError:  # who reads identifiers has refused it
        return ""
    return barcode.patient.split("-")[1] if barcode else ""


def slide_section(name: str) -> tuple[Barcode, str, str] | None:
    """Sample, kind of section (DX, TS, BS, MS) and its number, by a slide's file name; None for another name."""
    match = SECTION.match(name.translate(PLAIN).strip())
    if not match:
        return None
    part = {key: (value or "").upper() for key, value in match.groupdict().items()}
    barcode = Barcode(f"TCGA-{part['site']}-{part['participant']}", part["code"], part["vial"])
    return barcode, part["kind"], part["number"]


def named_patient(file_name: str) -> str:
    """The patient with whose TCGA barcode a file's name begins, '' for another name."""
    match = re.match(f"{STEM}(?![A-Z0-9])", file_name.translate(PLAIN).strip(), re.IGNORECASE | re.ASCII)
    return f"TCGA-{match['site']}-{match['participant']}".upper() if match else ""


def near_key(name: str) -> tuple[str, ...]:
    """What two spellings of an own cohort's name have in common: its runs of letters and of digits.

    Case, blanks, separators, leading zeros, R's X before a digit and the `.0` of a number that was read as a decimal
    say nothing.
    """
    text = unicodedata.normalize("NFKC", name).translate(PLAIN).strip().casefold()
    text = re.sub(r"^(\d+)\.0$", r"\1", text)
    runs = [run.lstrip("0") or "0" if run.isdigit() else run for run in re.findall(r"\d+|[^\W\d_]+", text)]
    return tuple(runs[1:] if len(runs) > 1 and runs[0] == "x" and runs[1].isdigit() else runs)


def nearly_the_same(names: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """(name, other) where a name is missing among the others and one of them differs in its spelling only."""
    others = list(dict.fromkeys(others))
    there, by_key = set(others), {near_key(other): other for other in others if near_key(other)}
    pairs = [(name, by_key.get(near_key(name))) for name in dict.fromkeys(names) if name not in there]
    return [(name, other) for name, other in pairs if other is not None]


def perhaps_meant(names: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """(name, other) where a name is missing among the others and one of them goes on where it ends (P1, P1_tumour)."""
    others = dict.fromkeys(others)
    longer: dict[tuple[str, ...], str] = {}
    for other in others:
        key = near_key(other)
        for end in range(1, len(key)):
            longer.setdefault(key[:end], other)
    pairs = [(name, longer.get(near_key(name))) for name in dict.fromkeys(names) if name not in others]
    return [(name, other) for name, other in pairs if other is not None]


def spelled_twice(names: Iterable[str]) -> list[tuple[str, str]]:
    """(first, second) of different names that differ in their spelling only."""
    first: dict[tuple[str, ...], str] = {}
    names = dict.fromkeys(names)
    return [(first[key], n) for n in names if (key := near_key(n)) and first.setdefault(key, n) != n]


# -- the rule for aliquots ---------------------------------------------------------------------------------------
ANALYTES = "HRT"  # RNA in the order in which the Broad GDAC prefers it
# Plates of RNA on which every vial but A was fixed in formalin: TCGA's FFPE pilot (Broad GDAC's list of FFPE cases; the
# GDC states FFPE for each of them).
FFPE_PLATES = ("A277",)
UNTOLD = "expression: another of the same sample, and no aliquot barcode tells them apart (first name used)"


@dataclass(frozen=True)
class Aliquot:
    """RNA of a patient, in a matrix's column or a file: its name, its barcode as far as it is known, and whether it was
    fixed in formalin, as the sample sheet states it; None where nothing is stated.
    """

    patient: str
    name: str
    barcode: Barcode | None
    stated_ffpe: bool | None = None

    @property
    def is_ffpe(self) -> bool:
        if self.stated_ffpe is not None or self.barcode is None:
            return bool(self.stated_ffpe)
        return self.barcode.vial not in ("", "A") and self.barcode.plate in FFPE_PLATES


def one_aliquot_each(aliquots: Iterable[Aliquot]) -> tuple[dict[str, Aliquot], list[tuple[str, str]]]:
    """One aliquot per patient, and (patient, reason) of each that is left out: the one rule of matrices and sheets.

    Primary tumours only; frozen only, since RNA of FFPE is another measurement (Broad GDAC leaves it out, too); the
    lowest vial letter (B is often FFPE); then Broad GDAC's replicate rule where the aliquots' barcodes are known:
    analyte H, R, T, then the highest plate, portion and center; else the first name. Aliquots without barcode are
    patients of their own name.
    """
    of_patient: dict[str, list[Aliquot]] = {}
    excluded = []
    for aliquot in aliquots:
        code = aliquot.barcode.code if aliquot.barcode else ""
        if code not in ("", PRIMARY):
            excluded.append((aliquot.patient, f"expression: sample type {code}, not a primary tumour"))
        else:
            of_patient.setdefault(aliquot.patient, []).append(aliquot)
    chosen = {}
    for patient, there in of_patient.items():
        frozen = sorted((a for a in there if not a.is_ffpe), key=lambda a: (_rank(a), a.name))
        why = "the patient's frozen aliquot is used" if frozen else "and the patient has no frozen aliquot"
        excluded += [(patient, f"expression: FFPE, {why}")] * (len(there) - len(frozen))
        if frozen:
            chosen[patient] = frozen[0]
            excluded += [(patient, _why_not(other, frozen[0])) for other in frozen[1:]]
    return chosen, excluded


def _rank(aliquot: Aliquot) -> tuple:
    barcode = aliquot.barcode or Barcode("")
    analyte = (ANALYTES.find(barcode.analyte) % 10) if barcode.analyte else 10
    latest = [-ord(letter) for letter in f"{barcode.plate}{barcode.portion:>2}{barcode.center:>2}"]
    return not barcode.code, barcode.vial or "~", not barcode.plate, analyte, latest


def _why_not(aliquot: Aliquot, used: Aliquot) -> str:
    one, other = aliquot.barcode or Barcode(""), used.barcode or Barcode("")
    if one.vial != other.vial and one.vial and other.vial:
        often = " (often FFPE)" if one.vial == "B" and aliquot.stated_ffpe is None else ""
        return f"expression: vial {one.vial}{often}, the patient's vial {other.vial} is used"
    return "expression: another aliquot of the sample is used" if _rank(aliquot) != _rank(used) else UNTOLD


def aliquot_findings(chosen: Mapping[str, Aliquot], excluded: Iterable[tuple[str, str]], file: str) -> list[Finding]:
    """Patients whose RNA may be FFPE, and those of whose aliquots it cannot be said which one is used."""
    look = "see the aliquot's page at the GDC; to do without the patient, delete the column or row"
    found = []
    for patient, aliquot in chosen.items():
        vial = aliquot.barcode.vial if aliquot.barcode else ""
        if vial not in ("", "A") and aliquot.stated_ffpe is None:
            text = f"{aliquot.name} is of vial {vial} and there is no vial A; in TCGA these are often FFPE"
            found.append(Finding("FFPE perhaps", text, look, file, patient))
    for patient in dict.fromkeys(patient for patient, reason in excluded if reason == UNTOLD):
        used = chosen[patient].name
        text = f"several of one sample, and no aliquot barcode tells them apart; {used} is used, the first by name"
        remedy = "give aliquot barcodes (`python -m mmmil.gdc query` writes them into the sheet), or delete the others"
        found.append(Finding("aliquots not told apart", text, remedy, file, patient))
    return found


# -- columns of a matrix -----------------------------------------------------------------------------------------
# Columns that annotate genes: featureCounts', cBioPortal's, Xena's, the GDC's, biomaRt's, edgeR's, limma's, GEO's.
ANNOTATION = re.compile(
    r"""chr | chrom | chromosome.* | seqnames? | start | end | strand | length | width | gccontent | genegccontent
    | (gene|ensembl|entrez|hgnc|hugo|transcript|refseq|probe|ncbigene)(stable|start|end|length|name|symbol|type|biotype
        |description|id|ids|gene|set)*(version|bp)? | ncbigene.* | biotype | (approved)?symbol | description
    | cytoband | band | locus | attributes | feature(type|id|name)? | source | position | startposition | endposition
    | alias | note | id | name | sample | rownames? | index | total | sum | mean | median | rowsum
    | basemean | log2?foldchange | lfcse | stat | pvalue | padj | fdr | logfc | logcpm | aveexpr | adjpval""",
    re.VERBOSE,
)
# A merge of tables writes A.x and A.y, pandas A.1 and A...1 beside A; `_1` is what people name samples.
AGAIN = re.compile(r"(?P<name>.+?)(?P<mark>[._][xy]|\.{1,3}\d{1,3})")


def primary_columns(columns: Iterable[str], where: str = "the matrix") -> tuple[dict[str, str], list[tuple[str, str]]]:
    """One matrix column per patient by `one_aliquot_each`: {patient: column}, (patient, reason) of each left out.

    Columns that are no TCGA barcode are patients of that name. Raises CohortError as `column_aliquots` does.
    """
    chosen, excluded = one_aliquot_each(column_aliquots(columns, where))
    return {patient: aliquot.name for patient, aliquot in chosen.items()}, excluded


def column_aliquots(columns: Iterable[str], where: str = "the matrix") -> list[Aliquot]:
    """What each column of a matrix is, in their order.

    Raises one CohortError for all columns that are no sample: without a name, nearly a barcode, no barcode beside
    barcodes, an annotation of genes, or a patient's name in a second spelling.
    """
    faults, aliquots = [], []
    for column in columns:
        if not column.translate(PLAIN).strip() or re.match(r"Unnamed: ?\d+", column):
            faults.append(f"{where}: the column '{column}' has no name; name the sample, or delete the column")
            continue
        try:
            barcode = parse(column, f"{where}, column")
        except CohortError as error:
            faults.append(str(error))
            continue
        patient = barcode.patient if barcode else column.translate(PLAIN).strip()
        aliquots.append(Aliquot(patient, column, barcode))
    if {"abundance", "counts", "length"} <= {aliquot.name.partition(".")[0] for aliquot in aliquots}:
        faults.append(f"{where}: holds tximport's abundance, counts and length side by side; write one of them alone")
    barcodes = any(aliquot.barcode for aliquot in aliquots)
    for aliquot in aliquots:
        if barcodes and not aliquot.barcode:
            faults.append(
                f"{where}: the column '{aliquot.name}' is no TCGA barcode, as the samples' names are; "
                "delete the column, or make it the first if it names the genes"
            )
        elif ANNOTATION.fullmatch(re.sub(r"[\W_]", "", aliquot.patient.casefold())):
            faults.append(
                f"{where}: the column '{aliquot.name}' is no patient but tells of genes; delete the column, or "
                "make it the first if it names them"
            )
    faults += [
        f"{where}: the columns '{one}' and '{other}' differ in their spelling only; delete one of them, or rename it"
        for one, other in spelled_twice(aliquot.name for aliquot in aliquots if not aliquot.barcode)
    ]
    faults += [
        f"{where}: the column '{name}' is another of '{first}', as merging tables writes it; delete one of them, or "
        "rename it"
        for name, first in _once_more([aliquot.name for aliquot in aliquots if not aliquot.barcode])
    ]
    fail(faults)
    return aliquots


def _once_more(names: list[str]) -> list[tuple[str, str]]:
    """(name, first) of own names that a program has numbered since they were there before."""
    there, pairs = set(names), []
    for match in filter(None, map(AGAIN.fullmatch, names)):
        first, mark = match["name"], match["mark"]
        if first in there:
            pairs.append((match[0], first))
        elif mark[-1] == "y" and f"{first}{mark[0]}x" in there:
            pairs.append((match[0], f"{first}{mark[0]}x"))
    return pairs


# -- sample sheets -----------------------------------------------------------------------------------------------
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
