"""Packed bags: what all trainings of a cohort read, in one sealed file that is mapped into memory, not loaded.

A plain .npy in a folder of the record: its digest is verified once, and from then on its state says that it is whole
(`record.whole`). A training reads the pages of its own patients; processes of one machine share them. Where the
variable MMMIL_STAGE names a folder on a disk of the machine, the file is copied there once and read from there.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mmmil import record
from mmmil.params import Params
from mmmil.processes import leases
from mmmil.slides import bag_files

STAGE = "MMMIL_STAGE"
PIXELS, MASKS, COORDS = "pixels.npy", "masks.npy", "coords.npy"


class StageError(RuntimeError):
    """The folder that MMMIL_STAGE names cannot hold a copy; says why and what to do."""


def cohort(p: Params, named: Sequence[str], there: Callable[[], list[str]]) -> Path:
    """Folder of a cohort's bags, made of the HDF5 files of its patients, in their order.

    named: the files, each in a folder that is called by its content; there: sees to it that they are there, and is
    called where the bags have to be packed.

    Holds PIXELS (patients, n_tiles, px, px, 3) uint8, MASKS (patients, n_tiles) bool of real tiles, and where these
    lie, COORDS (real tiles, 2) in level-0 px, one patient behind the other; no COORDS where nobody knows it of some.
    """

    def make(folder: Path) -> None:
        paths = there()
        write(folder / PIXELS, (bag_files.load_bags([path])[0] for path in paths), len(paths))
        np.save(folder / MASKS, bag_files.load_masks(paths))
        if all(map(bag_files.has_coords, paths)):
            np.save(folder / COORDS, np.concatenate([bag_files.load_coords(path)[0] for path in paths]))

    return record.cached(p.results / "bags", {"bags": [Path(path).parent.name for path in named]}, make)


def write(path: Path, parts: Iterable[np.ndarray], number: int) -> None:
    """Write `number` arrays of one shape and type as one .npy (number, ...), holding no more than one of them."""
    parts = iter(parts)
    first = next(parts)
    header = {"shape": (number, *first.shape), "fortran_order": False}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"descr": np.lib.format.dtype_to_descr(first.dtype)})
        file.write(np.ascontiguousarray(first).data)
        for part in parts:
            file.write(np.ascontiguousarray(part, first.dtype).data)


# -- reading -----------------------------------------------------------------------------------------------------
def mapped(path: Path) -> np.ndarray:
    """An array of a folder of the record, read-only and not in memory: a page of it is read when it is touched."""
    return np.load(_staged(path.parent) / path.name, mmap_mode="r")


def taken(values: np.ndarray, which: Sequence[int] | np.ndarray) -> np.ndarray:
    """A copy of some patients' part of an array, (len(which), ...); a mapped one's pages are let go of."""
    copy = np.array(values[np.asarray(which)])
    release(values)
    return copy


def each(values: np.ndarray, which: Iterable[int]) -> Iterator[np.ndarray]:
    """Copies of single patients' parts of an array, one after the other, each as `taken`."""
    for i in which:
        yield taken(values, [i])[0]


def release(values: np.ndarray) -> None:
    """Let go of the pages of a mapped array that were touched; they stay in the system's cache, where there is room."""
    base: object = values
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


# -- staging -----------------------------------------------------------------------------------------------------
def _staged(folder: Path) -> Path:
    """The copy of a folder of the record on the disk that MMMIL_STAGE names, or the folder itself without one.

    The first process that asks copies it and verifies the copy, the others wait for it. It is called by its content,
    and left to whoever clears the disk. Raises StageError.
    """
    place = os.path.expandvars(os.environ.get(STAGE, ""))  # $TMPDIR is known to the job, not to whoever submits it
    if not place:
        return folder
    if "$" in place:
        raise StageError(f"{STAGE}: {place} names a variable that is not set here; name a folder, or unset it")
    stage = Path(place) / f"mmmil-{os.getuid()}"
    copy = stage / record.digest(record.run_json(folder)["files"])
    unfinished = copy.with_suffix(".unfinished")
    try:
        with leases.held(copy):
            if record.whole(copy) is None:
                shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
                shutil.copytree(folder, unfinished, copy_function=shutil.copyfile)
                unfinished.rename(copy)
                if record.whole(copy) is None:
                    raise StageError(f"{STAGE}: the copy of {folder} in {stage} differs from it; see to the disks")
    except OSError as error:
        told = f"{STAGE}: {folder} cannot be copied to {stage} ({error}); name another folder, or unset it"
        raise StageError(told) from None
    return copy
