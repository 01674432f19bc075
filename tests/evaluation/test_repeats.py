"""Repeats and seeds: no new patients, so no narrower intervals; and the parts of the scatter are found as planted."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mmmil import params
from mmmil.evaluation import bootstrap, comparisons, metrics, paired_tests, repeats, summary
from mmmil.training import runs

N, FOLDS = 60, 3


def parameters(**more):
    return params.load("lgg", "demo", n_folds=FOLDS, **more)


def predictions(p, scatter=0.0, seed_scatter=0.0, fold_scatter=0.0, variants=("go", "baseline_genes")):
    """Predictions of every repeat and seed: a score of each patient's own, moved by seeds and by the deal."""
    rng, rows = np.random.default_rng(4), []
    label = np.arange(N) % 2
    own = {v: label * (1.0 + i) + rng.normal(size=N) for i, v in enumerate(variants)}
    for repeat in range(p.repeats):
        fold = rng.permutation(np.arange(N) // 2 % FOLDS * 2 + label) // 2 if repeat and fold_scatter else None
        fold = np.arange(N) // 2 % FOLDS if fold is None else fold
        for v in variants:
            dealt = fold_scatter * rng.normal(size=N)
            for seed in range(p.seed, p.seed + p.model_seeds):
                score = own[v] + dealt + seed_scatter * rng.normal(size=N)
                for i in range(N):
                    about = (v, seed, repeat * FOLDS + fold[i], "val", f"P{i:02d}", label[i])
                    rows.append((*about, 1 / (1 + np.exp(-score[i]))))
    for v in variants:
        for seed in range(p.seed, p.seed + p.model_seeds):
            score = own[v] + seed_scatter * rng.normal(size=N)
            rows += [(v, seed, -1, "test", f"T{i:02d}", label[i], 1 / (1 + np.exp(-score[i]))) for i in range(N)]
    return pd.DataFrame(rows, columns=runs.PREDICTIONS)


ALL = ("roc_auc", "accuracy")


def compared(p, table):
    return comparisons.compare(table, p, ALL, ["baseline"], draws=300).set_index(["split", "metric", "method"])


def test_repeats_and_seeds_that_bring_nothing_new_change_no_number_but_the_folds():
    """The same predictions three times over, by two seeds: whoever counts them as further patients would be surer."""
    once, often = parameters(), parameters(repeats=3, model_seeds=2)
    first, more = (compared(p, predictions(p)) for p in (once, often))
    assert first.index.equals(more.index)
    columns = ["difference", "ci_low", "ci_high", "p"]
    patients = first.index.get_level_values("method").isin(["delong", "bootstrap", "mcnemar", "paired_t"])
    assert np.allclose(first.loc[patients, columns], more.loc[patients, columns], atol=1e-9)
    assert (first.loc[patients, "n"] == more.loc[patients, "n"]).all()
    corrected = "val", "roc_auc", "corrected_t"
    assert more.loc[corrected, "n"] == 3 * FOLDS and np.isclose(
        more.loc[corrected, "difference"], first.loc[corrected, "difference"]
    )
    cells = [summary.summarise(predictions(p), p, ["go", "baseline_genes"]) for p in (once, often)]
    assert np.allclose(cells[0]["mean"], cells[1]["mean"])
    test = cells[0]["split"] == "test"
    assert np.allclose(cells[0].loc[test, ["ci_low", "ci_high"]], cells[1].loc[test, ["ci_low", "ci_high"]])
    assert set(cells[1]["n_folds"]) == {3 * FOLDS, 1}


def test_the_corrected_interval_is_nadeau_and_bengios():
    values = np.array([0.7, 0.75, 0.8, 0.72, 0.78, 0.81])
    mean, low, high = metrics.mean_interval(values, 0.95, 1 / 2)
    half = scipy.stats.t.ppf(0.975, 5) * np.sqrt((1 / 6 + 1 / 2) * values.var(ddof=1))
    assert np.allclose([mean, low, high], [values.mean(), values.mean() - half, values.mean() + half])
    p = parameters(repeats=2)
    cell = summary.cell(summary.summarise(predictions(p, fold_scatter=0.5), p, ["go"]), "go", "roc_auc")
    of_folds = metrics.per_fold(predictions(p, fold_scatter=0.5))["roc_auc"].xs(
        ("go", "val"), level=("variant", "split")
    )
    assert np.allclose([cell.low, cell.high], metrics.mean_interval(of_folds, shared=1 / (FOLDS - 1))[1:])


def test_a_lacking_seed_or_repeat_is_a_failure():
    p = parameters(repeats=2, model_seeds=2)
    table = predictions(p)
    lacking = table[~((table["variant"] == "go") & (table["seed"] == 1) & (table["fold"] == 4))]
    cells = summary.summarise(lacking, p, ["go", "baseline_genes"])
    assert summary.cell(cells, "go", "roc_auc").failed and not summary.cell(cells, "baseline_genes", "roc_auc").failed
    assert repeats.variance(lacking, p)["variant"].tolist() == repeats.variance(table, p)["variant"].tolist()[1:]
    n = compared(p, lacking).loc[("val", "roc_auc", "corrected_t"), "n"]
    assert n == 2 * FOLDS - 1  # left out for both models, of both seeds


def test_several_seeds_are_compared_by_the_mean_of_their_metrics():
    p = parameters(model_seeds=3)
    table = predictions(p, seed_scatter=1.0)
    own = metrics.per_fold(table)["roc_auc"].xs("val", level="split").groupby("variant").mean()
    found = compared(p, table).loc["val"].loc["roc_auc"]["difference"]
    for method in ("paired_t", "corrected_t", "delong", "bootstrap"):
        assert np.isclose(found[method], own["go"] - own["baseline_genes"]), method


def test_the_covariance_of_repeats_is_that_of_the_bootstrap():
    p = parameters(repeats=2)
    table = predictions(p, fold_scatter=0.7)
    wide = comparisons.by_patient(table, "val", 0)
    label, fold, names = wide["label"].to_numpy(), *(wide.index.get_level_values(k) for k in ("fold", "patient_id"))
    aucs, covariance = paired_tests.mean_auc_covariance(label, wide[["go"]].to_numpy().T, fold, names)
    drawn = bootstrap.drawn_scores(label, {"go": wide["go"]}, np.array(fold), draws=4000, patients=np.array(names))
    values = drawn["go"]["roc_auc"]
    assert np.isclose(values[0], aucs[0]) and np.isclose(values[1:].std(), np.sqrt(covariance[0, 0]), rtol=0.15)
    apart = paired_tests.mean_auc_covariance(label, wide[["go"]].to_numpy().T, np.array(fold))[1]
    assert apart[0, 0] < 0.8 * covariance[0, 0]  # as if they were other patients


@pytest.mark.parametrize(("planted", "found"), [("seed_scatter", "seeds"), ("fold_scatter", "folds")])
def test_what_moves_the_auc_is_named(planted, found):
    p = parameters(repeats=8, model_seeds=4)
    row = repeats.variance(predictions(p, **{planted: 1.0}), p).set_index("variant").iloc[0]
    other = {"seeds": "folds", "folds": "seeds"}[found]
    assert row[found] > 0.015 and row[other] < row[found] / 3 and row["patients"] > 0.03
    alone = parameters()
    row = repeats.variance(predictions(alone), alone).iloc[0]
    assert np.isnan(row["folds"]) and np.isnan(row["seeds"]) and row["patients"] > 0


def test_an_ensemble_stands_beside_one_model():
    p = parameters(model_seeds=4)
    table = predictions(p, seed_scatter=1.5)
    shown = repeats.ensembles(table, p)
    test = table[(table["variant"] == "go") & (table["split"] == "test")]
    single = np.mean([metrics.scores(g["label"], g["prob"])["roc_auc"] for _, g in test.groupby("seed")])
    joined = test.groupby("patient_id")[["label", "prob"]].mean()
    assert shown.loc[0, "one model"].startswith(f"{single:.3f} [")
    both = metrics.scores(joined["label"], joined["prob"])["roc_auc"]
    assert shown.loc[0, "ensemble"].startswith(f"{both:.3f} [") and both > single
    assert repeats.ensembles(predictions(parameters()), parameters()).empty
