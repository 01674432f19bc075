"""Pages that stand alone: one HTML file with its figures in it, offline, printed on A4."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmmil.apply import card

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
@page { size: A4; margin: 11mm 13mm; }
* { box-sizing: border-box; }
body { font: 10pt/1.36 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; color: #1c1c1c;
  margin: 0 auto; padding: 14px 18px; max-width: 190mm; }
.banner { background: #fff3cd; border: 1px solid #d9b648; border-radius: 4px; padding: 4px 10px; font-size: 9pt; }
h1 { font-size: 15pt; margin: 8px 0 0; overflow-wrap: anywhere; }
h2 { font-size: 10.5pt; margin: 10px 0 2px; border-bottom: 1px solid #d5d5d5; padding-bottom: 1px; break-after: avoid; }
p { margin: 3px 0; }
ul { margin: 2px 0; padding-left: 18px; }
.sub, .foot { color: #5c5c5c; font-size: 8.5pt; }
.foot { border-top: 1px solid #d5d5d5; margin-top: 10px; padding-top: 4px; overflow-wrap: anywhere; }
.answer { display: flex; gap: 16px; align-items: center; }
.number { font-size: 27pt; font-weight: 600; line-height: 1.05; white-space: nowrap; }
.answer > div:last-child { flex: 1; }
figure { margin: 2px 0; break-inside: avoid; }
img { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-size: 9pt; margin: 4px 0; }
th, td { text-align: left; padding: 2px 10px 2px 0; border-bottom: 1px solid #e6e6e6; vertical-align: top; }
@media print { body { padding: 0; max-width: none; } .banner { print-color-adjust: exact; } }
"""


def escaped(text: Any) -> str:
    return html.escape(str(text))


def figure(drawn: Figure, words: str, kind: str = "svg", width: str = "100%") -> str:
    """A figure in the page itself; words: what it shows, for who cannot see it."""
    buffer = io.BytesIO()
    options = {"dpi": 170} if kind == "png" else {"metadata": {"Date": None}}
    drawn.savefig(buffer, format=kind, bbox_inches="tight", **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    mime = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f'<figure><img style="width: {width}" alt="{escaped(words)}" src="data:{mime};base64,{data}"></figure>'


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = "".join(f"<th>{escaped(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def listed(lines: Sequence[str], none: str) -> str:
    if not lines:
        return f"<p>{escaped(none)}</p>"
    return "<ul>" + "".join(f"<li>{escaped(line)}</li>" for line in lines) + "</ul>"


def page(title: str, about: dict[str, Any], parts: Sequence[str], foot: str) -> str:
    """A whole page; about: of the kept model, which says what stands in the banner; parts: HTML; foot: text."""
    warning = f"<strong>{card.SYNTHETIC}</strong> " if about["synthetic"] else ""
    warning += "<strong>Its selection leaks: no score of it is a result.</strong> " if about["leaks"] else ""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escaped(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style></head><body>\n'
        f'<div class="banner">{warning}{card.NOT_CLINICAL}</div>\n{body}\n'
        f'<p class="foot">{escaped(foot)}</p>\n</body></html>\n'
    )
