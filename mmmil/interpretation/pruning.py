"""What APoZ pruning took away: the channels kept by every training, and the activations before and after.

Read from finished trainings (`apoz.csv`) and from the encoders they started with; nothing is trained here.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from mmmil import paper, variants
from mmmil.models import backbone
from mmmil.training import build, device, runs

if TYPE_CHECKING:
    from mmmil.study import Study

(REDUCED,) = paper.PROPOSED["slides"]  # the paper's model of images alone, whose backbone is pruned


def kept_channels(study: Study, name: str = REDUCED) -> pd.DataFrame:
    """Whether each channel was kept by each training of a variant: (channels, folds) bool, -1 the final model.

    Trainings that failed in the batch have no column.
    """
    folds = [fold for fold in study.fold_numbers if runs.failure(study, name, fold) is None]
    folders = runs.run_all(study, [runs.Training(name, fold) for fold in folds])
    tables = [pd.read_csv(folder / "apoz.csv", index_col="channel") for folder in folders]
    kept = {fold: table["kept"] for fold, table in zip(folds, tables, strict=True)}
    return pd.DataFrame(kept).rename_axis(columns="fold")


def agreement(kept: pd.DataFrame) -> pd.DataFrame:
    """How far trainings agree on the channels, in one row; kept (channels, trainings) bool, the same number in each.

    shared: the mean number of channels that two trainings have in common; by chance: what it would be if each
    drew its channels at random: k^2 / C for k of C.
    """
    counts, number = kept.sum(axis=1), int(kept.sum().iloc[0])
    shared = [int((kept[a] & kept[b]).sum()) for a, b in combinations(kept.columns, 2)]
    row = {
        "trainings": kept.shape[1],
        "channels": len(kept),
        "kept": number,
        "kept by all": int((counts == kept.shape[1]).sum()),
        "by some": int(((counts > 0) & (counts < kept.shape[1])).sum()),
        "by none": int((counts == 0).sum()),
        "shared": round(float(np.mean(shared)), 1) if shared else float(number),
        "by chance": round(number**2 / len(kept), 1),
    }
    return pd.DataFrame([row], index=["channels of the last convolution"])


def before_and_after(study: Study, fold: int = -1) -> tuple[nn.Module, nn.Module, pd.DataFrame]:
    """The encoder of REDUCED as a fold's training starts with it, whole and pruned, both in evaluation mode on the CPU.

    The third has every channel's apoz and whether it is kept, as the training records them in `apoz.csv`. Both are
    made again by the same steps, so that they are there where the training itself failed.
    """
    v = variants.variant(REDUCED)
    train = [study.patients.index(patient) for patient in study.fold_patients(fold)[0]]
    p = study.p.override(batch_norm="fixed")  # "batch" would leave the statistics of an unpruned one as they came
    encoders = []
    for kind in ("uib", "reduced"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(build.start_seed(p, fold))
            encoder, table = build.tile_encoder(
                p, replace(v, backbone=kind), study.bags(fold), study.tile_masks, train, device.make_fabric(p)
            )
        encoders.append(encoder.cpu().eval())
    return *encoders, table.rename_axis("channel")


def training_tiles(study: Study, fold: int, number: int) -> np.ndarray:
    """Up to `number` tiles (n, px, px, 3) uint8 of a fold's training patients, one from each patient in turn."""
    bags, masks = study.bags(fold), study.tile_masks
    rows = [study.patients.index(patient) for patient in study.fold_patients(fold)[0]]
    places = [(i, tile) for tile in range(masks.shape[1]) for i in rows if masks[i, tile]]
    return np.stack([bags[i][tile] for i, tile in places[:number]])


@torch.no_grad()
def feature_maps(encoder: nn.Module, tiles: np.ndarray) -> np.ndarray:
    """Activations (n, C, px/32, px/32) of tiles (n, px, px, 3) uint8 after the last ReLU."""
    return encoder.feature_map(backbone.to_input(torch.from_numpy(tiles), encoder.mean, encoder.std)).numpy()


def token_statistics(before: np.ndarray, after: np.ndarray) -> pd.DataFrame:
    """Image tokens of the same tiles before and after pruning, one row each; before (n, C), after (n, K).

    Columns: length of a token; mean and standard deviation of its values; share of values that are zero; channels that
    are zero on every tile; share of the activation summed before; and how well the distances between tiles are kept
    (Pearson's correlation of all pairwise Euclidean distances). Raises ValueError for fewer than three tiles.
    """
    if len(before) < 3 or len(before) != len(after):
        raise ValueError(f"tokens of the same three tiles or more are compared, not of {len(before)} and {len(after)}")
    rows = {
        name: {
            "length": tokens.shape[1],
            "mean": tokens.mean(),
            "standard deviation": tokens.std(),
            "zero values": (tokens == 0).mean(),
            "zero channels": (tokens == 0).all(0).sum(),
            "share of the activation": tokens.sum() / before.sum(),
            "correlation of distances": np.corrcoef(_distances(before), _distances(tokens))[0, 1],
        }
        for name, tokens in (("before", before), ("after", after))
    }
    return pd.DataFrame(list(rows.values()), index=list(rows))


def _distances(tokens: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import pdist

    return pdist(tokens.astype(np.float64))
