"""Settings as a page shows them: those that differ from their default, and the others folded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Shown:
    """Settings as a page shows them: `changed` in a table, `at_default` folded behind a line that counts them.

    Both are frames with index parameter and columns value, default, meaning.
    """

    changed: pd.DataFrame
    at_default: pd.DataFrame

    def __repr__(self) -> str:
        lines = [f"{name}: {_text(value)}" for name, value in self.changed["value"].items()]
        return "\n".join([*lines, self.rest])

    def _repr_html_(self) -> str:
        if self.at_default.empty:
            return _html(self.changed, "changed")
        first = "<p>No setting differs from its default.</p>" if self.changed.empty else _html(self.changed, "changed")
        folded = _html(self.at_default.drop(columns="default"), "at_default")
        return f"{first}<details><summary>{self.rest}</summary>{folded}</details>"

    @property
    def rest(self) -> str:
        n = len(self.at_default)
        if self.changed.empty:
            return f"all {n} settings are at their default"
        return f"{n} setting{'s' * (n != 1)} at {'their' if n != 1 else 'its'} default"


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(_text, value))
    return "none" if value in ("", None) else str(value)


def _html(table: pd.DataFrame, name: str) -> str:
    """A table of settings: every text whole and wrapped, left-aligned wherever the page is opened."""
    look = "text-align: left; vertical-align: top; white-space: normal; padding: 0 1em 0.3em 0"
    cells = {"selector": "th, td", "props": look}
    style = table.reset_index().style.hide(axis="index").format(_text, escape="html").set_table_styles([cells])
    return style.to_html(table_uuid=f"settings_{name}")
