"""Files of slides: how their names end, those in which a slide's pixels lie, and images of tiles in a slide's place."""

from __future__ import annotations

import glob
import re
from functools import lru_cache
from pathlib import Path

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".dcm")
SERIES = re.compile(rb"\x20\x00\x0e\x00UI(..)", re.DOTALL)  # DICOM's SeriesInstanceUID, and the length of its value
HEAD = 65_536  # bytes of a DICOM file in which it stands


def parts_of(slide: Path) -> list[Path]:
    """Files beside a slide in which its pixels lie: a MIRAX slide's folder of its name, the other files of a DICOM
    file's series, the images that Hamamatsu's VMS and VMU name.

    A slide of one file has none.
    """
    suffix = slide.suffix.lower()
    if suffix == ".mrxs":  # hidden ones are the system's (.DS_Store)
        files = slide.with_suffix("").glob("*")
        return sorted(path for path in files if path.is_file() and not path.name.startswith("."))
    if suffix == ".dcm":  # one folder may hold the series of many slides
        series = _series_in(slide.parent, slide.suffix, slide.parent.stat().st_mtime_ns) if slide.is_file() else {}
        return [path for path in series.get(_series_of(slide), []) if path != slide]
    if suffix in (".vms", ".vmu"):
        named = (line.partition("=")[2].strip() for line in _text(slide).splitlines())
        return sorted({slide.parent / name for name in named if name and (slide.parent / name).is_file()} - {slide})
    return []


def is_pattern(path: Path | str) -> bool:
    """Whether a slide's path is a pattern of images of tiles: it has ``*``, ``?`` or ``[`` and names no file."""
    return glob.has_magic(str(path)) and not Path(path).is_file()


def images_of(pattern: Path | str) -> list[Path]:
    """The files that a pattern of images names, sorted; [ab] and [0-9] stand for one character."""
    named = glob.glob(str(pattern))  # noqa: PTH207  it is absolute, and any part of it may be a pattern
    return sorted(path for path in map(Path, named) if path.is_file())


def files_of(slide: Path) -> list[Path]:
    """All files of a slide, its own first; of a pattern the images."""
    return images_of(slide) if is_pattern(slide) else [slide, *parts_of(slide)]


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


@lru_cache(maxsize=1000)
def _series_in(folder: Path, suffix: str, _time: int) -> dict[bytes, list[Path]]:
    """The DICOM files of a folder by their series."""
    series: dict[bytes, list[Path]] = {}
    for path in sorted(folder.glob(f"*{suffix}")):
        series.setdefault(_series_of(path), []).append(path)
    return series


def _series_of(path: Path) -> bytes:
    return _series(path, path.stat().st_mtime_ns) if path.is_file() else b""


@lru_cache(maxsize=10_000)
def _series(path: Path, _time: int) -> bytes:
    """The series that a DICOM file belongs to, b"" where it names none."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    found = list(SERIES.finditer(head))
    if not found:
        return b""
    last = found[-1]  # those before it stand inside references to other series
    return head[last.end() : last.end() + int.from_bytes(last[1], "little")].rstrip(b"\0 ")
