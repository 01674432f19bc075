"""Figures: differences between models on the same patients."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D

from mmmil import variants
from mmmil.plots.style import finish

METHODS = {
    "paired_t": ("o", "paired t over folds (the paper's)"),
    "corrected_t": ("s", "corrected resampled t"),
    "delong": ("D", "DeLong"),
    "bootstrap": ("^", "paired bootstrap"),
    "mcnemar": ("v", "McNemar"),
}
METRICS = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}


def differences(table: pd.DataFrame, alpha: float = 0.05) -> plt.Figure:
    """Forest plot: difference with its interval per pair and test, one panel per metric, filled where p_holm < alpha.

    table: rows of `comparisons.compare` of one split; where there are none, since no two were trained, the figure
    says so. Raises ValueError for rows of several splits.
    """
    if table.empty:
        figure, axes = plt.subplots(figsize=(6, 0.8))
        axes.text(0.5, 0.5, "no two models of these tables were trained here", ha="center", va="center", fontsize=10)
        axes.axis("off")
        return finish(figure)
    splits = sorted(set(table["split"]))
    if len(splits) != 1:
        raise ValueError(f"a forest plot shows the rows of one split, not of {splits}; choose val or test")
    pairs = list(dict.fromkeys(zip(table["a"], table["b"], strict=True)))
    metrics, methods = table["metric"].unique(), [m for m in METHODS if m in set(table["method"])]
    colours = dict(zip(METHODS, sns.color_palette("colorblind"), strict=False))
    figure, grid = plt.subplots(
        1, len(metrics), figsize=(2.4 + 3.9 * len(metrics), 0.75 * len(pairs) + 1.6), sharey=True, squeeze=False
    )
    for axes, metric in zip(grid[0], metrics, strict=True):
        rows = table[table["metric"] == metric].drop_duplicates(["a", "b", "method"])
        for row in rows.itertuples():
            y = pairs.index((row.a, row.b)) + 0.17 * (methods.index(row.method) - (len(methods) - 1) / 2)
            colour = colours[row.method]
            axes.plot([row.ci_low, row.ci_high], [y, y], color=colour, lw=1.6)
            face = colour if row.p_holm < alpha else "white"
            axes.plot(row.difference, y, METHODS[row.method][0], color=colour, mfc=face, ms=5.5)
        axes.axvline(0, color="black", lw=0.8)
        axes.set(xlabel=f"difference in {METRICS.get(metric, metric)}, 95 % interval", ylim=(len(pairs) - 0.45, -0.55))
        axes.set_yticks(range(len(pairs)), [_named(*pair) for pair in pairs], fontsize=8)
    handles = [Line2D([], [], color=colours[m], marker=METHODS[m][0], label=METHODS[m][1]) for m in methods]
    handles.append(Line2D([], [], color="black", marker="o", mfc="white", ls="", label=f"Holm-adjusted p ≥ {alpha:g}"))
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    return finish(figure, scores=True)


def _named(a: str, b: str) -> str:
    return f"{variants.variant(a).shown_as}\nless {variants.variant(b).shown_as}"
