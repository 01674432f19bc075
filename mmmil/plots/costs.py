"""Figures: what a training step costs, from the tables of `benchmarks/scaling.py` and `benchmarks/memory.py`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import FuncFormatter, NullFormatter

from mmmil.plots.style import CLASSES, NEUTRAL, finish

AXES = {"tiles": "tiles per bag", "sets": "gene sets"}
# A line is told from the next by its marker and dashes as well as by its colour.
LINES = [("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--")]
PAPER_GIB = 14.9  # the paper's figure for Original, which the batches are compared at


def backbones(table: pd.DataFrame) -> plt.Figure:
    """The tile encoders side by side: parameters, work for a tile and length of a token, on logarithmic axes.

    table: as `models.costs.backbones`, a row for each encoder. The paper's own, the reduced one, stands out.
    """
    from mmmil.models.costs import SHOWN_AS  # loads torch, which no other figure needs

    panels = {"parameters": "parameters", "macs": "MACs for a tile", "token": "values of a token"}
    figure, grid = plt.subplots(1, len(panels), figsize=(7.6, 0.36 * len(table) + 0.9), sharey=True)
    rows = np.arange(len(table))[::-1]
    for axes, (column, label) in zip(grid, panels.items(), strict=True):
        colours = [CLASSES[1] if name == "reduced" else NEUTRAL for name in table.index]
        axes.scatter(table[column], rows, c=colours, s=50, zorder=2)
        axes.set_xscale("log")
        axes.set_xlim(table[column].min() / 3, 30 * table[column].max())
        axes.grid(axis="y", color="#e6e6e6", lw=0.8, zorder=0)
        for y, value, colour in zip(rows, table[column], colours, strict=True):
            axes.annotate(
                _short(value), (value, y), (8, 0), textcoords="offset points", va="center", fontsize=8, color=colour
            )
        axes.set_xlabel(label, fontsize=9)
        axes.tick_params(labelsize=8)
    grid[0].set_yticks(rows, [SHOWN_AS[name] for name in table.index], fontsize=8)
    return finish(figure)


def _short(value: float) -> str:
    """68,880 as 69 k; three digits at most."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"


def scaling(table: pd.DataFrame) -> plt.Figure:
    """Seconds (above) and memory (below) of a step of the aggregator, over tiles (left) and gene sets (right).

    table: scaling.csv, a row per axis (tiles or sets), size and way, with seconds, fastest and slowest (the band) and
    memory_mib. All axes are logarithmic. Raises ValueError that names the columns that the table lacks.
    """
    _require(table, "scaling.csv", "axis", "size", "way", "seconds", "fastest", "slowest", "memory_mib")
    measured = [axis for axis in AXES if axis in set(table["axis"])]
    size = (4.9 * len(measured), 6.6)
    figure, grid = plt.subplots(2, len(measured), figsize=size, sharex="col", sharey="row", squeeze=False)
    looks = _looks(table["way"])
    for (above, below), axis in zip(grid.T, measured, strict=True):
        for way, rows in table[table["axis"] == axis].sort_values("size").groupby("way", sort=False):
            above.plot(rows["size"], rows["seconds"], **looks[way], label=way)
            above.fill_between(
                rows["size"], rows["fastest"], rows["slowest"], color=looks[way]["color"], alpha=0.12, lw=0
            )
            below.plot(rows["size"], rows["memory_mib"], **looks[way])
        below.set_xlabel(AXES[axis])
        for axes in (above, below):
            _logarithmic(axes, sorted(table.loc[table["axis"] == axis, "size"].unique()))
    grid[0, 0].set_ylabel("seconds per step")
    grid[1, 0].set_ylabel("memory of a step, MiB")
    grid[0, 0].legend(frameon=False, fontsize=8)
    return finish(figure)


def memory(table: pd.DataFrame, fusion: str = "dual") -> plt.Figure:
    """Memory over bags per step, with the batch at which Original takes 14.9 GiB (left); over tiles of a bag (right).

    table: memory.csv, a row per measurement: part (fit and batch: many bags, bag: one large bag), fusion, way, bags,
    tiles, memory_mib, peak_mib and pixels_mib. fusion: image or dual, the model of the left panel. Left, each way is
    a line through its batches; right, the pixels themselves are the grey area. Raises ValueError for a table that
    lacks columns or the fusion.
    """
    columns = ("part", "fusion", "way", "bags", "tiles", "memory_mib", "peak_mib", "pixels_mib", "device")
    _require(table, "memory.csv", *columns)
    batches = table[(table["part"] != "bag") & (table["fusion"] == fusion)].dropna(subset="memory_mib")
    if batches.empty:
        raise ValueError(f"memory.csv has no batches of fusion {fusion!r}; it has {sorted(table['fusion'].unique())}")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.4))
    looks = _looks(table["way"])
    for way, rows in batches.sort_values("bags", kind="stable").groupby("way", sort=False):
        left.plot(rows["bags"], rows["memory_mib"] / 1024, **looks[way], label=way)
    left.axhline(PAPER_GIB, color=NEUTRAL, lw=0.9)
    place = ("axes fraction", "data")
    left.annotate(f"{PAPER_GIB} GiB", (0.01, PAPER_GIB), xycoords=place, va="bottom", fontsize=8, color=NEUTRAL)
    counted = (table["device"] != "cuda").all()
    left.set(xlabel="bags per step", ylabel="memory, GiB" + (" (counted)" if counted else ""))
    _logarithmic(left, sorted(batches["bags"].unique()))

    bags = table[table["part"] == "bag"].sort_values("tiles", kind="stable")
    for way, rows in bags.groupby("way", sort=False):
        right.plot(rows["tiles"], rows["peak_mib"] / 1024, **looks[way], label=way)
    pixels = bags.drop_duplicates("tiles")
    pixels_gib, lowest = pixels["pixels_mib"] / 1024, pixels["pixels_mib"].min() / 1024
    right.fill_between(pixels["tiles"], lowest / 1.3, pixels_gib, color="#dddddd", lw=0, label="the pixels")
    right.set(xlabel="tiles in one bag", ylabel="peak memory, GiB" + (" (counted)" if counted else ""))
    _logarithmic(right, sorted(bags["tiles"].unique()))
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.2))
    return finish(figure)


def _looks(ways: pd.Series) -> dict[str, dict]:
    """Colour, marker and dashes of each way, in the table's order: the same in every panel."""
    colours = sns.color_palette("colorblind")
    names = ways.unique()
    return {
        name: {"color": colours[i % len(colours)], "marker": LINES[i % len(LINES)][0], "ls": LINES[i % len(LINES)][1]}
        | {"ms": 5, "lw": 1.7}
        for i, name in enumerate(names)
    }


def _logarithmic(axes: plt.Axes, sizes: list[int]) -> None:
    """Both axes logarithmic with plain numbers; ticks of x where something was measured."""
    axes.set(xscale="log", yscale="log")
    apart = [sizes[0]]
    for size in sizes[1:]:
        if np.log2(size / apart[-1]) > 1.1:  # closer ones would be written over each other
            apart.append(size)
    axes.set_xticks(apart, [f"{size:,}" for size in apart])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _require(table: pd.DataFrame, name: str, *columns: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{name} lacks the columns {', '.join(missing)}; make it anew with its benchmark")
