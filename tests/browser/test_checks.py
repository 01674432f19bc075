"""The checks themselves: a page without faults has none, and each fault is found."""

import pytest

from tests.browser import book, chromium
from tests.browser.visit import visit

pytestmark = chromium.marks(needs_book=False)
DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
GOOD = f"""<!DOCTYPE html><html lang="en"><head><title>A page</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head><body><main><h1>Title</h1><h2>Part</h2>
<p>A price of 5 $, a value of 7 $ and a <a href="#here">link</a>.</p><p id="here">There.</p>
<div style="overflow-x: auto"><p style="width: 3000px">wide</p></div><img src="{DOT}" alt="a dot">%s
</main></body></html>"""
FAULTS = {
    "<div style='width: 3000px'>wide</div>": "overflow",
    "<div style='overflow: hidden'><table><tr><td style='min-width: 3000px'>wide</td></tr></table></div>": "cut off",
    "<table style='table-layout: fixed; width: 60px'><tr><td>averylongwordthatdoesnotfit</td></tr></table>": (
        "cell runs over"
    ),
    "<div style='overflow-x: auto'><table><tr><td style='min-width: 3000px'>wide</td></tr></table></div>": (
        "table scrolls sideways"
    ),
    "<pre style='overflow-x: auto'>" + "a long line of code " * 20 + "</pre>": "code scrolls sideways",
    "<p>The loss is $a^2 + b^2$ here.</p>": "mathematics",
    r"<p>The loss is \(a^2\) here.</p>": "mathematics",
    r"<p class='math'>\(a^2\)</p>": "mathematics",
    "<img src='absent.png' alt='something'>": "image",
    f"<img src='{DOT}'>": "alternative text",
    f"<img src='{DOT}' alt='../_images/abc.png'>": "alternative text",
    "<p>Traceback (most recent call last)</p>": "debris",
    "<p>40%|████      | 2/5</p>": "debris",
    "<h4>Deep</h4>": "headings",
    "<h1>Another</h1>": "headings",
    "<p style='color: #bbb'>pale words</p>": "axe: color-contrast",
    "<button></button>": "axe: button-name",
    "<script>console.warn('careful')</script>": "console",
    "<script>absent.call()</script>": "console",
    "<script src='absent.js'></script>": "request",
    "<script src='https://example.org/a.js'></script>": "network",
    "<script>fetch('http://127.0.0.1:9/').catch(() => {})</script>": "network",
    "<details><summary>more</summary><h4>Deep</h4></details>": "headings",
}


@pytest.fixture
def kinds(browser, tmp_path):
    def of(part: str, size: str = "desktop") -> set[str]:
        (tmp_path / "page.html").write_text(GOOD % part)
        return {kind for kind, _ in visit(browser, tmp_path, "page.html", size).found}

    return of


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_a_good_page_has_no_fault(kinds, size):
    assert kinds("", size) == set()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(kinds, fault):
    assert FAULTS[fault] in kinds(fault)


def test_a_phone_is_narrower(kinds):
    wide = "<div style='width: 600px'>wide</div>"
    assert "overflow" in kinds(wide, "phone") and "overflow" not in kinds(wide)


def test_a_visit_measures(browser, tmp_path):
    (tmp_path / "page.html").write_text(GOOD % "<link rel='stylesheet' href='a.css'>")
    (tmp_path / "a.css").write_text("p { margin: 0 }")
    looked = visit(browser, tmp_path, "page.html", "desktop", tmp_path / "pictures" / "page.png", keep=True)
    assert looked.first_paint_ms > 0 and looked.html_bytes == (tmp_path / "page.html").stat().st_size
    assert looked.loaded_bytes == looked.html_bytes + (tmp_path / "a.css").stat().st_size
    assert (tmp_path / "pictures" / "page.png").read_bytes()[1:4] == b"PNG"


def test_what_a_sheet_of_paper_cuts_off_is_found(kinds):
    bar = "<nav class='bd-sidebar-primary'>parts</nav>"
    assert "paper: only for a screen" in kinds(bar)
    assert kinds(f"<style>@media print {{ nav {{ display: none }} }}</style>{bar}") == set()
    assert "paper: cut off" in kinds("<table><tr><td style='min-width: 900px'>wide</td></tr></table>")


def test_broken_links_are_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "other.html").write_text("<p id='there'>x</p>")
    links = ["../other.html#there", "../other.html#nowhere", "absent.html", "#own", "#lost", "../../out.html"]
    links += ["https://example.org/", "file:///etc/hosts"]
    text = "<p id='own'>x</p>" + "".join(f"<a href='{link}'>x</a>" for link in links)
    (tmp_path / "sub" / "page.html").write_text(text)
    broken = [line.partition(": ")[0] for line in book.broken_links(tmp_path, "sub/page.html")]
    assert broken == ["#lost", "../../out.html", "../other.html#nowhere", "absent.html", "file:///etc/hosts"]
