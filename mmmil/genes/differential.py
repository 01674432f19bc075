"""Differential expression between the two classes: DESeq2 on counts, Welch's t on anything else (Preprocessing).

Both give the same table, so that the enrichment reads one thing: six columns with DESeq2's names, one row per gene
that was tested, positive where a gene is higher in class 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

COLUMNS = ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"]


class DegError(ValueError):
    """Values, labels or gene ids that differential expression cannot be computed from; says which and what to do."""


def expressed(counts: np.ndarray, labels: np.ndarray, min_count: int = 10) -> np.ndarray:
    """Genes with at least `min_count` counts in at least as many patients as the smaller class has.

    counts: (patients, genes) int; labels: (patients,) 0/1. Returns (genes,) bool.
    """
    smaller = np.bincount(np.asarray(labels, dtype=int), minlength=2).min()
    return (np.asarray(counts) >= min_count).sum(axis=0) >= smaller


def differential_expression(
    counts: np.ndarray,
    labels: ArrayLike,
    gene_ids: ArrayLike,
    min_count: int = 10,
    patients: Sequence[str] | None = None,
) -> pd.DataFrame:
    """DESeq2's Wald test of class 1 against class 0, by pydeseq2 on one CPU thread.

    counts: (patients, genes) raw counts; labels: (patients,) 0/1; gene_ids: (genes,) unique; patients: their names,
    for errors. Genes that fail `expressed` are absent from the result. Size factors are medians of ratios, or
    `poscounts` where fewer than `deseq2.RATIO_GENES` genes are free of zeros. Returns a table indexed by gene_id with
    baseMean, log2FoldChange, lfcSE, stat (Wald), pvalue and padj; p-values are NaN where Cook's distance marks an
    outlier.

    Raises DegError for values that are no counts, a patient without any in the genes that are tested, fewer than two
    patients in a class, or duplicate gene ids.
    """
    counts, labels, gene_ids, names = _checked(counts, labels, gene_ids, patients)
    if (counts < 0).any():
        raise DegError(
            "counts: negative values, which look like z-scores or log ratios; only raw counts may reach DESeq2: "
            "set expression_kind to zscore or log2tpm, or give the raw counts"
        )
    if not np.issubdtype(counts.dtype, np.integer):
        if (counts != np.rint(counts)).any():
            raise DegError(
                f"counts: {(counts != np.rint(counts)).mean():.1%} of the values are not whole numbers, so these are "
                "TPM, logarithms or expected counts; only raw counts may reach DESeq2: set expression_kind to "
                "log2tpm or zscore, or round_counts: true for RSEM's expected counts"
            )
        counts = counts.astype(np.int64)
    _require_reads(counts, names, "at all")
    kept = expressed(counts, labels, min_count)
    if kept.sum() < 2:
        raise DegError(
            f"counts: only {kept.sum()} of {len(kept)} genes have {min_count} counts in as many patients as the "
            "smaller class; lower min_count or check that these are raw counts"
        )
    _require_reads(counts[:, kept], names, f"in the {kept.sum()} genes that are tested")  # a size factor would be NaN
    from mmmil.genes import deseq2  # seconds to import, and results that are found again need none of it

    try:
        return deseq2.wald(counts[:, kept], labels, gene_ids[kept])[COLUMNS]
    except (ValueError, np.linalg.LinAlgError) as error:
        depth = counts.sum(axis=1, dtype=np.int64)
        raise DegError(
            f"counts: DESeq2 cannot be fitted to {kept.sum()} genes ({error}); libraries have {depth.min():,} "
            f"({names[int(depth.argmin())]}) to {depth.max():,} reads: check that these are raw counts, or "
            "raise min_count"
        ) from error


def _require_reads(counts: np.ndarray, names: list[str], where: str) -> None:
    empty = [name for name, n in zip(names, counts.sum(axis=1, dtype=np.int64), strict=True) if n == 0]
    if empty:
        raise DegError(
            f"counts: {len(empty)} patients have no counts {where} ({', '.join(empty[:3])}); leave them out, or lower "
            "min_count"
        )


def welch(
    level: np.ndarray, labels: ArrayLike, gene_ids: ArrayLike, patients: Sequence[str] | None = None
) -> pd.DataFrame:
    """Welch's t test of class 1 against class 0, for log2(TPM + 1) or z-scores, which DESeq2 must not see.

    level: (patients, genes); labels: (patients,) 0/1; gene_ids: (genes,) unique. Returns the columns of
    `differential_expression`: baseMean is the mean level, log2FoldChange the difference of the class means (a
    log2 fold change for log2 levels, standard deviations for z-scores), lfcSE its standard error, stat Welch's t,
    padj Benjamini-Hochberg. Genes constant within both classes cannot be tested and are absent.

    Raises DegError for NaN or infinite values, fewer than two patients in a class, or duplicate gene ids.
    """
    from scipy import stats  # slow to import, and results that are found again need none of it

    level, labels, gene_ids, _ = _checked(level, labels, gene_ids, patients)
    level = level.astype(np.float64)
    varies = np.any([np.ptp(level[labels == c], axis=0) > 0 for c in (0, 1)], axis=0)
    if varies.sum() < 2:
        raise DegError(f"level: only {varies.sum()} of {len(varies)} genes vary within a class; check the matrix")
    class_1, class_0 = level[labels == 1][:, varies], level[labels == 0][:, varies]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # a class where the gene is constant
        test = stats.ttest_ind(class_1, class_0, axis=0, equal_var=False)
    table = pd.DataFrame(
        {
            "baseMean": level[:, varies].mean(axis=0),
            "log2FoldChange": class_1.mean(axis=0) - class_0.mean(axis=0),
            "lfcSE": np.sqrt(class_1.var(axis=0, ddof=1) / len(class_1) + class_0.var(axis=0, ddof=1) / len(class_0)),
            "stat": test.statistic,
            "pvalue": test.pvalue,
        },
        index=pd.Index(gene_ids[varies], name="gene_id"),
    )
    table["padj"] = stats.false_discovery_control(table["pvalue"])
    return table[COLUMNS]


def _checked(
    values: ArrayLike, labels: ArrayLike, gene_ids: ArrayLike, patients: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    values, labels, gene_ids = np.asarray(values), np.asarray(labels), np.asarray(gene_ids, dtype=object)
    if values.ndim != 2 or values.shape != (len(labels), len(gene_ids)):
        raise DegError(
            f"expression of shape {values.shape} does not fit {len(labels)} labels x {len(gene_ids)} gene ids; "
            "rows are patients, columns genes"
        )
    names = [f"row {i}" for i in range(len(values))] if patients is None else [f"patient {name}" for name in patients]
    if not np.issubdtype(values.dtype, np.number):
        raise DegError(f"expression of type {values.dtype}: numbers are needed; look for text in the matrix")
    wrong = [label for label in np.unique(labels[pd.notna(labels)]).tolist() if label not in (0, 1)]
    if pd.isna(labels).any() or wrong:
        raise DegError(f"labels must be 0 or 1, found {wrong or 'missing ones'}")
    labels = labels.astype(int)
    sizes = np.bincount(labels, minlength=2)
    if sizes.min() < 2:
        raise DegError(
            f"{sizes[0]} patients of class 0 and {sizes[1]} of class 1: a comparison needs two of each; "
            "check the label rule, or use fewer folds"
        )
    if not np.isfinite(values).all():
        rows, columns = np.nonzero(~np.isfinite(values))
        raise DegError(
            f"expression: {len(rows)} missing or infinite values (first: gene {gene_ids[columns[0]]}, "
            f"{names[rows[0]]}); drop these genes or patients"
        )
    repeated = pd.Index(gene_ids)[pd.Index(gene_ids).duplicated()].unique()
    if len(repeated):
        raise DegError(
            f"gene ids: {len(repeated)} occur twice ({', '.join(map(str, repeated[:3]))}); keep one row of each"
        )
    return values, labels, gene_ids, names
