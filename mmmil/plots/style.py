"""What all figures share: colours, type, and how a figure is finished."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns

CLASSES = ["#3b6fb6", "#c8553d"]  # class 0, class 1: told apart in grey and by colour-blind readers
NEUTRAL = "#7a7a7a"
MARK, MARK_COLOUR = "synthetic cohort, no patients", "#b3261e"
CONFOUNDED = "Confounded, the tables say how"

sns.set_theme(
    context="notebook",
    style="ticks",
    rc={"figure.dpi": 110, "axes.spines.right": False, "axes.spines.top": False},
)


_synthetic = False
_confounded: tuple[str, ...] = ()


def of_cohort(synthetic: bool, confounded: Sequence[str] = ()) -> None:
    """Say once whose figures follow: those of a synthetic cohort carry the word, wherever they are copied to, and those
    of scores what else tells the classes apart. confounded: names of `check.confounded`.
    """
    global _synthetic, _confounded
    _synthetic, _confounded = synthetic, tuple(dict.fromkeys(confounded))


def finish(figure: plt.Figure, tight: bool = True, scores: bool = False) -> plt.Figure:
    """The figure, marked where its cohort is synthetic, with its margins set anew (tight); a notebook shows it once.

    scores: whether it shows how well models tell the classes apart; then what else tells them apart stands beneath.
    """
    if tight:
        figure.tight_layout()
    marks: dict[str, Any] = {"fontsize": 8, "va": "top", "color": MARK_COLOUR, "fontweight": "bold", "zorder": 99}
    if _synthetic:
        figure.text(1, 0, MARK, ha="right", **marks)
    if scores and _confounded:
        line = textwrap.fill(f"{CONFOUNDED}: {'; '.join(_confounded)}", int(14 * figure.get_figwidth()))
        figure.text(0, 0, f"\n{line}", ha="left", **marks)  # a line below the other mark, which may be as wide
    plt.close(figure)  # else a batch run shows it twice
    return figure
