"""Exact against Nyström attention over the size of a bag: seconds and memory of a training step of the aggregator.

    python benchmarks/scaling.py                   16 to 4,096 tiles, 50 to 2,000 gene sets: two minutes
    python benchmarks/scaling.py --device cuda     the same on a GPU, in bf16 by autocast
    python benchmarks/scaling.py --no-transmil     without TransMIL's sizes
    python benchmarks/scaling.py --quick           two small sizes, for a test

A step is forward, loss and backward of the package's encoder with its classifier on given tokens of 96 values, one
bag at a time: the image model (with PPEG) over tiles, the gene model over gene sets. **The backbone is not part of
it**; it costs the same per tile whatever the attention. Compared are the package's width 96 with 64 landmarks and
TransMIL's width 512 with 256, each with exact attention and with the package's Nyström attention, which is the
library's without its padding. The ways take turns; seconds are medians, of the clock on the wall and, on a CPU, of the
process, which other work on the machine disturbs less. Memory is torch.cuda.max_memory_allocated on a GPU, and
else the highest sum of all tensors alive during the step, without what an operator uses inside. Parameters and
gradients are in it, AdamW is not. Writes benchmarks/results/scaling.md and scaling.csv.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from memory import DIM, MIB, loss_of, markdown, step_peak
from torch import nn
from tqdm import tqdm

from mmmil import record
from mmmil.models.fusion import MultimodalMIL

AXES = {"tiles": "tiles per bag", "sets": "gene sets"}
LONG, FEWEST = 20.0, 3  # s: a size that takes longer is repeated only so many times


@dataclass(frozen=True)
class Way:
    """An attention, the width of the model, and the landmarks of Nyström's."""

    attention: str
    width: int
    landmarks: int

    @property
    def name(self) -> str:
        kind = {"exact": "exact", "nystrom": f"Nyström, {self.landmarks} landmarks"}[self.attention]
        return f"{kind}, width {self.width}"


def pairs(given: argparse.Namespace) -> list[tuple[Way, Way]]:
    """Exact and Nyström of the same width, which are compared with each other."""
    sizes = [(24, 8)] if given.quick else [(96, 64), (512, 256)] if given.transmil else [(96, 64)]
    return [(Way("exact", *size), Way("nystrom", *size)) for size in sizes]


def build(axis: str, size: int, way: Way, device: str) -> tuple[nn.Module, list]:
    """The model in training mode and its inputs: one bag of `size` tokens."""
    torch.manual_seed(0)
    rest = {"width": way.width, "heads": 8, "attention": way.attention, "landmarks": way.landmarks}
    tokens = torch.randn(1, size, DIM, device=device)
    if axis == "tiles":
        return MultimodalMIL("image", image_dim=DIM, **rest).to(device).train(), [tokens]
    return MultimodalMIL("genes", gene_dim=DIM, n_sets=size, **rest).to(device).train(), [None, tokens]


def seconds_of(run, model: nn.Module, device: str) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one forward and backward."""
    model.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    start, cpu_start = time.perf_counter(), time.process_time()
    run().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - cpu_start


def at_size(axis: str, size: int, ways: list[Way], given: argparse.Namespace) -> list[dict]:
    """A row per way at one size; the ways take turns."""
    rows, runs = [], []
    for way in ways:
        before = torch.cuda.memory_allocated() if given.device == "cuda" else 0  # the models that are built already
        model, x = build(axis, size, way, given.device)

        def run(model=model, x=x):
            return loss_of(model, x, bf16=given.device == "cuda")

        # The one that counts memory is the warm-up as well.
        memory = (step_peak(model, x, run, optimize=False) - before) / MIB
        described = {"attention": way.attention, "width": way.width, "landmarks": way.landmarks}
        rows.append({"axis": axis, "size": size, "way": way.name, **described, "memory_mib": memory})
        runs.append((run, model))
    spent, start = [[] for _ in ways], time.perf_counter()
    for turn in range(given.repeats):
        if turn >= FEWEST and time.perf_counter() - start > LONG:
            break
        for times, (run, model) in zip(spent, runs, strict=True):
            times.append(seconds_of(run, model, given.device))
    for row, times in zip(rows, spent, strict=True):
        wall, cpu = zip(*times, strict=True)
        row |= {"seconds": np.median(wall), "fastest": min(wall), "slowest": max(wall), "cpu_seconds": np.median(cpu)}
        row |= {"repeats": len(times), "device": given.device}
    return rows


def crossing(sizes: list[int], exact: list[float], nystrom: list[float]) -> float:
    """The size from which on Nyström costs less up to the largest, interpolated in logarithms; NaN if it never does.

    Where it costs less at every size, the smallest one.
    """
    gain = np.log(np.asarray(exact) / np.asarray(nystrom))  # > 0 where Nyström costs less
    if gain[-1] <= 0:
        return float("nan")
    dearer = np.flatnonzero(gain <= 0)
    if not len(dearer):
        return float(sizes[0])
    i = dearer[-1]
    share = -gain[i] / (gain[i + 1] - gain[i])
    return float(np.exp((1 - share) * np.log(sizes[i]) + share * np.log(sizes[i + 1])))


def crossing_text(sizes: list[int], exact: list[float], nystrom: list[float], unit: str) -> str:
    """`crossing` in words."""
    at = crossing(sizes, exact, nystrom)
    if np.isnan(at):
        return f"none up to {sizes[-1]:,} {unit} (there, exact costs {exact[-1] / nystrom[-1]:.2f} times Nyström)"
    if at == sizes[0]:
        return f"Nyström costs less at every size from {sizes[0]:,} {unit} on"
    return f"Nyström costs less from about {at:,.0f} {unit} on (at {sizes[-1]:,}, {exact[-1] / nystrom[-1]:.2f} times)"


def section(table: pd.DataFrame, axis: str, given: argparse.Namespace) -> list[str]:
    """One axis: time and memory of each pair, and where they cross."""
    table = table[table["axis"] == axis]
    sizes = sorted(table["size"].unique())
    columns = {v: table.pivot(index="size", columns="way", values=v) for v in ("seconds", "cpu_seconds", "memory_mib")}
    text = [f"## Over {AXES[axis]}", ""]
    for exact, nystrom in pairs(given):
        wall, cpu, memory = (columns[v][[exact.name, nystrom.name]].to_numpy() for v in columns)
        measures = {"ms": 1000 * wall, "CPU ms": 1000 * cpu, "MiB": memory}
        if given.device == "cuda":
            del measures["CPU ms"]
        head = [AXES[axis]]
        for unit in measures:
            head += [f"exact, {unit}", f"Nyström, {unit}", f"exact / Nyström, {unit}"]
        rows = []
        for i, size in enumerate(sizes):
            rows.append([f"{size:,}"])
            for values in measures.values():
                rows[-1] += [*(f"{value:,.1f}" for value in values[i]), f"{values[i, 0] / values[i, 1]:.2f}"]
        text += [f"Width {exact.width}, {exact.landmarks} landmarks.", "", *markdown(head, rows), ""]
        for unit, values in measures.items():
            text.append(f"- {unit}: {crossing_text(sizes, values[:, 0], values[:, 1], AXES[axis])}")
        text.append("")
    return text


def page(table: pd.DataFrame, given: argparse.Namespace, seconds: float) -> str:
    """The results page."""
    if given.device == "cuda":
        device, memory = torch.cuda.get_device_name(), "torch.cuda.max_memory_allocated"
    else:
        threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
        device = f"no GPU, {threads}, load average at the end {os.getloadavg()[0]:.1f}"
        memory = "the highest sum of all tensors alive, counted in a real step"
    about = [
        f"- {record.made_on('torch', 'nystrom-attention', device=device)}; {seconds / 60:.1f} minutes",
        f"- `{given.command}`",
        f"- medians of {given.repeats} turns, of {FEWEST} or more where a size takes long; memory is {memory}",
        f"- {'bf16 by autocast' if given.device == 'cuda' else 'float32'}, one bag, 8 heads, tokens of {DIM} values; "
        "forward and backward of the aggregator **without the backbone**",
    ]
    note = "The aggregator over the size of a bag. See `benchmarks/scaling.py`; `mmmil.plots.scaling` draws the table."
    sections = [text for axis in AXES for text in section(table, axis, given)]
    return "\n".join(["# Exact against Nyström attention", "", note, "", *about, "", *sections])


def arguments(text: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tiles", type=int, nargs="+", default=[16, 64, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--sets", type=int, nargs="+", default=[50, 100, 300, 500, 1000, 2000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--transmil", action=argparse.BooleanOptionalAction, default=True, help="width 512 as well")
    parser.add_argument("--quick", action="store_true", help="two small sizes: a test, no result")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scaling.md")
    given = parser.parse_args(text)
    given.command = shlex.join(["python", "benchmarks/scaling.py", *(sys.argv[1:] if text is None else text)])
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but PyTorch sees no GPU here; leave it out")
    if given.quick:
        given.tiles, given.sets, given.repeats = [9, 30], [10, 40], 3
    given.tiles, given.sets = sorted(given.tiles), sorted(given.sets)
    return given


def main(text: list[str] | None = None) -> None:
    """Measure, write the table and the page."""
    given = arguments(text)
    ways = [way for pair in pairs(given) for way in pair]
    start, rows = time.perf_counter(), []
    with tqdm([(axis, size) for axis in AXES for size in getattr(given, axis)], desc="scaling", unit="size") as bar:
        for axis, size in bar:
            bar.set_postfix_str(f"{size:,} {AXES[axis]}")
            rows += at_size(axis, size, ways, given)
    table = pd.DataFrame(rows)
    written = page(table, given, time.perf_counter() - start)
    record.write_atomically(given.out.with_suffix(".csv"), lambda t: table.round(6).to_csv(t, index=False))
    record.write_atomically(given.out, lambda t: t.write_text(written))
    print(written)


if __name__ == "__main__":
    main()
