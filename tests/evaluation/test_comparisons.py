"""Tests of two models: against SciPy, against published worked examples, and against their definitions."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as skm

from mmmil import paper, params, plots, variants
from mmmil.evaluation import bootstrap, comparisons, paired_tests, power
from mmmil.evaluation import metrics as evaluation_metrics
from mmmil.training import runs

# 43 patients with ovarian cancer and an obstructed bowel: albumin, total protein, K-G score, and whether surgery
# helped (0: no). Data and results: SAS/STAT User's Guide, PROC LOGISTIC, "Comparing Receiver Operating Characteristic
# Curves", after DeLong, DeLong and Clarke-Pearson (1988). Most values are tied.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


@pytest.fixture
def ovarian():
    albumin, protein, score, label = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    return label.astype(int), albumin, protein, 10 - score


@pytest.fixture
def scored():
    """Two correlated models on 60 patients, rounded so that many are tied."""
    rng = np.random.default_rng(5)
    label = rng.permutation(np.repeat([0, 1], [35, 25]))
    shared = rng.normal(size=60)
    a, b = (np.round(label * gain + shared + rng.normal(size=60), 1) for gain in (1.5, 0.7))
    return label, a, b


def by_definition(label, a, b):
    """Difference of two ROC-AUCs and its variance from the structural components, patient by patient."""
    components = []
    for score in (a, b):
        psi = [[(x > y) + 0.5 * (x == y) for y in score[label == 0]] for x in score[label == 1]]
        components.append(np.array(psi))
    d = components[0] - components[1]
    m, n = d.shape
    v10, v01 = d.mean(1), d.mean(0)
    variance = sum((v10 - d.mean()) ** 2) / (m - 1) / m + sum((v01 - d.mean()) ** 2) / (n - 1) / n
    return d.mean(), variance


def test_paired_t_is_scipys():
    a, b = np.array([0.81, 0.74, 0.9, 0.7, 0.77]), np.array([0.78, 0.75, 0.83, 0.66, 0.7])
    found, expected = paired_tests.paired_t(a, b, 0.9), stats.ttest_rel(a, b)
    assert np.isclose(found.p, expected.pvalue) and found.n == 5
    assert np.allclose([found.low, found.high], expected.confidence_interval(0.9))
    assert np.isclose(found.difference, np.mean(a - b))


def test_corrected_t_is_its_formula():
    d = np.array([0.03, -0.01, 0.07, 0.04, 0.07])
    found = paired_tests.corrected_t(d, np.zeros(5), 0.2)
    se = np.sqrt((1 / 5 + 1 / 4) * np.var(d, ddof=1))  # five folds: a fold is 1/4 of what the others hold
    assert np.isclose(found.p, 2 * stats.t.sf(abs(d.mean() / se), 4))
    assert np.allclose([found.low, found.high], d.mean() + np.array([-1, 1]) * stats.t.ppf(0.975, 4) * se)
    # without the correction it is the paired t-test, and it is always wider
    plain = paired_tests.paired_t(d, np.zeros(5))
    assert np.isclose((found.high - found.low) / (plain.high - plain.low), np.sqrt((1 / 5 + 1 / 4) / (1 / 5)))


def test_equal_folds_have_no_t():
    a = np.array([0.8, 0.7, 0.9])
    assert paired_tests.paired_t(a, a).p == 1
    shifted = paired_tests.paired_t(a + 0.1, a)
    assert np.isnan(shifted.p) and np.isnan(shifted.low) and np.isclose(shifted.difference, 0.1)
    assert np.isnan(paired_tests.paired_t(a[:1], a[:1] - 0.1).p)


def test_delong_is_the_published_example(ovarian):
    label, albumin, protein, score = ovarian
    aucs, covariance = paired_tests.auc_covariance(label, np.stack([albumin, score, protein]))
    assert aucs.round(4).tolist() == [0.7366, 0.7258, 0.6478]
    assert np.sqrt(np.diag(covariance)).round(4).tolist() == [0.0927, 0.1028, 0.1000]
    for test, published in (
        (albumin, [0.0108, -0.1761, 0.1976, 0.9102]),
        (protein, [-0.0780, -0.2830, 0.1271, 0.4561]),
    ):
        assert np.round(paired_tests.delong(label, test, score)[:4], 4).tolist() == published


def test_delong_is_its_definition_with_ties(scored, ovarian):
    for label, a, b in (scored, (ovarian[0], ovarian[1], ovarian[3])):
        difference, variance = by_definition(label, a, b)
        found = paired_tests.delong(label, a, b)
        assert np.isclose(found.difference, difference) and found.n == len(label)
        assert np.isclose(difference, skm.roc_auc_score(label, a) - skm.roc_auc_score(label, b))
        assert np.isclose(found.p, 2 * stats.norm.sf(abs(difference) / np.sqrt(variance)))


def test_delong_of_folds_ranks_no_patient_against_another_fold(scored):
    label, a, b = scored
    folds = np.arange(60) % 3
    parts = [by_definition(label[folds == k], a[folds == k], b[folds == k]) for k in range(3)]
    found = paired_tests.delong(label, a, b, folds=folds)
    se = (found.high - found.low) / 2 / stats.norm.ppf(0.975)
    assert np.isclose(found.difference, np.mean([d for d, _ in parts]))
    assert np.isclose(se**2, sum(v for _, v in parts) / 9)
    shifted = a + 10 * folds  # each fold's model has a scale of its own
    assert np.allclose(paired_tests.delong(label, shifted, b, folds=folds), found)


def test_delong_knows_its_limits(scored):
    label, a, _ = scored
    assert paired_tests.delong(label, a, 2 * a).p == 1  # the same ranking
    assert np.isnan(paired_tests.delong(np.array([1, 0, 0]), np.array([0.9, 0.2, 0.3]), np.array([0.1, 0.2, 0.3])).p)
    with pytest.raises(ValueError, match="both classes"):
        paired_tests.delong(np.ones(60), a, a)


def test_bootstrap_draws_the_same_patients_for_both_within_class_and_fold(scored):
    label, a, _ = scored
    folds = np.arange(60) % 2
    weights = bootstrap.resample(label, folds, 50, 0)
    for k in (0, 1):
        for c in (0, 1):
            assert (weights[:, (folds == k) & (label == c)].sum(1) == ((folds == k) & (label == c)).sum()).all()
    drawn = bootstrap.drawn_scores(label, {"a": a, "b": a.copy()}, folds, draws=50)
    found = bootstrap.paired_difference(drawn["a"]["roc_auc"], drawn["b"]["roc_auc"], 0.95, 60)
    assert found[:4] == (0, 0, 0, 1)  # not so if the two were drawn apart


def test_bootstrap_is_scikit_learns_on_every_draw(scored):
    label, a, b = scored
    folds = np.arange(60) % 2
    a, b = (1 / (1 + np.exp(-x)) for x in (a, b))
    weights = np.vstack([np.ones(60), bootstrap.resample(label, folds, 19, 7)])

    def of_draw(prob, w):
        rows = [np.repeat(np.flatnonzero(folds == k), w[folds == k].astype(int)) for k in (0, 1)]
        return pd.DataFrame([evaluation_metrics.scores(label[i], prob[i], 0.6) for i in rows]).mean()

    every = pd.DataFrame([of_draw(a, w) - of_draw(b, w) for w in weights])
    for metric in evaluation_metrics.METRICS:
        found = bootstrap.paired_bootstrap(label, a, b, folds, metric, 0.6, 0.9, draws=19, seed=7)
        observed, drawn = every[metric][0], every[metric][1:]
        assert np.isclose(found.difference, observed)
        assert np.allclose([found.low, found.high], np.quantile(drawn, [0.05, 0.95]))
        smaller = min((drawn < 1e-12).sum(), (drawn > -1e-12).sum())
        assert np.isclose(found.p, min(1, 2 * (smaller + 1) / 20))


def test_bootstrap_p_is_never_zero_and_agrees_with_delong(scored):
    label, a, b = scored
    apart = bootstrap.paired_bootstrap(label, label + 0.1 * a, -label + 0.1 * b, draws=199)
    assert apart.p == 2 / 200
    found, expected = bootstrap.paired_bootstrap(label, a, b, draws=4000, seed=1), paired_tests.delong(label, a, b)
    assert np.allclose([found.low, found.high], [expected.low, expected.high], atol=0.02)


def test_mcnemar_is_the_binomial_test():
    label = np.array([1] * 30)
    a, b = np.repeat([1.0, 1.0, 0.0, 0.0], [10, 12, 3, 5]), np.repeat([1.0, 0.0, 1.0, 0.0], [10, 12, 3, 5])
    found = paired_tests.mcnemar(label, a, b)
    assert np.isclose(found.p, stats.binomtest(3, 15).pvalue) and np.isclose(found.difference, 9 / 30)
    # Agresti and Min (2005): (12.5 - 3.5) / 32, and its variance ((12.5 + 3.5) / 32 - that^2) / 32
    middle, half = 9 / 32, stats.norm.ppf(0.975) * np.sqrt((16 / 32 - (9 / 32) ** 2) / 32)
    assert np.allclose([found.low, found.high], [middle - half, middle + half])
    assert paired_tests.mcnemar(label, a, a).p == 1


def test_holm_is_the_known_example():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert np.allclose(comparisons.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    adjusted = comparisons.holm([0.01, np.nan, 0.9, 0.8])
    assert np.allclose(adjusted[[0, 2, 3]], [0.03, 1, 1]) and np.isnan(adjusted[1])


def test_cohens_dz_interval_inverts_the_noncentral_t():
    a, b = np.array([0.81, 0.74, 0.9, 0.7, 0.77]), np.array([0.78, 0.75, 0.83, 0.66, 0.7])
    dz, low, high = power.cohens_dz(a, b)
    t = stats.ttest_rel(a, b).statistic
    assert np.isclose(dz, t / np.sqrt(5))
    assert np.allclose(stats.nct.cdf(t, 4, np.array([low, high]) * np.sqrt(5)), [0.975, 0.025], atol=1e-6)
    assert np.isnan(power.cohens_dz(a, a)).all()


def test_variance_of_an_auc_is_that_of_exponential_scores():
    """Hanley and McNeil's formula is exact for scores of two exponential distributions; AUC = scale / (1 + scale)."""
    rng, scale = np.random.default_rng(0), 3.0
    positive, negative = rng.exponential(scale, (20_000, 12)), rng.exponential(1, (20_000, 9))
    aucs = (positive[:, :, None] > negative[:, None, :]).mean((1, 2))
    assert np.isclose(aucs.mean(), 0.75, atol=0.003)
    assert np.isclose(aucs.var(), power.hanley_mcneil(0.75, 12, 9), rtol=0.05)


def test_the_detectable_difference_is_detected_with_its_power():
    """Binormal scores of 94 patients: DeLong's test finds what was computed in about 80 of 100 test sets."""
    label = np.repeat([0, 1], 47)
    auc, correlation = 0.75, 0.4
    detectable = power.detectable_difference(label, auc, correlation)
    assert 0.08 < detectable < 0.16
    assert power.detectable_difference(label, auc, 0.8) < detectable < power.detectable_difference(label, auc, 0)
    assert power.detectable_difference(np.tile(label, 4), auc, correlation) < 0.6 * detectable
    rng, found, seen = np.random.default_rng(0), 0, []
    separation = np.sqrt(2) * stats.norm.ppf([auc + detectable, auc])
    for _ in range(500):
        noise = rng.multivariate_normal([0, 0], [[1, 0.48], [0.48, 1]], 94).T
        scores = noise + separation[:, None] * label
        _, v = paired_tests.auc_covariance(label, scores)
        seen.append(v[0, 1] / np.sqrt(v[0, 0] * v[1, 1]))
        found += paired_tests.delong(label, *scores).p < 0.05
    assert abs(np.mean(seen) - correlation) < 0.05  # scores correlate by 0.48, AUCs a little less
    assert 0.74 < found / 500 < 0.86


def test_even_a_perfect_model_may_not_be_detectable():
    assert np.isnan(power.detectable_difference(np.repeat([0, 1], 8), 0.9, 0.0))
    assert power.detectable_difference(np.repeat([0, 1], 8), 0.9, 1.0) == 0


def record_of(names, seed=0, gain=0.0, n=60, folds=3):
    """Predictions in the record's form: `gain` is what the first variant sees more than the others."""
    rng = np.random.default_rng(seed)
    label, fold = np.arange(n) % 2, np.arange(n) // 2 % (folds + 1) - 1
    shared, frames = rng.normal(size=n), []
    for i, name in enumerate(names):
        score = label * (1 + gain * (i == 0)) + shared + rng.normal(size=n)
        columns = {"variant": name, "seed": 0, "fold": fold, "split": np.where(fold < 0, "test", "val")}
        columns |= {"patient_id": [f"p{j}" for j in range(n)], "label": label, "prob": 1 / (1 + np.exp(-score))}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True).sample(frac=1, random_state=1)[runs.PREDICTIONS]


@pytest.fixture
def p():
    return params.load("lgg", "demo", n_folds=3)


def test_every_table_compares_the_proposed_model_with_every_other_row(p):
    found = {(table, frozenset(both)) for table, *both in comparisons.pairs(p)}
    for number, table in paper.TABLES.items():
        rows = [v.name for v in variants.VARIANTS.values() if number in v.tables]
        assert set(table.proposed) <= set(rows)
        for a in table.proposed:
            assert all((number, frozenset((a, b))) in found for b in rows if b != a)
    assert [b for _, a, b in comparisons.pairs(p, ["11"]) if a == "dual_go"] == ["dual_kegg", "dual_genes"]
    assert set(comparisons.pairs(p, ["baseline"])) >= {
        ("baseline", "dual_go", "baseline_late"),
        ("baseline", "wsi", "baseline_image"),
        ("baseline", "go", "baseline_genes"),
    }
    assert len(found) == len(comparisons.pairs(p))  # none twice
    assert not any(a == b for _, a, b in comparisons.pairs(p))


def test_the_rows_of_an_encoder_are_compared_by_themselves(p):
    more = {("4", "wsi", f"{mil}_e") for mil in ("wsi", "clam", "transmil")}
    more |= {("9", "dual_go", "e_go"), ("10", "dual_kegg", "e_kegg")}
    with_encoder = p.override(encoders={"e": "random:resnet18"})
    assert set(comparisons.pairs(with_encoder)) - set(comparisons.pairs(p)) == more


def test_a_variant_added_to_the_table_is_compared_by_itself(p, monkeypatch):
    added = variants.Variant("mean_go", "mean", "reduced", "go", "image", ("7",))
    monkeypatch.setattr(variants, "VARIANTS", variants.VARIANTS | {"mean_go": added})
    assert ("7", "dual_go", "mean_go") in comparisons.pairs(p, ["7"])


def test_compare_is_each_test_on_the_record(p):
    predictions = record_of(["dual_go", "self_go", "co_go"], gain=1)
    table = comparisons.compare(predictions, p, ("roc_auc", "pr_auc", "accuracy"))
    assert list(table.columns) == comparisons.COMPARISON
    assert set(table["table"]) == {"7", "S5"}  # wsi, go and the others of dual_go's tables are not in the record
    own = predictions.query("variant in ['dual_go', 'co_go']").pivot(
        index=["split", "fold", "patient_id", "label"], columns="variant", values="prob"
    )
    val, test = (own.loc[split].reset_index() for split in ("val", "test"))

    def row(split, metric, method):
        found = table.query("b == 'co_go' and split == @split and metric == @metric and method == @method")
        return found.iloc[0][["difference", "ci_low", "ci_high", "p", "n"]].tolist()

    aucs = [[skm.roc_auc_score(f["label"], f[name]) for _, f in val.groupby("fold")] for name in ("dual_go", "co_go")]
    assert np.allclose(row("val", "roc_auc", "paired_t"), paired_tests.paired_t(*aucs))
    assert np.allclose(row("val", "roc_auc", "corrected_t"), paired_tests.corrected_t(*aucs, 1 / 3))
    for split, patients in (("val", val), ("test", test)):
        three = patients["label"].to_numpy(), patients["dual_go"].to_numpy(), patients["co_go"].to_numpy()
        folds = patients["fold"].to_numpy()
        assert np.allclose(row(split, "roc_auc", "delong"), paired_tests.delong(*three, folds=folds))
        assert np.allclose(row(split, "accuracy", "mcnemar"), paired_tests.mcnemar(*three))
        drawn = bootstrap.paired_bootstrap(*three, folds, "pr_auc", seed=p.seed)
        assert np.allclose(row(split, "pr_auc", "bootstrap"), drawn)
    assert set(table.query("split == 'test'")["method"]) == {"delong", "bootstrap", "mcnemar"}
    for _, family in table.groupby(["table", "metric", "split", "method"]):
        assert np.allclose(family["p_holm"], comparisons.holm(family["p"].to_numpy())) and len(family) == 2
    pd.testing.assert_frame_equal(table, comparisons.compare(predictions, p, ("roc_auc", "pr_auc", "accuracy")))


def test_a_planted_gain_is_found_and_its_absence_is_not(p):
    big = record_of(["dual_go", "wsi", "go"], gain=3, n=240)
    val = comparisons.compare(big, p, ("roc_auc",)).query("split == 'val'")
    assert (val["ci_low"] > 0).all() and (val.query("method == 'delong'")["p_holm"] < 0.001).all()
    none = [comparisons.compare(record_of(["dual_go", "wsi"], seed), p, ("roc_auc",), draws=200) for seed in range(25)]
    for _, own in pd.concat(none).groupby(["split", "method"]):
        # of 25 tests at 0.05, more than 5 significant ones come by chance in 0.1 % of cases
        assert len(own) == 25 and (own["p"] < 0.05).sum() <= 5


def test_a_fold_that_failed_is_left_out_of_its_pairs_alone(p):
    predictions = record_of(["dual_go", "self_go", "co_go"])
    lacking = predictions[~((predictions["variant"] == "co_go") & (predictions["fold"] == 1))]
    table = comparisons.compare(lacking, p, ("roc_auc",)).query("split == 'val' and method == 'paired_t'")
    assert table.set_index("b")["n"].to_dict() == {"self_go": 3, "co_go": 2}
    assert comparisons.compare(predictions.query("variant == 'co_go'"), p).empty
    assert list(comparisons.compare(predictions.query("variant == 'co_go'"), p).columns) == comparisons.COMPARISON


def test_predictions_of_different_cohorts_are_not_compared(p):
    predictions = record_of(["dual_go", "self_go"])
    lost = predictions.drop(predictions.query("variant == 'self_go' and fold == 0").index[:1])
    with pytest.raises(ValueError, match="fold 0: self_go did not predict the same patients"):
        comparisons.compare(lost, p)
    other = predictions.copy()
    first = (other["variant"] == "self_go") & (other["patient_id"] == "p7")
    other.loc[first, "label"] = 1 - other.loc[first, "label"]
    with pytest.raises(ValueError, match="patient p7 has two labels"):
        comparisons.compare(other, p)


def test_what_could_be_detected_stands_beside_what_was_seen(p):
    predictions = record_of(["dual_go", "self_go"], gain=1, n=240)
    table = power.detectable(predictions, p)
    assert list(table.columns) == power.DETECTABLE and table["table"].tolist() == ["7", "S5"]
    seen = comparisons.compare(predictions, p, ("roc_auc",)).query("method == 'delong'")
    assert np.allclose(table["difference"], seen["difference"])
    assert (table["detectable"] > 0.02).all() and table["correlation"].between(0.1, 0.9).all()
    effects = power.effects(predictions, p)
    assert list(effects.columns) == power.EFFECTS and len(effects) == 2
    assert (effects["ci_low"] < effects["d_z"]).all() and (effects["n"] == 3).all()


def test_the_forest_plot_fills_what_is_significant(p):
    table = comparisons.compare(record_of(["dual_go", "self_go", "co_go"], gain=3, n=240), p)
    val = table.query("split == 'val'")
    figure = plots.differences(val)
    assert len(figure.axes) == 2
    marks = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None, "")]
    filled = [line for line in marks if line.get_markerfacecolor() != "white"]
    own = val.query("metric == 'roc_auc'")
    assert len(marks) == len(own) and len(filled) == (own["p_holm"] < 0.05).sum() > 0
    with pytest.raises(ValueError, match="one split"):
        plots.differences(table)
