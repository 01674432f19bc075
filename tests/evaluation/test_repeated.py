"""Differences over repeated cross-validation: one run, several runs of the same patients, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from mmmil.evaluation import bootstrap, metrics, paired_tests
from mmmil.evaluation.repeated import Repeated

N, FOLDS = 120, 3
LABEL = np.arange(N) % 2


def predictions(repeats: int = 1, seeds: int = 1, noise: float = 0.5, seed: int = 0) -> pd.DataFrame:
    """Two models, a better than b; what a patient looks like is the same in every run, noise is the training's."""
    rng, frames = np.random.default_rng(seed), []
    patient = {name: gain * LABEL + rng.normal(size=N) for name, gain in (("a", 1.5), ("b", 0.8))}
    for of_seed in range(seeds):
        for repeat in range(repeats):
            fold = np.random.default_rng(repeat).permutation(N // 2).repeat(2) % FOLDS + repeat * FOLDS
            for name, score in patient.items():
                prob = 1 / (1 + np.exp(-(score + noise * rng.normal(size=N))))
                ids = [f"P{i:03d}" for i in range(N)]
                frames.append(
                    pd.DataFrame({"variant": name, "seed": of_seed, "fold": fold, "split": "val", "patient_id": ids,
                                  "label": LABEL, "prob": prob})
                )  # fmt: skip
    return pd.concat(frames).sample(frac=1, random_state=0)


def test_one_run_is_delong_and_the_bootstrap_within_folds():
    table = predictions()
    made = Repeated.arrange(table, FOLDS)
    wide = table.pivot(index=["patient_id", "fold"], columns="variant", values="prob")
    folds = wide.index.get_level_values("fold").to_numpy()
    a, b = wide["a"].to_numpy(), wide["b"].to_numpy()
    found = made.difference("a", "b", "roc_auc", 0.95)
    assert tuple(found) == pytest.approx(tuple(paired_tests.delong(LABEL, a, b, 0.95, folds)))
    expected = bootstrap.paired_bootstrap(LABEL, a, b, folds, "f1", draws=made.draws)
    assert tuple(made.difference("a", "b", "f1", 0.95)) == pytest.approx(tuple(expected))


def test_over_runs_the_difference_is_that_of_the_means_over_the_folds():
    table = predictions(repeats=2, seeds=3)
    made = Repeated.arrange(table, FOLDS)
    assert made.folds.shape == (6, N)
    folds = metrics.per_fold(table).groupby("variant").mean()
    for metric in ("roc_auc", "pr_auc", "sensitivity"):
        found = made.difference("a", "b", metric, 0.95)
        assert found.difference == pytest.approx(folds.loc["a", metric] - folds.loc["b", metric])
        assert found.low < found.difference < found.high and found.n == N
    assert made.by_fold("a").index.tolist() == list(range(2 * FOLDS))


def test_runs_of_the_same_patients_are_no_further_patients():
    """Without noise of the training ten runs tell as much as one; with it more, but not as ten times the patients."""

    def width(**runs) -> float:
        found = Repeated.arrange(predictions(**runs), FOLDS).difference("a", "b", "roc_auc", 0.95)
        return found.high - found.low

    assert width(seeds=10, noise=0.0) == pytest.approx(width(noise=0.0))
    assert width(repeats=10, noise=0.0) == pytest.approx(width(noise=0.0), rel=0.15)
    assert width(noise=1.0) > width(seeds=10, noise=1.0) > 0.6 * width(noise=0.0)


def test_delong_over_runs_agrees_with_the_bootstrap():
    made = Repeated.arrange(predictions(repeats=3, seeds=2), FOLDS)
    delong = made.difference("a", "b", "roc_auc", 0.95)
    drawn = bootstrap.paired_difference(made.drawn("a")["roc_auc"], made.drawn("b")["roc_auc"], 0.95, N)
    assert drawn.high - drawn.low == pytest.approx(delong.high - delong.low, rel=0.15)


@pytest.mark.parametrize("runs", [{}, {"seeds": 2}, {"repeats": 2}])
def test_at_the_ceiling_a_difference_is_no_point_and_no_surer_for_more_runs(runs):
    table = predictions(**runs)
    jitter = np.random.default_rng(1).random(len(table))
    perfect = table.assign(prob=np.where(table["label"] == 1, 0.6, 0.2) + 0.2 * jitter)
    made = Repeated.arrange(perfect, FOLDS)
    for metric in ("roc_auc", "f1", "accuracy"):
        found = made.difference("a", "b", metric, 0.95)
        assert found.difference == 0 and found.p == 1
        low = made.own("b", 0.95).loc[metric, "low"]
        assert (found.low, found.high) == pytest.approx((low - 1, 1 - low)) and low < 0.999
        once = Repeated.arrange(perfect.query("fold < @FOLDS and seed == 0"), FOLDS).difference("a", "b", metric, 0.95)
        assert (found.low, found.high) == pytest.approx((once.low, once.high))
    gap = made.contrast("a", "sensitivity", "specificity", 0.95)
    assert gap.low < gap.difference == 0 < gap.high
    one = Repeated.arrange(perfect.where(perfect["variant"] == "a", table), FOLDS)
    found = one.difference("a", "b", "roc_auc", 0.95)
    influence = one.auc("b")[1]
    assert found.high > found.difference + 1.96 * np.sqrt(influence @ influence), "a may lose what it has not lost here"


def test_a_model_that_lacks_a_training_is_refused_and_the_others_are_not():
    table = predictions(seeds=2)
    made = Repeated.arrange(table[~((table["variant"] == "b") & (table["seed"] == 1) & (table["fold"] == 0))], FOLDS)
    assert made.auc("a")[0] > 0.5
    with pytest.raises(ValueError, match="b did not predict every patient"):
        made.difference("a", "b", "roc_auc", 0.95)


def test_predictions_of_two_cohorts_are_refused():
    table = predictions()
    odd = (table["variant"] == "b") & (table["patient_id"] == "P005")
    with pytest.raises(ValueError, match="P005 has two labels"):
        Repeated.arrange(table.assign(label=table["label"].where(~odd, 1 - table["label"])), FOLDS)
    with pytest.raises(ValueError, match="two folds"):
        Repeated.arrange(table.assign(fold=table["fold"].where(~odd, (table["fold"] + 1) % FOLDS)), FOLDS)
