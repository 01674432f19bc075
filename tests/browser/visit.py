"""A page opened in a window of one size: what is wrong with it, what it loaded and how long it took to show."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZES = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    # In the dark theme, so that its contrasts are looked at, too.
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"},
}
PAPER = {"width": 680, "height": 1009}  # A4 less its margins, in px of 1/96 inch
# What axe-core is asked. In the narrow window only what differs there: minutes less for a whole book.
RULES = {"desktop": None, "phone": ["color-contrast"]}
SEVERE = ("serious", "critical")
# Rules of axe-core that are off, each with its reason.
OFF: dict[str, str] = {}
# What unfolds or fades in would be measured half-way on a busy machine.
STILL = "*, *::before, *::after { animation: none !important; transition: none !important; }"
READY = """async () => {
    if (document.querySelector(".math") && window.MathJax?.startup) await MathJax.startup.promise;
    await document.fonts.ready;
    await Promise.all([...document.images].map((image) => image.complete || new Promise((done) => {
        image.onload = image.onerror = done; image.loading = "eager"; })));
}"""


@dataclass
class Visit:
    """What one look at one page found: `found` has kind and description of each fault."""

    page: str
    size: str
    found: list[tuple[str, str]] = field(default_factory=list)
    first_paint_ms: int | None = None
    html_bytes: int = 0
    loaded_bytes: int = 0  # the page and all that it loads, as it lies on the disk


@functools.cache
def _axe() -> str:
    return (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text()


@functools.cache
def _measure() -> str:
    return (Path(__file__).parent / "measure.js").read_text()


def visit(browser: Browser, root: Path, name: str, size: str, picture: Path | None = None, keep: bool = False) -> Visit:
    """Open the page `name` of the book in `root` from the disk.

    picture: where a screenshot goes if there are faults; keep: even if there are none.
    """
    seen, loaded = Visit(name, size), set()
    context = browser.new_context(**SIZES[size], offline=True, reduced_motion="reduce")
    context.set_default_timeout(300_000)  # a busy machine is only slower
    page = context.new_page()

    def asked(request: Any) -> None:
        scheme = urlsplit(request.url).scheme
        if scheme == "file":
            loaded.add(Path(unquote(urlsplit(request.url).path)))
        elif scheme not in ("data", "blob"):
            seen.found.append(("network", request.url))

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            seen.found.append(("console", f"{message.type}: {message.text}"[:300]))

    page.on("request", asked)
    page.on("requestfailed", lambda request: seen.found.append(("request", f"{request.url}: {request.failure}")))
    page.on("console", said)
    page.on("pageerror", lambda error: seen.found.append(("console", f"uncaught: {error}"[:300])))
    try:
        page.goto((root / name).as_uri(), wait_until="load")
        page.add_style_tag(content=STILL)
        page.evaluate(READY)
        measured = page.evaluate(_measure())
        seen.found += [(kind, text) for kind, text in measured["found"]]
        seen.first_paint_ms = measured["first_paint_ms"]
        seen.found += accessibility(page, RULES[size])
        if size == "desktop":
            seen.found += on_paper(page)
        if picture is not None and (keep or seen.found):
            picture.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=picture, full_page=True)
    finally:
        context.close()
    seen.html_bytes = (root / name).stat().st_size
    seen.loaded_bytes = sum(path.stat().st_size for path in loaded if path.is_file())
    return seen


def on_paper(page: Page) -> Iterator[tuple[str, str]]:
    """What would be cut off, or is only for a screen, on a sheet of A4 with margins of 15 mm."""
    before = page.viewport_size
    page.set_viewport_size(PAPER)
    page.emulate_media(media="print", color_scheme="light")
    for kind, text in page.evaluate(_measure())["found"]:
        if kind in ("overflow", "cut off", "cell runs over"):
            yield f"paper: {kind}", text
    for screen_only in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".bd-header-article", ".prev-next-footer"):
        if page.locator(screen_only).first.is_visible():
            yield "paper: only for a screen", screen_only
    page.emulate_media(media="screen")
    page.set_viewport_size(before)


def accessibility(page: Page, rules: list[str] | None) -> Iterator[tuple[str, str]]:
    """What axe-core calls serious or critical in the open page; rules: those to ask, None for all."""
    page.evaluate(_axe())
    # Style sheets are on the disk, where axe-core cannot read them; it needs none of them for its rules of one frame.
    # A page inside a page cannot be asked from the disk: the browser would warn of the try.
    options: dict[str, Any] = {"preload": False, "iframes": False, "resultTypes": ["violations"]}
    options["rules"] = {rule: {"enabled": False} for rule in OFF}
    if rules is not None:
        options["runOnly"] = rules
    for violation in page.evaluate("options => axe.run(document, options)", options)["violations"]:
        if violation["impact"] in SEVERE:
            for node in violation["nodes"]:
                why = " ".join(node["failureSummary"].split())
                yield f"axe: {violation['id']}", f"{' '.join(map(str, node['target']))}: {why}"[:400]
