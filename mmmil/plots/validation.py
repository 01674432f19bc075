"""Figures of an external validation: whether probabilities come true, and how well they part the classes."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from mmmil.evaluation import intervals
from mmmil.plots.style import CLASSES, NEUTRAL, finish

GROUPS = 5  # of patients by their probability; no more than a tenth of them, at least 2


def calibration(
    label: np.ndarray, prob: np.ndarray, class_names: Sequence[str], line: tuple[float, float] | None = None
) -> plt.Figure:
    """Observed against predicted probability of class 1, by groups of patients, over the probabilities themselves.

    label, prob (n,); line: intercept and slope of the logistic recalibration. Bars are Wilson's 95 % intervals.
    """
    figure, (axes, below) = plt.subplots(2, 1, figsize=(4.6, 5.0), sharex=True, height_ratios=[4, 1])
    groups = np.array_split(np.argsort(prob, kind="stable"), max(2, min(GROUPS, len(prob) // 10)))
    axes.plot([0, 1], [0, 1], color=NEUTRAL, lw=1, ls=":", label="as predicted")
    if line is not None:
        x = np.linspace(0.01, 0.99, 99)
        logit = line[0] + line[1] * np.log(x / (1 - x))
        axes.plot(x, 1 / (1 + np.exp(-logit)), color=CLASSES[1], lw=1.8, label="logistic recalibration")
    for k, group in enumerate(groups):
        low, high = intervals.share(label[group].mean(), [len(group)])
        axes.plot([prob[group].mean()] * 2, [low, high], color="black", lw=1.2)
        said = "patients, by their probability" if k == 0 else None
        axes.plot(prob[group].mean(), label[group].mean(), "o", color="black", ms=6, label=said)
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel=f"observed share of {class_names[1]}")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    for value, side in ((0, -1), (1, 1)):
        points = prob[label == value]
        below.vlines(points, 0, side * np.ones(len(points)), color=CLASSES[value], lw=1.4)
    below.axhline(0, color="black", lw=0.6)
    below.set(yticks=[-0.6, 0.6], ylim=(-1.1, 1.1), xlabel=f"predicted probability of {class_names[1]}")
    below.set_yticklabels(list(class_names), fontsize=8)
    return finish(figure)
