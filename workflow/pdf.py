"""The book as one PDF: `make pdf` builds it as a single page, which Debian's Chromium prints.

python workflow/pdf.py _build/singlehtml book/intro.html _build/book.pdf
"""

import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Request, sync_playwright

MARGIN = {"top": "15mm", "bottom": "15mm", "left": "15mm", "right": "15mm"}
NUMBER = "<p style='font-size: 8px; width: 100%; text-align: center'><span class='pageNumber'></span></p>"
# Formulas, letters and pictures are there.
READY = """async () => {
    if (window.MathJax?.startup) await MathJax.startup.promise;
    await document.fonts.ready;
    await Promise.all([...document.images].map((image) => image.complete || new Promise((done) => {
        image.onload = image.onerror = done; image.loading = "eager"; })));
}"""
FROM_ABOVE = re.compile(r'<(link|script)\b[^>]*="(\.\./)+[^>]*>(</script>)?')


def at_the_root(folder: Path, name: str) -> Path:
    """The page `name` of a folder once more at the folder's root: Sphinx writes it beneath, and names what it loads,
    and its own headings, from the root. The slide viewer is named from the pages, and paper has no use for it.
    """
    text = FROM_ABOVE.sub("", (folder / name).read_text()).replace(f'href="{name}#', 'href="#')
    page = folder / "whole.html"
    page.write_text(text)
    return page


def print_page(page: Path, pdf: Path) -> None:
    """page: an HTML file, pdf: where its print goes (A4, with page numbers and an outline of its headings).

    Ends with a file's name where one that the page names, a picture or its style, does not load.
    """
    pdf.unlink(missing_ok=True)  # that of an earlier book is not taken for this one's
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("a PDF needs Chromium (Debian's package chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        opened = browser.new_page()
        opened.set_default_timeout(0)  # hundreds of pages
        failed: list[Request] = []
        opened.on("requestfailed", lambda request: failed.append(request))
        opened.goto(page.resolve().as_uri())
        opened.evaluate(READY)
        if lacking := [request.url for request in failed if request.resource_type != "script"]:  # such as the search's
            sys.exit(f"{page}: {len(lacking)} of the files that it names do not load, {lacking[0]} among them")
        style = {"format": "A4", "margin": MARGIN, "print_background": True, "outline": True, "tagged": True}
        opened.pdf(path=pdf, display_header_footer=True, header_template="<p></p>", footer_template=NUMBER, **style)
        browser.close()


if __name__ == "__main__":
    folder, name, pdf = sys.argv[1:]
    print_page(at_the_root(Path(folder), name), Path(pdf))
