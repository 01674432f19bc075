"""A cohort's expression files, or its matrices, to one table of values: patients x genes, the same genes of all.

Nothing is scaled and no symbol is chosen here: `mmmil.genes.expression` makes levels of the values.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from mmmil.sources import aliquots
from mmmil.sources.expression import (
    AGAIN,
    ExpressionError,
    matrix_columns,
    read_htseq,
    read_matrix,
    read_star,
)
from mmmil.sources.expression_values import MANY_GENES, fractional_share
from mmmil.sources.gene_names import gap, is_par_y, symbol_part, without_version

ROUNDED = "cells rounded to whole numbers"
SHARED_NAMES = 0.1  # of the smaller matrix's genes, at least: fewer are the same by chance, or by a few odd rows


class Matrices:
    """Where columns of matrices come from: their files, each time they are asked for."""

    def columns(self, path: Path) -> list[str]:
        return matrix_columns(path)

    def read(self, path: Path, kind: str, columns: list[str], whole: bool) -> pd.DataFrame:
        return read_matrix(path, kind, columns, whole=whole)


def from_files(files: list[Path], kind: str, dropped: Counter) -> tuple[pd.DataFrame, np.ndarray, np.ndarray | None]:
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
            dropped.update(table.attrs)
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


def from_matrices(
    patients: pd.Series, kind: str, round_counts: bool, dropped: Counter, source: Matrices
) -> tuple[pd.DataFrame, np.ndarray, pd.Series, pd.DataFrame]:
    """Genes (gene_id, symbol) and values (patients, genes), of the genes that all matrices have; each patient's place
    (matrix and column) and the table `Expression.matrices`.

    patients: index patient_id, value the matrix that holds the patient. Rows whose names are the same without
    Ensembl version are one gene: of them the one with the highest total is kept (z-scores: the first).
    """
    frames, facts = {}, {}
    places = pd.Series("", index=patients.index, dtype=object)
    for path in dict.fromkeys(patients):
        column, _ = aliquots.primary_columns(source.columns(Path(path)))
        ids = patients.index[patients == path]
        missing = [patient for patient in ids if patient not in column]
        if missing:
            raise ExpressionError(f"{path}: has no primary tumour column of {missing[0]}; correct the patient's id")
        places[ids] = [f"{path}, column {column[patient]}" for patient in ids]
        rounding = round_counts and kind == "counts"
        frame = source.read(Path(path), kind, [column[patient] for patient in ids], not rounding)
        dropped.update(frame.attrs)
        frame = frame.set_axis(ids, axis=1)
        facts[path] = {"genes": 0, "fractional": fractional_share(frame.to_numpy()) if rounding else 0.0}
        if rounding:
            dropped[ROUNDED] += int((frame % 1 != 0).to_numpy().sum())
            frame = frame.round().astype(np.int32)  # half to even
        par = is_par_y(frame.index.to_series())
        dropped["_PAR_Y copies"] += int(par.sum())
        frame = frame[~par].set_axis(without_version(frame.index[~par].to_series()).to_numpy())
        totals = None if kind == "zscore" else frame.sum(axis=1).to_numpy(np.float64)
        keep = first_or_highest(frame.index.to_numpy(), totals)
        dropped["repeated gene names"] += len(frame) - len(keep)
        frames[path] = frame.iloc[keep]
        facts[path]["genes"] = len(keep)
    common = _common_genes(frames)
    if kind == "log2tpm":
        _require_one_offset(frames)
    dropped["genes not in every matrix"] += sum(len(frame) - len(common) for frame in frames.values())
    values = np.empty((len(patients), len(common)), next(iter(frames.values())).to_numpy().dtype)
    for frame in frames.values():
        values[patients.index.get_indexer(frame.columns)] = frame.loc[common].to_numpy().T
    ids = common.to_series()
    genes = pd.DataFrame({"gene_id": ids.to_numpy(), "symbol": symbol_part(ids).to_numpy()})
    return genes, values, places, pd.DataFrame.from_dict(facts, orient="index")


def _common_genes(frames: dict[str, pd.DataFrame]) -> pd.Index:
    """The genes that all matrices have; an error where they name genes differently."""
    first = next(iter(frames))
    common = frames[first].index
    for path, frame in frames.items():
        shared = common[common.isin(frame.index)]
        smaller = min(len(frames[first]), len(frame))
        if shared.empty or (smaller >= MANY_GENES and len(shared) < SHARED_NAMES * smaller):
            names = gap(frames[first].index, frame.index, "rows of the first", "rows of the second")
            raise ExpressionError(
                f"{first}, {path}: have {len(shared) or 'no'} gene{'s' * (len(shared) > 1)} in common: "
                f"{names}; name genes alike in both"
            )
        common = shared
    return common


def _require_one_offset(frames: dict[str, pd.DataFrame]) -> None:
    """log2(TPM + 1) is never negative, log2(TPM + 0.001) is in every gene that is not expressed: no two go together."""
    lowest = {path: float(frame.to_numpy().min()) for path, frame in frames.items() if frame.size >= MANY_GENES}
    negative, positive = [p for p in lowest if lowest[p] < 0], [p for p in lowest if lowest[p] >= 0]
    if negative and positive:
        raise ExpressionError(
            f"{negative[0]}, {positive[0]}: the lowest value of the one is {lowest[negative[0]]:.4g}, of the other "
            f"{lowest[positive[0]]:.4g}: they are not on one scale, such as log2(TPM + 0.001) and log2(TPM + 1); give "
            "all matrices as log2(TPM + 1)"
        )


def first_or_highest(names: np.ndarray, totals: np.ndarray | None) -> np.ndarray:
    """Positions, in order, of one row per name: the one with the highest total, or the first."""
    order = np.arange(len(names)) if totals is None else np.argsort(-totals, kind="stable")
    return np.sort(order[~pd.Series(names[order]).duplicated().to_numpy()])
