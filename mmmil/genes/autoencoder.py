"""One masked autoencoder for all gene sets: a patient's levels of a set's genes to one short vector (Fig. 6).

A set of n genes is a row x of n levels, zero-padded to the longest set's L. With an encoder f: L → hidden → latent and
a decoder g: latent → hidden → L, training minimises the squared error over real genes only,

    loss = Σ m (x - g(f(x)))² / Σ m,    m = 1 for a gene, 0 for padding,

over all (patient, set) pairs, averaged per gene (`average='element'`) or first within each pair, so that a set of ten
genes weighs as much as one of 500 (`average='set'`). The pairs are cut from one matrix when a batch needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

LR = 1e-3  # Adam's own default; the paper states none
WINDOW = 32  # batches among which pairs are sorted by length


def index_table(sets: Mapping[str, Sequence[str]], genes: Sequence[str]) -> np.ndarray:
    """Column of every set's genes: (sets, longest set) int64, padded with -1. Raises KeyError for an unknown gene."""
    column = {gene: i for i, gene in enumerate(genes)}
    table = np.full((len(sets), max(map(len, sets.values()))), -1, dtype=np.int64)
    for row, members in zip(table, sets.values(), strict=True):
        row[: len(members)] = [column[gene] for gene in members]
    return table


class MaskedMLP(nn.Module):
    """The network of Fig. 6; `length` is that of the longest set, and shorter rows stand for zero-padded ones."""

    def __init__(self, length: int, hidden: int = 256, latent: int = 96):
        super().__init__()
        self.encode_hidden = nn.Linear(length, hidden)
        self.encode_latent = nn.Linear(hidden, latent)
        self.decode_hidden = nn.Linear(latent, hidden)
        self.decode_level = nn.Linear(hidden, length)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """x: (pairs, n), n <= length -> latent (pairs, latent)."""
        # The weights of columns that are padding in the whole batch meet zeros only: they need no multiplication.
        hidden = functional.linear(x, self.encode_hidden.weight[:, : x.shape[1]], self.encode_hidden.bias)
        return self.encode_latent(functional.relu(hidden))

    def decode(self, z: torch.Tensor, n: int) -> torch.Tensor:
        """z: (pairs, latent) -> levels (pairs, n)."""
        hidden = functional.relu(self.decode_hidden(z))
        return functional.linear(hidden, self.decode_level.weight[:n], self.decode_level.bias[:n])


class GeneSetAutoencoder:
    """Fit on training patients' (patient, set) pairs, transform any patient's into latents.

    hidden, latent: widths of the network; epochs, batch (pairs per step), seed: of its training; average:
    'element', all genes weigh alike, or 'set', all sets do, whatever their size. The same seed, data and number of
    threads give the same weights on a CPU, bit for bit. After `fit`, history holds the masked MSE by epoch.
    """

    def __init__(
        self,
        hidden: int = 256,
        latent: int = 96,
        epochs: int = 30,
        batch: int = 256,
        seed: int = 0,
        average: str = "element",
    ):
        if average not in ("element", "set"):
            raise ValueError(f"average is '{average}'; give 'element' or 'set'")
        self.hidden, self.latent, self.epochs = hidden, latent, epochs
        self.batch, self.seed, self.average = batch, seed, average
        self.network: MaskedMLP  # made by `fit` or `load`
        self.history: dict[str, list[float]] = {}

    def fit(self, level: np.ndarray, index: np.ndarray, unseen: np.ndarray | None = None) -> list[float]:
        """Train on every pair of a patient and a set.

        level: (patients, genes) scaled levels; index: (sets, L) columns of each set's genes, padded at the end with
        -1; unseen: levels of other patients, on which the network is measured after every epoch and not trained.

        Returns the masked MSE of every epoch over its steps' real genes, while the weights were changing. `history`
        keeps it as mse_train, and where there are unseen patients theirs as mse_unseen; both per gene, whatever
        `average` is, so that they can be compared.
        """
        pairs = _Pairs(level, index)
        unseen = unseen if unseen is not None and len(unseen) else None
        if unseen is not None:
            _Pairs(unseen, index)  # what it refuses is refused now, not after an epoch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = MaskedMLP(index.shape[1], self.hidden, self.latent)
        draw = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=LR, fused=True)
        # With 'element' a constant, so that a gene weighs the same in a batch of short sets and in one of long sets.
        sizes = pairs.sizes.double()
        weight = (1 / (sizes if self.average == "set" else sizes.mean().expand_as(sizes))).to(pairs.flat.dtype)
        self.history = {"mse_train": []}
        if unseen is not None:
            self.history["mse_unseen"] = []
        for _ in range(self.epochs):
            squared = 0.0
            for batch in self._batches(pairs, draw):
                x, mask = pairs[batch]
                error = ((self.network.decode(self.network.encode(x), x.shape[1]) - x) * mask).square().sum(dim=1)
                optimizer.zero_grad(set_to_none=True)
                (error @ weight[batch % len(weight)] / len(batch)).backward()
                optimizer.step()
                squared += error.detach().sum().item()
            self.history["mse_train"].append(squared / (pairs.patients * pairs.sizes.sum().item()))
            if unseen is not None:
                self.history["mse_unseen"].append(np.average(self.errors(unseen, index), weights=pairs.sizes).item())
        return self.history["mse_train"]

    def _batches(self, pairs: _Pairs, draw: torch.Generator) -> list[torch.Tensor]:
        """A random order of all pairs, in batches of similar length: little padding is computed."""
        batches = []
        for window in torch.randperm(len(pairs), generator=draw).split(WINDOW * self.batch):
            lengths = pairs.sizes[window % len(pairs.sizes)]
            batches += window[torch.argsort(lengths, stable=True)].split(self.batch)
        return [batches[i] for i in torch.randperm(len(batches), generator=draw)]

    @torch.no_grad()
    def transform(self, level: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Latents of every patient and set: (patients, sets, latent) float32."""
        tensor = _tensor(level)
        latents = np.empty((len(level), len(index), self.latent), dtype=np.float32)
        for number, columns in enumerate(index):
            genes = torch.as_tensor(columns[columns >= 0])
            latents[:, number] = self.network.encode(tensor[:, genes]).numpy()
        return latents

    @torch.no_grad()
    def errors(self, level: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Masked MSE of every set over these patients: (sets,) in the squared units of `level`."""
        tensor = _tensor(level)
        errors = np.empty(len(index))
        for number, columns in enumerate(index):
            x = tensor[:, torch.as_tensor(columns[columns >= 0])]
            errors[number] = functional.mse_loss(self.network.decode(self.network.encode(x), x.shape[1]), x).item()
        return errors

    def save(self, path: Path | str) -> None:
        """Write the weights as safetensors."""
        save_file({name: value.contiguous() for name, value in self.network.state_dict().items()}, str(path))

    @classmethod
    def load(cls, path: Path | str) -> GeneSetAutoencoder:
        """A fitted autoencoder from its weights; its widths are read off them."""
        weights = load_file(str(path))
        hidden, length = weights["encode_hidden.weight"].shape
        model = cls(hidden=hidden, latent=len(weights["encode_latent.bias"]))
        model.network = MaskedMLP(length, model.hidden, model.latent)
        model.network.load_state_dict(weights)
        return model


class _Pairs:
    """All (patient, set) pairs of a matrix and an index table; pair i is patient i // sets, set i % sets."""

    def __init__(self, level: np.ndarray, index: np.ndarray):
        if not np.isfinite(level).all():
            raise ValueError("level: missing or infinite values cannot be trained on; drop these genes")
        sizes = (index >= 0).sum(axis=1)
        if (index < 0).all(axis=1).any() or ((index >= 0) != (np.arange(index.shape[1]) < sizes[:, None])).any():
            raise ValueError("index: every set needs genes, and padding (-1) only after them")
        # Padding is a column of zeros after the genes, and the matrix one row: a batch is one look-up in it.
        self.patients, self.genes = level.shape
        self.flat = functional.pad(_tensor(level), (0, 1)).ravel()
        self.index = torch.as_tensor(np.where(index < 0, self.genes, index))
        self.sizes = torch.as_tensor(sizes)

    def __len__(self) -> int:
        return self.patients * len(self.index)

    def __getitem__(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Levels and mask of some pairs, both (pairs, longest of them), zero at padding."""
        patients, sets = numbers // len(self.index), numbers % len(self.index)
        columns = self.index[:, : self.sizes[sets].max()][sets]
        places = columns + (patients * (self.genes + 1))[:, None]
        return self.flat.index_select(0, places.ravel()).view(places.shape), (columns < self.genes).to(self.flat.dtype)


def _tensor(level: np.ndarray) -> torch.Tensor:
    # float32, unless somebody who compares computations has set torch's default to float64
    return torch.as_tensor(np.ascontiguousarray(level), dtype=torch.get_default_dtype())
