"""One process at a time makes a result: a lease is a file beside the result's place, and its holder keeps it fresh.

The files need nothing of a disk but that a file can be created exclusively, which network file systems have had for
decades; `flock` is not used. Who holds a lease touches its file every few seconds. A holder is gone when its process
has ended, or, seen from another machine or container, when its file was not touched for minutes; then the next one
takes a lease of the next term. So a term says how many holders have died at this result before.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

BEAT = 10.0  # seconds between two touches of a holder
STALE = 180.0  # seconds without one after which a holder elsewhere is gone; attributes of network disks are late by 60
LOOK = 1.0  # seconds between two looks of one who waits


class HeldError(RuntimeError):
    """Another process makes the result now; says which."""


@dataclass(frozen=True)
class Lease:
    """path: the lease's file; term: 1, and one more for each holder that died before it was done."""

    path: Path
    term: int


def alive(process: int) -> bool:
    """Whether a process of this number is running."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _stat(process)[:1] not in (["Z"], ["X"])  # killed but not yet reaped by its parent is not running


@contextlib.contextmanager
def held(place: Path, wait: bool = True) -> Iterator[Lease]:
    """Hold the lease of the result at `place`, which need not be there; its folder is made.

    Where another process holds it, waits until that is done or gone, after a line that says so, or with wait=False
    raises HeldError. The result may be there afterwards: look before making it.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while (lease := _claimed(place)) is None:
        who = _who(place)
        if not wait:
            raise HeldError(f"{place}: {who} makes it now")
        if who and not told:
            print(f"waiting for {place.name}: {who} makes it now", file=sys.stderr, flush=True)
            told = True
        time.sleep(LOOK * random.uniform(0.5, 1))  # two that gave way to each other do not meet again
    done = threading.Event()
    beats = threading.Thread(target=_touch, args=(lease.path, done), daemon=True)
    beats.start()
    try:
        yield lease
    finally:
        done.set()
        beats.join()
        lease.path.unlink(missing_ok=True)


def _claimed(place: Path) -> Lease | None:
    """The lease of the next term, None where the last one's holder is there."""
    terms = _terms(place)
    if terms and _is_held(terms[-1][1]):
        return None
    term = terms[-1][0] + 1 if terms else 1
    path = place.with_name(f".{place.name}.lease-{term}")
    try:
        # Its content is there with its name: whoever reads it between the two would see a holder without a name.
        draft = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.{threading.get_ident()}")
        draft.write_text(json.dumps(_myself()))
        try:
            os.link(draft, path)
        except OSError as error:
            if isinstance(error, FileExistsError):
                return None
            _create(path)  # a disk without links
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:  # another one was first
        return None
    # A holder may have given its lease back between the two looks above, and another have begun anew at 1.
    others = [(other, there) for other, there in _terms(place) if there != path]
    if any(other > term or _is_held(there) for other, there in others):
        path.unlink()
        return None
    for _, dead in others:
        dead.unlink(missing_ok=True)
    return Lease(path, term)


def _create(path: Path) -> None:
    with path.open("x") as handle:
        handle.write(json.dumps(_myself()))


def _terms(place: Path) -> list[tuple[int, Path]]:
    """Leases of a place that are there, the last one at the end."""
    start = f".{place.name}.lease-"
    names = [entry.name for entry in os.scandir(place.parent) if entry.name.startswith(start)]
    terms = [name.removeprefix(start) for name in names]
    return sorted((int(term), place.with_name(start + term)) for term in terms if term.isdigit())


def _is_held(path: Path) -> bool:
    """Whether who took a lease is still there; False where it was given back a moment ago."""
    try:
        text = path.read_text()
        if text and (holder := json.loads(text))["where"] == _where():
            return alive(holder["process"]) and _started(holder["process"]) == holder["started"]
        return _now(path.parent) - path.stat().st_mtime < STALE  # without text: created now, on a disk without links
    except FileNotFoundError:
        return False


def _now(folder: Path) -> float:
    """The time by the clock of the disk, which need not be this machine's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as probe:
        return Path(probe.name).stat().st_mtime


def _who(place: Path) -> str:
    """Holder of a place's lease, in words."""
    for _, path in _terms(place)[-1:]:
        with contextlib.suppress(OSError, ValueError, KeyError):
            holder = json.loads(path.read_text())
            job = f", job {holder['job']}" if holder["job"] else ""
            return f"process {holder['process']} on {holder['where'].partition(' ')[0]}{job}"
    return "another process"


def _touch(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):  # the disk is away for a while: the next beat may reach it
            os.utime(path)


def _myself() -> dict[str, str | int]:
    process = os.getpid()
    job = os.environ.get("SLURM_JOB_ID", "")
    return {"where": _where(), "process": process, "started": _started(process), "job": job}


@lru_cache
def _where() -> str:
    """Where a process number means one process: machine, boot and container."""
    known = [platform.node()]
    with contextlib.suppress(OSError):
        known += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return " ".join(known)


def _started(process: int) -> str:
    """When a process began, by the system's own count; '' where it does not tell: a number may be used again."""
    return "".join(_stat(process)[19:20])


def _stat(process: int) -> list[str]:
    """What Linux says of a process after its name, the state first; nothing where it says nothing."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
