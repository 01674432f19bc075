"""The flow of a study, as trials report it (CONSORT): what entered each step, what was left out and why, what was left.

The steps in their order, with the unit that each counts:
file        rows of the sample sheets: data types that are not used
slide       slide files: left is one diagnostic slide per patient
features    files of features in the place of slides: left are those of diagnostic slides, or of patients
expression  expression files, or columns of the matrices: left is one per patient
label       patients with either: left are those of a class; `table`, all rows of an own table, stands in its place
incomplete  patients without one of the modalities
tiles       patients with too few tiles
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

COLUMNS = ["step", "unit", "entered", "excluded", "left"]
EXCLUDED = ["patient_id", "reason", "step"]


@dataclass
class Tally:
    """Counts a cohort down, step by step; `tables` are what a Cohort holds."""

    steps: list[tuple] = field(default_factory=list)
    left_out: list[tuple] = field(default_factory=list)

    def step(self, name: str, unit: str, entered: int, left: int, excluded: Iterable[tuple[str, str]]) -> None:
        """One step; excluded: (patient, reason) of each unit left out. The three must add up."""
        excluded = list(excluded)
        if entered - len(excluded) != left:
            raise AssertionError(f"step {name}: {entered} {unit} - {len(excluded)} left out is not {left}")
        self.steps.append((name, unit, entered, len(excluded), left))
        self.left_out += [(patient, reason, name) for patient, reason in excluded]

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """excluded (columns EXCLUDED, one row per unit left out) and flow (columns COLUMNS, one row per step)."""
        return pd.DataFrame(self.left_out, columns=EXCLUDED), pd.DataFrame(self.steps, columns=COLUMNS)


def no_steps() -> pd.DataFrame:
    """The flow of a cohort of which none is known."""
    return Tally().tables()[1]


def with_step(
    tables: tuple[pd.DataFrame, pd.DataFrame], step: str, entered: int, reasons: pd.Series
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """excluded and flow with one step more, at which the patients in the index of `reasons` leave."""
    tally = Tally()
    tally.step(step, "patients", entered, entered - len(reasons), reasons.items())
    return tuple(_joined(table, more) for table, more in zip(tables, tally.tables(), strict=True))


def _joined(table: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([part for part in (table, more) if len(part)] or [more], ignore_index=True)


def reasons(excluded: pd.DataFrame, step: str) -> pd.Series:
    """How many units a step left out by reason, most first; without the step's name and a patient's own number.

    '3 valid tiles, fewer than n_tiles (64)' and '5 valid tiles, …' are 'fewer valid tiles than n_tiles (64)'.
    """
    shortened = excluded["reason"][excluded["step"] == step].map(lambda reason: _shortened(reason, step))
    counts = shortened.value_counts().rename("excluded")
    return counts.loc[sorted(counts.index, key=lambda reason: (-counts[reason], reason))]


def _shortened(reason: str, step: str) -> str:
    text = reason.removeprefix(f"{step}: ")
    text = re.sub(r"^\d+ valid tiles, fewer than ", "fewer valid tiles than ", text)
    return re.sub(r"^\d+ valid tiles, none at all$", "no valid tile", text)
