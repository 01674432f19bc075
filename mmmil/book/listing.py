"""The method in view: source of the package as it runs, and the shapes of what it computes."""

from __future__ import annotations

import ast
import html
import inspect
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import HTML, Markdown

ROOT = Path(__file__).resolve().parents[2]


def source(*things: Any) -> Markdown:
    """Functions, methods or classes of the package as they stand in their files, a block of Python for each under its
    name, file and line. Read when it is called, never copied; docstrings of several lines are left out.
    """
    from IPython.display import Markdown

    return Markdown("\n\n".join(map(_block, things)))


def _block(thing: Any) -> str:
    lines, first = inspect.getsourcelines(thing)
    path = Path(inspect.getsourcefile(thing) or "").resolve()
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    code = _without_long_docstrings(textwrap.dedent("".join(lines)).rstrip())
    return f"`{thing.__qualname__}` ({name}, line {first}):\n\n```python\n{code}\n```"


def _without_long_docstrings(code: str) -> str:
    lines = code.split("\n")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            text = node.body[0]
            if text.end_lineno and text.end_lineno > text.lineno and len(node.body) > 1:
                lines[text.lineno - 1 : text.end_lineno] = [""] * (text.end_lineno - text.lineno + 1)
                lines[text.lineno - 1] = "\0"
    kept = "\n".join(lines)
    return re.sub(r"\0\n+", "", kept)


def shapes(*rows: tuple[str, Any, str]) -> HTML:
    """A table of arrays or tensors, a row (symbol, array, names of its axes) for each: ('v_t', v_t, 'patient, value').

    A symbol may have one index. Raises ValueError where an array has another number of axes than names.
    """
    from IPython.display import HTML

    body = ""
    for symbol, array, axes in rows:
        names = axes.split(", ")
        if len(names) != len(array.shape):
            raise ValueError(f"{symbol}: {len(array.shape)} axes, and {len(names)} names ({axes})")
        cells = _symbol(symbol), " × ".join(map(str, array.shape)), html.escape(" × ".join(names))
        body += "<tr>" + "".join(f'<td style="text-align: left">{cell}</td>' for cell in cells) + "</tr>"
    head = "".join(f'<th style="text-align: left">{name}</th>' for name in ("", "shape", "axes"))
    return HTML(f'<table class="dataframe shapes"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def _symbol(text: str) -> str:
    indexed = re.sub(r"_([a-z]+)", r"<sub>\1</sub>", html.escape(text))
    return f"<i>{indexed}</i>"
