"""How a job ended: by the mark that it left, by Slurm's state, by what Slurm wrote into its output."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from snakemake_executor_plugin_mmmil_slurm.submission import GO_ON

DONE, GOES_ON, MEMORY, TIME, NODE, CANCELLED, CODE = "done", "goes on", "memory", "time", "node", "cancelled", "code"
WORDS = {
    GOES_ON: "it stopped at a checkpoint before its time limit",
    MEMORY: "it needed more memory than it had asked for",
    TIME: "it reached its time limit",
    NODE: "its node failed, or Slurm lost it",
    CANCELLED: "it was cancelled",
    CODE: "its command failed",
}
STATES = {
    "OUT_OF_MEMORY": MEMORY,
    "TIMEOUT": TIME,
    "DEADLINE": TIME,
    "NODE_FAIL": NODE,
    "BOOT_FAIL": NODE,
    "PREEMPTED": NODE,
    "REVOKED": NODE,
    "CANCELLED": CANCELLED,
}
# What slurmstepd writes into the output of a job that it ends; all there is where Slurm has forgotten the job.
WRITTEN = {"DUE TO TIME LIMIT": TIME, "oom": MEMORY, "DUE TO NODE FAILURE": NODE, "DUE TO PREEMPTION": NODE}
KILLED = (137, 125)  # SIGKILL, which is how the kernel takes back memory; 125 is what Slurm makes of it


@dataclass(frozen=True)
class Mark:
    """What a job's script leaves when its command has ended: exit status, the job's id, seconds that it took."""

    status: int
    slurm_id: str
    seconds: int


def read_mark(path: Path) -> Mark | None:
    """The mark at `path`; None where there is none, or none that is whole."""
    try:
        status, slurm_id, seconds = path.read_text().split()
        return Mark(int(status), slurm_id, int(seconds))
    except (OSError, ValueError):
        return None


def ending(mark: Mark | None, state: str | None, output: Path) -> str | None:
    """How the job ended; None where neither mark nor state says that it has.

    state: of a job that is no longer active; None for one that Slurm does not list. output: the file of what it said.
    """
    if mark and mark.status in (0, GO_ON):
        return DONE if mark.status == 0 else GOES_ON
    if state in STATES:
        return STATES[state]
    if mark:
        return MEMORY if mark.status in KILLED else CODE
    try:
        said = output.read_text(errors="replace")[-4000:]
    except OSError:
        return None
    lines = [line for line in said.splitlines() if re.match(r"slurmstepd[\w-]*: error: ", line)]
    found = [kind for line in lines for words, kind in WRITTEN.items() if words in line]
    return found[0] if found else CANCELLED if any(" CANCELLED AT " in line for line in lines) else None
