"""Slurm's commands: what is in the queue, a job submitted, jobs cancelled."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

# What a command says when slurmctld cannot be asked now, in contrast to when it says no.
UNREACHABLE = re.compile(
    r"unable to contact|socket timed out|connection (refused|reset|timed out)|connect failure|communication failure"
    r"|zero bytes were transmitted|standby mode|temporarily un(able|available)|unable to establish|transport endpoint"
    r"|slurm_load_jobs error|munge|protocol authentication error|insane message length",
    re.IGNORECASE,
)
# A job in one of these may still run, or run again; in any other it has ended.
ACTIVE = {
    *("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"),
    *("SPECIAL_EXIT", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "RESV_DEL_HOLD"),
}


class Unreachable(RuntimeError):
    """Slurm does not answer now; nothing is known of any job."""


class Refused(RuntimeError):
    """Slurm does not take this job; its own words."""


@dataclass(frozen=True)
class Queued:
    """A job that squeue lists; state is one word, as PENDING or TIMEOUT."""

    slurm_id: str
    state: str

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE


def environment() -> dict[str, str]:
    """What commands and jobs get of this process's environment.

    Where Snakemake runs inside a Slurm job itself, that job's variables would contradict those of the jobs. SQUEUE_*
    would leave jobs out of the list. The path to this plugin is nothing for a job.
    """
    inside = "SLURM_JOB_ID" in os.environ
    dropped = re.compile(r"PYTHONPATH$|SQUEUE_|SCANCEL_|SLURM_TIME_FORMAT" + (r"|SLURM_(?!CONF$)" if inside else ""))
    return {name: value for name, value in os.environ.items() if not dropped.match(name)}


def queue(prefix: str) -> dict[str, list[Queued]]:
    """Name -> this user's jobs that have it, oldest first, of all names that begin with `prefix`, ended ones included.

    Slurm forgets jobs some minutes after their end (MinJobAge). Raises Unreachable.
    """
    listed = _run(["squeue", "--me", "--noheader", "--states=all", "--array", "--format=%i|%T|%r|%j"])
    found: dict[str, list[Queued]] = {}
    for line in listed.splitlines():
        slurm_id, state, reason, name = line.strip().split("|", 3)
        if state == "PENDING" and reason.startswith("launch failed"):  # held until somebody releases it
            state = "NODE_FAIL"
        if name.startswith(prefix):
            found.setdefault(name, []).append(Queued(slurm_id, state.split()[0]))
    return {name: sorted(jobs, key=lambda job: int(re.match(r"\d+", job.slurm_id)[0])) for name, jobs in found.items()}


def submit(arguments: list[str]) -> str:
    """The id of the job that sbatch makes of `arguments`.

    Raises Unreachable, where the job may have been taken all the same, and Refused.
    """
    return _run(["sbatch", "--parsable", *arguments]).strip().splitlines()[-1].split(";")[0]


def cancel(slurm_ids: list[str]) -> None:
    """Cancel jobs; one that has ended is no error. Raises Unreachable."""
    for i in range(0, len(slurm_ids), 100):
        _run(["scancel", "--quiet", *slurm_ids[i : i + 100]])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, env=environment(), stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{command[0]} does not answer") from None
    except FileNotFoundError:
        raise Refused(f"{command[0]} is not found: start the batch where Slurm's commands are") from None
    if done.returncode:
        said = done.stderr.strip() or f"{command[0]} ended with status {done.returncode}"
        # squeue and scancel are never refused for good; sbatch is, by a wrong account or partition.
        raise (Unreachable if command[0] != "sbatch" or UNREACHABLE.search(said) else Refused)(said)
    return done.stdout
