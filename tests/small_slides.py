"""Slides drawn for a test: pieces of tissue on glass, with any statement of scale, and with parts never scanned."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tifffile

GLASS, NUCLEI = 243, 0.12
TILE = 256

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
