"""Every page of the built book, in a window of a desk and of a phone, from the disk and without a network."""

import os

import pytest

from tests.browser import book, chromium, report
from tests.browser.visit import SIZES, visit

pytestmark = chromium.marks()
PAGES = [] if book.missing() else book.pages()
PICTURES = "MMMIL_PICTURES"  # "all": pictures of all pages are kept, not only of those with faults


def of_pages(values):
    return values or [pytest.param("", id="none")]  # which the mark skips, with its reason


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("page", of_pages(PAGES))
def test_a_page_is_whole_readable_and_asks_nothing_of_the_network(browser, seen, page, size):
    picture = report.FOLDER / "pictures" / size / f"{page.removesuffix('.html').replace('/', '-')}.png"
    looked = visit(browser, book.folder(), page, size, picture, keep=os.environ.get(PICTURES) == "all")
    seen[0].append(looked)
    faults = [f"{kind}: {text}" for kind, text in looked.found]
    assert not faults, f"{page}, {size}: {len(faults)} faults\n" + "\n".join(faults)


@pytest.mark.parametrize("page", of_pages(PAGES))
def test_every_link_leads_somewhere(seen, page):
    broken = seen[1][page] = book.broken_links(book.folder(), page)
    assert not broken, "\n".join(broken)
