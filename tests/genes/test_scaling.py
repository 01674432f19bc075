"""Scaling and encoding: fitted rows decide, the others only follow."""

import numpy as np

from mmmil.genes.autoencoder import GeneSetAutoencoder
from mmmil.genes.scaling import GENE_FLOOR, encode_sets, scale_genes, scale_tokens, token_scale

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


def test_outliers_are_cut_after_scaling():
    level = np.random.default_rng(0).normal(0, 1, (30, 8)).astype(np.float32)
    level[2, 1], level[27, 4] = 10_000, -300
    scaled = scale_genes(level, FITTED, 3.0)
    assert scaled.max() == 3 and scaled.min() == -3 and scaled[2, 1] == 3 and scaled[27, 4] == -3
    assert np.array_equal(scaled, scale_genes(level, FITTED).clip(-3, 3))


def test_tokens_are_scaled_on_fitted_patients():
    latents = np.random.default_rng(0).normal(3, [[1], [5]], (30, 2, 4)).astype(np.float32)
    latents[:, 0, 2] = 1.0  # a dead latent stays zero
    scaled = scale_tokens(latents, *token_scale(latents, FITTED))
    assert np.allclose(scaled[FITTED].mean(axis=0), 0, atol=1e-5)
    assert np.allclose(scaled[FITTED][:, 1].std(axis=0), 1, atol=1e-5)
    assert (scaled[:, 0, 2] == 0).all()


def test_errors_of_unseen_patients():
    level = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    sets = {"one": ["a", "b", "c"], "two": ["c", "d", "e", "f", "g"]}
    model = GeneSetAutoencoder(hidden=8, latent=4, epochs=2, batch=16)
    latents, losses, errors = encode_sets(level, list("abcdefgh"), sets, FITTED, np.arange(5, 30), model)
    assert latents.shape == (25, 2, 4) and losses.columns.tolist() == ["mse_train", "mse_unseen"] and len(losses) == 2
    weighted = (errors["mse_eval"] * errors["size"]).sum() / errors["size"].sum()
    assert np.isclose(losses["mse_unseen"].iloc[-1], weighted)
    assert errors["size"].tolist() == [3, 5]
    expected = np.square(level[20:, :3] - level[:20, :3].mean(axis=0)).mean()
    assert np.isclose(errors.loc["one", "mse_eval_of_mean"], expected)
    _, losses, seen = encode_sets(level, list("abcdefgh"), sets, FITTED, FITTED, model)
    assert losses.columns.tolist() == ["mse_train"]
    assert seen[["mse_eval", "mse_eval_of_mean"]].isna().all(axis=None)  # nobody is unseen
