"""What a training job reads: bytes, files and CPU time of an image, a feature, a gene and two baseline trainings.

    python benchmarks/bytes_read.py                    some minutes on 2 CPU cores
    python benchmarks/bytes_read.py --label before     of another checkout (PYTHONPATH), shown beside the others
    python benchmarks/bytes_read.py --quick            one turn, for a test

A small synthetic cohort is tiled, its inventory is taken, and genes and features are computed, as the steps before the
trainings do. Then every training is made as a job makes it, with nothing known of any file's digest, and what
`study.load` and `runs.run` do is counted; the first turn, which imports, is not. `read` are the bytes of all read calls
(/proc/self/io, rchar), `hashed` those of them that went into a digest, the new model's among them. Pages of a mapped
file are no read calls: of these a training takes those of its own patients, once an epoch, from the system's cache.

Beside that, bags of the paper's size are read in random order, from one array in memory, as it was before, and from a
mapped file (not with a checkout that has none). `private` is the memory that is the process's own, at its highest, and
`mapped` that of files (RssAnon, RssFile). Writes benchmarks/results/bytes_read.md and bytes_read.csv.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

KIB, MIB = 2**10, 2**20
TRAININGS = {
    "image": "wsi",
    "frozen features": "clam_tiny",
    "genes": "go",
    "baseline of genes": "baseline_genes",
    "baseline of colours": "baseline_image",
}
KINDS = ("slides", "bags", "packed", "features")
TILES, PX = 64, 256  # of the paper's bags


def settings(folder: Path, label: str):
    from mmmil import params

    values = {"data_dir": str(folder / "data"), "results_dir": str(folder / f"results_{label}"), "device": "cpu"}
    values |= {"sim_patients": 24, "sim_genes": 500, "sim_sets": 20, "sim_slide_px": 512, "kegg_gmt": "", "n_folds": 2}
    values |= {"tile_px": 64, "n_tiles": 16, "few_tiles": "pad", "epochs": 2, "ae_epochs": 2, "fallback_sets": 6}
    values |= {"width": 16, "latent_dim": 8, "n_permutations": 100}
    return params.load("nsclc", "demo", **values, encoders={"tiny": "random:mobilenetv3_small_050"})


def kind_of(path: str, results: Path) -> str:
    """What a file is to the trainings; '' for all others."""
    if path.endswith(".svs"):
        return "slides"
    parts = Path(path).relative_to(results).parts if Path(path).is_relative_to(results) else ("",)
    return {"tiles": "bags", "bags": "packed", "features": "features"}.get(parts[0], "")


class Counts:
    """Files that are opened, by Python and h5py, and bytes that are hashed, since `clear`."""

    def __init__(self, results: Path):
        import h5py

        self.opened: collections.Counter = collections.Counter()
        self.hashed = 0
        digest, file_class = hashlib.file_digest, h5py.File

        def note(path) -> None:
            self.opened[kind_of(str(path), results)] += 1

        def counted(handle, *rest):
            self.hashed += os.fstat(handle.fileno()).st_size
            return digest(handle, *rest)

        class File(file_class):
            def __init__(self, name, *args, **kwargs):
                note(name)
                super().__init__(name, *args, **kwargs)

        hashlib.file_digest, h5py.File = counted, File
        sys.addaudithook(lambda event, args: note(args[0]) if event == "open" and isinstance(args[0], str) else None)

    def clear(self) -> None:
        self.opened.clear()
        self.hashed = 0


def read_calls() -> int:
    """Bytes of all read calls of this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def job(p, variant: str, counts: Counts) -> dict:
    """Load the study and make one training, as a process does that knows no file yet."""
    from mmmil import record, study
    from mmmil.training import runs

    shutil.rmtree(p.results / "models" / variant, ignore_errors=True)
    record._file_digest.cache_clear()
    record._REMEMBERED.clear()
    counts.clear()
    before, start = read_calls(), time.process_time()
    s = study.load(p)
    loaded = time.process_time() - start
    runs.run(s, variant, 0)
    row = {"read_kib": (read_calls() - before) / KIB, "hashed_kib": counts.hashed / KIB}
    row |= {"cpu_s": time.process_time() - start, "load_cpu_s": loaded}
    return row | {f"opened_{kind}": counts.opened[kind] for kind in KINDS}


def measure(folder: Path, given: argparse.Namespace) -> pd.DataFrame:
    """One row per training, medians of the turns but the first."""
    from mmmil import study
    from mmmil.cohort import build, inventory
    from mmmil.simulate import cohort as synthetic
    from mmmil.training.features import frozen_features

    p = settings(folder, given.label)
    synthetic.make(p, given.threads)
    inventory.update(build.build(p), p)
    s = study.load(p, given.threads)
    frozen_features(s, "tiny", 0)
    s.gene_tokens(0, "go")
    pixels = len(s.patients) * p.n_tiles * p.tile_px**2 * 3 / KIB
    counts, rows = Counts(p.results), []
    for turn in range(given.turns + 1):
        for kind, variant in TRAININGS.items():
            row = {"training": kind, "variant": variant, "pixels_kib": pixels, **job(p, variant, counts)}
            rows += [row] if turn else []
    return pd.DataFrame(rows).groupby(["training", "variant"], sort=False).median().reset_index()


# -- bags of the paper's size ------------------------------------------------------------------------------------
def resident() -> dict[str, int]:
    """Private and mapped memory of the process, bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[key].split()[0]) * KIB for name, key in (("private", "RssAnon"), ("mapped", "RssFile"))}


def reading(folder: Path, bags: int) -> list[list[str]]:
    """Rows of the second table: milliseconds a bag, and memory, of random batches of eight from memory and mapped."""
    from mmmil.slides import packed

    path, random = folder / packed.PIXELS, np.random.default_rng(0)
    one = random.integers(0, 256, (TILES, PX, PX, 3), dtype=np.uint8)
    packed.write(path, (np.roll(one, i) for i in range(bags)), bags)
    rows = []
    for way in ("mapped", "in memory"):
        before = peak = resident()
        values = packed.mapped(path) if way == "mapped" else np.load(path)
        seconds = []
        for batch in np.array_split(np.concatenate([random.permutation(bags) for _ in range(4)]), bags // 2):
            start = time.process_time()
            taken = packed.taken(values, batch)
            seconds.append((time.process_time() - start) / len(batch))
            peak = {name: max(value, peak[name]) for name, value in resident().items()}
            del taken
        held = [f"{(peak[name] - before[name]) / MIB:,.0f}" for name in ("private", "mapped")]
        rows.append([way, f"{np.median(seconds) * 1e3:.2f}", *held])
        del values
    return rows


# -- the page ----------------------------------------------------------------------------------------------------
def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]


def page(table: pd.DataFrame, read: list[list[str]], given: argparse.Namespace) -> str:
    from mmmil import record

    head = ["training", "checkout", "read, KiB", "of it hashed, KiB", "read / pixels", "CPU, s", "of it loading, s"]
    head += [f"opened: {kind}" for kind in KINDS]
    lines = []
    for kind in TRAININGS:
        for row in table[table["training"] == kind].to_dict("records"):
            cells = [
                f"{kind} (`{row['variant']}`)",
                row["label"],
                f"{row['read_kib']:,.0f}",
                f"{row['hashed_kib']:,.0f}",
            ]
            cells += [f"{row['read_kib'] / row['pixels_kib']:.2f}", f"{row['cpu_s']:.2f}", f"{row['load_cpu_s']:.2f}"]
            lines.append([*cells, *(f"{row[f'opened_{kind}']:.0f}" for kind in KINDS)])
    text = ["# What a training job reads", ""]
    text += [f"- `python benchmarks/bytes_read.py`, {record.made_on('numpy')}; load average {os.getloadavg()[0]:.1f}"]
    pixels = table["pixels_kib"].iloc[0]
    text += [f"- 24 patients, 16 tiles of 64 px: all bags hold {pixels:,.0f} KiB; medians of {given.turns} turns", ""]
    text += markdown(head, lines)
    size = given.bags * TILES * PX**2 * 3 / MIB
    text += ["", "## Bags of the paper's size", ""]
    text += [f"{given.bags} bags of {TILES} tiles of {PX} px, {size:,.0f} MiB, in batches of eight:", ""]
    text += markdown(["way", "CPU, ms a bag", "private, MiB", "mapped, MiB"], read)
    return "\n".join([*text, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--label", default="now")
    parser.add_argument("--folder", type=Path, help="where the cohort and its results are kept, for another checkout")
    parser.add_argument("--bags", type=int, default=48)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    if given.quick:
        given.turns, given.bags = 1, 8
    warnings.simplefilter("ignore")
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        table = measure(given.folder or Path(name), given).assign(label=given.label)
        if (kept := given.out / "bytes_read.csv").is_file():
            others = pd.read_csv(kept)
            table = pd.concat([others[others["label"] != given.label], table], ignore_index=True)
        table.to_csv(kept, index=False)
        if given.label == "now":
            (given.out / "bytes_read.md").write_text(page(table, reading(Path(name), given.bags), given))


if __name__ == "__main__":
    main()
