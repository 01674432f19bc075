"""Figures: all models of all tasks at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd

from mmmil import variants
from mmmil.evaluation.summary import cell
from mmmil.plots.style import CLASSES, NEUTRAL, finish


def all_variants(
    metrics: Mapping[str, pd.DataFrame], metric: str = "roc_auc", emphasised: Sequence[str] = ()
) -> plt.Figure:
    """Mean and interval of every variant over the validation folds, one panel per task.

    metrics: a task's title -> its metrics.csv. A model that failed or was not trained has an empty line;
    those emphasised have the other colour.
    """
    named = {r.variant for t in metrics.values() for r in t.itertuples() if (r.split, r.metric) == ("val", metric)}
    papers = [name for name in variants.VARIANTS if name in named]
    of_encoders = sorted(named - variants.VARIANTS.keys())
    names = [name for name in [*papers, *of_encoders] if name not in variants.BASELINES]
    names += [name for name in papers if name in variants.BASELINES]
    size = 2.7 + 1.7 * len(metrics), 0.27 * len(names) + 1.2
    figure, grid = plt.subplots(1, len(metrics), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, (task, table) in zip(grid[0], metrics.items(), strict=True):
        for y, name in enumerate(names):
            mean = cell(table, name, metric)
            colour = NEUTRAL if name in variants.BASELINES else CLASSES[int(name in emphasised)]
            axes.plot([mean.low, mean.high], [y, y], color=colour, lw=1.8)
            axes.plot(mean.value, y, "o", color=colour, ms=5)
        axes.axvline(0.5, color="black", lw=0.8, ls=":")
        axes.set(title=task, xlabel="ROC-AUC", ylim=(len(names) - 0.4, -0.6))
        axes.set_yticks(range(len(names)), [variants.variant(n).shown_as for n in names], fontsize=8)
        axes.title.set_fontsize(10)
    return finish(figure, scores=True)
