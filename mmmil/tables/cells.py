"""How a table of the book shows one value: a text, and behind it the full numbers for sorting and download."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import Any

from mmmil.tables.estimates import Estimate

MARKS = {"best": ("●", "best of the column"), "alike": ("○", "not told from the best")}
INTERVAL = re.compile(r"[+-]?\d[\d.,]* \[[+-]?\d[\d.]*, [+-]?\d[\d.]*\]")  # in a sentence: never broken over lines


class Html(str):
    """Markup that a table shows as it is; every other text is escaped."""


def number(text: str, *values: float, title: str = "", mark: str = "") -> str:
    """An inline element with the text of a number; values: the number, or it and the ends of its interval."""
    full = " ".join(format(value, ".15g") for value in values if not math.isnan(value))
    hover = f' title="{html.escape(title)}"' if title else ""
    shown = html.escape(text)
    if " ± " in shown:
        shown = shown.replace(" ± ", " <small>± ") + "</small>"
    shown = f'<span class="n" data-n="{full}"{hover}>{shown}</span>'
    if mark:
        symbol, meaning = MARKS[mark]
        shown += f' <span class="rank {mark}" role="img" aria-label="{meaning}" title="{meaning}">{symbol}</span>'
    return shown


def estimate(value: Estimate) -> str:
    """An estimate as one short line, its interval on hover."""
    if math.isnan(value.value):
        return "–"
    if not value.has_interval:
        return number(str(value), value.value, mark=value.mark)
    ends = f"95 % interval {value.low:.3f} to {value.high:.3f}"
    return number(value.short(), value.value, value.low, value.high, title=ends, mark=value.mark)


def sentence(text: str) -> str:
    """Text or markup in which no interval is broken over two lines."""
    return INTERVAL.sub(lambda match: f'<span class="i">{match[0]}</span>', text)


def floats(values: Sequence[float]) -> list[str]:
    """The texts of a column of numbers: whole where all are, else three digits behind the point, fewer of large ones.

    What would be 0 is written as 1.2e-05; NaN is a dash.
    """
    known = [value for value in values if not math.isnan(value) and not math.isinf(value)]
    if all(value == int(value) for value in known):
        return [whole(value) for value in values]
    largest = max(map(abs, known))
    digits = 3 if largest < 10 else 2 if largest < 100 else 1
    return [
        "–" if math.isnan(v) else f"{v:.1e}" if 0 < abs(v) < 0.5 * 10**-digits else f"{v:,.{digits}f}" for v in values
    ]


def whole(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return "–" if math.isnan(value) else str(value)
    return f"{int(value):,}" if abs(value) >= 10_000 else str(int(value))


def in_markdown(value: Any) -> str:
    """A cell of a MyST table: an estimate in short, any other value as the Markdown that it is."""
    if isinstance(value, Estimate):
        return estimate(value)
    return sentence(str(value).replace("|", "\\|"))
