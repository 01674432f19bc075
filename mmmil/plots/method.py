"""Figures: one patient on the way through the model. Tiles are teal and gene sets ochre in all of them.

What is drawn may be arrays or tensors without a gradient, as the model gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, log
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from mmmil.plots.style import CLASSES, NEUTRAL, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

IMAGE, GENES, BOTH = "#2f7d7e", "#b0731b", "#5b5b5b"
COLOURS = {"image": IMAGE, "genes": GENES}
NAMED = 24  # tokens of an axis that have a name each; of more only some are numbered
CLASS_TOKEN = "class"


def tile_grid(tiles: np.ndarray, across: int = 0) -> plt.Figure:
    """A patient's tiles in the order of the bag, numbered from 1; tiles (N, px, px, 3) uint8."""
    tiles = np.asarray(tiles)
    across = across or min(ceil(len(tiles) ** 0.5 * 1.4), 10)
    down = ceil(len(tiles) / across)
    figure, grid = plt.subplots(down, across, figsize=(6.4, 6.4 * down / across + 0.1), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for number, (axes, tile) in enumerate(zip(grid.flat, tiles, strict=False), start=1):
        axes.imshow(tile)
        label: dict[str, Any] = {"facecolor": IMAGE, "edgecolor": "none", "pad": 1.5}
        axes.text(0.04, 0.94, number, transform=axes.transAxes, va="top", color="white", fontsize=9, bbox=label)
    figure.subplots_adjust(left=0, right=1, top=1, bottom=0.02, wspace=0.03, hspace=0.03)
    return finish(figure, tight=False)


def tokens(image: np.ndarray, genes: np.ndarray) -> plt.Figure:
    """Image tokens (N, C) above and gene tokens (M, D) below, a row for each token and a column for each value."""
    image, genes = np.asarray(image), np.asarray(genes)
    heights = [min(max(len(rows), 6), 24) for rows in (image, genes)]
    figure, grid = plt.subplots(2, 1, figsize=(7, 1.6 + 0.14 * sum(heights)), height_ratios=heights)
    for axes, values, name, colour in zip(grid, (image, genes), ("tile", "gene set"), (IMAGE, GENES), strict=True):
        shown = axes.imshow(values, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
        axes.set_ylabel(name, color=colour, fontweight="bold")
        _numbered(axes, "y", [str(i + 1) for i in range(len(values))])
        axes.set_xlabel(f"{values.shape[1]} values of the token", fontsize=9)
        axes.tick_params(labelsize=8)
        _bar(figure, shown, axes, "training deviations")
    return finish(figure)


def self_attention(matrices: Mapping[str, np.ndarray], names: Sequence[str], over: str = "image") -> plt.Figure:
    """Self-attention after the softmax, one panel for each layer: who asks (rows) and who is asked (columns).

    matrices: title -> (H, 1 + N, 1 + N), the class token first; names (N,) of the tokens; over: image or genes. Drawn
    is the mean of the heads, times the number of tokens, so that 1 is even attention; each panel has its own scale.
    """
    figure, grid = plt.subplots(1, len(matrices), figsize=(4.1 * len(matrices) + 1.2, 3.9), sharey=True, squeeze=False)
    for axes, (title, matrix) in zip(grid[0], matrices.items(), strict=True):
        heads = np.asarray(matrix)
        shown = axes.imshow(heads.mean(0) * heads.shape[-1], cmap="viridis", interpolation="nearest")
        places = [i % len(names) + 1 for i in range(heads.shape[-1] - 1)]  # where an encoder repeats tokens, they go on
        _numbered(axes, "x", [CLASS_TOKEN, *map(str, places)])
        _numbered(axes, "y", [CLASS_TOKEN, *(f"{_short_name(names[i - 1], 30)}  {i}" for i in places)])
        axes.set_title(title, fontsize=11, color=COLOURS[over], fontweight="bold")
        axes.set_xlabel("token that is asked", fontsize=9)
        _bar(figure, shown, axes, "attention × number of tokens")
    grid[0, 0].set_ylabel("token that asks", fontsize=9)
    return finish(figure)


def cross_attention(sets: np.ndarray, tiles: np.ndarray, names: Sequence[str], shown: int = 20) -> plt.Figure:
    """Cross-attention by head: the tiles' summary over gene sets (left), the sets' summary over tiles (right).

    sets (H, M) and tiles (H, N) after the softmax; names (M,) of the sets, of which the `shown` most attended ones are
    drawn, the most attended at the top. Times the number of tokens: 1 is even.
    """
    sets, tiles = np.asarray(sets), np.asarray(tiles)
    order = np.argsort(-sets.mean(0), kind="stable")[:shown]
    labels = [f"{_short_name(names[i], 40)}  {i + 1}" for i in order]
    rows = (sets * sets.shape[1]).T[order], (tiles * tiles.shape[1]).T
    high = max(2.4, 0.24 * max(len(order), min(tiles.shape[1], NAMED)) + 1.1)
    figure, grid = plt.subplots(1, 2, figsize=(8.4, high))
    said = ("tiles ask gene sets", "gene sets ask tiles")
    numbered = [f"tile {i + 1}" for i in range(tiles.shape[1])]
    for axes, values, title, colour, ticks in zip(grid, rows, said, (IMAGE, GENES), (labels, numbered), strict=True):
        picture = axes.imshow(values, cmap="viridis", aspect="auto", interpolation="nearest")
        _numbered(axes, "y", ticks)
        axes.set_xticks(range(values.shape[1]), [str(i + 1) for i in range(values.shape[1])], fontsize=8)
        axes.set_xlabel("head", fontsize=9)
        axes.set_title(title, fontsize=11, color=colour, fontweight="bold")
        _bar(figure, picture, axes, "attention × number of tokens")
    return finish(figure)


def vectors(values: Mapping[str, np.ndarray], added: pd.Series) -> plt.Figure:
    """The vectors as strips (above), and what each part adds to the logit of class 1 (below).

    values: name -> (1, W); added: part -> logits, as `interpretation.one_patient.contributions`.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 4.4 + 0.1 * len(added)), height_ratios=[1, 1.3])
    strips = np.concatenate([np.asarray(vector) for vector in values.values()])
    scale = np.abs(strips).max()
    shown = above.imshow(strips, cmap="RdBu_r", vmin=-scale, vmax=scale, aspect="auto", interpolation="nearest")
    above.set_yticks(range(len(values)), list(values), fontsize=9)
    above.set_xlabel(f"{strips.shape[1]} values of the vector", fontsize=9)
    above.tick_params(axis="x", labelsize=8)
    _bar(figure, shown, above, "value")
    rows = np.arange(len(added))[::-1]
    below.barh(rows, added, color=[CLASSES[int(value > 0)] for value in added], height=0.6)
    below.axvline(0, color="black", lw=0.8)
    below.set_yticks(rows, list(added.index), fontsize=9)
    below.set_xlabel(f"added to the logit; the sum is {added.sum():+.2f}", fontsize=9)
    below.tick_params(axis="x", labelsize=8)
    return finish(figure)


def loss_of_steps(history: Sequence[float]) -> plt.Figure:
    """Cross-entropy over the steps of a training, with the loss of a coin."""
    figure, axes = plt.subplots(figsize=(6, 2.9))
    axes.axhline(log(2), color=NEUTRAL, lw=1, ls=":")
    axes.text(len(history), log(2), "a coin", ha="right", va="bottom", fontsize=9, color=NEUTRAL)
    axes.plot(np.arange(1, len(history) + 1), history, "o-", color=CLASSES[0], ms=4, lw=1.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="step", ylabel="cross-entropy", ylim=(0, 1.15 * max(*history, log(2))))
    return finish(figure)


def _short_name(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _numbered(axes: Axes, axis: str, names: Sequence[str]) -> None:
    """Ticks of an axis of tokens: all by their names, or where there are many, about ten of them."""
    places = range(len(names)) if len(names) <= NAMED else range(0, len(names), ceil(len(names) / 10))
    getattr(axes, f"set_{axis}ticks")(list(places), [names[i] for i in places], fontsize=8)


def _bar(figure: plt.Figure, shown: AxesImage, axes: Axes, label: str) -> None:
    bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)


# -- the whole road ----------------------------------------------------------------------------------------------------
def road(
    tiles: Sequence[int], image_token: int, gene_tokens: Sequence[int], width: int, class_names: Sequence[str]
) -> plt.Figure:
    """Fig. 1, with a patient's own shapes: tiles at the left, gene sets at the right, from above to below.

    tiles: shape of what comes in, (N, px, px, 3), or (N, D) where features stand in the place of pixels; image_token:
    length of a tile's token; gene_tokens: (M, D), sets and the length of theirs; width: W, of all vectors behind the
    encoders.
    """
    sets, gene_token = gene_tokens
    figure, axes = plt.subplots(figsize=(7, 7.4))
    axes.set(xlim=(0, 10), ylim=(10.6, 0))
    axes.axis("off")
    n, pixels = tiles[0], len(tiles) == 4
    left, right = 2.1, 7.9
    seen = f"{n} tiles of {tiles[1]} px" if pixels else f"features of {n} tiles"
    _box(axes, left, 0.5, f"$x$   {seen}", IMAGE)
    _box(axes, right, 0.5, f"$e$   levels of {sets} gene sets", GENES)
    _step(axes, left, 1.55, "backbone $f$" if pixels else "made beforehand", IMAGE)
    _step(axes, right, 1.55, "autoencoder $g$", GENES)
    _box(axes, left, 2.6, f"$T$   image tokens, {n} × {image_token}", IMAGE)
    _box(axes, right, 2.6, f"$U$   gene tokens, {sets} × {gene_token}", GENES)
    _step(axes, left, 3.65, "self-attention", IMAGE)
    _step(axes, right, 3.65, "self-attention", GENES)
    _box(axes, left, 4.7, f"$Z_t$   {n} × {width}", IMAGE)
    _box(axes, right, 4.7, f"$Z_u$   {sets} × {width}", GENES)
    places = {"v_t": 1.2, "v_{tu}": 3.75, "v_{ut}": 6.25, "v_u": 8.8}
    for name, x in places.items():
        _box(axes, x, 7.35, f"${name}$   {width}", IMAGE if x < 5 else GENES, wide=1.9)
    _step(axes, 5.0, 6.05, "cross-attention", BOTH, down=False)
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 11, "lw": 1.2}
    for (x0, y0), (x1, y1), colour in (
        ((1.2, 5.05), (1.2, 7.0), IMAGE),
        ((8.8, 5.05), (8.8, 7.0), GENES),
        ((3.4, 5.05), (4.5, 5.72), IMAGE),
        ((6.6, 5.05), (5.5, 5.72), GENES),
        ((4.6, 6.38), (4.0, 7.0), BOTH),
        ((5.4, 6.38), (6.0, 7.0), BOTH),
    ):
        axes.add_patch(FancyArrowPatch((x0, y0), (x1, y1), color=colour, **arrow))
    for (x0, x1), (x, way) in {(2.1, 3.75): (2.55, "asks"), (7.9, 6.25): (7.45, "asks")}.items():
        asks = arrow | {"ls": (0, (3, 2)), "lw": 1.0}
        axes.add_patch(FancyArrowPatch((x0, 6.98), (x1, 6.2), color=BOTH, **asks))
        axes.text(x, 6.45, way, ha="center", fontsize=9, color=BOTH, style="italic")
    for x in places.values():
        axes.add_patch(FancyArrowPatch((x, 7.7), (5 + (x - 5) * 0.45, 8.55), color=NEUTRAL, **arrow))
    _box(axes, 5.0, 8.9, f"four vectors side by side, {4 * width}  →  classifier", BOTH, wide=6.4)
    axes.add_patch(FancyArrowPatch((5, 9.25), (5, 9.85), color=NEUTRAL, **arrow))
    _box(axes, 5.0, 10.2, f"probability of {class_names[1]}", CLASSES[1], wide=6.4)
    figure.subplots_adjust(left=0, right=1, top=1, bottom=0.02)
    return finish(figure, tight=False)


def _box(axes: Axes, x: float, y: float, text: str, colour: str, wide: float = 4.0) -> None:
    look: dict[str, Any] = {
        "boxstyle": "round,pad=0,rounding_size=0.15",
        "facecolor": colour,
        "edgecolor": colour,
        "alpha": 0.13,
    }
    axes.add_patch(FancyBboxPatch((x - wide / 2, y - 0.35), wide, 0.7, **look))
    axes.text(x, y, text, ha="center", va="center", fontsize=10.5, color="black")


def _step(axes: Axes, x: float, y: float, text: str, colour: str, down: bool = True) -> None:
    """What is done between two boxes: its name on the arrow from one to the other."""
    if down:
        arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 11, "lw": 1.2, "color": colour}
        axes.add_patch(FancyArrowPatch((x, y - 0.7), (x, y + 0.7), zorder=1, **arrow))
    label: dict[str, Any] = {"facecolor": "white", "edgecolor": colour, "boxstyle": "round,pad=0.35", "lw": 1.0}
    axes.text(x, y, text, ha="center", va="center", fontsize=10, color=colour, bbox=label, zorder=2)
