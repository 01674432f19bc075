"""What a look at a cohort's slides finds before any is tiled: in their headers, in mpp_table, in coords_dir."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from mmmil.params import Params
from mmmil.slides import coordinates, names, scale, tile_images
from mmmil.slides import files as slide_files
from mmmil.slides.files import SlideError
from mmmil.sources.findings import Finding
from mmmil.sources.slide_files import is_pattern

ERROR = "error"  # the check of a finding that will stop the study; its text is the error's
EXAMPLES = 3  # slides or rows told of a finding that many have
LOOK = ["patient_id", "slide_path", "format", "width", "height", "levels", "mpp", "tile_mpp", "power", "stated_power"]
LOOK += ["contradictions", "of_coords", "grey", "error"]


# -- headers -----------------------------------------------------------------------------------------------------
def _look(patient: str, path: Path, p: Params, table: dict[str, float]) -> dict:
    row: dict[str, Any] = {"patient_id": patient, "slide_path": str(path), "error": ""}
    row |= {"contradictions": [], "of_coords": [], "grey": False}
    try:
        if is_pattern(path):
            tile_images.require_tiles(path, p.tile_px)
            return row | {"format": "images of tiles", "width": p.tile_px, "height": p.tile_px}
        with slide_files.open_slide(path) as slide:
            stated = scale.stated(slide, path, table)
            row |= {
                "format": slide.properties.get("openslide.vendor", ""),
                "width": slide.dimensions[0],
                "height": slide.dimensions[1],
                "levels": slide.level_count,
                "mpp": stated.mpp,
                "power": None if stated.mpp is None else scale.power_of(stated.mpp),
                "stated_power": stated.power,
                "contradictions": stated.contradictions(),
                "grey": slide_files.is_grey(path, slide),
            }
            if p.coords_dir:
                file = coordinates.find(p.path(p.coords_dir), path.stem)
                _, g = coordinates.read(file, slide, path, p.tile_px, table, p.tile_level, p.tile_mpp)
                row["of_coords"] = coordinates.contradictions(file, path.stem, g.mpp_level0)
            else:
                g = scale.geometry(slide, path, p.tile_px, p.tile_level, p.tile_mpp, table)
            row["tile_mpp"] = g.mpp
    except SlideError as error:
        row["error"] = str(error)
    return row


def look(patients: pd.DataFrame, p: Params, workers: int = 1) -> pd.DataFrame:
    """One row per slide, of its header alone, columns LOOK; what cannot be known of a slide is NaN.

    patients: index patient_id, column slide_path. mpp and tile_mpp: µm per px at level 0 and of a tile; power: that of
    mpp, stated_power: the file's; contradictions, and of_coords those of its file of coordinates: lists of words; grey:
    whether it has no colours; error: what tiling the slide would raise, or ''.
    Raises SlideError for an mpp_table that cannot be read.
    """
    table = scale.read_mpp_table(p.path(p.mpp_table)) if p.mpp_table else {}
    slides = patients["slide_path"][patients["slide_path"] != ""]
    jobs = (delayed(_look)(patient, Path(path), p, table) for patient, path in slides.items())
    numbers = ["width", "height", "levels", "mpp", "tile_mpp", "power", "stated_power"]
    rows = pd.DataFrame(Parallel(n_jobs=workers, prefer="threads")(jobs), columns=LOOK)
    return rows.astype(dict.fromkeys(numbers, float))


def counts(slides: pd.DataFrame) -> pd.Series:
    """What there is, as pages show it: of `look`'s table the number of slides, formats, scales and sizes."""
    whole = slides[slides["error"] == ""]
    found: dict[str, int | str] = {"slides": len(slides), "of them cannot be used": len(slides) - len(whole)}
    found["formats"] = _counted(slides["format"].dropna().replace("", "unknown"))
    found["objective by µm per px at level 0"] = _counted(slides["power"].dropna().map("{:g}x".format))
    for name, column in {"µm per px at level 0": "mpp", "µm per px of the tiles": "tile_mpp"}.items():
        found[name] = _span(slides[column], "{:.3g}")
    found["longer side, px"] = _span(slides[["width", "height"]].max(axis=1), "{:,.0f}")
    return pd.Series(found, name="slides", dtype=object)


def _counted(values: pd.Series) -> str:
    return ", ".join(f"{value}: {n}" for value, n in values.value_counts().items()) or "none"


def _span(values: pd.Series, form: str) -> str:
    ends = dict.fromkeys(form.format(v) for v in (values.min(), values.max())) if values.notna().any() else {}
    return " to ".join(ends) or "none"


# -- findings ----------------------------------------------------------------------------------------------------
def find(patients: pd.DataFrame, p: Params, workers: int = 1, slides: pd.DataFrame | None = None) -> list[Finding]:
    """What is worth a look on a cohort's slides; nothing is tiled, and of each slide only the header is read.

    patients: index patient_id, column slide_path, as `cohort.build` gives them; slides: `look`'s table, if there is
    one. What will stop the study is told too, all of it at once, as findings of check ERROR.
    """
    if not p.has_pixels:
        return []
    if slides is None:
        try:
            slides = look(patients, p, workers)
        except SlideError as error:
            return [Finding(ERROR, str(error), "correct mpp_table", p.mpp_table)]
    paths = [Path(path) for path in slides["slide_path"]]
    return [
        *(_error(row.error, row.slide_path, row.patient_id) for row in slides.itertuples() if row.error),
        *_contradictions(slides),
        *_scales(slides, p),
        *_of_coords(slides, p),
        *_grey(slides),
        *_frozen(slides),
        *_beside(p.mpp_table, lambda: scale.unused_rows(p.path(p.mpp_table), paths), "row", "mpp_table"),
        *_beside(p.coords_dir, lambda: coordinates.unused_files(p.path(p.coords_dir), paths), "file", "coords_dir"),
    ]


def _error(text: str, file: str = "", place: str = "") -> Finding:
    return Finding(ERROR, text, "the study stops there; the text says what to correct", file, place)


def _some(words: Iterable[str]) -> str:
    """The first few of many, and how many more there are."""
    listed = list(words)
    more = f", and {len(listed) - EXAMPLES} more" if len(listed) > EXAMPLES else ""
    return "; ".join(listed[:EXAMPLES]) + more


def _n(n: int, what: str = "slide") -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _of(rows: pd.DataFrame) -> tuple[str, str]:
    """File and place of a finding: those of its only slide, or some of its patients."""
    alone = len(rows) == 1
    return rows["slide_path"].iloc[0] if alone else "", _some(rows["patient_id"].astype(str))


def _contradictions(slides: pd.DataFrame) -> list[Finding]:
    rows = slides[slides["contradictions"].map(len) > 0]
    if rows.empty:
        return []
    told = [f"{Path(row.slide_path).name}: {', '.join(row.contradictions)}" for row in rows.itertuples()]
    return [
        Finding(
            "scale",
            f"{_n(len(rows))} of {len(slides)} with statements of scale that contradict each other: {_some(told)}",
            "µm per px decides (mpp_table before the file), a stated objective is never used; measure a length on the "
            "slide, and give the right value in mpp_table",
            *_of(rows),
        )
    ]


def _scales(slides: pd.DataFrame, p: Params) -> list[Finding]:
    known = slides[slides["tile_mpp"].notna()]
    number = scale.groups(known["tile_mpp"].tolist())
    of_scale = [rows for _, rows in known.groupby(number)]
    if len(of_scale) < 2:
        return []
    told = [f"{_n(len(rows))} of {_span(rows['tile_mpp'], '{:.3g}')} µm/px" for rows in of_scale]
    fewest = min(of_scale, key=len)
    if p.coords_dir:
        remedy = "make all coordinates at one number of µm per px"
    else:
        wanted = max(scale.common_mpp(known["mpp"].tolist()), known["tile_mpp"].min() if p.tile_level else 0)
        instead = " in place of tile_level" if p.tile_level else ""
        remedy = f"tile_mpp: {wanted:.4g}{instead} gives all of them one scale"
    text = f"the cohort's tiles are of {len(of_scale)} scales, and a model sees pixels, not µm: {', '.join(told)}"
    return [Finding("mixed scales", text, remedy, "", _some(fewest["patient_id"].astype(str)))]


def _of_coords(slides: pd.DataFrame, p: Params) -> list[Finding]:
    rows = slides[slides["of_coords"].map(len) > 0]
    if rows.empty:
        return []
    told = _some(f"of {Path(row.slide_path).name}, {', '.join(row.of_coords)}" for row in rows.itertuples())
    text = f"{_n(len(rows), 'file')} of coordinates that contradict the slide: {told}"
    remedy = "see whether the tiles lie on this slide's tissue (page 02), or make them again"
    return [Finding("coordinates", text, remedy, p.coords_dir, _some(rows["patient_id"].astype(str)))]


def _grey(slides: pd.DataFrame) -> list[Finding]:
    rows = slides[slides["grey"]]
    if rows.empty:
        return []
    told = _some(Path(path).name for path in rows["slide_path"])
    remedy = "models are made for stained tissue in colour: convert an OME-TIFF whose channels lie apart to RGB"
    return [Finding("grey", f"{_n(len(rows))} with one channel, read as grey: {told}", remedy, *_of(rows))]


def _frozen(slides: pd.DataFrame) -> list[Finding]:
    is_frozen = slides["slide_path"].map(names.is_frozen)
    rows = slides[is_frozen.eq(True)]
    if rows.empty:
        return []
    among = "all slides are frozen sections" if len(rows) == len(slides) else (
        f"{_n(len(rows))} of {len(slides)} frozen sections, by name"
    )  # fmt: skip
    told = _some(Path(path).name for path in rows["slide_path"])
    return [Finding("frozen section", f"{among}: {told}", "the paper uses diagnostic slides (DX)", *_of(rows))]


def _beside(file: str, unused: Callable[[], list[str]], what: str, setting: str) -> list[Finding]:
    """Names in a table or folder beside the slides that belong to none of them."""
    if not file:
        return []
    try:
        strangers = unused()
    except SlideError as error:
        return [_error(str(error), file)]
    if not strangers:
        return []
    text = f"{_n(len(strangers), what)} of {setting} that match no slide of the cohort: {_some(strangers)}"
    return [Finding(setting, text, "correct the names where they are meant for a slide", file, _some(strangers))]
