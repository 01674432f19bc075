"""How large a slide's pixels are, and how tiles of a wanted scale are cut of it.

Scale is µm per px at level 0, of the `mpp_table` or of the slide's file. Objective powers follow from it: what a file
states as its power is only compared, since scanners write the power of the lens whatever optics stand behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from mmmil.slides import names
from mmmil.slides.files import SlideError, read_region, resize
from mmmil.sources.tables import CohortError, read_table

if TYPE_CHECKING:
    from openslide import AbstractSlide

PLAUSIBLE_MPP = (0.05, 10.0)  # µm per px at level 0 of a scan of tissue: no mm, no nm, and no power of 10, 20 or 40
POWERS = (1.25, 2.5, 5, 10, 20, 40, 60, 80)  # standard objectives; 10 µm / power is a pixel's side
MAX_ERROR = 5.0  # %, between mpp_table and file, and between the two axes
MAX_POWER_ERROR = 100 * (math.sqrt(2) - 1)  # %: half the way, in log scale, to the next objective
FINER = 0.95  # share of a slide's own µm per px to which tiles may be enlarged
SAME_SCALE = 1.2  # factor within which tiles are of one scale: scanners of a power differ by less


# -- the table ---------------------------------------------------------------------------------------------------
def read_mpp_table(path: Path) -> dict[str, float]:
    """CSV with columns `wsi` (a slide's name) and `mpp` (µm per px at level 0), as TRIDENT's.

    Raises SlideError naming the line of a value that is no plausible scale, and of a name that stands there twice.
    """
    try:
        table = read_table(path)
    except CohortError as error:
        raise SlideError(str(error)) from None
    if not {"wsi", "mpp"} <= set(table.columns):
        raise SlideError(f"{path}: needs the columns wsi and mpp, has {', '.join(map(str, table.columns))}")
    wsi, mpp = table["wsi"].map(names.base), pd.to_numeric(table["mpp"], errors="coerce")
    low, high = PLAUSIBLE_MPP
    bad = ~mpp.between(low, high, inclusive="neither") | wsi.duplicated() | (wsi == "")
    if bad.any():
        line = table.index[bad.to_numpy().argmax()]
        again = table.index[(wsi == wsi[line]) & (table.index < line)]
        if len(again) and table["wsi"][line] != table["wsi"][again[0]]:
            raise SlideError(
                f"{path}, line {line}: '{table['wsi'][line]}' and line {again[0]}'s '{table['wsi'][again[0]]}' are one "
                "name, for a slide is known by its file's, without the folder; give them names that differ (links will "
                "do)"
            )
        raise SlideError(
            f"{path}, line {line}: each wsi must stand once, with an mpp between {low} and {high} µm per px; "
            f"this one has '{table['wsi'][line]}' and '{table['mpp'][line]}'"
        )
    return dict(zip(wsi, mpp.astype(float), strict=True))


def _row(path: Path, table: dict[str, float]) -> str | None:
    """The row of the mpp table that means a slide, None where there is none."""
    rows = [path.name] if path.name in table else names.meant(path.name, table)
    if len(rows) > 1:
        raise SlideError(f"{path}: {len(rows)} rows of the mpp_table mean it, {' and '.join(rows)}; keep one of them")
    return rows[0] if rows else None


def table_mpp(path: Path, table: dict[str, float]) -> float | None:
    """What the mpp table says of a slide, by the file's name (see `names.meant`); None where it says nothing."""
    row = _row(path, table)
    return None if row is None else table[row]


def unused_rows(where: Path, slides: Iterable[Path]) -> list[str]:
    """Rows of the mpp table at `where` that mean none of the slides.

    Raises SlideError for a row that means two of them, and for a slide that two rows mean.
    """
    table = read_mpp_table(where)
    chosen = {str(slide): row for slide in slides if (row := _row(slide, table)) is not None}
    return names.unused(chosen, table, str(where))


# -- what is stated ----------------------------------------------------------------------------------------------
def _number(text: str | None) -> float | None:
    """The positive number that a property states, or None."""
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if value > 0 and math.isfinite(value) else None


@dataclass(frozen=True)
class Stated:
    """What is stated of a slide's scale, None where nothing is: µm per px at level 0 across (x) and down (y) by its
    file, `listed` by the mpp_table, and the objective's power by its file.
    """

    x: float | None
    y: float | None
    listed: float | None
    power: float | None

    @property
    def mpp(self) -> float | None:
        """The scale that is used: the table's, or the file's where it is plausible."""
        return self.listed if self.listed is not None else self.x if is_plausible(self.x) else None

    def compared(self) -> list[tuple[float, str]]:
        """Difference in %, and both values in words, of each two statements that should agree.

        A power is known to half the way, in log scale, to the next one only: within it, there is no difference. What
        is implausible, as the 72 dpi of programs that know no scale, is no statement beside the table's.
        """
        pairs = []
        if self.listed is not None and self.x is not None and is_plausible(self.x):
            told = f"mpp_table has {self.listed:.4g} µm/px, the file {self.x:.4g}"
            pairs.append((_percent(self.listed, self.x), told))
        if self.x is not None and self.y is not None:
            pairs.append((_percent(self.x, self.y), f"{self.x:.4g} µm/px across, {self.y:.4g} down"))
        if self.power is not None and self.mpp is not None:
            off = _percent(self.power, 10 / self.mpp)
            told = f"objective {self.power:g} stated, {self.mpp:.4g} µm/px is {power_of(self.mpp):g}"
            pairs.append((off if off > MAX_POWER_ERROR else 0.0, told))
        return pairs

    def contradictions(self) -> list[str]:
        """In words, what of it cannot be true together."""
        return [told for percent, told in self.compared() if percent > MAX_ERROR]


def _percent(a: float, b: float) -> float:
    """By how many % the larger one is above the smaller one."""
    return 100 * (max(a, b) / min(a, b) - 1)


def is_same(mpp: float, other: float) -> bool:
    """Whether two statements of a scale agree."""
    return _percent(mpp, other) <= MAX_ERROR


def is_plausible(mpp: float | None) -> bool:
    """Whether a scanner of tissue may state so many µm per px at level 0."""
    return mpp is not None and PLAUSIBLE_MPP[0] < mpp < PLAUSIBLE_MPP[1]


def stated(slide: AbstractSlide, path: Path, table: dict[str, float]) -> Stated:
    """What is stated of a slide's scale."""
    x, y, power = (slide.properties.get(f"openslide.{name}") for name in ("mpp-x", "mpp-y", "objective-power"))
    return Stated(_number(x), _number(y), table_mpp(path, table), _number(power))


def microns_per_pixel(slide: AbstractSlide, path: Path, table: dict[str, float]) -> float:
    """µm per px at level 0: what the `mpp_table` says of the slide, or else the slide itself.

    Raises SlideError where neither says it plausibly: a guess would mix 20x and 40x.
    """
    mpp = stated(slide, path, table).mpp
    if mpp is None:
        raise SlideError(
            f"{path}: the file is whole but states no plausible µm per pixel (openslide.mpp-x is "
            f"{slide.properties.get('openslide.mpp-x')!r}); add a row `wsi,mpp` for it to the CSV named in mpp_table"
        )
    return mpp


def power_of(mpp: float) -> float:
    """The standard objective whose pixels are nearest to `mpp` µm, in log scale: 20 for 0.5, 40 for 0.25."""
    return min(POWERS, key=lambda power: abs(math.log(power * mpp / 10)))


# -- a cohort ----------------------------------------------------------------------------------------------------
def groups(mpp: Sequence[float]) -> np.ndarray:
    """Number of the scale (N,) int of tiles of `mpp` µm per px each: 0 the finest; those of one differ by SAME_SCALE
    at most.
    """
    number, start, found = -1, 0.0, np.zeros(len(mpp), int)
    for i in np.argsort(mpp, kind="stable"):
        if number < 0 or mpp[i] > SAME_SCALE * start:
            number, start = number + 1, mpp[i]
        found[i] = number
    return found


def common(mpp: Sequence[float]) -> np.ndarray:
    """Which (N,) bool of tiles of `mpp` µm per px are of the scale of more than half of them."""
    number = groups(mpp)
    return 2 * np.bincount(number, minlength=1)[number] > len(number)


def common_mpp(mpp: Sequence[float]) -> float:
    """The finest scale of a standard objective, µm per px, that slides of `mpp` µm per px at level 0 can all give."""
    scales = [10 / power for power in reversed(POWERS)]
    return next((scale for scale in scales if scale >= FINER * max(mpp)), max(mpp))


# -- how tiles are cut -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """How a slide is cut: a tile of `tile_px` covers `size` px of `level`, `size_level0` px of level 0, at `mpp`.

    grid_level is the level on whose pixels the grid is laid.
    """

    tile_px: int
    level: int
    size: int
    size_level0: int
    grid_level: int
    mpp: float
    mpp_level0: float

    @property
    def level0_magnification(self) -> float:
        """Power of the standard objective that level 0 has by its µm per px."""
        return power_of(self.mpp_level0)

    @property
    def magnification(self) -> float:
        """Power of the tiles: that of level 0 by how much they are shrunk."""
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
    if not mpp:
        if level >= slide.level_count:
            raise SlideError(
                f"{path}: has {slide.level_count} levels, counted from 0; tile_level {level} is none of them"
            )
        factor = slide.level_downsamples[level]
        return Geometry(tile_px, level, tile_px, round(tile_px * factor), level, base * factor, base)
    factor = mpp / base
    if factor < FINER:
        raise SlideError(
            f"{path}: tile_mpp {mpp} is finer than the slide's pixels ({base:.4f} µm per px); "
            "enlarging would invent detail"
        )
    return resampled(slide, tile_px, int(tile_px * factor), base)


def resampled(slide: AbstractSlide, tile_px: int, size_level0: int, base: float) -> Geometry:
    """Geometry of tiles that cover `size_level0` px of level 0, of `base` µm per px, and are resized to `tile_px`."""
    level = slide.get_best_level_for_downsample(size_level0 / tile_px + 1e-6)
    size = round(size_level0 / slide.level_downsamples[level])
    return Geometry(tile_px, level, size, size_level0, 0, base * size_level0 / tile_px, base)


def read_tile(slide: AbstractSlide, g: Geometry, x: int, y: int) -> Image.Image:
    """The tile with its upper left corner at (x, y) in level-0 px, RGB."""
    return resize(read_region(slide, (x, y), g.level, (g.size, g.size))[0], g.tile_px)
