"""From predictions to the cells of the paper's tables: means over folds with their intervals.

`summarise` makes the frame behind every table (columns SUMMARY), `read` finds it again as the record has it. Notebooks,
section pages, figures and the ledger take their numbers from it by `cell`, and print them by `estimate`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from mmmil import variants
from mmmil.evaluation import best, intervals
from mmmil.evaluation.metrics import CONFIDENCE, METRICS, mean_interval, per_fold
from mmmil.params import Params
from mmmil.results import read_results
from mmmil.tables.cells import Html
from mmmil.tables.estimates import Estimate, estimate
from mmmil.tables.frames import NOTE

SUMMARY = ["table", "variant", "metric", "split", "mean", "ci_low", "ci_high", "n_folds"]

# Stands in a notebook's cells of a model of which a training failed; the status page shows the logs.
FAILED = Html('<a href="../../status.html#failed-trainings">failed</a>')


class Cell(NamedTuple):
    """A number of the paper's tables with its interval (NaN: none), and over how many folds it is the mean.

    failed: a training of the variant failed, so there is no mean.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n_folds: int = 0
    failed: bool = False

    def text(self, failed: str = FAILED) -> str:
        """As it is printed; failed: the link that stands there where a training failed."""
        return failed if self.failed else self.estimate()

    def estimate(self, mark: str = "") -> Estimate:
        """The number with its interval; mark: see `Estimate`."""
        return Estimate(self.value, self.low, self.high, mark=mark)


def cell(summary: pd.DataFrame, variant: str, metric: str, split: str = "val") -> Cell:
    """One cell of any table; without a value, and not failed, where the summary does not speak of this variant."""
    same = (summary["variant"] == variant) & (summary["metric"] == metric) & (summary["split"] == split)
    if not same.any():
        return Cell()
    row = summary[same].iloc[0]  # a variant of several tables has the same numbers in all of them
    return Cell(row["mean"], row["ci_low"], row["ci_high"], int(row["n_folds"]), bool(math.isnan(row["mean"])))


def read(p: Params) -> pd.DataFrame | None:
    """The summary that a run's record holds (metrics.csv), or None. Raises ResultsError as `results.read_results`."""
    return read_results(p, "metrics", SUMMARY)


def summarise(predictions: pd.DataFrame, p: Params, names: Iterable[str]) -> pd.DataFrame:
    """One row per table, variant, metric and split with mean, interval and number of folds; columns SUMMARY.

    Validation: mean over folds. Test: the final model's value. With several model seeds, folds and final model have the
    mean over these. Both with the intervals of `intervals.of_model`. Where a training failed there is no mean: over
    fewer folds it would be another quantity than in the other rows. names: the variants that were to be trained; those
    without any prediction failed, too, and have their rows.
    """
    folds = per_fold(predictions, p.threshold)
    predicted = set(folds.droplevel(["seed", "fold"]).index)
    lacking = [key for key in itertools.product(names, ("val", "test")) if key not in predicted]
    seeds, rows = predictions["seed"].nunique(), []
    shared = 1 / (p.n_folds - 1) if p.repeats > 1 else 0.0
    for (name, split), values in folds.groupby(level=["variant", "split"], sort=False):
        known = pd.DataFrame(np.nan, index=METRICS, columns=["mean", "low", "high"])
        if len(values) >= seeds * (p.repeats * p.n_folds if split == "val" else 1):
            patients = predictions[(predictions["variant"] == name) & (predictions["split"] == split)]
            wide = patients.pivot(index=["fold", "patient_id", "label"], columns="seed", values="prob")
            fold, _, label = (wide.index.get_level_values(level).to_numpy() for level in wide.index.names)
            repeats = p.repeats if split == "val" else 1
            known = intervals.of_model(label, wide.to_numpy().T, fold, p.threshold, CONFIDENCE, repeats, shared)
        numbers, number = (
            variants.variant(name).tables or ("baseline",),
            values.index.get_level_values("fold").nunique(),
        )
        for metric in METRICS:
            mean, low, high = known.loc[metric, ["mean", "low", "high"]]
            for table in numbers:
                if table != "2":  # Table 2 counts parameters
                    rows.append((shown_table(table, split), name, metric, split, mean, low, high, number))
    for name, split in lacking:
        tables = [t for t in variants.variant(name).tables or ("baseline",) if t != "2"]
        rows += [(shown_table(t, split), name, m, split, np.nan, np.nan, np.nan, 0) for t in tables for m in METRICS]
    return pd.DataFrame(rows, columns=SUMMARY)


def shown_table(table: str, split: str) -> str:
    """The paper's number of a table: S1 to S9 repeat 3 to 11 on the held-out test set."""
    return f"S{int(table) - 2}" if split == "test" and table.isdigit() else table


def table(
    summary: pd.DataFrame,
    names: list[str],
    split: str = "val",
    predictions: pd.DataFrame | None = None,
    p: Params | None = None,
) -> pd.DataFrame:
    """A table as the paper prints it: one row per variant, one column per metric, each a `cell`.

    The best of a column is marked, and what is not told from it (`best.marks`): by paired tests where the predictions
    and parameters are given that the summary was made of, else by the intervals. The frame's attrs say which.
    """
    tested = (
        None
        if predictions is None or p is None
        else best.arranged(predictions, p, split, complete(summary, names, split))
    )
    cells = {metric: marked(summary, names, metric, split, tested) for metric in METRICS}
    frame = pd.DataFrame(cells, pd.Index([variants.variant(name).shown_as for name in names], name="model"))
    if len(frame) > 1:
        frame.attrs[NOTE] = best.rule(tested)
    return frame


def complete(summary: pd.DataFrame, names: Iterable[str], split: str) -> list[str]:
    """Those of which no training failed."""
    return [name for name in names if not math.isnan(cell(summary, name, METRICS[0], split).value)]


def marked(
    summary: pd.DataFrame,
    names: Iterable[str],
    metric: str,
    split: str,
    tested: best.Repeated | None,
    failed: str = FAILED,
) -> list[str]:
    """A column of a table of models, each cell with its mark; tested: as `best.arranged` gives it."""
    column = {name: cell(summary, name, metric, split) for name in names}
    marks = best.marks({name: found.estimate() for name, found in column.items()}, metric, tested)
    return [failed if found.failed else found.estimate(marks[name]) for name, found in column.items()]


def balance(
    folds: pd.DataFrame, names: list[str], class_names: list[str], confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """How evenly each variant calls the two classes over the validation folds (the paper's discussion of Table 3).

    folds: of `per_fold`. Columns: means of sensitivity and specificity; difference, of these two means, and the class
    it favours; `|sensitivity - specificity|`, the mean of the folds' own absolute differences with its interval.
    """
    rows, trained = {}, set(folds.xs("val", level="split").index.get_level_values("variant"))
    for name in [name for name in names if name in trained]:  # the others failed
        values = folds.xs((name, "val"), level=("variant", "split"))
        sensitivity, specificity = values["sensitivity"].mean(), values["specificity"].mean()
        gap = mean_interval((values["sensitivity"] - values["specificity"]).abs(), confidence)
        favoured = "neither" if sensitivity == specificity else class_names[int(sensitivity > specificity)]
        rows[variants.variant(name).shown_as] = {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "difference": sensitivity - specificity,
            "favours": favoured,
            "|sensitivity - specificity|": estimate(*gap),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
