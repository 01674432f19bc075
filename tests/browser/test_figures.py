"""Figures on a narrow screen: whole at first, and with letters that can be read where they are asked for."""

import base64

import pytest
from matplotlib import pyplot as plt

from tests.browser import chromium
from tests.browser.parts import page_with
from tests.browser.visit import visit

pytestmark = chromium.marks(needs_book=False)
WIDTHS = "[...document.images].map((image) => Math.round(image.getBoundingClientRect().width))"
SCROLLS = "document.documentElement.scrollWidth > innerWidth"


@pytest.fixture
def figures(tmp_path):
    """Two figures as a notebook shows them, one wider than a phone."""
    parts = []
    for inches in (11, 2):
        figure = plt.figure(figsize=(inches, 2), dpi=100)
        figure.savefig(path := tmp_path / f"{inches}.png")
        plt.close(figure)
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(f'<div class="cell_output"><img alt="{inches} inches" src="data:image/png;base64,{data}"></div>')
    return "<style>img { max-width: 100% }</style>" + "".join(parts)


@pytest.mark.parametrize("by", ["button", "img"])
def test_a_wide_figure_fits_and_is_enlarged_by_a_tap(opened, figures, by):
    page = opened(figures)
    fits, narrow = page.evaluate(WIDTHS)
    assert fits < 390 and narrow == 200 and page.get_by_role("button").count() == 1
    page.locator(by).first.tap()
    assert page.evaluate(WIDTHS) == [760, 200] and not page.evaluate(SCROLLS)
    assert page.get_by_role("button", pressed=True).count() == 1
    assert page.evaluate("document.querySelector('.figure-box').tabIndex") == 0
    page.locator(by).first.tap()
    assert page.evaluate(WIDTHS) == [fits, narrow]


def test_a_wide_window_has_no_such_button(opened, figures):
    assert opened(figures, size="desktop").get_by_role("button").count() == 0


def test_the_page_is_without_faults(browser, figures, tmp_path):
    path = page_with(figures, tmp_path)
    for size in ("desktop", "phone"):
        assert not visit(browser, path.parent, path.name, size).found
