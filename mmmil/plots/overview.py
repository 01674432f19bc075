"""Figures: all models of all tasks at once."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd

from mmmil import variants
from mmmil.plots.style import CLASSES, NEUTRAL, finish


def all_variants(metrics: Mapping[str, pd.DataFrame], metric: str = "roc_auc") -> plt.Figure:
    """Mean and interval of every variant over the validation folds, one panel per task.

    metrics: a task's title -> its metrics.csv. A model that failed or was not trained has an empty line.
    """
    val = {task: t[(t["split"] == "val") & (t["metric"] == metric)] for task, t in metrics.items()}
    named = {name for table in val.values() for name in table["variant"]}
    names = [name for name in variants.VARIANTS if name in named]
    figure, grid = plt.subplots(
        1, len(val), figsize=(2.7 + 1.7 * len(val), 0.27 * len(names) + 1.2), sharex=True, sharey=True, squeeze=False
    )
    for axes, (task, table) in zip(grid[0], val.items(), strict=True):
        own = table.drop_duplicates("variant").set_index("variant").reindex(names)
        for y, (name, row) in enumerate(own.iterrows()):
            colour = NEUTRAL if name in variants.BASELINES else CLASSES[0]
            axes.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, lw=1.8)
            axes.plot(row["mean"], y, "o", color=colour, ms=5)
        axes.axvline(0.5, color="black", lw=0.8, ls=":")
        axes.set(title=task, xlabel="ROC-AUC", ylim=(len(names) - 0.4, -0.6))
        axes.set_yticks(range(len(names)), [variants.variant(n).shown_as for n in names], fontsize=8)
        axes.title.set_fontsize(10)
    return finish(figure)
