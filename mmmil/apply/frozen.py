"""The frozen tile encoder behind a kept model: made again from its published weights, and known by their checksum."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmmil.apply.folder import KeptModel, ModelError
from mmmil.params import Params
from mmmil.training import features

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from mmmil.models.backbone import FrozenEncoder


def checksum(made: torch.nn.Module) -> str:
    """SHA-256 of a network's tensors, by name."""
    hasher = hashlib.sha256()
    for name, value in sorted(made.state_dict().items()):
        hasher.update(name.encode())
        hasher.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return hasher.hexdigest()


def required(kept: KeptModel, p: Params, fabric: Fabric) -> FrozenEncoder:
    """The encoder that a kept model reads features of. Raises ModelError where its weights are others."""
    image = kept.about["image"]
    made = features.encoder(p, image["encoder"], fabric)
    if checksum(made) != image["sha256"]:
        raise ModelError(
            f"{kept.folder} was trained on features of {image['encoder']} with other weights than those found here: "
            "give the folder of the right ones (weights_dir)"
        )
    return made
