"""Net benefit against what is counted by hand, and against models that are known."""

import numpy as np
import pandas as pd
import pytest

from mmmil.evaluation import decision_curves


def test_net_benefit_is_found_cases_less_weighed_false_alarms():
    label = np.array([1, 1, 0, 0, 0])
    called = np.array([True, False, True, False, True])
    assert decision_curves.net_benefit(label, called, 0.2)[0] == pytest.approx((1 - 2 * 0.25) / 5)
    drawn = decision_curves.net_benefit(label, called, 0.5, np.array([[2, 0, 1, 1, 1], [0, 0, 5, 0, 0]]))
    assert drawn == pytest.approx([(2 - 2) / 5, -1])


def test_a_perfect_model_finds_all_and_one_that_knows_nothing_gains_nowhere():
    label = np.arange(200) % 4 == 0
    perfect = decision_curves.curve(label.astype(int), label.astype(float))
    assert perfect["net_benefit"].to_numpy() == pytest.approx(0.25) and (perfect["gain_low"] > 0).all()
    even = decision_curves.curve(label.astype(int), np.full(200, 0.25))
    assert (even["gain"] <= 1e-12).all() and even["gain"].max() == pytest.approx(0)
    t = even["threshold"]
    assert even["treat_all"].to_numpy() == pytest.approx((0.25 - 0.75 * t / (1 - t)).to_numpy())


def test_intervals_hold_the_value_and_do_not_move_from_run_to_run():
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 120)
    prob = np.clip(0.3 + 0.4 * label + rng.normal(0, 0.2, 120), 0, 1)
    first, again = (decision_curves.curve(label, prob, np.arange(120) % 5) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert (first["low"] <= first["net_benefit"]).all() and (first["net_benefit"] <= first["high"]).all()
    assert (first["high"] - first["low"]).max() > 0.02


def test_thresholds_with_a_gain_are_told_as_ranges():
    n = len(decision_curves.THRESHOLDS)
    table = pd.DataFrame({"variant": ["a"] * n + ["b"] * n, "threshold": [*decision_curves.THRESHOLDS] * 2})
    table["gain_low"] = -1.0
    table.loc[[0, 3, 4, 5], "gain_low"] = 0.1
    told = decision_curves.useful(table)
    assert told.to_dict() == {"a": "0.05; 0.20 to 0.30", "b": "none"}


def test_models_without_predictions_have_no_curve():
    label = np.arange(40) % 2
    table = pd.DataFrame({"variant": "go", "split": "val", "fold": 0, "label": label, "prob": 0.2 + 0.6 * label})
    assert set(decision_curves.curves(table, ["wsi", "go"])["variant"]) == {"go"}
