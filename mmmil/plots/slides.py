"""Figures: tiles and thumbnails."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mmmil.plots.style import CLASSES, finish
from mmmil.slides import appearance, bag_files, tiling
from mmmil.slides import files as slide_files


def tissue_filter(slide_path: str, candidates: tiling.Candidates, percent: float = 90.0, shown: int = 6) -> plt.Figure:
    """Fig. 2: kept tiles above, rejected ones below, each with its share of tissue."""
    figure, grid = plt.subplots(2, shown, figsize=(1.5 * shown, 3.9), squeeze=False)
    a = candidates.attributes
    rejected = candidates.tested & ~candidates.valid
    for row, (which, title) in enumerate([(candidates.valid, "kept"), (rejected, "rejected")]):
        index = np.flatnonzero(which)
        index = index[np.linspace(0, len(index) - 1, min(shown, len(index))).astype(int)] if len(index) else index
        tiles = tiling.read_tiles(slide_path, candidates.coords[index], a)
        for axes in grid[row]:
            axes.axis("off")
        for axes, tile, i in zip(grid[row], tiles, index, strict=False):
            axes.imshow(tile)
            # On empty glass Otsu's threshold parts noise from noise; histolab rejects it for being almost white.
            white = not candidates.valid[i] and 100 * candidates.tissue[i] > percent
            caption = "almost white" if white else f"{100 * candidates.tissue[i]:.0f} % tissue"
            axes.set_title(f"{title}\n{caption}", fontsize=9)
    return finish(figure)


def valid_tiles(tiles: pd.DataFrame) -> plt.Figure:
    """Valid tiles per patient, sorted, with the line at the number that is used of each; red: too few.

    Where not every position was tested their number is an estimate, and the bar is pale above those that were found.
    """
    numbers = tiles[["candidates", "tested", "valid", "valid_estimate", "used"]].apply(pd.to_numeric, errors="coerce")
    table = numbers.fillna(0).sort_values("valid_estimate", ascending=False, kind="stable")
    used = int(table["used"].max())
    few = table["valid"] < used
    is_estimate = (table["tested"] < table["candidates"]).any()
    figure, axes = plt.subplots(figsize=(7, 3))
    if is_estimate:
        axes.bar(np.arange(len(table)), table["valid_estimate"], width=1.0, color=CLASSES[0], alpha=0.35)
    axes.bar(np.arange(len(table)), table["valid"], width=1.0, color=np.where(few, CLASSES[1], CLASSES[0]))
    axes.axhline(used, color="black", lw=1, ls="--")
    axes.text(1.01, used, f"{used} per patient", transform=axes.get_yaxis_transform(), va="center", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    unit = "valid tiles" + "\n(pale: estimated)" * int(is_estimate)
    axes.set(xlabel=f"{len(table)} patients, most tiles first", ylabel=unit)
    return finish(figure)


def thumbnail(slide_path: str, longest: int = 700) -> tuple[np.ndarray, float]:
    """A slide's thumbnail (h, w, 3) and the factor from level-0 px to its px."""
    with slide_files.open_slide(slide_path) as slide:
        width, _ = slide.dimensions
    image = appearance.thumbnail(slide_path, longest)
    return image, image.shape[1] / width


def scale_bar(axes: plt.Axes, mpp: float, scale: float, width: int, height: int) -> None:
    length = next(um for um in (5000, 2000, 1000, 500, 200, 100, 50) if um / mpp * scale < width / 3 or um == 50)
    axes.plot([0.04 * width, 0.04 * width + length / mpp * scale], [0.96 * height] * 2, color="black", lw=3)
    axes.text(0.04 * width, 0.93 * height, f"{length} µm", fontsize=9)


def chosen_tiles(slide_paths: list[str], bag_paths: list[str], titles: list[str]) -> plt.Figure:
    """Thumbnails with the chosen tiles outlined, at most four slides."""
    n = min(4, len(slide_paths))
    figure, grid = plt.subplots(1, n, figsize=(3.3 * n, 3.6), squeeze=False)
    for axes, slide, bag, title in zip(grid[0], slide_paths, bag_paths, titles, strict=False):
        image, scale = thumbnail(slide)
        coords, a = bag_files.load_coords(bag)
        side = a["patch_size_level0"] * scale
        axes.imshow(image)
        for x, y in coords * scale:
            axes.add_patch(Rectangle((x, y), side, side, fill=False, ec="black", lw=1))
        scale_bar(axes, a["mpp"] * a["patch_size"] / a["patch_size_level0"], scale, image.shape[1], image.shape[0])
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    return finish(figure)
