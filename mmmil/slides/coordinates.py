"""Tile coordinates as CLAM, TRIDENT and torchmil read and write them: HDF5, `coords` (N, 2) in level-0 px.

TRIDENT's attributes say how a tile was cut (patch_size, patch_size_level0, level0_magnification,
target_magnification, overlap, name, level0_width, level0_height); CLAM's are patch_size and patch_level. Ours carry
both, and mpp (µm per px of the tile), mpp_level0, level, size (px read) and grid_level.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from mmmil import record
from mmmil.slides import names, scale
from mmmil.slides.files import SlideError
from mmmil.slides.scale import Geometry

if TYPE_CHECKING:
    from openslide import AbstractSlide


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def attributes(g: Geometry, name: str, width: int, height: int) -> dict:
    """What a file of coordinates says of its tiles."""
    return {
        "patch_size": g.tile_px,
        "patch_size_level0": g.size_level0,
        "patch_level": g.level,
        "custom_downsample": 1,
        "level0_magnification": _number(g.level0_magnification),
        "target_magnification": _number(round(g.magnification, 4)),
        "overlap": 0,
        "name": name,
        "level0_width": width,
        "level0_height": height,
        "mpp": g.mpp,
        "mpp_level0": g.mpp_level0,
        "level": g.level,
        "size": g.size,
        "grid_level": g.grid_level,
    }


def geometry_of(a: dict) -> Geometry:
    """The geometry that our attributes state."""
    return Geometry(
        tile_px=int(a["patch_size"]),
        level=int(a["level"]),
        size=int(a["size"]),
        size_level0=int(a["patch_size_level0"]),
        grid_level=int(a["grid_level"]),
        mpp=float(a["mpp"]),
        mpp_level0=float(a["mpp_level0"]),
    )


def write(path: Path, attributes: dict, **arrays: np.ndarray) -> None:
    """One HDF5 dataset per array, each with the attributes; pixels are chunked by tile."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            chunks = (1, *array.shape[1:]) if name == "imgs" and len(array) else None
            file.create_dataset(name, data=array, chunks=chunks).attrs.update(attributes)


def publish(bags: dict[str, Path], folder: Path) -> None:
    """Write `<slide_id>_patches.h5` with the coordinates of each bag's tiles: where TRIDENT and torchmil look.

    bags: slide_id -> HDF5 file with `coords`. Files of slides that are no longer used go.
    """
    for path in folder.glob("*_patches.h5"):
        if path.name.removesuffix("_patches.h5") not in bags:
            path.unlink()
    for slide_id, bag in bags.items():
        with h5py.File(bag) as file:
            coords, about = file["coords"][:], dict(file["coords"].attrs)
        record.write_atomically(folder / f"{slide_id}_patches.h5", lambda t, c=coords, a=about: write(t, a, coords=c))


def find(folder: Path, slide_id: str) -> Path:
    """The file of a slide's coordinates: TRIDENT's `<slide>_patches.h5` or CLAM's `<slide>.h5` (see `names.meant`).

    Raises SlideError where there is none, or more than one.
    """
    found = _of_slide(folder, slide_id)
    if found is None:
        raise SlideError(
            f"{folder}: has no coordinates of slide {slide_id} ({slide_id}_patches.h5 or {slide_id}.h5); "
            "make them with TRIDENT or CLAM, or leave coords_dir empty"
        )
    return found


def _of_slide(folder: Path, slide_id: str, files: list[Path] | None = None) -> Path | None:
    """A slide's file of coordinates, None where there is none; files: what `_files` finds in the folder."""
    found = [folder / name for name in (f"{slide_id}_patches.h5", f"{slide_id}.h5") if (folder / name).is_file()]
    if not found:  # a folder of thousands is listed only for a name that is not there as it should be
        about = {path: path.stem.removesuffix("_patches") for path in files or _files(folder)}
        wanted = set(names.meant(slide_id, about.values()))
        found = [path for path, name in about.items() if name in wanted]
    if len(found) > 1:
        listed = " and ".join(path.name for path in found)
        raise SlideError(f"{folder}: {len(found)} files are of slide {slide_id}, {listed}; keep one of them")
    return found[0] if found else None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in (".h5", ".hdf5"))


def unused_files(folder: Path, slides: Iterable[Path]) -> list[str]:
    """Names of the files of coordinates that belong to none of the slides.

    Raises SlideError for a file that may be of two slides, and for a slide of which there are two files.
    """
    files = _files(folder)
    found = {str(slide): _of_slide(folder, slide.stem, files) for slide in slides}
    chosen = {slide: file.name for slide, file in found.items() if file is not None}
    return names.unused(chosen, [path.name for path in files], str(folder))


def _whole(path: Path, a: dict, name: str, default: int) -> int:
    """A whole number of a file's attributes, which some programs write as a list of one."""
    values = np.ravel(a.get(name, default))
    try:
        (value,) = (int(value) for value in values)
    except (TypeError, ValueError):
        raise SlideError(f"{path}: its {name} is {a[name]!r}, not one whole number; make it again") from None
    return value


def contradictions(path: Path, slide: str, mpp: float) -> list[str]:
    """In words, what a file of coordinates states that cannot be true of a slide of `mpp` µm per px at level 0."""
    with h5py.File(path) as file:
        a = dict(file["coords"].attrs)
    name, power = a.get("name", slide), np.ravel(a.get("level0_magnification", []))
    told = []
    if isinstance(name, str) and names.fold(name) != names.fold(slide):
        told.append(f"{path.name} says that it is of {name}")
    if power.size == 1 and np.issubdtype(power.dtype, np.number) and power[0] > 0:
        stated = scale.Stated(mpp, None, None, float(power[0]))
        told += [f"{path.name}: {words}" for words in stated.contradictions()]
    return told


def read(
    path: Path, slide: AbstractSlide, slide_path: Path, tile_px: int, mpp_table: dict, level: int = 0, mpp: float = 0
) -> tuple[np.ndarray, Geometry]:
    """Coordinates (N, 2) in level-0 px of a CLAM or TRIDENT file, and the geometry of its tiles on the slide.

    Raises SlideError for a file without coordinates or tile size, made for another slide or another tile_px, of
    another scale than that asked for by pyramid level or µm per px (0: any), with tiles twice or beyond the slide's
    border.
    """
    try:
        with h5py.File(path) as file:
            coords, a = file["coords"][:], dict(file["coords"].attrs)
    except (OSError, KeyError) as error:
        raise SlideError(f"{path}: no HDF5 file with a dataset `coords` ({error}); make it again") from None
    if coords.ndim != 2 or coords.shape[1] != 2 or not np.issubdtype(coords.dtype, np.integer):
        raise SlideError(f"{path}: coords is {coords.dtype} {coords.shape}, not whole numbers (N, 2); make it again")
    if "patch_size" not in a:
        raise SlideError(f"{path}: coords has no attribute patch_size; make it with CLAM or TRIDENT")
    patch_size = _whole(path, a, "patch_size", 0)
    if patch_size != tile_px:
        raise SlideError(f"{path}: its tiles are {patch_size} px, tile_px is {tile_px}; set tile_px to theirs")
    width, height = slide.dimensions
    made_for = (_whole(path, a, "level0_width", width), _whole(path, a, "level0_height", height))
    if made_for != (width, height):
        raise SlideError(
            f"{path}: was made for a slide of {made_for[0]} x {made_for[1]} px, {slide_path.name} "
            f"has {width} x {height}; name the right coords_dir"
        )
    if "patch_size_level0" in a:
        size_level0 = _whole(path, a, "patch_size_level0", 0)
    else:  # CLAM: pixels of a level, shrunk further by custom_downsample
        theirs, shrunk = _whole(path, a, "patch_level", 0), _whole(path, a, "custom_downsample", 1)
        if not 0 <= theirs < slide.level_count:
            raise SlideError(f"{path}: patch_level {theirs}, but {slide_path.name} has {slide.level_count} levels")
        size_level0 = round(tile_px * slide.level_downsamples[theirs] * shrunk)
    if size_level0 < 1:
        raise SlideError(f"{path}: its tiles have a side of {size_level0} px at level 0; make it again")
    if len(np.unique(coords, axis=0)) < len(coords):
        raise SlideError(f"{path}: holds tiles twice, which a bag would count twice; make it again")
    if len(coords) and ((coords < 0).any() or (coords + size_level0 > (width, height)).any()):
        # CLAM pads a tile at the border; what lies outside the scan is white.
        outside = (coords >= (width, height)).any(1) | (coords < 0).any(1)
        if outside.any():
            where = coords[outside][0].tolist()
            raise SlideError(f"{path}: the tile at {where} lies outside the slide ({width} x {height}); make it again")
    g = scale.resampled(slide, tile_px, size_level0, scale.microns_per_pixel(slide, slide_path, mpp_table))
    if level or mpp:
        wanted = scale.geometry(slide, slide_path, tile_px, level, mpp, mpp_table).mpp
        if not scale.is_same(g.mpp, wanted):
            asked = f"tile_mpp {mpp:g}" if mpp else f"tile_level {level} ({wanted:.4g} µm/px)"
            raise SlideError(
                f"{path}: its tiles are of {g.mpp:.4g} µm/px, and {asked} is asked for; leave that out, or make "
                "coordinates of that scale"
            )
    return coords.astype(np.int64), g
