"""Kill the tiling of a cohort at random moments, again and again, and see that nothing is lost and nothing is torn.

    python benchmarks/interruptions.py            ten kills; about two minutes

After each kill -9 of the whole process group: every result that can be seen is whole (its checksums, its HDF5
files), and every one that was there before still is, untouched. The last run is left alone: it must finish, leave no
temporary file, repeat nothing that was finished, and give the tiles of an undisturbed run. Exits 1 where it does not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import pandas as pd

RUN = """
import sys, pandas as pd
from mmmil import params
from mmmil.slides import bags
folder, results, workers = sys.argv[1:]
p = params.load("lgg", "demo", data_dir=folder, results_dir=results, tile_px=64, n_tiles=16, mpp_table="")
patients = pd.read_csv(f"{folder}/cohort.csv", index_col=0)
bags.tile_cohort(patients, p, int(workers)).to_csv(f"{folder}/{sys.argv[2].rsplit('/')[-1]}.csv")
"""


def cohort(folder: Path, n: int, side: int) -> None:
    """Synthetic slides of one size and a table that names them."""
    from mmmil.simulate import slides as synthetic_slides

    rows = []
    for i in range(n):
        path = folder / f"s{i}.svs"
        synthetic_slides.write_slide(path, synthetic_slides.Slide(("interrupted", i), side))
        rows.append((f"P{i}", f"s{i}", str(path)))
    pd.DataFrame(rows, columns=["patient_id", "slide_id", "slide_path"]).to_csv(folder / "cohort.csv", index=False)


def start(folder: Path, results: Path, workers: int) -> subprocess.Popen:
    """The tiling, as the leader of its own process group."""
    command = [sys.executable, "-c", RUN, str(folder), str(results), str(workers)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)


def wait_for_work(process: subprocess.Popen, results: Path, before: set[Path]) -> bool:
    """Wait until the run writes something: importing takes longer than a small slide. False where it ended."""
    while process.poll() is None:
        if set(results.glob("tiles/*/*/*")) - before:
            return True
        time.sleep(0.005)
    return False


def finished(results: Path) -> dict[Path, int]:
    """Folders of results that a reader would see, with the time of their files; exits where one is torn."""
    from mmmil import record

    written_at = {}
    for folder in sorted(results.glob("tiles/*/*/*")):
        if folder.name.startswith("."):
            continue
        run = folder / record.RUN
        for name, checksum in json.loads(run.read_text())["files"].items():
            if record.file_digest(folder / name) != checksum:
                sys.exit(f"torn: {folder / name} differs from its checksum")
            with h5py.File(folder / name) as file:
                assert len(file["coords"])
            written_at[folder.relative_to(results)] = (folder / name).stat().st_mtime_ns
    return written_at


def main() -> None:
    """Kill, look, and kill again; then let it finish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--slides", type=int, default=12)
    parser.add_argument("--side", type=int, default=3072, help="px")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    moments = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cohort(folder, given.slides, given.side)
        undisturbed = start(folder, folder / "undisturbed", given.workers)
        wait_for_work(undisturbed, folder / "undisturbed", set())
        begin = time.monotonic()
        if undisturbed.wait():
            sys.exit(f"the undisturbed run failed:\n{undisturbed.stderr.read()}")
        whole = time.monotonic() - begin
        expected = set(finished(folder / "undisturbed"))
        before: dict[Path, int] = {}
        for kill in range(given.kills):
            there = set((folder / "disturbed").glob("tiles/*/*/*"))
            process = start(folder, folder / "disturbed", given.workers)
            wait_for_work(process, folder / "disturbed", there)
            delay = moments.uniform(0, 0.6) * whole
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            now = finished(folder / "disturbed")
            repeated = [path for path, written_at in before.items() if now.get(path) != written_at]
            done = f"{len(now)} of {len(expected)} results whole, {len(repeated)} repeated"
            print(f"kill {kill + 1} after {delay:.2f} s of {whole:.1f} s work: {done}", flush=True)
            if repeated:
                sys.exit(f"repeated or lost: {repeated}")
            before = now
            if set(now) == expected:  # done before the last kill: begin anew, so that every kill finds work
                shutil.rmtree(folder / "disturbed")
                before = {}
        last = start(folder, folder / "disturbed", given.workers)
        if last.wait():
            sys.exit(f"the last run failed:\n{last.stderr.read()}")
        now = finished(folder / "disturbed")
        hidden = [path for path in (folder / "disturbed").rglob("*") if path.name.startswith(".")]
        same = set(now) == expected and all(
            (folder / "undisturbed" / path / file.name).read_bytes() == file.read_bytes()
            for path in expected
            for file in (folder / "disturbed" / path).glob("*.h5")
        )
        repeated = [path for path, written_at in before.items() if now.get(path) != written_at]
        print(f"last run: {len(now)} results, {len(repeated)} repeated, {len(hidden)} temporary files left, "
              f"tiles {'identical to' if same else 'DIFFERENT from'} the undisturbed run's")  # fmt: skip
        sys.exit(bool(repeated or hidden or not same))


if __name__ == "__main__":
    main()
