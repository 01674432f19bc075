"""Patients' expression profiles held against each other: how deep each was sequenced, and whether two are one.

What is no measurement of its patient, or another patient's, is an ExpressionError that names every such patient; the
rest is for `mmmil.genes.findings` to tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmmil.sources.gene_names import ExpressionError

# A library of less than a hundredth of the cohort's median is no measurement: a gene that usually has 100 reads has
# one or none there, so that its level is Poisson noise on all but the few most abundant genes. Below a tenth, the noise
# of such a gene is as large as its biological variation, which may be lived with and is told (a finding).
NO_MEASUREMENT, SHALLOW = 0.01, 0.1
# Profiles with fewer different values may be equal by chance: ten values are not.
DIFFERENT_VALUES = 10
SHOWN = 20


def detected(level: np.ndarray) -> np.ndarray:
    """Per patient, genes whose level is not the patient's most frequent one; level: (patients, genes).

    That is 0 in counts and log2(TPM + 1), the pseudo-count in log2(TPM + 0.001), and any value where all are the same;
    z-scores are nearly all different.
    """
    return np.array([len(row) - int(np.unique(row, return_counts=True)[1].max()) for row in level], np.int64)


def require_depth(depth: np.ndarray, places: pd.Series, unit: str, none: str) -> None:
    """Raise ExpressionError where a patient's depth is 0 or below NO_MEASUREMENT of the cohort's median.

    depth: (patients,); places: index patient, value the file or column; unit: what depth counts; none: what 0 means.
    """
    median = float(np.median(depth))
    low = np.flatnonzero((depth == 0) | (depth < NO_MEASUREMENT * median))
    faults = [
        f"{places.iloc[i]}, patient {places.index[i]}: {none if not depth[i] else f'{depth[i]:,} {unit}'}" for i in low
    ]
    _fail(
        f"the expression of {len(low)} patients is no measurement, being empty or below a hundredth of the cohort's "
        f"median of {median:,.0f} {unit}; see whether the file is whole, or leave the patient out",
        faults,
    )


def _fail(what: str, faults: list[str]) -> None:
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise ExpressionError(f"{what}:\n" + "\n".join(f"  {fault}" for fault in [*faults[:SHOWN], *more]))


def require_distinct(values: np.ndarray, places: pd.Series) -> None:
    """Raise ExpressionError where two patients have the same profile; values: (patients, genes), counts or levels."""
    first: dict[bytes, int] = {}
    faults = []
    for i, row in enumerate(values):
        j = first.setdefault(np.ascontiguousarray(row).tobytes(), i)
        if j != i and len(np.unique(row)) >= DIFFERENT_VALUES:
            faults.append(
                f"patient {places.index[i]} ({places.iloc[i]}) has the same values as patient {places.index[j]} "
                f"({places.iloc[j]})"
            )
    _fail(
        "one measurement stands under several patients; name each patient's own file or column, or leave out whom it "
        "does not belong to",
        faults,
    )


def likeness(level: np.ndarray, genes: int = 2000) -> np.ndarray:
    """Spearman's correlation of every two patients over some genes, (patients, patients) float64, 1 on the diagonal.

    level: (patients, genes). Ranks, so that neither the scale nor a z-score in the thousands matters. The genes are
    taken at even steps from the half with the higher mean: where counts are small, rounding alone would tell copies
    apart.
    """
    from scipy.stats import rankdata  # slow to import

    means = level.mean(axis=0, dtype=np.float64)
    higher = np.flatnonzero(means >= np.median(means))
    chosen = higher[np.linspace(0, len(higher) - 1, min(genes, len(higher))).astype(int)]
    ranks = rankdata(level[:, chosen], axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1)
    return ranks @ ranks.T / np.maximum(np.outer(norms, norms), np.finfo(float).tiny)


def pairs_above(matrix: np.ndarray, limit: float) -> list[tuple[int, int]]:
    """Positions (i, j), i < j, of what is above `limit` in a symmetric matrix."""
    rows, columns = np.nonzero(np.triu(matrix, 1) > limit)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def class_gap(depth: np.ndarray, labels: Sequence[int]) -> tuple[float, float, float]:
    """How depth differs by class: (ratio of medians, class 1 to class 0; AUC of depth for class 1; p of that AUC).

    depth: (patients,); labels: 0 or 1 per patient, both there. p is Mann and Whitney's.
    """
    from scipy.stats import mannwhitneyu

    classes = np.asarray(labels)
    one, zero = depth[classes == 1], depth[classes == 0]
    test = mannwhitneyu(one, zero)
    ratio = float(np.median(one) / max(float(np.median(zero)), 1e-9))
    return ratio, float(test.statistic / (len(one) * len(zero))), float(test.pvalue)
