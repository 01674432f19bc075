"""Paths as settings give them: with placeholders, a home folder and environment variables."""

from __future__ import annotations

import os
from pathlib import Path
from string import Formatter, Template

NO_PATH = ("none", "null")


def run_of(task: str, overlay: str = "") -> str:
    """What tells a run from others of its task, and where it lies in results/, logs/ and book/executed/.

    `<overlay>/<task>`, or `<task>` where no overlay lies over it. A task may be given as a pattern ('{task}').
    """
    return f"{overlay}/{task}" if overlay else task


def filled(text: str, **placeholders: str) -> str:
    """A path with its `{placeholders}`, `~` and environment variables filled in; '' stays ''.

    `{{` is a brace and `$$` a dollar sign. Raises ValueError, saying what there is, for another placeholder, a brace
    or a dollar sign that stands alone, a variable that is not set, and a text that is no path.
    """
    if text.lower() in NO_PATH:
        raise ValueError(f"'{text}' is no path; write \"\" for none")
    if text != text.strip() or not text.isprintable():
        raise ValueError(f"{text!r} holds a line break, a tab or a blank at its end; delete it, or use single quotes")
    text = _with_variables(text)
    there = ", ".join(f"{{{name}}}" for name in placeholders)
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        raise ValueError(f"'{text}' has a brace that stands alone; there are {there}, and {{{{ is a brace") from None
    for _, name, spec, conversion in parts:
        if name is not None and (name not in placeholders or spec or conversion):
            raise ValueError(f"nothing is known as {{{name}}}; there are {there}")
    text = text.format(**placeholders)
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError(f"'{text}': there is no such home folder; write the whole path") from None


def _with_variables(text: str) -> str:
    values = {name: value.replace("{", "{{").replace("}", "}}") for name, value in os.environ.items()}
    try:
        return Template(text).substitute(values)
    except KeyError as error:
        raise ValueError(
            f"the environment variable {error.args[0]} is not set; set it, or write $$ for a dollar sign"
        ) from None
    except ValueError:
        raise ValueError(f"'{text}' has a $ that names no environment variable; write $$ for a dollar sign") from None
