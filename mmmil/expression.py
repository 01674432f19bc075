"""Expression files to one matrix of patients x genes, with one symbol per gene (Preprocessing, RNA-seq).

Reads GDC STAR counts and HTSeq counts (a file per patient), or matrices of genes x samples. Counts stay integers for
DESeq2; `level` is what the autoencoder sees: log2(TPM + 1) where the file has TPM. HTSeq files and count matrices
state no gene lengths, so their level is log2(CPM + 1), which `level_unit` says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from mmmil import record, tcga
from mmmil.expression_files import (
    AGAIN,
    ExpressionError,
    matrix_columns,
    read_htseq,
    read_matrix,
    read_star,
    require_unique,
    without_version,
)
from mmmil.params import Params

__all__ = ["Expression", "ExpressionError", "assemble", "load", "log2_cpm", "read_htseq", "read_matrix", "read_star"]

UNITS = {"star": "log2(TPM+1)", "htseq": "log2(CPM+1)", "counts": "log2(CPM+1)"}
UNITS |= {"log2tpm": "log2 TPM as given", "zscore": "z-score"}


@dataclass
class Expression:
    """patients: in the cohort's order; genes: index gene_id (no version), column symbol, both unique.

    counts: (patients, genes) int32, None unless kind is 'counts'; level: (patients, genes) float32 in `level_unit`
    ('log2(TPM+1)', 'log2(CPM+1)', 'log2 TPM as given', 'z-score'); dropped: rows of the files left out, by reason;
    fingerprint: hash of everything it was made from.
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


def _from_files(files: list[Path], kind: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Genes (gene_id, symbol), counts and level from one file per patient; all must have the same genes."""
    read = read_star if kind == "star" else read_htseq
    genes, counts, level, faults, sizes = None, None, None, [], []
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
            other = table["gene_id"][(table["gene_id"].to_numpy() != genes["gene_id"].to_numpy())].iloc[0]
            faults.append(f"{path}: gene {other} is not where {sizes[0][1]} has it; use files of one GENCODE release")
            continue
        counts[i] = table["count"]
        if kind == "star":
            level[i] = np.log2(table["tpm"] + 1)
    usual = Counter(n for n, _ in sizes).most_common(1)[0][0] if sizes else 0
    faults += [f"{path}: has {n} genes, the cohort's other files {usual}; {AGAIN}" for n, path in sizes if n != usual]
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise ExpressionError("expression files cannot be used:\n" + "\n".join(f"  {f}" for f in faults[:20]) + more)
    return genes, counts, level


def _from_matrices(patients: pd.Series, kind: str, dropped: Counter) -> tuple[pd.DataFrame, np.ndarray]:
    """Genes (gene_id, symbol) and values (patients, genes), of the genes that all matrices have.

    patients: index patient_id, value the matrix that holds the patient.
    """
    frames = []
    for path in dict.fromkeys(patients):
        column, _ = tcga.primary_columns(matrix_columns(Path(path)))
        ids = patients.index[patients == path]
        missing = [patient for patient in ids if patient not in column]
        if missing:
            raise ExpressionError(f"{path}: has no primary tumour column of {missing[0]}; correct the patient's id")
        frame = read_matrix(Path(path), kind, [column[patient] for patient in ids]).set_axis(ids, axis=1)
        par = frame.index.str.endswith("_PAR_Y")
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


def assemble(expression_path: pd.Series, kind: str) -> Expression:
    """The cohort's matrix from its files, uncached.

    expression_path: index patient_id, value the patient's file, or the matrix that holds the patient; kind: as the
    parameter expression_kind. Drops `_PAR_Y` copies, genes without symbol and genes not in every matrix; of rows of
    the same symbol it keeps the one with the highest total over these patients (z-scores: the first).
    """
    dropped: Counter = Counter()
    level = None
    if kind in ("star", "htseq"):
        genes, counts, level = _from_files([Path(name) for name in expression_path], kind)
        par = genes["gene_id"].str.endswith("_PAR_Y").to_numpy()
        dropped["_PAR_Y copies"] = int(par.sum())
        genes = genes[~par].assign(gene_id=without_version(genes["gene_id"][~par]))
        counts, level = counts[:, ~par], None if level is None else level[:, ~par]
        require_unique(genes["gene_id"], Path(expression_path.iloc[0]))
    else:
        genes, values = _from_matrices(expression_path, kind, dropped)
        counts, level = (values, None) if kind == "counts" else (None, values)
    if counts is not None and (empty := counts.sum(axis=1, dtype=np.int64) == 0).any():
        patient = expression_path.index[empty][0]
        raise ExpressionError(f"{expression_path[patient]}, patient {patient}: every count is 0; {AGAIN}")
    if level is None:  # library sizes are taken before rows of the same symbol are dropped
        level = log2_cpm(counts)
    named = np.flatnonzero(~genes["symbol"].isin(["", "?", "NA"]).to_numpy())
    dropped["no symbol"] = len(genes) - len(named)
    totals = (level if counts is None else counts).sum(axis=0, dtype=np.float64)[named]
    keep = named[_first_or_highest(genes["symbol"].to_numpy()[named], None if kind == "zscore" else totals)]
    dropped["repeated symbols"] = len(named) - len(keep)
    return Expression(
        patients=expression_path.index.tolist(),
        genes=genes.iloc[keep].set_index("gene_id"),
        counts=None if counts is None else counts[:, keep],
        level=level[:, keep],
        kind="counts" if counts is not None else kind,
        level_unit=UNITS[kind],
        dropped={reason: n for reason, n in dropped.items() if n},
    )


def load(patients: pd.DataFrame, p: Params) -> Expression:
    """Expression of a cohort's patients (index patient_id, column expression_path), found again by hash."""
    if not p.has_genes:
        raise ExpressionError(f"task '{p.task}' has inputs: {p.inputs}; it has no expression to load")
    inputs = {
        "files": [[patient, record.file_digest(name)] for patient, name in patients["expression_path"].items()],
        "kind": p.expression_kind,
        "code": record.source_digest("mmmil.expression", "mmmil.expression_files", "mmmil.tcga"),
        "versions": record.versions("pandas", "numpy"),
    }

    def make(folder: Path) -> dict:
        made = assemble(patients["expression_path"], p.expression_kind)
        arrays = {"level": made.level} | ({} if made.counts is None else {"counts": made.counts})
        np.savez(folder / "expression.npz", **arrays)
        made.genes.reset_index().to_parquet(folder / "genes.parquet", index=False)
        return {"kind": made.kind, "level_unit": made.level_unit, "dropped": made.dropped}

    folder = record.cached(p.results / "expression", inputs, make)
    with np.load(folder / "expression.npz") as arrays:
        counts, level = arrays.get("counts"), arrays["level"]
    genes = record.read_parquet(folder / "genes.parquet").set_index("gene_id")
    facts = record.run(folder)["facts"]
    return Expression(patients.index.tolist(), genes, counts, level, fingerprint=folder.name, **facts)
