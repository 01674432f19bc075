"""The method in view: source of the package as it runs, and the shapes of what it computes, in Markdown."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import Markdown

ROOT = Path(__file__).resolve().parents[2]


def source(*things: Any) -> Markdown:
    """Functions, methods or classes of the package as they stand in their files, one block for each, under the name of
    the file and the line. Read when it is called, never copied.
    """
    from IPython.display import Markdown

    return Markdown("\n\n".join(map(_block, things)))


def _block(thing: Any) -> str:
    lines, first = inspect.getsourcelines(thing)
    path = Path(inspect.getsourcefile(thing) or "").resolve()
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    code = textwrap.dedent("".join(lines)).rstrip()
    return f"`{thing.__qualname__}`, {name} line {first}:\n\n```python\n{code}\n```"


def shapes(rows: Mapping[str, tuple[Any, str]]) -> Markdown:
    """A table of arrays or tensors: symbol (LaTeX) -> the array and the names of its axes, 'tiles, values'.

    Raises ValueError where an array has another number of axes than names.
    """
    from IPython.display import Markdown

    lines = ["| | shape | axes |", "| --- | --- | --- |"]
    for symbol, (array, axes) in rows.items():
        names = axes.split(", ")
        if len(names) != len(array.shape):
            raise ValueError(f"{symbol}: {len(array.shape)} axes, and {len(names)} names ({axes})")
        lines.append(f"| ${symbol}$ | {' × '.join(map(str, array.shape))} | {' × '.join(names)} |")
    return Markdown("\n".join(lines))
