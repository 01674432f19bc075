"""Metrics per fold, their means and intervals, and the tables of the paper as queries over the predictions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from scipy import stats
from sklearn import metrics as skm

from mmmil import experiments
from mmmil.params import Params

METRICS = ["accuracy", "f1", "sensitivity", "specificity", "pr_auc", "roc_auc"]
SUMMARY = ["table", "variant", "metric", "split", "mean", "ci_low", "ci_high", "n_folds"]
# Stands in the cells of a model of which a training failed; the status page shows the logs.
FAILED = '<a href="../../status.html#failed-trainings">failed</a>'


def scores(label: np.ndarray, prob: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """The paper's six metrics for one fold; label (n,) 0/1, prob (n,) of class 1. PR-AUC is average precision.

    Raises ValueError where a class is missing: AUC is not defined then.
    """
    if len(np.unique(label)) < 2:
        raise ValueError("a fold without patients of both classes has no AUC; use fewer folds or more patients")
    called = prob >= threshold
    return {
        "accuracy": skm.accuracy_score(label, called),
        "f1": skm.f1_score(label, called, zero_division=0),
        "sensitivity": skm.recall_score(label, called, pos_label=1, zero_division=0),
        "specificity": skm.recall_score(label, called, pos_label=0, zero_division=0),
        "pr_auc": skm.average_precision_score(label, prob),
        "roc_auc": skm.roc_auc_score(label, prob),
    }


def per_fold(predictions: pd.DataFrame, threshold: float = 0.5) -> pd.DataFrame:
    """One row per variant, split, seed and fold, one column per metric."""
    groups = predictions.groupby(["variant", "split", "seed", "fold"], sort=False)
    rows = {key: scores(g["label"].to_numpy(), g["prob"].to_numpy(), threshold) for key, g in groups}
    index = pd.MultiIndex.from_tuples(rows, names=["variant", "split", "seed", "fold"])
    return pd.DataFrame(list(rows.values()), index=index, columns=METRICS)


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's t interval over folds, cut to [0, 1], which no metric leaves.

    Folds share training patients, so the interval is narrower than it should be.
    """
    values = np.asarray(values, dtype=float)
    mean = values.mean()
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
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


def summarise(predictions: pd.DataFrame, p: Params, names: Iterable[str] = ()) -> pd.DataFrame:
    """metrics.csv: one row per table, variant, metric and split with mean, interval and number of folds.

    Validation: mean and t interval over folds. Test: the final model's one value and its bootstrap interval. Where a
    training failed there is no mean: over fewer folds it would be another quantity than in the other rows. names:
    variants that have a row in any case.
    """
    folds = per_fold(predictions, p.threshold)
    there = set(folds.droplevel(["seed", "fold"]).index)
    lacking = [key for key in itertools.product(names, ("val", "test")) if key not in there]
    seeds, rows = predictions["seed"].nunique(), []
    for (name, split), values in folds.groupby(level=["variant", "split"], sort=False):
        if len(values) < seeds * (p.n_folds if split == "val" else 1):
            values = values * np.nan
        own = predictions[(predictions["variant"] == name) & (predictions["split"] == split)]
        drawn = None
        if split == "test" and values.notna().all(axis=None):
            drawn = bootstrap_interval(own["label"].to_numpy(), own["prob"].to_numpy(), p.threshold, p.confidence)
        tables = experiments.variant(name).tables or ("baseline",)
        for metric in METRICS:
            mean, low, high = mean_interval(values[metric], p.confidence)
            if drawn is not None:
                low, high = drawn.loc[metric, ["low", "high"]]
            for table in tables:
                shown = shown_table(table, split)
                if table != "2":  # Table 2 counts parameters
                    rows.append((shown, name, metric, split, mean, low, high, len(values)))
    for name, split in lacking:
        tables = [t for t in experiments.variant(name).tables or ("baseline",) if t != "2"]
        rows += [(shown_table(t, split), name, m, split, *[np.nan] * 3, 0) for t in tables for m in METRICS]
    return pd.DataFrame(rows, columns=SUMMARY)


def shown_table(table: str, split: str) -> str:
    """The paper's number of a table: S1 to S9 repeat 3 to 11 on the held-out test set."""
    return f"S{int(table) - 2}" if split == "test" and table.isdigit() else table


def table(summary: pd.DataFrame, names: list[str], split: str = "val", digits: int = 3) -> Styler:
    """A table as the paper prints it: one row per variant, one column per metric, `mean [low, high]`.

    FAILED stands where a training of the variant failed, or where the summary lacks it for that reason.
    """
    shown = summary[(summary["split"] == split) & summary["mean"].notna()].drop_duplicates(["variant", "metric"])
    cells = shown.apply(
        lambda r: f"{r['mean']:.{digits}f} [{r['ci_low']:.{digits}f}, {r['ci_high']:.{digits}f}]", axis=1
    )
    grid = shown.assign(cell=cells).pivot(index="variant", columns="metric", values="cell")
    grid = grid.reindex(index=names, columns=METRICS).fillna(FAILED)
    return grid.rename(index=lambda n: experiments.variant(n).shown_as).rename_axis(index=None, columns=None).style


def balance(folds: pd.DataFrame, names: list[str], class_names: list[str], confidence: float = 0.95) -> pd.DataFrame:
    """How evenly each variant calls the two classes over the validation folds (the paper's discussion of Table 3).

    folds: of `per_fold`. Columns: means of sensitivity and specificity; difference, of these two means, and the class
    it favours; |sensitivity - specificity|, the mean of the folds' own absolute differences with its interval.
    """
    rows, there = {}, set(folds.xs("val", level="split").index.get_level_values("variant"))
    for name in [name for name in names if name in there]:  # the others failed
        own = folds.xs((name, "val"), level=("variant", "split"))
        sensitivity, specificity = own["sensitivity"].mean(), own["specificity"].mean()
        gap, low, high = mean_interval((own["sensitivity"] - own["specificity"]).abs(), confidence)
        favoured = "neither" if sensitivity == specificity else class_names[int(sensitivity > specificity)]
        rows[experiments.variant(name).shown_as] = {
            "sensitivity": round(sensitivity, 3),
            "specificity": round(specificity, 3),
            "difference": round(sensitivity - specificity, 3),
            "favours": favoured,
            "|sensitivity - specificity|": f"{gap:.3f} [{low:.3f}, {high:.3f}]",
        }
    return pd.DataFrame.from_dict(rows, orient="index")
