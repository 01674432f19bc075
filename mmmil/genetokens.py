"""Levels to tokens: genes scaled on the fitted patients, then one latent per gene set, or one vector of single genes.

What is fitted (means, deviations, the autoencoder) reads the rows that `fitted` names and no other; the transform then
covers all rows (Preprocessing, Fig. 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mmmil.autoencoder import GeneSetAutoencoder, index_table

# Deviations are not taken below these, so that what hardly varies in training is not blown up elsewhere.
GENE_FLOOR = 0.1  # log2 units, or training deviations of a matrix of z-scores
TOKEN_FLOOR = 0.05  # of the root mean square deviation over all latents


def scale_genes(level: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Every gene to mean 0 and deviation 1 on the fitted patients.

    level: (patients, genes); fitted: rows, int. Returns (patients, genes) float32.
    """
    own = level[fitted].astype(np.float64)
    return ((level - own.mean(axis=0)) / np.maximum(own.std(axis=0), GENE_FLOOR)).astype(np.float32)


def scale_tokens(latents: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Every latent of every set to mean 0 and deviation 1 on the fitted patients.

    latents: (patients, sets, latent); fitted: rows, int. Returns the same shape, float32.
    """
    own = latents[fitted].astype(np.float64)
    mean, sd = own.mean(axis=0), own.std(axis=0)
    floor = max(TOKEN_FLOOR * float(np.sqrt(np.square(sd).mean())), 1e-12)
    return ((latents - mean) / np.maximum(sd, floor)).astype(np.float32)


def encode_sets(
    level: np.ndarray,
    symbols: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    fitted: np.ndarray,
    covered: np.ndarray,
    model: GeneSetAutoencoder,
) -> tuple[np.ndarray, pd.Series, pd.DataFrame]:
    """Fit the autoencoder on the fitted patients' levels of the sets, and encode the covered ones.

    level: (patients, symbols), as the autoencoder is to see them; fitted, covered: rows, int. Returns the latents
    (covered, sets, latent), the masked MSE by epoch, and a table by set: size, mse_train, and where a covered patient
    was not fitted mse_eval and mse_eval_of_mean, the error of saying the training mean for every gene.
    """
    index = index_table(sets, symbols)
    losses = model.fit(level[fitted], index)
    errors = pd.DataFrame({"size": (index >= 0).sum(axis=1)}, index=pd.Index(sets, name="set"))
    errors["mse_train"] = model.errors(level[fitted], index)
    unseen = np.setdiff1d(covered, fitted)
    errors["mse_eval"] = errors["mse_eval_of_mean"] = np.nan
    if len(unseen):
        errors["mse_eval"] = model.errors(level[unseen], index)
        of_mean = np.square(level[unseen] - level[fitted].mean(axis=0)).mean(axis=0)
        errors["mse_eval_of_mean"] = [of_mean[columns[columns >= 0]].mean() for columns in index]
    epochs = pd.RangeIndex(1, len(losses) + 1, name="epoch")
    return model.transform(level[covered], index), pd.Series(losses, index=epochs, name="mse_train"), errors
