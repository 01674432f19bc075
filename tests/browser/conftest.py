"""One browser for all pages, and the report that is written when the last page has been seen."""

import shutil

import pytest

from tests.browser import chromium, report


@pytest.fixture(scope="session")
def browser():
    with chromium.started() as started:
        yield started


@pytest.fixture(scope="session")
def seen():
    """Visits, and page -> broken links: filled by the tests of pages, written as the report at the end."""
    shutil.rmtree(report.FOLDER / "pictures", ignore_errors=True)
    visits, links = [], {}
    yield visits, links
    if visits:
        print(f"\nThe report: {report.write(visits, links)}")
