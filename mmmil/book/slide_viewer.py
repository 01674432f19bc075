"""A slide to look into: its pyramid and what the models read of each tile, as book/_static/slide_viewer.js shows them.

The page holds everything but the pixels as one JSON text, and the pixels are plain images beside it: a book that is
opened from a disk has nobody to ask, and browsers refuse to fetch there.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmmil.book import page_files
from mmmil.book.pages import ASSETS
from mmmil.interpretation import heatmaps
from mmmil.plots.attention import shades
from mmmil.slides import deep_zoom
from mmmil.slides.files import SlideError

if TYPE_CHECKING:
    from mmmil.interpretation.heatmaps import Heatmap
    from mmmil.params import Params
    from mmmil.slides.places import Place
    from mmmil.study import Study

MEGABYTES = 4.0  # of a slide's images, at most
FOLDER = "deep_zoom"  # in results/<run>, where pyramids are kept
LIBRARY = "openseadragon/openseadragon-6.1.1.min.js"
STEPS = 64  # colours of a map


@dataclass(frozen=True)
class Viewers:
    """Slides to look into, in a notebook's output; `text` says what there is where nothing can show it."""

    text: str
    slides: list[str]

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        if not self.slides:
            return f"<p>{html.escape(self.text)}</p>"
        head = f'<link rel="stylesheet" href="{ASSETS}slide_viewer.css">'
        scripts = [f'<script defer src="{ASSETS}{name}"></script>' for name in (LIBRARY, "slide_viewer.js")]
        return "\n".join([head, *self.slides, *scripts])


def show(study: Study, patients: Sequence[Heatmap], megabytes: float = MEGABYTES) -> Viewers:
    """A viewer per patient with all maps; where there is no slide to look into, a sentence that says why.

    megabytes: of a slide's images, at most; with more, larger parts of the slide are there in their own pixels. A
    slide whose pixels cannot be read has a sentence in the place of its viewer.
    """
    p = study.p
    if why := heatmaps.why_none(study):
        return Viewers(f"There is no slide to look into: this task has {why}.", [])
    if not patients:
        return Viewers("There is no slide to look into: no model of slides was trained.", [])
    slides, said = [], []
    for shown in patients:
        name = f"{shown.patient}, {p.class_names[shown.label]}"
        try:
            where = heatmaps.place_of(study, shown.patient)
            first = np.argsort(-np.abs(next(iter(shown.maps.values()))), kind="stable")
            folder = deep_zoom.make(where, first.tolist(), megabytes, p.results / FOLDER)
        except SlideError as error:
            said.append(f"{name}: no slide to look into: {error}")
            slides.append(f"<p>{html.escape(said[-1])}</p>")
            continue
        pyramid = deep_zoom.read(folder)
        said.append(f"{name}: {pyramid.bytes / 1e6:.1f} MB")
        about = {"name": name, "files": page_files.mark(folder)} | _about(p, where, shown, pyramid)
        slides.append(_figure(name, about))
    return Viewers("Slides to look into, in the book: " + "; ".join(said), slides)


def _figure(name: str, about: dict[str, Any]) -> str:
    data = json.dumps(about, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return (
        f'<figure class="slide-viewer" aria-label="Slide of {html.escape(name, quote=True)}">\n'
        f"<figcaption><strong>{html.escape(name)}</strong></figcaption>\n"
        '<p class="slide-viewer-absent">To look into this slide, open this page of the built book in a browser with '
        "JavaScript. The figures above show the same maps.</p>\n"
        f'<script type="application/json">{data}</script>\n</figure>'
    )


def _about(p: Params, where: Place, shown: Heatmap, pyramid: deep_zoom.Pyramid) -> dict[str, Any]:
    """What the script reads. Lengths are level-0 px; tiles: [x, y] of their upper left corners."""
    n = len(where.coords)
    signs = heatmaps.signed(p, shown.maps)
    return {
        "width": pyramid.width,
        "height": pyramid.height,
        "shrink": pyramid.shrink,
        "tile": deep_zoom.TILE,
        "finest": pyramid.finest,
        "whole": pyramid.whole,
        "around": pyramid.around,
        "mpp": where.mpp,
        "detailed": pyramid.detailed,
        "side": where.size,
        "tiles": where.coords.tolist(),
        "maps": [_map(title, values * (1 if title in signs else n), signs) for title, values in shown.maps.items()],
    }


def _map(title: str, values: np.ndarray, signs: dict[str, str]) -> dict[str, Any]:
    """A map as it is drawn: colours from its least to its greatest, the step (N,) and the value (N,) of every tile."""
    shade, colours = shades(values, title in signs)
    palette = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (colours(np.linspace(0, 1, STEPS), bytes=True)[:, :3].tolist())]
    step = np.round((STEPS - 1) * np.ma.filled(shade(values), 0.0)).clip(0, STEPS - 1).astype(int)
    return {
        "title": title,
        "says": signs.get(title, "attention × number of tiles"),
        "palette": palette,
        "ends": [_number(float(shade.inverse(end))) for end in (0.0, 1.0)],
        "step": step.tolist(),
        "value": [_number(value) for value in values],
    }


def _number(value: float) -> float:
    return float(f"{value:.4g}")
