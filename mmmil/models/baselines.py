"""Trivial baselines on the same folds: what logistic regression reaches stands beside every AUC of the book."""

from __future__ import annotations

import numpy as np


def logistic(x_train: np.ndarray, y_train: np.ndarray, x: np.ndarray, strength: float) -> np.ndarray:
    """Probability of class 1 for x (patients, features); scaler and model are fitted on the training patients.

    strength: scikit-learn's C, the inverse of the ridge penalty.
    """
    from sklearn.linear_model import LogisticRegression  # seconds of imports that a network does not need
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=5000))
    return model.fit(x_train, y_train).predict_proba(x)[:, 1]


def colour(bags: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of red, green and blue over a bag's real tiles: (patients, 6) from uint8 pixels."""
    flat = [bag[mask].reshape(-1, 3) for bag, mask in zip(bags, masks, strict=True)]
    return np.stack([np.r_[pixels.mean(0), pixels.std(0)] for pixels in flat])
