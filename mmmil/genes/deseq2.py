"""pydeseq2, as this package calls it: DESeq2's Wald test of two classes, on one thread (Preprocessing)."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from pydeseq2.dds import DeseqDataSet
from pydeseq2.default_inference import DefaultInference
from pydeseq2.ds import DeseqStats
from scipy import linalg
from threadpoolctl import threadpool_limits

# A size factor is a median over genes without a zero; with one nearly empty library there are few of them, and every
# patient's factor would hang on those.
RATIO_GENES = 20


class Inference(DefaultInference):
    """pydeseq2's own, with the same numbers to the last digit, but no scikit-learn model made for every gene.

    Checking what each is given takes ten times as long as its fit, and a third of the whole test's time.
    """

    def lin_reg_mu(
        self, counts: np.ndarray, size_factors: np.ndarray, design_matrix: np.ndarray, min_mu: float
    ) -> np.ndarray:
        """Means (patients, genes) of counts (patients, genes) by regression on the design (patients, columns)."""
        design = np.asarray(design_matrix, float)
        means = np.empty(counts.shape)
        for gene in range(counts.shape[1]):
            fitted = linalg.lstsq(design, counts[:, gene] / size_factors, cond=1e-6)[0]  # LinearRegression's
            means[:, gene] = np.maximum(size_factors * (design @ fitted), min_mu)
        return means


def wald(counts: np.ndarray, labels: np.ndarray, gene_ids: np.ndarray) -> pd.DataFrame:
    """The results of DESeq2's Wald test, class 1 against class 0, indexed by gene_id.

    counts: (patients, genes) int, none of whose rows or columns is empty; labels: (patients,) 0/1; gene_ids: (genes,).
    """
    patients = [f"p{i}" for i in range(len(labels))]
    zero_free = (counts > 0).all(axis=0)
    # One BLAS thread is ten times faster here than several that fight over small matrices.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        inference = Inference(n_cpus=1)
        data = DeseqDataSet(
            counts=pd.DataFrame(counts, index=patients, columns=gene_ids),
            # names, not numbers: a numeric condition would be fitted as a slope
            metadata=pd.DataFrame({"condition": np.where(labels == 1, "class1", "class0")}, index=patients),
            design="~condition",
            size_factors_fit_type="ratio" if zero_free.all() or zero_free.sum() >= RATIO_GENES else "poscounts",
            refit_cooks=True,
            low_memory=True,
            inference=inference,
            quiet=True,
        )
        data.deseq2()
        test = DeseqStats(data, contrast=["condition", "class1", "class0"], inference=inference, quiet=True)
        test.summary()
    return test.results_df.astype(float).rename_axis("gene_id")
