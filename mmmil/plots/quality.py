"""Figures: slides with what was found on them, and tiles before and after stain normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mmmil.plots.style import NEUTRAL, finish
from mmmil.slides import appearance
from mmmil.slides import files as slide_files

FLAGGED = "#b2182b"
WORDS = {
    "brightfield": "not brightfield", "tissue": "little tissue", "pen": "pen", "H&E": "other stain than H&E",
    "unscanned": "not scanned", "other pieces": "tissue left out", "blur": "blurred",
    "frozen section": "frozen section", "scale": "scale", "same scale": "other scale than most",
    "unreadable": "cannot be read",
}  # fmt: skip


def in_words(findings: pd.DataFrame) -> pd.Series:
    """slide_id -> what is flagged, in a few words, '' where nothing is; of `quality.table`, in its order."""
    flags: dict[str, list[str]] = {slide: [] for slide in findings["slide_id"]}
    for row in findings[findings["flagged"]].itertuples():
        value = f" {row.value:.1f} %" if row.unit == "%" and pd.notna(row.value) else ""
        flags[row.slide_id].append(WORDS[row.check] + value)
    return pd.Series({slide: ", ".join(words) for slide, words in flags.items()}, name="found", dtype=object)


def contact_sheet(
    slide_paths: Sequence[str], titles: Sequence[str], flagged: Sequence[str], shown: int = 12, columns: int = 4
) -> plt.Figure:
    """Thumbnails of at most `shown` slides, those with findings first, in red what was found (`in_words`)."""
    order = sorted(range(len(titles)), key=lambda i: not flagged[i])[:shown]
    columns = max(min(columns, len(order)), 1)
    rows = max(-(-len(order) // columns), 1)
    figure, grid = plt.subplots(rows, columns, figsize=(2.6 * columns, 3.3 * rows), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, i in zip(grid.flat, order, strict=False):
        try:
            axes.set_anchor("N")
            axes.imshow(appearance.thumbnail(slide_paths[i], longest=400))
        except slide_files.SlideError:
            axes.imshow(np.full((4, 4, 3), 225, np.uint8))
            axes.text(1.5, 1.5, "no image", ha="center", va="center", color=NEUTRAL, fontsize=10)
        caption = fill((flagged[i] or "nothing found").replace(" %", "\u00a0%"), 30)
        axes.text(0.5, 1.01, caption, transform=axes.transAxes, ha="center", va="bottom", fontsize=9,
                  color=FLAGGED if flagged[i] else NEUTRAL)  # fmt: skip
        name = titles[i] if len(titles[i]) <= 32 else titles[i][:31] + "…"
        axes.set_title(name, fontsize=9, pad=8 + 12 * (1 + caption.count("\n")))
    return finish(figure)


def stain_before_after(before: np.ndarray, after: np.ndarray, reference_mosaic: np.ndarray | None = None) -> plt.Figure:
    """At most eight tiles (N, px, px, 3) above, the same ones normalised below, beside them the reference's mosaic."""
    n = min(8, len(before))
    index = np.linspace(0, len(before) - 1, n).round().astype(int)
    side = [] if reference_mosaic is None else [2.1]
    figure = plt.figure(figsize=(1.0 * n + 1.05 * sum(side) + 0.5, 2.5))
    grid = figure.add_gridspec(2, n + len(side), width_ratios=[1.0] * n + side)
    for row, (tiles, title) in enumerate([(before, "before"), (after, "after")]):
        for column, i in enumerate(index):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(tiles[i])
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(title, fontsize=10)
            if row == 0:
                axes.set_title(f"tile {i + 1}", fontsize=9)
    if reference_mosaic is not None:
        axes = figure.add_subplot(grid[:, n])
        axes.imshow(reference_mosaic)
        axes.set_title("reference", fontsize=9)
        axes.axis("off")
    return finish(figure)
