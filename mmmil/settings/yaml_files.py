"""YAML as it is written: one reader for every YAML file of the project.

The language reads some plain texts as something else than they look (010 as 8, 1:30 as 90), and lets the last of two
equal keys win. Here both are errors, each with its file, line and key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

# Plain scalars that are read as another number than they show, or as text though they look like a number.
MISREAD = re.compile(
    r"""[-+]?(
        0[0-9_]+                                        # octal, or text where it has an 8 or a 9
      | 0[bBoOxX][0-9a-fA-F_]+                          # binary, octal, hexadecimal
      | [0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?         # to the base of sixty
      | (?=[0-9.]*_)[0-9_]+(\.[0-9_]*)?([eE][-+]?[0-9]+)?  # underscores between the digits
    )""",
    re.VERBOSE,
)


# What to write instead, by a part of the parser's words.
REMEDIES = {
    "'\\t'": "; write spaces, not tabs",
    "could not find expected ':'": "; write `name: value` with a blank after the colon",
    "mapping values are not allowed": "; put a text that holds ': ' in quotes",
    "unknown escape character": "; write a path in single quotes, or with /",
}


class YamlError(ValueError):
    """A YAML file cannot be read, or would be read otherwise than it is written; names the file, line and key."""


def read(path: Path) -> Any:
    """What a YAML file holds; None for an empty one.

    Raises YamlError for a file that is no UTF-8 text or no YAML, for a key that stands there twice, and for a plain
    scalar of MISREAD. A byte order mark and any kind of line end are fine.
    """
    text = _text(path)
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            faults = sorted(_faults(node))
            if faults:
                raise YamlError("\n".join(f"{path}, line {line}: {fault}" for line, fault in faults))
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        remedy = next((told for problem, told in REMEDIES.items() if problem in str(error.problem)), "")
        raise YamlError(f"{path}{line}: {error.problem or error.context}{remedy}") from None
    except yaml.reader.ReaderError as error:
        line_number = text.count("\n", 0, error.position) + 1
        raise YamlError(f"{path}, line {line_number}: the character {error.character:#x} is not allowed") from None
    except YamlError:
        raise
    except (ValueError, RecursionError) as error:  # a date such as 2024-13-01
        raise YamlError(f"{path} is not valid YAML: {error}; put dates in quotes") from None


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise YamlError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        raise YamlError(f"{path}, line {line}: byte 0x{byte:02x} is no UTF-8 text; save the file as UTF-8") from None


def _faults(root: yaml.Node) -> Iterator[tuple[int, str]]:
    """Line and fault of every key given twice, and of every scalar that is not read as it is written."""
    waiting: list[tuple[str, yaml.Node]] = [("", root)]
    seen: set[int] = set()  # an alias may lead back
    while waiting:
        key, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            if node.style is None and MISREAD.fullmatch(node.value):
                yield (
                    node.start_mark.line + 1,
                    f"{key}: {_as_read(node.value)}; write the number plainly, or a text in quotes",
                )
        elif isinstance(node, yaml.MappingNode):
            first: dict[tuple[str, str], yaml.Node] = {}
            for name, value in node.value:
                if isinstance(name, yaml.ScalarNode):
                    before = first.setdefault((name.tag, name.value), name)
                    if before is not name:
                        first_line = before.start_mark.line + 1
                        fault = f"{name.value}: stands there twice, first in line {first_line}; delete one"
                        yield name.start_mark.line + 1, fault
                    waiting.append((f"the key {name.value}", name))
                waiting.append((str(name.value) if isinstance(name, yaml.ScalarNode) else key, value))
        else:
            waiting += [(key, item) for item in node.value]


def _as_read(text: str) -> str:
    value = yaml.safe_load(text)
    return f"YAML reads {text} as {'text' if isinstance(value, str) else value}"
