import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as skm

from mmmil import params
from mmmil.evaluation import bootstrap
from mmmil.evaluation import metrics as evaluation_metrics
from mmmil.evaluation import summary as summaries
from mmmil.training import runs


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    rows = []
    for name in ("wsi", "dual_go"):
        for fold in (0, 1, 2, -1):
            label = np.repeat([0, 1], 15)
            prob = 1 / (1 + np.exp(-(label - 0.5 + rng.normal(0, 1, 30))))
            split = "test" if fold < 0 else "val"
            ids = [f"{fold}-{i}" for i in range(30)]
            rows += [(name, 0, fold, split, *row) for row in zip(ids, label.tolist(), prob.tolist(), strict=True)]
    return pd.DataFrame(rows, columns=runs.PREDICTIONS)


def test_metrics_are_scikit_learns(predictions):
    own = predictions[(predictions["variant"] == "wsi") & (predictions["fold"] == 1)]
    label, prob = own["label"].to_numpy(), own["prob"].to_numpy()
    got = evaluation_metrics.scores(label, prob, 0.4)
    tn, fp, fn, tp = skm.confusion_matrix(label, prob >= 0.4).ravel()
    assert got["sensitivity"] == tp / (tp + fn) and got["specificity"] == tn / (tn + fp)
    assert got["roc_auc"] == skm.roc_auc_score(label, prob)
    assert got["pr_auc"] == skm.average_precision_score(label, prob)
    assert got["f1"] == skm.f1_score(label, prob >= 0.4) and got["accuracy"] == (tp + tn) / 30


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_their_definitions_with_ties(seed):
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.repeat([0, 1], [23, 17]))
    prob = np.round(0.3 * label + 0.7 * rng.random(40), 1)
    got = evaluation_metrics.scores(label, prob, 0.5)
    u = stats.mannwhitneyu(prob[label == 1], prob[label == 0]).statistic
    assert np.isclose(got["roc_auc"], u / (23 * 17))  # SciPy counts a tie as one half, too
    cuts = np.unique(prob)[::-1]
    recall = np.array([(prob[label == 1] >= c).mean() for c in cuts])
    precision = np.array([label[prob >= c].mean() for c in cuts])
    assert np.isclose(got["pr_auc"], (np.diff(recall, prepend=0) * precision).sum())
    same = evaluation_metrics.weighted_scores(label, prob, np.ones((1, 40)), 0.5)
    assert all(np.isclose(same[metric][0], got[metric]) for metric in evaluation_metrics.METRICS)


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_the_interval_is_scipys_on_random_folds_cut_to_what_a_metric_can_be(folds):
    rng = np.random.default_rng(folds)
    for values in rng.uniform(0.5, 1, (20, folds)):
        mean, low, high = evaluation_metrics.mean_interval(values, 0.9)
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
        assert np.allclose([mean, low, high], [values.mean(), *np.clip(expected, 0, 1)])
    for no_scatter in ([0.7], [1.0] * folds):
        assert np.isnan(evaluation_metrics.mean_interval(np.array(no_scatter))[1:]).all()


def test_the_bootstrap_is_scipys_of_two_samples():
    """Patients drawn within their class are two independent samples; both take 4000 draws of their own."""
    rng = np.random.default_rng(2)
    label = np.repeat([0, 1], [30, 20])
    prob = np.round(1 / (1 + np.exp(-(label + rng.normal(size=50)))), 2)

    def sensitivity_and_auc(positive, negative, axis=-1):
        above = (positive[..., :, None] > negative[..., None, :]) + 0.5 * (
            positive[..., :, None] == negative[..., None, :]
        )
        return np.stack([(positive >= 0.6).mean(axis), above.mean((-1, -2))])

    samples = prob[label == 1], prob[label == 0]
    expected = stats.bootstrap(
        samples, sensitivity_and_auc, n_resamples=4000, method="percentile", vectorized=True, batch=500, rng=rng
    ).confidence_interval
    drawn = bootstrap.drawn_scores(label, {"model": prob}, None, 0.6, 4000)["model"][1:]
    for i, metric in enumerate(("sensitivity", "roc_auc")):
        got = bootstrap.percentile_interval(drawn[metric], 0.95)
        assert np.allclose(got, [expected.low[i], expected.high[i]], atol=0.015)


def test_what_is_drawn_has_the_metrics_of_the_drawn_patients(predictions):
    label, prob = predictions.query("variant == 'wsi' and fold == -1")[["label", "prob"]].to_numpy().T
    weights = bootstrap.resample(label, np.zeros(30), 19, 3).astype(int)
    assert (weights[:, label == 0].sum(1) == 15).all() and (weights[:, label == 1].sum(1) == 15).all()
    drawn = [evaluation_metrics.scores(np.repeat(label, w), np.repeat(prob, w), 0.4) for w in weights]
    got = bootstrap.drawn_scores(label, {"model": prob}, None, 0.4, 19, seed=3)["model"][1:]
    assert np.allclose(got, pd.DataFrame(drawn)[got.columns])


def test_a_fold_of_one_class_has_no_auc():
    with pytest.raises(ValueError, match="both classes"):
        evaluation_metrics.scores(np.ones(5), np.linspace(0, 1, 5))


def test_the_interval_is_students_t():
    values = np.array([0.7, 0.8, 0.75, 0.9, 0.65])
    mean, low, high = evaluation_metrics.mean_interval(values)
    expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert np.allclose([mean, low, high], [values.mean(), *expected])


def test_bootstrapped_metrics_are_scikit_learns_with_weights():
    rng = np.random.default_rng(3)
    label = np.repeat([0, 1], [9, 14])
    prob = np.round(rng.random(23), 1)  # with ties
    weights = rng.integers(0, 4, (20, 23)).astype(float)
    got = evaluation_metrics.weighted_scores(label, prob, weights, 0.5)
    for i, w in enumerate(weights):
        called = prob >= 0.5
        assert np.isclose(got["roc_auc"][i], skm.roc_auc_score(label, prob, sample_weight=w))
        assert np.isclose(got["pr_auc"][i], skm.average_precision_score(label, prob, sample_weight=w))
        assert np.isclose(got["f1"][i], skm.f1_score(label, called, sample_weight=w))
        assert np.isclose(got["accuracy"][i], skm.accuracy_score(label, called, sample_weight=w))
        assert np.isclose(got["sensitivity"][i], skm.recall_score(label, called, sample_weight=w))
        assert np.isclose(got["specificity"][i], skm.recall_score(label, called, pos_label=0, sample_weight=w))


def test_the_summary_is_recomputed_from_the_predictions_alone(predictions):
    summary = summaries.summarise(predictions, params.load("lgg", "demo", n_folds=3), [])
    assert list(summary.columns) == summaries.SUMMARY
    row = summary.query("table == '5' and variant == 'dual_go' and metric == 'roc_auc' and split == 'val'").iloc[0]
    own = predictions.query("variant == 'dual_go' and split == 'val'")
    aucs = [skm.roc_auc_score(f["label"], f["prob"]) for _, f in own.groupby("fold")]
    assert np.isclose(row["mean"], np.mean(aucs)) and row["n_folds"] == 3
    test = summary.query("variant == 'dual_go' and metric == 'roc_auc' and split == 'test'")
    assert set(test["table"]) == {"S3", "S5", "S7", "S9"} and (test["n_folds"] == 1).all()
    assert ((test["ci_low"] <= test["mean"]) & (test["mean"] <= test["ci_high"])).all()
