"""Intervals of one model's metrics that stay intervals where it makes no mistake, and of differences made of them.

A model that ranks all of 37 patients rightly need not rank the next ones so. A bootstrap of these patients cannot show
that, since they are right in every draw; nor can DeLong's variance, which is 0, a logit, which is infinite, or folds
that all have 1. A score interval can: it holds every value from which the estimate lies no further than chance carries
it, by the standard error *at that value*, which is 0 at no value but 0 and 1 themselves (Wilson, J. Am. Stat. Assoc.
22:209, 1927). One mechanism for all six metrics, which differ in their variance:

- accuracy, sensitivity, specificity: v (1 - v) / n of a share, n the patients that it is a share of: Wilson's interval;
- F1: F1 = 2 s / (1 + s), s = TP / (TP + FP + FN) a share too (Hand et al., Mach. Learn. 110:451, 2021), whose Wilson
  interval is carried over (Lam et al., arXiv:2309.14621);
- PR-AUC: v (1 - v) / n of the patients of class 1 (Boyd et al., ECML PKDD 2013, whose logit interval knows no 1);
- ROC-AUC: Hanley and McNeil's variance in Newcombe's form (his method 5, Stat. Med. 25:559, 2006), which held its
  level best near 1 and in small samples in his comparison and in Feng's (Stat. Methods Med. Res. 26:2603, 2017).

`benchmarks/intervals.py` counts how often they hold the truth, beside the bootstrap's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import scipy  # its parts are loaded where they are first used

from mmmil.evaluation.metrics import CONFIDENCE, METRICS, mean_interval, weighted_scores

Estimate = tuple[float, float, float]  # value, low, high
NEAR = 1e-9  # of 0 or 1: nearer than any metric of fewer than a billion patients comes


def score_interval(
    value: float, variance: Callable[[float], float], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """All v in [0, 1] no further from the value than z standard deviations at v, (low, high); variance is 0 at 0 and 1
    alone.
    """
    z = scipy.stats.norm.ppf((1 + confidence) / 2)

    def outside(v: float) -> float:
        return (value - v) ** 2 - z**2 * variance(v)

    low = scipy.optimize.brentq(outside, 0.0, value - NEAR) if value > NEAR else 0.0
    high = scipy.optimize.brentq(outside, value + NEAR, 1.0) if value < 1 - NEAR else 1.0
    return low, high


def share(value: float, sizes: Sequence[float], confidence: float = CONFIDENCE, repeats: int = 1) -> tuple:
    """(low, high) of a share, or of the mean of a share over folds; sizes: what each fold's is a share of.

    A mean over folds varies as the mean of independent shares does. repeats: how often every patient is there, in
    repeats of the folds or by other seeds, since the same patient tells less the second time: taken as nothing.
    """
    inverse = repeats * np.sum(1 / np.asarray(sizes, float)) / len(sizes) ** 2
    return score_interval(value, lambda v: v * (1 - v) * inverse, confidence)


def roc_auc(
    value: float, sizes: Sequence[tuple[int, int]], confidence: float = CONFIDENCE, repeats: int = 1
) -> tuple[float, float]:
    """(low, high) of a ROC-AUC, or of its mean over folds; sizes: each fold's patients of class 1 and of class 0.

    Newcombe's method 5: Hanley and McNeil's variance (`power.hanley_mcneil`) with the mean of n1 and n0 in place of
    either where they weigh the two terms of a shared patient. repeats: as for `share`.
    """
    n1, n0 = np.asarray(sizes, float).T

    def variance(v: float) -> float:
        pairs = 1 + ((n1 + n0) / 2 - 1) * ((1 - v) / (2 - v) + v / (1 + v))
        return repeats * np.sum(v * (1 - v) * pairs / (n1 * n0)) / len(n1) ** 2

    return score_interval(value, variance, confidence)


def of_model(
    label: np.ndarray,
    prob: np.ndarray,
    folds: np.ndarray | None = None,
    threshold: float = 0.5,
    confidence: float = CONFIDENCE,
    repeats: int = 1,
    shared: float = 0.0,
    trainings: bool = True,
) -> pd.DataFrame:
    """One model's metrics, means over the folds, with their intervals: index METRICS, columns mean, low, high.

    label (n,) 0/1, prob (n,) of class 1, or (seeds, n) of models whose metrics' mean it is, folds (n,): which model
    predicted whom; without them one model predicted all. repeats: as for `share`; shared: as for `mean_interval`.

    One model has the score interval: what other patients would give it. Folds have Student's t, which knows of models
    that differ by what they were trained on, and may by chance, or at the ceiling, see no scatter at all; so neither
    end is nearer than that of the score interval (as the interval of Hartung and Knapp over few studies should never
    be narrower than the fixed-effect one: Wiksten et al., Stat. Med. 35:2503, 2016). trainings: False for the score
    interval alone, which takes the models as they are. Raises ValueError where a fold lacks a class.
    """
    label, prob = np.asarray(label), np.atleast_2d(np.asarray(prob, float))
    folds = np.zeros(len(label)) if folds is None else np.asarray(folds)
    each = [folds == k for k in np.unique(folds)]
    n1 = np.array([(label[k] == 1).sum() for k in each])
    n0 = np.array([(label[k] == 0).sum() for k in each])
    if not (n1.all() and n0.all()):
        raise ValueError("a fold without patients of both classes has no AUC; use fewer folds or more patients")
    found = [[weighted_scores(label[k], of[k], np.ones((1, k.sum())), threshold) for k in each] for of in prob]
    values = {metric: np.mean([[k[metric][0] for k in of_seed] for of_seed in found], axis=0) for metric in METRICS}
    wrong = np.array([((label[k] == 0) & (prob[:, k] >= threshold)).sum() / len(prob) for k in each])
    sizes = {"accuracy": n1 + n0, "sensitivity": n1, "specificity": n0, "pr_auc": n1, "f1": n1 + wrong}
    rows = {}
    for metric in METRICS:
        mean, low, high = mean_interval(values[metric], confidence, shared)
        low, high = (low, high) if trainings else (np.nan, np.nan)
        if metric == "roc_auc":
            ends = roc_auc(mean, list(zip(n1, n0, strict=True)), confidence, repeats)
        elif metric == "f1":
            ends = tuple(2 * s / (1 + s) for s in share(mean / (2 - mean), sizes["f1"], confidence, repeats))
        else:
            ends = share(mean, sizes[metric], confidence, repeats)
        rows[metric] = {"mean": mean, "low": np.fmin(low, ends[0]), "high": np.fmax(high, ends[1])}
    return pd.DataFrame.from_dict(rows, orient="index")


def near_ceiling(auc: float, n1: float, n0: float) -> bool:
    """Whether less than one patient of the smaller class is ranked wrongly, or rightly: from so few nobody can tell how
    a ROC-AUC scatters. n1, n0: patients of class 1 and of class 0.
    """
    return min(auc, 1 - auc) * min(n1, n0) < 1


def difference(a: Sequence[float], b: Sequence[float], correlation: float = 0.0) -> Estimate:
    """a less b, each (value, low, high, ...), with the interval that their intervals give.

    Zou and Donner's (Stat. Med. 27:1693, 2008), as Newcombe's of paired shares (Stat. Med. 17:2635, 1998). Two models
    tend to be right and wrong about the same patients: correlation is that of their estimates; without it the interval
    is that of independent patients, which is too wide. One below 0 is taken as 0.
    """
    off, r = a[0] - b[0], min(max(correlation, 0.0), 1.0)

    def reach(of_a: float, of_b: float) -> float:
        return math.sqrt(max(of_a**2 + of_b**2 - 2 * r * of_a * of_b, 0.0))

    return off, off - reach(a[0] - a[1], b[2] - b[0]), off + reach(a[2] - a[0], b[0] - b[1])
