"""What in the expression tells the classes apart and is none of the tumours: depth, and how the values were scaled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from mmmil.genes import expression, profiles
from mmmil.genes.expression import Expression
from mmmil.params import Params
from mmmil.sources.expression_values import MANY_PATIENTS
from mmmil.sources.findings import Finding

DEPTH, LOWEST = "depth by class", "lowest values by class"
# Depth tells the classes apart where one class has twice the reads, or where a patient of one is nearly always deeper
# than one of the other: 0.8 of all pairs, by more than chance. DESeq2 and levels per million allow for depth, but not
# for the genes that only deep libraries detect; and classes that were sequenced apart differ in more than depth.
CLASS_RATIO, CLASS_AUC, CLASS_P = 2.0, 0.8, 0.01
# A gene's lowest value that so many patients of a class share is that of its absence: one number in values that were
# scaled together, two where each class was scaled by itself.
SHARED, MANY_GENES = 0.1, 0.01  # share of a class's patients, and of all genes


def find(patients: pd.DataFrame, p: Params) -> list[Finding]:
    """The same of a cohort's patients (as `Cohort.patients`), whose expression is found again where it was read."""
    return list(of(expression.load(patients, p), patients["label"], p.class_names))


def of(data: Expression, labels: pd.Series, class_names: Sequence[str]) -> Iterator[Finding]:
    """Findings on the values of the two classes; labels: patient -> 0 or 1. None for a cohort without both."""
    classes = labels.loc[data.patients].to_numpy()
    if set(classes) == {0, 1}:
        if "reads" in data.libraries:
            yield from _depth(data.libraries["reads"].to_numpy(), classes, class_names)
        yield from _lowest(data.level, classes, class_names)


def tells_apart(auc: float, p: float) -> bool:
    """Whether a single number of a patient tells the classes apart, by the AUC of `profiles.class_gap` and its p."""
    return max(auc, 1 - auc) >= CLASS_AUC and p < CLASS_P


def _depth(reads: np.ndarray, classes: np.ndarray, class_names: Sequence[str]) -> Iterator[Finding]:
    ratio, auc, p = profiles.class_gap(reads, classes.tolist())
    if max(ratio, 1 / max(ratio, 1e-9)) >= CLASS_RATIO or tells_apart(auc, p):
        zero, one = class_names
        medians = [np.median(reads[classes == label]) for label in (0, 1)]
        yield Finding(
            DEPTH,
            f"{one} has {ratio:.2g} times the reads of {zero} (medians {medians[1]:,.0f} and {medians[0]:,.0f}); depth "
            f"alone tells the classes apart with AUC {auc:.2f}",
            "compare classes that were sequenced and counted alike, or say so beside every result",
        )


def _lowest(level: np.ndarray, classes: np.ndarray, class_names: Sequence[str]) -> Iterator[Finding]:
    of_class = [level[classes == label] for label in (0, 1)]
    if min(map(len, of_class)) < MANY_PATIENTS:
        return
    lowest = [values.min(axis=0) for values in of_class]
    shared = [(values == low).mean(axis=0) >= SHARED for values, low in zip(of_class, lowest, strict=True)]
    differ = shared[0] & shared[1] & ~np.isclose(lowest[0], lowest[1], rtol=1e-4, atol=1e-6)
    if (n := int(differ.sum())) > MANY_GENES * len(differ):
        zero, one = class_names
        yield Finding(
            LOWEST,
            f"of {n:,} of {len(differ):,} genes the lowest value is shared by at least {SHARED:.0%} of either class, "
            f"and is one number in {zero} and another in {one}, as of values that were scaled class by class: these "
            "numbers alone tell the classes apart",
            "scale all patients together, or say so beside every result",
        )
