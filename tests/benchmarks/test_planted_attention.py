"""Layers, rollout and gradient on planted truth: 5 to 15 % of the tiles, 10 % of the sets, a converged training."""

import importlib
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def benchmark():
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("planted_attention")
    sys.path.remove(folder)


def test_few_tiles_are_planted_and_in_class_1_alone(benchmark):
    drawn = benchmark.cohort(0, 40, 0.3)
    share = drawn.planted_tiles.mean(1)
    shown = share > 0
    assert not shown[drawn.labels == 0].any() and 0.5 < shown[drawn.labels == 1].mean() < 0.9
    assert (share[shown] >= 0.04).all() and (share <= 0.16).all() and drawn.planted_sets.sum() == 4


@pytest.mark.parametrize("fusion", ["image", "genes"])
def test_rollout_and_gradient_find_what_was_planted(benchmark, fusion):
    found = benchmark.read(fusion, "exact", seed=0)
    print(found)
    auroc = {source.split("_")[0]: value for source, value in found["found"].items()}
    assert found["auc"].iloc[0] >= 0.7, "the training learnt it"
    assert auroc["rollout"] >= 0.85 and auroc["layer1"] >= 0.85 and auroc["rollout"] >= auroc["self"]
    assert auroc["gradient"] >= 0.85
    assert set(auroc) == {"layer1", "self", "rollout", "gradient"}
    of_attention = found[~found.index.str.startswith("gradient")]
    assert of_attention["evenness"].between(0.3, 1).all()
