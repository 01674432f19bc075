"""How PyDESeq2 fits a cohort's genes: as it does by itself, but the first means are fitted to all genes at once."""

from __future__ import annotations

import numpy as np
from pydeseq2.default_inference import DefaultInference
from sklearn.linear_model import LinearRegression


class AllAtOnce(DefaultInference):
    """PyDESeq2's inference; a regression for each of thousands of genes is a third of its time, and the checks of its
    arguments are nearly all of that.
    """

    def lin_reg_mu(
        self, counts: np.ndarray, size_factors: np.ndarray, design_matrix: np.ndarray, min_mu: float
    ) -> np.ndarray:
        """Means (patients, genes) by linear regression of counts over size factors on the design, at least min_mu."""
        factors = size_factors[:, None]
        fitted = LinearRegression(fit_intercept=False).fit(design_matrix, counts / factors)
        return np.maximum(factors * fitted.predict(design_matrix), min_mu)
