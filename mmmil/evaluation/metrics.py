"""Metrics per fold, their means and intervals, and the tables of the paper as queries over the predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy  # its parts are loaded where they are first used

CONFIDENCE = 0.95  # of all intervals, as is usual; the paper does not say how it made its own
METRICS = ["accuracy", "f1", "sensitivity", "specificity", "pr_auc", "roc_auc"]


def scores(label: np.ndarray, prob: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """The paper's six metrics for one fold; label (n,) 0/1, prob (n,) of class 1. PR-AUC is average precision.

    Raises ValueError where a class is missing: AUC is not defined then.
    """
    from sklearn import metrics as skm  # seconds of imports that a table which is read back does not need

    if len(np.unique(label)) < 2:
        raise ValueError("a fold without patients of both classes has no AUC; use fewer folds or more patients")
    # Counted here: scikit-learn's functions look their input over each time, which takes longer than all the rest.
    is_one, called = label == 1, prob >= threshold
    found, refuted = np.sum(is_one & called), np.sum(~is_one & ~called)
    return {
        "accuracy": (found + refuted) / len(label),
        "f1": 2 * found / (is_one.sum() + called.sum()),
        "sensitivity": found / is_one.sum(),
        "specificity": refuted / (~is_one).sum(),
        "pr_auc": skm.average_precision_score(label, prob),
        "roc_auc": skm.roc_auc_score(label, prob),
    }


def per_fold(predictions: pd.DataFrame, threshold: float = 0.5) -> pd.DataFrame:
    """One row per variant, split, seed and fold, one column per metric."""
    groups = predictions.groupby(["variant", "split", "seed", "fold"], sort=False)
    rows = {key: scores(g["label"].to_numpy(), g["prob"].to_numpy(), threshold) for key, g in groups}
    index = pd.MultiIndex.from_tuples(rows, names=["variant", "split", "seed", "fold"])
    return pd.DataFrame(list(rows.values()), index=index, columns=METRICS)


def mean_interval(
    values: np.ndarray, confidence: float = CONFIDENCE, shared: float = 0.0
) -> tuple[float, float, float]:
    """Mean and Student's t interval over folds, cut to [0, 1], which no metric leaves; its ends are NaN where there is
    no scatter to tell it from: of a single value, and of values that are all the same.

    Folds share training patients, so the interval is narrower than it should be; shared: n_test / n_train, by which
    the variance of k folds is (1 / k + shared) * var (Nadeau and Bengio, Mach. Learn. 52:239, 2003), so that folds of
    further repeats, which bring no new patients, cannot narrow it at will.
    """
    values = np.asarray(values, dtype=float)
    mean = values.mean()
    if len(values) < 2 or not np.ptp(values) > 1e-12:
        return mean, np.nan, np.nan
    error = np.sqrt((1 / len(values) + shared) * values.var(ddof=1)) if shared else scipy.stats.sem(values)
    half = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * error
    return mean, max(mean - half, 0.0), min(mean + half, 1.0)


def weighted_scores(label: np.ndarray, prob: np.ndarray, weights: np.ndarray, threshold: float = 0.5) -> dict:
    """The metrics of `scores` for many weightings of the same patients at once.

    label, prob (n,); weights (draws, n), how often each patient was drawn. Returns metric -> (draws,).
    """
    order = np.argsort(-prob, kind="stable")
    label, prob, weights = label[order], prob[order], weights[:, order]
    last = np.append(prob[1:] != prob[:-1], True)  # a threshold between tied patients does not exist
    tp = np.cumsum(weights * label, axis=1)[:, last]
    fp = np.cumsum(weights * (1 - label), axis=1)[:, last]
    positives, negatives = tp[:, -1:], fp[:, -1:]
    tp0, fp0 = (np.pad(x, ((0, 0), (1, 0))) for x in (tp, fp))
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(tp / (tp + fp))
    roc = (np.diff(fp0) * (tp0[:, 1:] + tp0[:, :-1]) / 2).sum(1, keepdims=True) / (positives * negatives)
    called = (prob[last] >= threshold).sum()
    hit, wrong = tp0[:, [called]], fp0[:, [called]]
    columns = {
        "accuracy": (hit + negatives - wrong) / (positives + negatives),
        "f1": 2 * hit / np.maximum(hit + wrong + positives, 1),
        "sensitivity": hit / positives,
        "specificity": 1 - wrong / negatives,
        "pr_auc": (np.diff(tp0) * precision).sum(1, keepdims=True) / positives,
        "roc_auc": roc,
    }
    return {metric: values[:, 0] for metric, values in columns.items()}
