"""The tables of a notebook carry their cohort in the caption, and those of scores what else tells its classes apart; so
do its figures, in a line beneath.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Sequence
from typing import Any

from mmmil.book import alternative_texts
from mmmil.results import COHORT
from mmmil.tables import frames

CONFOUNDED = "**Confounded**"
SCORES = re.compile(r"\b(roc|pr)[_-]auc\b|\bAUC\b", re.IGNORECASE)  # what tells a table of scores by its words


def carry(title: str, synthetic: bool, warnings: Sequence[str] = (), names: Sequence[str] = ()) -> None:
    """From here on this kernel shows every table with a caption; nothing is done outside a notebook.

    warnings: what else tells the classes apart, beside tables of scores; names: the same in a word each, for figures.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    import pandas as pd
    from pandas.io.formats.style import Styler  # loads matplotlib

    from mmmil.plots.style import of_cohort

    of_cohort(synthetic, names)
    alternative_texts.tell(shell.display_formatter.formatters["text/plain"])
    formatter = shell.display_formatter.formatters["text/html"]
    name = f"{title}, synthetic cohort" if synthetic else title
    for kind in (pd.DataFrame, Styler):
        formatter.for_type(kind, lambda table: captioned(table, name, warnings))


def captioned(table: Any, name: str, warnings: Sequence[str] = ()) -> str:
    """A DataFrame, or that of a Styler, as the book's table with its cohort's name as caption.

    warnings: put beside it in a table of scores.
    """
    frame = getattr(table, "data", table)
    if frame.attrs.get(COHORT) == "":  # of modules or settings, as `results.of_no_cohort`
        return frames.table(frame)
    text = frames.table(frame, html.escape(name))
    if not SCORES.search(text) or not warnings:
        return text
    told = "".join(f"<br><strong>{CONFOUNDED.strip('*')}</strong>: {html.escape(warning)}." for warning in warnings)
    return text.replace("</caption>", f"{told}</caption>", 1)
