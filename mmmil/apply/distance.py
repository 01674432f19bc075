"""How far from the training patients a patient lies, by the tokens that a model makes of a modality.

A patient is the mean of the tokens that the aggregator reads (of tiles, or of gene sets). The distance is
Mahalanobis's to the training patients' mean (Lee et al., NeurIPS 2018, for features of a network), with the covariance
shrunk towards a multiple of the identity (Ledoit and Wolf, J. Multivar. Anal. 88:365, 2004), for tokens are often
longer than patients are many. It is told as a percentile of the training patients' own distances, each measured by the
mean and covariance of all others. Above FAR it is flagged: of patients like those of the training about one in a
hundred is. With n training patients the largest percentile but 100 is about (n - 1) / n, and 100 says that no training
patient lay so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FAR = 99.0  # percentile of the training patients above which a patient is flagged
LEAST_SHRINKAGE = 0.01  # so that the covariance can be inverted
PERCENTILES = np.arange(101.0)


@dataclass(frozen=True)
class Distance:
    """Aggregates of the training patients: mean (D,), precision (D, D) the inverse of the shrunk covariance, quantiles
    (101,) of the training patients' distances, from the smallest to the largest.
    """

    mean: np.ndarray
    precision: np.ndarray
    quantiles: np.ndarray

    def of(self, tokens: np.ndarray) -> float:
        """Mahalanobis's distance of a patient's mean token (D,)."""
        off = tokens.astype(np.float64) - self.mean
        return float(np.sqrt(max(off @ self.precision @ off, 0.0)))

    def percentile(self, tokens: np.ndarray) -> float:
        """The distance of a patient's mean token (D,) among those of the training patients, 0 to 100."""
        return float(np.interp(self.of(tokens), self.quantiles, PERCENTILES))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """What is stored of it, by name."""
        return {f"{name}.{key}": value for key, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> Distance:
        return cls(*(arrays[f"{name}.{key}"] for key in ("mean", "precision", "quantiles")))


def fit(tokens: np.ndarray) -> Distance:
    """Of the training patients' mean tokens (n, D), n at least 3.

    The covariance without patient i is that of all less a matrix of rank one, so that no distance needs an inverse of
    its own (Sherman and Morrison); the shrinkage is that of all.
    """
    from sklearn.covariance import ledoit_wolf  # slow to import

    x = tokens.astype(np.float64)
    n, width = x.shape
    mean = x.mean(axis=0)
    off = x - mean
    covariance = off.T @ off / n
    shrinkage = max(float(ledoit_wolf(x)[1]), LEAST_SHRINKAGE)
    identity = max(np.trace(covariance) / width, 1e-12) * np.eye(width)
    others = np.linalg.inv((1 - shrinkage) * n / (n - 1) * covariance + shrinkage * identity)
    squared = np.einsum("ij,jk,ik->i", off, others, off)
    squared = (n / (n - 1)) ** 2 * squared / (1 - (1 - shrinkage) * n / (n - 1) ** 2 * squared)
    precision = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * identity)
    return Distance(mean, precision, np.quantile(np.sqrt(np.maximum(squared, 0)), PERCENTILES / 100))
