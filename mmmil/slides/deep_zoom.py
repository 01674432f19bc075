"""A slide as a pyramid of small JPEG files, which a browser shows without a server.

A slide has billions of pixels and a page a few megabytes. So the coarse levels show all of it, as far as half of the
budget goes, and the fine ones only the surroundings of a model's tiles, down to the pixels that the model read.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from openslide import OpenSlideError
from PIL import Image
from tqdm import tqdm

from mmmil import record
from mmmil.slides import files as slide_files
from mmmil.slides.files import SlideError

if TYPE_CHECKING:
    from openslide import AbstractSlide

    from mmmil.slides.places import Place

TILE = 256  # px, side of a file's image
QUALITY = 75  # of JPEG
WHOLE = 0.5  # share of the budget for levels of the whole slide, where the finest does not fit
SAMPLE = 1024  # px, longest side of the level that tells how many bytes a pixel takes
BLOCK = 2048  # px, side of what is read of a slide at a time
LARGEST = 10**8  # px of a level of the whole slide, which is in memory at once: 300 MB, whatever the budget
ABOUT = "pyramid.json"
LIBRARIES = ("openslide-bin", "opencv-python-headless", "pillow")


@dataclass(frozen=True)
class Pyramid:
    """What lies in a pyramid's folder: `<level>/<column>_<row>.jpg`, each of TILE px or less at the right and below.

    width, height: of the finest level, px; shrink: level-0 px to one of its px; finest: its number, where level 0 is
    the one that fits into one file; whole: number of the last level that shows all of the slide; around: files of
    finer levels, as `<level>/<column>_<row>`; detailed: how many of the model's tiles are there in their own pixels.
    """

    width: int
    height: int
    shrink: int
    finest: int
    whole: int
    around: list[str]
    detailed: int
    bytes: int


def make(where: Place, first: Sequence[int], megabytes: float, folder: Path) -> Path:
    """The folder of a slide's pyramid, which holds at most so many MB (10^6 bytes); found again, or made now.

    where: the model's tiles on the slide; first: their numbers, those first that are to be seen in their own pixels
    where not all fit. Raises SlideError where the slide cannot be read, and for a budget that is none.
    """
    is_number = isinstance(megabytes, int | float) and not isinstance(megabytes, bool)
    if not (is_number and 0 < megabytes < math.inf):
        raise SlideError(f"{where.slide_path}: no pyramid has {megabytes!r} MB; give a number, 0.1 or more")
    inputs = {
        "slide": slide_files.slide_fingerprint(where.slide_path),
        "tiles": record.digest([where.coords.tolist(), where.size, where.pixels.shape[1], [int(i) for i in first]]),
        "megabytes": megabytes,
        "versions": record.versions(*LIBRARIES),
    }

    def write(unfinished: Path) -> dict:
        with slide_files.open_slide(where.slide_path) as slide:
            try:
                pyramid = _write(slide, where, first, int(1e6 * megabytes), unfinished)
            except OpenSlideError as error:
                raise SlideError(
                    f"{where.slide_path}: reading its pixels failed ({error}): the file is damaged; {slide_files.AGAIN}"
                ) from None
        (unfinished / ABOUT).write_text(json.dumps(asdict(pyramid)))
        return {"bytes": pyramid.bytes, "detailed": pyramid.detailed}

    return record.cached(folder, inputs, write)


def read(folder: Path) -> Pyramid:
    """The pyramid that `make` left in a folder."""
    return Pyramid(**json.loads((folder / ABOUT).read_text()))


# -- what is written ---------------------------------------------------------------------------------------------
def _write(slide: AbstractSlide, where: Place, first: Sequence[int], budget: int, folder: Path) -> Pyramid:
    last = max(math.floor(math.log2(where.size / where.pixels.shape[1])), 0)  # no finer than what the model read
    top = max(math.ceil(math.log2(max(slide.dimensions) / TILE)), last)
    files = _whole(slide, last, top, budget)
    whole = max(level for level, _, _ in files)
    used = sum(map(len, files.values()))
    wanted = [list(_around(where, i, last, top, whole)) for i in first] if whole < top - last else []
    detailed = 0 if wanted else len(first)
    bar = tqdm(wanted, desc=f"details, {where.slide_path.stem}", unit="tile", mininterval=5, delay=5)
    for of_tile in bar:
        new = {at: _jpeg(_pixels(slide, at, top)) for at in of_tile if at not in files}
        used += sum(map(len, new.values()))
        if used > budget:
            used -= sum(map(len, new.values()))
            break
        files |= new
        detailed += 1
    for (level, column, row), content in files.items():
        (folder / str(level)).mkdir(exist_ok=True)
        (folder / str(level) / f"{column}_{row}.jpg").write_bytes(content)
    around = [f"{level}/{column}_{row}" for level, column, row in sorted(files) if level > whole]
    width, height = _size(slide, last)
    return Pyramid(width, height, 2**last, top - last, whole, around, detailed, used)


def _whole(slide: AbstractSlide, last: int, top: int, budget: int) -> dict[tuple[int, int, int], bytes]:
    """Files of the levels that show all of the slide: (level, column, row) -> JPEG.

    The finest of them is read, the others are made of it. How fine it is follows from how many bytes a coarse level
    takes, and is put right where that was too few.
    """
    sample = min(max(math.ceil(math.log2(max(slide.dimensions) / SAMPLE)), last), top)
    image = _level(slide, sample)
    per_pixel = 4 / 3 * sum(len(_jpeg(part)) for _, _, part in _cut(image)) / image[..., 0].size
    pixels = {power: math.prod(_size(slide, power)) for power in range(last, top + 1)}
    share = 1.0 if per_pixel * pixels[last] <= budget else WHOLE
    power = next((k for k, n in pixels.items() if n <= LARGEST and per_pixel * n <= share * budget), top)
    image = image if power == sample else _level(slide, power)
    levels: dict[int, dict[tuple[int, int, int], bytes]] = {}
    while True:
        level = top - power
        levels[level] = {(level, column, row): _jpeg(part) for column, row, part in _cut(image)}
        if power == top:
            break
        power, image = power + 1, _halved(image)
    files: dict[tuple[int, int, int], bytes] = {}
    for level in sorted(levels):
        if level and sum(map(len, [*files.values(), *levels[level].values()])) > budget:
            break
        files |= levels[level]
    return files


def _around(where: Place, i: int, last: int, top: int, whole: int) -> Iterator[tuple[int, int, int]]:
    """Files (level, column, row) of the levels beyond the whole ones that show a part of the model's tile `i`."""
    for level in range(whole + 1, top - last + 1):
        side = TILE * 2 ** (top - level)
        (left, up), (right, below) = (where.coords[i] // side, (where.coords[i] + where.size - 1) // side)
        for row in range(int(up), int(below) + 1):
            for column in range(int(left), int(right) + 1):
                if column * side < where.width and row * side < where.height:
                    yield level, column, row


def _cut(image: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Column, row and pixels of the files of a level (h, w, 3)."""
    for top in range(0, image.shape[0], TILE):
        for left in range(0, image.shape[1], TILE):
            yield left // TILE, top // TILE, image[top : top + TILE, left : left + TILE]


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _halved(image: np.ndarray) -> np.ndarray:
    """A level (h, w, 3) half as large; a last column or row that stands alone counts twice."""
    height, width = image.shape[:2]
    image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)


# -- what is read ------------------------------------------------------------------------------------------------
def _size(slide: AbstractSlide, power: int) -> tuple[int, int]:
    """Width and height of the slide shrunk 2^power times, px: what is left over at an end gets a pixel of its own."""
    width, height = slide.dimensions
    return -(-width // 2**power), -(-height // 2**power)


def _level(slide: AbstractSlide, power: int) -> np.ndarray:
    """The whole slide shrunk 2^power times (h, w, 3) uint8, read file by file."""
    width, height = _size(slide, power)
    image = np.empty((height, width, 3), np.uint8)
    corners = [(left, top) for top in range(0, height, TILE) for left in range(0, width, TILE)]
    for left, top in tqdm(corners, desc="whole slide", unit="block", mininterval=5, delay=5):
        part = image[top : top + TILE, left : left + TILE]
        part[:] = _shrunk(slide, (left << power, top << power), (part.shape[1], part.shape[0]), 2**power)
    return image


def _pixels(slide: AbstractSlide, at: tuple[int, int, int], top: int) -> np.ndarray:
    """Pixels (h, w, 3) of the file (level, column, row)."""
    level, column, row = at
    width, height = _size(slide, top - level)
    left, up = column * TILE, row * TILE
    size = min(TILE, width - left), min(TILE, height - up)
    return _shrunk(slide, (left << top - level, up << top - level), size, 2 ** (top - level))


def _shrunk(slide: AbstractSlide, corner: tuple[int, int], size: tuple[int, int], factor: int) -> np.ndarray:
    """The region of size (width, height) px at a corner in level-0 px, shrunk `factor` times: (h, w, 3) uint8.

    Read of the smallest level that is fine enough, in halves where that is larger than BLOCK: a slide without a
    pyramid needs no more memory than others.
    """
    level = slide.get_best_level_for_downsample(1.01 * factor)  # scanners round their levels' sizes
    ratio = factor / slide.level_downsamples[level]
    width, height = size
    if max(size) * ratio > BLOCK and max(size) > 1:
        axis = 0 if width >= height else 1
        half = size[axis] // 2
        parts = []
        for start, length in ((0, half), (half, size[axis] - half)):
            moved, shorter = list(corner), list(size)
            moved[axis] += start * factor
            shorter[axis] = length
            parts.append(_shrunk(slide, (moved[0], moved[1]), (shorter[0], shorter[1]), factor))
        return np.concatenate(parts, axis=1 - axis)
    read_size = max(round(width * ratio), 1), max(round(height * ratio), 1)
    pixels = np.asarray(slide_files.read_region(slide, corner, level, read_size)[0])
    return pixels if read_size == size else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
