"""Tokens are standardised inside the model, by what training patients measured: no constant moves its predictions."""

import pytest
import torch

from mmmil.models.standardise import FLOOR, Standardise


def test_training_tokens_have_mean_0_and_deviation_1_by_their_own_numbers():
    tokens = torch.randn(500, 3, 4, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 5) + 1e3
    scale = Standardise(3, 4)
    scale.measure(tokens)
    found = scale(tokens)
    assert found.mean(0).abs().max() < 1e-3 and (found.std(0, correction=0) - 1).abs().max() < 1e-3


def test_what_hardly_varies_is_not_blown_up_and_what_never_does_stays_finite():
    tokens = torch.randn(100, 3) * torch.tensor([1.0, 1e-4, 0.0]) + 5
    scale = Standardise(3)
    scale.measure(tokens)
    floor = FLOOR * (1 / 3) ** 0.5
    assert scale.deviation[1:].tolist() == pytest.approx([floor, floor], rel=0.2)
    one = Standardise(2)
    one.measure(torch.ones(1, 2))
    assert torch.isfinite(one(torch.zeros(1, 5, 2))).all()


def test_it_is_part_of_the_kept_model():
    assert set(Standardise(2).state_dict()) == {"mean", "deviation"} and not list(Standardise(2).parameters())
