"""The mean colour of each patient's tiles: what stain and scanner decide before any tissue is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from mmmil import record
from mmmil.params import Params

CHANNELS = ("red", "green", "blue")


def means(p: Params, bags: Sequence[str]) -> np.ndarray:
    """Mean red, green and blue (0 to 255) of each bag's real tiles, (patients, 3); found again by the bags.

    bags: HDF5 files, as `Study.bag_paths`, each in a folder that is called by its content.
    """

    def make(folder: Path) -> None:
        np.save(folder / "means.npy", np.stack([_mean(bag) for bag in bags]))

    inputs = {"bags": [Path(bag).parent.name for bag in bags], "versions": record.versions("numpy", "h5py")}
    return np.load(record.cached(p.results / "colours", inputs, make) / "means.npy")


def _mean(bag: str) -> np.ndarray:
    with h5py.File(bag) as file:
        return file["imgs"][file["mask"][:]].mean(axis=(0, 1, 2))
