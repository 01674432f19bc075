"""Settings as a page shows them: those that differ from their default, and the others, folded."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmmil.tables import frames

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Shown:
    """Settings as a page shows them: `changed` and `at_default`, each folded behind a line that counts them.

    Both are frames with index parameter and columns value, default, meaning.
    """

    changed: pd.DataFrame
    at_default: pd.DataFrame

    def __repr__(self) -> str:
        lines = [f"{name}: {_text(value)}" for name, value in self.changed["value"].items()]
        return "\n".join([*lines, self.rest])

    def _repr_html_(self) -> str:
        parts = ["<p>No setting differs from its default.</p>"]
        if len(self.changed):
            parts = [_folded(f"{self.differing}: {', '.join(self.changed.index)}", self.changed)]
        if len(self.at_default):
            parts += [_folded(self.rest, self.at_default.drop(columns="default"))]
        return "".join(parts)

    @property
    def differing(self) -> str:
        n = len(self.changed)
        return f"{n} setting{'s' * (n != 1)} not at {'their' if n != 1 else 'its'} default"

    @property
    def rest(self) -> str:
        n = len(self.at_default)
        if self.changed.empty:
            return f"all {n} settings are at their default"
        return f"{n} setting{'s' * (n != 1)} at {'their' if n != 1 else 'its'} default"


def _folded(summary: str, table: pd.DataFrame) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>{_html(table)}</details>"


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(_text, value))
    return "none" if value in ("", None) else str(value)


def _html(table: pd.DataFrame) -> str:
    """A table of settings: every text whole."""
    return frames.table(table.map(_text), kind="settings unsorted")
