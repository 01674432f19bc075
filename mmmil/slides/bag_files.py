"""Bags read back from their HDF5 files: pixels, masks of padding, coordinates."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np


def load_bags(paths: list[str]) -> np.ndarray:
    """Pixels of many bags in one array (patients, n_tiles, px, px, 3) uint8."""
    with h5py.File(paths[0]) as file:
        bags = np.empty((len(paths), *file["imgs"].shape), dtype=np.uint8)
    for i, path in enumerate(paths):
        with h5py.File(path) as file:
            file["imgs"].read_direct(bags[i])
    return bags


class BagFiles:
    """Pixels of many bags that stay in their files until they are asked for: what memory cannot hold is streamed.

    shape: (patients, n_tiles, px, px, 3), of uint8.
    """

    def __init__(self, paths: list[str]):
        self.paths = list(paths)
        with h5py.File(self.paths[0]) as file:
            self.shape = (len(self.paths), *file["imgs"].shape)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, which: Any) -> np.ndarray:
        """Bags (len(which), n_tiles, px, px, 3) uint8 of some patients; one bag for a single number."""
        if np.ndim(which) == 0:
            return load_bags([self.paths[which]])[0]
        return load_bags([self.paths[i] for i in which])


def load_masks(paths: list[str]) -> np.ndarray:
    """Which tiles of many bags are real and which padding, (patients, n_tiles) bool."""
    masks = []
    for path in paths:
        with h5py.File(path) as file:
            masks.append(file["mask"][:])
    return np.stack(masks)


def load_coords(path: str) -> tuple[np.ndarray, dict]:
    """Coordinates (n, 2) in level-0 px of a bag's real tiles, and its attributes."""
    with h5py.File(path) as file:
        return file["coords"][:], dict(file["coords"].attrs)
