"""The book on paper: the one page that Sphinx writes is printed with its style and pictures, or not at all."""

import subprocess
import sys

import pytest
from matplotlib import pyplot as plt

from tests.book_stubs import ROOT
from tests.browser import chromium

pytestmark = chromium.marks(needs_book=False)
PAGE = """<!DOCTYPE html><html lang="en"><head><title>A book</title><link rel="stylesheet" href="_static/a.css"></head>
<body><link rel="stylesheet" href="../../../../_static/viewer.css"><script src="../../../../_static/viewer.js"></script>
<p><a href="book/intro.html#end">the end</a></p><img alt="one" src="_images/one.png">
<p id="end">End</p></body></html>"""


@pytest.fixture
def folder(tmp_path):
    """What Sphinx leaves: the page beneath, and all that it names at the root."""
    for name in ("book", "_static", "_images"):
        (tmp_path / name).mkdir()
    (tmp_path / "book" / "intro.html").write_text(PAGE)
    (tmp_path / "_static" / "a.css").write_text("p { color: black }")
    plt.figure(figsize=(1, 1)).savefig(tmp_path / "_images" / "one.png")
    plt.close("all")
    return tmp_path


def printed(folder):
    call = [sys.executable, "workflow/pdf.py", folder, "book/intro.html", folder / "book.pdf"]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)


def test_pictures_style_and_links_are_there(folder):
    done = printed(folder)
    assert done.returncode == 0, done.stderr
    pdf = (folder / "book.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Subtype /Image" in pdf
    assert 'href="#end"' in (folder / "whole.html").read_text() and "viewer" not in (folder / "whole.html").read_text()


@pytest.mark.parametrize("lost", ["_static/a.css", "_images/one.png"])
def test_what_does_not_load_is_an_error_and_no_pdf(folder, lost):
    (folder / lost).unlink()
    (folder / "book.pdf").write_bytes(b"%PDF of an earlier book")
    done = printed(folder)
    assert done.returncode == 1 and f"1 of the files that it names do not load, file://{folder / lost}" in done.stderr
    assert not (folder / "book.pdf").exists()
