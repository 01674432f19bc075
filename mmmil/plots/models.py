"""Figures: predictions and their metrics."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from mmmil import variants
from mmmil.evaluation.summary import cell
from mmmil.plots.style import CLASSES, NEUTRAL, finish


def intervals(summary: pd.DataFrame, names: list[str], metrics: tuple[str, ...] = ("pr_auc", "roc_auc")) -> plt.Figure:
    """Mean and interval of each variant over the validation folds, one panel per metric; baselines in grey."""
    figure, grid = plt.subplots(
        1, len(metrics), figsize=(4.9 * len(metrics), 0.42 * len(names) + 1.2), sharey=True, squeeze=False
    )
    for axes, metric in zip(grid[0], metrics, strict=True):
        folds = 0
        for y, name in enumerate(reversed(names)):
            mean = cell(summary, name, metric)  # nothing is drawn of a model that failed
            folds = max(folds, mean.n_folds)
            colour = NEUTRAL if name in variants.BASELINES else CLASSES[0]
            axes.plot([mean.low, mean.high], [y, y], color=colour, lw=2)
            axes.plot(mean.value, y, "o", color=colour, ms=7)
        axes.axvline(0.5 if metric == "roc_auc" else np.nan, color="black", lw=0.8, ls=":")
        axes.set(
            xlabel={"pr_auc": "PR-AUC", "roc_auc": "ROC-AUC"}.get(metric, metric) + f", mean of {folds} folds",
            ylim=(-0.6, len(names) - 0.4),
        )
        axes.set_yticks(range(len(names)), [variants.variant(n).shown_as for n in reversed(names)], fontsize=9)
    return finish(figure, scores=True)


def curves(predictions: pd.DataFrame, names: list[str]) -> plt.Figure:
    """Fig. 7: PR and ROC curves, mean over validation folds with a band of one standard deviation."""
    from sklearn import metrics as skm  # seconds to import

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    grid, averaged = np.linspace(0, 1, 101), 0
    trained = [name for name in names if name in set(predictions.loc[predictions["split"] == "val", "variant"])]
    for name, colour in zip(trained, sns.color_palette("colorblind", len(trained)), strict=True):
        validation = predictions[(predictions["variant"] == name) & (predictions["split"] == "val")]
        pr, roc = [], []
        for _, fold in validation.groupby(["seed", "fold"]):
            precision, recall, _ = skm.precision_recall_curve(fold["label"], fold["prob"])
            pr.append(np.interp(grid, recall[::-1], precision[::-1]))
            fpr, tpr, _ = skm.roc_curve(fold["label"], fold["prob"])
            roc.append(np.interp(grid, fpr, tpr))
        averaged = max(averaged, len(roc))
        for axes, lines in ((left, pr), (right, roc)):
            mean, sd = np.mean(lines, 0), np.std(lines, 0)
            axes.plot(grid, mean, color=colour, lw=1.8, label=variants.variant(name).shown_as)
            axes.fill_between(grid, np.clip(mean - sd, 0, 1), np.clip(mean + sd, 0, 1), color=colour, alpha=0.12, lw=0)
    left.set(xlabel="recall", ylabel="precision", ylim=(-0.02, 1.04))
    right.plot([0, 1], [0, 1], color="#c9c9c9", lw=1, zorder=0)
    right.set(xlabel="1 - specificity", ylabel="sensitivity", ylim=(-0.02, 1.04))
    averages = f"mean ± SD of {averaged} curves"
    right.legend(frameon=False, fontsize=8, loc="lower right", title=averages, title_fontsize=8)
    return finish(figure, scores=True)


def confusion(
    predictions: pd.DataFrame, names: list[str], class_names: list[str], threshold: float = 0.5
) -> plt.Figure:
    """Fig. 8: a confusion matrix per model over all validation folds, each development patient once in every repeat and
    seed; rows are true.
    """
    from sklearn import metrics as skm  # seconds to import

    val = predictions[predictions["split"] == "val"]
    trained = [name for name in names if name in set(val["variant"])]  # nothing is drawn of a model that failed
    figure, grid = plt.subplots(1, max(len(trained), 1), figsize=(4.8 * max(len(trained), 1), 3.5), squeeze=False)
    for axes, name in zip(grid[0], trained, strict=False):
        patients = val[val["variant"] == name]
        counts = skm.confusion_matrix(patients["label"], patients["prob"] >= threshold, labels=[0, 1])
        sns.heatmap(
            counts / counts.sum(1, keepdims=True),
            annot=counts,
            fmt="d",
            cmap="Blues",
            vmin=0,
            vmax=1,
            ax=axes,
            xticklabels=class_names,
            yticklabels=class_names,
            cbar_kws={"label": "share of the true class"},
        )
        axes.set(xlabel="called", ylabel="true", title=f"{variants.variant(name).shown_as}\nn = {counts.sum()}")
    return finish(figure, scores=True)
