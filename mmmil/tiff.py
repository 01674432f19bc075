"""Is a TIFF file (SVS, NDPI, TIFF) whole? Told from its directories, without reading a pixel.

TIFF 6.0 and BigTIFF: a header points to the first directory, each directory to the next and, by pairs of tags, to
the bytes of its strips or tiles. A download that was cut lacks bytes that some directory points to, or a directory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

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
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
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
