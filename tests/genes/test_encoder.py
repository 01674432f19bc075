"""The encoder half inside the model: it starts as the autoencoder left it, and is trained with the rest."""

import numpy as np
import pytest
import torch

from mmmil.genes.autoencoder import GeneSetAutoencoder, index_table
from mmmil.genes.encoder import GeneSetEncoder
from mmmil.genes.scaling import scale_tokens, token_scale
from mmmil.models.bag_model import BagModel
from mmmil.models.fusion import MultimodalMIL

SETS = {"one": ["a", "b", "c"], "two": ["c", "d", "e", "f", "g"], "three": ["h", "a"]}


@pytest.fixture
def fitted():
    level = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    index = index_table(SETS, list("abcdefgh"))
    model = GeneSetAutoencoder(hidden=8, latent=6, epochs=2, batch=16)
    model.fit(level, index)
    return level, index, model


def test_untrained_it_makes_the_very_tokens(fitted):
    level, index, model = fitted
    latents = model.transform(level, index)
    mean, sd = token_scale(latents, np.arange(20))
    encoder = GeneSetEncoder(model.network, index, mean, sd)
    with torch.no_grad():
        assert np.allclose(encoder(torch.from_numpy(level)), scale_tokens(latents, mean, sd), atol=1e-5)
        plain = GeneSetEncoder(model.network, index, 0.0, 1.0)
        assert np.allclose(plain(torch.from_numpy(level)), latents, atol=1e-6)
    assert encoder.channels == 6


def test_making_it_draws_no_random_number_and_shares_no_weight(fitted):
    _, index, model = fitted
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    encoder = GeneSetEncoder(model.network, index, 0.0, 1.0)
    assert torch.rand(1) == expected
    before = model.network.encode_hidden.weight.clone()
    with torch.no_grad():
        encoder.hidden.weight.add_(1)
    assert torch.equal(model.network.encode_hidden.weight, before)


@pytest.mark.parametrize("fusion", ["genes", "dual"])
def test_the_loss_reaches_every_weight_of_it(fitted, fusion):
    level, index, model = fitted
    encoder = GeneSetEncoder(model.network, index, 0.0, 1.0)
    whole = BagModel(MultimodalMIL(fusion, 7, 6, 3, width=24, heads=4), None, encoder)
    logits, att = whole(torch.randn(30, 5, 7) if fusion == "dual" else None, torch.from_numpy(level))
    assert logits.shape == (30, 2) and att["self_genes"].shape == (30, 4, 3)
    logits[:, 0].sum().backward()
    for name in ("hidden", "latent"):
        gradient = getattr(encoder, name).weight.grad
        assert gradient is not None and gradient.abs().sum() > 0
    assert (encoder.hidden.weight.grad[:, : index.shape[1]].abs().sum(0) > 0).all()
