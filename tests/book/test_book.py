"""The book is built with warnings as errors, from two tasks' stub pages, and asks nothing of the network."""

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import mmmil
from mmmil.book import pages, sections
from mmmil.models.fusion import MultimodalMIL
from tests import book_stubs


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("book"), Path.cwd()
    os.chdir(book_stubs.ROOT)
    try:
        book_stubs.project(folder, names=["01_dataset", "04_multimodal_ablations"])
        for task in ("lgg", "nsclc"):
            path = folder / "params" / f"{task}.yaml"
            path.write_text(path.read_text() + "\nnotebooks: [01_dataset, 04_multimodal_ablations]\n")
        os.chdir(folder)
        sections.write()
        pages.write_toc([])
    finally:
        os.chdir(before)
    program = str(Path(sys.executable).parent / "jupyter-book")
    build = [program, "build", ".", "--toc", "_build/toc.yml", "-W", "--keep-going"]
    env = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(build, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "_build" / "html"


def test_pages_are_there_with_their_formula_and_figure(html):
    page = (html / "book/executed/demo/lgg/01_dataset.html").read_text()
    assert "a^2 + b^2" in page and re.search(r"<img[^>]+_images/\w+\.png", page)
    section = (html / "book/04_multimodal_ablations.html").read_text()
    assert (
        ">0.75 <small>± 0.15</small></span>" in section
        and "95 % interval 0.600 to 0.900" in section
        and "not a reproduction" in section
    )
    assert "executed/demo/nsclc/04_multimodal_ablations.html" in section
    assert not (html / "book/executed/demo/brca").exists()


def test_opened_from_disk_it_asks_nothing_of_the_network(html):
    for page in [*html.glob("*.html"), *(html / "book").rglob("*.html")]:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"([^\"]+)\"", text)
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page
        for address in loaded:
            if not address.startswith(("data:", "#")) and not page.name.startswith(("search", "genindex")):
                assert (page.parent / address.split("?")[0].split("#")[0]).exists(), (page.name, address)
    mathjax = html / "_static/mathjax"
    assert (mathjax / "tex-mml-chtml.js").is_file()
    assert list((mathjax / "output/chtml/fonts/woff-v2").glob("*.woff"))
    assert "_static/mathjax/tex-mml-chtml.js" in (html / "book/intro.html").read_text()


def test_the_api_reference_is_reached_from_the_navigation_and_says_what_the_docstrings_say(html):
    assert 'href="api.html"' in (html / "book/intro.html").read_text()
    index = (html / "book/api.html").read_text()
    for wing in (path.parent for path in Path(mmmil.__file__).parent.glob("*/__init__.py")):
        assert f'href="api/{wing.name}.html"' in index, wing
    page = (html / "book/api/models.html").read_text()
    entry = html_text(page[page.index('id="mmmil.models.fusion.MultimodalMIL"') :])
    signature, _, rest = entry.partition(MultimodalMIL.__doc__.split("\n")[0])
    assert "class MultimodalMIL( fusion: str" in signature and "landmarks: int" in signature, signature[:500]
    assert rest.startswith(" fusion: image (summary of the tiles)")
    assert "mmmil.models.fusion.F" not in page and "torch.nn.functional" not in page  # nothing that is only imported


def html_text(source: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", source)))


def test_references_are_resolved(html):
    assert "TransMIL" in (html / "book/references.html").read_text()
