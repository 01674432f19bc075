"""The bootstrap over patients: who is drawn, the scores that follow, and the percentile interval of these.

It tells differences of two models; one model's metrics have the intervals of `intervals`, which know the ceiling.
Whatever is drawn is drawn by `resample`, and every interval is that of `percentile_interval`. Only the mean of one
value per patient, which knows neither class nor fold, is drawn by SciPy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy  # its parts are loaded where they are first used

from mmmil.evaluation import intervals
from mmmil.evaluation.metrics import CONFIDENCE, METRICS, weighted_scores
from mmmil.evaluation.paired_tests import Difference, correlation, mean_auc_covariance, widened


def resample(label: np.ndarray, folds: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each patient is drawn (draws, n), with replacement within the class and the fold; label, folds (n,)."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((draws, len(label)))
    for k in np.unique(folds):
        for c in (0, 1):
            patients = np.flatnonzero((folds == k) & (label == c))
            share = np.full(len(patients), 1 / max(len(patients), 1))
            weights[:, patients] = rng.multinomial(len(patients), share, size=draws)
    return weights


def percentile_interval(drawn: np.ndarray, confidence: float) -> tuple:
    """(low, high) of drawn values (draws,), or of each column of (draws, m)."""
    tail = (1 - confidence) / 2
    return tuple(np.quantile(drawn, [tail, 1 - tail], axis=0))


def drawn_scores(
    label: np.ndarray,
    probs: Mapping[str, np.ndarray],
    folds: np.ndarray | None = None,
    threshold: float = 0.5,
    draws: int = 2000,
    seed: int = 0,
    patients: np.ndarray | None = None,
) -> dict[str, pd.DataFrame]:
    """Of every model the six metrics, mean over folds: row 0 of the patients as they are, then one row per draw.

    label, folds (n,), each of probs (n,) or, of several models of one kind whose mean is taken, (models, n); all see
    the same drawn patients, drawn within class and fold. Without folds one model predicted all patients.

    patients (n,): names, where a patient stands in several folds (repeated cross-validation) and is drawn into all of
    them at once, within class and first fold. A fold that then lacks a class does not count in that draw.
    """
    label = np.asarray(label)
    folds = np.zeros(len(label)) if folds is None else np.asarray(folds)
    of_row, names = pd.factorize(np.arange(len(label)) if patients is None else np.asarray(patients))
    first = np.unique(of_row, return_index=True)[1]
    drawn = resample(label[first], folds[first], draws, seed)[:, of_row]
    weights = np.vstack([np.ones(len(label)), drawn])
    of_folds = [folds == k for k in np.unique(folds)]
    mean = np.mean if len(names) == len(label) else np.nanmean

    def mean_scores(prob: np.ndarray) -> pd.DataFrame:
        scores = [_scores(label[k], prob[k], weights[:, k], threshold) for k in of_folds]
        return pd.DataFrame({metric: mean([s[metric] for s in scores], axis=0) for metric in METRICS})

    each = {name: [mean_scores(row) for row in np.atleast_2d(np.asarray(prob))] for name, prob in probs.items()}
    return {name: frames[0] if len(frames) == 1 else sum(frames) / len(frames) for name, frames in each.items()}


def _scores(label: np.ndarray, prob: np.ndarray, weights: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """`weighted_scores`, NaN in draws that lack a class."""
    both = weights[:, label == 1].any(1) & weights[:, label == 0].any(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = weighted_scores(label, prob, weights, threshold)
    return {metric: np.where(both, values, np.nan) for metric, values in scores.items()}


def paired_bootstrap(
    label: np.ndarray,
    prob_a: np.ndarray,
    prob_b: np.ndarray,
    folds: np.ndarray | None = None,
    metric: str = "roc_auc",
    threshold: float = 0.5,
    confidence: float = CONFIDENCE,
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """Difference of two models in one of the six metrics, on the same drawn patients; all arrays (n,).

    Where a model makes hardly a mistake, so that its draws show no scatter: `paired_tests.widened`.
    """
    drawn = drawn_scores(label, {"a": prob_a, "b": prob_b}, folds, threshold, draws, seed)
    tested = paired_difference(drawn["a"][metric], drawn["b"][metric], confidence, len(label))
    a, b = (intervals.of_model(label, x, folds, threshold, confidence).loc[metric] for x in (prob_a, prob_b))
    n1, correlated, few = int(np.sum(label)), 0.0, False
    if metric == "roc_auc":
        where = np.zeros(len(label)) if folds is None else np.asarray(folds)
        _, covariance = mean_auc_covariance(np.asarray(label), np.stack([prob_a, prob_b]).astype(float), where)
        correlated = correlation(covariance)
        few = any(intervals.near_ceiling(x["mean"], n1, len(label) - n1) for x in (a, b))
    return widened(tested, a, b, confidence, correlated, few)


def paired_difference(a: np.ndarray, b: np.ndarray, confidence: float, n: int) -> Difference:
    """a less b, with its interval over the draws; a, b: one metric of `drawn_scores` (1 + draws,), n: patients.

    p is that of the percentile interval, twice the smaller share of draws on one side of zero, the observed
    difference counted as one more draw on it: never below 2 / (draws + 1).
    """
    differences = np.asarray(a) - np.asarray(b)
    observed, drawn = differences[0], np.where(np.abs(differences[1:]) < 1e-12, 0, differences[1:])
    low, high = percentile_interval(drawn, confidence)
    fewer = min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1
    return Difference(observed, low, high, min(1.0, 2 * fewer / (len(drawn) + 1)), n)


def interval(
    values: np.ndarray, confidence: float, draws: int = 2000, bounds: tuple[float, float] = (-1, 1)
) -> tuple[float, float, float]:
    """Mean over patients and its bootstrap interval; the interval is nan for fewer than two.

    bounds: what a value can be at least and at most. Values that are all the same, from which every draw is the same,
    have Wilson's interval of a share between the bounds: no bounded quantity scatters more than one that is either.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return (values.mean() if len(values) else np.nan), np.nan, np.nan
    if np.ptp(values) < 1e-12:
        least, width = bounds[0], bounds[1] - bounds[0]
        low, high = intervals.share((values[0] - least) / width, [len(values)], confidence)
        return values[0], least + width * low, least + width * high
    rng = np.random.default_rng(0)
    values_drawn = scipy.stats.bootstrap((values,), np.mean, n_resamples=draws, method="percentile", rng=rng)
    return values.mean(), *map(float, percentile_interval(values_drawn.bootstrap_distribution, confidence))
