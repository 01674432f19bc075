"""What all figures share: colours, type, and how a figure is finished."""

from __future__ import annotations

import matplotlib.pyplot as plt
import seaborn as sns

CLASSES = ["#3b6fb6", "#c8553d"]  # class 0, class 1: told apart in grey and by colour-blind readers
NEUTRAL = "#7a7a7a"
MARK, MARK_COLOUR = "synthetic cohort, no patients", "#b3261e"

sns.set_theme(
    context="notebook",
    style="ticks",
    rc={"figure.dpi": 110, "axes.spines.right": False, "axes.spines.top": False},
)


_synthetic = False


def of_cohort(synthetic: bool) -> None:
    """Say once whose figures follow: those of a synthetic cohort carry the word, wherever they are copied to."""
    global _synthetic
    _synthetic = synthetic


def finish(figure: plt.Figure, tight: bool = True) -> plt.Figure:
    """The figure, marked where its cohort is synthetic, with its margins set anew (tight); a notebook shows it once."""
    if tight:
        figure.tight_layout()
    if _synthetic:
        figure.text(1, 0, MARK, ha="right", va="top", fontsize=8, color=MARK_COLOUR, fontweight="bold", zorder=99)
    plt.close(figure)  # else a batch run shows it twice
    return figure
