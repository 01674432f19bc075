"""What was fitted of the gene road: saved, read back and applied to one patient, with and without all genes."""

import numpy as np
import pytest

from mmmil.genes.autoencoder import GeneSetAutoencoder, index_table
from mmmil.genes.transform import Transform

SYMBOLS = list("abcdef")
SETS = {"one": ["c", "a"], "two": ["a", "d", "e"]}


@pytest.fixture
def level():
    return np.random.default_rng(0).normal(5, 2, (20, 6)).astype(np.float32)


def made(level, scaled=True, clip=5.0):
    columns = level[:, [2, 0, 3, 4]].astype(np.float64)
    model = GeneSetAutoencoder(hidden=4, latent=3, epochs=1)
    values = ((columns - columns.mean(0)) / columns.std(0)).astype(np.float32)
    model.fit(values, index_table(SETS, list("cade")))
    scale = (columns.mean(0), columns.std(0), scaled, clip)
    return Transform(SETS, True, *scale, model, np.zeros((2, 3)), np.full((2, 3), 2.0))


def test_it_is_the_same_when_it_is_read_back_and_for_a_patient_alone(level, tmp_path):
    transform = made(level)
    transform.save(tmp_path)
    again = Transform.load(tmp_path)
    assert again.symbols == list("cade") and again.genes == SETS and again.passed
    tokens = transform.apply(level, SYMBOLS)
    assert tokens.shape == (20, 2, 3) and np.array_equal(again.apply(level, SYMBOLS), tokens)
    assert np.allclose(again.apply(level[3:4], SYMBOLS)[0], tokens[3], atol=1e-6)
    order = [5, 2, 4, 0, 3, 1]
    assert np.array_equal(again.apply(level[:, order], [SYMBOLS[i] for i in order]), tokens)
    assert not {path.suffix for path in tmp_path.iterdir()} - {".json", ".safetensors"}


@pytest.mark.parametrize("scaled", [True, False])
def test_a_missing_gene_has_its_mean_where_that_is_asked_for(level, scaled):
    transform = made(level, scaled)
    kept = [symbol for symbol in SYMBOLS if symbol != "d"]
    less = level[:, [SYMBOLS.index(symbol) for symbol in kept]]
    assert transform.missing(kept) == ["d"]
    with pytest.raises(KeyError):
        transform.levels(less, kept)
    values, whole = transform.levels(less, kept, impute=True), transform.levels(level, SYMBOLS)
    assert np.allclose(values[:, 2], 0 if scaled else transform.mean[2])
    assert np.array_equal(np.delete(values, 2, 1), np.delete(whole, 2, 1))
    deviations = transform.deviations(less, kept)
    raw = (level[:, [0, 4]] - transform.mean[[1, 3]]) / transform.sd[[1, 3]]
    assert np.allclose(deviations[:, 1], raw.mean(1)) and np.isfinite(deviations).all()
    assert np.isnan(transform.deviations(level[:, 5:], ["f"])).all()
