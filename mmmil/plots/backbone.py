"""Figures: the channels that APoZ pruning keeps, their activations, and how balanced the predictions are."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from mmmil import variants
from mmmil.plots.style import CLASSES, NEUTRAL, finish

PALE = "#c9c9c9"
GROUPS = ((False, PALE, "pruned"), (True, CLASSES[0], "kept"))
APOZ = "APoZ: share of activations that are zero"


def apoz(table: pd.DataFrame) -> plt.Figure:
    """Histogram and ranking of the channels' APoZ with the cut between kept and pruned; table: columns apoz, kept."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.7))
    bins = np.linspace(0, 1, 41)
    for kept, colour, name in GROUPS:
        values = table.loc[table["kept"] == kept, "apoz"]
        left.hist(values, bins, color=colour, label=f"{len(values)} {name}", alpha=0.85)
    left.set(xlabel=APOZ, ylabel="channels of the last convolution")
    left.legend(frameon=False)
    ranked = table.sort_values("apoz", kind="stable")
    rank, cut = np.arange(1, len(ranked) + 1), int(table["kept"].sum())
    for kept, colour, _ in GROUPS:
        in_group = (ranked["kept"] == kept).to_numpy()
        right.vlines(rank[in_group], 0, ranked["apoz"][in_group], color=colour, lw=1)
    right.plot(rank, ranked["apoz"], color="black", lw=1)
    right.axvline(cut + 0.5, color="black", lw=1, ls="--")
    right.annotate(f"cut after {cut}", (cut + 0.5, 1.0), (8, 0), textcoords="offset points", va="top", fontsize=10)
    right.set(
        xlabel="rank of the channel, fewest zeros first", ylabel="APoZ", xlim=(0, len(ranked) + 1), ylim=(0, 1.02)
    )
    return finish(figure)


def activations(tile: np.ndarray, maps: np.ndarray, table: pd.DataFrame, shown: int = 7) -> plt.Figure:
    """One tile and its feature maps in the channels with the lowest APoZ, which are kept, and the highest.

    tile (px, px, 3) uint8; maps (C, h, w), before pruning; table: columns apoz, kept, one row per channel; shown:
    maps in a row. All maps share one scale.
    """
    order = table["apoz"].sort_values(kind="stable").index
    figure = plt.figure(figsize=(10, 3.7), layout="constrained")
    grid = figure.add_gridspec(2, shown + 2, width_ratios=[1] * (shown + 2))
    whole = figure.add_subplot(grid[:, :2])
    whole.imshow(tile)
    whole.set_title(f"tile, {tile.shape[0]} px", fontsize=10)
    whole.set_axis_off()
    rows = (("kept", order[:shown]), ("pruned", order[::-1][:shown]))
    top = max(np.percentile(maps[list(order[:shown])], 99), 1e-6)
    for row, (name, channels) in enumerate(rows):
        for column, channel in enumerate(channels):
            axes = figure.add_subplot(grid[row, column + 2])
            image = axes.imshow(maps[channel], cmap="viridis", vmin=0, vmax=top)
            axes.set_title(f"channel {channel}\nAPoZ {table['apoz'][channel]:.2f}", fontsize=8)
            axes.set(xticks=[], yticks=[])
            if not column:
                axes.set_ylabel(name, fontsize=10)
    figure.colorbar(image, ax=figure.axes[1:], label="activation", fraction=0.03, pad=0.01)
    return finish(figure, tight=False)


def channel_activation(maps: np.ndarray, table: pd.DataFrame) -> plt.Figure:
    """Each channel's mean activation against its APoZ, and the share of all activation that the first k channels hold.

    maps (n, C, h, w) of n tiles, before pruning; table: columns apoz, kept, one row per channel.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.7))
    mean = maps.mean((0, 2, 3))
    for kept, colour, name in GROUPS:
        in_group = (table["kept"] == kept).to_numpy()
        colour = colour if kept else NEUTRAL
        left.scatter(table["apoz"][in_group], mean[in_group], s=14, color=colour, alpha=0.7, lw=0, label=name)
    left.set(xlabel=APOZ, ylabel=f"mean activation over {len(maps)} tiles", xlim=(-0.02, 1.02))
    left.legend(frameon=False)
    order = np.argsort(table["apoz"].to_numpy(), kind="stable")
    share = np.append(0, np.cumsum(mean[order])) / max(mean.sum(), 1e-12)
    cut = int(table["kept"].sum())
    right.plot(range(len(share)), share, color=CLASSES[0], lw=1.8)
    right.plot([0, len(mean)], [0, 1], color=PALE, lw=1, zorder=0)
    right.axvline(cut, color="black", lw=1, ls="--")
    right.annotate(
        f"{cut} channels: {share[cut]:.0%}", (cut, share[cut]), (8, -4), textcoords="offset points", va="top"
    )
    right.set(xlabel="channels kept, fewest zeros first", ylabel="share of the summed activation", ylim=(0, 1.02))
    return finish(figure)


def balance(folds: pd.DataFrame, names: list[str], class_names: list[str]) -> plt.Figure:
    """Sensitivity against specificity of each validation fold, and their difference: the paper's prediction balance.

    folds: of `metrics.per_fold`. Marks of different variants differ in size, so that those in one place are seen.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=[1, 1.1])
    rows = range(len(names))[::-1]
    for i, name, colour, marker in zip(rows, names, sns.color_palette("colorblind"), "osD^vP", strict=False):
        by_fold = folds.xs((name, "val"), level=("variant", "split"))
        means, gap = by_fold[["specificity", "sensitivity"]].mean(), by_fold["sensitivity"] - by_fold["specificity"]
        style = {"edgecolor": colour, "facecolor": "none", "marker": marker, "lw": 1.3, "clip_on": False}
        left.scatter(by_fold["specificity"], by_fold["sensitivity"], s=30 + 60 * i, **style)
        right.scatter(gap, np.full(len(gap), i), s=60, **style)
        style |= {"facecolor": colour, "edgecolor": "black", "s": 130, "zorder": 3}
        left.scatter(*means, **style)
        right.scatter(gap.mean(), i, **style)
    left.plot([0, 1], [0, 1], color=PALE, lw=1, zorder=0)
    left.set(
        xlabel=f"specificity (share of {class_names[0]} called so)",
        ylabel=f"sensitivity (share of {class_names[1]} called so)",
        xlim=(-0.05, 1.05),
        ylim=(-0.05, 1.05),
        aspect="equal",
    )
    right.axvline(0, color=PALE, lw=1, zorder=0)
    right.set(
        xlabel=f"sensitivity - specificity\n← favours {class_names[0]}      favours {class_names[1]} →",
        xlim=(-1.05, 1.05),
        ylim=(-0.5, len(names) - 0.5),
    )
    right.set_yticks(rows, [variants.variant(name).shown_as for name in names], fontsize=9)
    return finish(figure, scores=True)
