"""One browser for all pages, and the report that is written when the last page has been seen."""

import shutil

import pytest

from tests.browser import chromium, report
from tests.browser.parts import page_with
from tests.browser.visit import SIZES


@pytest.fixture(scope="session")
def browser():
    with chromium.started() as started:
        yield started


@pytest.fixture
def opened(browser, tmp_path):
    """Open a page with a part in it, in a window of a size; closed at the end."""
    contexts = []

    def of(part, size="phone", **options):
        contexts.append(browser.new_context(**SIZES[size], offline=True, **options))
        page = contexts[-1].new_page()
        page.goto(page_with(part, tmp_path).as_uri())
        return page

    yield of
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def seen():
    """Visits, and page -> broken links: filled by the tests of pages, written as the report at the end."""
    shutil.rmtree(report.FOLDER / "pictures", ignore_errors=True)
    visits, links = [], {}
    yield visits, links
    if visits:
        print(f"\nThe report: {report.write(visits, links)}")
