"""The cores that this process may use: not those of the machine, of which a cluster or a container gives it a part."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

PER_GPU = "MMMIL_PER_GPU"  # trainings that may share a GPU: small models leave most of it idle
CGROUP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may use, at least one: the fewest that its affinity, SLURM_CPUS_PER_TASK and the quotas
    of its control groups allow.
    """
    limits = [_affinity(), _slurm(), _quota()]
    return max(1, min(limit for limit in limits if limit is not None))


def workers(asked: int) -> int:
    """Processes to start where so many are asked for (0: as many as there are cores), no more than the cores."""
    return min(asked, cores()) if asked > 0 else cores()


def per_gpu() -> int:
    """Trainings that may share a GPU, 1 if nobody says. Raises ValueError for what is no such number."""
    given = os.environ.get(PER_GPU, "1").strip()
    if not (given.isascii() and given.isdigit() and int(given)):
        raise ValueError(f"{PER_GPU}: {given!r} is no number of trainings for a GPU; write 1 or more, or unset it")
    return int(given)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows bind no process


def _slurm() -> int | None:
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return int(given) if given.isdigit() else None


def _quota() -> int | None:
    """Whole cores of CPU time that the control groups allow, 0 for less than one; None without a limit."""
    try:
        lines = CGROUP.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2
            limits += [_read(folder / "cpu.max") for folder in _with_parents(MOUNT, group)]
        elif "cpu" in controllers.split(","):
            for folder in _with_parents(MOUNT / "cpu", group):
                quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
                limits.append(_whole_cores([*quota, *period]))
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _with_parents(mount: Path, group: str) -> list[Path]:
    """The folders of a group and of those that it lies in, each of which may set a limit.

    A container sees its own group as the whole tree, whatever name the group has outside.
    """
    parts = PurePosixPath(group.lstrip("/"))
    return [mount / part for part in (parts, *parts.parents)]


def _read(path: Path) -> int | None:
    return _whole_cores(_words(path))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _whole_cores(words: list[str]) -> int | None:
    """Of a quota and its period in µs; None for `max`, -1 and what is not there."""
    if len(words) != 2 or not all(word.isdigit() for word in words) or not int(words[1]):
        return None
    return int(words[0]) // int(words[1])
