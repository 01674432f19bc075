"""What a run over the book found and measured, as a page to read and as JSON."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from mmmil import record
from tests.book_stubs import ROOT
from tests.browser import book
from tests.browser.visit import OFF, SIZES, Visit

FOLDER = ROOT / "_build" / "browser"  # report and pictures


def figures(visits: list[Visit]) -> dict[str, object]:
    """Size of the whole book and of its largest page in bytes, and median and longest first paint in ms."""
    of_desktop = [visit for visit in visits if visit.size == "desktop"] or visits
    largest = max(of_desktop, key=lambda visit: visit.loaded_bytes)
    numbers: dict[str, object] = {
        "book_bytes": sum(path.stat().st_size for path in book.folder().rglob("*") if path.is_file()),
        "pages": len(of_desktop),
        "largest_page": largest.page,
        "largest_page_html_bytes": largest.html_bytes,
        "largest_page_loaded_bytes": largest.loaded_bytes,
    }
    for size in SIZES:
        paints = [visit.first_paint_ms for visit in visits if visit.size == size and visit.first_paint_ms is not None]
        if paints:
            numbers |= {f"first_paint_ms_{size}_median": statistics.median(paints)}
            numbers |= {f"first_paint_ms_{size}_longest": max(paints)}
    return numbers


def write(visits: list[Visit], links: dict[str, list[str]], folder: Path = FOLDER) -> Path:
    """links: page -> its broken links. Returns where the page to read lies."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, outside = figures(visits), book.external_links()
    everything = {"figures": numbers, "visits": [asdict(visit) for visit in visits], "broken_links": links}
    text = json.dumps(everything | {"external_links": outside, "rules_off": OFF}, indent=1, ensure_ascii=False)
    record.write_atomically(folder / "report.json", lambda path: path.write_text(text))

    found = Counter((kind, visit.size) for visit in visits for kind, _ in visit.found)
    found.update(("link", "files") for broken in links.values() for _ in broken)
    lines = ["# The book in a browser", "", *(f"- {name}: {value}" for name, value in numbers.items())]
    lines += ["", "## Found", ""]
    lines += [f"- {kind}, {size}: {count}" for (kind, size), count in sorted(found.items())] or ["Nothing."]
    for visit in visits:
        if visit.found:
            lines += ["", f"### {visit.page}, {visit.size}", "", *(f"- {kind}: {text}" for kind, text in visit.found)]
    for page, broken in links.items():
        if broken:
            lines += ["", f"### {page}, links", "", *(f"- {text}" for text in broken)]
    lines += ["", "## Links out of the book, not followed", ""]
    lines += [f"- {link}: {count} pages" for link, count in outside.items()]
    page = folder / "report.md"
    record.write_atomically(page, lambda path: path.write_text("\n".join(lines) + "\n"))
    return page
