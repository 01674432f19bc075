"""64 random tiles of a slide: positions tested in random order, against testing every one and against other tilers.

    python benchmarks/random_tiles.py                       60,000 px a side: ten minutes on a free machine
    python benchmarks/random_tiles.py --lazyslide PYTHON    with LazySlide, installed for another interpreter

Every measurement is a process of its own, which tiles a small slide first, so that imports and look-ups are not
measured; the ways take turns. `random order` is what a cohort's run does for one slide, positions tested until 64 are
valid and a bag of them as HDF5; `every position` tests all of the grid first, as the run did before. Both give the same
tiles. histolab's RandomTiler draws corners anywhere in the tissue's box and tests each in the same way; its GridTiler
tests and writes every position, takes most of an hour on the large slide and is measured on a smaller one. LazySlide
finds tissue on a small image and tests no tile; 64 random ones of its grid are read and written. Seconds of CPU time
are those that count where other work runs on the machine. Measurements are kept beside the slides, so that an
interrupted benchmark goes on; `--again` starts afresh. Writes benchmarks/results/random_tiles.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

N = 64
SLIDES = 941  # of a study of this size, for which the cost is extrapolated
GRID_SIDE = 6000  # px, of the slide on which GridTiler is measured
WARM_SIDE = 1024
MEASURED = "random_tiles.jsonl"
WAYS = {
    "random order": "ours, positions tested in random order",
    "every position": "ours, every position tested first",
    "RandomTiler": "histolab's RandomTiler",
    "GridTiler": "histolab's GridTiler",
    "LazySlide": "LazySlide, no tile tested",
}


# -- the ways: each takes a slide, a folder and a number of tiles, and says how many it wrote and tested --------------
def ours(path: Path, folder: Path, n: int, every: bool) -> dict:
    from mmmil import params
    from mmmil.slides import bag_files, bags, tiling

    p = params.load("lgg", results_dir=str(folder), n_tiles=n)
    found = tiling.candidates_of(path, folder, p.override(n_tiles=0) if every else p)
    bag = bags.bag_of(path, found, folder, p, n)
    candidates = tiling.read_candidates(found)
    corners = bag_files.load_coords(str(bag))[0].tolist()
    return {"tested": int(candidates.tested.sum()), "tiles": corners, "positions": len(candidates.valid)}


def histolab(path: Path, folder: Path, n: int, tiler: str) -> dict:
    from histolab import tiler as tilers
    from histolab.slide import Slide

    several = {"n_tiles": n} if tiler == "RandomTiler" else {}
    getattr(tilers, tiler)((256, 256), level=0, tissue_percent=90.0, **several).extract(Slide(path, folder))
    return {"tiles": len(list(folder.glob("*.png")))}


def lazyslide(path: Path, folder: Path, n: int) -> dict:
    import lazyslide as zs
    import numpy as np
    from wsidata import open_wsi

    wsi = open_wsi(path, store=str(folder / "store.zarr"))
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, 256, mpp=0.5, background_fraction=0.1)
    corners = wsi.shapes["tiles"].bounds[["minx", "miny"]].to_numpy().astype(int)
    picked = np.random.default_rng(0).choice(len(corners), min(n, len(corners)), replace=False)
    tiles = [np.asarray(wsi.read_region(int(x), int(y), 256, 256, level=0)) for x, y in corners[picked]]
    np.save(folder / "tiles.npy", np.stack(tiles))
    return {"tiles": len(tiles), "positions": len(corners)}


def measure(way: str, path: Path) -> dict:
    """Seconds, CPU seconds and peak memory of one way; run in a process of its own."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    run: Callable[[Path, Path, int], dict] = {
        "random order": lambda *of: ours(*of, every=False),
        "every position": lambda *of: ours(*of, every=True),
        "RandomTiler": lambda *of: histolab(*of, tiler="RandomTiler"),
        "GridTiler": lambda *of: histolab(*of, tiler="GridTiler"),
        "LazySlide": lazyslide,
    }[way]
    for slide, n in ((path.with_name(f"{WARM_SIDE}.svs"), 4), (path, N)):
        with tempfile.TemporaryDirectory() as folder:
            start, before = time.perf_counter(), os.times()
            facts = run(slide, Path(folder), n)
            after = os.times()
            facts["seconds"] = time.perf_counter() - start
            facts["cpu"] = sum(after[:4]) - sum(before[:4])
    return facts


def measured(way: str, path: Path, python: str) -> dict:
    """`measure` in a fresh process."""
    done = subprocess.run([python, __file__, "--measure", way, str(path)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{way} failed on {path}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# -- the table ---------------------------------------------------------------------------------------------------
def turns(slides: Path, side: int, repeats: dict[str, int], lazy: str) -> dict[str, list[dict]]:
    """The measurements of every way, with those that are there already; the ways take turns."""
    runs: dict[str, list[dict]] = {way: [] for way in WAYS if way != "LazySlide" or lazy}
    file = slides / MEASURED
    for line in file.read_text().splitlines() if file.is_file() else []:
        run = json.loads(line)
        if run["path"] == str(_slide(slides, side, run["way"])):
            runs.setdefault(run["way"], []).append(run)
    for turn in range(max(repeats.values())):
        for way in runs:
            if len(runs[way]) <= turn < repeats[way]:
                runs[way].append(
                    measured(way, _slide(slides, side, way), lazy if way == "LazySlide" else sys.executable)
                )
                runs[way][-1]["load"] = round(os.getloadavg()[0], 1)
                with file.open("a") as handle:
                    handle.write(json.dumps(runs[way][-1]) + "\n")
                told = {name: runs[way][-1].get(name) for name in ("seconds", "cpu", "tested", "positions")}
                print(turn, way, told, file=sys.stderr, flush=True)
    return runs


def _slide(slides: Path, side: int, way: str) -> Path:
    return slides / f"{GRID_SIDE if way == 'GridTiler' else side}.svs"


def table(runs: dict[str, list[dict]], side: int, about: list[str]) -> str:
    """The results page."""
    import numpy as np

    first = runs["random order"][0]
    same = all(run["tiles"] == first["tiles"] for way in ("random order", "every position") for run in runs[way])
    base = {name: float(np.median([run[name] for run in runs["random order"]])) for name in ("seconds", "cpu")}
    head = ["way", "turns", "positions tested", "seconds, median (range)", "CPU seconds, median (range)"]
    head += ["seconds / random order", "CPU / random order", f"core-hours of {SLIDES} slides, extrapolated"]
    rows = []
    for way, of_way in runs.items():
        found = {name: np.array([run[name] for run in of_way]) for name in ("seconds", "cpu")}
        tested = f"{of_way[0]['tested']:,} of {of_way[0]['positions']:,}" if "tested" in of_way[0] else "–"
        if way == "GridTiler":
            positions = grid_positions(Path(of_way[0]["path"]))
            tested = f"{first['positions']:,}, extrapolated from {positions:,} of {GRID_SIDE:,} px a side"
            found = {name: values * first["positions"] / positions for name, values in found.items()}
        elif way == "LazySlide":
            tested = f"0 of {of_way[0]['positions']:,}"
        middle = {name: float(np.median(values)) for name, values in found.items()}
        spans = [f"{middle[name]:.2f} ({min(found[name]):.2f}–{max(found[name]):.2f})" for name in found]
        ratios = [f"{middle[name] / base[name]:.1f}" for name in found]
        rows.append([WAYS[way], len(of_way), tested, *spans, *ratios, f"{SLIDES * middle['cpu'] / 3600:.2f}"])
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head), *rows]]
    agree = "the same tiles" if same else "DIFFERENT tiles"
    about = [*about, f"- random order and every position gave {agree}"]
    title = f"# {N} random tiles of a slide of {side:,} px a side"
    note = "A synthetic slide, 256-px tiles of level 0, more than 90 % tissue. See `benchmarks/random_tiles.py`."
    return "\n".join([title, "", note, "", *about, "", *lines, ""])


def grid_positions(path: Path) -> int:
    """Positions of histolab's grid on a slide."""
    from mmmil.slides import tiling

    return len(tiling.find_candidates(path, wanted=1).coords)


def main() -> None:
    """Make the slides, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=60_000, help="px")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow", type=int, default=3, help="repeats of what takes a minute or more")
    parser.add_argument("--again", action="store_true", help="measure anew what was measured before")
    parser.add_argument("--lazyslide", default="", help="interpreter that has LazySlide", metavar="PYTHON")
    parser.add_argument("--slides", type=Path, default=Path(tempfile.gettempdir()) / "mmmil_benchmark")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "random_tiles.md")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "SLIDE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        path = Path(given.measure[1])
        print(json.dumps(measure(given.measure[0], path) | {"way": given.measure[0], "path": str(path)}))
        return
    from tiling import write_slide

    from mmmil import record

    for side in (WARM_SIDE, GRID_SIDE, given.side):
        if not (path := given.slides / f"{side}.svs").is_file():
            record.write_atomically(path, lambda t, side=side: write_slide(t, side))
    if given.again:
        (given.slides / MEASURED).unlink(missing_ok=True)
    repeats = dict.fromkeys(WAYS, given.repeats) | {"every position": given.slow, "GridTiler": given.slow}
    runs = turns(given.slides, given.side, repeats, given.lazyslide)
    loads = [run["load"] for of_way in runs.values() for run in of_way]
    names = ("histolab", "openslide-python", "openslide-bin", "opencv-python-headless", "scikit-image")
    made_on = record.made_on(*names)
    if given.lazyslide:
        asked = "from importlib.metadata import version; print(version('lazyslide'))"
        made_on += ", lazyslide " + subprocess.check_output([given.lazyslide, "-c", asked], text=True).strip()
    about = [
        f"- {made_on}",
        f"- one process of one thread each; load average after a measurement: {min(loads)} to {max(loads)}",
    ]
    text = table(runs, given.side, about)
    record.write_atomically(given.out, lambda t: t.write_text(text))
    print(text)


if __name__ == "__main__":
    main()
