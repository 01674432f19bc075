"""Calibration: known lines are found, and a recalibration never sees the patients that it is judged on."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mmmil import params
from mmmil.evaluation import calibration


def drawn(n=4000, intercept=0.4, slope=0.5, seed=0):
    """Labels whose true log odds are a line over those that are predicted."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 2, n)
    true = 1 / (1 + np.exp(-(intercept + slope * logit)))
    return (rng.random(n) < true).astype(int), 1 / (1 + np.exp(-logit))


def predictions(n=300, folds=3, test=60, **truth):
    label, prob = drawn(n + test, **truth)
    fold = np.r_[np.arange(n) % folds, np.full(test, -1)]
    table = pd.DataFrame({"variant": "go", "seed": 0, "fold": fold, "label": label, "prob": prob})
    return table.assign(split=np.where(fold < 0, "test", "val"), patient_id=[f"P{i}" for i in range(n + test)])


@pytest.mark.parametrize(("terms", "with_intercept"), [(("intercept", "slope"), True), (("slope",), False)])
def test_the_fit_is_that_of_an_unpenalised_logistic_regression(terms, with_intercept):
    label, prob = drawn(500)
    found, errors = calibration.recalibration(label, prob, terms)
    x = calibration.logit(prob)[:, None]
    other = LogisticRegression(C=1e12, fit_intercept=with_intercept, tol=1e-10, max_iter=1000).fit(x, label)
    expected = [*other.intercept_[:with_intercept], *other.coef_[0]]
    assert found == pytest.approx(expected, abs=1e-4) and (errors > 0).all()


def test_known_lines_are_found_and_lie_in_their_intervals():
    label, prob = drawn()
    row = calibration.measures(label, prob)
    assert row["slope_low"] < 0.5 < row["slope_high"] < 1 and row["slope_high"] - row["slope_low"] < 0.15
    true = 1 / (1 + np.exp(-(0.4 + 0.5 * calibration.logit(prob))))
    after = calibration.measures(label, true)
    assert after["intercept_low"] < 0 < after["intercept_high"] and after["slope_low"] < 1 < after["slope_high"]
    assert after["brier_high"] < row["brier_low"] and row["brier"] == pytest.approx(np.square(prob - label).mean())


def test_classes_that_are_parted_wholly_have_no_finite_line():
    label = np.array([0, 0, 0, 1, 1, 1])
    prob = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    assert calibration.recalibration(label, prob) is None
    row = calibration.measures(label, prob)
    assert np.isnan(row["slope"]) and np.isnan(row["intercept"]) and row["brier"] > 0


@pytest.mark.parametrize("way", ["temperature", "Platt"])
def test_nobody_is_recalibrated_by_their_own_fold(way):
    table = predictions()
    before = calibration.recalibrated(table, way)["prob"]
    for fold in (0, -1):
        own = table["fold"] == fold
        other = table.assign(label=table["label"].where(~own, 1 - table["label"]))
        after = calibration.recalibrated(other, way)["prob"]
        assert (after[own] == before[own]).all()
        assert (after[~own] == before[~own]).all() == (fold == -1)  # the test patients fit nothing


def test_each_way_mends_what_it_can():
    p, table = params.load("lgg", "demo"), predictions(3000, 5, 600, intercept=1.0)
    for split in ("val", "test"):
        rows = calibration.table(table, p, ["go"], split).loc["go"]
        assert list(rows.index) == list(calibration.WAYS) and (rows["folds_not_fitted"] == 0).all()
        assert rows["brier"]["as trained"] > rows["brier"]["temperature"] > rows["brier"]["Platt"]
        assert abs(rows["intercept"]["temperature"]) > 0.5 > abs(rows["intercept"]["Platt"])
        assert rows["slope"]["Platt"] == pytest.approx(1, abs=0.15)


def test_what_cannot_be_fitted_stays_and_is_counted():
    table = predictions(30, 3, 0)
    table["prob"] = np.where(table["label"] == 1, 0.9, 0.1) + np.linspace(0, 0.05, len(table))
    changed = calibration.recalibrated(table, "Platt")
    assert not changed["fitted"].any() and (changed["prob"] == table["prob"]).all()
    assert calibration.table(table, params.load("lgg", "demo"), ["go"])["folds_not_fitted"].loc["go", "Platt"] == 3


def test_a_patient_counts_once_whatever_was_repeated():
    p, table = params.load("lgg", "demo", repeats=2, n_folds=3), predictions()
    again = table[table["fold"] >= 0].assign(fold=lambda t: t["fold"] + 3, prob=0.5)
    seeds = table.assign(seed=1, prob=0.5)
    whole = pd.concat([table, again, seeds])
    pd.testing.assert_frame_equal(calibration.table(whole, p, ["go"]), calibration.table(table, p, ["go"]))


def test_groups_of_like_probability_hold_every_patient_once():
    label, prob = drawn(83)
    groups = calibration.reliability(label, prob)
    assert groups["patients"].sum() == 83 and groups["predicted"].is_monotonic_increasing
    assert (groups["observed"] * groups["patients"]).sum() == pytest.approx(label.sum())
    assert (groups["low"] <= groups["observed"]).all() and (groups["observed"] <= groups["high"]).all()
