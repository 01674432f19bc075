"""Manifests of the GDC: the size and MD5 of every file of a download."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pandas as pd

from mmmil.sources.tables import is_file

MANIFEST_COLUMNS = ["id", "filename", "md5", "size", "state"]
SHOWN = 10  # faults spelled out in one error; the rest is counted


class GDCError(ValueError):
    """The GDC's answer, a manifest or a file is not what it should be; names the URL or file, the field, the remedy."""


def listed(faults: list[str]) -> str:
    """Faults as indented lines, at most SHOWN of them."""
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return "\n".join(f"  {fault}" for fault in faults[:SHOWN] + more)


def unsafe(name: str) -> str:
    """Why a file name from elsewhere must not be used as one, or ''."""
    if not name or name.startswith(".") or ".." in name or re.search(r"[/\\]", name):
        return "has a path separator, '..' or a leading dot, or is empty"
    if not name.isprintable() or len(name.encode(errors="replace")) > 200 or name.endswith(".part"):
        return "has control characters, ends in .part or is longer than 200 bytes"
    return ""


def _cut(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:80] + "...")


def row_faults(row: dict[str, str]) -> list[str]:
    """What is wrong with a manifest's row, one text per field."""
    checks = [
        ("id", re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z-]*", row["id"]), "is not a file id of the GDC"),
        ("filename", not unsafe(row["filename"]), unsafe(row["filename"])),
        ("md5", re.fullmatch(r"[0-9a-f]{32}", row["md5"]), "is not 32 hexadecimal digits"),
        ("size", re.fullmatch(r"[0-9]{1,15}", row["size"]), "is not a whole number of bytes"),
    ]
    return [f"{field} {_cut(row[field])} {fault}" for field, fine, fault in checks if not fine]


def read_manifest(path: Path | str) -> pd.DataFrame:
    """The files of a gdc-client manifest: columns id, filename (no folder), md5, size (bytes, int), state.

    Manifests that the GDC packs into its archives name a file `<id>/<name>` and hold rows without id for the
    annotations beside it: the folder is cut off, those rows are left out. Raises GDCError that names file, line,
    field and remedy.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise GDCError(f"{path}: the manifest is not there; `python -m mmmil.gdc query` writes one") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise GDCError(f"{path}: not a manifest, it cannot be read as text ({error}); download it again") from None
    header, *lines = re.split("\r\n|\n|\r", text)
    columns = [name.strip() for name in header.split("\t")]
    wrong = [f"'{name}' is there {columns.count(name)} times" for name in MANIFEST_COLUMNS if columns.count(name) != 1]
    if wrong:
        raise GDCError(
            f"{path}, line 1: column {', '.join(wrong)}; a manifest has {', '.join(MANIFEST_COLUMNS)}, separated by "
            "tabs: download it with the button 'Manifest' of the GDC cart"
        )
    rows, faults = [], []
    first: dict[tuple[str, str], int] = {}  # line of each id and each file name
    for number, line in enumerate(lines, start=2):
        cells = [cell.strip() for cell in line.split("\t")]
        if cells == [""]:
            continue
        where = f"{path}, line {number}"
        if len(cells) != len(columns):
            faults.append(f"{where}: {len(cells)} fields where the header has {len(columns)}")
            continue
        row = {name: cells[columns.index(name)] for name in MANIFEST_COLUMNS}
        folder, slash, name = row["filename"].partition("/")
        if row["id"] == r"\N" and slash and name == "annotations.txt":
            continue
        if slash and folder == row["id"]:
            row["filename"] = name
        row["md5"] = row["md5"].lower()
        faults += [f"{where}: {fault}" for fault in row_faults(row)]
        for field in ("id", "filename"):
            if first.setdefault((field, row[field]), number) != number:
                faults.append(f"{where}: {field} {_cut(row[field])} is on line {first[field, row[field]]}, too")
        rows.append(row)
    if not rows and not faults:
        faults.append(f"{path}: no file is in it")
    if faults:
        raise GDCError(f"the manifest cannot be used:\n{listed(faults)}\ndownload it again, or correct these lines")
    return pd.DataFrame(rows, columns=MANIFEST_COLUMNS).astype({"size": "int64"})


def md5_of(path: Path) -> str:
    """MD5 of a file's bytes; the GDC has no stronger one."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


UNFINISHED = (".partial", ".part")  # gdc-client's suffix of a file on its way, and `python -m mmmil.gdc`'s


def unfinished(path: Path) -> Path | None:
    """What a broken-off download left of a file: `<name>.partial` or `<name>.part`."""
    left = (path.with_name(path.name + suffix) for suffix in UNFINISHED)
    return next((part for part in left if path.name and is_file(part)), None)
