"""What the last cell of a notebook suggests to change: settings with their values, read from the cell's own text."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from tests import book_stubs

HEADING = "## Change this"
# 00_method has a model to change in place of settings.
NOTEBOOKS = [path for path in sorted((book_stubs.ROOT / "notebooks").glob("[0-9]*.ipynb")) if path.stem[:2] != "00"]
SETTING = re.compile(r"`(\w+) = ([^`]+)`")
TIME = re.compile(r"\d+ (seconds|minutes?)\b")


def cell_of(path: Path) -> str:
    """The text of a notebook's last cell."""
    return "".join(json.loads(path.read_text())["cells"][-1]["source"])


def items_of(text: str) -> list[str]:
    """The items of the cell's list, each with the lines that go on with it."""
    return [item.strip() for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


def settings_of(item: str) -> dict[str, Any]:
    """What an item suggests: setting -> value, of every code span `name = value` in it."""
    return {name: ast.literal_eval(value) for name, value in SETTING.findall(item)}


def all_of_them() -> list[tuple[Path, dict[str, Any]]]:
    """(notebook, change) of every suggestion."""
    return [(path, settings_of(item)) for path in NOTEBOOKS for item in items_of(cell_of(path))]
