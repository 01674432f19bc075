"""Tiles that were cut beforehand: a bag of image files, named by a pattern in the place of a slide.

Nobody knows where they lie on a slide, so there are no coordinates: no heatmaps, and no PPEG in the models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmmil import record
from mmmil.params import Params
from mmmil.slides import coordinates
from mmmil.slides.files import SlideError
from mmmil.slides.tiling import Candidates, choose
from mmmil.sources.slide_files import images_of

# Of Pillow: an image that is none, ends too soon, is damaged, or states a size that no image has.
BROKEN = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
DEEP = ("I", "F")  # how Pillow calls pixels of more than 8 bits; to RGB it would cut them at 255


def read(path: Path, tile_px: int) -> np.ndarray:
    """Pixels (tile_px, tile_px, 3) uint8 of one image; what is transparent lies on white, as beside a slide.

    Raises SlideError for what is no image or cut short, for one of another size and for one of more than 8 bits.
    """
    _require_tile(path, tile_px)
    try:
        with Image.open(path) as image:
            if not image.has_transparency_data:
                return np.asarray(image.convert("RGB"))
            pixels = image.convert("RGBA")
            white = Image.new("RGBA", pixels.size, "white")
            return np.asarray(Image.alpha_composite(white, pixels).convert("RGB"))
    except BROKEN as error:
        raise SlideError(f"{path}: cannot be read as an image ({error}); copy it again") from None


def _require_tile(path: Path, tile_px: int) -> None:
    """By the header alone."""
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
    except BROKEN as error:
        raise SlideError(f"{path}: is no image that can be read ({error}); correct slide_path") from None
    if size != (tile_px, tile_px):
        raise SlideError(
            f"{path}: is {size[0]} x {size[1]} px, and tiles are {tile_px} px square; set tile_px to the images' "
            "side, or cut them again"
        )
    if mode.startswith(DEEP):
        raise SlideError(f"{path}: has more than 8 bits a channel ({mode}); save it as RGB of 8 bits")


def require_tiles(pattern: Path, tile_px: int) -> int:
    """How many images a pattern names. Raises SlideError for the first that is of another size than the tiles, or of
    more than 8 bits; of each only the header is read.
    """
    images = images_of(pattern)
    for path in images:
        _require_tile(path, tile_px)
    return len(images)


def bag_of(pattern: Path, slide_id: str, folder: Path, p: Params, n_tiles: int) -> Path:
    """HDF5 file of a bag: `imgs` (n_tiles, px, px, 3) uint8 and `mask` (n_tiles,), without coordinates.

    Of more images than n_tiles a seeded choice, in the order of their names; of fewer, white ones at the end, False in
    `mask`. Raises SlideError as `read` does.
    """
    images = images_of(pattern)
    inputs = {
        "images": [[path.name, record.file_digest(path)] for path in images],
        "name": slide_id,
        "tile_px": p.tile_px,
        "n_tiles": n_tiles,
        "seed": p.seed,
        "versions": record.versions("pillow"),
    }

    def make(unfinished: Path) -> None:
        chosen = [images[i] for i in _chosen(images, slide_id, n_tiles, p.seed)]
        tiles = np.full((n_tiles, p.tile_px, p.tile_px, 3), 255, np.uint8)
        for tile, path in zip(tiles, chosen, strict=False):
            tile[:] = read(path, p.tile_px)
        about = {"patch_size": p.tile_px, "name": slide_id}
        coordinates.write(unfinished / "bag.h5", about, imgs=tiles, mask=np.arange(n_tiles) < len(chosen))

    return record.cached(folder / "bags", inputs, make) / "bag.h5"


def _chosen(images: Sequence[Path], slide_id: str, n_tiles: int, seed: int) -> np.ndarray:
    """Indices of the images in the bag, by `tiling.choose`: each counts alike, and their order is that of the names."""
    n = len(images)
    order = np.stack([np.arange(n), np.zeros(n, int)], 1)
    return choose(Candidates(order, np.ones(n), np.ones(n, bool), {"name": slide_id}), n_tiles, "random", seed)
