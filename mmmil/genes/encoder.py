"""The autoencoder's encoder half inside the model, trained with the rest of it (`gene_encoder: trained`).

The paper fixes the latents before training and leaves this half out of its end-to-end learning (Proposed Method).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmil.genes.autoencoder import MaskedMLP


class GeneSetEncoder(nn.Module):
    """Levels of the sets' genes to one token per set; at first the very tokens of the fitted autoencoder.

    network: the fitted autoencoder's; index: (sets, L) columns of each set's genes, padded with -1; mean, sd: what
    scales the latents, (sets, latent), or 0 and 1.
    """

    index: Tensor
    mean: Tensor
    sd: Tensor

    def __init__(self, network: MaskedMLP, index: np.ndarray, mean: np.ndarray | float, sd: np.ndarray | float):
        super().__init__()
        self.hidden = _copied(network.encode_hidden)
        self.latent = _copied(network.encode_latent)
        self.register_buffer("index", torch.as_tensor(index))
        shape = (len(index), self.latent.out_features)
        for name, value in (("mean", mean), ("sd", sd)):
            self.register_buffer(name, torch.from_numpy(np.array(np.broadcast_to(value, shape), np.float32)))

    @property
    def channels(self) -> int:
        return self.latent.out_features

    def forward(self, level: Tensor) -> Tensor:
        """(B, genes) -> (B, sets, latent)."""
        rows = F.pad(level, (0, 1))[:, self.index]  # -1 is the column of zeros that was added
        return (self.latent(self.hidden(rows).relu()) - self.mean) / self.sd


def _copied(layer: nn.Linear) -> nn.Linear:
    """A layer of its own with the same weights, made without drawing a random number."""
    copy = nn.utils.skip_init(nn.Linear, layer.in_features, layer.out_features)
    copy.load_state_dict(layer.state_dict())
    return copy
