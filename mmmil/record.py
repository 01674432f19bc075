"""The record: results are found again by the hash of what they depend on, and say how they were made.

Every computed result is a folder `<parent>/<key>/`, its key the hash of its inputs (parameters, patients, the
checksums of files, package versions and the source that computes it). It is written beside its place and renamed
when it is whole, with a `run.json` that holds the inputs and the circumstances. Nothing half-written is ever read.
It is sealed: `run.json` holds the digest of every file and its state, and a file is read for its digest again only
where its state is another one.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import glob
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmil import source_code
from mmmil.processes import allocation, leases

if TYPE_CHECKING:
    import pandas as pd

RUN = "run.json"
TICK = 20_000_000  # ns; within one tick of a file system's clock a file can change and keep its times
_makes: contextvars.ContextVar[bool] = contextvars.ContextVar("makes", default=True)


class NotThereError(RuntimeError):
    """A result is not in the record, where nothing may be made; says where it would lie."""


class DiedError(RuntimeError):
    """So many processes died while they made a result that it is not tried again; says how many."""


def digest(value: Any, length: int = 16) -> str:
    """Hex digest of any JSON-like value; mappings are ordered, paths and numpy scalars become plain values."""
    text = json.dumps(value, sort_keys=True, default=_plain, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"cannot hash a {type(value).__name__}: {value!r}")


WHOLE = 64 * 2**20  # bytes up to which a fingerprint is of all of them
BLOCKS, BLOCK = 64, 2**16  # of a larger file: so many blocks of so many bytes
# (path, size, time, changed) of files whose digest is known from an inventory, so that no job reads them for it again.
_REMEMBERED: dict[tuple[str, int, int, int], str] = {}


def state(path: Path | str) -> tuple[str, int, int, int]:
    """A file's path, size in bytes, time of its content and time of its entry (ns): what tells that it was replaced.

    The second time cannot be set: a copy that keeps size and time of the file it replaces is noticed, too.
    """
    stat = Path(path).stat()
    return str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def remember(of: tuple[str, int, int, int], digest: str) -> None:
    """Take a file's digest as known while its `state` stays what it is."""
    _REMEMBERED[of] = digest


@lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, time_ns: int, changed_ns: int) -> str:
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes, remembered while its state stays the same."""
    of = state(path)
    known = _REMEMBERED.get(of, "")
    return known if known and "-" not in known else _file_digest(*of)


def fingerprint(path: Path | str) -> str:
    """The digest of a slide's content; of one of gigabytes that of evenly spaced blocks, and its size."""
    of = state(path)
    if of in _REMEMBERED:
        return _REMEMBERED[of]
    size = of[1]
    if size <= WHOLE:
        return _file_digest(*of)
    hasher = hashlib.sha256()
    with Path(path).open("rb") as handle:
        for i in range(BLOCKS):
            handle.seek((size - BLOCK) * i // (BLOCKS - 1))
            hasher.update(handle.read(BLOCK))
    return f"{size}-{hasher.hexdigest()}"


_version = lru_cache(importlib.metadata.version)  # asked dozens of times a run, read off the disk each time


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the packages that a result depends on."""
    return {package: _version(package) for package in packages}


@lru_cache
def commit() -> str:
    """The project's git commit, with '+' where the working tree differs, or 'unknown'."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "-C", folder, "rev-parse", "--short=10", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "-C", folder, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if dirty else "")


def made_on(*packages: str, device: str = "no GPU") -> str:
    """Date, commit, machine and versions of these packages, as every page of a benchmark states them.

    device: the GPU that was measured on.
    """
    installed = {"Python": platform.python_version()} | versions(*packages)
    machine = f"{platform.machine()}, {allocation.cores()} cores, {device}"
    told = ", ".join(f"{name} {version}" for name, version in installed.items())
    return f"{datetime.date.today()}, commit `{commit()}`, {machine}, {told}"


Maker = Callable[[Path], Mapping[str, Any] | None]


def with_code(inputs: Mapping[str, Any], module: str) -> dict[str, Any]:
    """Inputs, and the code that computes with them: of a module of the package and of all that it imports."""
    return {**inputs, "code": source_code.digest(module)}


def key(inputs: Mapping[str, Any], module: str) -> str:
    """The name of the folder of what a module of the package computes for these inputs."""
    return digest(with_code(inputs, module))


def find(parent: Path, inputs: Mapping[str, Any], module: str) -> Path | None:
    """The finished folder of what a module computes for these inputs, or None.

    A damaged one is removed, so that it is made again.
    """
    return whole(parent / key(inputs, module))


def whole(folder: Path) -> Path | None:
    """The folder of a result whose files are as its seal says, or None: a damaged one is removed."""
    if not folder.exists():  # nothing to remove, not even what another process is about to put there
        return None
    try:
        run = json.loads((folder / RUN).read_text())
        states = _states(folder, run["files"])
        if states == run.get("states") and _settled(folder, states):
            return folder
        if all(file_digest(folder / name) == checksum for name, checksum in run["files"].items()):
            with contextlib.suppress(OSError):  # of somebody else's results, which are looked at again each time
                write_atomically(folder / RUN, lambda path: path.write_text(_told(run | {"states": states})))
            return folder
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        pass  # absent or damaged; any other error of the file system is no reason to remove a result
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _states(folder: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """The `state` of files of a result, without their paths: a folder may be moved."""
    return {name: list(state(folder / name)[1:]) for name in names}


def _settled(folder: Path, states: Mapping[str, list[int]]) -> bool:
    """Whether the files were left alone before they were sealed for longer than a file system's clock may stand."""
    sealed = (folder / RUN).stat().st_mtime_ns
    return all(changed < sealed - TICK for _, _, changed in states.values())


def _told(run: Mapping[str, Any]) -> str:
    return json.dumps(run, indent=1, default=_plain)


@contextlib.contextmanager
def only_found() -> Iterator[None]:
    """Where this holds nothing is made: what is not in the record raises NotThereError."""
    before = _makes.set(False)
    try:
        yield
    finally:
        _makes.reset(before)


def cached(
    parent: Path,
    inputs: Mapping[str, Any],
    make: Maker,
    module: str = "",
    wait: bool = True,
    deaths: int | None = None,
) -> Path:
    """The folder of what `make` writes for these inputs: found again, or made now.

    `make(folder)` writes files into an empty folder and may return facts for run.json. The folder appears under
    its name only when it is whole. One process at a time makes it, by a lease, and the others wait. module: of the
    package, whose code computes; that of `make` if not given. Its code, and all that it imports, is part of the key.

    Raises ChangedCodeError, before and after the work, where that code is not what this process runs, NotThereError
    within `only_found`, with wait=False HeldError where another process makes it, and DiedError where so many
    processes (deaths) died while they made it, one after the other.
    """
    module = module or make.__module__
    source_code.require_as_loaded(module, make.__module__)
    inputs = with_code(inputs, module)
    folder = parent / digest(inputs)
    kept = whole(folder)
    if kept:
        return kept
    if not _makes.get():
        raise NotThereError(f"{parent}: holds no result of these settings, this code and these files; run make book")
    with leases.held(folder, wait) as lease:
        if (kept := whole(folder)) is None:  # else another process has made it meanwhile
            if deaths is not None and lease.term > deaths:
                raise DiedError(
                    f"{lease.term - 1} processes died while they made this, one after the other: out of memory is the "
                    "usual reason"
                )
            _make(folder, inputs, make, module)
    return kept or folder


def _make(folder: Path, inputs: Mapping[str, Any], make: Maker, module: str) -> None:
    """Make a result in a temporary folder beside its own, and rename that."""
    unfinished = _temporary(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        start = time.monotonic()
        _reset_peak_memory()
        facts = make(unfinished) or {}
        source_code.require_as_loaded(module, make.__module__)  # hours may have passed
        files = {str(p.relative_to(unfinished)): file_digest(p) for p in sorted(unfinished.rglob("*")) if p.is_file()}
        run = {
            "inputs": dict(inputs),
            "facts": facts,
            "files": files,
            "states": _states(unfinished, files),
            "seconds": round(time.monotonic() - start, 2),
            "peak_memory_mib": _peak_memory(),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": commit(),
        }
        (unfinished / RUN).write_text(_told(run))
        try:
            unfinished.rename(folder)
        except OSError:  # another process was first with the same result
            if not whole(folder):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A hidden name beside `path` that tells whose it is; what killed processes of this machine left is removed."""
    mine = f".{platform.node()}."
    for left in path.parent.glob(f"{glob.escape(mine)}*.{glob.escape(path.name)}"):
        process = left.name.removeprefix(mine).removesuffix(f".{path.name}")
        if process.isdigit() and not leases.alive(int(process)):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f"{mine}{os.getpid()}.{path.name}")


def _reset_peak_memory() -> None:
    """Forget the process's peak so far (Linux), so that one result's peak is not another one's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> int | None:
    """Peak resident memory of this process since the last reset, MiB; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)


def run_json(folder: Path) -> dict[str, Any]:
    """What `run.json` of a finished result says."""
    return json.loads((folder / RUN).read_text())


def read_parquet(path: Path) -> pd.DataFrame:
    """A table as pandas reads it, on this thread alone.

    pyarrow's pool of reading threads can abort the interpreter while it shuts down ("terminate called without an
    active exception", 1 of 11 runs on a busy machine with pyarrow 26), and a job that aborts has failed.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(path, pre_buffer=False) as file:
        return file.read(use_threads=False).to_pandas(use_threads=False)


def write_atomically(path: Path, write: Callable[..., object]) -> Path:
    """Call `write(temporary)` and rename the result to `path`: readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
