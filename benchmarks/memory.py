"""Memory of a training step: the Original and the reduced backbone under the reference recipe, and ours.

    python benchmarks/memory.py                   on a GPU where there is one, else counted: a minute
    python benchmarks/memory.py --device cpu      counted, on any machine
    python benchmarks/memory.py --quick           a few small bags, for a test

The reference recipe is timm's backbone, nystrom-attention at width 512 with 256 landmarks, float32, contiguous layout
and batch norm in training mode. Ours is the package's model: width 96, exact attention, fixed batch norm, bf16 by
autocast, tiles in chunks that are computed again for their gradient. Bags are of 64 tiles of 256 px.

On a GPU, memory is torch.cuda.max_memory_allocated over a step with AdamW. Without one nothing of that size can be
run, so the step is traced with tensors that have a shape and no data, and two things are counted: `kept`, the bytes
that the autograd graph keeps for the backward pass (storages once each, with the inputs; of chunked tiles the graph of
one chunk, which is all that exists at a time), to which parameters, gradients and AdamW's two states are added; and
`peak`, the highest sum of all tensors alive during the whole step. Neither knows the workspaces inside an operator.
The batch at which Original takes the paper's 14.9 GiB follows from a line through small batches, whose deviation is
told. Writes benchmarks/results/memory.md and memory.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from nystrom_attention import NystromAttention
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary
from tqdm import tqdm

from mmmil import record
from mmmil.models import backbone as models_backbone
from mmmil.models.bag_model import BagModel
from mmmil.models.fusion import MultimodalMIL

MIB = 2**20
PAPER_ORIGINAL, PAPER_REDUCED = 14.9, 11.6  # GiB, the paper's Experimental Setup
DIM = 96  # width of a gene set's latent, and of the pruned backbone's token


# -- the two recipes -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Way:
    """A recipe and a backbone: original or reduced; ours or the reference; bf16; tiles through the backbone at once."""

    name: str
    backbone: str
    ours: bool = False
    bf16: bool = False
    chunk: int = 0


ORIGINAL, REDUCED = Way("Original, reference", "original"), Way("reduced, reference", "reduced")
AT_ONCE = Way("ours, bf16", "reduced", ours=True, bf16=True)


def ways(chunk: int) -> list[Way]:
    """Those compared at one batch; the last is ours with tiles in chunks."""
    return [ORIGINAL, REDUCED, Way("ours, float32", "reduced", ours=True), AT_ONCE, chunked(chunk)]


def chunked(chunk: int) -> Way:
    return Way(f"{AT_ONCE.name}, chunks of {chunk:,}", "reduced", ours=True, bf16=True, chunk=chunk)


class LibraryAttention(NystromAttention):
    """nystrom-attention as it is; attention is not asked for in training, so its place is held by zeros."""

    def forward(self, x: Tensor, return_att: bool = False, mask: Tensor | None = None):
        out = super().forward(x, mask=mask)
        return (out, x.new_zeros(len(x), self.heads, 1, x.shape[1])) if return_att else out


class Reference(nn.Module):
    """The reference recipe: decoded float tiles (B, N, 3, px, px) and gene tokens (B, S, 96) -> logits (B, 2)."""

    def __init__(self, tile_encoder: models_backbone.TileEncoder, fusion: str, sets: int, width: int, landmarks: int):
        super().__init__()
        self.tile_encoder = tile_encoder
        self.aggregator = MultimodalMIL(fusion, tile_encoder.channels, DIM, sets, width, 8, "nystrom", landmarks)
        for module in self.aggregator.modules():
            if hasattr(module, "attn"):
                module.attn = LibraryAttention(width, width // 8, 8, num_landmarks=landmarks, dropout=0.1)

    def forward(self, tiles: Tensor, genes: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        tokens = self.tile_encoder(tiles.flatten(0, 1)).unflatten(0, tiles.shape[:2])
        return self.aggregator(tokens, genes)


def build(way: Way, fusion: str, sets: int, width: int = 512, landmarks: int = 256) -> nn.Module:
    """The untrained model in training mode; `width` and `landmarks` are the reference's."""
    encoder = models_backbone.TileEncoder(way.backbone, "random")
    if way.backbone == "reduced":
        models_backbone.prune(encoder, torch.arange(DIM))
    if not way.ours:
        return Reference(encoder, fusion, sets, width, landmarks).train()
    return BagModel(MultimodalMIL(fusion, DIM, DIM, sets), encoder, tile_chunk=way.chunk).train()


def inputs(way: Way, fusion: str, sets: int, bags: int, tiles: int, px: int, device: str = "cpu") -> list:
    """Tiles, float32 in the reference and uint8 in ours, and gene tokens or None."""
    shape, dtype = ((px, px, 3), torch.uint8) if way.ours else ((3, px, px), torch.float32)
    genes = torch.zeros(bags, sets, DIM, device=device) if fusion == "dual" else None
    return [torch.zeros(bags, tiles, *shape, dtype=dtype, device=device), genes]


def loss_of(model: nn.Module, batch: list, bf16: bool) -> Tensor:
    """Cross-entropy of a batch, all of class 0."""
    device = next(model.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        logits = model(*batch)[0]
    return F.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long, device=device))


# -- counting --------------------------------------------------------------------------------------------------------
def kept_bytes(run, model: nn.Module, batch: list) -> int:
    """Bytes of the inputs and of all that `run()` saves for its backward pass: storages once, no parameters."""
    parameters = {StorageWeakRef(t.untyped_storage()) for t in [*model.parameters(), *model.buffers()]}
    storage_bytes = {StorageWeakRef(t.untyped_storage()): t.untyped_storage().nbytes() for t in batch if t is not None}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        if reference not in parameters:
            storage_bytes[reference] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()  # held until all is counted: what is freed could lend its address to the next
    del result
    return sum(storage_bytes.values())


def kept_by_step(model: nn.Module, batch: list, way: Way) -> int:
    """`kept_bytes` of a step; of tiles in chunks, the graph of one chunk is added, which the backward pass makes."""
    total = kept_bytes(lambda: loss_of(model, batch, way.bf16), model, batch)
    tiles = batch[0].flatten(0, 1)
    if not way.chunk or len(tiles) <= way.chunk:
        return total

    def one_chunk() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=way.bf16):
            return model._encoded(tiles[: way.chunk], None)

    return total + kept_bytes(one_chunk, model, [])


def state_bytes(model: nn.Module) -> int:
    """Parameters, their gradients and AdamW's two states of each, and buffers."""
    sizes = [4 * p.nbytes for p in model.parameters()] + [b.nbytes for b in model.buffers()]
    return sum(sizes)


class Alive(TorchDispatchMode):
    """While it is entered, adds up the storages that are alive: `peak` is the highest sum, bytes."""

    def __init__(self, *before: Tensor):
        super().__init__()
        self.now = self.peak = 0
        self.known = WeakIdKeyDictionary()
        for tensor in before:
            self.watch(tensor)

    def watch(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in self.known:
            size = storage.nbytes()
            self.known[storage] = size
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.freed, size)
        return tensor

    def freed(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return tree_map_only(Tensor, self.watch, func(*args, **(kwargs or {})))


def step_peak(model: nn.Module, batch: list, run, optimize: bool = True) -> int:
    """Peak bytes of two steps (forward, backward, AdamW): in the second, its states are there from the start.

    On a GPU as it allocates; else of all tensors alive. Without `optimize`, of forward and backward alone.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4) if optimize else None
    on_gpu = next(model.parameters()).device.type == "cuda"
    there = [*model.parameters(), *model.buffers(), *(t for t in batch if t is not None)]
    alive = contextlib.nullcontext() if on_gpu else Alive(*there)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with alive:
        for _ in range(2):
            run().backward()
            if optimizer:
                optimizer.step()
            model.zero_grad()
    return torch.cuda.max_memory_allocated() if on_gpu else alive.peak


# -- measuring -------------------------------------------------------------------------------------------------------
def measure(way: Way, fusion: str, bags: int, tiles: int, given: argparse.Namespace, peak: bool = True) -> dict:
    """One row of the table; MiB, NaN where the memory was not enough or the quantity does not exist."""
    row = {"fusion": fusion, "way": way.name, "bags": bags, "tiles": tiles, "device": given.device}
    row |= dict.fromkeys(("kept_mib", "states_mib", "memory_mib", "peak_mib"), np.nan)
    row["pixels_mib"] = bags * tiles * 3 * given.px**2 * (1 if way.ours else 4) / MIB
    sizes = {"width": given.width, "landmarks": given.landmarks}
    torch.manual_seed(0)
    if given.device == "cuda":
        torch.cuda.empty_cache()
        try:
            model = build(way, fusion, given.sets, **sizes).cuda()
            x = inputs(way, fusion, given.sets, bags, tiles, given.px, "cuda")
            row["peak_mib"] = step_peak(model, x, lambda: loss_of(model, x, way.bf16)) / MIB
            row["states_mib"], row["memory_mib"] = state_bytes(model) / MIB, row["peak_mib"]
        except torch.OutOfMemoryError:
            tqdm.write(f"{way.name}, {bags} bags of {tiles} tiles: the GPU's memory is not enough")
        return row
    with FakeTensorMode():
        model = build(way, fusion, given.sets, **sizes)
        x = inputs(way, fusion, given.sets, bags, tiles, given.px)
        row["kept_mib"], row["states_mib"] = kept_by_step(model, x, way) / MIB, state_bytes(model) / MIB
        row["memory_mib"] = row["kept_mib"] + row["states_mib"]
        if peak:
            row["peak_mib"] = step_peak(model, x, lambda: loss_of(model, x, way.bf16)) / MIB
    return row


def line(table: pd.DataFrame) -> tuple[float, float, float]:
    """Memory as a line of the batch, (MiB, MiB per bag), and the largest deviation from it as a share."""
    measured = table.dropna(subset="memory_mib")
    slope, intercept = np.polyfit(measured["bags"], measured["memory_mib"], 1)
    fitted = intercept + slope * measured["bags"]
    return intercept, slope, float((fitted / measured["memory_mib"] - 1).abs().max())


def batch_at(gib: float, table: pd.DataFrame) -> float:
    """Bags per step, not rounded, at which the way of this table takes so much."""
    intercept, slope, _ = line(table)
    return (gib * 1024 - intercept) / slope


def all_rows(given: argparse.Namespace) -> pd.DataFrame:
    """Every measurement: part `fit` (small batches), `batch` (where Original takes 14.9 GiB), `bag` (large bags)."""
    compared = [ORIGINAL, REDUCED, chunked(given.chunk)] if given.quick else ways(given.chunk)
    large = [AT_ONCE, *(chunked(chunk) for chunk in given.chunks)]
    total = len(given.fusions) * len(compared) * (len(given.bags) + 1) + len(large) * len(given.tiles)
    rows = []
    with tqdm(total=total, desc="memory", unit="step") as bar:

        def add(part: str, *measurement, **options) -> None:
            rows.append({"part": part, **measure(*measurement, given, **options)})
            bar.update()

        for fusion in given.fusions:
            for way in compared:
                for bags in given.bags:
                    add("fit", way, fusion, bags, given.bag_tiles, peak=False)
            fitted = pd.DataFrame(rows).query("fusion == @fusion and way == @ORIGINAL.name")
            bags = max(1, round(batch_at(given.gib, fitted)))
            for way in compared:
                add("batch", way, fusion, bags, given.bag_tiles)
        for way in large:
            for tiles in given.tiles:
                add("bag", way, "dual", 1, tiles)
    return pd.DataFrame(rows)


# -- the page --------------------------------------------------------------------------------------------------------
def markdown(head: list, rows: list) -> list[str]:
    return ["| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head), *rows]]


def shown(mib: float, unit: int = 1, digits: int = 0) -> str:
    return "out of memory" if np.isnan(mib) else f"{mib / unit:,.{digits}f}"


def same_batch(rows: pd.DataFrame, fusion: str, gib: float) -> list[str]:
    """The section on the batch at which Original takes `gib`."""
    fusion_rows = rows[rows["fusion"] == fusion]
    fit = fusion_rows[fusion_rows["part"] == "fit"]
    at = batch_at(gib, fit[fit["way"] == ORIGINAL.name])
    whole = fusion_rows[fusion_rows["part"] == "batch"].set_index("way")
    bags, original = whole["bags"].iloc[0], whole.loc[ORIGINAL.name]
    head = ["way", "MiB per bag", "MiB besides", "deviation from the line", f"GiB at {at:.2f} bags"]
    head += ["share of Original", f"GiB at {bags} bags", f"peak at {bags} bags, GiB", "peak, share of Original"]
    lines = []
    for name, row in whole.iterrows():
        intercept, slope, deviation = line(fit[fit["way"] == name])
        there = intercept + slope * at
        cells = [name, f"{slope:,.1f}", f"{intercept:,.1f}", f"{deviation:.2%}", f"{there / 1024:.2f}"]
        cells += [f"{there / 1024 / gib:.3f}", shown(row["memory_mib"], 1024, 2), shown(row["peak_mib"], 1024, 2)]
        lines.append([*cells, f"{row['peak_mib'] / original['peak_mib']:.3f}"])
    title = {"image": "The image model", "dual": "The dual model"}[fusion]
    text = f"Original takes {gib} GiB at {at:.2f} bags per step."
    return [f"## {title}", "", text, "", *markdown(head, lines), ""]


def large_bags(rows: pd.DataFrame) -> list[str]:
    """The section on one bag of more and more tiles."""
    bag_rows = rows[rows["part"] == "bag"]
    pixels = bag_rows.drop_duplicates("tiles").set_index("tiles")["pixels_mib"]
    peaks = bag_rows.pivot(index="tiles", columns="way", values="peak_mib")[list(bag_rows["way"].unique())]
    head = ["tiles", "their pixels, MiB", *(f"{way}, MiB" for way in peaks)]
    lines = [[f"{n:,}", f"{pixels[n]:,.0f}", *(shown(value) for value in row)] for n, row in peaks.iterrows()]
    beside = peaks.sub(pixels, axis=0).iloc[[0, -1]]
    growth = [f"{way}: {beside[way].iloc[-1] / beside[way].iloc[0]:.2f}" for way in peaks]
    text = "Peak of a step with one bag, the dual model; the pixels (uint8), which lie on the device, are part of it."
    ends = f"Peak without the pixels at {peaks.index[-1]:,} tiles, as a multiple of that at {peaks.index[0]:,}:"
    return ["## One bag of many tiles", "", text, "", *markdown(head, lines), "", f"{ends} {'; '.join(growth)}.", ""]


def page(rows: pd.DataFrame, given: argparse.Namespace, seconds: float) -> str:
    """The results page."""
    on_gpu = given.device == "cuda"
    device = torch.cuda.get_device_name() if on_gpu else "no GPU"
    how = "memory is torch.cuda.max_memory_allocated over a training step with AdamW"
    if not on_gpu:
        how = (
            "**counted, not measured**: memory is the bytes that the autograd graph keeps for the backward pass "
            "(storages once, with the inputs), plus parameters, gradients and AdamW's states; peak is the highest sum "
            "of all tensors alive in a training step. Both are of tensors without data, with a CPU's operators and "
            "its autocast; a GPU's workspaces, its allocator and its context come on top"
        )
    about = [
        f"- {record.made_on('torch', 'timm', 'nystrom-attention', device=device)}; {seconds / 60:.1f} minutes",
        f"- `{given.command}`",
        f"- {how}",
        f"- bags of {given.bag_tiles} tiles of {given.px} px, {given.sets} gene sets; lines through {given.bags} bags",
        f"- the paper: {PAPER_ORIGINAL} GiB with Original, {PAPER_REDUCED} with the reduced backbone, a share of "
        f"{PAPER_REDUCED / PAPER_ORIGINAL:.2f}, at a batch and with a model that it does not state",
    ]
    note = "Original and reduced backbone under the reference recipe, and the package. See `benchmarks/memory.py`."
    sections = [text for fusion in given.fusions for text in same_batch(rows, fusion, given.gib)]
    return "\n".join(["# Memory of a training step", "", note, "", *about, "", *sections, *large_bags(rows)])


def arguments(text: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--bags", type=int, nargs="+", default=[1, 2, 4, 8], help="batches that the lines go through")
    parser.add_argument("--tiles", type=int, nargs="+", default=[64, 256, 1024, 4096], help="of one large bag")
    parser.add_argument("--chunk", type=int, default=64, help="tiles at once through the backbone, at one batch")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1024, 64], help="the same, for large bags")
    parser.add_argument("--quick", action="store_true", help="small tiles and bags: a test, no result")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory.md")
    given = parser.parse_args(text)
    given.command = shlex.join(["python", "benchmarks/memory.py", *(sys.argv[1:] if text is None else text)])
    if given.device == "auto":
        given.device = "cuda" if torch.cuda.is_available() else "cpu"
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but PyTorch sees no GPU here; leave it out, and memory is counted")
    given.px, given.bag_tiles, given.sets, given.width, given.landmarks = 256, 64, 300, 512, 256
    given.gib, given.fusions = PAPER_ORIGINAL, ["image", "dual"]
    if given.quick:
        given.px, given.bag_tiles, given.sets, given.width, given.landmarks = 64, 4, 10, 64, 8
        given.gib, given.fusions, given.bags = 0.02, ["dual"], [1, 2]
        given.tiles, given.chunk, given.chunks = [4, 16], 4, [4]
    return given


def main(text: list[str] | None = None) -> None:
    """Measure, write the table and the page."""
    given = arguments(text)
    start = time.perf_counter()
    rows = all_rows(given)
    written = page(rows, given, time.perf_counter() - start)
    record.write_atomically(given.out.with_suffix(".csv"), lambda t: rows.round(3).to_csv(t, index=False))
    record.write_atomically(given.out, lambda t: t.write_text(written))
    print(written)


if __name__ == "__main__":
    main()
