"""Effect sizes, and how large a difference so many patients could have shown at all.

A difference that is not significant says little where only a large one could have been; the paper's LGG test set has
about 94 patients.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy  # its parts are loaded where they are first used

from mmmil.evaluation import comparisons, paired_tests, summary
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.evaluation.metrics import scores as scores_of
from mmmil.params import Params

DETECTABLE = ["table", "a", "b", "split", "auc", "difference", "correlation", "detectable", "n"]
EFFECTS = ["table", "a", "b", "metric", "d_z", "ci_low", "ci_high", "n"]


def cohens_dz(a: np.ndarray, b: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Cohen's d_z of a metric over the same folds, (k,) each: mean of a - b in its standard deviations, with interval.

    The interval inverts the noncentral t distribution (Cumming and Finch, Educ. Psychol. Meas. 61:532, 2001). Folds
    that share training patients are taken as independent ones, so `|d_z|` is too large. NaN where a - b does not vary.
    """
    d = np.asarray(a, float) - np.asarray(b, float)
    k = len(d)
    if k < 2 or d.std(ddof=1) < 1e-10:
        return np.nan, np.nan, np.nan
    dz, root, tail = d.mean() / d.std(ddof=1), np.sqrt(k), (1 - confidence) / 2
    low, high = (scipy.special.nctdtrinc(k - 1, share, dz * root) / root for share in (1 - tail, tail))
    return dz, low, high


def hanley_mcneil(auc: float, n1: int, n0: int) -> float:
    """Variance of a ROC-AUC with n1 and n0 patients of the classes (Hanley and McNeil, Radiology 143:29, 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    return (auc * (1 - auc) + (n1 - 1) * (q1 - auc**2) + (n0 - 1) * (q2 - auc**2)) / (n1 * n0)


def detectable_difference(
    label: np.ndarray,
    auc: float,
    correlation: float,
    alpha: float = 0.05,
    power: float = 0.8,
    folds: np.ndarray | None = None,
) -> float:
    """Smallest gain over `auc` that a two-sided paired test of ROC-AUC on these patients finds with this power.

    label, folds (n,): the patients' classes, and which model predicts them (variances of folds are summed / k^2);
    correlation: of the two models' AUC estimates. Solves d = (z(1 - alpha / 2) + z(power)) s, where s^2 is the
    variance of the difference of correlated AUCs `auc` and `auc` + d (Hanley and McNeil, Radiology 148:839, 1983), as
    DeLong's test estimates it. NaN where not even a perfect model would be found.
    """
    label = np.asarray(label)
    folds = np.zeros(len(label)) if folds is None else np.asarray(folds)
    sizes = [((label[folds == k] == 1).sum(), (label[folds == k] == 0).sum()) for k in np.unique(folds)]

    def scatter(higher: float) -> float:
        v, w = (sum(hanley_mcneil(x, *size) for size in sizes) / len(sizes) ** 2 for x in (auc, higher))
        return np.sqrt(max(v + w - 2 * correlation * np.sqrt(v * w), 0.0))

    def lacking(d: float) -> float:
        return (scipy.stats.norm.ppf(1 - alpha / 2) + scipy.stats.norm.ppf(power)) * scatter(auc + d) - d

    if lacking(0.0) <= 0:  # models whose estimates move together entirely: any difference is seen
        return 0.0
    return scipy.optimize.brentq(lacking, 0.0, 1 - auc) if lacking(1 - auc) <= 0 else np.nan


def detectable(
    predictions: pd.DataFrame, p: Params, tables: list[str] | None = None, power: float = 0.8
) -> pd.DataFrame:
    """One row per pair and split (columns DETECTABLE): the ROC-AUC of b, the difference seen, the detectable one.

    auc, difference: means over folds; correlation: of the two AUC estimates, by DeLong. One comparison at
    alpha = 1 - CONFIDENCE: with Holm's adjustment a family needs more.
    """
    rows = []
    for split, wide, (table, a, b) in comparisons.each_pair(predictions, p, tables):
        label, folds = wide["label"].to_numpy(), wide.index.get_level_values("fold").to_numpy()
        aucs, v = paired_tests.mean_auc_covariance(label, wide[[a, b]].to_numpy().T, folds)
        both = np.sqrt(v[0, 0] * v[1, 1])
        correlation = v[0, 1] / both if both > 0 else np.nan  # a model that makes no mistake has no variance
        least = np.nan
        if np.isfinite(correlation):
            least = detectable_difference(label, aucs[1], correlation, 1 - CONFIDENCE, power, folds)
        number = summary.shown_table(table, split)
        rows.append((number, a, b, split, aucs[1], aucs[0] - aucs[1], correlation, least, len(label)))
    return pd.DataFrame(rows, columns=DETECTABLE)


def effects(
    predictions: pd.DataFrame,
    p: Params,
    metrics: tuple[str, ...] = ("roc_auc", "pr_auc"),
    tables: list[str] | None = None,
) -> pd.DataFrame:
    """Cohen's d_z over the validation folds of every pair and metric, with its interval (columns EFFECTS)."""
    rows = []
    for split, wide, (table, a, b) in comparisons.each_pair(predictions, p, tables):
        if split != "val":
            continue
        folds = [part for _, part in wide.groupby(level="fold")]
        of_a, of_b = (
            pd.DataFrame([scores_of(f["label"].to_numpy(), f[name].to_numpy(), p.threshold) for f in folds])
            for name in (a, b)
        )
        rows += [(table, a, b, m, *cohens_dz(of_a[m], of_b[m], CONFIDENCE), len(folds)) for m in metrics]
    return pd.DataFrame(rows, columns=EFFECTS)
