"""Debian's Chromium for the tests, driven by Playwright, with no way to the network."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser import book

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROGRAM = "MMMIL_CHROMIUM"  # the program, if it is neither `chromium` nor `google-chrome`
# Nothing is resolved, whoever asks; and the program's own services stay quiet.
OPTIONS = ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-quic", "--disable-background-networking"]
OPTIONS += ["--disable-component-update", "--disable-sync", "--no-first-run"]


def program() -> str | None:
    names = [os.environ.get(PROGRAM), "chromium", "chromium-browser", "google-chrome"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def marks(needs_book: bool = True) -> list[pytest.MarkDecorator]:
    """Of a file of tests that need it."""
    lacking = "" if program() else f"not installed: chromium (Debian's package, or name one with {PROGRAM})"
    lacking = lacking or (book.missing() if needs_book else "")
    return [pytest.mark.browser, pytest.mark.skipif(bool(lacking), reason=lacking)]


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # half a second, which a skipped test should not cost

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()
