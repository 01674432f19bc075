"""The planted truth of a synthetic cohort, as its files hold it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from mmmil.params import Params
from mmmil.simulate.slides import BLOCK


class SimulationError(ValueError):
    """The synthetic cohort cannot be made as asked, or would overwrite files that are not its own."""


@lru_cache(maxsize=4)
def _planted_blocks(data: Path, modified: int) -> tuple[dict[str, np.ndarray], set[str]]:
    table = pd.read_csv(data / "truth/regions.csv")
    blocks = {name: rows[["x", "y"]].to_numpy() for name, rows in table.groupby("slide_id")}
    return blocks, set(pd.read_csv(data / "truth/patients.csv")["slide_id"])


def planted_share(data: Path, slide_id: str, coords: np.ndarray, size: int) -> np.ndarray:
    """Share of each tile's area that is planted (N,), for coords (N, 2) x, y of corners and size in level-0 px.

    Raises SimulationError for a slide that is not in the cohort.
    """
    data = Path(data)
    blocks, known = _planted_blocks(data, (data / "truth/regions.csv").stat().st_mtime_ns)
    if slide_id not in known:
        raise SimulationError(f"slide '{slide_id}' is not in {data / 'truth/patients.csv'}")
    coords = np.asarray(coords, float).reshape(-1, 2)
    if slide_id not in blocks:
        return np.zeros(len(coords))
    x, y = (blocks[slide_id] // BLOCK).T
    grid = np.zeros((y.max() + 2, x.max() + 2))
    grid[y + 1, x + 1] = 1
    area = grid.cumsum(0).cumsum(1)  # planted blocks above and left of a grid corner; linear in between

    def above_left(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(area, [y / BLOCK, x / BLOCK], order=1, mode="nearest")

    (x0, y0), (x1, y1) = coords.T, coords.T + size
    inside = above_left(x1, y1) - above_left(x0, y1) - above_left(x1, y0) + above_left(x0, y0)
    return np.clip(inside * BLOCK**2 / size**2, 0, 1)


def sets_file(p: Params) -> Path:
    return p.data / "truth" / "sets.csv"


def planted_sets(p: Params, library: str) -> pd.Series:
    """set name -> whether a synthetic cohort's truth says that it is planted."""
    truth = pd.read_csv(sets_file(p))
    return truth[truth["library"] == library].set_index("name")["planted"].astype(bool)
