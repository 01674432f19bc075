"""The frozen tile encoder behind a kept model: made again from its published weights, and known by their checksum."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmmil.apply.folder import KeptModel, ModelError
from mmmil.models import backbone
from mmmil.params import Params

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def encoder(p: Params, name: str, fabric: Fabric) -> Any:
    """The encoder as trainings had it, on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(p.seed)  # of random weights, which synthetic cohorts have
        return backbone.FrozenEncoder(p.encoders.get(name, name), p.weights, p.weights_folder).to(fabric.device)


def checksum(made: torch.nn.Module) -> str:
    """SHA-256 of a network's tensors, by name."""
    hasher = hashlib.sha256()
    for name, value in sorted(made.state_dict().items()):
        hasher.update(name.encode())
        hasher.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return hasher.hexdigest()


def required(kept: KeptModel, p: Params, fabric: Fabric) -> Any:
    """The encoder that a kept model reads features of. Raises ModelError where its weights are others."""
    image = kept.about["image"]
    made = encoder(p, image["encoder"], fabric)
    if checksum(made) != image["sha256"]:
        raise ModelError(
            f"{kept.folder} was trained on features of {image['encoder']} with other weights than those found here: "
            "give the folder of the right ones (weights_dir)"
        )
    return made


@torch.inference_mode()
def features(made: Any, tiles: np.ndarray, fabric: Fabric) -> np.ndarray:
    """Features (N, D) float32 of tiles (N, px, px, 3) uint8."""
    with fabric.autocast():
        pixels = torch.from_numpy(tiles).to(fabric.device)[None]
        return made(backbone.to_input(pixels, made.mean, made.std)).float().cpu().numpy()
