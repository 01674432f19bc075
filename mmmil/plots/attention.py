"""Figures: what the models attend to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.ticker import MaxNLocator

from mmmil.plots.slides import scale_bar, thumbnail
from mmmil.plots.style import CLASSES, NEUTRAL, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mmmil.slides import places

SPECK = 4.0  # points; a tile that is drawn smaller gets a dot of this size


def attended_sets(table: pd.DataFrame, class_names: list[str], n: int = 15) -> plt.Figure:
    """Gene sets whose attention differs most between the classes: rank-biserial effect, filled where significant."""
    top = table.head(n).iloc[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.3 * len(top) + 1.3))
    colours = np.where(top["effect"] > 0, CLASSES[1], CLASSES[0])
    axes.hlines(np.arange(len(top)), 0, top["effect"], color=colours, lw=1.5)
    axes.scatter(
        top["effect"],
        np.arange(len(top)),
        s=45,
        edgecolor=colours,
        zorder=3,
        facecolor=np.where(top["significant"], colours, "white"),
    )
    axes.set_yticks(np.arange(len(top)), [s if len(s) < 62 else s[:59] + "…" for s in top.index], fontsize=8)
    axes.axvline(0, color="black", lw=0.8)
    axes.set(
        xlim=(-1.05, 1.05),
        xlabel=f"rank-biserial effect ({class_names[0]} ← attended more → {class_names[1]})",
    )
    return finish(figure)


def shades(values: np.ndarray, signed: bool = False) -> tuple[Normalize, Colormap]:
    """Scale and colours of tiles (N,): from their least to their greatest value, or where they have a sign from blue to
    red around 0.
    """
    if not signed:
        return plt.Normalize(values.min(), values.max()), plt.cm.inferno
    largest = np.abs(values).max() or 1.0
    return plt.Normalize(-largest, largest), plt.cm.RdBu_r


def draw_tiles(
    axes: Axes,
    where: places.Place,
    weights: np.ndarray,
    shade: Callable[[np.ndarray], np.ndarray],
    longest: int = 900,
    colourmap: Colormap = plt.cm.inferno,
) -> None:
    """A slide's thumbnail with its tiles filled by their value; `shade` maps weights to [0, 1].

    The axes count level-0 px, and thumbnail and tiles are both laid out in them, so that no factor between the two can
    be wrong or rounded. Where a tile would be a speck, a dot around its centre lies under it.
    """
    image, _ = thumbnail(str(where.slide_path), longest)
    axes.imshow(image, extent=(0, where.width, where.height, 0), interpolation="nearest")
    colours = colourmap(shade(weights))
    x, y = where.coords.T
    corners = np.stack([(x, y), (x + where.size, y), (x + where.size, y + where.size), (x, y + where.size)])
    axes.add_collection(
        PolyCollection(list(corners.transpose(2, 0, 1)), facecolors=colours, alpha=0.85, lw=0, zorder=3)
    )
    box = axes.get_window_extent()
    points = 72 / axes.figure.dpi * min(box.width / where.width, box.height / where.height) * where.size
    if points < SPECK:
        x, y = (where.coords + where.size / 2).T
        axes.scatter(x, y, s=SPECK**2, c=colours, alpha=0.85, lw=0, zorder=2)
    axes.set(xlim=(0, where.width), ylim=(where.height, 0))
    axes.axis("off")


def attention_on_slide(
    where: places.Place,
    maps: Mapping[str, np.ndarray],
    title: str,
    top: int = 8,
    signed: Mapping[str, str] | None = None,
) -> plt.Figure:
    """Figs 9-11: the tiles of one slide by what a model attends to, one column per source, with its most and least
    attended tiles.

    maps: source -> (N,) weights in the order of `where.coords`. Colours are weights times N, so that 1 is even
    attention; each column has its own colour bar. signed: sources whose values have a sign and are no attention, and
    what their colour bar says; they are drawn as they are, around 0.
    """
    signed = signed or {}
    n = len(where.coords)
    n_shown = min(top, max(n // 2, 1))
    across = min(4, n_shown)
    width, gap = 3.5, 0.2  # inches, as all lengths here
    height, cell = width * where.height / where.width, width / across
    of_tiles = -(-n_shown // across) * cell
    rows = [0.75, height + 0.12, 0.12 + 0.75, of_tiles + 0.35, of_tiles + 0.08]  # titles, slide, bar, most, least
    figure = plt.figure(figsize=((width + gap) * len(maps) + gap, sum(rows)))

    def axes_at(left: float, below: float, wide: float, high: float) -> Axes:
        """Axes whose upper edge is `below` inches under the figure's."""
        w, h = figure.get_size_inches()
        return figure.add_axes((left / w, 1 - (below + high) / h, wide / w, high / h))

    figure.suptitle(title, fontsize=12, y=1 - 0.1 / sum(rows), va="top")
    tops = np.cumsum(rows)
    for column, (name, weights) in enumerate(maps.items()):
        left = gap + column * (width + gap)
        relative = weights if name in signed else weights * n
        shade, colourmap = shades(relative, name in signed)
        axes = axes_at(left, tops[0], width, height)
        draw_tiles(axes, where, relative, shade, colourmap=colourmap)
        if where.mpp:
            scale_bar(axes, where.mpp, 1.0, where.width, where.height)
        axes.set_title(name, fontsize=11)
        bar = axes_at(left + 0.3, tops[1], width - 0.6, 0.12)
        figure.colorbar(plt.cm.ScalarMappable(shade, colourmap), cax=bar, orientation="horizontal")
        bar.tick_params(labelsize=9, length=3, pad=2)
        bar.xaxis.set_major_locator(MaxNLocator(4))
        bar.set_xlabel(signed.get(name, "attention × number of tiles"), fontsize=9, labelpad=2)
        order = np.argsort(-weights, kind="stable")
        most, least = ("highest", "lowest") if name in signed else ("most attended", "least attended")
        ends = {most: (tops[2], order[:n_shown]), least: (tops[3], order[::-1][:n_shown])}
        for said, (below, which) in ends.items():
            for k, i in enumerate(which):
                small = axes_at(left + k % across * cell, below + k // across * cell, 0.96 * cell, 0.96 * cell)
                small.imshow(where.pixels[i])
                small.axis("off")
                if k == 0:
                    small.set_title(said, fontsize=9, loc="left", pad=3)
    return finish(figure, tight=False)


RANKINGS = {  # how a ranking is called in a legend, and its line
    "rollout_image": ("self-attention, rolled out", CLASSES[0], "-"),
    "rollout_genes": ("self-attention, rolled out", CLASSES[0], "-"),
    "layer1_image": ("self-attention, layer 1", CLASSES[0], "--"),
    "layer1_genes": ("self-attention, layer 1", CLASSES[0], "--"),
    "self_image": ("self-attention, layer 2", CLASSES[0], "-."),
    "self_genes": ("self-attention, layer 2", CLASSES[0], "-."),
    "cross_image": ("cross-attention", CLASSES[1], "-"),
    "cross_genes": ("cross-attention", CLASSES[1], "-"),
    "gradient": ("input × gradient", "black", "--"),
    "random": ("random order", NEUTRAL, ":"),
}


def removal_curves(curves: pd.DataFrame) -> plt.Figure:
    """Deletion and insertion curves, mean over patients: one row per kind of token, one line per ranking."""
    kinds, ways = curves["over"].unique(), ["deletion", "insertion"]
    figure, grid = plt.subplots(len(kinds), 2, figsize=(9.5, 3.3 * len(kinds)), squeeze=False, sharey="row")
    mean = curves.groupby(["over", "direction", "ranking", "fraction"], sort=False)["prob"].mean()
    called = {"tiles": "tiles", "sets": "gene sets"}
    for (over, way), axes in zip(((k, w) for k in kinds for w in ways), grid.flat, strict=True):
        for ranking, line in mean[over][way].groupby(level="ranking", sort=False):
            label, colour, style = RANKINGS.get(ranking, (ranking, NEUTRAL, "-."))
            axes.plot(line.index.get_level_values("fraction"), line, color=colour, ls=style, lw=1.8, label=label)
        done = {"deletion": "taken away, first in rank first", "insertion": "put in, first in rank first"}[way]
        axes.set(xlabel=f"share of {called[over]} {done}", title=f"{way}, {called[over]}")
        axes.title.set_fontsize(11)
        axes.xaxis.label.set_fontsize(10)
    patients = curves["patient_id"].nunique()
    for axes in grid[:, 0]:
        axes.set_ylabel(f"probability of the class called\n(mean of {patients} patients)", fontsize=10)
    for axes in grid[:, 1]:
        axes.legend(fontsize=9, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return finish(figure)
