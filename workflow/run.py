"""Start the batch engine: one run at a time in a folder, and no lock left behind by one that was killed.

    python workflow/run.py --tasks lgg nsclc brca --overlay demo
    python workflow/run.py --tasks lgg --overlay "" --profile slurm
    python workflow/run.py --tasks lgg --overlay demo -- --dry-run       (the rest goes to Snakemake)

A run holds the folder's lease (`mmmil.processes.leases`), which a killed one gives up. Snakemake's own lock is a file
that outlives a killed run, so it is not used. A job that outlived its killed run is known by its environment, and the
next run waits instead of racing it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "workflow")]  # this copy of the package, whichever one is installed

import batch_profile  # noqa: E402
import plan  # noqa: E402
import warm  # noqa: E402

from mmmil import paper, record, results  # noqa: E402
from mmmil.processes import allocation, leases  # noqa: E402
from mmmil.training import receipts  # noqa: E402

# Options with which Snakemake tells or tidies and makes nothing; -n may stand among other letters.
LISTS = re.compile(
    r"-[a-zA-Z]*n|-[hvlSDt]$|--(dry-?run|help|version|lint|list|unlock|touch|summary|detailed-summary|dag|d3dag|rulegraph"
    r"|filegraph|report|archive|cleanup-|containerize|generate-|delete-)"
)
NOTES = ROOT / ".snakemake"
RUN = "MMMIL_RUN"  # in the environment of every job: the folder of its run's notes
SHARDS = 16  # jobs that a cluster's slides are shared out to, at each step that goes through them
# What the tables of tiles depended on when Snakemake last found them made.
TILED = NOTES / "tiled.json"


class RunError(RuntimeError):
    """This run cannot start."""


@contextlib.contextmanager
def alone(folder: Path, patience: float = 24 * 3600, step: float = 1.0) -> Iterator[None]:
    """Be the only run in a folder of the engine's notes, as long as this holds.

    Waits up to `patience` seconds for jobs of this machine that outlived a killed run.
    Raises RunError where a run is in progress.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(leases.held(folder / "run", wait=False))
        except leases.HeldError as error:
            raise RunError(f"another run is in progress in this folder: wait for it, or stop it ({error})") from None
        deadline, announced = time.monotonic() + patience, False
        while jobs := survivors(folder):
            if time.monotonic() > deadline:
                raise RunError(f"jobs of a killed run still work: stop them, or wait for them (processes {jobs})")
            if not announced:
                print(
                    f"waiting for jobs that outlived a killed run (processes {jobs}) ...", file=sys.stderr, flush=True
                )
                announced = True
            time.sleep(step)
        yield


def survivors(folder: Path) -> list[int]:
    """Processes of this machine that a run in this folder has started; where no /proc is, none are known."""
    mark = f"{RUN}={folder}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if mark in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return [process for process in sorted(found) if process != os.getpid() and leases.alive(process)]


def environment() -> dict[str, str]:
    """The environment of every job: this Python first, its own kernel, one thread per process."""
    env = dict(os.environ)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    env["JUPYTER_PREFER_ENV_PATH"] = "1"  # a kernel named python3 in the user's home would otherwise come first
    for name in ("JUPYTER_PATH", "PYTHONPATH", "PYTHONHOME", "MPLBACKEND", warm.ADDRESS):  # the kernel draws inline
        env.pop(name, None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        env.setdefault(name, "1")
    env["PYTHONHASHSEED"] = "0"
    env[RUN] = str(NOTES)
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    return env


def gpus() -> int:
    """Trainings at a time on the NVIDIA devices that this run may use; 0 where there are none.

    Each takes the one that the fewest others hold (`device.free_gpu`), which is its own but with `MMMIL_PER_GPU`.
    """
    devices = [device.name for device in Path("/dev").glob("nvidia*") if device.name[6:].isdigit()]
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        devices = [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    return len(devices) * allocation.per_gpu()


def command(tasks: list[str], overlay: str, cores: int | None, profile: str, more: Iterable[str] = ()) -> list[str]:
    """The Snakemake command line.

    cores: here, jobs at a time (all of the machine's where None); on a cluster, what one job has at most (the profile's
    where None), and how many GPUs there are is nothing that this machine knows. Raises ProfileError.
    """
    config = [f"tasks={','.join(tasks)}"] + ([f"overlay={overlay}"] if overlay else [])
    folder, settings = batch_profile.load(profile)
    is_cluster = batch_profile.is_cluster(settings)
    if cores is None:
        cores = int(settings["cores"]) if is_cluster and "cores" in settings else allocation.cores()
    config += [f"shards={SHARDS}"] if is_cluster else []
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile"),
        *("--workflow-profile", str(folder), "--cores", str(cores)),
        *([] if is_cluster else ["--resources", f"gpu={gpus() or cores}"]),
        *("--config", *config, "--rerun-incomplete", "--nolock", *more),
    ]


def snakemake(call: list[str], env: dict[str, str]) -> int:
    """Run Snakemake, its jobs in this environment; its exit status. Interrupted, as it is itself then, it is given the
    time to cancel its jobs.
    """
    env = env | {"PYTHONPATH": str(ROOT / "workflow")}  # where it finds its executor for Slurm
    process = subprocess.Popen(call, stdin=subprocess.DEVNULL, env=env)
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


def prepare(steps: dict[str, plan.Steps], call: list[str], env: dict[str, str], more: list[str]) -> None:
    """Everything that the last call of Snakemake plans with: synthetic cohorts, the inventory, who has enough tiles.

    more: what the user passes to Snakemake. What is there already is not asked of it again. Slides that cannot be tiled
    fail here and, since nothing else is held up by it, in the last call once more. Raises RunError where a synthetic
    cohort cannot be made, and CohortError for files that the inventory misses.
    """
    missing = plan.missing_cohorts(steps)
    if missing and (status := snakemake([*call, "--force", *missing, *more], env)):
        raise RunError(f"a synthetic cohort could not be made (Snakemake's status {status})")
    plan.take_inventory(steps)
    steps = plan.load(steps, next(iter(steps.values())).p.overlay)
    known = tiled()
    wanted = plan.tiles(steps)
    made = {
        table: all((Path(table).parent / name).is_file() for name in ("tiles.csv", "cohort.csv")) for table in wanted
    }
    stale = [table for table, depends in wanted.items() if known.get(table) != depends or not made[table]]
    if stale and not snakemake([*call, *stale, *more], env):
        record.write_atomically(TILED, lambda path: path.write_text(json.dumps(known | wanted, indent=1)))


def announced(steps: dict[str, plan.Steps]) -> str:
    """What a run makes, and where to look meanwhile."""
    trainings = sum(len(names) for task in steps.values() for names in task.lots.values())
    executed = [page for task in steps.values() for page in task.pages]
    runs = " ".join(plan.runs(steps))
    return (
        f"{len(executed)} pages on {trainings} trainings ({runs}); what is there already is found again.\n"
        f"Meanwhile: logs/<run>/ has what each step says, {plan.pages.EXECUTED}/<run>/ the executed notebooks.\n"
        "The book will be _build/html/index.html."
    )


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
        is_cluster = batch_profile.is_cluster(batch_profile.load(given.profile)[1])
        with contextlib.ExitStack() as stack:
            stack.enter_context(alone(NOTES))
            env = environment()
            if not dry:
                env = env if is_cluster else stack.enter_context(warm.server(env))
                for task in steps.values():
                    receipts.forget_failures(task.p)  # they are made again
                    task.reopen()
                print(announced(steps), flush=True)
                prepare(steps, call, env, given.more)
            elif not plan.missing_cohorts(steps):
                plan.take_inventory(steps)  # so that what is planned is what would be done
            status = snakemake([*call, *given.more], env)
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
