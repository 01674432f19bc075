"""Expression files to one matrix of patients x genes, with one symbol per gene (Preprocessing, RNA-seq).

Reads GDC STAR counts and HTSeq counts (a file per patient), or matrices of genes x samples. Counts stay integers for
DESeq2; `level` is what the autoencoder sees: log2(TPM + 1). HTSeq files and count matrices state neither TPM nor gene
lengths: their TPM is computed with the lengths of a gene table, or their level is log2(CPM + 1), as `level_unit` says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from mmmil import record
from mmmil.params import Params
from mmmil.sources import barcodes
from mmmil.sources.expression import (
    AGAIN,
    ExpressionError,
    matrix_columns,
    read_htseq,
    read_matrix,
    read_star,
    require_unique,
)
from mmmil.sources.gene_names import WITHOUT_TPM, gene_lengths, gene_table_for, is_par_y, with_symbols, without_version

__all__ = ["Expression", "ExpressionError", "assemble", "load"]
__all__ += ["log2_cpm", "log2_tpm", "read_htseq", "read_matrix", "read_star"]

UNITS = {"tpm": "log2(TPM+1)", "cpm": "log2(CPM+1)", "log2tpm": "log2 TPM as given", "zscore": "z-score"}
ROUNDED = "cells rounded to whole numbers"


@dataclass
class Expression:
    """patients: in the cohort's order; genes: index gene_id (no version), column symbol, both unique.

    counts: (patients, genes) int32, None unless kind is 'counts'; level: (patients, genes) float32 in `level_unit`
    ('log2(TPM+1)', 'log2(CPM+1)', 'log2 TPM as given', 'z-score'); dropped: rows of the files left out, by reason,
    and under ROUNDED the cells (of all rows and these patients) that round_counts changed; fingerprint: hash of
    everything it was made from.
    """

    patients: list[str]
    genes: pd.DataFrame
    counts: np.ndarray | None
    level: np.ndarray
    kind: str
    level_unit: str
    dropped: dict[str, int]
    fingerprint: str = ""


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


def _from_files(files: list[Path], kind: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray | None]:
    """Genes (gene_id, symbol), counts and level from one file per patient; all must have the same genes."""
    read = read_star if kind == "star" else read_htseq
    genes: pd.DataFrame | None = None
    counts, level = np.empty((0, 0), np.int32), None
    faults, sizes = [], []
    for i, path in enumerate(tqdm(files, desc="expression", unit="file", mininterval=5, disable=len(files) <= 50)):
        try:
            table = read(path)
        except ExpressionError as error:
            faults.append(str(error))
            continue
        sizes.append((len(table), path))
        if genes is None:
            genes = table[["gene_id", "symbol"]]
            counts = np.empty((len(files), len(genes)), np.int32)
            level = np.empty((len(files), len(genes)), np.float32) if kind == "star" else None
        if len(table) != len(genes):
            continue
        if not (table["gene_id"].to_numpy() == genes["gene_id"].to_numpy()).all():
            gene = table["gene_id"][(table["gene_id"].to_numpy() != genes["gene_id"].to_numpy())].iloc[0]
            faults.append(f"{path}: gene {gene} is not where {sizes[0][1]} has it; use files of one GENCODE release")
            continue
        counts[i] = table["count"]
        if level is not None:
            level[i] = np.log2(table["tpm"] + 1)
    usual = Counter(n for n, _ in sizes).most_common(1)[0][0] if sizes else 0
    faults += [f"{path}: has {n} genes, the cohort's other files {usual}; {AGAIN}" for n, path in sizes if n != usual]
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise ExpressionError("expression files cannot be used:\n" + "\n".join(f"  {f}" for f in faults[:20]) + more)
    assert genes is not None  # without a fault every file was read
    return genes, counts, level


def _from_matrices(
    patients: pd.Series, kind: str, round_counts: bool, dropped: Counter
) -> tuple[pd.DataFrame, np.ndarray]:
    """Genes (gene_id, symbol) and values (patients, genes), of the genes that all matrices have.

    patients: index patient_id, value the matrix that holds the patient. Rows whose names are the same without
    Ensembl version are one gene: of them the one with the highest total is kept (z-scores: the first).
    """
    frames = []
    for path in dict.fromkeys(patients):
        column, _ = barcodes.primary_columns(matrix_columns(Path(path)))
        ids = patients.index[patients == path]
        missing = [patient for patient in ids if patient not in column]
        if missing:
            raise ExpressionError(f"{path}: has no primary tumour column of {missing[0]}; correct the patient's id")
        rounding = round_counts and kind == "counts"
        frame = read_matrix(Path(path), kind, [column[patient] for patient in ids], whole=not rounding)
        frame = frame.set_axis(ids, axis=1)
        if rounding:
            dropped[ROUNDED] += int((frame % 1 != 0).to_numpy().sum())
            frame = frame.round().astype(np.int32)  # half to even
        par = is_par_y(frame.index.to_series())
        dropped["_PAR_Y copies"] += int(par.sum())
        frame = frame[~par].set_axis(without_version(frame.index[~par].to_series()).to_numpy())
        totals = None if kind == "zscore" else frame.sum(axis=1).to_numpy(np.float64)
        keep = _first_or_highest(frame.index.to_numpy(), totals)
        dropped["repeated gene names"] += len(frame) - len(keep)
        frames.append(frame.iloc[keep])
    common = frames[0].index
    for frame in frames[1:]:
        common = common[common.isin(frame.index)]
    if common.empty:
        raise ExpressionError(f"{', '.join(dict.fromkeys(patients))}: have no gene in common; name genes alike")
    dropped["genes not in every matrix"] += sum(len(frame) - len(common) for frame in frames)
    values = np.empty((len(patients), len(common)), frames[0].to_numpy().dtype)
    for frame in frames:
        values[patients.index.get_indexer(frame.columns)] = frame.loc[common].to_numpy().T
    ids = common.to_series()
    symbols = ids.str.split("|").str[0].to_numpy()  # TCGA's older files name genes symbol|entrez
    return pd.DataFrame({"gene_id": ids.to_numpy(), "symbol": symbols}), values


def _first_or_highest(names: np.ndarray, totals: np.ndarray | None) -> np.ndarray:
    """Positions, in order, of one row per name: the one with the highest total, or the first."""
    order = np.arange(len(names)) if totals is None else np.argsort(-totals, kind="stable")
    return np.sort(order[~pd.Series(names[order]).duplicated().to_numpy()])


def assemble(
    expression_path: pd.Series,
    kind: str,
    *,
    gene_table: Path | None = None,
    counts_level: str = "tpm",
    round_counts: bool = False,
) -> Expression:
    """The cohort's matrix from its files, uncached.

    expression_path: index patient_id, value the patient's file, or the matrix that holds the patient; the rest as the
    parameters expression_kind, gene_table, counts_level and round_counts. Drops `_PAR_Y` copies, genes that the gene
    table lacks (Ensembl ids where it gives symbols, genes without a length where TPM is computed), genes without
    symbol and genes not in every matrix; of rows of the same symbol it keeps the one with the highest total over
    these patients (z-scores: the first). TPM and CPM are computed before genes without symbol and rows of the same
    symbol go: TPM over all genes with a length, CPM over all genes.
    """
    table = gene_table_for(kind, gene_table, counts_level, expression_path.iloc[0])  # before anything large is read
    dropped: Counter = Counter()
    counts: np.ndarray | None
    level: np.ndarray | None
    if kind in ("star", "htseq"):
        genes, counts, level = _from_files([Path(name) for name in expression_path], kind)
        par = is_par_y(genes["gene_id"])
        dropped["_PAR_Y copies"] = int(par.sum())
        genes = genes[~par].assign(gene_id=without_version(genes["gene_id"][~par]))
        counts, level = counts[:, ~par], None if level is None else level[:, ~par]
        require_unique(genes["gene_id"], Path(expression_path.iloc[0]))
    else:
        genes, values = _from_matrices(expression_path, kind, round_counts, dropped)
        counts, level = (values, None) if kind == "counts" else (None, values)
    unit = "tpm" if kind == "star" else counts_level if kind in WITHOUT_TPM else kind
    lengths, missing = None, np.zeros(len(genes), bool)
    if table is not None:
        genes, missing = with_symbols(genes, table)
    if kind in WITHOUT_TPM and unit == "tpm":
        lengths = gene_lengths(genes, table)
        missing |= np.isnan(lengths)
    if missing.all():
        raise ExpressionError(f"{expression_path.iloc[0]}: no gene is in {gene_table}; name genes alike in both")
    if counts is not None and (empty := counts.sum(axis=1, dtype=np.int64, where=~missing) == 0).any():
        patient = expression_path.index[empty][0]
        raise ExpressionError(f"{expression_path[patient]}, patient {patient}: every count is 0; {AGAIN}")
    if level is None:
        assert counts is not None
        level = log2_cpm(counts) if lengths is None else log2_tpm(counts, lengths)
    dropped["not in the gene table"] = int(missing.sum())
    unnamed = genes["symbol"].isin(["", "?", "NA"]).to_numpy() & ~missing
    dropped["no symbol"] = int(unnamed.sum())
    with_symbol = np.flatnonzero(~missing & ~unnamed)
    totals = (level if counts is None else counts).sum(axis=0, dtype=np.float64)[with_symbol]
    keep = with_symbol[_first_or_highest(genes["symbol"].to_numpy()[with_symbol], None if kind == "zscore" else totals)]
    dropped["repeated symbols"] = len(with_symbol) - len(keep)
    return Expression(
        patients=expression_path.index.tolist(),
        genes=genes.iloc[keep].set_index("gene_id"),
        counts=None if counts is None else counts[:, keep],
        level=level[:, keep],
        kind="counts" if counts is not None else kind,
        level_unit=UNITS[unit],
        dropped={reason: n for reason, n in dropped.items() if n},
    )


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
        return {"kind": assembled.kind, "level_unit": assembled.level_unit, "dropped": assembled.dropped}

    folder = record.cached(p.results / "expression", inputs, make)
    with np.load(folder / "expression.npz") as arrays:
        counts, level = arrays.get("counts"), arrays["level"]
    genes = record.read_parquet(folder / "genes.parquet").set_index("gene_id")
    facts = record.run_json(folder)["facts"]
    return Expression(patients.index.tolist(), genes, counts, level, fingerprint=folder.name, **facts)
