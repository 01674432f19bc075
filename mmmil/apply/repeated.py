"""Genes that stand in a matrix more than once: which of the rows the training took, so that a patient's is the same.

The rows are called alike, and the cohort took the one with the highest total over its patients
(`mmmil.genes.expression`). One patient's own highest may be another one. So a kept model knows, of such a gene, which
row of how many it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

import numpy as np
import pandas as pd

from mmmil.sources.aliquots import primary_columns
from mmmil.sources.expression import matrix_columns, read_matrix
from mmmil.sources.gene_names import is_par_y, without_version

Taken = Mapping[str, list[int]]  # gene -> position of the row that was taken, and how many there were


def names_of(index: pd.Index) -> np.ndarray:
    """What the rows of a matrix are called as genes: without Ensembl version, '' for a copy on Y."""
    names = without_version(index.to_series())
    return names.mask(is_par_y(index.to_series()), "").to_numpy(str)


def repeated(names: np.ndarray, genes: Set[str]) -> dict[str, np.ndarray]:
    """Of these genes those that stand there more than once -> their rows."""
    again = set(names[pd.Series(names).duplicated().to_numpy()]) & genes
    return {gene: np.flatnonzero(names == gene) for gene in sorted(again)}


def taken(matrices: pd.Series, kind: str, whole: bool, genes: Set[str]) -> dict[str, list[int]]:
    """Which rows a cohort took of genes that stand there more than once; matrices: patient -> matrix.

    Without those of which several matrices say different things, and of z-scores, where it is always the first.
    """
    found: dict[str, list[list[int]]] = {}
    for path in dict.fromkeys(matrices) if kind != "zscore" else ():
        column, _ = primary_columns(matrix_columns(Path(path)))
        patients = matrices.index[matrices == path]
        frame = read_matrix(Path(path), kind, [column[patient] for patient in patients], whole)
        totals = (frame if whole else frame.round()).sum(axis=1).to_numpy(np.float64)
        for gene, rows in repeated(names_of(frame.index), genes).items():
            found.setdefault(gene, []).append([int(totals[rows].argmax()), len(rows)])
    return {gene: rows[0] for gene, rows in found.items() if all(row == rows[0] for row in rows)}


def without_others(frame: pd.DataFrame, genes: Set[str], took: Taken) -> tuple[pd.DataFrame, list[str]]:
    """A patient's part of a matrix with the row that the training took of such genes; and those of which that is not
    known, since the training's matrix had not so many rows.
    """
    drop, unknown = [], []
    for gene, rows in repeated(names_of(frame.index), genes).items():
        position, number = took.get(gene, [0, 0])
        if number == len(rows):
            drop += [row for i, row in enumerate(rows) if i != position]
        else:
            unknown.append(gene)
    kept = frame.iloc[np.setdiff1d(np.arange(len(frame)), drop)] if drop else frame
    kept.attrs = frame.attrs
    return kept, unknown
