"""The bootstrap over patients: how often each is drawn, and the intervals that follow."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from mmmil.evaluation import metrics
from mmmil.evaluation.metrics import CONFIDENCE, THRESHOLD, weighted_scores
from mmmil.evaluation.paired_tests import Difference


def bootstrap_interval(
    label: np.ndarray, prob: np.ndarray, threshold: float, confidence: float, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Percentile intervals of all metrics, patients resampled within their class; index metric, columns low, high."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((draws, len(label)))
    for c in (0, 1):
        own = np.flatnonzero(label == c)
        weights[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=draws)
    tail = (1 - confidence) / 2
    drawn = pd.DataFrame(weighted_scores(label, prob, weights, threshold))
    return drawn.quantile([tail, 1 - tail]).T.set_axis(["low", "high"], axis=1)


def resample(label: np.ndarray, folds: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each patient is drawn (draws, n), with replacement within the class and the fold; label, folds (n,)."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((draws, len(label)))
    for k in np.unique(folds):
        for c in (0, 1):
            own = np.flatnonzero((folds == k) & (label == c))
            weights[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / max(len(own), 1)), size=draws)
    return weights


def mean_weighted_scores(
    label: np.ndarray, prob: np.ndarray, folds: np.ndarray, weights: np.ndarray, threshold: float
) -> dict[str, np.ndarray]:
    """The six metrics, mean over folds, for every weighting of the patients: metric -> (draws,); weights (draws, n)."""
    of_folds = [
        metrics.weighted_scores(label[own], prob[own], weights[:, own], threshold)
        for own in (folds == k for k in np.unique(folds))
    ]
    return {metric: np.mean([s[metric] for s in of_folds], axis=0) for metric in metrics.METRICS}


def paired_bootstrap(
    label: np.ndarray,
    prob_a: np.ndarray,
    prob_b: np.ndarray,
    folds: np.ndarray | None = None,
    metric: str = "roc_auc",
    threshold: float = THRESHOLD,
    confidence: float = CONFIDENCE,
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """Percentile interval of the difference in one of the six metrics; both models see the same drawn patients.

    label, prob_a, prob_b, folds (n,); patients are drawn within class and fold, the metric is the mean over folds.
    p is that of the percentile interval, twice the smaller share of draws on one side of zero, the observed
    difference counted as one more draw on it: never below 2 / (draws + 1).
    """
    label = np.asarray(label)
    folds = np.zeros(len(label)) if folds is None else np.asarray(folds)
    weights = np.vstack([np.ones(len(label)), resample(label, folds, draws, seed)])
    a, b = (mean_weighted_scores(label, np.asarray(x), folds, weights, threshold)[metric] for x in (prob_a, prob_b))
    return percentiles(a - b, confidence, len(label))


def percentiles(d: np.ndarray, confidence: float, n: int) -> Difference:
    """d: the observed difference, then the drawn ones."""
    drawn = np.where(np.abs(d[1:]) < 1e-12, 0, d[1:])
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    fewer = min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1
    return Difference(d[0], low, high, min(1.0, 2 * fewer / (len(drawn) + 1)), n)


def interval(values: np.ndarray, confidence: float, draws: int = 2000) -> tuple[float, float, float]:
    """Mean over patients and its percentile bootstrap interval; the interval is nan for fewer than two."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return (values.mean() if len(values) else np.nan), np.nan, np.nan
    drawn = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=draws, method="percentile",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return values.mean(), *map(float, drawn.confidence_interval)
