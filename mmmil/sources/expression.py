"""Expression files as they come: STAR counts, HTSeq counts, matrices of genes x samples; each checked as a whole."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from mmmil.sources import barcodes
from mmmil.sources.expression_values import checked
from mmmil.sources.gene_names import (
    ANY_ENSEMBL,
    ExpressionError,
    cleaned,
    is_spike_in,
    is_summary_row,
    require_gene_names,
    without_version,
)

STAR_COLUMNS = [
    *("gene_id", "gene_name", "gene_type", "unstranded", "stranded_first", "stranded_second"),
    *("tpm_unstranded", "fpkm_unstranded", "fpkm_uq_unstranded"),
]
# Summary rows that every file of its kind has: where one lacks, the file was cut. Any other one is dropped as well.
STAR_ROWS = {"N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"}
HTSEQ_ROWS = {"__no_feature", "__ambiguous", "__too_low_aQual", "__not_aligned", "__alignment_not_unique"}
SUMMARY_ROWS = {"star": STAR_ROWS, "htseq": HTSEQ_ROWS}
# Lines above the header, such as featureCounts' `# Program:...`; a header that starts with # has separators.
COMMENT, GCT = re.compile(r"#( [^\t]*|[^\t,]*)$"), ("#1.2", "#1.3")
SUMMARY, SPIKE_INS = "summary rows", "spike-ins"  # rows that readers leave out, as their table's `attrs` count them
COMMON_GENES = {"ACTB", "BRAF", "BRCA1", "CD8A", "EGFR", "ERBB2", "ESR1", "GAPDH", "KRAS", "MYC", "PTEN", "TP53"}
NOT_A_NUMBER = ["", "NA", "NaN", "nan", "null", "NULL", "N/A"]
NUMBER_WORDS = {*(word.casefold() for word in NOT_A_NUMBER), "inf", "infinity"}
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"  # what such files start with
AGAIN = "compare its size and MD5 with the manifest and download it again"


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """A plain, gzip or one-file zip file as bytes; ExpressionError where it is missing or cut.

    By what it starts with: browsers and people unpack a file and leave it the name `.gz`, or the other way round.
    """
    if not path.is_file():
        raise ExpressionError(f"{path}: the file is not there; download it, or correct its name")
    try:
        with path.open("rb") as handle:
            start = handle.read(len(ZIP))
            handle.seek(0)
            if start.startswith(GZIP):
                with gzip.open(handle) as unpacked:
                    yield unpacked
            elif start == ZIP:
                with zipfile.ZipFile(handle) as archive, archive.open(_only_member(archive, path)) as member:
                    yield member
            else:
                yield handle
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise ExpressionError(f"{path}: the file is truncated or damaged ({error}); {AGAIN}") from None
    except OSError as error:
        raise ExpressionError(f"{path}: cannot be read ({error}); see to its permissions and its disk") from None


def _only_member(archive: zipfile.ZipFile, path: Path) -> str:
    names = archive.namelist()
    if "[Content_Types].xml" in names:
        raise ExpressionError(f"{path}: is a spreadsheet; save its sheet as text, separated by tabs")
    if len(names) != 1:
        raise ExpressionError(f"{path}: holds {len(names)} files; put one table in it")
    return names[0]


def _whole(path: Path, kind: str) -> bytes:
    """All bytes of a counts file, which must end with a whole line and have the summary rows of its kind."""
    with _opened(path) as handle:
        data = handle.read().removeprefix(b"\xef\xbb\xbf")
    if not data.endswith(b"\n"):
        raise ExpressionError(f"{path}: the file is truncated (its last line is not ended); {AGAIN}")
    if missing := _missing_rows(data, SUMMARY_ROWS[kind]):
        for other in SUMMARY_ROWS.keys() - {kind}:
            if not _missing_rows(data, SUMMARY_ROWS[other]):
                raise ExpressionError(f"{path}: holds {other} counts, not {kind}; set expression_kind: {other}")
        raise ExpressionError(f"{path}: the file is truncated or foreign (no row {', '.join(missing)}); {AGAIN}")
    return data


def _missing_rows(data: bytes, names: set[str]) -> list[str]:
    missing = sorted(n for n in names if f"\n{n}\t".encode() not in data and not data.startswith(f"{n}\t".encode()))
    if missing:  # in another case, or without HTSeq's `__`, as before its version 0.6
        stems = {n.lstrip("_").lower() for n in missing}
        lines = (line.partition(b"\t")[0] for line in data.splitlines())
        there = {line.decode(errors="replace").lstrip("_").lower() for line in lines} & stems
        missing = [n for n in missing if n.lstrip("_").lower() not in there]
    return missing


def _without_summary_rows(table: pd.DataFrame, names: pd.Series) -> pd.DataFrame:
    """The rows that are genes; `attrs` says how many of which other kind there were."""
    summary, spike_ins = is_summary_row(names), is_spike_in(names)
    genes = table[~summary & ~spike_ins]
    genes.attrs[SUMMARY], genes.attrs[SPIKE_INS] = int(summary.sum()), int(spike_ins.sum())
    return genes


def _require_whole_numbers(counts: pd.Series, ids: pd.Series, path: Path) -> np.ndarray:
    numbers = pd.to_numeric(counts, errors="coerce")
    bad = ~(np.isfinite(numbers) & (numbers >= 0) & (numbers % 1 == 0) & (numbers < 2**31))
    if bad.any():
        raise ExpressionError(f"{path}: gene {ids[bad].iloc[0]} has the count '{counts[bad].iloc[0]}'; {AGAIN}")
    return numbers.to_numpy(np.int32)


def require_unique(ids: pd.Series, path: Path) -> None:
    if ids.empty:
        raise ExpressionError(f"{path}: holds no gene; {AGAIN}")
    if ids.duplicated().any():
        raise ExpressionError(f"{path}: gene {ids[ids.duplicated()].iloc[0]} stands there twice; {AGAIN}")


def read_star(path: Path) -> pd.DataFrame:
    """GDC STAR counts (`*.augmented_star_gene_counts.tsv[.gz]`) without its four N_* rows.

    Returns columns gene_id (as in the file), symbol, count (int32, unstranded), tpm (float32), one row per gene; its
    `attrs` count the other rows. Raises ExpressionError for another layout, for truncated or damaged files, and for
    TPM that contradict the counts or are none.
    """
    data = _whole(path, "star")
    start = data.index(b"\n") + 1 if data.startswith(b"#") else 0
    columns = data[start : data.index(b"\n", start)].decode(errors="replace").rstrip("\r").split("\t")
    if columns != STAR_COLUMNS:
        raise ExpressionError(f"{path}: has the columns {columns}, not {STAR_COLUMNS}; name a STAR counts file")
    text, numbers = ["gene_id", "gene_name"], ["unstranded", "tpm_unstranded", "fpkm_uq_unstranded"]
    try:
        table = pd.read_csv(
            io.BytesIO(data[start:]), sep="\t", quoting=3, low_memory=False, usecols=[*text, *numbers],
            dtype=dict.fromkeys(text, str), keep_default_na=False, na_values={name: [""] for name in numbers},
        )  # fmt: skip
    except pd.errors.ParserError as error:
        raise ExpressionError(f"{path}: damaged ({error}); {AGAIN}") from None
    table = _without_summary_rows(table, table["gene_id"])
    require_unique(table["gene_id"], path)
    tpm = pd.to_numeric(table["tpm_unstranded"], errors="coerce")
    bad = ~(np.isfinite(tpm) & (tpm >= 0)) | table["fpkm_uq_unstranded"].isna()
    if bad.any():
        raise ExpressionError(f"{path}: the line of gene {table['gene_id'][bad].iloc[0]} is not whole; {AGAIN}")
    counts = _require_whole_numbers(table["unstranded"], table["gene_id"], path)
    _require_tpm(tpm, counts, table["gene_id"], path)
    genes = table[["gene_id", "gene_name"]].rename(columns={"gene_name": "symbol"})
    return genes.assign(count=counts, tpm=tpm.astype(np.float32)).reset_index(drop=True)


def _require_tpm(tpm: pd.Series, counts: np.ndarray, ids: pd.Series, path: Path) -> None:
    """TPM of a sample add up to a million (to less in a file of some genes), and are 0 without a count."""
    if tpm.sum() > 1.01e6:
        raise ExpressionError(
            f"{path}: its TPM add up to {tpm.sum():,.0f}, more than a million, so they are none; download it again"
        )
    if (bad := (tpm > 0) & (counts == 0)).any():
        raise ExpressionError(
            f"{path}: gene {ids[bad].iloc[0]} has the count 0 and {tpm[bad].iloc[0]} TPM: its columns are not of one "
            "sample; download it again"
        )


def read_htseq(path: Path) -> pd.DataFrame:
    """GDC HTSeq counts (`*.htseq.counts[.gz]`) without its five `__` rows: columns gene_id, symbol, count (int32), and
    `attrs` that count the other rows.

    The file has no symbols, so symbol is the Ensembl id without version: without a gene table that gives symbols,
    gene sets must be given in Ensembl ids.
    """
    data = _whole(path, "htseq")
    try:
        table = pd.read_csv(io.BytesIO(data), sep="\t", header=None, quoting=3, dtype=str, keep_default_na=False)
    except pd.errors.ParserError as error:
        raise ExpressionError(f"{path}: damaged ({error}); {AGAIN}") from None
    if table.shape[1] != 2:
        raise ExpressionError(f"{path}: has {table.shape[1]} columns, HTSeq counts have 2; name an HTSeq counts file")
    table = _without_summary_rows(table, table[0]).reset_index(drop=True)
    require_unique(table[0], path)
    counts = _require_whole_numbers(table[1], table[0], path)
    return table[[0]].rename(columns={0: "gene_id"}).assign(symbol=without_version(table[0]), count=counts)


# -- matrices ----------------------------------------------------------------------------------------------------
def _header(handle: IO[bytes] | gzip.GzipFile, path: Path) -> tuple[list[str], str]:
    try:
        first = handle.readline().decode("utf-8-sig").rstrip("\r\n")
        if first.startswith(GCT):
            raise ExpressionError(f"{path}: is a GCT file; delete its first two lines and the column Description")
        while COMMENT.match(first):
            first = handle.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ExpressionError(f"{path}: line 1 is no text in UTF-8 ({error}); save the table as UTF-8") from None
    if "\r" in first:
        raise ExpressionError(f"{path}: its lines end with CR alone, as of old Macs; save the table with LF or CR LF")
    sep = "\t" if "\t" in first else ","
    names = next(csv.reader([first], delimiter=sep), [])
    if len(names) < 2:
        raise ExpressionError(
            f"{path}: its first line, '{first[:60]}', names no samples separated by tabs or commas; give a table of "
            "genes x samples with a header"
        )
    start = handle.tell()
    cells = next(csv.reader([handle.readline().decode(errors="replace").rstrip("\r\n")], delimiter=sep), [])
    handle.seek(start)
    if not _by_slide(names):
        _require_genes_in_rows(path, names, cells)
    if len(cells) > len(names):  # R writes row names without a name; every sample would get its neighbour's values
        remedy = (
            "put 'gene' before the first sample's name" if cells[-1] else "delete the empty cell that ends the rows"
        )
        raise ExpressionError(f"{path}: line 2 has {len(cells)} cells, the header {len(names)}; {remedy}")
    return names, sep


def _require_genes_in_rows(path: Path, names: list[str], cells: list[str]) -> None:
    """Raise ExpressionError for samples x genes, whose genes would be patients, and for a second header.

    cells: those of line 2.
    """
    genes = [name for name in names[1:] if name.upper() in COMMON_GENES or ANY_ENSEMBL.match(name)]
    sample = cells[0] if cells and barcodes.named_patient(cells[0]) else ""
    if sample or len(genes) > 2:
        what = f"line 2 is of the sample {sample}" if sample else f"{genes[0]}, {genes[1]} and more are columns"
        raise ExpressionError(f"{path}: {what}; give genes in rows, samples in columns")
    words = [cell for cell in cells[1:] if re.match("[A-Za-z]{2}", cell) and cell.casefold() not in NUMBER_WORDS]
    if len(words) > len(cells) / 2:
        raise ExpressionError(f"{path}: line 2 has '{words[0]}' and more words, as a second header; delete the line")


def _by_slide(names: list[str]) -> bool:
    """Whether a table is PORPOISE's: one row per slide, genes in the columns `<symbol>_rnaseq`."""
    return "case_id" in names and any(name.endswith("_rnaseq") for name in names)


def matrix_columns(path: Path) -> list[str]:
    """Names of a matrix's samples, from its first two lines alone; the patients of a PORPOISE table."""
    with _opened(path) as handle:
        names, sep = _header(handle, path)
        if _by_slide(names):
            cases = pd.read_csv(handle, sep=sep, header=None, names=names, usecols=["case_id"], dtype=str)["case_id"]
            return cases.drop_duplicates().tolist()
    columns = names[1:]
    again = [name for name, n in Counter(columns).items() if n > 1]
    if again:
        headless = all(re.fullmatch(r"[\d.]+", name) for name in columns)
        remedy = "put the line of the samples' names above" if headless else "delete one of them"
        raise ExpressionError(f"{path}: the column {again[0]} stands there twice; {remedy}")
    return columns


def read_matrix(path: Path, kind: str, columns: list[str] | None = None, whole: bool = True) -> pd.DataFrame:
    """Matrix of genes x samples (TSV or CSV, gzip or zip), or a PORPOISE table: index gene names, columns samples.

    kind: 'counts' (int32), 'log2tpm' or 'zscore' (float32); columns: these samples only; whole: False also takes
    expected counts, which are no whole numbers (float64). Summary rows and spike-ins are left out and counted in
    `attrs`. Raises ExpressionError for a table without gene names and for cells that are missing, no number, or not
    what `kind` says.
    """
    with _opened(path) as handle:
        names, sep = _header(handle, path)
        by_slide = _by_slide(names)
        if by_slide and kind != "zscore":
            raise ExpressionError(f"{path}: its *_rnaseq columns are z-scores, not {kind}; set expression_kind: zscore")
        wanted = names[1:] if columns is None else columns
        if by_slide:
            use = [i for i, name in enumerate(names) if name == "case_id" or name.endswith("_rnaseq")]
            label = names.index("case_id")
        else:
            missing = sorted(set(wanted) - set(names[1:]))
            if missing:
                raise ExpressionError(f"{path}: has no column {missing[0]}; correct the patient's id or the matrix")
            keep = set(wanted)
            use, label = [0, *(i for i, name in enumerate(names) if i and name in keep)], 0
        na_values = {i: NOT_A_NUMBER for i in use if i != label}
        try:
            frame = pd.read_csv(
                handle, sep=sep, header=None, usecols=use, dtype={label: str},
                keep_default_na=False, na_values=na_values, low_memory=False,
            )  # fmt: skip
        except ValueError as error:
            raise ExpressionError(f"{path}: not a matrix that can be read ({error}); {AGAIN}") from None
    frame = frame.set_index(label).rename(columns=dict(enumerate(names))).rename_axis(index=None)
    if by_slide:
        frame = _one_row_per_case(frame, path)
        frame = frame if columns is None else frame[columns]
    elif columns is not None:
        frame = frame[columns]
    if not by_slide:
        frame.index = pd.Index(cleaned(frame.index.to_series()), dtype=object)
        require_gene_names(frame.index.to_series(), path)
    frame = _without_summary_rows(frame, frame.index.to_series())
    if frame.empty:
        raise ExpressionError(f"{path}: holds no gene; {AGAIN}")
    return checked(frame, path, kind, whole)


def _one_row_per_case(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Rows of the same case repeat the patient's expression; the first is taken after checking that."""
    first = frame[~frame.index.duplicated()]
    same = frame.eq(first.loc[frame.index]) | (frame.isna() & first.loc[frame.index].isna())
    if not same.to_numpy().all():
        case = frame.index[~same.to_numpy().all(axis=1)][0]
        raise ExpressionError(f"{path}: rows of the case {case} differ in expression; keep the right one")
    return first.T.rename(index=lambda name: name.removesuffix("_rnaseq"))
