"""Tiling against histolab's own GridTiler.extract and against merely reading the pixels, on synthetic slides.

    python benchmarks/tiling.py                             6,000 to 30,000 px a side: about 15 minutes
    python benchmarks/tiling.py --sides 60000 --repeats 1   the largest: about an hour, nearly all of it histolab

Every measurement is a process of its own, so that its peak memory is its own, and the ways take turns. `ours` is
what a cohort's run does for one slide where every position is tested, candidates and a bag of 64 tiles as HDF5, with
the given number of threads (what random tiles cost without that, random_tiles.py measures);
`histolab` is GridTiler.extract, which writes PNG files; `reading` reads histolab's valid and rejected positions one
by one through OpenSlide on one thread and throws them away. Writes benchmarks/results/tiling.md.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

TILE = 256  # px, of the slides' JPEG tiles and of ours
TEXTURE = 2048  # px of rendered tissue that a large slide repeats: rendering 3.6 gigapixels would take 15 minutes
SHARE = 0.43  # radius of the tissue by the slide's side


def write_slide(path: Path, side: int) -> None:
    """A slide of one round piece of synthetic tissue with an irregular outline, in a minute whatever its side.

    Within the tissue the same encoded tiles are repeated; only those on the outline are drawn.
    """
    import tifffile

    from mmmil.simulate import pyramid
    from mmmil.simulate import slides as synthetic_slides

    source = synthetic_slides.Slide(("benchmark",), 3 * TEXTURE, planted_share=0.3)
    rows = list(synthetic_slides.strips(source))[TEXTURE // TILE : 2 * TEXTURE // TILE]
    texture = np.concatenate(rows)[:, TEXTURE : 2 * TEXTURE]
    outline = synthetic_slides.Slide(("benchmark", side), side, radius=SHARE * side)
    jpeg = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": pyramid.QUALITY}}
    jpeg |= {"metadata": None, "software": False, "tile": (TILE, TILE), "dtype": np.uint8, "maxworkers": 1}

    def encoded(tile: np.ndarray) -> bytes:
        held = io.BytesIO()
        with tifffile.TiffWriter(held) as file:
            file.write(tile, **jpeg)
        held.seek(0)
        page = tifffile.TiffFile(held).pages[0]
        return held.getvalue()[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]]

    def tiles(size: int, image: np.ndarray) -> Iterator[bytes]:
        """Of a level of `size` px, whose texture is `image`."""
        at, known = np.arange(TILE, dtype=np.float32), {}
        for top in range(0, size, TILE):
            for left in range(0, size, TILE):
                across, down = (left + at) % image.shape[1], (top + at) % len(image)
                corners = [(v + np.array([0, TILE])) * (side / size) for v in (left, top)]
                middle, _ = outline.border_distance(*(np.mean(v, keepdims=True) for v in corners))
                part = np.sign(middle[0]) if abs(middle[0]) > 3 * TILE * side / size else 0
                key = (part, down[0] if part > 0 else 0, across[0] if part > 0 else 0)
                if part and key in known:
                    yield known[key]
                    continue
                scale = np.float32(side / size)
                inside, _ = outline.border_distance((left + at)[None] * scale, (top + at)[:, None] * scale)
                tissue = image[down.astype(int)][:, across.astype(int)]
                known[key] = encoded(np.where((inside > 0)[..., None], tissue, np.uint8(pyramid.GLASS)))
                yield known[key]

    with tifffile.TiffWriter(path, bigtiff=side > 20_000) as file:
        size, image = side, texture
        while size >= 64:
            about = f"Aperio Image Library v12.0.15 \r\n{side}x{side} [0,0 {size}x{size}] ({TILE}x{TILE}) JPEG/RGB"
            about += "|Synthetic = mmmil|AppMag = 20|MPP = 0.5000" if size == side else ""
            kind = {"shape": (size, size, 3), "description": about, "subfiletype": int(size != side)}
            file.write(tiles(size, image), **kind, **jpeg)
            size, by = size // pyramid.DOWNSAMPLE, pyramid.DOWNSAMPLE
            image = (
                image.reshape(len(image) // by, by, image.shape[1] // by, by, 3).mean((1, 3)).round().astype(np.uint8)
            )


def peak() -> int:
    """Peak resident memory of this process, MiB."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in text.splitlines() if line.startswith("VmHWM"))


def measure(way: str, path: Path, threads: int) -> dict:
    """Seconds, peak memory and tiles of one way; run in a process of its own."""
    import logging
    import time
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    import openslide
    from histolab.slide import Slide
    from histolab.tiler import GridTiler

    from mmmil import params
    from mmmil.slides import bags, tiling

    with tempfile.TemporaryDirectory() as folder:
        if way == "ours":
            p = params.load("lgg", results_dir=folder, n_tiles=0)
            start = time.perf_counter()
            candidates_path = tiling.candidates_of(path, Path(folder), p, threads)
            bags.bag_of(path, candidates_path, Path(folder), p, 64)
            seconds = time.perf_counter() - start
            candidates = tiling.read_candidates(candidates_path)
            tiles = sorted(map(tuple, candidates.coords[candidates.valid].tolist()))
            return {"seconds": seconds, "peak": peak(), "tiles": tiles, "positions": candidates.coords.tolist()}
        if way == "histolab":
            tiler = GridTiler((256, 256), level=0, tissue_percent=90.0)
            start = time.perf_counter()
            tiler.extract(Slide(path, folder))
            seconds = time.perf_counter() - start
            names = (file.stem.split("level0_")[1].split("-")[:2] for file in Path(folder).glob("*.png"))
            return {"seconds": seconds, "peak": peak(), "tiles": sorted(tuple(map(int, n)) for n in names)}
        positions = json.loads(sys.stdin.read())
        with openslide.OpenSlide(path) as slide:
            start = time.perf_counter()
            for x, y in positions:
                slide.read_region((x, y), 0, (256, 256))
            return {"seconds": time.perf_counter() - start, "peak": peak()}


def measured(way: str, path: Path, threads: int, positions: list | None = None) -> dict:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", way, str(path), "--threads", str(threads)]
    done = subprocess.run(command, input=json.dumps(positions), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{way} failed on {path}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(side: int, path: Path, repeats: int, threads: int) -> list:
    """One row of the table; the ways take turns, histolab once where it takes minutes."""
    runs: dict[str, list[dict]] = {"ours": [], "one": [], "reading": [], "histolab": []}
    for turn in range(repeats):
        runs["ours"].append(measured("ours", path, threads))
        positions = runs["ours"][0]["positions"]
        runs["reading"].append(measured("reading", path, 1, positions))
        runs["one"].append(measured("ours", path, 1))
        if turn == 0 or runs["histolab"][0]["seconds"] < 120:
            runs["histolab"].append(measured("histolab", path, 1))
        print(side, turn, {way: round(r[-1]["seconds"], 2) for way, r in runs.items()}, file=sys.stderr, flush=True)
    same = all(run["tiles"] == runs["histolab"][0]["tiles"] for way in ("ours", "one", "histolab") for run in runs[way])
    ours, one_thread, reading, histolab = (float(np.median([r["seconds"] for r in runs[way]])) for way in runs)
    n = len(runs["ours"][0]["positions"])
    return [
        f"{side:,}", f"{n:,}", f"{len(runs['ours'][0]['tiles']):,}", "identical" if same else "DIFFERENT",
        f"{ours:.2f}", f"{one_thread:.2f}", f"{reading:.2f}", f"{histolab:.1f}", f"{histolab / ours:.1f}",
        f"{ours / reading:.2f}", f"{one_thread / reading:.2f}", f"{1000 * ours / n:.2f}",
        max(r["peak"] for r in runs["ours"]), max(r["peak"] for r in runs["histolab"]),
    ]  # fmt: skip


def table(rows: list[list], threads: int, repeats: int) -> str:
    """The results page."""
    from mmmil import record

    head = [
        "side, px", "positions", "valid tiles", "sets of tiles", f"ours, {threads} threads, s", "ours, 1 thread, s",
        "reading, s", "histolab, s", "histolab / ours", f"ours / reading ({threads} threads)",
        "ours / reading (1 thread)", "ours, ms a position", "peak, ours, MiB", "peak, histolab, MiB",
    ]  # fmt: skip
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head), *rows]]
    names = ("histolab", "openslide-python", "openslide-bin", "opencv-python-headless", "scikit-image")
    about = [
        f"- {record.made_on(*names)}",
        f"- medians of {repeats} turns; histolab once where it takes over two minutes",
    ]
    note = "Synthetic slides, 256-px tiles of level 0, more than 90 % tissue. See `benchmarks/tiling.py`."
    return "\n".join(["# Tiling against histolab and against reading", "", note, "", *about, "", *lines, ""])


def main() -> None:
    """Make the slides, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[6000, 15000, 30000], help="px")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slides", type=Path, default=Path(tempfile.gettempdir()) / "mmmil_benchmark")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tiling.md")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "SLIDE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], Path(given.measure[1]), given.threads)))
        return
    from mmmil import record

    given.slides.mkdir(parents=True, exist_ok=True)
    rows = []
    for side in given.sides:
        path = given.slides / f"{side}.svs"
        if not path.is_file():
            record.write_atomically(path, lambda t, side=side: write_slide(t, side))
        rows.append(compare(side, path, given.repeats, given.threads))
    text = table(rows, given.threads, given.repeats)
    record.write_atomically(given.out, lambda t: t.write_text(text))
    print(text)


if __name__ == "__main__":
    main()
