"""Marks of a column: the best, what a paired test does not tell from it, and what it does."""

import numpy as np
import pandas as pd
import pytest

from mmmil import params
from mmmil.evaluation import best
from mmmil.tables.estimates import estimate


@pytest.fixture(scope="module")
def models():
    """Three models on 200 patients: sharp, nearly the same, and one that knows nothing."""
    rng, label = np.random.default_rng(0), np.arange(200) % 2
    sharp = label + rng.normal(0, 0.8, 200)
    logits = {"dual_go": sharp, "go": sharp + rng.normal(0, 0.05, 200), "wsi": rng.normal(size=200)}
    frames = [
        pd.DataFrame(
            {"variant": name, "seed": 0, "fold": np.arange(200) // 2 % 5, "split": "val", "label": label}
        ).assign(patient_id=[f"P{i}" for i in range(200)], prob=1 / (1 + np.exp(-logit)))
        for name, logit in logits.items()
    ]
    p = params.load("lgg", "demo", n_folds=5, repeats=1, model_seeds=1)
    return best.arranged(pd.concat(frames), p, "val", list(logits))


WIDE = {"dual_go": estimate(0.82, 0.5, 0.9), "go": estimate(0.81, 0.5, 0.9), "wsi": estimate(0.52, 0.4, 0.6)}


@pytest.mark.parametrize("metric", ["roc_auc", "pr_auc", "accuracy"])
def test_a_paired_test_tells_what_intervals_do_not(models, metric):
    assert best.marks(WIDE, metric, models) == {"dual_go": "best", "go": "alike", "wsi": ""}
    assert best.marks(WIDE, metric) == {"dual_go": "best", "go": "alike", "wsi": "alike"}
    assert best.rule(models) != best.rule(None)


def test_intervals_that_do_not_meet_tell_apart():
    apart = {"go": estimate(0.9, 0.8, 0.95), "wsi": estimate(0.6, 0.5, 0.7), "kegg": estimate(0.9, 0.85, 0.95)}
    assert best.marks(apart, "roc_auc") == {"go": "best", "wsi": "", "kegg": "best"}


def test_what_has_no_value_or_no_rival_has_no_mark():
    failed = estimate(float("nan"))
    assert best.marks({"go": estimate(0.9, 0.8, 1.0), "wsi": failed}, "roc_auc") == {"go": "", "wsi": ""}
    assert best.marks({}, "roc_auc") == {}


def test_a_model_without_predictions_is_not_told_apart(models):
    column = WIDE | {"kegg": estimate(0.6, 0.5, 0.7)}
    assert best.marks(column, "roc_auc", models)["kegg"] == "alike"
