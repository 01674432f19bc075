"""Figures: what the models attend to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.ticker import MaxNLocator

from mmmil.plots.slides import scale_bar, thumbnail
from mmmil.plots.style import CLASSES, finish

if TYPE_CHECKING:
    from mmmil import heatmaps

SPECK = 4.0  # points; a tile that is drawn smaller gets a dot of this size


def attended_sets(table: pd.DataFrame, class_names: list[str], n: int = 15):
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


def draw_tiles(axes, where: heatmaps.Place, weights: np.ndarray, shade, longest: int = 900) -> None:
    """A slide's thumbnail with its tiles filled by attention; `shade` maps weights to [0, 1].

    The axes count level-0 px, and thumbnail and tiles are both laid out in them, so that no factor between the two can
    be wrong or rounded. Where a tile would be a speck, a dot around its centre lies under it.
    """
    image, _ = thumbnail(str(where.slide_path), longest)
    axes.imshow(image, extent=(0, where.width, where.height, 0), interpolation="nearest")
    colours = plt.cm.inferno(shade(weights))
    x, y = where.coords.T
    corners = np.stack([(x, y), (x + where.size, y), (x + where.size, y + where.size), (x, y + where.size)])
    axes.add_collection(PolyCollection(corners.transpose(2, 0, 1), facecolors=colours, alpha=0.85, lw=0, zorder=3))
    box = axes.get_window_extent()
    points = 72 / axes.figure.dpi * min(box.width / where.width, box.height / where.height) * where.size
    if points < SPECK:
        centre = where.coords + where.size / 2
        axes.scatter(*centre.T, s=SPECK**2, c=colours, alpha=0.85, lw=0, zorder=2)
    axes.set(xlim=(0, where.width), ylim=(where.height, 0))
    axes.axis("off")


def attention_on_slide(where: heatmaps.Place, maps: dict[str, np.ndarray], title: str, top: int = 8):
    """Figs 9-11: attention over the tiles of one slide, one column per source, with its most and least attended tiles.

    maps: source -> (N,) weights in the order of `where.coords`. Colours are weights times N, so that 1 is even
    attention; each column has its own colour bar.
    """
    n = len(where.coords)
    shown = min(top, max(n // 2, 1))
    across = min(4, shown)
    rows = -(-shown // across)
    width = 3.7
    height = width * where.height / where.width
    figure = plt.figure(figsize=(width * len(maps), 0.5 + height + 0.75 + 2 * (0.3 + rows * width / 4)))
    figure.suptitle(title, fontsize=12, y=1 - 0.1 / figure.get_figheight(), va="top")
    grid = figure.add_gridspec(
        4, len(maps), height_ratios=[height, 0.12, rows * width / 4, rows * width / 4],
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.62 / figure.get_figheight(), hspace=0.3, wspace=0.08,
    )  # fmt: skip
    for column, (name, weights) in enumerate(maps.items()):
        relative = weights * n
        shade = plt.Normalize(relative.min(), relative.max())
        axes = figure.add_subplot(grid[0, column])
        draw_tiles(axes, where, relative, shade)
        if where.mpp:
            scale_bar(axes, where.mpp, 1.0, where.width, where.height)
        axes.set_title(name, fontsize=11)
        bar = figure.add_subplot(grid[1, column].subgridspec(1, 3, width_ratios=[1, 8, 1])[1])
        figure.colorbar(plt.cm.ScalarMappable(shade, "inferno"), cax=bar, orientation="horizontal")
        bar.tick_params(labelsize=9)
        bar.xaxis.set_major_locator(MaxNLocator(4))
        bar.set_xlabel("attention × number of tiles", fontsize=9)
        order = np.argsort(-weights, kind="stable")
        ends = {"most attended": order[:shown], "least attended": order[::-1][:shown]}
        for row, (said, which) in enumerate(ends.items(), start=2):
            cells = grid[row, column].subgridspec(rows, across, wspace=0.06, hspace=0.06)
            for k, i in enumerate(which):
                small = figure.add_subplot(cells[k // across, k % across])
                small.imshow(where.pixels[i])
                small.axis("off")
                if k == 0:
                    small.set_title(said, fontsize=9, loc="left", pad=3)
    plt.close(figure)
    return figure
