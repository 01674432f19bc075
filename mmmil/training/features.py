"""Features of a frozen tile encoder, computed once for a cohort's bags and read by all trainings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmmil import record
from mmmil.models import backbone, weights
from mmmil.training import device

if TYPE_CHECKING:
    from mmmil.study import Study


def frozen_features(study: Study, name: str, fold: int) -> np.ndarray:
    """Features (patients, n_tiles, D) float32 of a frozen tile encoder, computed once for the cohort's bags."""
    p = study.p
    inputs = {
        "encoder": name,
        "weights": weights.weights_key(backbone.FROZEN[name], p.weights, p.weights_folder),
        "seed": p.seed if p.weights == "random" else None,
        "bags": study.bag_keys(fold),
        "precision": device.precision_of(p),
        "versions": record.versions("torch", "timm"),
    }

    def make(folder: Path) -> dict:
        fabric = device.make_fabric(p)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(p.seed)
            encoder = backbone.FrozenEncoder(name, p.weights, p.weights_folder).to(fabric.device)
        features = []
        for bag in study.bags(fold):
            with torch.inference_mode(), fabric.autocast():
                tiles = torch.from_numpy(bag).to(fabric.device)[None]
                features.append(encoder(backbone.to_input(tiles, encoder.mean, encoder.std)).float().cpu().numpy())
        np.save(folder / "features.npy", np.stack(features))
        return device.circumstances(p)

    return np.load(record.cached(p.results / "features" / name, inputs, make) / "features.npy")
