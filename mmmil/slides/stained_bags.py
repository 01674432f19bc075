"""Bags with stain applied: a reference of a fold's training patients, and every bag in its colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from mmmil import record
from mmmil.params import Params
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


def _write(source: Path, path: Path, reference: StainReference) -> dict:
    """Write a bag with its tiles normalised and all else as it is; how many tiles were normalised and how many not."""
    with h5py.File(source) as old, h5py.File(path, "w") as new:
        real = _real(old)
        pixels = old["imgs"][:]
        pixels[real], done = normalised(pixels[real], reference)
        new.attrs.update(old.attrs)
        for name, dataset in old.items():
            if name == "imgs":
                new.create_dataset(name, data=pixels, chunks=dataset.chunks)
                new[name].attrs.update(dataset.attrs)
            else:
                old.copy(dataset, new, name)
            new[name].attrs.update({"stain": reference.kind, "stain_reference": reference.key})
    return {"normalised": int(done.sum()), "left_as_they_are": int((~done).sum())}


def stained_bag(source: Path, folder: Path, reference: StainReference) -> Path:
    """HDF5 file of a bag in the reference's colours: as the original, with `stain` and `stain_reference` (its key)."""
    inputs = {"bag": source.parent.name, "reference": reference.key, "kind": reference.kind, **_made_by()}
    cached_folder = record.cached(
        folder / "stained", inputs, lambda unfinished: _write(source, unfinished / "bag.h5", reference)
    )
    return cached_folder / "bag.h5"


def bags_of(
    p: Params, bags: pd.Series, slides: pd.Series, training: list[str], fold: int, workers: int = 1
) -> list[Path]:
    """Every bag as a fold sees it, in the order of `bags`: normalised to its reference, or untouched.

    bags: patient -> HDF5 file; slides: patient -> slide_id; training: the fold's training patients. With stain `none`
    these are the original bags. Raises StainError where no reference can be fitted.
    """
    if p.stain == "none":
        return [Path(path) for path in bags]
    reference = reference_of(p, bags, training, fold)
    jobs = [
        delayed(stained_bag)(Path(path), p.results / "tiles" / slides[patient], reference)
        for patient, path in bags.items()
    ]
    done = Parallel(n_jobs=workers, return_as="generator")(jobs)
    return list(tqdm(done, total=len(jobs), desc=f"stain, fold {fold}", unit="slide", mininterval=5, delay=2))
