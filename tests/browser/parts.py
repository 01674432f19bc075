"""Pages of the book with a part in them, for what the book's own scripts and style do to it."""

from pathlib import Path

from tests.book_stubs import ROOT

PAGE = """<!DOCTYPE html><html lang="en"><head><title>A page</title><link rel="stylesheet" href="{static}/book.css">
<meta name="viewport" content="width=device-width, initial-scale=1">
{scripts}</head><body><main><article class="bd-article"><h1>Title</h1>{part}</article></main></body></html>"""
SCRIPTS = [*(f"tables/{name}.js" for name in ("dataTables.min", "dataTables.responsive.min", "tables")), "book.js"]


def page_with(part: str, folder: Path) -> Path:
    """A page of the book with a part in it, as a file."""
    static = (ROOT / "book" / "_static").as_uri()
    scripts = "\n".join(f'<script defer src="{static}/{name}"></script>' for name in SCRIPTS)
    (folder / "page.html").write_text(PAGE.format(static=static, scripts=scripts, part=part))
    return folder / "page.html"
