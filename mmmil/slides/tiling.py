"""Slides to tiles: histolab's grid and tissue check, the same number of tiles for every patient (Preprocessing).

A slide's *candidates*, every position of histolab's grid with its tissue share and whether it is valid, are found
again by the hash of what they depend on; `mmmil.slides.bags` makes a cohort's bags of them.

Where a number of random tiles is wanted, positions are tested in an order that slide and seed decide, and only until
that many are valid: the tiles are those that testing every position would give, and hundreds are read in place of tens
of thousands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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

    coords: (N, 2) int, upper left corner in level-0 px; tissue: (N,) share of tissue by Otsu in [0, 1], NaN where a
    position was not tested; valid: (N,) bool, histolab's tissue check, False where it was not tested; attributes:
    TRIDENT's names, plus mpp, level, size and grid, and of our own grid pieces (of tissue) and left_out (share of
    their area that is not tiled).
    """

    coords: np.ndarray
    tissue: np.ndarray
    valid: np.ndarray
    attributes: dict

    @property
    def tested(self) -> np.ndarray:
        """Which positions were tested, (N,) bool: all, or those up to the last tile that was wanted."""
        return ~np.isnan(self.tissue)

    @property
    def valid_estimate(self) -> float:
        """Valid positions of the whole grid: their number where all were tested, else an estimate.

        Of m tested positions the last is the n-th valid one, so that (n - 1) / (m - 1) is expected to be the share of
        valid ones (Haldane 1945), on a finite grid too: it is how probable it is, given m, that the first was valid.
        """
        valid, tested, there = int(self.valid.sum()), int(self.tested.sum()), len(self.valid)
        if tested == there:
            return float(valid)
        return there * (valid - 1) / (tested - 1) if valid > 1 else there * valid / tested


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
    wanted: int = 0,
    seed: int = 0,
) -> Candidates:
    """Histolab's grid over the biggest piece of tissue, each position with its tissue share and validity.

    wanted: positions are tested in the order of `drawn` for this seed until so many are valid, and all where there are
    fewer; 0: all are tested.

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
            order = drawn(coords, path.stem, seed) if wanted else np.arange(len(coords))
            examine = partial(_examine, slide, g=g, percent=tissue_percent, threads=threads)
            share, valid = search(wanted or len(coords), coords, order, examine, bool(coords_file))
        except OpenSlideError as error:
            damaged = f"reading its pixels failed ({error}): the file is damaged"
            raise SlideError(f"{path}: {damaged}; {slide_files.AGAIN}") from None
        width, height = slide.dimensions
    attributes = coordinates.attributes(g, path.stem, width, height) | about
    return Candidates(coords, share, valid, attributes)


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


def search(
    wanted: int, coords: np.ndarray, order: np.ndarray, examine: Callable, is_given: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Tissue share (N,) float32, NaN where not tested, and validity (N,) bool of the tiles at `coords`.

    They are tested in this order until `wanted` are valid.

    is_given: positions of a file are valid whatever their tissue share. As many are tested at a time as are still
    missing: none in vain, and the same ones with any number of threads.
    """
    share, valid = np.full(len(coords), np.nan, np.float32), np.zeros(len(coords), bool)
    at = 0
    while at < len(coords) and (missing := wanted - int(valid.sum())) > 0:
        some = order[at : at + missing]
        share[some], is_tissue, scanned = examine(coords[some])
        valid[some] = (is_tissue | is_given) & (scanned >= MIN_SCANNED)
        at += missing
    return share, valid


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
def drawn(coords: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Indices (N,) of all positions in random order, whichever order `coords` (N, 2) has.

    Its first n valid ones are n of the valid ones, every set of n alike: all orders of these are equally likely,
    whatever lies between them. So who stops there draws as who tests every position first.
    """
    return _in_reading_order(coords)[_random(name, seed).permutation(len(coords))]


def _in_reading_order(coords: np.ndarray) -> np.ndarray:
    return np.lexsort((coords[:, 0], coords[:, 1]))


def _random(name: str, seed: int) -> np.random.Generator:
    # Seeded by the slide too, so that adding a slide does not change another one's tiles.
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])])


def choose(candidates: Candidates, n_tiles: int, how: str = "random", seed: int = 0) -> np.ndarray:
    """Indices of `n_tiles` valid candidates (all, where there are fewer), in reading order: PPEG sees space.

    random: without bias, the first ones of `drawn`; tissue: the highest tissue share; spread: far from each other over
    the tissue. Raises ValueError for the last two where not every position was tested.
    """
    coords, name = candidates.coords, str(candidates.attributes["name"])
    if how == "random":
        order = drawn(coords, name, seed)
        picked = order[candidates.valid[order]][:n_tiles]
        return picked[_in_reading_order(coords[picked])]
    if not candidates.tested.all():
        raise ValueError(f"{name}: not every position was tested, which tile_choice {how} chooses among")
    order = _in_reading_order(coords)
    valid = order[candidates.valid[order]]
    if len(valid) <= n_tiles:
        return valid
    if how == "tissue":
        picked = np.argsort(-candidates.tissue[valid], kind="stable")[:n_tiles]
    else:
        picked = _spread(coords[valid].astype(float), n_tiles, int(_random(name, seed).integers(len(valid))))
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
    """HDF5 file of a slide's candidates (`coords` holds the valid ones, as TRIDENT and CLAM expect).

    For random tiles of a known number positions are tested until so many are valid, else all of them.
    """
    slide_path = Path(slide_path)
    wanted = p.n_tiles if p.tile_choice == "random" else 0
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
        "wanted": [wanted, p.seed] if wanted else None,
        "versions": record.versions(*VERSIONS),
    }

    def make(unfinished: Path) -> dict:
        asked = (p.tile_px, p.tile_level, p.tile_mpp, p.tissue_percent)
        candidates = find_candidates(slide_path, *asked, table, coords_file, threads, p.tissue, wanted, p.seed)
        coordinates.write(
            unfinished / "candidates.h5",
            candidates.attributes,
            coords=candidates.coords[candidates.valid],
            candidates=candidates.coords,
            tissue=candidates.tissue,
            valid=candidates.valid,
        )
        facts = {"candidates": len(candidates.valid), "tested": int(candidates.tested.sum())}
        return facts | {"valid": int(candidates.valid.sum())}

    return record.cached(folder / "candidates", inputs, make) / "candidates.h5"
