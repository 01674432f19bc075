"""From predictions to the cells of the paper's tables: means over folds with their intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mmmil import variants
from mmmil.evaluation.bootstrap import bootstrap_interval
from mmmil.evaluation.metrics import METRICS, mean_interval, per_fold
from mmmil.params import Params

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler  # loads matplotlib

SUMMARY = ["table", "variant", "metric", "split", "mean", "ci_low", "ci_high", "n_folds"]

# Stands in the cells of a model of which a training failed; the status page shows the logs.
FAILED = '<a href="../../status.html#failed-trainings">failed</a>'


def summarise(predictions: pd.DataFrame, p: Params, names: Iterable[str] = ()) -> pd.DataFrame:
    """metrics.csv: one row per table, variant, metric and split with mean, interval and number of folds.

    Validation: mean and t interval over folds. Test: the final model's one value and its bootstrap interval. Where a
    training failed there is no mean: over fewer folds it would be another quantity than in the other rows. names:
    variants that have a row in any case.
    """
    folds = per_fold(predictions, p.threshold)
    there = set(folds.droplevel(["seed", "fold"]).index)
    lacking = [key for key in itertools.product(names, ("val", "test")) if key not in there]
    seeds, rows = predictions["seed"].nunique(), []
    for (name, split), values in folds.groupby(level=["variant", "split"], sort=False):
        if len(values) < seeds * (p.n_folds if split == "val" else 1):
            values = values * np.nan
        own = predictions[(predictions["variant"] == name) & (predictions["split"] == split)]
        drawn = None
        if split == "test" and values.notna().all(axis=None):
            drawn = bootstrap_interval(own["label"].to_numpy(), own["prob"].to_numpy(), p.threshold, p.confidence)
        of_variant = variants.variant(name).tables or ("baseline",)
        for metric in METRICS:
            mean, low, high = mean_interval(values[metric], p.confidence)
            if drawn is not None:
                low, high = drawn.loc[metric, ["low", "high"]]
            for table in of_variant:
                shown = shown_table(table, split)
                if table != "2":  # Table 2 counts parameters
                    rows.append((shown, name, metric, split, mean, low, high, len(values)))
    for name, split in lacking:
        tables = [t for t in variants.variant(name).tables or ("baseline",) if t != "2"]
        rows += [(shown_table(t, split), name, m, split, np.nan, np.nan, np.nan, 0) for t in tables for m in METRICS]
    return pd.DataFrame(rows, columns=SUMMARY)


def shown_table(table: str, split: str) -> str:
    """The paper's number of a table: S1 to S9 repeat 3 to 11 on the held-out test set."""
    return f"S{int(table) - 2}" if split == "test" and table.isdigit() else table


def table(summary: pd.DataFrame, names: list[str], split: str = "val", digits: int = 3) -> Styler:
    """A table as the paper prints it: one row per variant, one column per metric, `mean [low, high]`.

    FAILED stands where a training of the variant failed, or where the summary lacks it for that reason.
    """
    shown = summary[(summary["split"] == split) & summary["mean"].notna()].drop_duplicates(["variant", "metric"])
    cells = shown.apply(
        lambda r: f"{r['mean']:.{digits}f} [{r['ci_low']:.{digits}f}, {r['ci_high']:.{digits}f}]", axis=1
    )
    grid = shown.assign(cell=cells).pivot(index="variant", columns="metric", values="cell")
    grid = grid.reindex(index=names, columns=METRICS).fillna(FAILED)
    return grid.rename(index=lambda n: variants.variant(n).shown_as).rename_axis(index=None, columns=None).style


def balance(folds: pd.DataFrame, names: list[str], class_names: list[str], confidence: float = 0.95) -> pd.DataFrame:
    """How evenly each variant calls the two classes over the validation folds (the paper's discussion of Table 3).

    folds: of `per_fold`. Columns: means of sensitivity and specificity; difference, of these two means, and the class
    it favours; `|sensitivity - specificity|`, the mean of the folds' own absolute differences with its interval.
    """
    rows, there = {}, set(folds.xs("val", level="split").index.get_level_values("variant"))
    for name in [name for name in names if name in there]:  # the others failed
        own = folds.xs((name, "val"), level=("variant", "split"))
        sensitivity, specificity = own["sensitivity"].mean(), own["specificity"].mean()
        gap, low, high = mean_interval((own["sensitivity"] - own["specificity"]).abs(), confidence)
        favoured = "neither" if sensitivity == specificity else class_names[int(sensitivity > specificity)]
        rows[variants.variant(name).shown_as] = {
            "sensitivity": round(sensitivity, 3),
            "specificity": round(specificity, 3),
            "difference": round(sensitivity - specificity, 3),
            "favours": favoured,
            "|sensitivity - specificity|": f"{gap:.3f} [{low:.3f}, {high:.3f}]",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def estimate(mean: float, low: float, high: float) -> str:
    """'0.812 [0.702, 0.922]', or the mean alone where there is no interval."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.3f}" if math.isnan(low) or math.isnan(high) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
