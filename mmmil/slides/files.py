"""Slides as files: opening one, telling what is wrong with it, its scale, and the pixels of a tile."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from mmmil import record
from mmmil.sources.slide_files import parts_of

if TYPE_CHECKING:
    from openslide import AbstractSlide

PLAUSIBLE_MPP = (0.05, 20.0)  # µm per px at level 0 that a scanner of tissue may state
AGAIN = "compare its size and MD5 with the manifest (`python -m mmmil.gdc verify`) and download it again"


class SlideError(ValueError):
    """A slide cannot be opened, read or scaled; names the file and what to do."""


# -- files -------------------------------------------------------------------------------------------------------
def slide_fingerprint(path: Path) -> dict:
    """A slide's name, size and content, and the content of the files that belong to it (`record.fingerprint`)."""
    size = require_file(path).stat().st_size
    parts = [[part.name, record.fingerprint(part)] for part in parts_of(path)]
    return {"name": path.name, "bytes": size, "content": record.fingerprint(path), "parts": parts}


def require_file(path: Path) -> Path:
    """The path, or SlideError where there is no file or an empty one."""
    if not path.is_file():
        raise SlideError(f"{path}: the slide is not there; correct slide_path, or download it")
    if path.stat().st_size == 0:
        raise SlideError(f"{path}: the slide is empty (0 bytes); download it again")
    return path


def open_slide(path: Path | str) -> AbstractSlide:
    """Open a slide with OpenSlide.

    Raises SlideError that tells apart a missing file, a truncated download, and what is no whole-slide image.
    """
    import openslide

    path = require_file(Path(path))
    missing = missing_bytes(path)
    if missing:
        raise SlideError(
            f"{path}: the download is truncated, at least {missing:,} bytes are missing after its "
            f"{path.stat().st_size:,}; {AGAIN}"
        )
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        with path.open("rb") as handle:
            tiff = handle.read(2) in (b"II", b"MM")
        cause = "a plain TIFF image, not a whole-slide image" if tiff else "no whole-slide image, or damaged"
        raise SlideError(f"{path}: OpenSlide cannot open it ({error}): {cause}; {AGAIN}") from None


# -- scale -------------------------------------------------------------------------------------------------------
def read_mpp_table(path: Path) -> dict[str, float]:
    """CSV with columns `wsi` (file name) and `mpp` (µm per px at level 0), as TRIDENT's.

    Raises SlideError naming the line of a value that is no plausible scale, and of a name that stands there twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise SlideError(f"{path}: not a table that can be read ({error}); give columns wsi and mpp") from None
    if not {"wsi", "mpp"} <= set(table.columns):
        raise SlideError(f"{path}: needs the columns wsi and mpp, has {', '.join(map(str, table.columns))}")
    mpp = pd.to_numeric(table["mpp"], errors="coerce")
    low, high = PLAUSIBLE_MPP
    bad = ~mpp.between(low, high) | table["wsi"].duplicated() | (table["wsi"] == "")
    if bad.any():
        line = int(bad.to_numpy().argmax()) + 2
        raise SlideError(
            f"{path}, line {line}: each wsi must stand once, with an mpp between {low} and {high} µm per px"
        )
    return dict(zip(table["wsi"], mpp, strict=True))


def table_mpp(path: Path, table: dict[str, float]) -> float | None:
    """What the mpp table says of a slide, by file name with or without its suffix."""
    return table.get(path.name, table.get(path.stem))


def microns_per_pixel(slide: AbstractSlide, path: Path, table: dict[str, float]) -> float:
    """µm per px at level 0: what the `mpp_table` says of the slide, or else the slide itself.

    Raises SlideError where neither says it plausibly: a guess would mix 20x and 40x.
    """
    stated = slide.properties.get("openslide.mpp-x")
    listed = table_mpp(path, table)
    if listed is not None:
        return listed
    try:
        mpp = float(stated or 0)
    except ValueError:
        mpp = 0.0
    if not PLAUSIBLE_MPP[0] < mpp < PLAUSIBLE_MPP[1]:
        raise SlideError(
            f"{path}: the file is whole but states no plausible µm per pixel (openslide.mpp-x is {stated!r}); "
            "add a row `wsi,mpp` for it to the CSV named in mpp_table"
        )
    return mpp


def objective_power(slide: AbstractSlide) -> float | None:
    """The objective's power that the slide states, or None."""
    try:
        return float(slide.properties["openslide.objective-power"]) or None
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True)
class Geometry:
    """How a slide is cut: a tile of `tile_px` covers `size` px of `level`, `size_level0` px of level 0, at `mpp`.

    grid_level is the level on whose pixels the grid is laid; magnification and level0_magnification are objective
    powers, of a 10 µm / mpp rule where the slide states none.
    """

    tile_px: int
    level: int
    size: int
    size_level0: int
    grid_level: int
    mpp: float
    mpp_level0: float
    level0_magnification: float

    @property
    def magnification(self) -> float:
        return self.level0_magnification * self.mpp_level0 / self.mpp


def geometry(
    slide: AbstractSlide,
    path: Path,
    tile_px: int,
    level: int = 0,
    mpp: float = 0,
    mpp_table: dict[str, float] | None = None,
) -> Geometry:
    """Geometry of tiles by pyramid level, or by µm per px (0: by level).

    Tiles at a level are its own pixels. Otherwise the grid lies on level 0, as in histolab's GridTiler(mpp=), and a
    tile is read from the smallest level that is fine enough and resized. Raises SlideError for a level that the
    slide lacks, and for a scale finer than its pixels.
    """
    base = microns_per_pixel(slide, path, mpp_table or {})
    power = objective_power(slide)
    if not mpp:
        if level >= slide.level_count:
            raise SlideError(
                f"{path}: has {slide.level_count} levels, counted from 0; tile_level {level} is none of them"
            )
        factor = slide.level_downsamples[level]
        size0 = round(tile_px * factor)
        return Geometry(tile_px, level, tile_px, size0, level, base * factor, base, power or float(round(10 / base)))
    factor = mpp / base
    if factor < 0.95:
        raise SlideError(
            f"{path}: tile_mpp {mpp} is finer than the slide's pixels ({base:.4f} µm per px); "
            "enlarging would invent detail"
        )
    return resampled(slide, tile_px, int(tile_px * factor), base, power)


def resampled(slide: AbstractSlide, tile_px: int, size_level0: int, base: float, power: float | None) -> Geometry:
    """Geometry of tiles that cover `size_level0` px of level 0 and are resized to `tile_px`."""
    level = slide.get_best_level_for_downsample(size_level0 / tile_px + 1e-6)
    size = round(size_level0 / slide.level_downsamples[level])
    mpp = base * size_level0 / tile_px
    return Geometry(tile_px, level, size, size_level0, 0, mpp, base, power or float(round(10 / base)))


# -- pixels ------------------------------------------------------------------------------------------------------
def resize(image: Image.Image, tile_px: int) -> Image.Image:
    """A tile at its final size, with histolab's filters: Lanczos' downwards, bicubic upwards."""
    if image.width == tile_px:
        return image
    return image.resize((tile_px, tile_px), Image.Resampling[("LANCZOS", "BICUBIC")[tile_px >= image.width]])


def read_tile(slide: AbstractSlide, g: Geometry, x: int, y: int) -> Image.Image:
    """The tile with its upper left corner at (x, y) in level-0 px, RGBA."""
    return resize(slide.read_region((int(x), int(y)), g.level, (g.size, g.size)), g.tile_px)


def rgb(image: Image.Image) -> np.ndarray:
    """Pixels (px, px, 3) uint8 of an RGBA tile; what lies outside the scan is white, not black."""
    pixels = np.asarray(image)
    if pixels[..., 3].all():
        return pixels[..., :3]
    return np.where(pixels[..., 3:] == 0, np.uint8(255), pixels[..., :3])


# -- is a TIFF file whole? ----------------------------------------------------------------------------------------
LETTERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # TIFF's types of whole numbers
PIXELS = ((273, 279), (324, 325))  # offsets and lengths of strips, of tiles
NDPI = 65420  # Hamamatsu's: its offsets need 64 bits in a table for 32, so they are not followed


class _Cut(Exception):
    """The file ends before this byte."""


def missing_bytes(path: Path) -> int:
    """How many bytes a TIFF file lacks at least: what its directories point to beyond its end.

    0 for a whole file, and for one that is no TIFF.
    """
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        try:
            for last in _ends(file):
                end = max(end, last)
        except _Cut as cut:
            end = max(end, cut.args[0])
    return max(end - size, 0)


def _read(file: IO[bytes], offset: int, length: int) -> bytes:
    if offset + length > os.fstat(file.fileno()).st_size:  # asked first: a damaged length can be astronomical
        raise _Cut(offset + length)
    file.seek(offset)
    return file.read(length)


def _ends(file: IO[bytes]) -> Iterator[int]:
    """Where the pixels of each directory end."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    version = struct.unpack(order + "H", head[2:4])[0] if order and len(head) == 16 else 0
    if version not in (42, 43):
        return
    word, count_of, entry = ("I", "H", 12) if version == 42 else ("Q", "Q", 20)
    wide = struct.calcsize(word)
    offset = struct.unpack_from(order + word, head, 4 if version == 42 else 8)[0]
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        start = offset + struct.calcsize(count_of)
        n = struct.unpack(order + count_of, _read(file, offset, start - offset))[0]
        table = _read(file, start, n * entry + wide)
        tags = {}
        for at in range(0, n * entry, entry):
            tag, kind, count = struct.unpack_from(order + "HH" + word, table, at)
            tags[tag] = (kind, count, table[at + 4 + wide : at + entry])
        if NDPI in tags:
            return
        for starts, lengths in PIXELS:
            if starts in tags and lengths in tags:
                pair = [_values(file, order, word, *tags[tag]) for tag in (starts, lengths)]
                yield max((a + b for a, b in zip(*pair, strict=False)), default=0)
        offset = struct.unpack_from(order + word, table, n * entry)[0]


def _values(file: IO[bytes], order: str, word: str, kind: int, count: int, raw: bytes) -> tuple[int, ...]:
    """Whole numbers of a tag, which stand in its entry or where it points to."""
    if kind not in LETTERS:
        return ()
    length = struct.calcsize(LETTERS[kind]) * count
    if length > len(raw):
        raw = _read(file, struct.unpack(order + word, raw)[0], length)
    return struct.unpack(f"{order}{count}{LETTERS[kind]}", raw[:length])
