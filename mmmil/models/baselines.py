"""Trivial baselines on the same folds: what logistic regression reaches stands beside every AUC of the book."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


# Scikit-learn's C of each input, the inverse of the ridge penalty. Those of genes and features were fixed beforehand,
# in the reference figures that came with the real data, and are tuned on no patient.
GENES, COLOUR, FEATURES = 1e-3, 1.0, 1e-2


def _fitted(x_train: np.ndarray, y_train: np.ndarray, strength: float) -> Pipeline:
    """Scaler and logistic regression of the training patients (patients, features)."""
    from sklearn.linear_model import LogisticRegression  # seconds of imports that a network does not need
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=5000))
    return model.fit(x_train, y_train)


def logistic(x_train: np.ndarray, y_train: np.ndarray, x: np.ndarray, strength: float) -> np.ndarray:
    """Probability of class 1 for x (patients, features); scaler and model are fitted on the training patients.

    strength: scikit-learn's C.
    """
    return _fitted(x_train, y_train, strength).predict_proba(x)[:, 1]


def late_fusion(
    inputs: Sequence[tuple[np.ndarray, float]], train: Sequence[int], y_train: np.ndarray, which: Sequence[int]
) -> np.ndarray:
    """Probability of class 1 of patients `which` by a logistic regression of each input, joined at the end.

    inputs: (x (all patients, features), C) of each. The regressions' logits are each scaled by their mean and standard
    deviation over the training patients, `train`, on whom all is fitted, and added up; the probability is the logistic
    function of the sum.
    """
    weights, bias = joined([(x[train], strength) for x, strength in inputs], y_train)
    return 1 / (1 + np.exp(-(np.concatenate([x[which] for x, _ in inputs], axis=1) @ weights + bias)))


def joined(inputs: Sequence[tuple[np.ndarray, float]], y_train: np.ndarray) -> tuple[np.ndarray, float]:
    """Weight of every column, all inputs' one after the other, and bias of the logit that `late_fusion` describes.

    inputs: (x (training patients, features), C) of each.
    """
    weights, bias = [], 0.0
    for x, strength in inputs:
        scaler, model = _fitted(x, y_train, strength)
        weight = model.coef_[0] / scaler.scale_
        logits = x @ weight
        spread = logits.std() or 1.0  # of an input that is the same for all there is nothing to weigh
        weights.append(weight / spread)
        bias -= logits.mean() / spread
    return np.concatenate(weights), bias


def colour(bags: Iterable[np.ndarray], masks: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of red, green and blue over a bag's real tiles: (patients, 6) from uint8 pixels."""
    flat = [bag[mask].reshape(-1, 3) for bag, mask in zip(bags, masks, strict=True)]
    return np.stack([np.r_[pixels.mean(0), pixels.std(0)] for pixels in flat])
