"""The API reference: a page per wing, on which Sphinx's autodoc fills in signatures and docstrings."""

from __future__ import annotations

from pathlib import Path

from mmmil import params, record

ROOT = Path(__file__).resolve().parents[1]
GROUND = "ground"  # the page of the modules that lie in no wing
INDEX = "book/api"


def wings() -> dict[str, list[Path]]:
    """Name of every page, and the files of the modules on it, in alphabetical order, the ground before the wings."""
    folders = {GROUND: ROOT} | {init.parent.name: init.parent for init in sorted(ROOT.glob("*/__init__.py"))}
    return {
        name: [path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("__")]
        for name, folder in folders.items()
    }


def write() -> list[str]:
    """Write book/api/<wing>.md for every wing; returns the pages as a table of contents names them."""
    for wing, files in wings().items():
        title = ROOT.name if wing == GROUND else f"{ROOT.name}.{wing}"
        text = "\n".join([f"# {title}\n", *map(_module, files)])
        path = params.root() / INDEX / f"{wing}.md"
        record.write_atomically(path, lambda draft, text=text: draft.write_text(text))
    return [f"{INDEX}/{wing}" for wing in wings()]


def _module(file: Path) -> str:
    """A heading, the module's docstring, and the classes and functions that it defines, not those that it imports."""
    name = ".".join((ROOT.name, *file.relative_to(ROOT).with_suffix("").parts))
    return f"## {file.stem}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :ignore-module-all:\n```\n"
