"""A fitted gene road: levels of any patient to the tokens of one fold, by the very numbers that training used.

What is fitted on training patients (means and deviations of genes, the autoencoder, means and deviations of latents)
is one object, saved beside the tokens and with a model that is kept, and applied by the same code everywhere
(Preprocessing, Fig. 6).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from mmmil.genes.autoencoder import GeneSetAutoencoder
    from mmmil.genes.encoder import GeneSetEncoder

SETS, SCALING, AUTOENCODER = "sets.json", "scaling.safetensors", "autoencoder.safetensors"


@dataclass(frozen=True)
class Transform:
    """Levels to tokens.

    genes: token -> its genes in order (gene sets, best first; one token for the single-gene vector); passed: False
    where the sets are the best by rank because fewer than two were significant; mean, sd: (G,) float64 of the levels of
    `symbols` over the fitted patients, sd not below its floor; scaled: whether levels are divided by them; clip:
    deviations at which a scaled level is cut, 0: not cut; autoencoder: None for the single-gene vector; token_mean,
    token_sd: (sets, latent) float64, None for the single-gene vector and until they are measured.
    """

    genes: dict[str, list[str]]
    passed: bool
    mean: np.ndarray
    sd: np.ndarray
    scaled: bool
    clip: float
    autoencoder: GeneSetAutoencoder | None = None
    token_mean: np.ndarray | None = None
    token_sd: np.ndarray | None = None

    @property
    def symbols(self) -> list[str]:
        """Genes of all tokens, each once, in the order in which they first occur: the columns of `levels`."""
        return union(self.genes)

    def missing(self, symbols: Sequence[str]) -> list[str]:
        """The genes that are not among `symbols`."""
        there = set(symbols)
        return [gene for gene in self.symbols if gene not in there]

    def levels(self, level: np.ndarray, symbols: Sequence[str], impute: bool = False) -> np.ndarray:
        """The genes' levels, scaled as for training: (patients, G) float32.

        level: (patients, symbols). impute: a gene that is not among the symbols gets its mean over the fitted
        patients, which is 0 where levels are scaled; else it raises KeyError.
        """
        from mmmil.genes import scaling

        found, missing = self._found(level, symbols, impute)
        if not self.scaled:
            return found.astype(np.float32)
        values = scaling.scaled_genes(found, self.mean, self.sd, self.clip)
        values[:, missing] = 0
        return values

    def deviations(self, level: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
        """Mean over each token's genes of their deviation from the fitted patients' mean, in theirs, uncut.

        level as for `levels`; genes that are missing do not count. Returns (patients, tokens), NaN where all are.
        """
        found, missing = self._found(level, symbols, impute=True)
        scaled = (found - self.mean) / self.sd
        scaled[:, missing] = np.nan
        column = {gene: i for i, gene in enumerate(self.symbols)}
        rows = [scaled[:, [column[gene] for gene in genes]] for genes in self.genes.values()]
        there = np.stack([np.isfinite(row).sum(axis=1) for row in rows], axis=1)
        sums = np.stack([np.nansum(row, axis=1) for row in rows], axis=1)
        return np.where(there > 0, sums / np.maximum(there, 1), np.nan)

    def apply(self, level: np.ndarray, symbols: Sequence[str], impute: bool = False) -> np.ndarray:
        """Tokens (patients, tokens, length) float32 of levels (patients, symbols); impute: as for `levels`."""
        values = self.levels(level, symbols, impute)
        if self.autoencoder is None:
            return values[:, None, :]
        from mmmil.genes import scaling
        from mmmil.genes.autoencoder import index_table

        with one_thread():
            latents = self.autoencoder.transform(values, index_table(self.genes, self.symbols))
        if self.token_mean is None or self.token_sd is None:
            return latents
        return scaling.scale_tokens(latents, self.token_mean, self.token_sd)

    def encoder(self) -> GeneSetEncoder:
        """The encoder half as a module that a model trains itself: `levels` to the tokens of `apply`, at first."""
        from mmmil.genes.autoencoder import index_table
        from mmmil.genes.encoder import GeneSetEncoder

        assert self.autoencoder is not None  # a single-gene vector has no such half
        scale = (0.0, 1.0) if self.token_mean is None else (self.token_mean, self.token_sd)
        return GeneSetEncoder(self.autoencoder.network, index_table(self.genes, self.symbols), *scale)

    def save(self, folder: Path) -> None:
        """Write it into a folder: JSON and safetensors, every number with all its digits."""
        from safetensors.numpy import save_file

        about = {"passed": self.passed, "scaled": self.scaled, "clip": self.clip, "genes": self.genes}
        (folder / SETS).write_text(json.dumps(about, indent=1))
        arrays = {"mean": self.mean, "sd": self.sd, "token_mean": self.token_mean, "token_sd": self.token_sd}
        there = {name: np.ascontiguousarray(values) for name, values in arrays.items() if values is not None}
        save_file(there, folder / SCALING)
        if self.autoencoder is not None:
            self.autoencoder.save(folder / AUTOENCODER)

    @classmethod
    def load(cls, folder: Path) -> Transform:
        """As it was saved."""
        from safetensors.numpy import load_file

        from mmmil.genes.autoencoder import GeneSetAutoencoder

        about = json.loads((folder / SETS).read_text())
        path = folder / AUTOENCODER
        fitted: dict[str, Any] = {**about, **load_file(folder / SCALING)}
        return cls(**fitted, autoencoder=GeneSetAutoencoder.load(path) if path.is_file() else None)

    def _found(self, level: np.ndarray, symbols: Sequence[str], impute: bool) -> tuple[np.ndarray, np.ndarray]:
        """Levels (patients, G) of the genes, and which columns (n,) stand for genes that are not there."""
        column = {symbol: i for i, symbol in enumerate(symbols)}
        places = [column.get(gene, -1) if impute else column[gene] for gene in self.symbols]
        missing = np.flatnonzero(np.array(places) < 0)
        found = level[:, places]
        if len(missing):
            found[:, missing] = self.mean[missing]
        return found, missing


def union(genes: dict[str, list[str]]) -> list[str]:
    """Genes of all tokens, each once, in the order in which they first occur."""
    return list(dict.fromkeys(gene for members in genes.values() for gene in members))


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums do not depend on how many threads share them, so results do not depend on the caller's setting."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
