"""Tokens at mean 0 and deviation 1 of the training patients', inside the model: the same constant added to every token
changes nothing, and neither does the unit of an encoder's features. The paper does not say how its tokens are scaled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 0.05  # of the root mean square deviation: what hardly varies in training is not blown up elsewhere


class Standardise(nn.Module):
    """(x - mean) / deviation. shape: of what has a mean of its own, (D,) of image tokens or (S, D) of gene sets."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))

    @torch.no_grad()
    def measure(self, tokens: Tensor) -> None:
        """Take the statistics of training tokens (n, ...), instances or patients; in float64, whatever their type."""
        values = tokens.double()
        deviation = values.std(0, correction=0)
        floor = (FLOOR * deviation.square().mean().sqrt()).clamp_min(1e-12)
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(torch.maximum(deviation, floor))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) or (B, S, D), the same shape, in float32 at least: half precision would round off the mean."""
        return (x.float() - self.mean) / self.deviation
