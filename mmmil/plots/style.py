"""What all figures share: colours, type, and how a figure is finished."""

from __future__ import annotations

import matplotlib.pyplot as plt
import seaborn as sns

CLASSES = ["#3b6fb6", "#c8553d"]  # class 0, class 1: told apart in grey and by colour-blind readers
NEUTRAL = "#7a7a7a"

sns.set_theme(
    context="notebook",
    style="ticks",
    rc={"figure.dpi": 110, "axes.spines.right": False, "axes.spines.top": False},
)


def finish(figure: plt.Figure) -> plt.Figure:
    """The figure with its margins set; the notebook shows it once."""
    figure.tight_layout()
    plt.close(figure)  # else a batch run shows it twice
    return figure
