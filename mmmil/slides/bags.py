"""Bags: the same number of tiles for every patient of a cohort, one HDF5 file per slide (Preprocessing).

The files are the record of the tiling: what an interrupted one goes on from, and where each tile lies. Trainings read
the cohort's packed ones (`packed`).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import delayed
from tqdm import tqdm

from mmmil import record
from mmmil.params import Params
from mmmil.processes.pool import parallel
from mmmil.slides import coordinates, files, scale, tile_images, tiling
from mmmil.slides.files import SlideError
from mmmil.sources.slide_files import images_of, is_pattern

SUMMARY = ["patient_id", "slide_id", "slide_path", "width", "height", "mpp", "um_per_tile"]
SUMMARY += ["pieces", "left_out", "candidates", "tested", "valid", "valid_estimate", "used", "bag", "problem"]
MIN_TILES = 16  # with n_tiles 0: a patient with fewer valid ones would make the bags of all others too small


class TilingError(SlideError):
    """A slide cannot be used, or has too few valid tiles; names every such slide."""


def bag_of(slide_path: Path, candidates_path: Path, folder: Path, p: Params, n_tiles: int) -> Path:
    """HDF5 file of a slide's bag: `coords` (n, 2) in level-0 px, `imgs` (n_tiles, px, px, 3) uint8, `mask` (n_tiles,).

    Where there are fewer than n_tiles, the bag is padded with white tiles at its end, False in `mask`.
    """
    inputs = {
        "candidates": candidates_path.parent.name,
        "n_tiles": n_tiles,
        "tile_choice": p.tile_choice,
        "seed": p.seed,
    }

    def make(unfinished: Path) -> None:
        candidates = tiling.read_candidates(candidates_path)
        coords = candidates.coords[tiling.choose(candidates, n_tiles, p.tile_choice, p.seed)]
        tiles = np.full((n_tiles, p.tile_px, p.tile_px, 3), 255, np.uint8)
        tiles[: len(coords)] = tiling.read_tiles(slide_path, coords, candidates.attributes)
        mask = np.arange(n_tiles) < len(coords)
        coordinates.write(unfinished / "bag.h5", candidates.attributes, coords=coords, imgs=tiles, mask=mask)

    return record.cached(folder / "bags", inputs, make) / "bag.h5"


def _examine_slide(patient_id: str, slide_id: str, slide_path: Path, p: Params, threads: int) -> dict:
    row = dict.fromkeys(SUMMARY, "")
    row |= {"patient_id": patient_id, "slide_id": slide_id, "slide_path": str(slide_path)}
    try:
        if is_pattern(slide_path):
            n = tile_images.require_tiles(slide_path, p.tile_px)
            return row | {"candidates": n, "tested": n, "valid": n, "valid_estimate": n}
        path = tiling.candidates_of(slide_path, p.results / "tiles" / slide_id, p, threads)
    except SlideError as error:
        return row | {"problem": f"error: {error}"}
    candidates = tiling.read_candidates(path)
    a = candidates.attributes
    return row | {
        "width": int(a["level0_width"]),
        "height": int(a["level0_height"]),
        "mpp": round(float(a["mpp"]), 4),
        "um_per_tile": round(float(a["mpp"] * a["patch_size"]), 2),
        "pieces": int(a["pieces"]) if "pieces" in a else "",
        "left_out": round(float(a["left_out"]), 4) if "left_out" in a else "",
        "candidates": len(candidates.valid),
        "tested": int(candidates.tested.sum()),
        "valid": int(candidates.valid.sum()),
        "valid_estimate": round(candidates.valid_estimate),
        "found": str(path),
    }


def _bag_slide(row: dict, slide_path: Path, p: Params, n_tiles: int) -> dict:
    try:
        folder = p.results / "tiles" / row["slide_id"]
        if is_pattern(slide_path):
            bag = tile_images.bag_of(slide_path, row["slide_id"], folder, p, n_tiles)
        else:
            bag = bag_of(slide_path, Path(row["found"]), folder, p, n_tiles)
        return row | {"bag": str(bag), "used": min(row["valid"], n_tiles)}
    except (SlideError, OSError) as error:
        return row | {"problem": f"error: {error}"}


def tile_patient(patient: str, slide_id: str, slide_path: Path, p: Params) -> dict:
    """A row as `tile_cohort` makes it, of one patient alone, whoever else there is; p.n_tiles is the number of tiles.

    What is wrong with the slide stands in `problem`, whatever `few_tiles` says, unless it pads.
    """
    row = _examine_slide(patient, slide_id, slide_path, p, 1)
    least = 1 if p.few_tiles == "pad" else p.n_tiles
    if not row["problem"] and row["valid"] < least:
        row["problem"] = f"{row['valid']} valid tiles, fewer than the {least} that are needed"
    return row if row["problem"] else _bag_slide(row, slide_path, p, p.n_tiles)


def common_number(valid: pd.Series, p: Params) -> int:
    """Tiles per patient: n_tiles, or the largest number that every patient with at least MIN_TILES can give.

    valid: valid tiles per slide that could be read. Raises TilingError where nobody has MIN_TILES.
    """
    if p.n_tiles:
        return p.n_tiles
    enough = valid[valid >= MIN_TILES]
    if enough.empty:
        most = f"the most is {valid.max()}" if len(valid) else "no slide could be read"
        raise TilingError(
            f"no patient has {MIN_TILES} valid tiles, {most}; lower tissue_percent, or say n_tiles yourself"
        )
    return int(enough.min())


def _each(calls: list, description: str, jobs: int) -> list[dict]:
    done = parallel(jobs, return_as="generator")(calls)
    return list(tqdm(done, total=len(calls), desc=description, unit="slide", mininterval=5))


def _examined(patients: pd.DataFrame, p: Params, workers: int) -> list[dict]:
    """A row of every patient, with what tiles the slide has."""
    slides = [Path(path) for path in patients["slide_path"]]
    jobs = max(1, min(workers, len(patients)))
    threads = max(1, workers // jobs)  # of one slide, where there are fewer slides than workers
    named = zip(patients.index, patients["slide_id"], slides, strict=True)
    return _each([delayed(_examine_slide)(*of, p, threads) for of in named], "looking for tissue", jobs)


def _judged(rows: list[dict], p: Params, n_tiles: int) -> list[dict]:
    """The rows, with the problem of those that could be read and have too few valid tiles."""
    least = 1 if p.few_tiles == "pad" else (n_tiles if p.n_tiles else MIN_TILES)
    too_few = {1: "none at all"}.get(least, f"fewer than n_tiles ({least})" if p.n_tiles else f"fewer than {least}")
    for row in rows:
        if not row["problem"] and row["valid"] < least:
            row["problem"] = f"{row['valid']} valid tiles, {too_few}"
    return rows


def _bagged(rows: list[dict], patients: pd.DataFrame, p: Params, n_tiles: int, workers: int) -> list[dict]:
    """The rows, those without a problem with their bags."""
    paths = patients["slide_path"]
    good = [row for row in rows if not row["problem"]]
    calls = [delayed(_bag_slide)(row, Path(paths[row["patient_id"]]), p, n_tiles) for row in good]
    done = {row["patient_id"]: row for row in _each(calls, "reading tiles", max(1, min(workers, len(good))))}
    return [done.get(row["patient_id"], row) for row in rows]


def tile_some(patients: pd.DataFrame, p: Params, workers: int = 1) -> list[str]:
    """What `tile_cohort` computes for some of a cohort's patients, slide by slide, for it to find; what is wrong with
    slides, which it will tell.

    With n_tiles 0 the bags wait for it: their number of tiles is known when all slides have been looked at.
    """
    _require_tables(patients, p)
    rows = _examined(patients, p, workers)
    if p.n_tiles:
        rows = _bagged(_judged(rows, p, p.n_tiles), patients, p, p.n_tiles, workers)
    return [f"{row['patient_id']}: {row['problem']}" for row in rows if row["problem"]]


def tile_cohort(
    patients: pd.DataFrame, p: Params, workers: int = 1, examined_for: Params | None = None
) -> pd.DataFrame:
    """Tile every patient's slide; one row per patient with columns SUMMARY, `bag` empty where there is none.

    examined_for: settings with which the slides were looked at before, for more tiles than p asks for and otherwise
    alike. Fewer random tiles are the first of more, so that they are taken from those and no slide is searched again.

    pieces and left_out: of tissue on the slide, and the share of its area outside the grid ('' where the positions are
    read from files). valid: of the candidates that were `tested`; where these are not all, there are at least so many,
    and `valid_estimate` says about how many. Fewer valid ones than are wanted are all there are. Of images of tiles in
    a slide's place only their number is known. The table is found again by the content of the slides, without a look at
    the files of their tiles (`make_again` sees to these).

    A bad slide does not stop the others. Raises TilingError at the end, naming all of them; slides with too few valid
    tiles are an error, reported in `problem`, or padded, by the parameter `few_tiles`. Raises SlideError where
    mpp_table or coords_dir may mean two slides by one name.
    """
    _require_tables(patients, p)
    table = scale.read_mpp_table(p.path(p.mpp_table)) if p.mpp_table else {}
    inputs = {
        "slides": [[i, r.slide_id, _content(Path(r.slide_path), p, table)] for i, r in patients.iterrows()],
        "settings": p.stage("tiles"),
        "seed": p.seed,
        "versions": record.versions(*tiling.VERSIONS, "pillow"),
    } | ({"examined_for": examined_for.n_tiles} if examined_for else {})

    def make(folder: Path) -> None:
        rows = [{name: row[name] for name in SUMMARY} for row in _tiled(patients, p, workers, examined_for)]
        for row in rows:
            row["bag"] = row["bag"] and str(Path(row["bag"]).relative_to(p.results))
        (folder / "tiles.json").write_text(json.dumps(rows, indent=0))

    rows = json.loads((record.cached(p.results / "tiling", inputs, make) / "tiles.json").read_text())
    for row, path in zip(rows, patients["slide_path"], strict=True):  # they and the results may have been moved
        row |= {"slide_path": str(path), "bag": row["bag"] and str(p.results / row["bag"])}
    return pd.DataFrame(rows, columns=SUMMARY)


def _require_tables(patients: pd.DataFrame, p: Params) -> None:
    slides = [Path(path) for path in patients["slide_path"]]
    if p.mpp_table:
        scale.unused_rows(p.path(p.mpp_table), slides)
    if p.coords_dir:
        coordinates.unused_files(p.path(p.coords_dir), slides)


def _content(slide_path: Path, p: Params, table: dict) -> object:
    """What a slide's row hangs on beside the settings; of a bad one what is wrong with it, and no table is kept."""
    try:
        if is_pattern(slide_path):
            return [[path.name, record.file_digest(path)] for path in images_of(slide_path)]
        coords = coordinates.find(p.path(p.coords_dir), slide_path.stem) if p.coords_dir else None
        of_file = record.file_digest(coords) if coords else None
        return [files.slide_fingerprint(slide_path), scale.table_mpp(slide_path, table), of_file]
    except (SlideError, OSError) as error:
        return str(error)


def make_again(tiles: pd.DataFrame, p: Params) -> None:
    """Make those bags of a table of `tile_cohort` again whose files are gone or damaged. Raises TilingError."""
    there = tiles[tiles["bag"] != ""]
    for row in there.to_dict("records"):
        if record.whole(Path(row["bag"]).parent) is None:
            path, n_tiles = Path(row["slide_path"]), p.n_tiles or int(there["used"].max())
            again = _examine_slide(row["patient_id"], row["slide_id"], path, p, 1)
            again = again if again["problem"] else _bag_slide(again, path, p, n_tiles)
            if again["bag"] != row["bag"]:
                told = again["problem"].removeprefix("error: ") or "its slide was replaced; tile the cohort again"
                raise TilingError(f"{row['bag']}: is gone or damaged and cannot be made again: {told}")


def _tiled(patients: pd.DataFrame, p: Params, workers: int, examined_for: Params | None = None) -> list[dict]:
    """The rows of `tile_cohort`, columns SUMMARY and more."""
    rows = _examined(patients, examined_for or p, workers)
    readable = [row for row in rows if not row["problem"]]
    if readable:
        n_tiles = common_number(pd.Series([row["valid"] for row in readable]), p)
        rows = _bagged(_judged(rows, p, n_tiles), patients, p, n_tiles, workers)
    table = pd.DataFrame(rows, columns=SUMMARY)
    bad = table["problem"].str.startswith("error: ")
    if p.few_tiles == "error":
        bad |= table["problem"] != ""
    if bad.any():
        lines = "\n".join(f"  {r.patient_id}: {r.problem.removeprefix('error: ')}" for r in table[bad].itertuples())
        raise TilingError(f"{bad.sum()} of {len(table)} slides cannot be used:\n{lines}")
    return rows
