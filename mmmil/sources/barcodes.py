"""TCGA's barcodes, read in any spelling; and names of an own cohort that differ in their spelling only.

The one reader is `parse`: matrices, sample sheets, own tables and clinical tables all go through it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mmmil.sources.tables import CohortError, fail

PRIMARY = "01"  # TCGA's code of a primary solid tumour

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
