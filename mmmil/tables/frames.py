"""A DataFrame as the book shows it: one line a row where that is possible, readable without scripts and in print.

A number that two columns with its interval follow (names ending in `low` and `high`) is one cell, `0.77 ± 0.05`, with
the interval on hover. Every number keeps its full value behind the text, for book/_static/tables/tables.js, which sorts
the table and offers it as CSV.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmmil.tables import cells
from mmmil.tables.estimates import PLUS_MINUS, Estimate

if TYPE_CHECKING:
    import pandas as pd

NOTE = "note"  # in a frame's attrs: what its caption says beside the cohort
MOST_ROWS = 200
LONG = 28  # characters; longer texts may be broken over lines
CODE = re.compile("`([^`]+)`")  # in a text: names of settings and commands
SIGNED = re.compile(r"difference|over_|change|less|d_z|effect", re.IGNORECASE)  # names of what is a difference
NAMES = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "f1": "F1"}


def table(frame: pd.DataFrame, caption: str = "", kind: str = "") -> str:
    """HTML of a frame, whose index is shown where it says anything; caption: HTML; kind: a class for the style sheet.

    Of more than MOST_ROWS rows the first are shown, and the caption says so; of none, what they would have told.
    """
    import pandas as pd

    if frame.empty and len(frame.columns):
        names = ", ".join(map(str, [*(name for name in frame.index.names if name), *frame.columns]))
        attrs, frame = frame.attrs, pd.DataFrame({"no rows": [f"there are none of: {names}"]})
        frame.attrs = attrs
    key = [html.escape(frame.attrs.get(NOTE, ""), quote=False)]
    if len(frame) > MOST_ROWS:
        key.append(f"the first {MOST_ROWS} of {len(frame):,} rows")
    frame = frame.head(MOST_ROWS)
    labels = 0 if isinstance(frame.index, pd.RangeIndex) and frame.index.name is None else frame.index.nlevels
    heads = [str(name or "") for name in frame.index.names][:labels]
    columns = [_plain(frame.index.get_level_values(level)) for level in range(labels)]
    short = False
    for name, values in folded(frame):
        heads.append(NAMES.get(name, name))
        columns.append(_column(values))
        short |= any(isinstance(value, Estimate) and value.has_interval for value in values)
    key += [PLUS_MINUS] if short else []
    rows = [_row(row, max(labels, 1)) for row in zip(*columns, strict=True)]
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    how = "; ".join(part for part in key if part)
    text = f'{caption}{". " * bool(caption)}<span class="key">{how}</span>' if how else caption
    described = f"\n<caption>{text}</caption>" if text else ""
    return (
        f'<div class="table-box"><table class="{" ".join(["dataframe book-table", *kind.split()])}">{described}\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def folded(frame: pd.DataFrame) -> list[tuple[str, list[Any]]]:
    """(name, values) of every column; a number and the two ends of its interval are one column of estimates."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    names = [", ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns]
    numeric = [is_numeric_dtype(frame.iloc[:, i]) and not is_bool_dtype(frame.iloc[:, i]) for i in range(len(names))]
    columns: list[tuple[str, list[Any]]] = []
    i = 0
    while i < len(names):
        ends = names[i + 1 : i + 3]
        if len(ends) == 2 and all(numeric[i : i + 3]) and ends[0].endswith("low") and ends[1].endswith("high"):
            signed = bool(SIGNED.search(names[i]))
            triples = frame.iloc[:, i : i + 3].astype(float).to_numpy()
            columns.append((names[i], [Estimate(value, low, high, signed) for value, low, high in triples]))
            i += 3
        else:
            columns.append((names[i], list(frame.iloc[:, i])))
            i += 1
    return columns


def _column(values: Sequence[Any]) -> list[tuple[str, str]]:
    """(class, HTML) of the cells of a column."""
    import numpy as np
    import pandas as pd

    numbers = [isinstance(v, int | float | np.integer | np.floating) and not isinstance(v, bool) for v in values]
    if values and all(n or v is None or v is pd.NA for n, v in zip(numbers, values, strict=True)):
        full = [math.nan if v is None or v is pd.NA else float(v) for v in values]
        return [
            ("", text if math.isnan(v) else cells.number(text, v))
            for text, v in zip(cells.floats(full), full, strict=True)
        ]
    return [cell for value in values for cell in _plain([value])]


def _plain(values: Sequence[Any]) -> list[tuple[str, str]]:
    return [_cell(value) for value in values]


def _cell(value: Any) -> tuple[str, str]:
    if isinstance(value, Estimate):
        return "", cells.estimate(value)
    if isinstance(value, cells.Html):
        return "", value
    if value is None or value != value:  # NaN, whatever its type
        return "", "–"
    if isinstance(value, float):
        return "", cells.number(cells.floats([value])[0], value)
    text = str(value)
    return "long" if len(text) > LONG else "", CODE.sub(r"<code>\1</code>", cells.sentence(html.escape(text)))


def _row(row: Sequence[tuple[str, str]], labels: int) -> str:
    parts = []
    for i, (kind, text) in enumerate(row):
        tag, scope = ("th", ' scope="row"') if i < labels else ("td", "")
        kind = f' class="{kind}"' if kind else ""
        parts.append(f"<{tag}{scope}{kind}>{text}</{tag}>")
    return f"<tr>{''.join(parts)}</tr>"
