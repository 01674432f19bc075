"""Tissue as histolab finds it (Preprocessing, Fig. 2), at the speed of reading the pixels.

histolab 0.7.0 looks for the biggest piece of tissue on a small image of the slide, lays a grid over its bounding box
and keeps a tile when more than a share of it is tissue by Otsu's threshold, dilated by two pixels and with holes
filled. Every rule here gives the same positions, masks and verdicts; the tests compare them with histolab's own.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from PIL import Image

from mmmil.slides import appearance
from mmmil.slides.files import read_region

if TYPE_CHECKING:
    from openslide import AbstractSlide

BORDER = 10  # px of white that histolab puts around a tile before it looks for tissue
SMALL = 32  # the slide is looked at 1/32 as large, or as its thumbnail where that is larger
INSIDE = 0.8  # share of a grid position that must lie in the tissue's box
STRIP_PX = 48_000_000  # pixels read at a time where a slide has no small level
MIN_PIECE = 0.1  # of the stained area of the piece that has the most, from which on another one is no crumb

Box = tuple[int, int, int, int]  # first and last x and y: left, top, right, bottom


def small_image(slide: AbstractSlide) -> Image.Image:
    """The image on which histolab looks for a slide's tissue: its thumbnail, or the slide at 1/32, the larger one.

    slide: openslide.OpenSlide. Memory stays bounded for slides without a pyramid, too.
    """
    width, height = slide.dimensions
    across, down = (int(s / 10 ** (int(np.ceil(np.log10(s))) - 3)) for s in (width, height))
    if min(across / width, down / height) > 1 / SMALL:
        # As OpenSlide's get_thumbnail, which histolab calls; but that one takes the file's own background colour.
        level = slide.get_best_level_for_downsample(max(width / across, height / down))
        image, _ = read_region(slide, (0, 0), level, slide.level_dimensions[level])
        image.thumbnail((across, down), Image.Resampling.LANCZOS)
        return image
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
        strip, _ = read_region(slide, (0, round(top * factor)), level, part)
        narrow.paste(strip.resize((size[0], part[1]), Image.Resampling.LANCZOS), (0, top))
    return narrow.resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Tissue:
    """Where tiles of a slide are looked for: boxes on its small image, which do not overlap.

    pieces: of tissue, in the boxes or not; left_out: share of their stained area outside the boxes.
    """

    boxes: list[Box]
    pieces: int
    left_out: float


def find(image: Image.Image, which: Literal["biggest", "all"] = "biggest") -> Tissue:
    """The tissue on a slide's small image: the box of its biggest piece as histolab's, or the boxes of all pieces.

    A piece is what histolab's filters leave in one piece, with at least MIN_PIECE of the stained area that the piece
    with the most has: dust, pen and crumbs are none. Boxes that touch are joined, so that no tissue is tiled twice.
    """
    regions, stained = _regions(image), _stained(np.asarray(image))
    area = [int(stained[tuple(region.coords.T)].sum()) for region in regions]
    pieces = [region for region, n in zip(regions, area, strict=True) if n and n >= MIN_PIECE * max(area)]
    if which == "all":
        boxes = _joined([_box(region, image) for region in pieces])
    else:
        boxes = [_box(_biggest(regions), image)] if regions else []
    outside = np.zeros_like(stained)
    for region in pieces:
        outside[tuple(region.coords.T)] = stained[tuple(region.coords.T)]
    total = int(outside.sum())
    for left, top, right, bottom in boxes:
        outside[top : bottom + 1, left : right + 1] = False
    return Tissue(boxes, len(pieces), int(outside.sum()) / total if total else 0.0)


def biggest_box(image: Image.Image) -> Box | None:
    """Bounding box of the biggest piece of tissue on a small image; None without tissue."""
    regions = _regions(image)
    return _box(_biggest(regions), image) if regions else None


def _regions(image: Image.Image) -> list[Any]:
    from histolab.filters.compositions import FiltersComposition
    from histolab.slide import Slide
    from skimage.measure import label, regionprops

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated names inside histolab, and of a blank image
        mask = FiltersComposition(Slide).tissue_mask_filters(image)
        return regionprops(label(mask))


def _biggest(regions: list[Any]) -> Any:
    return max(regions, key=lambda region: region.area)  # of equals the first, as in histolab


def _box(region: Any, image: Image.Image) -> Box:
    top, left, bottom, right = region.bbox
    # histolab draws the box with its excluded lower right corner.
    return left, top, min(right, image.width - 1), min(bottom, image.height - 1)


def _stained(image: np.ndarray) -> np.ndarray:
    """Stained tissue (h, w) bool of a small image (h, w, 3), no pen and no dust (`appearance.tissue_mask`).

    Found on a thumbnail of it: there a pen's stroke is known by its width.
    """
    height, width = image.shape[:2]
    factor = max(height, width) / appearance.LONGEST
    if factor > 1:
        size = (max(round(width / factor), 1), max(round(height / factor), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    mask = appearance.tissue_mask(image).astype(np.uint8)
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0


def _joined(boxes: list[Box]) -> list[Box]:
    """Boxes of which no two touch: those that do become the one around them."""
    apart: list[Box] = []
    for box in boxes:
        while touching := [other for other in apart if _touch(box, other)]:
            apart = [other for other in apart if other not in touching]
            left, top, right, bottom = zip(box, *touching, strict=True)
            box = min(left), min(top), max(right), max(bottom)
        apart.append(box)
    return apart


def _touch(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _scaled(values: np.ndarray, reference: int, target: int) -> np.ndarray:
    return np.floor((values * target) / reference).astype(np.int64)


def grid(box: Box, small: tuple[int, int], level: tuple[int, int], level0: tuple[int, int], tile: int) -> np.ndarray:
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
