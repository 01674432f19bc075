"""Tests of two models on the same patients or folds: difference, interval and p of each.

The paper tests by a paired t-test over five folds (Results). The t-tests ask what training on other patients might
give; DeLong's test, the bootstrap and McNemar's take the trained models as given and ask what other patients to
evaluate them on might give. None of them answers for both, and none can tell of patients like whom it has seen no
mistake, or hardly any: there a difference has the interval of `widened`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts are loaded where they are first used
from numpy.typing import ArrayLike

from mmmil.evaluation import intervals
from mmmil.evaluation.metrics import CONFIDENCE


class Difference(NamedTuple):
    """Metric of a less that of b, its interval, the two-sided p, and the number of folds (t-tests) or patients.

    Interval and p are NaN where they are not defined.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int


def paired_t(a: np.ndarray, b: np.ndarray, confidence: float = CONFIDENCE) -> Difference:
    """The paper's paired t-test; a, b: a metric of two models on the same folds, (k,) each.

    The folds share training patients, so their differences vary less than those of independent studies: the test finds
    differences too readily (Dietterich, Neural Comput. 10:1895, 1998).
    """
    return _t(a, b, 0.0, confidence)


def corrected_t(a: np.ndarray, b: np.ndarray, test_share: float, confidence: float = CONFIDENCE) -> Difference:
    """Corrected resampled t-test; a, b (k,) as for `paired_t`; test_share: part of the patients that a fold evaluates.

    t = mean(d) / sqrt((1 / k + n_test / n_train) * var(d)) with k - 1 degrees of freedom, d = a - b, var with k - 1
    (Nadeau and Bengio, Mach. Learn. 52:239, 2003). n_test / n_train is test_share /
    (1 - test_share), 1 / (k - 1) for cross-validation. Derived for random subsets; for folds it is a rule of thumb.
    """
    return _t(a, b, test_share / (1 - test_share), confidence)


def _t(a: ArrayLike, b: ArrayLike, correlation_term: float, confidence: float) -> Difference:
    d = np.asarray(a, float) - np.asarray(b, float)
    k, mean = len(d), d.mean()
    if k < 2:
        return Difference(mean, np.nan, np.nan, np.nan, k)
    return _interval(mean, (1 / k + correlation_term) * d.var(ddof=1), scipy.stats.t(k - 1), confidence, k)


def _interval(mean: float, variance: float, null: Any, confidence: float, n: int) -> Difference:
    """Interval and p from an estimate, its variance and the standardised distribution under the null."""
    if not variance > 1e-20:  # models that rank alike do not differ; else nothing is known of the scatter
        alike = variance <= 1e-20 and abs(mean) < 1e-10
        return Difference(mean, np.nan, np.nan, 1.0 if alike else np.nan, n)
    se = np.sqrt(variance)
    half = null.ppf((1 + confidence) / 2) * se
    return Difference(mean, mean - half, mean + half, 2 * null.sf(abs(mean) / se), n)


def widened(
    tested: Difference,
    a: Iterable[float],
    b: Iterable[float],
    confidence: float = CONFIDENCE,
    correlation: float = 0.0,
    few: bool = False,
) -> Difference:
    """A tested difference, no surer than the two models' own intervals allow where its test sees too little scatter.

    a, b: the metric of each model as (value, low, high), of `intervals.of_model`. Where a model makes no mistake, or
    nothing but mistakes, it does so in every fold and draw, and where the difference is the same in all of them its
    interval is empty. There, and where `few` says that there are too few mistakes to tell (`intervals.near_ceiling`),
    interval and p are at least those of `intervals.difference`; an undefined p stays so. correlation: of the two
    estimates.
    """
    a, b = tuple(a), tuple(b)
    if not few and sees_scatter(tested, a[0], b[0]):
        return tested
    off, low, high = intervals.difference(a, b, correlation)
    z = scipy.stats.norm.ppf((1 + confidence) / 2)
    p = 2 * scipy.stats.norm.sf(z * abs(off) / (off - low if off > 0 else high - off))
    low, high = float(np.fmin(tested.low, low)), float(np.fmax(tested.high, high))
    return Difference(tested.difference, low, high, float(np.maximum(tested.p, p)), tested.n)


def sees_scatter(tested: Difference, a: float, b: float) -> bool:
    """Whether neither model's metric, a and b, is 0 or 1, and the difference has an interval that is not empty."""
    return tested.high - tested.low > 1e-12 and all(1e-12 < x < 1 - 1e-12 for x in (a, b))


def correlation(covariance: np.ndarray) -> float:
    """Of two estimates by their covariance (2, 2); 0 where one of them does not scatter, or they are the same, from
    which nothing is known of it.
    """
    var_a, var_b, both = covariance[0, 0], covariance[1, 1], covariance[0, 1]
    if not (min(var_a, var_b) > 1e-20 and var_a + var_b - 2 * both > 1e-20):
        return 0.0
    return float(both / np.sqrt(var_a * var_b))


def auc_covariance(label: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ROC-AUCs (m,) of m models on the same patients and their covariance (m, m) by DeLong.

    label (n,) 0/1, probs (m, n). Tied patients count one half (DeLong et al., Biometrics 44:837, 1988), by midranks
    (Sun and Xu, IEEE Signal Process. Lett. 21:1389, 2014). The covariance is NaN where a class has one patient.
    """
    v10, v01 = _placements(label, probs)
    n1, n0 = v10.shape[1], v01.shape[1]
    if min(n1, n0) < 2:
        return v10.mean(1), np.full((len(probs), len(probs)), np.nan)
    return v10.mean(1), np.atleast_2d(np.cov(v10)) / n1 + np.atleast_2d(np.cov(v01)) / n0


def _placements(label: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each positive the share of negatives below it (m, n1), of each negative that of positives above it (m, n0)."""
    positive, negative = probs[:, label == 1], probs[:, label == 0]
    n1, n0 = positive.shape[1], negative.shape[1]
    if not n1 or not n0:
        raise ValueError("ROC-AUC needs patients of both classes; use fewer folds or more patients")
    ranks = scipy.stats.rankdata(np.hstack([positive, negative]), axis=1)
    v10 = (ranks[:, :n1] - scipy.stats.rankdata(positive, axis=1)) / n0
    v01 = 1 - (ranks[:, n1:] - scipy.stats.rankdata(negative, axis=1)) / n1
    return v10, v01


def mean_auc_covariance(
    label: np.ndarray, probs: np.ndarray, folds: np.ndarray, patients: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over folds of m models' ROC-AUCs (m,) and its covariance (m, m): the folds' covariances, summed / k^2.

    label, folds (n,), probs (m, n). Patients of different folds are never ranked against each other: their
    probabilities come from different models and are not on one scale. Folds hold different patients, hence the sum;
    that their models share training patients is left out of it.

    patients (n,): names, where a patient stands in a fold of every repeat; what a patient adds to the mean is then
    summed over the folds before it is squared, so that repeats of the same patients do not pass for further ones.
    """
    if patients is not None and len(np.unique(patients)) < len(patients):
        return _repeated_covariance(label, probs, folds, patients)
    parts = [auc_covariance(label[folds == k], probs[:, folds == k]) for k in np.unique(folds)]
    aucs, covariances = (np.array(x) for x in zip(*parts, strict=True))
    return aucs.mean(0), covariances.sum(0) / len(parts) ** 2


def _repeated_covariance(
    label: np.ndarray, probs: np.ndarray, folds: np.ndarray, patients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    names, of_row = np.unique(patients, return_inverse=True)
    numbers, aucs = np.unique(folds), []
    share = np.zeros((len(probs), len(names)))  # of each patient in the error of each model's mean
    for k in numbers:
        here = np.flatnonzero(folds == k)
        of_models = [auc_influence(label[here], prob[here]) for prob in probs]
        aucs.append([auc for auc, _ in of_models])
        share[:, of_row[here]] += np.stack([influence for _, influence in of_models]) / len(numbers)
    return np.mean(aucs, 0), share @ share.T


def auc_influence(label: np.ndarray, prob: np.ndarray) -> tuple[float, np.ndarray]:
    """ROC-AUC of one model and each patient's influence on it (n,), whose squares sum to DeLong's variance.

    label, prob (n,). Influences are those of `auc_covariance`'s components, so that the sum of products of two models'
    is their covariance. Of several runs on the same patients they are averaged patient by patient: the mean AUC's
    variance then knows that the runs share their patients. NaN where a class has one patient.
    """
    ranks = scipy.stats.rankdata(prob)
    positive = label == 1
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if not n1 or not n0:
        raise ValueError("ROC-AUC needs patients of both classes; use fewer folds or more patients")
    v10 = (ranks[positive] - scipy.stats.rankdata(prob[positive])) / n0
    v01 = 1 - (ranks[~positive] - scipy.stats.rankdata(prob[~positive])) / n1
    auc, influence = v10.mean(), np.full(len(prob), np.nan)
    if min(n1, n0) > 1:
        influence[positive] = (v10 - auc) / np.sqrt(n1 * (n1 - 1))
        influence[~positive] = (v01 - auc) / np.sqrt(n0 * (n0 - 1))
    return float(auc), influence


def by_influence(difference: float, influence: np.ndarray, confidence: float) -> Difference:
    """Normal interval of a difference from each patient's influence on it (n,)."""
    return _interval(difference, float(influence @ influence), scipy.stats.norm, confidence, len(influence))


def delong(
    label: np.ndarray,
    prob_a: np.ndarray,
    prob_b: np.ndarray,
    confidence: float = CONFIDENCE,
    folds: np.ndarray | None = None,
) -> Difference:
    """Paired DeLong test of two ROC-AUCs on the same patients, all (n,); normal interval of the difference.

    folds (n,): which model predicted a patient; the difference is then that of the means over folds
    (`mean_auc_covariance`). Where a model makes hardly a mistake: `widened`.
    """
    label = np.asarray(label)
    folds = np.zeros(len(label)) if folds is None else np.asarray(folds)
    aucs, covariance = mean_auc_covariance(label, np.stack([prob_a, prob_b]).astype(float), folds)
    tested = contrast(aucs, covariance, 0, 1, confidence, len(label))
    n1 = label.sum()
    few = any(intervals.near_ceiling(auc, n1, len(label) - n1) for auc in aucs)
    if sees_scatter(tested, *aucs) and not few:
        return tested
    a, b = (intervals.of_model(label, x, folds, 0.5, confidence).loc["roc_auc"] for x in (prob_a, prob_b))
    return widened(tested, a, b, confidence, correlation(covariance), few)


def contrast(aucs: np.ndarray, covariance: np.ndarray, i: int, j: int, confidence: float, n: int) -> Difference:
    variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
    return _interval(aucs[i] - aucs[j], variance, scipy.stats.norm, confidence, n)


def mcnemar(
    label: np.ndarray,
    prob_a: np.ndarray,
    prob_b: np.ndarray,
    threshold: float = 0.5,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Exact McNemar test of two accuracies on the same patients, all (n,), by the binomial test of SciPy.

    Interval: Wald's with 1/2 added to each of the four counts (Agresti and Min, Stat. Med. 24:729, 2005). Each
    patient is called by one threshold, so patients of all folds count together.
    """
    right_a, right_b = ((np.asarray(prob) >= threshold) == (np.asarray(label) == 1) for prob in (prob_a, prob_b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n = len(right_a)
    p = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    mean = (only_a - only_b) / (n + 2)
    variance = ((only_a + only_b + 1) / (n + 2) - mean**2) / (n + 2)
    interval = _interval(mean, variance, scipy.stats.norm, confidence, n)
    return Difference((only_a - only_b) / n, interval.low, interval.high, p, n)
