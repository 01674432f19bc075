"""The training engine: a plain PyTorch loop that Lightning Fabric places on a CPU, a GPU or several (Experimental
Setup; the paper states none of its optimisation).

The number of epochs is the parameters', and the one-cycle schedule is made for it; nothing is chosen here. Epochs end
with a checkpoint, some seconds apart, from which a killed training goes on bit for bit on a CPU.
"""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmil import record
from mmmil.models.clam import BAG_WEIGHT
from mmmil.models.reading import OVER, reading_layers
from mmmil.params import Params
from mmmil.processes import wall_time
from mmmil.slides import packed
from mmmil.slides.features import Bags
from mmmil.training import augmentation
from mmmil.training.device import freed_memory_kept

if TYPE_CHECKING:
    from lightning_fabric import Fabric


CHECKPOINT_EVERY = 10.0  # seconds between two at least: short epochs would spend a fifth of their time on writing


class TrainingError(RuntimeError):
    """Training cannot go on; says at which step and what to change."""


@dataclass(frozen=True)
class Inputs:
    """What a model reads, patients first: tiles (P, N, px, px, 3) uint8 or features (P, N, D), in memory or mapped
    (`packed`), or bags of features of any size, which bring their mask; genes (P, S, D), or levels (P, G) where the
    model encodes them itself; the mask (P, N) of real tiles where bags are padded; None for what it does not read.
    patients: their names, for messages; positions: whether the order of tiles says where they lie.
    """

    tiles: Tensor | np.ndarray | Bags | None = None
    genes: Tensor | None = None
    mask: Tensor | None = None
    patients: Sequence[str] = field(default_factory=list)
    positions: bool = True

    @property
    def image_dim(self) -> int:
        """Length of a tile's features; 0 where no tiles are read, and of no meaning for pixels."""
        if isinstance(self.tiles, Bags):
            return self.tiles.dim
        return 0 if self.tiles is None else self.tiles.shape[-1]

    def take(self, which: Tensor) -> dict[str, Tensor]:
        """Arguments of the model for some patients; bags of any size are padded to the largest of these."""
        held = {"tiles": self.tiles, "genes": self.genes, "mask": self.mask}
        given = {
            name: packed.taken(values, which) if isinstance(values, np.ndarray) else values[which]
            for name, values in held.items()
            if values is not None
        }
        if isinstance(self.tiles, Bags):
            given["tiles"], given["mask"] = given["tiles"]
        return {name: torch.as_tensor(values) for name, values in given.items() if values is not None}

    def real(self, which: Sequence[int]) -> Tensor | None:
        """Which tiles of some patients are no padding, (len(which), N) with the N of their largest bag; None: all."""
        if not isinstance(self.tiles, Bags):
            return None if self.mask is None else self.mask[list(which)]
        sizes = torch.tensor(self.tiles.sizes)[list(which)]
        real = torch.arange(int(sizes.max())) < sizes[:, None]
        return None if real.all() else real

    def named(self, which: Tensor) -> str:
        """The first patients of a batch, for a message."""
        names = [self.patients[i] if len(self.patients) else str(i) for i in which.tolist()]
        return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")


def on_device(fabric: Fabric, inputs: Inputs, which: Sequence[int]) -> Inputs:
    """The inputs with the tiles of some patients in the GPU's memory, where all take less than a third of what is free.

    Those of the others are not read, and must not be asked for.
    """
    held = inputs.tiles
    if fabric.device.type != "cuda" or not isinstance(held, Tensor | np.ndarray):
        return inputs
    free, _ = torch.cuda.mem_get_info(fabric.device)
    if held.nbytes > free / 3:
        return inputs
    if isinstance(held, Tensor):
        return replace(inputs, tiles=held.to(fabric.device))
    kind = torch.from_numpy(np.empty(0, held.dtype)).dtype
    tiles = torch.empty(held.shape, dtype=kind, device=fabric.device)
    for i, bag in zip(which, packed.each(held, which), strict=True):
        tiles[i] = torch.from_numpy(bag)
    return replace(inputs, tiles=tiles)


def fit(
    fabric: Fabric,
    model: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    train: list[int],
    p: Params,
    augment: bool = False,
    checkpoint: Path | None = None,
) -> tuple[nn.Module, pd.DataFrame]:
    """Train on the patients with indices `train`; returns the model on its device and a row per epoch.

    labels: (P,) int64, of all patients of the inputs. checkpoint: a file that is written after an epoch,
    CHECKPOINT_EVERY seconds after the last one, and from which an interrupted training goes on; the caller removes it
    when the result is kept.

    Raises TrainingError where the loss is not finite (names the batch) and where the device's memory is not enough
    (names the parameters to lower), and OutOfTimeError after a checkpoint where the job has no time for another epoch.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=p.lr, weight_decay=p.weight_decay, fused=True)
    model, optimizer = fabric.setup(model, optimizer)
    steps = -(-len(train) // p.batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Fabric's wrapped optimizer hides the step counter that torch looks for
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, p.lr, total_steps=p.epochs * steps)
    weights = torch.ones(2)
    if p.class_weights:
        weights = len(train) / (2 * torch.bincount(labels[train], minlength=2))
    generator = torch.Generator().manual_seed(p.seed)
    state = _State(fabric, model, optimizer, schedule, generator, checkpoint)
    history = state.restore()
    with warnings.catch_warnings(), freed_memory_kept(fabric.device):
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # as above
        for epoch in range(len(history), p.epochs):
            start = time.monotonic()
            model.train()
            order = torch.tensor(train)[torch.randperm(len(train), generator=generator)]
            losses, batches = [], order.split(p.batch_size)
            for batch in batches:
                draws = augmentation.draw(len(batch), generator) if augment else None
                try:
                    loss = _loss(fabric, model, inputs, labels, batch, weights, draws)
                    optimizer.zero_grad()
                    fabric.backward(loss)
                except Exception as error:
                    if (remedy := _remedy(error, batch, inputs, p.batch_size)) is None:
                        raise
                    raise TrainingError(remedy) from error
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
            # Looked at once an epoch: a GPU would wait for the answer after every step.
            step_losses = fabric.all_reduce(torch.stack(losses), reduce_op="mean").float().cpu()
            for step in (~torch.isfinite(step_losses)).nonzero()[:1].flatten().tolist():
                raise TrainingError(
                    f"the loss is {step_losses[step].item()} in epoch {epoch}, step {step} (patients "
                    f"{inputs.named(batches[step])}); lower lr, or look for broken tiles or expression of theirs"
                )
            history.append({"loss": step_losses.mean().item()})
            if checkpoint and epoch + 1 < p.epochs:
                try:
                    wall_time.require(2 * (time.monotonic() - start))
                except wall_time.OutOfTimeError:
                    state.keep(history)
                    raise
                state.keep(history, every=CHECKPOINT_EVERY)
    return model, pd.DataFrame(history)


def _loss(
    fabric: Fabric,
    model: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    batch: Tensor,
    weights: Tensor,
    draws: augmentation.Draws | None,
) -> Tensor:
    """Weighted cross-entropy of a batch; over several processes the mean of what each returns is that of the batch.

    A model that reads labels gives the loss of its instances as well (CLAM), or that of each bag in place of the
    cross-entropy (torchmil's).
    """
    mine = slice(fabric.global_rank, None, fabric.world_size)
    share = torch.ones(len(batch[mine]))
    if not len(share):  # more processes than patients: it must take part, and counts for nothing
        mine, share = slice(0, 1), torch.zeros(1)
    patients = batch[mine]
    given = fabric.to_device(inputs.take(patients))
    target = labels[patients].to(fabric.device)
    if draws is not None:
        given["tiles"] = augmentation.turned(given["tiles"], draws[mine].turn)
        given["colour"] = draws[mine].colour.to(fabric.device)
    if getattr(model.module, "reads_labels", False):
        given["labels"] = target
    logits, _, *instances = model(**given)
    weights = weights.to(fabric.device)
    if instances and instances[0].ndim:
        each = instances.pop().float() * weights[target]
    else:
        each = F.cross_entropy(logits.float(), target, weights, reduction="none")
    share = share.to(fabric.device)
    loss = (each * share).sum() / weights[labels[batch].to(fabric.device)].sum()
    if instances:
        of_all = share.sum() / len(batch)
        loss = BAG_WEIGHT * loss + (1 - BAG_WEIGHT) * instances[0].float() * of_all
    return loss * fabric.world_size


def _remedy(error: Exception, batch: Tensor, inputs: Inputs, batch_size: int) -> str | None:
    """What to change after an error of the device's memory; None for any other."""
    # A CPU's allocator raises a plain RuntimeError.
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        bag, or_less = "", ""
        if isinstance(inputs.tiles, Bags):
            largest = max(batch.tolist(), key=lambda i: inputs.tiles.sizes[i])
            bag = f", padded to the {inputs.tiles.sizes[largest]:,} features of {inputs.named(torch.tensor([largest]))}"
            or_less = ", or n_tiles, a patient's features at most (0: all)"
        elif inputs.tiles is not None:
            bag = f" of {inputs.tiles.shape[1]} tiles"
        return (
            f"the device's memory is not enough for {len(batch)} patients{bag}: lower batch_size (now {batch_size})"
            f"{or_less}"
        )
    return None


@torch.no_grad()
def predict(
    fabric: Fabric,
    model: nn.Module,
    inputs: Inputs,
    which: Sequence[int],
    batch: int = 8,
    heads: Literal["mean", "each"] = "mean",
    layers: bool = True,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Probability of class 1, (len(which),) float64, and attention after the softmax.

    Attention is a mapping name -> (len(which), N), averaged over heads, or (len(which), H, N) with heads 'each'. N is
    that of the largest bag, and 0 the attention to what it has more than others. layers: whether to read an encoder's
    first layer and rollout, too (`reading.reading_layers`), at the cost of another layer. Raises TrainingError where
    the device's memory is not enough: bags may be larger than those of the training.
    """
    model.eval()
    probs, atts = [], []
    for chunk in torch.tensor(list(which)).split(batch):
        try:
            with reading_layers(model, OVER if layers else ()) as read:
                logits, att = model(**fabric.to_device(inputs.take(chunk)))
        except Exception as error:
            if (remedy := _remedy(error, chunk, inputs, batch)) is None:
                raise
            raise TrainingError(remedy) from error
        probs.append(logits.double().softmax(-1)[:, 1].cpu())
        atts.append({k: (a.float().mean(1) if heads == "mean" else a.float()).cpu() for k, a in (att | read).items()})
    return torch.cat(probs).numpy(), {k: joined([a[k] for a in atts]).numpy() for k in atts[0]}


def joined(batches: Sequence[Tensor]) -> Tensor:
    """Batches (B, ..., N) one after the other; N may differ, and smaller bags are padded at their end with 0."""
    longest = max(batch.shape[-1] for batch in batches)
    return torch.cat([F.pad(batch, (0, longest - batch.shape[-1])) for batch in batches])


@dataclass
class _State:
    """All that the next epoch depends on, in one file that is replaced whole."""

    fabric: Fabric
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    path: Path | None
    kept_at: float = field(default_factory=time.monotonic)

    def restore(self) -> list[dict]:
        """Go on from the file if there is one; returns the epochs that are done, a row each."""
        if self.path is None or not self.path.is_file():
            return []
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.schedule.load_state_dict(kept["schedule"])
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
            raise TrainingError(
                f"{self.path}: the checkpoint is damaged ({type(error).__name__}); remove it to start again"
            ) from None
        self.generator.set_state(kept["generator"])
        torch.set_rng_state(kept["torch"])
        if kept["cuda"] is not None and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(kept["cuda"], self.fabric.device)
        return kept["history"]

    def keep(self, history: list[dict], every: float = 0.0) -> None:
        """Write the file, unless it was written, or the training begun, less than so many seconds ago."""
        if self.path is None or self.fabric.global_rank or time.monotonic() - self.kept_at < every:
            return
        on_gpu = self.fabric.device.type == "cuda"
        state = {
            "history": history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.fabric.device) if on_gpu else None,
        }
        record.write_atomically(self.path, lambda path: torch.save(state, path))
        self.kept_at = time.monotonic()
