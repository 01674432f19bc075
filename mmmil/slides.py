"""Slides as files: opening, telling what is wrong with one, and its scale in µm per pixel."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd


class SlideError(ValueError):
    """A slide cannot be opened, read or scaled; names the file and what to do."""


def slide_fingerprint(path: Path, samples: int = 16, block: int = 65536) -> dict:
    """Size and hash of evenly spaced blocks: a slide of gigabytes is recognised without reading all of it."""
    if not path.is_file():
        raise SlideError(f"{path}: the slide is not there; correct slide_path, or download it again")
    size = path.stat().st_size
    found = hashlib.sha256()
    with path.open("rb") as handle:
        for offset in np.linspace(0, max(size - block, 0), samples, dtype=int):
            handle.seek(int(offset))
            found.update(handle.read(block))
    return {"name": path.name, "bytes": size, "blocks": found.hexdigest()[:16]}


def open_slide(path: Path | str):
    """Open a slide with OpenSlide.

    Raises SlideError that tells a missing file from one that is truncated or no whole-slide image.
    """
    import openslide

    path = Path(path)
    if not path.is_file():
        raise SlideError(f"{path}: the slide is not there; correct slide_path, or download it again")
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise SlideError(
            f"{path}: OpenSlide cannot open it ({error}); the file is truncated or not a whole-slide image: "
            "compare its size and MD5 with the manifest and download it again"
        ) from None


def microns_per_pixel(slide, path: Path, table: dict[str, float]) -> float:
    """µm per px at level 0, from the slide itself or else from the `mpp_table`.

    Raises SlideError where neither says it: a guess would mix 20x and 40x.
    """
    stated = slide.properties.get("openslide.mpp-x")
    try:
        mpp = float(stated) if stated else table.get(path.name, table.get(path.stem))
    except ValueError:
        mpp = None
    if not mpp or not 0.05 < mpp < 20:
        raise SlideError(
            f"{path}: the slide states no µm per pixel (openslide.mpp-x is {stated!r}); "
            "add a row `wsi,mpp` for it to the CSV named in mpp_table"
        )
    return mpp


def read_mpp_table(path: Path) -> dict[str, float]:
    """CSV with columns `wsi` (file name) and `mpp` (µm per px at level 0), as TRIDENT's."""
    table = pd.read_csv(path, dtype={"wsi": str})
    if not {"wsi", "mpp"} <= set(table.columns):
        raise SlideError(f"{path}: needs the columns wsi and mpp, has {', '.join(table.columns)}")
    mpp = pd.to_numeric(table["mpp"], errors="coerce")
    if mpp.isna().any() or table["wsi"].duplicated().any():
        row = int(np.flatnonzero(mpp.isna() | table["wsi"].duplicated())[0]) + 2
        raise SlideError(f"{path}, line {row}: mpp must be a number and each wsi stand once")
    return dict(zip(table["wsi"], mpp, strict=True))
