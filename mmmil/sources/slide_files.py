"""Files of slides: how their names end, and those in which a slide's pixels lie."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".dcm")


def parts_of(slide: Path) -> list[Path]:
    """Files beside a slide in which its pixels lie: a MIRAX slide's folder of its name, a DICOM file's series.

    A slide of one file has none.
    """
    suffix = slide.suffix.lower()
    if suffix == ".mrxs":
        return sorted(path for path in slide.with_suffix("").glob("*") if path.is_file())
    if suffix == ".dcm":
        return sorted(path for path in slide.parent.glob(f"*{slide.suffix}") if path != slide)
    return []
