"""What a training job reads: bytes, files, memory and seconds of an image, a feature, a gene and a baseline training.

    python benchmarks/bytes_read.py                    some minutes on 2 CPU cores
    python benchmarks/bytes_read.py --label before     of another checkout (PYTHONPATH), shown beside the others
    python benchmarks/bytes_read.py --quick            a few small tiles, for a test

A synthetic cohort is tiled, and genes and features are computed, as the steps before the trainings do. Then every
training is a process of its own, as a job of the batch is. It first makes the same training of a tiny cohort, so that
all is imported, and from there on is counted what `study.load` and `runs.run` do. `read` are the bytes of its read
calls (/proc/self/io, rchar), those for hashing and of h5py among them; pages of a mapped file are none, so `from disk`
stands beside it: what the disk gave where no file of the cohort was in the page cache. `private` and `mapped` are the
highest memory that is the process's own, and that is of files, over what they were before (RssAnon and RssFile, looked
at every 5 ms). Writes benchmarks/results/bytes_read.md and bytes_read.csv.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd

MIB = 2**20
TRAININGS = {
    "image": "wsi",
    "image and genes": "dual_go",
    "frozen features": "clam_tiny",
    "genes": "go",
    "baseline of genes": "baseline_genes",
    "baseline of colours": "baseline_image",
}
KINDS = {"slides": "data/", "bags": "results/tiles/", "packed": "results/bags/", "features": "results/features/"}


TINY = {"sim_patients": 24, "sim_slide_px": 512, "tile_px": 64, "n_tiles": 4}


def settings(folder: Path, given: argparse.Namespace):
    from mmmil import params

    places = {"data_dir": str(folder / "data"), "results_dir": str(folder / "results")}
    sizes = {"sim_patients": given.patients, "sim_slide_px": given.side, "tile_px": given.px, "n_tiles": given.tiles}
    if folder.name == "tiny":
        sizes = TINY
    sizes |= {"sim_genes": 500, "sim_sets": 20, "ae_epochs": 2, "fallback_sets": 6, "n_permutations": 100}
    encoders = {"tiny": "random:mobilenetv3_small_050"}
    return params.load(
        "nsclc", "demo", **places, **sizes, epochs=given.epochs, batch_size=2, encoders=encoders, device="cpu"
    )


# -- one job ---------------------------------------------------------------------------------------------------------
def counters() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}


def resident() -> dict[str, int]:
    """Private and mapped memory of the process, bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[key].split()[0]) * 1024 for name, key in (("private", "RssAnon"), ("mapped", "RssFile"))}


class Peaks(threading.Thread):
    """The highest of `resident` until it is ended, over what it was at the start."""

    def __init__(self):
        super().__init__(daemon=True)
        self.before, self.peak, self.over = resident(), resident(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005):
            self.peak = {name: max(value, self.peak[name]) for name, value in resident().items()}


def job(folder: Path, training: str, given: argparse.Namespace) -> dict:
    """Load the study and make one training; what was read, opened and held meanwhile."""
    import h5py
    import torch

    from mmmil import study
    from mmmil.training import runs, train  # noqa: F401

    torch.set_num_threads(given.threads)
    runs.run(study.load(settings(folder.with_name("tiny"), given)), training, 0)
    p = settings(folder, given)
    opened: collections.Counter = collections.Counter()

    def note(path) -> None:
        name = os.path.relpath(str(path), folder)
        opened.update(kind for kind, start in KINDS.items() if name.startswith(start))

    class Noted(h5py.File):
        def __init__(self, name, *args, **kwargs):
            note(name)
            super().__init__(name, *args, **kwargs)

    h5py.File = Noted
    sys.addaudithook(lambda event, args: note(args[0]) if event == "open" and isinstance(args[0], str) else None)
    before, peaks, start = counters(), Peaks(), time.perf_counter()
    peaks.start()
    s = study.load(p)
    loaded = time.perf_counter() - start
    runs.run(s, training, 0)
    seconds = time.perf_counter() - start
    peaks.over.set()
    after = counters()
    row = {"seconds": seconds, "load_s": loaded}
    row |= {"read_mib": (after["rchar"] - before["rchar"]) / MIB}
    row |= {"disk_mib": (after["read_bytes"] - before["read_bytes"]) / MIB}
    row |= {f"{name}_mib": (peaks.peak[name] - peaks.before[name]) / MIB for name in peaks.peak}
    return row | {f"opened_{kind}": opened[kind] for kind in KINDS}


def forget(folder: Path) -> None:
    """Have the system drop the files of the cohort from its page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# -- all -------------------------------------------------------------------------------------------------------------
def prepare(folder: Path, given: argparse.Namespace) -> float:
    """Make all that trainings find: tiles, gene tokens, features. Returns the MiB of all bags' pixels."""
    from mmmil import study
    from mmmil.simulate import cohort as synthetic
    from mmmil.training.features import frozen_features

    p = settings(folder, given)
    synthetic.make(p, given.threads)
    s = study.load(p, given.threads)
    study.write(s)
    frozen_features(s, "tiny", 0)
    s.gene_tokens(0, "go")
    return len(s.patients) * given.tiles * given.px**2 * 3 / MIB


def measure(given: argparse.Namespace) -> pd.DataFrame:
    """One row per training: medians of the turns; trainings take turns."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cohort"
        prepare(folder.with_name("tiny"), given)
        pixels = prepare(folder, given)
        for turn in range(given.turns):
            for kind, training in TRAININGS.items():
                for models in Path(name).glob("*/results/models"):
                    shutil.rmtree(models)
                forget(folder)
                command = [sys.executable, __file__, *sys.argv[1:], "--job", training, "--folder", str(folder)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr)
                row = json.loads(done.stdout.splitlines()[-1])
                rows.append({"training": kind, "variant": training, "turn": turn, "pixels_mib": pixels, **row})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows).drop(columns="turn")
    return table.groupby(["training", "variant"], sort=False).median().reset_index().assign(label=given.label)


def page(table: pd.DataFrame, given: argparse.Namespace) -> str:
    head = ["training", "checkout", "read, MiB", "read / pixels", "mapped, MiB", "from disk, MiB", "private, MiB"]
    head += ["s", "of it load, s", *(f"opened: {kind}" for kind in KINDS)]
    lines = []
    for kind in TRAININGS:
        for row in table[table["training"] == kind].to_dict("records"):
            cells = [f"{kind} (`{row['variant']}`)", row["label"], f"{row['read_mib']:.1f}"]
            cells += [f"{row['read_mib'] / row['pixels_mib']:.3f}"]
            cells += [f"{row[f'{name}_mib']:.1f}" for name in ("mapped", "disk", "private")]
            cells += [f"{row['seconds']:.2f}", f"{row['load_s']:.2f}"]
            lines.append([*cells, *(f"{row[f'opened_{kind}']:.0f}" for kind in KINDS)])
    made = f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, {given.threads} threads"
    sizes = f"{given.patients} patients, {given.tiles} tiles of {given.px} px, {given.epochs} epochs"
    pixels = table["pixels_mib"].iloc[0]
    text = ["# What a training job reads", "", f"- `python benchmarks/bytes_read.py`, {made}"]
    text += [
        f"- synthetic cohort: {sizes}; all bags hold {pixels:.1f} MiB of pixels",
        f"- medians of {given.turns} turns",
    ]
    text += ["- a job of the batch makes several trainings: what `load` reads it reads once", ""]
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join([*text, *("| " + " | ".join(row) + " |" for row in rows), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--label", default="now")
    parser.add_argument("--patients", type=int, default=48)
    parser.add_argument("--tiles", type=int, default=32)
    parser.add_argument("--px", type=int, default=128)
    parser.add_argument("--side", type=int, default=1280, help="of a slide, px")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--job", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.patients, given.tiles, given.px, given.side, given.epochs, given.turns = 24, 4, 64, 512, 1, 1
    if given.job:
        print(json.dumps(job(given.folder, given.job, given)))
        return
    table = measure(given)
    given.out.mkdir(parents=True, exist_ok=True)
    if (kept := given.out / "bytes_read.csv").is_file():
        others = pd.read_csv(kept)
        table = pd.concat([others[others["label"] != given.label], table], ignore_index=True)
    table.to_csv(kept, index=False)
    (given.out / "bytes_read.md").write_text(page(table, given))


if __name__ == "__main__":
    main()
