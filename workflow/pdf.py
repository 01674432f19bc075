"""The book as one PDF: `make pdf` builds it as a single page, which Debian's Chromium prints.

python workflow/pdf.py _build/singlehtml/book/intro.html _build/book.pdf
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

MARGIN = {"top": "15mm", "bottom": "15mm", "left": "15mm", "right": "15mm"}
NUMBER = "<p style='font-size: 8px; width: 100%; text-align: center'><span class='pageNumber'></span></p>"
# Formulas, letters and pictures are there.
READY = """async () => {
    if (window.MathJax?.startup) await MathJax.startup.promise;
    await document.fonts.ready;
    await Promise.all([...document.images].map((image) => image.complete || new Promise((done) => {
        image.onload = image.onerror = done; image.loading = "eager"; })));
}"""


def print_page(page: Path, pdf: Path) -> None:
    """page: an HTML file, pdf: where its print goes (A4, with page numbers and an outline of its headings)."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("a PDF needs Chromium (Debian's package chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        opened = browser.new_page()
        opened.set_default_timeout(0)  # hundreds of pages
        opened.goto(page.resolve().as_uri())
        opened.evaluate(READY)
        style = {"format": "A4", "margin": MARGIN, "print_background": True, "outline": True, "tagged": True}
        opened.pdf(path=pdf, display_header_footer=True, header_template="<p></p>", footer_template=NUMBER, **style)
        browser.close()


if __name__ == "__main__":
    print_page(Path(sys.argv[1]), Path(sys.argv[2]))
