"""What a look at a study's data finds before anything is fitted.

The rule: what would make a number wrong, or another patient's, is an error and stops every road, the batch's and a
notebook's (an exception of the reader that meets it). What may be right but is unusual, or was left out, is a finding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import pandas as pd


@dataclass(frozen=True)
class Finding:
    """One thing worth a look. check: the rule's short name; text: what contradicts what, with its values; file: as
    named; place: line, column, gene or patient; remedy: what to do if it is not right.
    """

    check: str
    text: str
    remedy: str
    file: str = ""
    place: str = ""


def table(findings: Iterable[Finding]) -> pd.DataFrame:
    """One row per finding, columns check, file, place, text, remedy."""
    columns = ["check", "file", "place", "text", "remedy"]
    assert set(columns) == {field.name for field in fields(Finding)}
    return pd.DataFrame([asdict(finding) for finding in findings], columns=columns)
