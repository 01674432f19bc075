"""Figures: what the models attend to."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from mmmil import bags
from mmmil.plots.slides import scale_bar, thumbnail
from mmmil.plots.style import CLASSES, finish


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


def attention_on_slide(slide_path: str, bag_path: str, maps: dict[str, np.ndarray], title: str, top: int = 8):
    """Figs 9-11: attention over the chosen tiles of one slide, one panel per source, with its most attended tiles."""
    image, scale = thumbnail(slide_path)
    coords, a = bags.load_coords(bag_path)
    side = a["patch_size_level0"] * scale
    bag = bags.load_bags([bag_path])[0]
    figure = plt.figure(figsize=(3.7 * len(maps), 5.4))
    panels = figure.subfigures(1, len(maps), squeeze=False)[0]
    for panel, (name, weights) in zip(panels, maps.items(), strict=True):
        spec = panel.add_gridspec(3, 4, height_ratios=[4.2, 1, 1], hspace=0.12, wspace=0.06)
        axes = panel.add_subplot(spec[0, :])
        axes.imshow(image, alpha=0.75)
        weights = weights[: len(coords)]  # padding stands last and has no place on the slide
        shade = plt.Normalize(weights.min(), weights.max())
        for (x, y), w in zip(coords * scale, weights, strict=True):
            axes.add_patch(Rectangle((x, y), side, side, color=plt.cm.inferno(shade(w)), alpha=0.75, lw=0))
        scale_bar(axes, a["mpp"] * a["patch_size"] / a["patch_size_level0"], scale, image.shape[1], image.shape[0])
        axes.axis("off")
        axes.set_title(f"{title}\n{name}", fontsize=10)
        panel.colorbar(plt.cm.ScalarMappable(shade, "inferno"), ax=axes, shrink=0.75, label="attention")
        for k, i in enumerate(np.argsort(-weights)[: min(top, 8)]):
            small = panel.add_subplot(spec[1 + k // 4, k % 4])
            small.imshow(bag[i])
            small.axis("off")
    plt.close(figure)
    return figure
