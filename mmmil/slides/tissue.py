"""Tissue as histolab finds it (Preprocessing, Fig. 2), at the speed of reading the pixels.

histolab 0.7.0 looks for the biggest piece of tissue on a small image of the slide, lays a grid over its bounding box
and keeps a tile when more than a share of it is tissue by Otsu's threshold, dilated by two pixels and with holes
filled. Every rule here gives the same positions, masks and verdicts; the tests compare them with histolab's own.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from openslide import AbstractSlide

BORDER = 10  # px of white that histolab puts around a tile before it looks for tissue
SMALL = 32  # the slide is looked at 1/32 as large, or as its thumbnail where that is larger
INSIDE = 0.8  # share of a grid position that must lie in the tissue's box
STRIP_PX = 48_000_000  # pixels read at a time where a slide has no small level


def small_image(slide: AbstractSlide) -> Image.Image:
    """The image on which histolab looks for a slide's tissue: its thumbnail, or the slide at 1/32, the larger one.

    slide: openslide.OpenSlide. Memory stays bounded for slides without a pyramid, too.
    """
    width, height = slide.dimensions
    across, down = (int(s / 10 ** (int(np.ceil(np.log10(s))) - 3)) for s in (width, height))
    if min(across / width, down / height) > 1 / SMALL:
        return slide.get_thumbnail((across, down))
    level = slide.get_best_level_for_downsample(SMALL)
    return shrunk(slide, level, (width // SMALL, height // SMALL))


def shrunk(slide: AbstractSlide, level: int, size: tuple[int, int], strip_px: int = STRIP_PX) -> Image.Image:
    """A whole level as RGB, resized to `size` (width, height) by Lanczos' filter, read in strips.

    Pillow resizes rows first and columns then, each rounded to 8 bits: doing the rows strip by strip is the same.
    """
    width, height = slide.level_dimensions[level]
    factor = slide.level_downsamples[level]
    rows = max(1, strip_px // width)
    narrow = Image.new("RGB", (size[0], height))
    for top in range(0, height, rows):
        part = (width, min(rows, height - top))
        strip = slide.read_region((0, round(top * factor)), level, part).convert("RGB")
        narrow.paste(strip.resize((size[0], part[1]), Image.Resampling.LANCZOS), (0, top))
    return narrow.resize(size, Image.Resampling.LANCZOS)


def biggest_box(image: Image.Image) -> tuple[int, int, int, int] | None:
    """Bounding box of the biggest piece of tissue on a small image: first and last x and y; None without tissue."""
    from histolab.filters.compositions import FiltersComposition
    from histolab.slide import Slide
    from skimage.measure import label, regionprops

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated names inside histolab, and of a blank image
        mask = FiltersComposition(Slide).tissue_mask_filters(image)
        regions = regionprops(label(mask))
    if not regions:
        return None
    top, left, bottom, right = max(regions, key=lambda r: r.area).bbox  # of equals the first, as in histolab
    # histolab draws the box with its excluded lower right corner.
    return left, top, min(right, image.width - 1), min(bottom, image.height - 1)


def _scaled(values: np.ndarray, reference: int, target: int) -> np.ndarray:
    return np.floor((values * target) / reference).astype(np.int64)


def grid(
    box: tuple[int, int, int, int], small: tuple[int, int], level: tuple[int, int], level0: tuple[int, int], tile: int
) -> np.ndarray:
    """Upper left corners (N, 2) in level-0 px of the tiles of a grid over the tissue's box, column by column.

    box: first and last x and y on the small image of size `small`; level, level0: (width, height) of the level that
    is tiled and of level 0; tile: side of a tile in px of that level. Positions that reach the right or lower border
    of the slide are no positions, as in histolab.
    """
    corners = []
    for axis in (0, 1):
        first, last = box[axis], box[axis + 2]
        start, end = (int(_scaled(np.array(v, np.int64), small[axis], level[axis])) for v in (first, last + 1))
        corner = start + tile * np.arange(max(0, (end - start) // tile), dtype=np.int64)
        low, high = (_scaled(corner + add, level[axis], small[axis]) for add in (0, tile))
        seen = np.minimum(high, small[axis] - 1) - low + 1  # drawn with its last pixel
        inside = np.minimum(high, last) - np.maximum(low, first) + 1
        x0, x1 = (_scaled(corner + add, level[axis], level0[axis]) for add in (0, tile))
        corners.append((x0, inside.clip(0), seen, x1 < level0[axis]))
    (x, x_in, x_seen, x_fits), (y, y_in, y_seen, y_fits) = corners
    share = np.outer(x_in, y_in) / np.outer(x_seen, y_seen)
    i, j = np.nonzero((share > INSIDE) & np.outer(x_fits, y_fits))
    return np.stack([x[i], y[j]], 1)


@lru_cache
def _kernels() -> tuple[np.ndarray, np.ndarray]:
    disk = np.array([[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1] * 5, [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]], np.uint8)
    return disk, np.ones((20, 20), np.uint8)


def otsu(gray: np.ndarray, white: int) -> int:
    """Otsu's threshold of a grey tile uint8 with `white` more pixels of 255, by scikit-image on their histogram."""
    from skimage.filters import threshold_otsu  # half a second of imports that a study read back does not need

    counts = cv2.calcHist([gray], [0], None, [256], [0, 256]).ravel()
    counts[255] += white
    levels = np.flatnonzero(counts)
    if len(levels) == 1:
        return int(levels[0])
    first, last = levels[0], levels[-1]
    return int(threshold_otsu(hist=(counts[first : last + 1], np.arange(first, last + 1))))


def filled(mask: np.ndarray) -> np.ndarray:
    """The mask (0, 1) with its holes filled by scipy's rule with a 20 x 20 structure, as histolab does it.

    Background is outside when a chain of background pixels leads to the border, each at most 10 px up or left and
    9 px down or right of the one before it.
    """
    _, window = _kernels()
    background = 1 - mask
    outside = np.zeros_like(mask)
    while True:
        reached = cv2.dilate(outside, window, anchor=(9, 9), borderType=cv2.BORDER_CONSTANT, borderValue=1)
        cv2.bitwise_and(reached, background, dst=reached)
        if np.array_equal(reached, outside):
            return 1 - outside
        outside = reached


def mask(gray: np.ndarray) -> np.ndarray:
    """Tissue (0, 1) of a tile of grey values (px, px) uint8: histolab's Tile.tissue_mask."""
    disk, _ = _kernels()
    height, width = gray.shape
    frame = np.zeros((height + 2 * BORDER, width + 2 * BORDER), np.uint8)
    inner = (slice(BORDER, BORDER + height), slice(BORDER, BORDER + width))
    np.less(gray, otsu(gray, frame.size - gray.size), out=frame[inner].view(bool))
    return filled(cv2.dilate(frame, disk))[inner]


def check(gray: np.ndarray, percent: float = 90.0) -> tuple[float, bool]:
    """Share of tissue in [0, 1] and histolab's verdict (Tile.has_enough_tissue) on a grey tile (px, px) uint8."""
    share = cv2.countNonZero(mask(gray)) / gray.size
    if not share * 100 > percent:
        return share, False
    scaled = (gray / 255).ravel()
    almost_white = scaled.mean() > 0.9 and scaled.std() < 0.09
    return share, bool(not almost_white and np.var(gray) > 0.1)
