"""Bags with stain applied: a reference of a fold's training patients, and the cohort's packed bags in its colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from joblib import delayed
from tqdm import tqdm

from mmmil import record
from mmmil.params import Params
from mmmil.processes.pool import parallel
from mmmil.slides import packed
from mmmil.slides.stain import StainReference, fit, normalised

TILES = 32  # of training patients that a reference is made of: a tile of most patients of a small cohort, and fast


def _real(file: h5py.File) -> np.ndarray:
    """Indices of a bag's tiles that are no padding."""
    return np.flatnonzero(file["mask"][:]) if "mask" in file else np.arange(len(file["imgs"]))


def _drawn(p: Params, bags: pd.Series, training: list[str], fold: int) -> Iterator[tuple[str, int]]:
    """Patient and tile of the reference: training patients in a seeded order, one tile each, then a second one."""
    random = np.random.default_rng([p.seed, fold + 1])
    tiles_left = {}
    for patient in random.permutation(sorted(training)):
        with h5py.File(bags[patient]) as file:
            tiles_left[patient] = random.permutation(_real(file)).tolist()
        if tiles_left[patient]:
            yield patient, tiles_left[patient].pop()
    while any(tiles_left.values()):
        yield from ((patient, tiles.pop()) for patient, tiles in tiles_left.items() if tiles)


def reference_tiles(p: Params, bags: pd.Series, training: list[str], fold: int) -> np.ndarray:
    """The tiles (TILES or all there are, px, px, 3) that the reference of a fold is fitted on.

    bags: patient -> HDF5 file; training: the fold's training patients, of whom alone tiles are drawn.
    """
    tiles = []
    for (patient, tile), _ in zip(_drawn(p, bags, training, fold), range(TILES), strict=False):
        with h5py.File(bags[patient]) as file:
            tiles.append(file["imgs"][tile])
    return np.array(tiles)


def _made_by() -> dict:
    return {
        "versions": record.versions("histolab", "scikit-image"),
    }


def reference_of(p: Params, bags: pd.Series, training: list[str], fold: int) -> StainReference:
    """The stain reference of a fold's training patients, made once and recorded under `stain/` in the results."""
    inputs = {
        "bags": {patient: Path(bags[patient]).parent.name for patient in training},
        "fold": fold,
        "seed": p.seed,
        "kind": p.stain,
        **_made_by(),
    }

    def make(unfinished: Path) -> dict:
        reference = fit(reference_tiles(p, bags, training, fold), p.stain)
        reference.save(unfinished / "reference.json")
        return {"reference": reference.key}

    return StainReference.load(record.cached(p.results / "stain", inputs, make) / "reference.json")


def _stained(path: str, reference: StainReference) -> tuple[np.ndarray, int, int]:
    """Pixels of a bag in the reference's colours, padding as it is; how many tiles were normalised and how many not."""
    with h5py.File(path) as file:
        real, pixels = _real(file), file["imgs"][:]
    pixels[real], done = normalised(pixels[real], reference)
    return pixels, int(done.sum()), int((~done).sum())


def _inputs(bags: pd.Series, reference: StainReference) -> dict:
    keys = [Path(path).parent.name for path in bags]
    return {"bags": keys, "reference": reference.key, "kind": reference.kind, **_made_by()}


def key_of(p: Params, bags: pd.Series, training: list[str], fold: int) -> str:
    """The name of the folder of `bags_of`, which need not be there."""
    return record.key(_inputs(bags, reference_of(p, bags, training, fold)), __name__)


def bags_of(p: Params, bags: pd.Series, training: list[str], fold: int, workers: int = 1) -> Path:
    """Folder of a cohort's bags as a fold sees them, in their order: `packed.PIXELS` in its reference's colours.

    bags: patient -> HDF5 file; training: the fold's training patients. What else there is to know of a bag is in
    `packed.cohort`. Raises StainError where no reference can be fitted.
    """
    reference = reference_of(p, bags, training, fold)

    def make(folder: Path) -> dict:
        jobs = [delayed(_stained)(str(path), reference) for path in bags]
        done = parallel(workers, return_as="generator")(jobs)
        facts = {"normalised": 0, "left_as_they_are": 0}

        def pixels() -> Iterator[np.ndarray]:
            for bag, normal, left in tqdm(
                done, total=len(jobs), desc=f"stain, fold {fold}", unit="slide", mininterval=5, delay=2
            ):
                facts["normalised"] += normal
                facts["left_as_they_are"] += left
                yield bag

        packed.write(folder / packed.PIXELS, pixels(), len(bags))
        return facts

    return record.cached(p.results / "stained", _inputs(bags, reference), make)
