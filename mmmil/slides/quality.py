"""What is reported of a slide: pen, blur, little tissue, fluorescence, another stain, a frozen section, a wrong scale.

Nothing is left out because of it: a reader judges. What is measured on the pixels stands in `mmmil.slides.appearance`.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from mmmil import record
from mmmil.params import Params
from mmmil.slides import appearance
from mmmil.slides import files as slide_files
from mmmil.slides.files import SlideError
from mmmil.sources import barcodes

COLUMNS = ["patient_id", "slide_id", "check", "value", "unit", "limit", "flagged", "note"]
# Limits above or below which something is reported; a reader sees the value beside the limit, and judges.
MIN_TISSUE_PERCENT = 2.0  # of the thumbnail
MAX_PEN_PERCENT = 0.5  # of the thumbnail
MIN_SHARPNESS = 30.0  # variance of the Laplacian of a tile's grey values, median over tiles, at appearance.SHARP_AT
TILES = 16  # of a bag, on which sharpness is measured
MIN_HE_SHARE = 90.0  # % of the tissue: at least 99 in the H&E slides and TCGA tiles at hand
MAX_SCALE_ERROR = 5.0  # %, between mpp_table and file
FROZEN = {"TS", "BS", "MS"}  # TCGA's top, bottom and middle sections of a frozen sample
OTHER_HUES = [(50, "brown"), (75, "yellow"), (190, "green"), (220, "blue")]  # up to so many degrees


# -- one slide ---------------------------------------------------------------------------------------------------
def _finding(check: str, value: float, unit: str, limit: float, flagged: bool, note: str = "") -> dict:
    shown = None if np.isnan(value) else round(float(value), 4)
    return {"check": check, "value": shown, "unit": unit, "limit": limit, "flagged": bool(flagged), "note": note}


def _colours(image: np.ndarray, valid: int | None) -> list[dict]:
    pens = appearance.pen_masks(image)
    tissue = appearance.tissue_mask(image, pens)
    inks = sorted(((100 * float(mask.mean()), colour) for colour, mask in pens.items()), reverse=True)
    area, ink, share = (
        100 * float(tissue.mean()),
        sum(percent for percent, _ in inks),
        appearance.he_share(image, tissue),
    )
    stained = "" if area else "no tissue"
    if share < MIN_HE_SHARE:
        hue = appearance.tissue_hues(image, tissue)
        typical_hue = np.median(hue[(hue >= 10) & (hue < 220)])
        stained = "mostly " + next(name for up_to, name in OTHER_HUES if typical_hue <= up_to)
    tiles = "" if valid is None else f"{valid} valid tiles"
    ink_shares = ", ".join(f"{colour} {percent:.1f} %" for percent, colour in inks if percent >= 0.05)
    return [
        _finding("tissue", area, "%", MIN_TISSUE_PERCENT, area < MIN_TISSUE_PERCENT, tiles),
        _finding("pen", ink, "%", MAX_PEN_PERCENT, ink > MAX_PEN_PERCENT, ink_shares),
        _finding("H&E", share, "%", MIN_HE_SHARE, share < MIN_HE_SHARE, stained),
    ]


def _blur(bag_path: Path | str | None) -> dict:
    value, note = float("nan"), "no tiles"
    if bag_path:
        with h5py.File(bag_path) as file:
            real = np.flatnonzero(file["mask"][:]) if "mask" in file else np.arange(len(file["imgs"]))
            picked = real[np.linspace(0, len(real) - 1, min(TILES, len(real))).round().astype(int)]
            mpp = float(file["imgs"].attrs.get("mpp", appearance.SHARP_AT))
            value, note = appearance.sharpness(file["imgs"][picked], mpp), f"{len(picked)} tiles at {mpp:.3g} µm/px"
    return _finding("blur", value, "grey²", MIN_SHARPNESS, value < MIN_SHARPNESS, note)


def _frozen(name: str) -> dict:
    section = barcodes.slide_section(name)
    value = float(section[1] in FROZEN) if section else float("nan")
    note = f"TCGA section {section[1]}{section[2]}" if section else "the name is no TCGA barcode: nothing is claimed"
    return _finding("frozen section", value, "1: yes", 0.0, value > 0, note)


def _mpp_listed(path: Path, p: Params) -> float | None:
    return slide_files.table_mpp(path, slide_files.read_mpp_table(p.path(p.mpp_table))) if p.mpp_table else None


def _scale(path: Path, p: Params) -> dict:
    with slide_files.open_slide(path) as slide:
        stated = slide.properties.get("openslide.mpp-x", "no")
    mpp, listed = pd.to_numeric(stated, errors="coerce"), _mpp_listed(path, p)
    note = f"the file states {stated} µm/px" + ("" if listed is None else f", mpp_table {listed:.4g}")
    low, high = slide_files.PLAUSIBLE_MPP
    error = float("nan") if not low < mpp < high else 0.0 if listed is None else 100 * abs(listed / mpp - 1)
    return _finding("scale", error, "%", MAX_SCALE_ERROR, not error <= MAX_SCALE_ERROR, note)


def examine(
    slide_path: Path | str, p: Params, bag_path: Path | str | None = None, valid: int | None = None
) -> list[dict]:
    """Findings on one slide, in a fixed order: check, value (None: not measured), unit, limit, flagged, note.

    bag_path: HDF5 with `imgs`, without which blur is not measured; valid: its valid tiles, told beside the tissue.
    Raises SlideError where the slide cannot be opened or read.
    """
    path = Path(slide_path)
    image = appearance.thumbnail(path)
    lit = appearance.is_brightfield(image)
    note = "" if lit else "dark ground, as in fluorescence: its colours are not judged"
    findings = [_finding("brightfield", appearance.brightness(image), "grey", appearance.MIN_BRIGHTNESS, not lit, note)]
    return [
        *findings,
        *(_colours(image, valid) if lit else []),
        _blur(bag_path),
        _frozen(path.name),
        _scale(path, p),
    ]


# -- a cohort ----------------------------------------------------------------------------------------------------
def _findings(slide_id: str, slide_path: Path, bag: str, valid: int | None, p: Params) -> list[dict]:
    """What `examine` finds, made once; a slide or bag that cannot be read is a finding itself."""
    try:
        inputs = {
            "slide": slide_files.slide_fingerprint(slide_path),
            "bag": Path(bag).parent.name if bag else "",
            "valid": valid,
            "mpp": _mpp_listed(slide_path, p),
            "versions": record.versions("opencv-python-headless", "openslide-bin"),
        }

        def make(_: Path) -> dict:
            return {"findings": examine(slide_path, p, bag, valid)}

        folder = record.cached(p.results / "tiles" / slide_id / "quality", inputs, make)
        return record.run_json(folder)["facts"]["findings"]
    except (SlideError, OSError, KeyError) as error:
        return [_finding("unreadable", float("nan"), "", float("nan"), True, str(error))]


def table(patients: pd.DataFrame, tiles: pd.DataFrame | None, p: Params, workers: int = 1) -> pd.DataFrame:
    """Findings on a cohort's slides: one row per slide and check, with columns COLUMNS.

    patients: index patient_id, columns slide_id and slide_path; tiles: tiling's table (slide_id, valid, bag), or None
    where nothing was tiled. A slide that cannot be read has the one row `unreadable`, with what went wrong.
    """
    tiled = {} if tiles is None else tiles.set_index("slide_id")[["bag", "valid"]].to_dict("index")
    jobs = []
    for row in patients.itertuples():
        slide_tiles = tiled.get(row.slide_id, {"bag": "", "valid": None})
        valid = pd.to_numeric(slide_tiles["valid"], errors="coerce")
        bag = slide_tiles["bag"] if isinstance(slide_tiles["bag"], str) else ""
        valid = None if pd.isna(valid) else int(valid)
        jobs.append(delayed(_findings)(row.slide_id, Path(row.slide_path), bag, valid, p))
    done = Parallel(n_jobs=workers, return_as="generator")(jobs)
    findings_per_slide = list(tqdm(done, total=len(jobs), desc="quality", unit="slide", mininterval=5))
    rows = [
        {"patient_id": row.Index, "slide_id": row.slide_id, **finding}
        for row, findings in zip(patients.itertuples(), findings_per_slide, strict=True)
        for finding in findings
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"value": float, "limit": float, "flagged": bool})
