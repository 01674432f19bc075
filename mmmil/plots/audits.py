"""Figures of the audits: rows of estimates with intervals, reliability, decision curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from mmmil.evaluation import calibration
from mmmil.plots.style import CLASSES, NEUTRAL, finish


def rows_of_estimates(
    table: pd.DataFrame,
    value: str,
    heading: str,
    row: str,
    xlabel: str,
    reference: float = 0.5,
    grey: Sequence[str] = (),
) -> plt.Figure:
    """A forest plot: a row per estimate with its interval and its number of patients, under the headings they come in.

    table: columns low, high, patients, and those named by value (in [0, 1]), heading and row; a row without a value is
    named and not drawn. Rows called as one of `grey` are grey; reference: where the dotted line is.
    """
    lines: list[tuple[str, Any]] = []
    for head, rows in table.groupby(heading, sort=False):
        lines += [(str(head), None)]
        lines += [(f"{one[row]}, n = {one['patients']}", one) for _, one in rows.iterrows()]
    lines.reverse()
    figure, axes = plt.subplots(figsize=(7.6, 0.27 * len(lines) + 1.0))
    for y, (_, one) in enumerate(lines):
        if one is not None:
            colour = NEUTRAL if one[row] in grey else CLASSES[0]
            axes.plot([one["low"], one["high"]], [y, y], color=colour, lw=2)
            axes.plot(one[value], y, "o", color=colour, ms=6)
    axes.axvline(reference, color="black", lw=0.8, ls=":")
    least = np.floor(10 * min(table["low"].min(), reference)) / 10  # differences are small beside all of [0, 1]
    axes.set(xlabel=xlabel, xlim=(least - 0.02, 1.02), ylim=(-0.6, len(lines) - 0.4))
    axes.set_yticks(range(len(lines)), [said for said, _ in lines], fontsize=9)
    for label, (_, one) in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if one is None else "normal")
    axes.tick_params(axis="y", length=0)
    return finish(figure, scores=True)


def reliability(label: np.ndarray, probs: Mapping[str, np.ndarray], class_names: Sequence[str]) -> plt.Figure:
    """Observed against predicted probability of class 1, a panel per way of calibrating the same patients.

    label (n,); probs: way -> (n,). Points are groups of patients of like probability with Wilson's 95 % interval;
    below, each patient's probability by class.
    """
    figure, grid = plt.subplots(
        2, len(probs), figsize=(3.1 * len(probs), 4.2), sharex=True, sharey="row", height_ratios=[4, 1], squeeze=False
    )
    for (above, below), (way, prob) in zip(grid.T, probs.items(), strict=True):
        reliability_panel(above, label, prob)
        above.set(title=f"{way}, n = {len(prob)}", xlim=(0, 1), ylim=(-0.02, 1.02))
        probabilities_panel(below, label, prob, class_names)
    grid[0, 0].set(ylabel=f"observed share of {class_names[1]}")
    grid[0, 0].legend(frameon=False, fontsize=8, loc="upper left")
    for axes in grid[1]:
        axes.set(xlabel=f"predicted probability\nof {class_names[1]}")
    return finish(figure, scores=True)


def reliability_panel(axes: plt.Axes, label: np.ndarray, prob: np.ndarray) -> None:
    """The diagonal, and groups of patients with Wilson's 95 % intervals."""
    axes.plot([0, 1], [0, 1], color=NEUTRAL, lw=1, ls=":", label="as predicted")
    groups = calibration.reliability(label, prob)
    axes.vlines(groups["predicted"], groups["low"], groups["high"], color="black", lw=1.2)
    axes.plot(groups["predicted"], groups["observed"], "o", color="black", ms=6, label="patients, by probability")


def probabilities_panel(axes: plt.Axes, label: np.ndarray, prob: np.ndarray, class_names: Sequence[str]) -> None:
    """A stroke per patient at their probability: class 0 downwards, class 1 upwards."""
    for value, side in ((0, -1), (1, 1)):
        points = prob[label == value]
        axes.vlines(points, 0, side * np.ones(len(points)), color=CLASSES[value], lw=1.4)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(yticks=[-0.6, 0.6], ylim=(-1.1, 1.1))
    axes.set_yticklabels(list(class_names), fontsize=8)


def decision_curves(table: pd.DataFrame, shown_as: Mapping[str, str], class_name: str) -> plt.Figure:
    """Net benefit over thresholds: models beside treating all and none; the band is the first model's 95 % interval.

    table: `decision_curves.curves`; shown_as: variant -> name.
    """
    figure, axes = plt.subplots(figsize=(8.6, 3.8))
    colours = sns.color_palette("colorblind", len(shown_as))
    for i, ((name, said), colour) in enumerate(zip(shown_as.items(), colours, strict=True)):
        of = table[table["variant"] == name]
        axes.plot(of["threshold"], of["net_benefit"], color=colour, lw=2 if i == 0 else 1.4, label=said)
        if i == 0:
            axes.fill_between(of["threshold"], of["low"], of["high"], color=colour, alpha=0.15, lw=0)
    of_all = table.drop_duplicates("threshold")
    axes.plot(of_all["threshold"], of_all["treat_all"], color=NEUTRAL, lw=1.2, ls="--", label="treat all")
    axes.axhline(0, color="black", lw=1, label="treat none")
    top = of_all["treat_all"].max()
    axes.set(
        xlabel=f"threshold: probability of {class_name} from which a patient is treated",
        ylabel="net benefit (found cases per patient)",
        ylim=(-0.25 * top - 0.05, max(top, table["net_benefit"].max()) * 1.15),
        xlim=(0, 1),
    )
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(figure, scores=True)
