"""Augmentation of tiles on the device that trains: turns, flips and a mild change of colour; the paper states none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

JITTER = 0.05  # each channel's gain is 1 ± this and its shift ± half of it: mild, so that stains stay stains


@dataclass(frozen=True)
class Draws:
    """What was drawn for each of B patients: turn (B,) 0..7, colour (B, 2, 3) gain and shift of each channel."""

    turn: Tensor
    colour: Tensor

    def __getitem__(self, which: slice) -> Draws:
        return Draws(self.turn[which], self.colour[which])


def draw(n: int, generator: torch.Generator) -> Draws:
    """Draws for `n` patients: a turn, and per channel a gain of 1 ± JITTER and a shift of ± JITTER/2, uniform.

    They come from the generator of a CPU, so that they are the same on every device and for any number of processes.
    """
    turn = torch.randint(0, 8, (n,), generator=generator)
    by = 2 * torch.rand((n, 2, 3), generator=generator) - 1
    return Draws(turn, torch.tensor([1.0, 0.0])[:, None] + by * torch.tensor([JITTER, JITTER / 2])[:, None])


def turned(tiles: Tensor, turn: Tensor) -> Tensor:
    """Each patient's tiles (B, N, px, px, 3) turned by a multiple of 90 degrees; mirrored as well from 4 on."""
    out = []
    for bag, by in zip(tiles, turn.tolist(), strict=True):
        bag = torch.rot90(bag, by % 4, (1, 2))
        out.append(bag.flip(1) if by >= 4 else bag)
    return torch.stack(out)
