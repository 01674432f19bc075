"""The page of repeated cross-validation is of whole records alone, and of the task's own numbers."""

import itertools
import sys

import numpy as np
import pandas as pd
import pytest

from mmmil import params, results
from mmmil.training import runs
from tests import small_studies
from tests.benchmarks.test_benchmarks import ROOT


@pytest.fixture
def real_repeats(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import real_repeats

    yield real_repeats
    sys.modules.pop("real_repeats")


@pytest.fixture
def p():
    few = {"repeats": 2, "n_folds": 2, "model_seeds": 2, "variants": ["wsi", "go", "dual_go", "baseline_genes"]}
    return params.load("real_lgg_repeats").override(**few)


@pytest.fixture
def predictions(p):
    random, rows = np.random.default_rng(0), []
    for name, seed, fold, i in itertools.product(p.variants, (0, 1), (*range(4), -1), range(20)):
        label = i % 2
        rows.append(
            (name, seed, fold, "test" if fold < 0 else "val", f"P{fold % 2}-{i}" if fold >= 0 else f"T{i}", label)
        )
    table = pd.DataFrame(rows, columns=["variant", "seed", "fold", "split", "patient_id", "label"])
    signal = table["label"] * table["variant"].map({"wsi": 0.2, "go": 0.5, "dual_go": 1.0, "baseline_genes": 0.5})
    return table.assign(prob=1 / (1 + np.exp(-signal - random.normal(size=len(table)))))


def test_every_model_and_pair_has_a_row_with_its_numbers(real_repeats, p, predictions):
    real_repeats.require_whole(predictions, p)
    _, _, *models = filter(None, real_repeats.of_models(predictions, p))
    assert len(models) == 4
    _, _, *pairs = filter(None, real_repeats.of_pairs(predictions, p))
    assert {"WSI + GO, dual-attention", "GO sets"} <= {cell for pair in pairs for cell in pair.strip("| ").split(" | ")}
    assert all(pair.endswith("| 40 |") for pair in pairs)


def test_what_one_cross_validation_cannot_tell_is_left_blank(real_repeats, p, predictions):
    once = predictions[predictions["fold"] < p.n_folds]
    _, _, *models = filter(None, real_repeats.of_models(once, p.override(repeats=1)))
    assert [model.split(" | ")[3] for model in models] == ["–"] * 4 and not any("nan" in model for model in models)


@pytest.mark.parametrize("left_out", ["seed == 1", "fold == 3", "variant == 'go'"])
def test_a_record_that_lacks_some_ends_with_what_to_run(real_repeats, p, predictions, left_out):
    some = predictions.query(f"not ({left_out} and variant == 'go')")
    with pytest.raises(SystemExit, match=r"go has \d folds and \d seeds, not 4 and 2: run make real"):
        real_repeats.require_whole(some, p)


def test_a_record_of_other_settings_is_not_shown_under_todays(real_repeats, tmp_path):
    few = {"sim_patients": 24, "sim_slide_px": 512, "sim_genes": 600, "n_tiles": 4, "n_folds": 2}
    s = small_studies.make(tmp_path, **few, variants=["baseline_genes"])
    assert real_repeats.recorded(s.p) is None
    made = runs.predictions(s)
    results.write(s.p, results.PREDICTIONS, made)
    pd.testing.assert_frame_equal(real_repeats.recorded(s.p), made)
    with pytest.raises(SystemExit, match=r"error: .*baseline_genes"):
        real_repeats.recorded(s.p.override(seed=s.p.seed + 1))
