"""Figures of one new patient's page: what the models say, where they look, and how far the patient lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from mmmil.plots.attention import draw_tiles
from mmmil.plots.genes import PALE
from mmmil.plots.style import CLASSES, NEUTRAL, finish
from mmmil.slides.places import Place

FAR_COLOUR = "#b3261e"


def spread(prob: Mapping[str, float], class_names: Sequence[str], threshold: float = 0.5) -> plt.Figure:
    """The probability of class 1 by every model: the first (the final one) large, those of the folds small."""
    final, *folds = prob.values()
    figure, axes = plt.subplots(figsize=(6.4, 1.05))
    axes.axvspan(0, threshold, color=CLASSES[0], alpha=0.10, lw=0)
    axes.axvspan(threshold, 1, color=CLASSES[1], alpha=0.10, lw=0)
    if folds:
        axes.plot([min(folds), max(folds)], [0, 0], color=NEUTRAL, lw=1.2, zorder=1)
        axes.scatter(folds, np.zeros(len(folds)), s=34, facecolor="white", edgecolor="black", lw=1, zorder=2)
    axes.scatter([final], [0], s=150, marker="D", color=CLASSES[int(final >= threshold)], edgecolor="white", zorder=3)
    axes.axvline(threshold, color="black", lw=0.8, ls=":")
    axes.set(xlim=(-0.02, 1.02), ylim=(-1, 1), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"probability of {class_names[1]} (left of the line: {class_names[0]})", fontsize=9)
    axes.tick_params(labelsize=9)
    return finish(figure)


def distances(percentiles: Mapping[str, float], limit: float) -> plt.Figure:
    """Percentile of the training patients' distances at which the patient lies, a bar per modality; red above limit."""
    figure = plt.figure(figsize=(6.4, 0.5 + 0.27 * len(percentiles)))
    axes = figure.add_axes((0.16, 0.46 / figure.get_figheight(), 0.74, 1 - 0.5 / figure.get_figheight()))
    for y, (name, value) in enumerate(reversed(list(percentiles.items()))):
        axes.barh(y, 100, color="#eeeeee", height=0.55)
        axes.barh(y, value, color=FAR_COLOUR if value > limit else NEUTRAL, height=0.55)
        axes.text(101.5, y, f"{value:.0f} %", va="center", fontsize=9)
        axes.text(-1.5, y, name, va="center", ha="right", fontsize=9)
    axes.axvline(limit, color="black", lw=0.8, ls=":")
    axes.set(xlim=(0, 100), yticks=[], ylim=(-0.5, len(percentiles) - 0.5))
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("share of the training patients that lie nearer to their mean, %", fontsize=8)
    return finish(figure, tight=False)


def sets_of_patient(
    names: Sequence[str], attention: np.ndarray, deviation: np.ndarray, n: int = 8, length: int = 46
) -> plt.Figure:
    """The most attended gene sets: attention as a multiple of even attention, and the level of the set's genes.

    names (S,); attention (S,) shares that sum to 1; deviation (S,) of the mean gene from the training mean, in
    training deviations; NaN where none of the genes was measured.
    """
    order = np.argsort(-attention, kind="stable")[:n][::-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 0.21 * len(order) + 0.65), sharey=True)
    shown = [names[i] if len(names[i]) <= length else names[i][: length - 1] + "…" for i in order]
    rows = np.arange(len(order))
    left.barh(rows, attention[order] * len(names), color=PALE, height=0.65)
    left.axvline(1, color="black", lw=0.8, ls=":")
    left.set_yticks(rows, shown, fontsize=8)
    left.set_xlabel("attention × number of sets", fontsize=8)
    reach = max(0.5, 1.15 * float(np.nanmax(np.abs(deviation[order]), initial=0.0)))
    for y, value in zip(rows, deviation[order], strict=True):
        if np.isfinite(value):
            right.plot([0, value], [y, y], color=NEUTRAL, lw=1.2, zorder=1)
            right.scatter([value], [y], s=42, marker="^" if value > 0 else "v", color="black", zorder=2)
    right.axvline(0, color="black", lw=0.8)
    right.set(xlim=(-reach, reach), ylim=(-0.6, len(order) - 0.4))
    right.set_xlabel("level, training deviations (▲ higher, ▼ lower)", fontsize=8)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
    right.tick_params(left=False)
    return finish(figure)


def tiles_of_patient(tiles: np.ndarray, weights: np.ndarray, where: Place | None = None, n: int = 6) -> plt.Figure:
    """The slide with its tiles by attention, and the `n` most attended ones.

    tiles (N, px, px, 3) uint8; weights (N,) in their order; where: None where nobody knows where they lie.
    """
    relative = weights * len(weights)
    order = np.argsort(-weights, kind="stable")[:n]
    across = -(-len(order) // 2)
    aspect = where.width / where.height if where else 1.0
    figure = plt.figure(figsize=(7.6, 2.1))
    grid = figure.add_gridspec(2, across + 1, width_ratios=[min(max(2 * aspect, 1.2), 3.2), *[1] * across])
    if where is not None:
        draw_tiles(figure.add_subplot(grid[:, 0]), where, relative, plt.Normalize(relative.min(), relative.max()))
    for k, i in enumerate(order):
        axes = figure.add_subplot(grid[k // across, 1 + k % across])
        axes.imshow(tiles[i])
        axes.set_title(f"× {relative[i]:.2f}", fontsize=8, pad=2)
        axes.axis("off")
    figure.subplots_adjust(left=0.01, right=0.99, top=0.93, bottom=0.01, wspace=0.06, hspace=0.16)
    return finish(figure, tight=False)
