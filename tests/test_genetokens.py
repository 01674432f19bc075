"""Scaling and encoding: fitted rows decide, the others only follow."""

import numpy as np

from mmmil.autoencoder import GeneSetAutoencoder
from mmmil.genetokens import GENE_FLOOR, encode_sets, scale_genes, scale_tokens

FITTED = np.arange(20)


def test_genes_are_scaled_on_fitted_patients():
    level = np.random.default_rng(0).normal(5, 2, (30, 8)).astype(np.float32)
    level[:, 3] = 7.0
    level[25, 3] = 8.0
    scaled = scale_genes(level, FITTED)
    assert scaled.dtype == np.float32
    assert np.allclose(scaled[FITTED].mean(axis=0), 0, atol=1e-5)
    assert np.allclose(np.delete(scaled[FITTED].std(axis=0), 3), 1, atol=1e-5)
    assert np.isclose(scaled[25, 3], 1 / GENE_FLOOR)  # constant in training: bounded by the floor
    level[20:] += 100
    assert np.array_equal(scale_genes(level, FITTED)[FITTED], scaled[FITTED])


def test_tokens_are_scaled_on_fitted_patients():
    latents = np.random.default_rng(0).normal(3, [[1], [5]], (30, 2, 4)).astype(np.float32)
    latents[:, 0, 2] = 1.0  # a dead latent stays zero
    scaled = scale_tokens(latents, FITTED)
    assert np.allclose(scaled[FITTED].mean(axis=0), 0, atol=1e-5)
    assert np.allclose(scaled[FITTED][:, 1].std(axis=0), 1, atol=1e-5)
    assert (scaled[:, 0, 2] == 0).all()


def test_errors_of_unseen_patients():
    level = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    sets = {"one": ["a", "b", "c"], "two": ["c", "d", "e", "f", "g"]}
    model = GeneSetAutoencoder(hidden=8, latent=4, epochs=2, batch=16)
    latents, losses, errors = encode_sets(level, list("abcdefgh"), sets, FITTED, np.arange(5, 30), model)
    assert latents.shape == (25, 2, 4) and len(losses) == 2
    assert errors["size"].tolist() == [3, 5]
    expected = np.square(level[20:, :3] - level[:20, :3].mean(axis=0)).mean()
    assert np.isclose(errors.loc["one", "mse_eval_of_mean"], expected)
    seen = encode_sets(level, list("abcdefgh"), sets, FITTED, FITTED, model)[2]
    assert seen[["mse_eval", "mse_eval_of_mean"]].isna().all(axis=None)  # nobody is unseen
