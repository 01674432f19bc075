"""Slides to tiles: histolab's grid and tissue check, the same number of tiles for every patient (Preprocessing).

Two results per slide, each found again by the hash of what it depends on: its *candidates* (every position of
histolab's grid with its tissue share and whether it is valid), and its *bag* (the chosen tiles' pixels).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from openslide import OpenSlideError
from tqdm import tqdm

from mmmil import coordinates, record, slides, tissue
from mmmil.params import Params
from mmmil.slides import Geometry, SlideError

SUMMARY = ["patient_id", "slide_id", "width", "height", "mpp", "um_per_tile"]
SUMMARY += ["candidates", "valid", "used", "bag", "problem"]
BLOCK_PX = 1024  # tiles that touch are read together, up to this side: fewer JPEG tiles are decoded twice
CODE = ("mmmil.tiling", "mmmil.tissue", "mmmil.slides", "mmmil.coordinates")
VERSIONS = ("histolab", "scikit-image", "openslide-bin", "opencv-python-headless", "pillow")


class TilingError(SlideError):
    """A slide cannot be used, or has too few valid tiles; names every such slide."""


@dataclass(frozen=True)
class Candidates:
    """Every position of the grid on one slide.

    coords: (N, 2) int, upper left corner in level-0 px; tissue: (N,) share of tissue by Otsu in [0, 1];
    valid: (N,) bool, histolab's tissue check; attributes: TRIDENT's names, plus mpp, level, size and grid.
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
    magnification: float = 0,
    mpp: float = 0,
    tissue_percent: float = 90.0,
    mpp_table: dict | None = None,
    coords_file: Path | None = None,
    threads: int = 1,
) -> Candidates:
    """Histolab's grid over the biggest tissue region, each position with its tissue share and validity.

    The valid positions are the tiles that `histolab.tiler.GridTiler.extract` writes with the same settings. With a
    `coords_file` of CLAM or TRIDENT the positions are theirs, all valid. Raises SlideError for a slide that cannot
    be opened, scaled or read.
    """
    path = Path(path)
    with slides.open_slide(path) as slide:
        if coords_file:
            coords, g = coordinates.read(coords_file, slide, path, tile_px, mpp_table or {})
        else:
            g = slides.geometry(slide, path, tile_px, level, magnification, mpp, mpp_table)
        try:
            if not coords_file:
                coords = _grid(slide, g)
            share, valid = _examine(slide, coords, g, tissue_percent, threads)
        except OpenSlideError as error:
            damaged = f"reading its pixels failed ({error}): the file is damaged"
            raise SlideError(f"{path}: {damaged}; {slides.AGAIN}") from None
        width, height = slide.dimensions
    attributes = coordinates.attributes(g, path.stem, width, height) | {"grid": "file" if coords_file else "histolab"}
    return Candidates(coords, share, valid | bool(coords_file), attributes)


def _grid(slide, g: Geometry) -> np.ndarray:
    image = tissue.small_image(slide)
    box = tissue.biggest_box(image)
    if box is None:
        return np.zeros((0, 2), np.int64)
    tile = g.tile_px if g.grid_level == g.level and g.size == g.tile_px else g.size_level0
    return tissue.grid(box, image.size, slide.level_dimensions[g.grid_level], slide.dimensions, tile)


def _blocks(coords: np.ndarray, g: Geometry) -> Iterator[np.ndarray]:
    """Indices of tiles that are read at once: neighbours at level 0; elsewhere corners may lie between two pixels."""
    n = BLOCK_PX // g.size if g.level == 0 else 1
    if n < 2 or not len(coords):
        yield from ([i] for i in range(len(coords)))
        return
    corner = coords.min(0)
    cell = (coords - corner) // (n * g.size)
    order = np.lexsort((cell[:, 0], cell[:, 1]))
    yield from np.split(order, np.flatnonzero((np.diff(cell[order], axis=0) != 0).any(1)) + 1)


def _examine(slide, coords: np.ndarray, g: Geometry, percent: float, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Tissue share (N,) float32 and validity (N,) bool of the tiles at `coords`."""
    share, valid = np.zeros(len(coords), np.float32), np.zeros(len(coords), bool)

    def examine(block) -> None:
        corner = coords[block].min(0)
        width, height = coords[block].max(0) - corner + g.size if g.level == 0 else (g.size, g.size)
        region = slide.read_region(tuple(map(int, corner)), g.level, (int(width), int(height)))
        for i in block:
            x, y = (coords[i] - corner).tolist()
            tile = region if region.size == (g.size, g.size) else region.crop((x, y, x + g.size, y + g.size))
            gray = np.asarray(slides.resize(tile, g.tile_px).convert("L"))
            share[i], valid[i] = tissue.check(gray, percent)

    with ThreadPoolExecutor(threads) as pool:  # reading and the masks leave Python's lock
        for _ in pool.map(examine, _blocks(coords, g)):
            pass
    return share, valid


# -- choice ------------------------------------------------------------------------------------------------------
def choose(found: Candidates, n_tiles: int, how: str = "random", seed: int = 0) -> np.ndarray:
    """Indices of `n_tiles` valid candidates (all, where there are fewer), in reading order: PPEG sees space.

    random: without bias; tissue: the highest tissue share; spread: far from each other over the tissue.
    """
    valid = np.flatnonzero(found.valid)
    valid = valid[np.lexsort((found.coords[valid, 0], found.coords[valid, 1]))]
    if len(valid) <= n_tiles:
        return valid
    if how == "tissue":
        picked = np.argsort(-found.tissue[valid], kind="stable")[:n_tiles]
        return valid[np.sort(picked)]
    # Seeded by the slide too, so that adding a slide does not change another one's tiles.
    name = int.from_bytes(hashlib.sha256(found.attributes["name"].encode()).digest()[:4])
    random = np.random.default_rng([seed, name])
    if how == "random":
        picked = random.choice(len(valid), n_tiles, replace=False)
    else:
        picked = _spread(found.coords[valid].astype(float), n_tiles, int(random.integers(len(valid))))
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
    with slides.open_slide(path) as slide:
        for i, (x, y) in enumerate(coords):
            tiles[i] = slides.rgb(slides.read_tile(slide, g, x, y))
    return tiles


def read_candidates(path: Path) -> Candidates:
    """Candidates as `candidates_of` wrote them."""
    with h5py.File(path) as file:
        return Candidates(file["candidates"][:], file["tissue"][:], file["valid"][:], dict(file["candidates"].attrs))


def candidates_of(slide_path: Path | str, folder: Path, p: Params, threads: int = 1) -> Path:
    """HDF5 file of a slide's candidates (`coords` holds the valid ones, as TRIDENT and CLAM expect)."""
    slide_path = Path(slide_path)
    table = slides.read_mpp_table(p.path(p.mpp_table)) if p.mpp_table else {}
    coords_file = coordinates.find(p.path(p.coords_dir), slide_path.stem) if p.coords_dir else None
    inputs = {
        "slide": slides.slide_fingerprint(slide_path),
        "tile_px": p.tile_px,
        "scale": [p.tile_level, p.tile_magnification, p.tile_mpp],
        "tissue_percent": p.tissue_percent,
        "mpp": slides.table_mpp(slide_path, table),
        "coords": record.file_digest(coords_file) if coords_file else None,
        "code": record.source_digest(*CODE),
        "versions": record.versions(*VERSIONS),
    }

    def make(unfinished: Path) -> dict:
        scale = (p.tile_level, p.tile_magnification, p.tile_mpp)
        found = find_candidates(slide_path, p.tile_px, *scale, p.tissue_percent, table, coords_file, threads)
        coordinates.write(
            unfinished / "candidates.h5",
            found.attributes,
            coords=found.coords[found.valid],
            candidates=found.coords,
            tissue=found.tissue,
            valid=found.valid,
        )
        return {"valid": int(found.valid.sum()), "candidates": len(found.valid)}

    return record.cached(folder / "candidates", inputs, make) / "candidates.h5"


def bag_of(slide_path: Path, candidates_path: Path, folder: Path, p: Params, n_tiles: int) -> Path:
    """HDF5 file of a slide's bag: `coords` (n, 2) in level-0 px, `imgs` (n_tiles, px, px, 3) uint8, `mask` (n_tiles,).

    Where there are fewer than n_tiles, the bag is padded with white tiles at its end, False in `mask`.
    """
    inputs = {
        "candidates": candidates_path.parent.name,
        "n_tiles": n_tiles,
        "tile_choice": p.tile_choice,
        "seed": p.seed,
        "code": record.source_digest(*CODE),
    }

    def make(unfinished: Path) -> None:
        found = read_candidates(candidates_path)
        coords = found.coords[choose(found, n_tiles, p.tile_choice, p.seed)]
        tiles = np.full((n_tiles, p.tile_px, p.tile_px, 3), 255, np.uint8)
        tiles[: len(coords)] = read_tiles(slide_path, coords, found.attributes)
        mask = np.arange(n_tiles) < len(coords)
        coordinates.write(unfinished / "bag.h5", found.attributes, coords=coords, imgs=tiles, mask=mask)

    return record.cached(folder / "bags", inputs, make) / "bag.h5"


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


def load_coords(path: str) -> tuple[np.ndarray, dict]:
    """Coordinates (n, 2) in level-0 px of a bag's real tiles, and its attributes."""
    with h5py.File(path) as file:
        return file["coords"][:], dict(file["coords"].attrs)


# -- cohort ------------------------------------------------------------------------------------------------------
def _examine_slide(patient_id: str, slide_id: str, slide_path: Path, p: Params, threads: int) -> dict:
    row = dict.fromkeys(SUMMARY, "") | {"patient_id": patient_id, "slide_id": slide_id}
    try:
        path = candidates_of(slide_path, p.results / "tiles" / slide_id, p, threads)
    except SlideError as error:
        return row | {"problem": f"error: {error}"}
    found = read_candidates(path)
    a = found.attributes
    return row | {
        "width": int(a["level0_width"]),
        "height": int(a["level0_height"]),
        "mpp": round(float(a["mpp"]), 4),
        "um_per_tile": round(float(a["mpp"] * a["patch_size"]), 2),
        "candidates": len(found.valid),
        "valid": int(found.valid.sum()),
        "found": str(path),
    }


def _bag_slide(row: dict, slide_path: Path, p: Params, n_tiles: int) -> dict:
    try:
        path = Path(row["found"])
        bag = bag_of(slide_path, path, p.results / "tiles" / row["slide_id"], p, n_tiles)
        return row | {"bag": str(bag), "used": min(row["valid"], n_tiles)}
    except (SlideError, OSError) as error:
        return row | {"problem": f"error: {error}"}


def common_number(valid: pd.Series, p: Params) -> int:
    """Tiles per patient: n_tiles, or the largest number that every patient with at least min_tiles can give.

    valid: valid tiles per slide that could be read. Raises TilingError where nobody has min_tiles.
    """
    if p.n_tiles:
        return p.n_tiles
    enough = valid[valid >= p.min_tiles]
    if enough.empty:
        most = f"the most is {valid.max()}" if len(valid) else "no slide could be read"
        raise TilingError(
            f"no patient has min_tiles ({p.min_tiles}) valid tiles, {most}; lower min_tiles or tissue_percent"
        )
    return int(enough.min())


def tile_cohort(patients: pd.DataFrame, p: Params, workers: int = 1) -> pd.DataFrame:
    """Tile every patient's slide; one row per patient with columns SUMMARY, `bag` empty where there is none.

    A bad slide does not stop the others. Raises TilingError at the end, naming all of them; slides with too few
    valid tiles are an error, reported in `problem`, or padded, by the parameter `few_tiles`.
    """
    jobs = min(workers, len(patients))
    threads = max(1, workers // max(jobs, 1))  # of one slide, where there are fewer slides than workers

    def run(calls, what: str) -> list[dict]:
        calls = list(calls)
        done = Parallel(n_jobs=jobs, return_as="generator")(calls)
        return list(tqdm(done, total=len(calls), desc=what, unit="slide", mininterval=5))

    rows = run(
        (delayed(_examine_slide)(i, r.slide_id, Path(r.slide_path), p, threads) for i, r in patients.iterrows()),
        "looking for tissue",
    )
    read = [row for row in rows if not row["problem"]]
    if read:
        n_tiles = common_number(pd.Series([row["valid"] for row in read]), p)
        least = 1 if p.few_tiles == "pad" else (n_tiles if p.n_tiles else p.min_tiles)
        asked = {1: "none at all"}.get(least, f"fewer than {'n_tiles' if p.n_tiles else 'min_tiles'} ({least})")
        for row in read:
            if row["valid"] < least:
                row["problem"] = f"{row['valid']} valid tiles, {asked}"
        paths = patients["slide_path"]
        good = [row for row in read if not row["problem"]]
        bagged = run(
            (delayed(_bag_slide)(row, Path(paths[row["patient_id"]]), p, n_tiles) for row in good), "reading tiles"
        )
        done = {row["patient_id"]: row for row in bagged}
        rows = [done.get(row["patient_id"], row) for row in rows]
    table = pd.DataFrame(rows, columns=SUMMARY)
    bad = table["problem"].str.startswith("error: ")
    if p.few_tiles == "error":
        bad |= table["problem"] != ""
    if bad.any():
        lines = "\n".join(f"  {r.patient_id}: {r.problem.removeprefix('error: ')}" for r in table[bad].itertuples())
        raise TilingError(f"{bad.sum()} of {len(table)} slides cannot be used:\n{lines}")
    return table
