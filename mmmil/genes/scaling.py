"""Levels to tokens: genes scaled on the fitted patients, then one latent per gene set, or one vector of single genes.

What is fitted (means, deviations, the autoencoder) reads the rows that `fitted` names and no other; the transform then
covers all rows (Preprocessing, Fig. 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mmmil.genes.autoencoder import GeneSetAutoencoder, index_table

# Deviations are not taken below these, so that what hardly varies in training is not blown up elsewhere.
GENE_FLOOR = 0.1  # log2 units, or training deviations of a matrix of z-scores
TOKEN_FLOOR = 0.05  # of the root mean square deviation over all latents


def gene_scale(level: np.ndarray, fitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (not below GENE_FLOOR) of every gene over the fitted patients, both (genes,) float64.

    level: (patients, genes); fitted: rows, int.
    """
    fitted_level = level[fitted].astype(np.float64)
    return fitted_level.mean(axis=0), np.maximum(fitted_level.std(axis=0), GENE_FLOOR)


def scaled_genes(level: np.ndarray, mean: np.ndarray, sd: np.ndarray, clip: float = 0.0) -> np.ndarray:
    """Levels (patients, genes) less `mean`, by `sd`, as from `gene_scale`, then cut at `clip` deviations (0: not cut);
    the same shape, float32.
    """
    scaled = (level - mean) / sd
    return (np.clip(scaled, -clip, clip) if clip else scaled).astype(np.float32)


def scale_genes(level: np.ndarray, fitted: np.ndarray, clip: float = 0.0) -> np.ndarray:
    """Every gene to mean 0 and deviation 1 on the fitted patients, then cut at `clip` deviations (0: not cut).

    level: (patients, genes); fitted: rows, int. Returns (patients, genes) float32.
    """
    return scaled_genes(level, *gene_scale(level, fitted), clip)


def token_scale(latents: np.ndarray, fitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of every latent of every set over the fitted patients, both (sets, latent) float64.

    latents: (patients, sets, latent); fitted: rows, int. Deviations are not below TOKEN_FLOOR of their mean square.
    """
    fitted_latents = latents[fitted].astype(np.float64)
    sd = fitted_latents.std(axis=0)
    floor = max(TOKEN_FLOOR * float(np.sqrt(np.square(sd).mean())), 1e-12)
    return fitted_latents.mean(axis=0), np.maximum(sd, floor)


def scale_tokens(latents: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Latents (patients, sets, latent) less `mean`, by `sd`, as from `token_scale`; the same shape, float32."""
    return ((latents - mean) / sd).astype(np.float32)


def encode_sets(
    level: np.ndarray,
    symbols: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    fitted: np.ndarray,
    covered: np.ndarray,
    model: GeneSetAutoencoder,
) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Fit the autoencoder on the fitted patients' levels of the sets, and encode the covered ones.

    level: (patients, symbols), as the autoencoder is to see them; fitted, covered: rows, int. Returns the latents
    (covered, sets, latent); the masked MSE by epoch (mse_train, and mse_unseen where a covered patient was not fitted,
    which is shown and decides nothing); and a table by set: size, mse_train, and for the same patients mse_eval and
    mse_eval_of_mean, the error of saying the training mean for every gene.
    """
    index = index_table(sets, symbols)
    unseen = np.setdiff1d(covered, fitted)
    model.fit(level[fitted], index, level[unseen])
    errors = pd.DataFrame({"size": (index >= 0).sum(axis=1)}, index=pd.Index(sets, name="set"))
    errors["mse_train"] = model.errors(level[fitted], index)
    errors["mse_eval"] = errors["mse_eval_of_mean"] = np.nan
    if len(unseen):
        errors["mse_eval"] = model.errors(level[unseen], index)
        of_mean = np.square(level[unseen] - level[fitted].mean(axis=0)).mean(axis=0)
        errors["mse_eval_of_mean"] = [of_mean[columns[columns >= 0]].mean() for columns in index]
    epochs = pd.RangeIndex(1, model.epochs + 1, name="epoch")
    return model.transform(level[covered], index), pd.DataFrame(model.history, index=epochs), errors
