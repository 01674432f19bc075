"""Tables of a cohort as they come: text in columns, read whole or refused with the line at fault."""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

SHOWN = 20  # faults spelled out in one error; the rest is counted
# What a cell says of which nothing is known.
MISSING = {
    *("", "empty", "--", "'--", "na", "n/a", "nan", "none", "unknown", "not reported", "not available"),
    *("[not available]", "[not evaluated]", "[not applicable]", "[unknown]", "[completed]", "[pending]"),
    *("-", ".", "?", "null", "n.a.", "#n/a", "not applicable", "not evaluated", "not allowed to collect"),
}
UNSEEN = str.maketrans(
    dict.fromkeys("\u200b\u2060\ufeff", "")
)  # of no width: what copying from a page leaves in a cell
ABOVE_HEADER = ("#", "sep=")  # cBioPortal's and people's remarks, Excel's line
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # what such text starts with


class CohortError(ValueError):
    """A cohort's files contradict the parameters or each other; names the file, the patient, the field, the remedy."""


def fail(faults: list[str]) -> None:
    """Raise one CohortError for all faults found, if any."""
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise CohortError("the cohort cannot be used:\n" + "\n".join(f"  {f}" for f in faults[:SHOWN] + more))


def folded(text: str) -> str:
    """Text as it is compared: without case, blanks around it, and of several blanks one."""
    return " ".join(text.casefold().split())


def distinct(values: Iterable[str]) -> list[str]:
    """The values, sorted; of those that differ in case or blanks only (`G2` and `g2` with a blank) the first."""
    first: dict[str, str] = {}
    for value in sorted(set(values)):
        first.setdefault(folded(value), value.strip())
    return list(first.values())


def read_table(path: Path, repeated: bool = False) -> pd.DataFrame:
    """A CSV or (`.tsv`, `.txt`; either as `.gz`) tab-separated table: cells as stripped text, nothing turned into NaN.

    The index is the line in the file; rows without any cell, columns without a name, and what stands above the header
    (`#` and Excel's `sep=`) are left out. Raises CohortError for bytes that are no UTF-8 text, columns separated by
    another mark, a row with more or fewer cells than the header, a quote that is not closed on its line, and a column
    name that stands there twice (which `repeated` allows).
    """
    text = _text(path)
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    sep = "\t" if suffix in (".tsv", ".txt") else ","
    header: list[str] = []
    rows: dict[int, list[str]] = {}
    line = 0
    _require_separator(path, text, sep)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sep, strict=True)
    try:
        for cells in reader:
            if reader.line_num > line + 1:  # a quote too many would swallow the rows up to the next one
                raise csv.Error(f"a quoted cell goes on to line {reader.line_num}")
            line = reader.line_num
            cells = [cell.translate(UNSEEN).strip() for cell in cells]
            if not any(cells) or (not header and cells[0].startswith(ABOVE_HEADER)):
                continue
            if not header:
                header = cells
                again = [name for name, n in Counter(header).items() if n > 1 and name]
                if again and not repeated:
                    raise repeated_column(path, again[0], line)
            elif len(cells) != len(header):
                raise CohortError(
                    f"{path}, line {line}: {len(cells)} cells where the header has {len(header)}; correct the line "
                    "(a cell that holds the separator stands in double quotes)"
                )
            else:
                rows[line] = cells
    except csv.Error as error:
        raise CohortError(
            f"{path}, line {line + 1}: not a table that can be read ({error}); close or remove the double quote"
        ) from None
    if not header:
        raise CohortError(f"{path}: the table is empty; it needs one header line, then rows")
    table = pd.DataFrame(list(rows.values()), columns=header, index=pd.Index(list(rows), dtype=int), dtype=object)
    return table.loc[:, table.columns != ""]


def _text(path: Path) -> str:
    if not is_file(path):
        raise CohortError(f"{path}: the file is not there; correct its name in the parameters, or put it there")
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise CohortError(f"{path}: cannot be read ({error}); download it again, or see to its permissions") from None
    remedy = "download it again, or save it as text in UTF-8"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        other = " but UTF-16, as Excel's 'Unicode Text' is" if data.startswith(UTF_16) else ""
        raise CohortError(f"{path}, line {line}: byte 0x{byte:02x} is no UTF-8 text{other}; {remedy}") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise CohortError(f"{path}, line {line}: holds a NUL byte, so it is no table; {remedy}")
    return text


def _require_separator(path: Path, text: str, sep: str) -> None:
    """Looked at before quotes are: in `"a";"b"` they would be at fault."""
    lines = enumerate(text.splitlines(), start=1)
    line, header = next(((n, t) for n, t in lines if t.strip(f"{sep} ") and not t.startswith(ABOVE_HEADER)), (1, ""))
    marks = [mark for mark in "\t;," if mark in header]
    if marks and sep not in marks:
        raise CohortError(
            f"{path}, line {line}: the header's columns are separated by {marks[0]!r}, not by {sep!r}; "
            "separate them by commas in a .csv file, by tabs in a .tsv or .txt file"
        )


def repeated_column(path: Path, name: str, line: int = 1) -> CohortError:
    """The error for a column of which a table has two, so that it cannot be said which one is meant."""
    return CohortError(f"{path}, line {line}: the column '{name}' stands there twice; rename or delete one of them")


def absolute(path: Path) -> Path:
    """A path from the root, without '..'; a link keeps its own name, by which tables and manifests know the file."""
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow the link


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file can have (too long) is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
