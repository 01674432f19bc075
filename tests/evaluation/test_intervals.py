import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmmil import params
from mmmil.evaluation import bootstrap, comparisons, intervals, paired_tests
from mmmil.evaluation import summary as summaries
from mmmil.evaluation.metrics import METRICS
from mmmil.training import runs


def of_37(prob=None, folds=1):
    """18 patients of class 1, 19 of class 0, per fold; all right where no prob is given."""
    label = np.tile(np.repeat([1, 0], [18, 19]), folds)
    return label, label.astype(float) if prob is None else prob, np.repeat(np.arange(folds), 37)


@pytest.mark.parametrize("folds", [1, 2, 5])
def test_no_interval_collapses_where_no_mistake_is_made(folds):
    found = intervals.of_model(*of_37(folds=folds))
    assert (found["mean"] == 1).all() and (found["high"] == 1).all()
    assert (found["low"] < 1 - 0.5 / (37 * folds)).all() and (found["low"] > 1 - 4 / (18 * folds)).all()
    more = intervals.of_model(*of_37(folds=2 * folds))
    assert (more["low"] > found["low"]).all()  # twice the patients, none of them wrong


def test_no_interval_collapses_where_nothing_but_mistakes_is_made():
    label, prob, _ = of_37()
    found = intervals.of_model(label, 1 - prob).drop(index="pr_auc")  # which is never 0
    assert (found["mean"] == 0).all() and (found["low"] == 0).all()
    assert (found["high"] > 0.05).all() and (found["high"] < 0.25).all()


def test_f1_of_one_in_every_fold_though_the_ranking_is_not():
    """F1, sensitivity and specificity meet at the ceiling, whatever lies above the threshold."""
    label, prob, folds = of_37(folds=5)
    found = intervals.of_model(label, np.where(prob > 0.5, 0.7, 0.2), folds).loc["f1"]
    assert found["mean"] == 1 and 0.9 < found["low"] < 0.99


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (1, 12), (7, 12), (12, 12), (186, 188)])
def test_a_share_has_wilsons_interval(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert np.allclose(intervals.share(hits / n, [n]), expected, atol=1e-8)
    # Of the mean over equal folds it is that of all patients; another seed on the same patients tells nothing more.
    assert np.allclose(intervals.share(hits / n, [n / 4] * 4), expected, atol=1e-8)
    assert np.allclose(intervals.share(hits / n, [n / 4] * 8, repeats=2), expected, atol=1e-8)


def test_the_ends_of_a_score_interval_are_a_quantile_from_the_estimate():
    z, value, (n1, n0) = stats.norm.ppf(0.95), 0.9, (22, 80)
    for end in intervals.roc_auc(value, [(n1, n0)], 0.9):
        q1, q2, shared = end / (2 - end), 2 * end**2 / (1 + end), (n1 + n0) / 2 - 1  # Newcombe (2006), method 5
        variance = (end * (1 - end) + shared * (q1 + q2 - 2 * end**2)) / (n1 * n0)
        assert np.isclose(abs(value - end), z * np.sqrt(variance))


def test_folds_are_never_surer_than_students_t_nor_than_so_few_patients_allow():
    rng = np.random.default_rng(0)
    label, _, folds = of_37(folds=5)
    strength = np.array([0, 0.5, 1, 2, 4])[folds]  # models that differ far more than patients explain
    apart = 1 / (1 + np.exp(-strength * (label - 0.5) - rng.normal(size=len(label))))
    values = [stats.mannwhitneyu(*(apart[(folds == k) & (label == c)] for c in (1, 0))).statistic for k in range(5)]
    aucs = np.array(values) / (18 * 19)
    expected = stats.t.interval(0.95, 4, aucs.mean(), stats.sem(aucs))
    found = intervals.of_model(label, apart, folds).loc["roc_auc"]
    assert np.allclose(found, [aucs.mean(), max(expected[0], 0), min(expected[1], 1)])
    one = np.tile(apart[folds == 2], 5)  # every fold the same value, so that t sees no scatter at all
    found = intervals.of_model(label, one, folds).loc["roc_auc"]
    assert np.allclose(found[["low", "high"]], intervals.roc_auc(found["mean"], [(18, 19)] * 5))


@pytest.mark.parametrize("auc", [0.75, 0.95, 0.98])
def test_the_interval_of_an_auc_holds_the_truth_as_often_as_it_says(auc):
    """Binormal scores of 37 patients, where a percentile bootstrap holds 0.98 in 78 of 100 (benchmarks)."""
    rng, held = np.random.default_rng(1), 0
    label, _, _ = of_37()
    for scores in rng.normal(size=(300, 37)) + stats.norm.ppf(auc) * np.sqrt(2) * label:
        value = stats.mannwhitneyu(scores[:18], scores[18:]).statistic / (18 * 19)
        low, high = intervals.roc_auc(value, [(18, 19)])
        held += low <= auc <= high
    assert 0.92 < held / 300 < 0.995


def test_two_models_without_a_mistake_may_yet_differ():
    label, perfect, folds = of_37(folds=5)
    rng = np.random.default_rng(0)
    other = np.where(label == 1, 0.6, 0.4) + 0.05 * rng.random(len(label))
    below = np.where(rng.random(len(label)) < 0.1, 1 - other, other)
    own = [intervals.of_model(label, prob, folds).loc["roc_auc"] for prob in (perfect, other, below)]
    for test in (paired_tests.delong, bootstrap.paired_bootstrap):
        found = test(label, perfect, other, folds=folds)
        assert found.difference == 0 and found.p == 1
        assert np.isclose(found.low, own[0]["low"] - 1) and np.isclose(found.high, 1 - own[1]["low"])
        # What one may lose that makes no mistake here is in the interval, too.
        one = test(label, perfect, below, folds=folds)
        assert one.low <= intervals.difference(tuple(own[0]), tuple(own[2]))[1] < one.difference < one.high
    t = paired_tests.widened(paired_tests.corrected_t([1.0] * 5, [1.0] * 5, 0.2), own[0], own[1])
    assert t.low < 0 < t.high and t.p == 1
    told = paired_tests.Difference(0.1, -0.1, 0.3, 0.3, 5)
    assert paired_tests.widened(told, (0.9, 0.8, 0.95), (0.8, 0.7, 0.9)) == told  # away from the ceiling: as tested


def test_a_difference_of_intervals_knows_what_its_models_share():
    a, b = (0.9, 0.7, 0.95), (0.8, 0.5, 0.9)
    off, low, high = intervals.difference(a, b, 0.5)
    assert off == pytest.approx(0.1)
    assert low == pytest.approx(0.1 - np.sqrt(0.2**2 + 0.1**2 - 0.2 * 0.1))
    assert high == pytest.approx(0.1 + np.sqrt(0.05**2 + 0.3**2 - 0.05 * 0.3))
    apart = intervals.difference(a, b)
    assert apart[1] < low < high < apart[2] and intervals.difference(a, b, -0.5) == apart
    assert intervals.difference((1, 0.9, 1), (1, 0.9, 1), 1.0)[1:] == pytest.approx((-0.1, 0.1)), "no point at 1"
    assert paired_tests.correlation(np.array([[4.0, 3.0], [3.0, 9.0]])) == 0.5
    for unknown in ([[0.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[np.nan] * 2] * 2):
        assert paired_tests.correlation(np.array(unknown)) == 0


@pytest.mark.parametrize("n1, n0, a, b", [(20, 20, 0.99, 0.97), (20, 80, 0.99, 0.98), (20, 20, 0.9999, 0.98)])
def test_a_difference_near_the_ceiling_is_held_as_often_as_its_interval_says(n1, n0, a, b):
    """Binormal scores of two models that share half of what they see in a patient: DeLong's own interval holds the
    truth in 73 to 91 of 100 such cohorts, and is none where both models make no mistake.
    """
    rng, label, held, alone = np.random.default_rng(1), np.repeat([1, 0], [n1, n0]), [], []
    for _ in range(150):
        shared, own = rng.normal(size=len(label)), rng.normal(size=(2, len(label)))
        distance = np.sqrt(2) * stats.norm.ppf([a, b])[:, None]
        scores = np.sqrt(0.5) * (shared + own) + distance * label
        found = paired_tests.delong(label, *scores)
        assert found.high - found.low > 0.02
        held.append(found.low <= a - b <= found.high)
        aucs, covariance = paired_tests.auc_covariance(label, scores)
        tested = paired_tests.contrast(aucs, covariance, 0, 1, 0.95, len(label))
        alone.append(tested.low <= a - b <= tested.high)
    assert np.mean(held) >= 0.94 and np.mean(alone) < 0.92, (np.mean(held), np.mean(alone))


def test_near_the_ceiling_is_where_less_than_one_patient_is_ranked_wrongly():
    assert intervals.near_ceiling(1.0, 500, 500) and intervals.near_ceiling(0.96, 20, 80)
    assert not intervals.near_ceiling(0.94, 20, 80) and intervals.near_ceiling(0.01, 20, 80)
    rng, label = np.random.default_rng(0), np.repeat([1, 0], 200)
    scores = rng.normal(size=(2, 400)) + np.sqrt(2) * stats.norm.ppf([[0.98], [0.97]]) * label
    aucs, covariance = paired_tests.auc_covariance(label, scores)
    as_tested = paired_tests.contrast(aucs, covariance, 0, 1, 0.95, 400)
    assert paired_tests.delong(label, *scores) == as_tested, "enough patients: as DeLong has it"


def test_tables_and_comparisons_of_models_without_a_mistake():
    label, prob, folds = of_37(folds=3)
    rows = [
        (name, 0, fold, split, f"{split}{i}", y, q)
        for name in ("wsi", "dual_go", "go")
        for split in ("val", "test")
        for i, (y, q, fold) in enumerate(zip(label, prob, folds if split == "val" else 0 * folds - 1, strict=True))
    ]
    predictions, p = pd.DataFrame(rows, columns=runs.PREDICTIONS), params.load("lgg", "demo", n_folds=3)
    summary = summaries.summarise(predictions, p, [])
    assert (summary["mean"] == 1).all() and (summary["ci_high"] - summary["ci_low"] > 0.01).all()
    assert summaries.cell(summary, "go", "roc_auc", "test").text() == "1.000 [0.964, 1.000]"
    compared = comparisons.compare(predictions, p, tables=["5"], draws=50)
    assert {"paired_t", "corrected_t", "delong", "bootstrap"} == set(compared["method"])
    assert (compared["ci_low"] < -0.01).all() and (compared["ci_high"] > 0.01).all() and (compared["p"] == 1).all()


def test_the_mean_of_values_that_are_all_the_same_is_not_certain():
    expected = stats.binomtest(9, 9).proportion_ci(method="wilson")
    assert np.allclose(bootstrap.interval(np.ones(9), 0.95, bounds=(0, 1)), [1, *expected])
    mean, low, high = bootstrap.interval(np.zeros(9), 0.95)  # a difference: between -1 and 1
    assert mean == 0 and -1 < low < 0 < high < 1
    assert set(METRICS) == set(intervals.of_model(*of_37()).index)
