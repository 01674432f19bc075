"""Which model of a table is the best of a column, and which cannot be told from it on these patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.evaluation.multiple import holm
from mmmil.evaluation.repeated import Repeated
from mmmil.params import Params
from mmmil.tables.estimates import Estimate

if TYPE_CHECKING:
    import pandas as pd

BY_TEST = (
    "● best of its column, ○ not told from it (paired test on the same patients, DeLong's for ROC-AUC, a bootstrap for "
    "the others; Holm, 5 %)"
)
BY_INTERVAL = "● best of its column, ○ its interval reaches the best one's"


def rule(models: Repeated | None) -> str:
    """What the marks mean, for a caption; models: as for `marks`."""
    return BY_INTERVAL if models is None else BY_TEST


def arranged(predictions: pd.DataFrame, p: Params, split: str, names: Sequence[str]) -> Repeated | None:
    """The predictions of these models on one split, for paired tests; None where there are none.

    predictions: columns runs.PREDICTIONS.
    """
    chosen = predictions[(predictions["split"] == split) & predictions["variant"].isin(names)]
    return None if chosen.empty else Repeated.arrange(chosen, p.n_folds, p.threshold, p.seed)


def marks(column: Mapping[str, Estimate], metric: str, models: Repeated | None = None) -> dict[str, str]:
    """Model -> 'best', 'alike' or '' in one column of a table; models: the same ones' predictions, for the tests.

    Alike is a model whose difference from the best has an adjusted p of 0.05 or more, or none; without predictions one
    whose interval overlaps that of the best. A lone model has no mark, nor has one without a value.
    """
    known = {name: cell for name, cell in column.items() if not math.isnan(cell.value)}
    found = dict.fromkeys(column, "")
    if len(known) < 2:
        return found
    first = max(known, key=lambda name: known[name].value)
    others = [name for name in known if name != first]
    if models is None:
        alike = [bool(known[name].high >= known[first].low) for name in others]
    else:
        tested = [
            models.difference(first, name, metric, CONFIDENCE).p if {first, name} <= models.prob.keys() else np.nan
            for name in others
        ]
        alike = [not adjusted < 1 - CONFIDENCE for adjusted in holm(np.array(tested))]
    found |= {name: "alike" for name, is_alike in zip(others, alike, strict=True) if is_alike}
    found |= {name: "best" for name in known if known[name].value == known[first].value}
    return found
