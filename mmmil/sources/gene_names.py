"""What genes are called and how long they are: which names are no gene's, Ensembl ids, and the user's gene table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from mmmil.sources.tables import CohortError, read_table

ENSEMBL_ID = re.compile(r"^ENS[A-Z]*\d+$")
ANY_ENSEMBL = re.compile(r"^ENS[A-Z]*\d{6,}(\.\d+)?(_PAR_Y)?$", re.IGNORECASE)
ENSEMBL_VERSION = re.compile(r"^(ENS\w*?\d+)\.\d+")
PAR_Y = re.compile(r"_PAR_Y\b|^ENSGR\d")  # GENCODE before release 25, as in HTSeq files, writes ENSGR0...
# GENCODE and the GDC say gene_name; the GDC's gencode.gene.info has exon_length beside a full_length with introns.
NAMES = {"gene_id": ["gene_id"], "symbol": ["symbol", "gene_name"], "length": ["length", "exon_length"]}
WITHOUT_TPM = ("htseq", "counts")  # kinds of expression files whose level is computed from their counts


# Rows that counting programs, and people after them, put below or above the genes: no symbol of GENCODE is among them.
SUMMARY_ROW = re.compile(
    r"""^(
      _.* | x__.*                                     # HTSeq's __no_feature, DEXSeq's _ambiguous, R's X__no_feature
    | n_?(unmapped|multimapping|no_?feature|ambiguous)       # STAR
    | no_?feature | ambiguous | too_low_aqual | not_?aligned | alignment_not_unique          # HTSeq before 0.6
    | assigned | unassigned([_.].*)?                                                         # featureCounts
    | [np]_(processed|pseudoaligned|unique|tot(al)?) | (num|percent)_[a-z_]+                 # kallisto, RSEM, salmon
    | (grand[ _.])?totals?([ _.]?(reads?|counts?|sum))? | sums? | (col|column)[ _.]?sums? | averages? | mean | median
    | lib(rary)?[ _.]?size | (un|multi)?[ _.]?mapped([ _.]?reads)? | \*
    )$""",
    re.IGNORECASE | re.VERBOSE,
)
# What stands where there is no symbol: TCGA's `?`, R's NA and NA.1, pandas' nan, a spreadsheet's errors.
NO_SYMBOL = re.compile(r"^(\?|NA(\.\d+)?|N/A|nan|none|null|-+|\.|#(N/A|NAME\?|REF!|VALUE!))?$", re.IGNORECASE)
SPIKE_IN = re.compile(r"^ERCC-\d{5}$", re.IGNORECASE)  # ERCC1 to ERCC8 are genes
# What spreadsheets make of MARCH1, SEPT2, DEC1, OCT4 or 2310009E13Rik. A month needs a mark beside it: MARCH1, SEP15
# and DEC1 are symbols; and after a month two digits: OCT-1 and APR-1 are aliases.
MONTH = (
    r"(jan(uary|uar|v)?|feb(ruary|ruar)?|f[ée]vr?|m[aä]r(ch|s|z)?|mrz|a[pv]r(il)?|ma[iy]|ju[nl]([ey]|i)?|jui[nl]|aug(ust)?"
    r"|ao[ûu]t|sep(t(ember|embre)?)?|o[ck]t(ober)?|nov(ember)?|de[cz](ember)?|d[ée]c)"
)
DATE = re.compile(
    rf"""^x?(
      \d{{1,2}}\.?[-./ ]{MONTH}\.?([-./ ]\d{{2}}(\d{{2}})?)?     # 1-Mar, 01. Mrz, 1-Mar-01
    | {MONTH}\.?[-./ ]\d{{2}}(\d{{2}})?                           # Mar-01, Sep 2002
    | \d{{4}}[-./]\d{{1,2}}[-./]\d{{1,2}}([ T]\d{{1,2}}:\d{{2}}(:\d{{2}}(\.\d+)?)?)?      # 2001-03-01 00:00:00
    | \d{{1,2}}[-./]\d{{1,2}}[-./]\d{{2}}(\d{{2}})?              # 3/1/2001, 01.03.01
    | \d(\.\d+)?E\+\d+                                         # 2.31E+13
    )$""",
    re.IGNORECASE | re.VERBOSE,
)
# Days of 2000 to 2032 as a spreadsheet counts them; no human gene has an Entrez id between (they jump from 30,851 to
# 50,484).
SERIAL_DAYS = (36_526, 48_579)


class ExpressionError(ValueError):
    """An expression file is damaged or not what the parameters say; names the file, the gene and the remedy."""


def clean(name: str) -> str:
    """A name without the blanks and the pair of quotes around it; an Ensembl id in capitals, an Entrez id that pandas
    made a float of (7157.0) without its point.
    """
    name = name.strip()
    if name[:1] in ("'", '"') and name[-1:] == name[0] and len(name) > 1:
        name = name[1:-1].strip()
    if name[-2:] == ".0" and name[:-2].isdigit():
        return name[:-2]
    return name.upper() if name[:1] == "e" and ANY_ENSEMBL.match(name) else name


def cleaned(names: pd.Series) -> pd.Series:
    """Names as `clean` has them."""
    return names.map(clean)


def symbol_part(names: pd.Series) -> pd.Series:
    """The symbol of names of several parts, `symbol|entrez` (TCGA's older ones) or `ENSG...|symbol`; others as they
    are.
    """
    if not names.str.contains("|", regex=False).any():
        return names
    parts = names.str.partition("|")
    second = parts[2].str.partition("|")[0]
    is_second = parts[0].str.match(ANY_ENSEMBL) & (second != "") & ~second.str.match(ANY_ENSEMBL)
    return parts[0].where(~is_second, second)


def is_summary_row(names: pd.Series) -> np.ndarray:
    """Which rows sum up reads of no gene, or of all (SUMMARY_ROW), and so are part of no library; (rows,) bool."""
    # Ensembl ids, 60,000 a file, are known at a glance
    return np.array([n[:3] != "ENS" and bool(SUMMARY_ROW.match(n.partition("|")[0])) for n in names], bool)


def is_spike_in(names: pd.Series) -> np.ndarray:
    """Which rows are RNA that the laboratory added (ERCC-00002), and so part of no patient's library; (rows,) bool."""
    return np.array([n[:5].upper() == "ERCC-" and bool(SPIKE_IN.match(n)) for n in names], bool)


def is_unnamed(symbols: pd.Series) -> np.ndarray:
    """Which symbols are none (NO_SYMBOL); (rows,) bool."""
    return np.array([bool(NO_SYMBOL.match(symbol)) for symbol in symbols], bool)


def is_date(names: pd.Series) -> np.ndarray:
    """Which names a spreadsheet has turned into a date or a number, so that no one knows the gene; (rows,) bool.

    Days as whole numbers (36951) count where most names are no numbers: Entrez ids are.
    """
    names = symbol_part(names)
    days = pd.to_numeric(names.where(names.str.fullmatch(r"\d{5}")), errors="coerce").between(*SERIAL_DAYS)
    few = names.str.fullmatch(r"\d+").mean() < 0.5
    return (names.str.match(DATE) | (days & few)).to_numpy(bool)


def without_version(ids: pd.Series) -> pd.Series:
    return ids.str.replace(ENSEMBL_VERSION, r"\1", regex=True)


def is_par_y(ids: pd.Series) -> np.ndarray:
    """Which ids are the second copy, on Y, of a gene that X and Y share; (genes,) bool."""
    return ids.str.contains(PAR_Y).to_numpy(bool)


def id_type(ids: Iterable[str]) -> str:
    """What most of the ids look like: 'Ensembl ids', 'Entrez ids' or 'gene symbols'."""
    ids = [str(i) for i in ids]
    for name, pattern in {"Ensembl ids": r"ENS[A-Z]*\d{6,}(\.\d+)?", "Entrez ids": r"\d+"}.items():
        if sum(bool(re.fullmatch(pattern, i)) for i in ids) > len(ids) / 2:
            return name
    return "gene symbols"


def examples(names: Iterable[str], n: int = 3) -> str:
    """The first few names, for a message."""
    return ", ".join(map(str, itertools.islice(names, n)))


def gap(one: Iterable[str], other: Iterable[str], these: str, those: str) -> str:
    """How two sources (called `these` and `those`, in the plural) name the genes that they do not share, in words:
    their kinds of id, names that differ in capitals only, or examples of each.
    """
    first, second = list(dict.fromkeys(one)), list(dict.fromkeys(other))
    kinds = id_type(first), id_type(second)
    if kinds[0] != kinds[1]:
        return f"{these} hold {kinds[0]} ({examples(first)}), {those} {kinds[1]} ({examples(second)})"
    capitals, there = {name.upper(): name for name in second}, set(second)
    turned = [name for name in first if name not in there and name.upper() in capitals]
    if turned and len(turned) > 0.1 * min(len(first), len(second)):
        same = capitals[turned[0].upper()]
        return (
            f"{len(turned)} names are the same but for capitals ({turned[0]} in {these}, {same} in {those}), as those "
            "of another species are, or names that a program has changed"
        )
    own, others = set(first), [examples(n for n in first if n not in there)]
    others.append(examples(n for n in second if n not in own))
    return f"{these} alone hold {kinds[0]} such as {others[0] or 'none'}, {those} alone {others[1] or 'none'}"


def require_gene_names(names: pd.Series, path: Path) -> None:
    """Raise ExpressionError where the first column of a matrix has an empty cell, or a sample's values.

    Entrez ids are numbers too, but whole ones and each there once.
    """
    if (names == "").any():
        raise ExpressionError(f"{path}: a row has no gene name; name it or delete it")
    if (broken := names.str.contains("\n", regex=False)).any():  # the rows up to the next quote would be lost
        first = names[broken].iloc[0].partition("\n")[0]
        raise ExpressionError(f"{path}: gene {first[:40]!r}: the quote is not closed on its line; remove or close it")
    numbers = pd.to_numeric(names, errors="coerce")
    if len(names) and numbers.notna().all() and ((numbers % 1 != 0).any() or numbers.duplicated().any()):
        raise ExpressionError(
            f"{path}: the first column holds numbers only (first: {names.iloc[0]}), so its genes have no names; "
            "put a column of gene symbols or Ensembl ids first"
        )


def read_gene_table(path: Path) -> pd.DataFrame:
    """The gene table: index gene_id (no version, `_PAR_Y` copies left out), columns symbol and length, or one of them.

    A CSV, or TSV by its suffix, either as `.gz`; columns as NAMES says, others are ignored; lengths in bp of exons.
    Raises ExpressionError for missing columns, a table without rows, a gene without id, on two lines, or with a
    length that is no positive number.
    """
    try:
        table = read_table(path)
    except CohortError as error:
        raise ExpressionError(f"gene_table: {error}") from None
    matches = {name: [c for c in choices if c in table] for name, choices in NAMES.items()}
    if not matches["gene_id"] or not (matches["symbol"] or matches["length"]):
        raise ExpressionError(
            f"{path}: has the columns {', '.join(table.columns)}; a gene_table needs gene_id, and symbol (or "
            "gene_name) or length (or exon_length)"
        )
    table = table[[columns[0] for columns in matches.values() if columns]]
    table.columns = [name for name, columns in matches.items() if columns]
    table = table[~is_par_y(table["gene_id"])]
    ids = without_version(table["gene_id"])

    def refuse(bad: pd.Series, fault: str) -> None:
        if bad.any():
            line = table.index[bad][0]
            raise ExpressionError(f"{path}, line {line}: " + fault.format(id=ids[line], **table.loc[line, fields]))

    fields = [name for name in table if name != "gene_id"]
    if table.empty:
        raise ExpressionError(f"{path}: the gene_table holds no gene; give one line per gene")
    refuse(ids == "", "gene_id is empty; fill it or delete the line")
    refuse(ids.duplicated(), "gene_id {id} stands there twice; keep one line per gene")
    if "length" in table:
        length = pd.to_numeric(table["length"], errors="coerce").astype(float)
        refuse(~(np.isfinite(length) & (length > 0)), "length '{length}' of gene {id} is no number of bp; correct it")
        table = table.assign(length=length)
    return table.set_index(ids.rename("gene_id")).drop(columns="gene_id")


def gene_table_for(kind: str, path: Path | None, counts_level: str, file: str | Path) -> pd.DataFrame | None:
    """The gene table that expression files of `kind` are read with, or None; STAR files need none and ignore it.

    Raises ExpressionError where counts need lengths for TPM and there are none; `file` is one of them, to be named.
    """
    if kind == "star":
        return None
    table = None if path is None else read_gene_table(Path(path))
    if kind in WITHOUT_TPM and counts_level == "tpm" and (table is None or "length" not in table):
        lacks = "states no TPM and no gene lengths" if table is None else f"states no TPM, and {path} has no length"
        raise ExpressionError(
            f"{file}: {lacks}, so there is no level; name a gene_table with the column length, or set counts_level: cpm"
        )
    return table


def with_symbols(genes: pd.DataFrame, table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """genes (gene_id, symbol) with the table's symbols, and which (bool) are Ensembl ids that the table lacks.

    Rows that are named otherwise, by symbol, keep their symbol. Without a column symbol nothing changes.
    """
    if "symbol" not in table:
        return genes, np.zeros(len(genes), bool)
    ids = genes["gene_id"].str.split("|").str[0]
    symbol = ids.map(table["symbol"])
    unknown = symbol.isna() & ids.str.contains(ENSEMBL_ID)
    return genes.assign(symbol=symbol.where(symbol.notna(), genes["symbol"])), unknown.to_numpy(bool)


def gene_lengths(genes: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """(genes,) float64 lengths in bp by gene_id, else by symbol, NaN where the table has neither.

    Of genes that share a symbol the longest counts: which of them a matrix named by symbol means is not known.
    """
    length = genes["gene_id"].str.split("|").str[0].map(table["length"])
    if "symbol" in table:
        length = length.fillna(genes["symbol"].map(table.groupby("symbol")["length"].max().drop("", errors="ignore")))
    return length.to_numpy(np.float64)
