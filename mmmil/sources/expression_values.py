"""Whether the numbers of an expression matrix can be what the parameters call them: counts, log2 TPM, z-scores.

An error where a number would be wrong; what may be right is left to `mmmil.genes.findings`. Rules that speak of a whole
matrix (sums, means, shares) need MANY_GENES: a table of a few genes may look like anything.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from mmmil.sources.gene_names import ExpressionError

MANY_GENES = 100
MANY_PATIENTS = 10  # a gene's mean and deviation over fewer says little
LOG_LIMIT = 32  # a count has 31 bits, so its logarithm is below; a library without a gene of 32 reads is none
THOUSAND = 1e3  # some gene of every library has more reads
MILLION = 1e6

Place = Callable[[np.ndarray], str]


def checked(frame: pd.DataFrame, path: Path, kind: str, whole: bool) -> pd.DataFrame:
    """The matrix (genes x samples) as int32, float64 (counts that are not whole) or float32.

    Raises ExpressionError, with the cell, for what is no number, missing, infinite or not of its kind.
    """

    def place(mask: np.ndarray) -> str:
        row, column = np.argwhere(mask)[0]
        return f"{path}: gene {frame.index[row]}, column {frame.columns[column]}: {frame.iloc[row, column]!s}"

    text = frame.select_dtypes(exclude="number").columns
    if len(text):
        numbers = frame.apply(pd.to_numeric, errors="coerce")
        bad = (numbers.isna() & frame.notna()).to_numpy()
        if bad.any():
            raise ExpressionError(f"{place(bad)} is not a number; correct the cell")
        frame = numbers  # text stood in rows that are no genes
    values = frame.to_numpy()
    if not np.isfinite(values).all():
        bad = ~np.isfinite(values)
        raise ExpressionError(
            f"{place(bad)} is missing or infinite; fill the cell or delete the gene ({bad.sum():,} cells of "
            f"{bad.any(axis=1).sum():,} genes are so), or download the file again if it was cut there"
        )
    if kind == "counts":
        _require_counts(values, path, place, whole)
    elif kind == "log2tpm":
        _require_log2_tpm(values, path, place)
    elif values.size >= MANY_GENES and values.min() >= 0:
        raise ExpressionError(
            f"{path}: holds no negative value (lowest: {values.min():g}), so these are no z-scores, whose mean is 0; "
            "set expression_kind to what they are: counts or log2tpm"
        )
    dtype = np.float32 if kind != "counts" else np.int32 if whole else np.float64
    made = pd.DataFrame(values.astype(dtype), index=frame.index.astype(str), columns=frame.columns)
    made.attrs = frame.attrs
    return made


def _require_counts(values: np.ndarray, path: Path, place: Place, whole: bool) -> None:
    parts = values % 1 != 0 if values.dtype.kind == "f" else np.zeros(1, bool)
    if values.min() < 0:
        fault = "so it is no count; correct the cell"
        if parts.any() and (values < 0).mean() > 0.01:
            fault = "so these are z-scores or log ratios, not counts; set expression_kind: zscore, or give raw counts"
        raise ExpressionError(f"{place(values < 0)} is negative, {fault}")
    if values.max() >= 2**31 - 1:
        raise ExpressionError(f"{place(values >= 2**31 - 1)} is too large for a count; correct the cell")
    if not parts.any():
        return
    if reason := _no_counts(values, parts):  # rounding would make counts of them
        raise ExpressionError(
            f"{place(parts)} is no count: {reason}, so these are TPM or their logarithms; give raw counts, or "
            "log2(TPM + 1) with expression_kind: log2tpm"
        )
    if whole:
        raise ExpressionError(
            f"{place(parts)} is not a whole number ({parts.mean():.1%} of all cells), and DESeq2 takes whole counts "
            "only; if these are RSEM's expected counts set round_counts: true, else give raw counts"
        )


def _no_counts(values: np.ndarray, parts: np.ndarray) -> str:
    """Why values that are not whole are no expected counts either, or ''.

    Most of RSEM's expected counts are whole; salmon's need not be, but they keep the library's size, which is tens of
    millions where TPM, CPM and FPKM add up to one or less.
    """
    sums = values.sum(axis=0)
    if values.max() <= LOG_LIMIT:
        return f"no cell is above {LOG_LIMIT}"
    if len(values) >= MANY_GENES and values.max() < THOUSAND:
        return "no cell reaches 1,000 (or a point stands for thousands)"
    if np.allclose(sums, MILLION, rtol=0.01):
        return "columns add up to 1e6"
    if len(values) >= MANY_GENES and fractional_share(values) > 0.5 and np.median(sums) < 2 * MILLION:
        return (
            f"{fractional_share(values):.0%} of the cells above 0 are not whole, and columns add up to "
            f"{np.median(sums):,.0f} only, as FPKM and TPM do"
        )
    return ""


def fractional_share(values: np.ndarray) -> float:
    """Share of the cells above 0 that are not whole numbers."""
    above = values > 0
    return float((values % 1 != 0).sum() / max(above.sum(), 1))


def _require_log2_tpm(values: np.ndarray, path: Path, place: Place) -> None:
    if values.max() > 20:  # all TPM of a sample add up to a million: log2 is below 20
        raise ExpressionError(f"{place(values > 20)} cannot be log2 TPM; give log2(TPM + 1), or set expression_kind")
    total = np.median(tpm_sums(values))
    if total > 2 * MILLION:  # a factor of two is room for quantile normalisation and batch correction
        raise ExpressionError(
            f"{path}: taken as log2(TPM + 1), a sample's TPM add up to {total:,.0f}, and not to a million: these are "
            "logarithms of something else, such as counts; give log2(TPM + 1), or raw counts with "
            "expression_kind: counts"
        )
    if len(values) >= MANY_GENES and values.shape[1] >= MANY_PATIENTS:
        mean, deviation = gene_moments(values)
        if abs(mean) < 0.1 and 0.9 < deviation < 1.1:
            raise ExpressionError(
                f"{path}: the median gene has mean {mean:.2f} and deviation {deviation:.2f}, so these are z-scores, "
                "not log2 TPM; set expression_kind: zscore"
            )


def tpm_sums(values: np.ndarray) -> np.ndarray:
    """What the TPM of every sample add up to, where values (genes, samples) are log2(TPM + 1): (samples,).

    With log2(TPM + 0.001), as of UCSC Xena, it is less by the number of expressed genes, which are thousands.
    """
    return np.clip(np.exp2(values.astype(np.float64)) - 1, 0, None).sum(axis=0)


def gene_moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over samples of the median gene; values: (genes, samples).

    Medians, since tables of z-scores hold some in the thousands.
    """
    return float(np.median(values.mean(axis=1))), float(np.median(values.std(axis=1)))
