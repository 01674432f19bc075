"""Where the tiles of a patient lie on the slide, checked against the slide as it is now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmmil.slides import bag_files, tiling
from mmmil.slides import files as slide_files

SAME_PIXELS = 2.0  # grey values, mean over a tile, by which builds of a JPEG decoder may differ


class HeatmapError(ValueError):
    """A heatmap would not show what the model saw; names the patient or the file and what to do."""


@dataclass(frozen=True)
class Place:
    """Where the tiles of one patient lie on the slide.

    coords: (N, 2) upper left corners and size: side of a tile, both in level-0 px, in the bag's order; width, height
    of the slide in level-0 px; origin: (x, y) of the scanned part in level-0 px, from which QuPath counts; mpp: µm per
    level-0 px, None where it is not known; pixels: (N, px, px, 3) uint8.
    """

    slide_path: Path
    coords: np.ndarray
    size: int
    width: int
    height: int
    origin: tuple[int, int]
    mpp: float | None
    pixels: np.ndarray


def place(patient: str, path: Path, bag: Path) -> Place:
    """Where a patient's tiles lie on the slide `path`, read from the bag and checked against the slide as it is now.

    Raises HeatmapError for a slide or bag that is gone, a slide of another size than the tiles were cut from, tiles
    outside the slide, and pixels that are not those of the bag.
    """
    for file, kind in ((path, "slide"), (bag, "bag of tiles")):
        if not file.is_file():
            raise HeatmapError(
                f"{file}: the {kind} of {patient} was there when the models were trained and is gone; put it back, or "
                "correct slide_path and tile and train again"
            )
    coords, a = bag_files.load_coords(str(bag))
    with slide_files.open_slide(path) as slide:
        width, height = slide.dimensions
        left, top = (int(slide.properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy")
    again = "the slide was replaced; put the old one back, or tile and train again"
    cut_from = (int(a["level0_width"]), int(a["level0_height"]))
    if cut_from != (width, height):
        raise HeatmapError(
            f"{path}: has {width} x {height} px, but the tiles of {patient} are of a slide of "
            f"{cut_from[0]} x {cut_from[1]} px: " + again
        )
    outside = ((coords < 0) | (coords >= (width, height))).any(1)
    if outside.any():
        raise HeatmapError(
            f"{bag}: the tile at {coords[outside][0].tolist()} lies outside {path.name} ({width} x {height} px): "
            "the coordinates are not this slide's; tile it and train again"
        )
    pixels = bag_files.load_bags([str(bag)])[0][: len(coords)]
    now = tiling.read_tiles(path, coords, a)
    off = np.abs(now.astype(np.int16) - pixels).mean((1, 2, 3))
    if off.max() > SAME_PIXELS:
        x, y = coords[off.argmax()]
        raise HeatmapError(f"{path}: at x {x}, y {y} it no longer shows the tile that {patient}'s bag holds: {again}")
    mpp = float(a.get("mpp_level0", 0)) or None
    return Place(path, coords, int(a["patch_size_level0"]), width, height, (left, top), mpp, pixels)
