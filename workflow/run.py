"""Start the batch engine: one run at a time in a folder, and no lock left behind by one that was killed.

    python workflow/run.py --tasks lgg nsclc brca --overlay demo
    python workflow/run.py --tasks lgg --overlay "" --profile slurm
    python workflow/run.py --tasks lgg --overlay demo -- --dry-run       (the rest goes to Snakemake)

The operating system holds the lock as long as a process of the run lives, and drops it with the last one.
Snakemake's own lock is a file that outlives a killed run, so it is not used. The lock is handed down as
standard input: a job that outlived its killed run still holds it, and the next run waits instead of racing it.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "workflow")]  # this copy of the package, whichever one is installed

import batch_profile  # noqa: E402
import plan  # noqa: E402

from mmmil import paper, record, results  # noqa: E402
from mmmil.training import receipts  # noqa: E402

# Options with which Snakemake tells or tidies and makes nothing; -n may stand among other letters.
LISTS = re.compile(
    r"-[a-zA-Z]*n|-[hvlSDt]$|--(dry-?run|help|version|lint|list|unlock|touch|summary|detailed-summary|dag|d3dag|rulegraph"
    r"|filegraph|report|archive|cleanup-|containerize|generate-|delete-)"
)
# What the tables of tiles depended on when Snakemake last found them made.
TILED = ROOT / ".snakemake" / "tiled.json"


class RunError(RuntimeError):
    """This run cannot start."""


def take_lock(path: Path, patience: float = 24 * 3600, step: float = 1.0) -> int:
    """File descriptor of the lock at `path`, held until the last process that inherits it ends.

    Waits up to `patience` seconds for jobs that outlived a killed run.
    Raises RunError where a run is in progress.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline, announced = time.monotonic() + patience, False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            holder = os.pread(lock, 32, 0).decode().strip()
            if holder.isdigit() and record.alive(int(holder)):
                os.close(lock)
                raise RunError(
                    f"another run is in progress in this folder (process {holder}): wait for it, or stop it"
                ) from None
            if time.monotonic() > deadline:
                os.close(lock)
                raise RunError(f"a job of a killed run still holds {path}: stop it, or wait for it") from None
            if not announced:
                print("waiting for a job that outlived an earlier, killed run ...", file=sys.stderr, flush=True)
                announced = True
            time.sleep(step)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def environment() -> dict[str, str]:
    """The environment of every job: this Python first, its own kernel, one thread per process."""
    env = dict(os.environ)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    env["JUPYTER_PREFER_ENV_PATH"] = "1"  # a kernel named python3 in the user's home would otherwise come first
    for name in ("JUPYTER_PATH", "PYTHONPATH", "PYTHONHOME", "MPLBACKEND"):  # the kernel draws inline
        env.pop(name, None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        env.setdefault(name, "1")
    env["PYTHONHASHSEED"] = "0"
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    return env


def gpus() -> int:
    """NVIDIA devices that this run may use: as many trainings at a time, where there are any.

    Each training takes one that no other holds (`device.free_gpu`).
    """
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([device for device in Path("/dev").glob("nvidia*") if device.name[6:].isdigit()])


def command(tasks: list[str], overlay: str, cores: int | None, profile: str, more: Iterable[str] = ()) -> list[str]:
    """The Snakemake command line.

    cores: here, jobs at a time (all of the machine's where None); on a cluster, what one job has at most (the profile's
    where None), and how many GPUs there are is nothing that this machine knows. Raises ProfileError.
    """
    config = [f"tasks={','.join(tasks)}"] + ([f"overlay={overlay}"] if overlay else [])
    folder, settings = batch_profile.load(profile)
    is_cluster = batch_profile.is_cluster(settings)
    if cores is None:
        cores = int(settings["cores"]) if is_cluster and "cores" in settings else os.cpu_count() or 1
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile"),
        *("--workflow-profile", str(folder), "--cores", str(cores)),
        *([] if is_cluster else ["--resources", f"gpu={gpus() or cores}"]),
        *("--config", *config, "--rerun-incomplete", "--nolock", *more),
    ]


def snakemake(call: list[str], lock: int) -> int:
    """Run Snakemake; its exit status. Interrupted, as it is itself then, it is given the time to cancel its jobs."""
    env = environment() | {"PYTHONPATH": str(ROOT / "workflow")}  # where it finds its executor for Slurm
    process = subprocess.Popen(call, stdin=lock, env=env)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def tiled() -> dict[str, str]:
    """What TILED says; nothing where it is not there, or damaged: then Snakemake is asked."""
    try:
        known = json.loads(TILED.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def prepare(steps: dict[str, plan.Steps], call: list[str], more: list[str], lock: int) -> None:
    """Everything that the last call of Snakemake plans with: synthetic cohorts, the inventory, who has enough tiles.

    more: what the user passes to Snakemake. What is there already is not asked of it again. Slides that cannot be tiled
    fail here and, since nothing else is held up by it, in the last call once more. Raises RunError where a synthetic
    cohort cannot be made, and CohortError for files that the inventory misses.
    """
    missing = plan.missing_cohorts(steps)
    if missing and (status := snakemake([*call, "--force", *missing, *more], lock)):
        raise RunError(f"a synthetic cohort could not be made (Snakemake's status {status})")
    plan.take_inventory(steps)
    steps = plan.load(steps, next(iter(steps.values())).p.overlay)
    known = tiled()
    wanted = plan.tiles(steps)
    made = {
        table: all((Path(table).parent / name).is_file() for name in ("tiles.csv", "cohort.csv")) for table in wanted
    }
    stale = [table for table, depends in wanted.items() if known.get(table) != depends or not made[table]]
    if stale and not snakemake([*call, *stale, *more], lock):
        record.write_atomically(TILED, lambda path: path.write_text(json.dumps(known | wanted, indent=1)))


def main(arguments: list[str] | None = None) -> int:
    """Check the parameters of every task, take the lock, run Snakemake; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=[*paper.TASKS], help="files of params/")
    parser.add_argument("--overlay", default="demo", help="file of params/ laid over each task's; '' for none")
    parser.add_argument("--cores", type=int, help="jobs at a time; on a cluster, the most cores of one job")
    parser.add_argument("--profile", default="local", help="folder of workflow/profiles/, or any by its path")
    parser.add_argument("more", nargs="*", help="after --: passed to Snakemake")
    given = parser.parse_args(arguments)
    os.chdir(ROOT)
    dry = any(LISTS.match(option) for option in given.more)
    try:
        call = command(given.tasks, given.overlay, given.cores, given.profile)
        steps = plan.load(given.tasks, given.overlay)
        tasks = [task.p for task in steps.values()]
        for p in tasks:
            results.require_own(p)
            if not p.synthetic:
                p.require_files()
        lock = take_lock(ROOT / ".snakemake" / "run.lock")
        if not dry:
            for p in tasks:
                receipts.forget_failures(p)  # Snakemake then makes them again
            prepare(steps, call, given.more, lock)
        elif not plan.missing_cohorts(steps):
            plan.take_inventory(steps)  # so that what is planned is what would be done
        status = snakemake([*call, *given.more], lock)
    except (ValueError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    failed = [] if dry else [line for p in tasks for line in receipts.failed(p)]
    if failed:
        print(f"{len(failed)} trainings failed; the others stand, and another run tries these again:", file=sys.stderr)
        print("\n".join(failed), file=sys.stderr)
    return status or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main())
