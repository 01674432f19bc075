"""The built book as files: which pages there are, and whether every link in them leads somewhere."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

from tests.book_stubs import ROOT

BOOK = "MMMIL_BOOK"  # the folder of a built book, if it is not that of `make book`


def folder() -> Path:
    return Path(os.environ.get(BOOK) or ROOT / "_build" / "html").resolve()


def missing() -> str:
    """Why there is no book to look at; '' where there is one."""
    there = (folder() / "index.html").is_file()
    return "" if there else f"no built book at {folder()}: run `make book`, or name one with {BOOK}"


def pages() -> list[str]:
    """Every page that a reader can open, as a path in the book; templates in _static and redirections are none."""
    files = (path for path in sorted(folder().rglob("*.html")) if "_static" not in path.parts)
    return [path.relative_to(folder()).as_posix() for path in files if 'http-equiv="Refresh"' not in _head(path)]


def _head(path: Path) -> str:
    with path.open() as file:
        return file.read(500)


@functools.cache
def _soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_bytes(), "html.parser")


@functools.cache
def _anchors(path: Path) -> frozenset[str]:
    named = _soup(path).find_all(lambda tag: tag.has_attr("id") or (tag.name == "a" and tag.has_attr("name")))
    return frozenset(tag.get("id") or tag["name"] for tag in named)


def broken_links(root: Path, page: str) -> list[str]:
    """Links of a page to files that are not there, out of the book, or to places that their page does not have."""
    path, broken = root / page, []
    for tag in _soup(path).find_all(["a", "link", "img", "script", "iframe", "source"]):
        address = tag.get("href") or tag.get("src")
        if not address or address == "#" or is_external(address):
            continue
        if urlsplit(address).scheme:
            broken.append(f"{address}: neither in the book nor on the web")
            continue
        parts = urlsplit(address)
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_relative_to(root):
            broken.append(f"{address}: leaves the book")
        elif not target.is_file():
            broken.append(f"{address}: no such file")
        elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in _anchors(target):
            broken.append(f"{address}: no such place in that page")
    return sorted(set(broken))


def is_external(address: str) -> bool:
    return address.startswith(("http://", "https://", "//", "mailto:", "data:"))


def external_links() -> dict[str, int]:
    """Address -> how many pages link to it; nothing asks whether it answers."""
    counts: dict[str, set[str]] = defaultdict(set)
    for page in pages():
        for tag in _soup(folder() / page).find_all("a", href=True):
            if tag["href"].startswith(("http://", "https://", "//")):
                counts[tag["href"]].add(page)
    return {address: len(where) for address, where in sorted(counts.items())}
