"""Slides drawn for a test: pieces of tissue on glass, with any statement of scale, and with parts never scanned."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import tifffile

from mmmil import params
from mmmil.slides import coordinates, scale, tiling
from mmmil.slides import files as slide_files

GLASS, NUCLEI = 243, 0.12
TILE = 256
BLUE = (20, 20, 235)  # of the odd tile

Box = tuple[int, int, int, int]


def tissue(side: int, boxes: Sequence[Box], seed: int = 0) -> np.ndarray:
    """Pixels (side, side, 3) of bright glass with H&E-like tissue in boxes (left, top, right, bottom)."""
    random = np.random.default_rng(seed)
    image = np.full((side, side, 3), GLASS, np.uint8)
    for left, top, right, bottom in boxes:
        height, width = bottom - top, right - left
        piece = np.array([205, 140, 185]) + random.normal(0, 12, (height, width, 3))
        nuclei = random.random((height // 8 + 1, width // 8 + 1)) < NUCLEI
        piece[np.kron(nuclei, np.ones((8, 8), bool))[:height, :width]] = (150, 95, 160)
        image[top:bottom, left:right] = np.clip(piece, 0, 255)
    return image


def aperio(
    path: Path, image: np.ndarray, mpp: float | None = 0.5, power: float | None = 20, levels: Sequence[int] = (1, 4)
) -> Path:
    """An Aperio pyramid that states `mpp` and `power`, or does not."""
    height, width = image.shape[:2]
    about = f"Aperio Image Library v12.0.15 \r\n{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE}) JPEG/RGB Q=90"
    about += (f"|AppMag = {power}" if power else "") + (f"|MPP = {mpp}" if mpp else "")
    _write(path, image, levels, about)
    return path


def generic(path: Path, image: np.ndarray, mpp: tuple[float, float] | None = None) -> Path:
    """A plain pyramid of three levels, as Philips' exports; mpp: µm per px across and down, in TIFF's own tags."""
    tags = {"resolution": (1e4 / mpp[0], 1e4 / mpp[1]), "resolutionunit": "CENTIMETER"} if mpp else {}
    _write(path, image, (1, 4, 16), None, **tags)
    return path


def _write(path: Path, image: np.ndarray, levels: Sequence[int], about: str | None, **tags: object) -> None:
    with tifffile.TiffWriter(path) as file:
        for level in levels:
            file.write(
                np.ascontiguousarray(image[::level, ::level]), tile=(TILE, TILE), photometric="rgb",
                compression="jpeg", compressionargs={"level": 92}, metadata=None, software=False,
                description=about if level == 1 else None, subfiletype=int(level > 1), **tags,
            )  # fmt: skip


def unscan(path: Path, scanned: Callable[[int, int, int], bool]) -> Path:
    """Leave out the TIFF tiles of which `scanned(side, left, top)`, all in level-0 px, is False."""
    empty = []
    with tifffile.TiffFile(path) as file:
        width = file.pages[0].imagewidth
        for page in file.pages:
            side, columns = TILE * width // page.imagewidth, -(-page.imagewidth // TILE)
            for tag in (page.tags[324], page.tags[325]):
                size = {3: 2, 4: 4, 13: 4, 16: 8}[int(tag.dtype)]
                empty += [
                    (tag.valueoffset + i * size, size)
                    for i in range(tag.count)
                    if not scanned(side, i % columns * side, i // columns * side)
                ]
    with path.open("r+b") as file:
        for offset, size in empty:
            file.seek(offset)
            file.write(bytes(size))
    return path


def write_slide(path: Path, pixels: np.ndarray, mpp: float = 0.5) -> None:
    """A lossless two-level Aperio pyramid of pixels (H, W, 3), the second level 4 times smaller."""
    h, w = (n // 4 * 4 for n in pixels.shape[:2])
    smaller = pixels[:h, :w].reshape(h // 4, 4, w // 4, 4, 3).mean((1, 3)).round().astype(np.uint8)
    more = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "software": False, "compression": "zlib"}
    with tifffile.TiffWriter(path) as file:
        about = f"Aperio Image Library v12\r\n{w}x{h}|AppMag = 20|MPP = {mpp}"
        file.write(pixels, description=about, **more)
        file.write(smaller, subfiletype=1, description=about, **more)


def one_odd_tile(folder: Path, tile_px: int = 64, level: int = 0, odd: int = 7) -> SimpleNamespace:
    """A study of one slide, odd.svs, on which exactly one tile, number `odd` of the bag, is blue."""
    size = tile_px * 4**level
    columns, rows = 1004 // size, 900 // size
    corners = [(x * size + 4, y * size + 8) for y in range(rows - 1) for x in range(columns)]
    corners = [c for c in corners if c[0] + size <= 1004][::2]
    pixels = np.random.default_rng(0).normal((215, 160, 195), 12, (900, 1004, 3)).clip(0, 255).astype(np.uint8)
    x, y = corners[odd]
    pixels[y : y + size, x : x + size] = BLUE
    path = folder / "odd.svs"
    write_slide(path, pixels)
    with slide_files.open_slide(path) as slide:
        g = scale.geometry(slide, path, tile_px, level)
        about = coordinates.attributes(g, path.stem, *slide.dimensions)
    coords = np.array(corners)
    tiles = tiling.read_tiles(path, coords, about)
    coordinates.write(folder / "bag.h5", about, coords=coords, imgs=tiles, mask=np.ones(len(coords), bool))
    p = params.load("lgg", "demo", results_dir=str(folder / "results"), tile_px=tile_px, tile_level=level)
    patients = pd.DataFrame({"slide_path": [str(path)], "label": [1]}, index=["P1"])
    return SimpleNamespace(
        p=p,
        has_coords=True,
        cohort=SimpleNamespace(patients=patients),
        labels=patients["label"],
        bag_paths=pd.Series({"P1": str(folder / "bag.h5")}),
    )
