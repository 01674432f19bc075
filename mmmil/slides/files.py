"""Slides as files: opening one, telling what is wrong with it, and reading its pixels."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from PIL import Image

from mmmil import record
from mmmil.sources.slide_files import parts_of

if TYPE_CHECKING:
    from openslide import AbstractSlide

AGAIN = "compare its size and MD5 with the manifest (`python -m mmmil.gdc verify`) and download it again"

CONVERT = (
    "if it is whole, convert it to a pyramid that OpenSlide reads, and give its µm per px in mpp_table: "
    "vips tiffsave <it> <name>.tif --tile --pyramid --compression jpeg --bigtiff"
)
PLAIN = {b"II": "TIFF", b"MM": "TIFF", b"\x89PNG": "PNG", b"\xff\xd8": "JPEG"}  # how files of images start
POINTERS = {b"version https://git-lfs": "git lfs pull", b"/annex/objects/": "git annex get"}  # and how those in place


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
        raise SlideError(f"{path}: OpenSlide cannot open it ({error}): {_cause(path)}") from None


def _cause(path: Path) -> str:
    """What a file is that OpenSlide cannot open, and what to do."""
    with path.open("rb") as handle:
        start = handle.read(64).lstrip()
    for magic, command in POINTERS.items():
        if start.startswith(magic):
            return f"it only stands for the slide, which is not there yet; run: {command} {path.name}"
    if path.suffix.lower() == ".mrxs":
        state = "not whole" if path.with_suffix("").is_dir() else "not there"
        return f"a MIRAX slide's pixels lie in a folder beside it, and {path.stem}/ is {state}; copy all of it again"
    if start[:1] in (b"<", b"{"):
        return "a page or message of a server, not a slide; download it again"
    kind = next((kind for magic, kind in PLAIN.items() if start.startswith(magic)), "")
    cause = f"a plain {kind} image, not a whole-slide image" if kind else "no whole-slide image, or damaged"
    return f"{cause}; {AGAIN}; {CONVERT}"


def is_grey(path: Path, slide: AbstractSlide) -> bool:
    """Whether a TIFF file that no scanner's software wrote has one value per pixel: it, or a channel of it, is grey."""
    import tifffile

    if slide.properties.get("openslide.vendor") != "generic-tiff":
        return False
    with tifffile.TiffFile(path) as file:
        return file.pages.first.samplesperpixel == 1


# -- pixels ------------------------------------------------------------------------------------------------------
def read_region(
    slide: AbstractSlide, corner: tuple[int, int], level: int, size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """A region of a level as RGB, and as "L" how much of each pixel was scanned (0: nothing, 255: all of it).

    corner: upper left one in level-0 px; size: (width, height) in px of the level. What was not scanned, or lies
    beside the slide, is white: OpenSlide gives it as transparent black, which would pass for the darkest tissue. Every
    pixel that the package reads of a slide comes from here.
    """
    image = slide.read_region((int(corner[0]), int(corner[1])), level, (int(size[0]), int(size[1])))
    scanned = image.getchannel("A")
    if scanned.getextrema() == (255, 255):
        return image.convert("RGB"), scanned
    white = Image.new("RGB", image.size, "white")
    white.paste(image, None, scanned)
    return white, scanned


def resize(image: Image.Image, tile_px: int) -> Image.Image:
    """A tile at its final size, with histolab's filters: Lanczos' downwards, bicubic upwards."""
    if image.width == tile_px:
        return image
    return image.resize((tile_px, tile_px), Image.Resampling[("LANCZOS", "BICUBIC")[tile_px >= image.width]])


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
