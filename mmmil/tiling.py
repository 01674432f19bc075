"""Slides to tiles: histolab's grid and tissue check, the same number of tiles for every patient (Preprocessing).

Two results per slide, each found again by the hash of what it depends on: its *candidates* (every position of
histolab's grid with its tissue share and whether it is valid), and its *bag* (the chosen tiles' pixels).
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from mmmil import record
from mmmil.params import Params
from mmmil.slides import SlideError, microns_per_pixel, open_slide, read_mpp_table, slide_fingerprint

SUMMARY = [
    "patient_id",
    "slide_id",
    "width",
    "height",
    "mpp",
    "um_per_tile",
    "candidates",
    "valid",
    "bag",
    "problem",
]


class TilingError(SlideError):
    """A slide cannot be opened, read or scaled, or has too few valid tiles; names every such slide."""


@dataclass(frozen=True)
class Candidates:
    """Every position of the grid on one slide.

    coords: (N, 2) int, upper left corner in level-0 px; tissue: (N,) share of tissue by Otsu in [0, 1];
    valid: (N,) bool, histolab's tissue check; attributes: TRIDENT's names, plus mpp.
    """

    coords: np.ndarray
    tissue: np.ndarray
    valid: np.ndarray
    attributes: dict


def find_candidates(
    path: Path,
    tile_px: int = 256,
    level: int = 0,
    tissue_percent: float = 90.0,
    mpp_table: dict | None = None,
) -> Candidates:
    """Histolab's grid over the biggest tissue region, each position with its tissue share and validity.

    The valid positions are the tiles that `histolab.tiler.GridTiler.extract` writes with the same settings.
    """
    from histolab.slide import Slide
    from histolab.tiler import GridTiler

    with open_slide(path) as opened:
        mpp = microns_per_pixel(opened, path, mpp_table or {})
        if level >= opened.level_count:
            raise TilingError(f"{path}: has {opened.level_count} levels, tile_level {level} is not one of them")
        width, height = opened.dimensions
        downsample = opened.level_downsamples[level]
        power = opened.properties.get("openslide.objective-power", "")
    coords, tissue, valid = [], [], []
    tiler = GridTiler((tile_px, tile_px), level=level, check_tissue=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # histolab warns of a blank mask, which is our "no tissue"
            # GridTiler's public `extract` only writes PNG files; its generator gives the same tiles in memory.
            for tile, position in tiler._tiles_generator(Slide(path, processed_path="")):
                coords.append((position.x_ul, position.y_ul))
                tissue.append(tile.tissue_ratio)
                valid.append(tile.has_enough_tissue(tissue_percent))
    except Exception as error:  # OpenSlide reports unreadable regions through several libraries
        raise TilingError(f"{path}: reading its pixels failed ({error}); the file is damaged, get it again") from None
    attributes = {
        "patch_size": tile_px,
        "patch_size_level0": round(tile_px * downsample),
        "level0_magnification": float(power) if power else float(round(10 / mpp)),
        "target_magnification": (float(power) if power else round(10 / mpp)) / downsample,
        "overlap": 0,
        "name": path.stem,
        "level0_width": width,
        "level0_height": height,
        "mpp": mpp * downsample,
        "level": level,
    }
    return Candidates(
        np.array(coords, dtype=np.int64).reshape(-1, 2),
        np.array(tissue, dtype=np.float32),
        np.array(valid, dtype=bool),
        attributes,
    )


def choose(found: Candidates, n_tiles: int, how: str = "random", seed: int = 0) -> np.ndarray:
    """Indices of `n_tiles` valid candidates, in reading order (rows, then columns) so that PPEG sees space.

    random: without bias; tissue: the highest tissue share; spread: every so many along the reading order.
    """
    valid = np.flatnonzero(found.valid)
    valid = valid[np.lexsort((found.coords[valid, 0], found.coords[valid, 1]))]
    if how == "random":
        # Seeded by the slide too, so that adding a slide does not change another one's tiles.
        name = int.from_bytes(hashlib.sha256(found.attributes["name"].encode()).digest()[:4])
        picked = np.random.default_rng([seed, name]).choice(len(valid), n_tiles, replace=False)
    elif how == "tissue":
        picked = np.argsort(-found.tissue[valid], kind="stable")[:n_tiles]
    else:
        picked = np.linspace(0, len(valid) - 1, n_tiles).round().astype(int)
    return valid[np.sort(picked)]


def read_tiles(path: Path | str, coords: np.ndarray, tile_px: int, level: int = 0) -> np.ndarray:
    """Pixels (N, tile_px, tile_px, 3) uint8 at level-0 coordinates; transparent becomes white, as in histolab."""
    tiles = np.empty((len(coords), tile_px, tile_px, 3), dtype=np.uint8)
    with open_slide(path) as slide:
        for i, (x, y) in enumerate(coords):
            region = np.asarray(slide.read_region((int(x), int(y)), level, (tile_px, tile_px)))
            tiles[i] = np.where(region[..., 3:] == 0, 255, region[..., :3])
    return tiles


def _write_h5(path: Path, attributes: dict, **arrays: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            chunks = (1, *array.shape[1:]) if name == "imgs" and len(array) else None
            dataset = file.create_dataset(name, data=array, chunks=chunks)
            dataset.attrs.update(attributes)


def read_candidates(path: Path) -> Candidates:
    with h5py.File(path) as file:
        attributes = dict(file["candidates"].attrs)
        return Candidates(file["candidates"][:], file["tissue"][:], file["valid"][:], attributes)


def candidates_of(slide_path: Path | str, folder: Path, p: Params) -> Path:
    """HDF5 file of a slide's candidates (`coords` holds the valid ones, as TRIDENT and CLAM expect)."""
    slide_path = Path(slide_path)
    table = read_mpp_table(p.path(p.mpp_table)) if p.mpp_table else {}
    name = slide_path.name
    inputs = {
        "slide": slide_fingerprint(slide_path),
        "tile_px": p.tile_px,
        "level": p.tile_level,
        "tissue_percent": p.tissue_percent,
        "mpp": table.get(name, table.get(slide_path.stem)),
        "code": record.source_digest("mmmil.slides", "mmmil.tiling"),
        "versions": record.versions("histolab", "scikit-image", "openslide-bin"),
    }

    def make(unfinished: Path) -> dict:
        found = find_candidates(slide_path, p.tile_px, p.tile_level, p.tissue_percent, table)
        _write_h5(
            unfinished / "candidates.h5",
            found.attributes,
            coords=found.coords[found.valid],
            candidates=found.coords,
            tissue=found.tissue,
            valid=found.valid,
        )
        return {"valid": int(found.valid.sum()), "candidates": len(found.valid)}

    return record.cached(folder / "candidates", inputs, make) / "candidates.h5"


def bag_of(slide_path: Path, candidates_path: Path, folder: Path, p: Params) -> Path:
    """HDF5 file of a slide's bag: `coords` (n_tiles, 2) in level-0 px and `imgs` (n_tiles, px, px, 3) uint8."""
    found = read_candidates(candidates_path)
    inputs = {
        "candidates": candidates_path.parent.name,
        "n_tiles": p.n_tiles,
        "tile_choice": p.tile_choice,
        "seed": p.seed,
        "code": record.source_digest("mmmil.slides", "mmmil.tiling"),
    }

    def make(unfinished: Path) -> None:
        coords = found.coords[choose(found, p.n_tiles, p.tile_choice, p.seed)]
        _write_h5(
            unfinished / "bag.h5",
            found.attributes,
            coords=coords,
            imgs=read_tiles(slide_path, coords, p.tile_px, p.tile_level),
        )

    return record.cached(folder / "bags", inputs, make) / "bag.h5"


def _tile_slide(patient_id: str, slide_id: str, slide_path: Path, p: Params) -> dict:
    row = dict.fromkeys(SUMMARY, "") | {"patient_id": patient_id, "slide_id": slide_id}
    folder = p.results / "tiles" / slide_id
    try:
        path = candidates_of(slide_path, folder, p)
        found = read_candidates(path)
        a, valid = found.attributes, int(found.valid.sum())
        row |= {
            "width": int(a["level0_width"]),
            "height": int(a["level0_height"]),
            "mpp": round(float(a["mpp"]), 4),
            "um_per_tile": round(float(a["mpp"] * a["patch_size"]), 2),
            "candidates": len(found.valid),
            "valid": valid,
        }
        if valid < p.n_tiles:
            row["problem"] = f"{valid} valid tiles, fewer than n_tiles ({p.n_tiles})"
        else:
            row["bag"] = str(bag_of(slide_path, path, folder, p))
    except SlideError as error:
        row["problem"] = f"error: {error}"
    return row


def tile_cohort(patients: pd.DataFrame, p: Params, workers: int = 1) -> pd.DataFrame:
    """Tile every patient's slide; one row per patient with columns SUMMARY, `bag` empty where there is none.

    A bad slide does not stop the others. Raises TilingError at the end, naming all of them; slides with fewer
    valid tiles than n_tiles are an error or only reported in `problem`, by the parameter `few_tiles`.
    """
    jobs = (
        delayed(_tile_slide)(patient, row.slide_id, Path(row.slide_path), p) for patient, row in patients.iterrows()
    )
    done = Parallel(n_jobs=workers, return_as="generator")(jobs)
    rows = list(tqdm(done, total=len(patients), desc="tiling", unit="slide", mininterval=5))
    table = pd.DataFrame(rows, columns=SUMMARY)
    bad = table["problem"].str.startswith("error: ")
    if p.few_tiles == "error":
        bad |= table["problem"] != ""
    if bad.any():
        lines = "\n".join(f"  {r.patient_id}: {r.problem.removeprefix('error: ')}" for r in table[bad].itertuples())
        raise TilingError(f"{bad.sum()} of {len(table)} slides cannot be used:\n{lines}")
    return table


def load_bags(paths: list[str]) -> np.ndarray:
    """Pixels of many bags in one array (patients, n_tiles, px, px, 3) uint8."""
    with h5py.File(paths[0]) as file:
        bags = np.empty((len(paths), *file["imgs"].shape), dtype=np.uint8)
    for i, path in enumerate(paths):
        with h5py.File(path) as file:
            file["imgs"].read_direct(bags[i])
    return bags


def load_coords(path: str) -> tuple[np.ndarray, dict]:
    """Coordinates (n_tiles, 2) in level-0 px of a bag, and its attributes."""
    with h5py.File(path) as file:
        return file["coords"][:], dict(file["coords"].attrs)
