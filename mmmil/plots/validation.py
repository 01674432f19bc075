"""Figures of an external validation: whether probabilities come true, and how well they part the classes."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from mmmil.plots.audits import probabilities_panel, reliability_panel
from mmmil.plots.style import CLASSES, finish


def calibration(
    label: np.ndarray, prob: np.ndarray, class_names: Sequence[str], line: tuple[float, float] | None = None
) -> plt.Figure:
    """Observed against predicted probability of class 1, by groups of patients, over the probabilities themselves.

    label, prob (n,); line: intercept and slope of the logistic recalibration. Bars are Wilson's 95 % intervals.
    """
    figure, (axes, below) = plt.subplots(2, 1, figsize=(4.6, 5.0), sharex=True, height_ratios=[4, 1])
    if line is not None:
        x = np.linspace(0.01, 0.99, 99)
        logit = line[0] + line[1] * np.log(x / (1 - x))
        axes.plot(x, 1 / (1 + np.exp(-logit)), color=CLASSES[1], lw=1.8, label="logistic recalibration")
    reliability_panel(axes, label, prob)
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel=f"observed share of {class_names[1]}")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    probabilities_panel(below, label, prob, class_names)
    below.set(xlabel=f"predicted probability of {class_names[1]}")
    return finish(figure, scores=True)
