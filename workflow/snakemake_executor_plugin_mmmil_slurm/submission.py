"""What is submitted: a job's name, which says what it makes and how, its script, and the flags of sbatch."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(".snakemake/slurm")  # scripts, what jobs say, and the marks that they leave when they end
# Ends a job before its time limit at a checkpoint: it is submitted again and goes on (EX_TEMPFAIL of sysexits.h).
GO_ON = 75
# As Snakemake sets them for a local job.
LIBRARIES = ("OMP_NUM", "GOTO_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM", "NUMEXPR_NUM")

SCRIPT = """#!/bin/bash
# {comment}
cd {root} || exit 1
mark={mark}
# Slurm may start a job anew whose node it had lost, though that one went on and has ended well.
if [ -e "$mark" ] && read -r status id _ < "$mark" && [ "$status $id" = "0 $SLURM_JOB_ID" ]; then exit 0; fi
export {threads}
{end}
(
set -euo pipefail
{command}
)
status=$?
echo "$status $SLURM_JOB_ID $SECONDS" > "$mark.$SLURM_JOB_ID" && mv "$mark.$SLURM_JOB_ID" "$mark" || exit 1
exit $status
"""
# When Slurm will end the job, in seconds since 1970: what trains stops at a checkpoint before.
END = """start=$(date +%s)
end=$(SLURM_TIME_FORMAT=standard squeue --noheader --jobs="$SLURM_JOB_ID" --format=%e 2> /dev/null)
if end=$(date -d "${{end:-none}}" +%s 2> /dev/null); then export MMMIL_JOB_END=$end
elif [ -n "{minutes}" ]; then export MMMIL_JOB_END=$((start + 60 * {minutes}))
fi"""


def prefix(root: Path) -> str:
    """How the names of all jobs of a project's folder begin."""
    return f"mmmil-{_hash(str(root.resolve()))}-"


def name(root: Path, rule: str, outputs: Iterable[str], command: str, params: Iterable[object]) -> str:
    """The name of a job: folder, what it makes, how it makes it. Two jobs that differ in the last alone are rivals."""
    makes, how = _hash(rule, *map(str, outputs)), _hash(command, *map(str, params))
    return f"{prefix(root)}{makes}-{how}"


def script(comment: str, root: Path, mark: Path, command: str, threads: int, minutes: int | None) -> str:
    """The job's script: the command in the project's folder, its exit status left in the file `mark`."""
    return SCRIPT.format(
        comment=comment.replace("\n", " "),
        root=shlex.quote(str(root)),
        mark=shlex.quote(str(mark)),
        threads=" ".join(f"{name}_THREADS={threads}" for name in LIBRARIES),
        end=END.format(minutes="" if minutes is None else minutes),
        command=command.strip("\n"),
    )


def within(command: str, starter: str) -> str:
    """A shell command as an argument of what starts it, a container's `exec` for one; itself where that is ''."""
    return f"{starter} bash -euo pipefail -c {shlex.quote(command)}" if starter.strip() else command


def flags(resources: dict[str, object], threads: int, gpu_flag: str) -> list[str]:
    """What sbatch is asked for: account, partition, time, memory, cores, GPUs, and what `slurm_extra` adds.

    resources: those of the rule and of the profile; runtime in minutes, mem_mb in MiB. gpu_flag: with `{n}` for the
    number of GPUs. A rule of more threads than `cpus_per_task` gets as many cores as threads.
    """
    named = {"slurm_account": "account", "slurm_partition": "partition", "runtime": "time", "mem_mb": "mem"}
    asked = [f"--{flag}={resources[name]}" for name, flag in named.items() if resources.get(name)]
    asked += ["--ntasks=1", f"--cpus-per-task={max(threads, int(resources.get('cpus_per_task') or 1))}"]
    if gpus := int(resources.get("gpu") or 0):
        asked += shlex.split(gpu_flag.format(n=gpus))
    return asked + shlex.split(str(resources.get("slurm_extra") or ""))


def write(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".part")
    written.write_text(text)
    written.replace(path)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
