"""What a look at the expression files and gene sets finds before anything is fitted: things worth a look, no errors.

Errors are raised by the road that every study takes (`expression.load`, `choice.require_sets`), which is walked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmmil import record
from mmmil.genes import by_class, choice, coverage, expression, profiles
from mmmil.genes.coverage import Coverage
from mmmil.genes.expression import DATES, NO_TABLE, Expression
from mmmil.params import Params
from mmmil.sources.expression_values import MANY_GENES, MANY_PATIENTS, MILLION, gene_moments
from mmmil.sources.findings import Finding
from mmmil.sources.gene_names import examples

# Deviation over mean of the library sizes: by tens of per cent where libraries are sequenced one by one.
EQUAL_LIBRARIES = 0.02
FEW_READS = 1e6  # libraries for counting genes have tens of millions of reads, a tenth of that is usable
FEW_DETECTED = 0.5  # of the cohort's median
COPY = 0.9999  # Spearman: repeated sequencing of one sample gives 0.99, other patients of one tissue 0.7 to 0.98
STRANGER = 0.3  # below the cohort's median correlation; tumours of one organ differ by a tenth
MANY_DIFFERENT = 0.5  # share of cells above 0 that are not whole; in RSEM's expected counts it is a tenth to a third
MANY_REPEATED = 0.2  # share of the rows: GENCODE's symbols, all of its genes, repeat in 2 %, TCGA's older ones in 5 %
MISSING_NAMES = 0.2  # share of a matrix's genes: GENCODE releases differ by some per cent
FAR_FROM_ZERO = 2.0  # half of all genes two deviations off their mean is no patient
OFF_MEAN, OFF_DEVIATION = 0.5, (0.5, 2.0)  # of the median gene's z-scores; those of a part of a cohort differ by less


@dataclass(frozen=True)
class Look:
    """What was looked at: the data, its labels (patient -> 0, 1, or -1 where a cohort has none), its files."""

    data: Expression
    labels: pd.Series
    files: pd.Series
    p: Params
    covered: dict[choice.Library, Coverage]


def look(patients: pd.DataFrame, p: Params) -> Look:
    """Read the cohort's expression and gene sets as a study does, with that road's errors.

    patients: as `Cohort.patients`, index patient_id, columns label and expression_path. The expression is found again
    where it was read before.
    """
    data = expression.load(patients, p)
    covered = choice.require_sets(p, data, libraries(p))
    return Look(data, patients["label"], patients["expression_path"], p, covered)


def libraries(p: Params) -> list[choice.Library]:
    """The libraries of gene sets that the task names a GMT file for."""
    named: dict[choice.Library, str] = {"go": p.go_gmt, "kegg": p.kegg_gmt}
    return [library for library, name in named.items() if name]


def find(patients: pd.DataFrame, p: Params) -> list[Finding]:
    """Findings on a cohort's expression and gene sets; patients: as `Cohort.patients`. Raises what `look` raises.

    None for a cohort without genes.
    """
    return findings_of(look(patients, p)) if p.has_genes else []


def findings_of(seen: Look) -> list[Finding]:
    """Findings, in the order in which one reads: patients, values, names, gene sets."""
    parts = (_depth, _by_class, _likeness, _values, _matrices, _names, _coverage)
    return [finding for part in parts for finding in part(seen)]


def summary(seen: Look) -> pd.DataFrame:
    """What is there: one row per number, columns what and value, in the order of the road."""
    data, libraries = seen.data, seen.data.libraries
    rows = [("patients", len(data.patients)), ("genes", len(data.genes)), ("level", data.level_unit)]
    for name, unit in (("reads", "reads of a patient"), ("detected", "genes detected in a patient")):
        if name in libraries and data.kind != "zscore":  # z-scores have no zero that would mean anything
            for of in ("min", "median", "max"):
                rows.append((f"{unit}, {of}", int(libraries[name].agg(of))))
    rows += [(f"left out: {reason}", n) for reason, n in data.dropped.items()]
    for library, covered in seen.covered.items():
        genes, sets = covered.shares
        rows.append((f"{library}: genes of the sets in the data", f"{covered.found} of {covered.genes} ({genes:.0%})"))
        rows.append((f"{library}: sets of usable size", f"{covered.usable} of {covered.sets} ({sets:.0%})"))
    return pd.DataFrame(rows, columns=["what", "value"])


# -- patients ----------------------------------------------------------------------------------------------------
def _depth(seen: Look) -> Iterator[Finding]:
    libraries = seen.data.libraries
    if "reads" in libraries:
        reads = libraries["reads"]
        median = reads.median()
        for patient, n in reads[(reads < profiles.SHALLOW * median) | (reads > median / profiles.SHALLOW)].items():
            yield Finding(
                "depth",
                f"{n:,} reads, where the cohort's median is {median:,.0f}: {n / median:.2g} times",
                "leave the patient out if the library failed, or if its counts are of another kind",
                seen.files[patient],
                f"patient {patient}",
            )
        if median < FEW_READS:
            yield Finding(
                "depth",
                f"the median library has {median:,.0f} reads, fewer than a million",
                "check that these are raw counts of all genes",
                seen.files.iloc[0],
            )
    detected = libraries["detected"]
    median = detected.median()
    for patient, n in detected[detected < FEW_DETECTED * median].items():
        yield Finding(
            "depth",
            f"{n:,} genes are detected, where the cohort's median is {median:,.0f}",
            "leave the patient out if the library failed",
            seen.files[patient],
            f"patient {patient}",
        )


def _by_class(seen: Look) -> Iterator[Finding]:
    return by_class.of(seen.data, seen.labels, seen.p.class_names)


def _likeness(seen: Look) -> Iterator[Finding]:
    level, patients = seen.data.level, seen.data.patients
    if level.shape[1] < MANY_GENES or len(patients) < 2:
        return
    alike = profiles.likeness(level)
    for i, j in profiles.pairs_above(alike, COPY):
        a, b = patients[i], patients[j]
        yield Finding(
            "same profile",
            f"correlation {alike[i, j]:.5f} (Spearman) with patient {b} ({seen.files[b]}): as of one measurement, "
            "rounded or scaled",
            "leave out the one whose values these are not",
            seen.files[a],
            f"patient {a}",
        )
    if len(patients) < MANY_PATIENTS:
        return
    np.fill_diagonal(alike, np.nan)
    usual = np.nanmedian(alike, axis=1)
    for i in np.flatnonzero(usual < np.median(usual) - STRANGER).tolist():
        yield Finding(
            "unlike all others",
            f"median correlation with the other patients {usual[i]:.2f} (Spearman), where it usually is "
            f"{np.median(usual):.2f}",
            "check that its genes are in the order of their names, and its tissue and unit those of the others",
            seen.files[patients[i]],
            f"patient {patients[i]}",
        )
    for path, rows in _rows_of_files(seen):
        others = np.setdiff1d(np.arange(len(patients)), rows)
        if min(len(rows), len(others)) < 2:
            continue
        within, across = np.nanmedian(alike[np.ix_(rows, rows)]), np.median(alike[np.ix_(rows, others)])
        if across < within - STRANGER:
            yield Finding(
                "unlike all others",
                f"median correlation of its patients with those of the other files {across:.2f} (Spearman), with each "
                f"other {within:.2f}",
                "check that the genes of all files are in the order of their names, and their unit is the same",
                path,
            )


# -- values ------------------------------------------------------------------------------------------------------
def _values(seen: Look) -> Iterator[Finding]:
    """What each file's numbers say of its stated kind."""
    data = seen.data
    if data.level.shape[1] < MANY_GENES:
        return
    if "tpm" in data.libraries:
        yield from _tpm(seen)
    if data.kind == "zscore":
        middle = np.median(data.level, axis=1)
        for i in np.flatnonzero(np.abs(middle) > FAR_FROM_ZERO).tolist():
            yield Finding(
                "kind of values",
                f"the median of its genes is {middle[i]:.2f}, where that of a patient's z-scores is near 0",
                "give its z-scores, by the means and deviations that the other patients' were made with",
                seen.files[data.patients[i]],
                f"patient {data.patients[i]}",
            )
    for path, rows in _rows_of_files(seen):
        if len(rows) < MANY_PATIENTS:
            continue
        if "reads" in data.libraries:
            reads = data.libraries["reads"].to_numpy()[rows]
            if reads.std() < EQUAL_LIBRARIES * reads.mean():
                yield Finding(
                    "kind of values",
                    f"all libraries have the same size ({reads.min():,} to {reads.max():,} reads), as of "
                    "normalised counts",
                    "give the raw counts: DESeq2 estimates their variance from them",
                    path,
                )
        else:
            yield from _moments(data.kind, data.level[rows].T, path)


def _tpm(seen: Look) -> Iterator[Finding]:
    """Files of some genes hold a part of the million; but so do files of another unit."""
    sums = seen.data.libraries["tpm"]
    low = sums[sums < MILLION / 2]
    if len(low):
        yield Finding(
            "kind of values",
            f"the TPM of {len(low)} of {len(sums)} patients add up to less than half a million "
            f"(lowest: {low.min():,.0f})",
            "check that the values are TPM and that no genes are missing",
            seen.files[low.idxmin()],
            f"patient {low.idxmin()}",
        )


def _moments(kind: str, values: np.ndarray, path: str) -> Iterator[Finding]:
    mean, deviation = gene_moments(values)
    if kind == "zscore" and (abs(mean) > OFF_MEAN or not OFF_DEVIATION[0] < deviation < OFF_DEVIATION[1]):
        yield Finding(
            "kind of values",
            f"the median gene has mean {mean:.2f} and deviation {deviation:.2f}, where z-scores have 0 and 1",
            "right if the scores are relative to other samples, such as normal tissue; else set expression_kind",
            path,
        )
    if kind == "log2tpm" and values.min() < 0 and abs(mean) < 0.1:
        yield Finding(
            "kind of values",
            f"the median gene has mean {mean:.2f}, as values that were centred per gene",
            "give log2(TPM + 1), or set expression_kind: zscore",
            path,
        )


def _matrices(seen: Look) -> Iterator[Finding]:
    matrices = seen.data.matrices
    if matrices.empty:
        return
    for path, share in matrices["fractional"].items():
        if share > MANY_DIFFERENT:
            yield Finding(
                "kind of values",
                f"{share:.0%} of the cells above 0 were no whole numbers and have been rounded, as of values that were "
                "scaled or normalised; of RSEM's expected counts most are whole",
                "give raw or expected counts",
                str(path),
            )
    smallest = matrices["genes"].astype(int).idxmin()
    n = int(matrices["genes"].astype(int)[smallest])
    common = _joined_genes(seen.data)
    if common < (1 - MISSING_NAMES) * n:
        yield Finding(
            "gene names",
            f"only {common} of its {n} genes are in every matrix",
            "name genes alike in all of them, by one release",
            str(smallest),
        )


def _joined_genes(data: Expression) -> int:
    """Genes that all matrices have, before names without a symbol and the like were dropped."""
    return len(data.genes) + sum(data.dropped.get(r, 0) for r in (DATES, NO_TABLE, "no symbol", "repeated symbols"))


def _rows_of_files(seen: Look) -> Iterator[tuple[str, np.ndarray]]:
    """Rows of each matrix's patients; of all, with the first file's name, where each patient has a file."""
    paths = seen.files.loc[seen.data.patients]
    if seen.data.matrices.empty:
        yield paths.iloc[0], np.arange(len(paths))
    else:
        for path in dict.fromkeys(paths):
            yield path, np.flatnonzero((paths == path).to_numpy())


# -- names -------------------------------------------------------------------------------------------------------
def _names(seen: Look) -> Iterator[Finding]:
    data, first = seen.data, seen.files.iloc[0]
    if n := data.dropped.get(DATES, 0):
        yield Finding(
            "gene names",
            f"{n} names are dates or numbers that a spreadsheet made of them, so their genes are lost",
            "write the table again without opening it in a spreadsheet (MARCH1 becomes 1-Mar there)",
            first,
            examples(data.examples[DATES], expression.EXAMPLES),
        )
    of_each = max(1, len(data.matrices))  # names are counted in every matrix
    repeated = data.dropped.get("repeated symbols", 0) + data.dropped.get("repeated gene names", 0) // of_each
    if repeated > MANY_REPEATED * (repeated + len(data.genes)):
        yield Finding(
            "gene names",
            f"{repeated} rows have the name of another one and are left out, {len(data.genes)} are kept, as of a table "
            "of transcripts, probes or exons",
            "give one row per gene, with the counts of all its transcripts",
            first,
        )
    missing = data.dropped.get(NO_TABLE, 0)
    if missing > MISSING_NAMES * _joined_genes(data):
        yield Finding(
            "gene table",
            f"{missing} of the data's {_joined_genes(data)} genes are not in {seen.p.gene_table}, and left out",
            "name a gene_table of the release that the files were made with, in their kind of id",
            first,
            examples(data.examples[NO_TABLE], expression.EXAMPLES),
        )


# -- gene sets ---------------------------------------------------------------------------------------------------
def _coverage(seen: Look) -> Iterator[Finding]:
    files = {library: choice.gmt(seen.p, library) for library in seen.covered}
    if len(files) == 2 and len({record.file_digest(path) for path in files.values()}) == 1:
        yield Finding(
            "gene sets",
            "go_gmt and kegg_gmt have the same content, so the models of the two are of the same sets",
            "name the file of each library",
            str(files["kegg"]),
        )
    for library, covered in seen.covered.items():
        if covered.dates:
            yield Finding(
                "gene sets",
                f"{len(covered.dates)} genes are dates or numbers that a spreadsheet made of their names",
                "download the file again, and open it in no spreadsheet",
                str(files[library]),
                examples(covered.dates, expression.EXAMPLES),
            )
        genes, sets = covered.shares
        if genes < coverage.ENOUGH or sets < coverage.ENOUGH:
            yield Finding(
                "gene sets",
                f"the data hold {covered.found} of the sets' {covered.genes} genes ({genes:.0%}), and {covered.usable} "
                f"of {covered.sets} sets are of usable size there ({sets:.0%}); names: {covered.names}",
                "give expression of all genes, or gene sets in the data's kind of id and species",
                str(files[library]),
            )
