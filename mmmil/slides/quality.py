"""What is reported of a slide: pen, blur, little tissue, tissue that is not tiled, areas that were not scanned,
fluorescence, another stain, a frozen section, a wrong scale.

Nothing is left out because of it: a reader judges. What is measured on the pixels stands in `mmmil.slides.appearance`.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from joblib import delayed
from tqdm import tqdm

from mmmil import record
from mmmil.params import Params
from mmmil.processes.pool import parallel
from mmmil.slides import appearance, names, scale
from mmmil.slides import files as slide_files
from mmmil.slides.files import SlideError
from mmmil.sources.slide_files import is_pattern

COLUMNS = ["patient_id", "slide_id", "check", "value", "unit", "limit", "flagged", "note"]
# Limits above or below which something is reported; a reader sees the value beside the limit, and judges.
MIN_TISSUE_PERCENT = 2.0  # of the thumbnail
MAX_PEN_PERCENT = 0.5  # of the thumbnail
MIN_SHARPNESS = 30.0  # variance of the Laplacian of a tile's grey values, median over tiles, at appearance.SHARP_AT
TILES = 16  # of a bag, on which sharpness is measured
MIN_HE_SHARE = 90.0  # % of the tissue: at least 99 in the H&E slides and TCGA tiles at hand
MAX_UNSCANNED = 50.0  # % of the slide: what a scanner leaves out around small tissue, and no half-finished scan
MAX_LEFT_OUT = 10.0  # % of the tissue, in pieces that are not tiled: a fragment beside the section
OTHER_HUES = [(50, "brown"), (75, "yellow"), (190, "green"), (220, "blue")]  # up to so many degrees


# -- one slide ---------------------------------------------------------------------------------------------------
def _finding(check: str, value: float, unit: str, limit: float, flagged: bool, note: str = "") -> dict:
    shown = None if np.isnan(value) else round(float(value), 4)
    return {"check": check, "value": shown, "unit": unit, "limit": limit, "flagged": bool(flagged), "note": note}


def _colours(image: np.ndarray, scanned: np.ndarray, valid: str) -> list[dict]:
    pens = appearance.pen_masks(image)
    tissue = appearance.tissue_mask(image, pens)
    inks = sorted(((100 * float(mask.mean()), colour) for colour, mask in pens.items()), reverse=True)
    of_scanned = scanned.size / max(int(scanned.sum()), 1)
    area, ink, share = (
        min(100 * float(tissue.mean()) * of_scanned, 100.0),
        sum(percent for percent, _ in inks),
        appearance.he_share(image, tissue),
    )
    stained = "" if area else "no tissue"
    if share < MIN_HE_SHARE:
        hue = appearance.tissue_hues(image, tissue)
        typical_hue = np.median(hue[(hue >= 10) & (hue < 220)])
        stained = "mostly " + next(name for up_to, name in OTHER_HUES if typical_hue <= up_to)
    ink_shares = ", ".join(f"{colour} {percent:.1f} %" for percent, colour in inks if percent >= 0.05)
    return [
        _finding("tissue", area, "%", MIN_TISSUE_PERCENT, area < MIN_TISSUE_PERCENT, valid),
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
    frozen, section = names.is_frozen(name), names.section(name)
    value = float("nan") if frozen is None else float(frozen)
    note = f"TCGA section {section}" if section else "the name is no TCGA barcode: nothing is claimed"
    return _finding("frozen section", value, "1: yes", 0.0, bool(frozen), note)


def _mpp_table(p: Params) -> dict[str, float]:
    return scale.read_mpp_table(p.path(p.mpp_table)) if p.mpp_table else {}


def _scale(path: Path, p: Params) -> dict:
    with slide_files.open_slide(path) as slide:
        stated = scale.stated(slide, path, _mpp_table(p))
    note = f"the file states {'no' if stated.x is None else f'{stated.x:.4g}'} µm/px"
    note += "" if stated.listed is None else f", mpp_table {stated.listed:.4g}"
    known = scale.is_plausible(stated.x)
    error = max((percent for percent, _ in stated.compared()), default=0.0) if known else float("nan")
    note = "; ".join([note, *stated.contradictions()])
    return _finding("scale", error, "%", scale.MAX_ERROR, not error <= scale.MAX_ERROR, note)


def _unscanned(scanned: np.ndarray) -> dict:
    percent = 100 * float(1 - scanned.mean())
    note = "taken for white glass" if percent else ""
    return _finding("unscanned", percent, "%", MAX_UNSCANNED, percent > MAX_UNSCANNED, note)


def _other_pieces(pieces: int | None, left_out: float | None, p: Params) -> dict:
    if pieces is None or left_out is None:
        return _finding("other pieces", float("nan"), "%", MAX_LEFT_OUT, False, "no grid of our own")
    note = {0: "no piece of tissue", 1: "1 piece of tissue"}.get(pieces, f"{pieces} pieces of tissue")
    note += ", tiled is the box of the biggest" if pieces > 1 and p.tissue == "biggest" else ""
    flagged = 100 * left_out > MAX_LEFT_OUT or not pieces
    return _finding("other pieces", 100 * left_out, "%", MAX_LEFT_OUT, flagged, note)


def examine(
    slide_path: Path | str,
    p: Params,
    bag_path: Path | str | None = None,
    valid: str = "",
    pieces: int | None = None,
    left_out: float | None = None,
) -> list[dict]:
    """Findings on one slide, in a fixed order: check, value (None: not measured), unit, limit, flagged, note.

    bag_path: HDF5 with `imgs`, without which blur is not measured; valid: what is told beside the tissue of its valid
    tiles, as `_valid` says it;
    pieces of tissue and the share left_out of their area that is not tiled, as `bags.tile_cohort` gives them. Raises
    SlideError where the slide cannot be opened or read.
    """
    path = Path(slide_path)
    image, scanned = appearance.look(path)
    lit = appearance.is_brightfield(image, scanned)
    note = "" if lit else "dark ground, as in fluorescence: its colours are not judged"
    light = appearance.brightness(image, scanned)
    return [
        _finding("brightfield", light, "grey", appearance.MIN_BRIGHTNESS, not lit, note),
        *(_colours(image, scanned, valid) if lit else []),
        _unscanned(scanned),
        _other_pieces(pieces, left_out, p),
        _blur(bag_path),
        _frozen(path.name),
        _scale(path, p),
    ]


# -- a cohort ----------------------------------------------------------------------------------------------------
def _findings(slide_id: str, slide_path: Path, tiled: dict, p: Params) -> list[dict]:
    """What `examine` finds, made once; a slide or bag that cannot be read is a finding itself, and images of tiles in
    a slide's place are one that says that nothing was looked at. tiled: of the slide's row of tiling's table bag,
    valid (in words), pieces and left_out.
    """
    if is_pattern(slide_path):
        note = "images of tiles that were cut beforehand: there is no slide to look at"
        return [_finding("not examined", float("nan"), "", float("nan"), False, note)]
    try:
        inputs = {
            "slide": slide_files.slide_fingerprint(slide_path),
            **tiled,
            "bag": Path(tiled["bag"]).parent.name if tiled["bag"] else "",
            "tissue": p.tissue,
            "mpp": scale.table_mpp(slide_path, _mpp_table(p)),
            "versions": record.versions("opencv-python-headless", "openslide-bin"),
        }

        def make(_: Path) -> dict:
            looked_at = (tiled["bag"], tiled["valid"], tiled["pieces"], tiled["left_out"])
            return {"findings": examine(slide_path, p, *looked_at)}

        folder = record.cached(p.results / "tiles" / slide_id / "quality", inputs, make)
        return record.run_json(folder)["facts"]["findings"]
    except (SlideError, OSError, KeyError) as error:
        return [_finding("unreadable", float("nan"), "", float("nan"), True, str(error))]


def _tiled(patients: pd.DataFrame, tiles: pd.DataFrame | None) -> pd.DataFrame:
    """bag ('' where there is none), valid (in words), pieces, left_out and mpp of every slide, in the order of
    `patients`; NaN where nothing was tiled.
    """
    columns = ["bag", "valid", "pieces", "left_out", "mpp", "candidates", "tested"]
    found = pd.DataFrame(columns=["slide_id"]) if tiles is None else tiles
    table = found.set_index("slide_id").reindex(index=patients["slide_id"], columns=columns)
    numbers = table[columns[1:]].apply(pd.to_numeric, errors="coerce")
    bag = [bag if isinstance(bag, str) else "" for bag in table["bag"]]
    valid = [_valid(*row) for row in numbers[["valid", "tested", "candidates"]].to_numpy()]
    return numbers[["pieces", "left_out", "mpp"]].assign(bag=bag, valid=valid)


def _valid(valid: float, tested: float, candidates: float) -> str:
    """Valid tiles in words: their number, or how many there are at least where not every position was tested."""
    if np.isnan(valid):
        return ""
    return f"at least {valid:.0f} valid tiles" if tested < candidates else f"{valid:.0f} valid tiles"


def _same_scale(mpp: pd.Series) -> dict[str, dict]:
    """slide_id -> whether its tiles have the scale of most of the cohort's: a model sees pixels, not µm.

    mpp: slide_id -> µm per px of its tiles, NaN where there are none.
    """
    known = mpp.dropna()
    if known.empty:
        return {}
    values = known.tolist()
    middle, span = float(known.median()), f"{known.min():.3g} to {known.max():.3g} µm/px"
    several = f"the cohort's tiles have {span}; tile_mpp gives all of them one scale"
    is_common = scale.common(values)
    note = "" if all(is_common) else several
    return {
        slide: _finding("same scale", value, "µm/px", middle, not common, note)
        for slide, value, common in zip(known.index, values, is_common, strict=True)
    }


def table(patients: pd.DataFrame, tiles: pd.DataFrame | None, p: Params, workers: int = 1) -> pd.DataFrame:
    """Findings on a cohort's slides: one row per slide and check, with columns COLUMNS.

    patients: index patient_id, columns slide_id and slide_path; tiles: tiling's table (slide_id, bag, candidates,
    tested, valid, pieces, left_out, mpp), or None where nothing was tiled. A slide that cannot be read has the one row
    `unreadable`, with what went wrong.
    """
    tiled = _tiled(patients, tiles)
    jobs = []
    for row, about in zip(patients.itertuples(), tiled.drop(columns="mpp").to_dict("records"), strict=True):
        known = {name: None if pd.isna(value) else value for name, value in about.items()}
        known |= {} if known["pieces"] is None else {"pieces": int(known["pieces"])}
        jobs.append(delayed(_findings)(row.slide_id, Path(row.slide_path), known, p))
    done = parallel(workers, return_as="generator")(jobs)
    findings_per_slide = list(tqdm(done, total=len(jobs), desc="quality", unit="slide", mininterval=5))
    same_scale = _same_scale(tiled["mpp"])
    rows = [
        {"patient_id": row.Index, "slide_id": row.slide_id, **finding}
        for row, findings in zip(patients.itertuples(), findings_per_slide, strict=True)
        for finding in [*findings, *([same_scale[row.slide_id]] if row.slide_id in same_scale else [])]
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"value": float, "limit": float, "flagged": bool})
