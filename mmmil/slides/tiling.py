"""Slides to tiles: histolab's grid and tissue check, the same number of tiles for every patient (Preprocessing).

A slide's *candidates*, every position of histolab's grid with its tissue share and whether it is valid, are found
again by the hash of what they depend on; `mmmil.slides.bags` makes a cohort's bags of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import h5py
import numpy as np
from openslide import OpenSlideError

from mmmil import record
from mmmil.params import Params
from mmmil.slides import coordinates, scale
from mmmil.slides import files as slide_files
from mmmil.slides import tissue as slides_tissue
from mmmil.slides.files import SlideError
from mmmil.slides.scale import Geometry

if TYPE_CHECKING:
    from openslide import AbstractSlide

BLOCK_PX = 1024  # tiles that touch are read together, up to this side: fewer JPEG tiles are decoded twice
MIN_SCANNED = 0.5  # share of a tile that must have pixels; glass beside white may pass for tissue
VERSIONS = ("histolab", "scikit-image", "openslide-bin", "opencv-python-headless", "pillow")


@dataclass(frozen=True)
class Candidates:
    """Every position of the grid on one slide.

    coords: (N, 2) int, upper left corner in level-0 px; tissue: (N,) share of tissue by Otsu in [0, 1];
    valid: (N,) bool, histolab's tissue check; attributes: TRIDENT's names, plus mpp, level, size and grid, and of our
    own grid pieces (of tissue) and left_out (share of their area that is not tiled).
    """

    coords: np.ndarray
    tissue: np.ndarray
    valid: np.ndarray
    attributes: dict


# -- candidates --------------------------------------------------------------------------------------------------
def find_candidates(
    path: Path,
    tile_px: int = 256,
    level: int = 0,
    mpp: float = 0,
    tissue_percent: float = 90.0,
    mpp_table: dict | None = None,
    coords_file: Path | None = None,
    threads: int = 1,
    tissue: Literal["biggest", "all"] = "biggest",
) -> Candidates:
    """Histolab's grid over the biggest piece of tissue, each position with its tissue share and validity.

    The valid positions are the tiles that `histolab.tiler.GridTiler.extract` writes with the same settings; with
    tissue `all` the grid lies over each of the pieces. With a `coords_file` of CLAM or TRIDENT the positions are
    theirs, and valid. Where less than half of a tile was scanned, it never is. Raises SlideError for a slide that
    cannot be opened, scaled or read.
    """
    path = Path(path)
    with slide_files.open_slide(path) as slide:
        if coords_file:
            coords, g = coordinates.read(coords_file, slide, path, tile_px, mpp_table or {}, level, mpp)
        else:
            g = scale.geometry(slide, path, tile_px, level, mpp, mpp_table)
        about: dict = {"grid": "file" if coords_file else "histolab"}
        try:
            if not coords_file:
                coords, found = _grid(slide, g, tissue)
                about |= {"pieces": found.pieces, "left_out": found.left_out}
            share, valid, scanned = _examine(slide, coords, g, tissue_percent, threads)
        except OpenSlideError as error:
            damaged = f"reading its pixels failed ({error}): the file is damaged"
            raise SlideError(f"{path}: {damaged}; {slide_files.AGAIN}") from None
        width, height = slide.dimensions
    attributes = coordinates.attributes(g, path.stem, width, height) | about
    return Candidates(coords, share, (valid | bool(coords_file)) & (scanned >= MIN_SCANNED), attributes)


def _grid(
    slide: AbstractSlide, g: Geometry, which: Literal["biggest", "all"]
) -> tuple[np.ndarray, slides_tissue.Tissue]:
    """Positions (N, 2) of the grid over the slide's tissue, box by box, and that tissue."""
    image = slides_tissue.small_image(slide)
    found = slides_tissue.find(image, which)
    tile = g.tile_px if g.grid_level == g.level and g.size == g.tile_px else g.size_level0
    level = slide.level_dimensions[g.grid_level]
    grids = [slides_tissue.grid(box, image.size, level, slide.dimensions, tile) for box in found.boxes]
    return np.concatenate([np.zeros((0, 2), np.int64), *grids]), found


def _blocks(coords: np.ndarray, g: Geometry) -> Iterator[np.ndarray]:
    """Indices of tiles that are read at once: neighbours at level 0; elsewhere corners may lie between two pixels."""
    n = BLOCK_PX // g.size if g.level == 0 else 1
    if n < 2 or not len(coords):
        yield from np.arange(len(coords))[:, None]
        return
    corner = coords.min(0)
    cell = (coords - corner) // (n * g.size)
    order = np.lexsort((cell[:, 0], cell[:, 1]))
    yield from np.split(order, np.flatnonzero((np.diff(cell[order], axis=0) != 0).any(1)) + 1)


def _examine(
    slide: AbstractSlide, coords: np.ndarray, g: Geometry, percent: float, threads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tissue share (N,) float32, validity (N,) bool and share that was scanned (N,) of the tiles at `coords`."""
    share, valid, scanned = np.zeros(len(coords), np.float32), np.zeros(len(coords), bool), np.ones(len(coords))

    def examine(block: np.ndarray) -> None:
        corner = coords[block].min(0)
        width, height = coords[block].max(0) - corner + g.size if g.level == 0 else (g.size, g.size)
        region, alpha = slide_files.read_region(slide, corner, g.level, (width, height))
        is_whole = alpha.getextrema() == (255, 255)
        for i in block:
            x, y = (coords[i] - corner).tolist()
            box = (x, y, x + g.size, y + g.size)
            tile = region if region.size == (g.size, g.size) else region.crop(box)
            if not is_whole:
                scanned[i] = np.asarray(alpha if region is tile else alpha.crop(box)).mean() / 255
            gray = np.asarray(slide_files.resize(tile, g.tile_px).convert("L"))
            share[i], valid[i] = slides_tissue.check(gray, percent)

    with ThreadPoolExecutor(threads) as pool:  # reading and the masks leave Python's lock
        for _ in pool.map(examine, _blocks(coords, g)):
            pass
    return share, valid, scanned


# -- choice ------------------------------------------------------------------------------------------------------
def choose(candidates: Candidates, n_tiles: int, how: str = "random", seed: int = 0) -> np.ndarray:
    """Indices of `n_tiles` valid candidates (all, where there are fewer), in reading order: PPEG sees space.

    random: without bias; tissue: the highest tissue share; spread: far from each other over the tissue.
    """
    valid = np.flatnonzero(candidates.valid)
    valid = valid[np.lexsort((candidates.coords[valid, 0], candidates.coords[valid, 1]))]
    if len(valid) <= n_tiles:
        return valid
    if how == "tissue":
        picked = np.argsort(-candidates.tissue[valid], kind="stable")[:n_tiles]
        return valid[np.sort(picked)]
    # Seeded by the slide too, so that adding a slide does not change another one's tiles.
    name = int.from_bytes(hashlib.sha256(candidates.attributes["name"].encode()).digest()[:4])
    random = np.random.default_rng([seed, name])
    if how == "random":
        picked = random.choice(len(valid), n_tiles, replace=False)
    else:
        picked = _spread(candidates.coords[valid].astype(float), n_tiles, int(random.integers(len(valid))))
    return valid[np.sort(picked)]


def _spread(points: np.ndarray, n: int, first: int) -> np.ndarray:
    """Farthest-point sampling (Gonzalez 1985): each next point is the farthest from those taken."""
    taken = [first]
    distance = np.hypot(*(points - points[first]).T)
    while len(taken) < n:
        taken.append(int(distance.argmax()))
        distance = np.minimum(distance, np.hypot(*(points - points[taken[-1]]).T))
    return np.array(taken)


# -- files -------------------------------------------------------------------------------------------------------
def read_tiles(path: Path | str, coords: np.ndarray, attributes: dict) -> np.ndarray:
    """Pixels (N, tile_px, tile_px, 3) uint8 of the tiles at level-0 `coords`, cut as `attributes` say."""
    g = coordinates.geometry_of(attributes)
    tiles = np.empty((len(coords), g.tile_px, g.tile_px, 3), dtype=np.uint8)
    with slide_files.open_slide(path) as slide:
        for i, (x, y) in enumerate(coords):
            tiles[i] = np.asarray(scale.read_tile(slide, g, x, y))
    return tiles


def read_candidates(path: Path) -> Candidates:
    """Candidates as `candidates_of` wrote them."""
    with h5py.File(path) as file:
        return Candidates(file["candidates"][:], file["tissue"][:], file["valid"][:], dict(file["candidates"].attrs))


def candidates_of(slide_path: Path | str, folder: Path, p: Params, threads: int = 1) -> Path:
    """HDF5 file of a slide's candidates (`coords` holds the valid ones, as TRIDENT and CLAM expect)."""
    slide_path = Path(slide_path)
    table = scale.read_mpp_table(p.path(p.mpp_table)) if p.mpp_table else {}
    coords_file = coordinates.find(p.path(p.coords_dir), slide_path.stem) if p.coords_dir else None
    inputs = {
        "slide": slide_files.slide_fingerprint(slide_path),
        "tile_px": p.tile_px,
        "scale": [p.tile_level, p.tile_mpp],
        "tissue": p.tissue,
        "tissue_percent": p.tissue_percent,
        "mpp": scale.table_mpp(slide_path, table),
        "coords": record.file_digest(coords_file) if coords_file else None,
        "versions": record.versions(*VERSIONS),
    }

    def make(unfinished: Path) -> dict:
        asked = (p.tile_px, p.tile_level, p.tile_mpp, p.tissue_percent)
        candidates = find_candidates(slide_path, *asked, table, coords_file, threads, p.tissue)
        coordinates.write(
            unfinished / "candidates.h5",
            candidates.attributes,
            coords=candidates.coords[candidates.valid],
            candidates=candidates.coords,
            tissue=candidates.tissue,
            valid=candidates.valid,
        )
        return {"valid": int(candidates.valid.sum()), "candidates": len(candidates.valid)}

    return record.cached(folder / "candidates", inputs, make) / "candidates.h5"
