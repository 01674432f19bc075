"""Which RNA aliquot is a patient's: one rule, for columns of matrices and for files of sample sheets.

What it leaves out it returns with the reason, so that a cohort can be counted down to what is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mmmil.sources.barcodes import PLAIN, PRIMARY, Barcode, parse, spelled_twice
from mmmil.sources.findings import Finding
from mmmil.sources.tables import CohortError, fail

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
