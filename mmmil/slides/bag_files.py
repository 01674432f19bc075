"""Bags read back from their HDF5 files: pixels, masks of padding, coordinates."""

from __future__ import annotations

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


def load_masks(paths: list[str]) -> np.ndarray:
    """Which tiles of many bags are real and which padding, (patients, n_tiles) bool."""
    masks = []
    for path in paths:
        with h5py.File(path) as file:
            masks.append(file["mask"][:])
    return np.stack(masks)


def has_coords(path: str) -> bool:
    """Whether a bag's file says where its tiles lie."""
    with h5py.File(path) as file:
        return "coords" in file


def load_coords(path: str) -> tuple[np.ndarray, dict]:
    """Coordinates (n, 2) in level-0 px of a bag's real tiles, and its attributes."""
    with h5py.File(path) as file:
        return file["coords"][:], dict(file["coords"].attrs)
