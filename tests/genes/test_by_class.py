"""What in the expression tells the classes apart and is none of the tumours."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mmmil.genes import by_class

N = 60
PATIENTS = [f"P{i}" for i in range(N)]
LABELS = pd.Series([0, 1] * (N // 2), index=PATIENTS)


def data(level, **libraries):
    return SimpleNamespace(patients=PATIENTS, level=level, libraries=pd.DataFrame(libraries, index=PATIENTS))


def level(together: bool):
    """Levels (patients, 300 genes), a third of them 0 in many patients: scaled over all, or each class by itself."""
    draw = np.random.default_rng(0)
    values = draw.gamma(2.0, 1.0, (N, 300))
    values[:, :100] *= draw.random((N, 100)) > 0.4
    for rows in [slice(None)] if together else [LABELS.to_numpy() == label for label in (0, 1)]:
        values[rows] = (values[rows] - values[rows].mean(0)) / values[rows].std(0)
    return values


def test_values_that_were_scaled_class_by_class_give_it_away():
    (found,) = by_class.of(data(level(together=False)), LABELS, ["low", "high"])
    assert found.check == by_class.LOWEST and "of 100 of 300 genes the lowest value" in found.text and found.remedy
    assert not list(by_class.of(data(level(together=True)), LABELS, ["low", "high"]))


def test_a_difference_between_the_classes_is_no_artefact():
    values = level(together=True)
    values[LABELS.to_numpy() == 1, 100:] += 2  # genes that differ have no lowest value in common
    assert not list(by_class.of(data(values), LABELS, ["low", "high"]))


@pytest.mark.parametrize("labels", [LABELS * 0, LABELS * 0 - 1])
def test_a_cohort_without_both_classes_has_none(labels):
    assert not list(by_class.of(data(level(together=False), reads=np.arange(N)), labels, ["low", "high"]))


def test_depth_is_told_there_too():
    reads = np.where(LABELS == 1, 3_000_000, 1_000_000)
    (found,) = by_class.of(data(level(together=True), reads=reads), LABELS, ["low", "high"])
    assert found.check == by_class.DEPTH and "high has 3 times the reads of low" in found.text
