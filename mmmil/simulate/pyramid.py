"""Pyramids of strips of pixels, as tiled Aperio `.svs` files that OpenSlide opens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

TILE = 256  # side of a JPEG tile and height of a strip, px
DOWNSAMPLE = 4  # from level to level
QUALITY = 88
GLASS = 243.0  # of an empty slide, 0 to 255


def _shrink(image: np.ndarray, size: int) -> np.ndarray:
    image = image[: len(image) // DOWNSAMPLE * DOWNSAMPLE, : size * DOWNSAMPLE]
    shape = (len(image) // DOWNSAMPLE, DOWNSAMPLE, size, DOWNSAMPLE, 3)
    return image.reshape(shape).mean((1, 3), dtype=np.float32).round().astype(np.uint8)


def write(path: Path, strips: Iterable[np.ndarray], side: int, mpp: float | None) -> None:
    """Write a square slide of `side` px given from top to bottom in strips (256, width, 3) uint8.

    The width of a strip is `side`, padded to whole tiles. mpp: µm per px, None for a file that does not state it.
    Levels lie 4x apart; memory holds one strip and the second level.
    """
    import tifffile

    levels = [side]
    while levels[-1] // DOWNSAMPLE >= 64:
        levels.append(levels[-1] // DOWNSAMPLE)
    smaller = np.full((levels[1], levels[1], 3), int(GLASS), np.uint8)

    def level0() -> Iterator[np.ndarray]:
        for top, strip in zip(range(0, side, TILE), strips, strict=True):
            part = _shrink(strip, levels[1])[: levels[1] - top // DOWNSAMPLE]
            smaller[top // DOWNSAMPLE : top // DOWNSAMPLE + len(part)] = part
            for left in range(0, strip.shape[1], TILE):
                yield np.ascontiguousarray(strip[:, left : left + TILE])

    def tiles(image: np.ndarray) -> Iterator[np.ndarray]:
        pad = -len(image) % TILE
        image = np.pad(image, ((0, pad), (0, pad), (0, 0)), constant_values=int(GLASS))
        for top in range(0, len(image), TILE):
            for left in range(0, len(image), TILE):
                yield np.ascontiguousarray(image[top : top + TILE, left : left + TILE])

    head = "Aperio Image Library v12.0.15 \r\n"
    scale = f"|AppMag = {10 / mpp:.0f}|MPP = {mpp:.4f}" if mpp else ""
    jpeg: dict[str, Any] = {
        "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": QUALITY}, "dtype": np.uint8,
        "metadata": None, "software": False, "maxworkers": 1,
    }  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=side > 20_000) as file:
        for level, size in enumerate(levels):
            about = f"{head}{side}x{side} [0,0 {size}x{size}] ({TILE}x{TILE}) JPEG/RGB Q={QUALITY}"
            about += f"|Synthetic = mmmil{scale}" if level == 0 else ""
            if level > 1:
                smaller = _shrink(smaller, size)
            file.write(
                level0() if level == 0 else tiles(smaller),
                shape=(size, size, 3), tile=(TILE, TILE), description=about,
                subfiletype=0 if level == 0 else 1, **jpeg,
            )  # fmt: skip
