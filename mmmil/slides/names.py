"""Which slide a name means: in a table, in a folder of files beside the slides, and in TCGA's barcodes.

Tables and tools write a slide's name with or without its folder and suffix, and programs on the way change case and
separators. What means one slide only is read as that slide; what could mean two is an error.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from mmmil.slides.files import SlideError
from mmmil.sources import barcodes
from mmmil.sources.slide_files import SUFFIXES

FROZEN = {"TS", "BS", "MS"}  # TCGA's top, bottom and middle sections of a frozen sample


@lru_cache(maxsize=100_000)
def base(name: str) -> str:
    """The last part of a path as any system writes it, without blanks around it."""
    return name.replace("\\", "/").strip().rpartition("/")[2].strip()


@lru_cache(maxsize=100_000)
def fold(name: str) -> str:
    """A slide's name without what is often written otherwise: folder, suffix of a slide, case, separators, blanks."""
    folded = unicodedata.normalize("NFKC", base(name)).casefold()
    suffix = next((suffix for suffix in SUFFIXES if folded.endswith(suffix)), "")
    return "-".join(part for part in re.split(r"[\s._\u2010-\u2015\u2212-]+", folded.removesuffix(suffix)) if part)


def meant(slide: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that mean the slide of a file name: the same name, or else without suffix, or else as folded."""
    names = list(names)
    stem = Path(slide).stem
    for same in (
        [name for name in names if base(name) == slide],
        [name for name in names if base(name) == stem],
        [name for name in names if fold(name) == fold(slide)],
    ):
        if same:
            return same
    return []


def unused(chosen: Mapping[str, str], names: Iterable[str], where: str) -> list[str]:
    """Those of `names` that no slide has chosen (slide's path -> name); where: what holds the names.

    Raises SlideError for a name that two slides have chosen.
    """
    slide_of: dict[str, str] = {}
    for slide, name in chosen.items():
        other = slide_of.setdefault(name, slide)
        if other != slide:
            raise SlideError(
                f"{where}: '{name}' may mean two slides, {other} and {slide}; write there the whole name of each"
            )
    return [name for name in names if name not in slide_of]


def section(name: str) -> str | None:
    """The section that a TCGA slide's name states (DX1, TS1), None where it is no such barcode."""
    found = barcodes.slide_section(base(name))
    return f"{found[1]}{found[2]}" if found else None


def is_frozen(name: str) -> bool | None:
    """Whether a TCGA slide's name states a frozen section, None where it is no such barcode."""
    stated = section(name)
    return None if stated is None else stated[:2] in FROZEN
