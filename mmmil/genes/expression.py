"""Expression files to one matrix of patients x genes, with one symbol per gene (Preprocessing, RNA-seq).

Reads GDC STAR counts and HTSeq counts (a file per patient), or matrices of genes x samples. Counts stay integers for
DESeq2; `level` is what the autoencoder sees: log2(TPM + 1). HTSeq files and count matrices state neither TPM nor gene
lengths: their TPM is computed with the lengths of a gene table, or their level is log2(CPM + 1), as `level_unit` says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmil import record
from mmmil.genes import profiles, raw
from mmmil.params import Params
from mmmil.sources.expression import (
    ExpressionError,
    read_htseq,
    read_matrix,
    read_star,
    require_unique,
)
from mmmil.sources.expression_values import tpm_sums
from mmmil.sources.gene_names import (
    WITHOUT_TPM,
    gap,
    gene_lengths,
    gene_table_for,
    is_date,
    is_par_y,
    is_unnamed,
    with_symbols,
    without_version,
)

__all__ = ["Expression", "ExpressionError", "assemble", "load"]
__all__ += ["log2_cpm", "log2_tpm", "read_htseq", "read_matrix", "read_star"]

UNITS = {"tpm": "log2(TPM+1)", "cpm": "log2(CPM+1)", "log2tpm": "log2 TPM as given", "zscore": "z-score"}
NO_TABLE, DATES = "not in the gene table", "names that are dates or numbers"
EXAMPLES = 5  # names kept of those that a reason drops


@dataclass
class Expression:
    """patients: in the cohort's order; genes: index gene_id (no version), column symbol, both unique.

    counts: (patients, genes) int32, None unless kind is 'counts'; level: (patients, genes) float32 in `level_unit`
    ('log2(TPM+1)', 'log2(CPM+1)', 'log2 TPM as given', 'z-score'); dropped: rows of the files left out, by reason,
    and under `raw.ROUNDED` the cells (of all rows and these patients) that round_counts changed; fingerprint: hash of
    everything it was made from.

    For a look at the data: libraries: index patient, columns detected (genes, see `profiles.detected`), reads (where
    there are counts: of all genes that the level is computed from) and tpm (where the files state TPM: their sum);
    matrices: index path, columns genes and fractional (share of the cells above 0 that round_counts changed), no rows
    for per-patient files; examples: a few of the names that each reason dropped. measured: ids of all genes whose
    counts make a patient's TPM or CPM; none where the files state levels.
    """

    patients: list[str]
    genes: pd.DataFrame
    counts: np.ndarray | None
    level: np.ndarray
    kind: str
    level_unit: str
    dropped: dict[str, int]
    fingerprint: str = ""
    libraries: pd.DataFrame = field(default_factory=pd.DataFrame)
    matrices: pd.DataFrame = field(default_factory=pd.DataFrame)
    examples: dict[str, list[str]] = field(default_factory=dict)
    measured: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How another cohort was read, so that a patient is read likewise whoever else is there.

    chosen: gene ids that were taken, before others of the same symbol; measured: ids of all genes that levels were
    computed from, of which a patient's are computed, too; empty where files state levels.
    """

    chosen: frozenset[str]
    measured: frozenset[str]


def log2_cpm(counts: np.ndarray) -> np.ndarray:
    """log2(counts per million + 1), float32; counts: (patients, genes), its row sums are the library sizes."""
    level = np.empty(counts.shape, np.float32)
    for i, row in enumerate(counts):  # by patient, so that no second matrix of doubles is held
        level[i] = np.log2(row * (1e6 / row.sum(dtype=np.int64)) + 1)
    return level


def log2_tpm(counts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """log2(transcripts per million + 1), float32; counts: (patients, genes); lengths: (genes,) bp.

    Genes without a length (NaN) are no part of the million and get 0.
    """
    known = np.isfinite(lengths)
    level = np.zeros(counts.shape, np.float32)
    for i, row in enumerate(counts):
        rate = row[known] / lengths[known]
        level[i, known] = np.log2(rate * (1e6 / rate.sum()) + 1)
    return level


def assemble(
    expression_path: pd.Series,
    kind: str,
    *,
    gene_table: Path | None = None,
    counts_level: str = "tpm",
    round_counts: bool = False,
    like: Reading | None = None,
    source: raw.Matrices | None = None,
) -> Expression:
    """The cohort's matrix from its files, uncached.

    expression_path: index patient_id, value the patient's file, or the matrix that holds the patient; the rest as the
    parameters expression_kind, gene_table, counts_level and round_counts; like: the cohort as which they are read;
    source: where columns of matrices come from. Drops summary rows and spike-ins, `_PAR_Y`
    copies, genes that the gene table lacks (Ensembl ids where it gives symbols, genes without a length where TPM is
    computed), genes without symbol or named by a date and genes not in every matrix; of rows of the same symbol it
    keeps the one with the highest total over these patients (z-scores: the first). TPM and CPM are computed before
    genes without symbol, dates and rows of the same symbol go, since their reads are the patient's: TPM over all genes
    with a length, CPM over all genes.

    Raises ExpressionError for files that cannot be used, a patient without a measurement (`profiles.require_depth`) and
    one measurement of two patients.
    """
    table = gene_table_for(kind, gene_table, counts_level, expression_path.iloc[0])  # before anything large is read
    dropped: Counter = Counter()
    counts: np.ndarray | None
    level: np.ndarray | None
    matrices = pd.DataFrame(columns=["genes", "fractional"])
    if kind in ("star", "htseq"):
        genes, counts, level = raw.from_files([Path(name) for name in expression_path], kind, dropped)
        places = expression_path
        par = is_par_y(genes["gene_id"])
        dropped["_PAR_Y copies"] = int(par.sum())
        genes = genes[~par].assign(gene_id=without_version(genes["gene_id"][~par]))
        counts, level = counts[:, ~par], None if level is None else level[:, ~par]
        require_unique(genes["gene_id"], Path(expression_path.iloc[0]))
    else:
        genes, values, places, matrices = raw.from_matrices(
            expression_path, kind, round_counts, dropped, source or raw.Matrices()
        )
        counts, level = (values, None) if kind == "counts" else (None, values)
    if like is not None and like.measured:
        known = genes["gene_id"].isin(like.measured).to_numpy()
        if not known.any():
            names = gap(genes["gene_id"], sorted(like.measured), "the data", "genes of the training")
            remedy = "name them alike, or give a gene_table"
            raise ExpressionError(f"{expression_path.iloc[0]}: no gene is one of the training's: {names}; {remedy}")
        genes = genes[known].reset_index(drop=True)
        counts, level = (None if values is None else values[:, known] for values in (counts, level))
    measured = genes["gene_id"].tolist() if level is None else []
    unit = "tpm" if kind == "star" else counts_level if kind in WITHOUT_TPM else kind
    lengths, missing = None, np.zeros(len(genes), bool)
    if table is not None:
        genes, missing = with_symbols(genes, table)
    if kind in WITHOUT_TPM and unit == "tpm":
        lengths = gene_lengths(genes, table)
        missing |= np.isnan(lengths)
    if missing.all():
        assert table is not None
        names = gap(genes["gene_id"], table.index, "the data", "rows of the table")
        raise ExpressionError(
            f"{expression_path.iloc[0]}: no gene is in {gene_table}; name genes alike in both: {names}"
        )
    libraries = _libraries(counts, level, kind, missing, places)
    if level is None:
        assert counts is not None
        level = log2_cpm(counts) if lengths is None else log2_tpm(counts, lengths)
    dates = is_date(genes["symbol"])
    unnamed = is_unnamed(genes["symbol"])
    reasons = {DATES: dates, NO_TABLE: missing & ~dates, "no symbol": unnamed & ~missing & ~dates}
    dropped.update({reason: int(rows.sum()) for reason, rows in reasons.items()})
    with_symbol = np.flatnonzero(~missing & ~unnamed & ~dates)
    totals = None
    if kind != "zscore":
        totals = (level if counts is None else counts).sum(axis=0, dtype=np.float64)[with_symbol]
    if like is not None:  # what the other cohort took goes before what is highest here
        taken = genes["gene_id"].isin(like.chosen).to_numpy()[with_symbol]
        totals = np.where(taken, np.inf, 0.0 if totals is None else totals)
    keep = with_symbol[raw.first_or_highest(genes["symbol"].to_numpy()[with_symbol], totals)]
    if not len(keep):
        raise ExpressionError(f"{expression_path.iloc[0]}: no gene has a symbol ({dict(dropped)}); name its genes")
    dropped["repeated symbols"] = len(with_symbol) - len(keep)
    return Expression(
        patients=expression_path.index.tolist(),
        genes=genes.iloc[keep].set_index("gene_id"),
        counts=None if counts is None else counts[:, keep],
        level=level[:, keep],
        kind="counts" if counts is not None else kind,
        level_unit=UNITS[unit],
        dropped={reason: n for reason, n in dropped.items() if n},
        libraries=libraries,
        matrices=matrices,
        examples={reason: _names(genes[rows])[:EXAMPLES] for reason, rows in reasons.items() if rows.any()},
        measured=measured,
    )


def _names(genes: pd.DataFrame) -> list[str]:
    """What a few genes are called, with the id where there is another one."""
    return [
        symbol if gene == symbol or not symbol else f"{symbol} ({gene})"
        for gene, symbol in zip(genes["gene_id"], genes["symbol"], strict=True)
    ]


def _libraries(
    counts: np.ndarray | None, level: np.ndarray | None, kind: str, missing: np.ndarray, places: pd.Series
) -> pd.DataFrame:
    """The table `Expression.libraries`; an error where a patient has no measurement, or another's."""
    libraries = pd.DataFrame(index=places.index)
    if counts is not None:
        libraries["reads"] = counts.sum(axis=1, dtype=np.int64, where=~missing)
        profiles.require_depth(libraries["reads"].to_numpy(), places, "reads", "every count is 0")
        libraries["detected"] = (counts > 0).sum(axis=1)
    if level is not None:
        libraries["detected"] = profiles.detected(level)
        if level.shape[1] >= profiles.DIFFERENT_VALUES:
            unit = "genes whose value is not the patient's most frequent one"
            profiles.require_depth(libraries["detected"].to_numpy(), places, unit, "every value is the same")
    if kind in ("star", "log2tpm"):
        assert level is not None
        libraries["tpm"] = tpm_sums(level.T)
    values = level if counts is None else counts
    assert values is not None
    profiles.require_distinct(values, places)
    return libraries


def load(patients: pd.DataFrame, p: Params) -> Expression:
    """Expression of a cohort's patients (index patient_id, column expression_path), found again by hash."""
    if not p.has_genes:
        raise ExpressionError(f"task '{p.task}' has inputs: {p.inputs}; it has no expression to load")
    kind, table = p.expression_kind, p.path(p.gene_table) if p.gene_table and p.expression_kind != "star" else None
    gene_table_for(kind, table, p.counts_level, patients["expression_path"].iloc[0])
    settings: dict[str, Any] = (
        {"counts_level": p.counts_level} if kind in WITHOUT_TPM else {}
    )  # only what this kind depends on
    settings |= {"round_counts": p.round_counts} if kind == "counts" else {}
    inputs = {
        "files": [[patient, record.file_digest(name)] for patient, name in patients["expression_path"].items()],
        "kind": kind,
        "gene_table": table and record.file_digest(table),
        **settings,
        "versions": record.versions("pandas", "numpy"),
    }

    def make(folder: Path) -> dict:
        assembled = assemble(patients["expression_path"], kind, gene_table=table, **settings)
        arrays: dict[str, Any] = {"level": assembled.level}
        arrays |= {} if assembled.counts is None else {"counts": assembled.counts}
        np.savez(folder / "expression.npz", **arrays)
        assembled.genes.reset_index().to_parquet(folder / "genes.parquet", index=False)
        assembled.libraries.to_parquet(folder / "libraries.parquet", index=False)
        assembled.matrices.to_parquet(folder / "matrices.parquet", index=False)
        return {name: getattr(assembled, name) for name in ("kind", "level_unit", "dropped", "examples", "measured")}

    folder = record.cached(p.results / "expression", inputs, make)
    with np.load(folder / "expression.npz") as arrays:
        counts, level = arrays.get("counts"), arrays["level"]
    genes = record.read_parquet(folder / "genes.parquet").set_index("gene_id")
    libraries = record.read_parquet(folder / "libraries.parquet").set_axis(patients.index)
    matrices = record.read_parquet(folder / "matrices.parquet")
    if len(matrices):  # what is found again may have been made of the same files in another place
        matrices.index = pd.Index(dict.fromkeys(patients["expression_path"]))
    tables = {"libraries": libraries, "matrices": matrices}
    facts = record.run_json(folder)["facts"]
    return Expression(patients.index.tolist(), genes, counts, level, fingerprint=folder.name, **tables, **facts)
