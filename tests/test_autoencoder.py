"""The masked autoencoder: it learns, ignores padding and repeats itself."""

import numpy as np
import pytest
import torch

from mmmil.autoencoder import GeneSetAutoencoder, MaskedMLP, _Pairs, index_table


@pytest.fixture
def level():
    draw = np.random.default_rng(0)
    return (draw.normal(size=(30, 3)) @ draw.normal(size=(3, 40)) / 2).astype(np.float32)


@pytest.fixture
def index():
    genes = [f"g{i}" for i in range(40)]
    sets = {"long": genes[:25], "short": genes[25:35], "overlapping": genes[20:40]}
    return index_table(sets, genes)


def small(**changes):
    return GeneSetAutoencoder(**{"hidden": 16, "latent": 4, "epochs": 15, "batch": 16, "seed": 1} | changes)


def test_index_table(index):
    assert index.shape == (3, 25)
    assert index[1, :10].tolist() == list(range(25, 35)) and (index[1, 10:] == -1).all()
    with pytest.raises(KeyError, match="g99"):
        index_table({"set": ["g99"]}, ["g1"])


def test_loss_falls_and_errors_agree(level, index):
    model = small(epochs=60)
    losses = model.fit(level, index)
    assert len(losses) == 60 and losses[-1] < 0.5 * losses[0]
    sizes = (index >= 0).sum(axis=1)
    assert np.average(model.errors(level, index), weights=sizes) == pytest.approx(losses[-1], rel=0.2)


def test_latents(level, index):
    model = small()
    model.fit(level, index)
    latents = model.transform(level, index)
    assert latents.shape == (30, 3, 4) and latents.dtype == np.float32
    padded = np.zeros((30, 25), dtype=np.float32)
    padded[:, :10] = level[:, 25:35]
    with torch.no_grad():
        whole = model.network.encode(torch.from_numpy(padded)).numpy()
    assert latents[:, 1] == pytest.approx(whole, abs=1e-6)


def test_padding_changes_nothing(level, index):
    model = small()
    model.fit(level, index)
    more = np.pad(index, ((0, 0), (0, 7)), constant_values=-1)
    wide = MaskedMLP(32, 16, 4)
    with torch.no_grad():
        for name, value in wide.named_parameters():
            old = dict(model.network.named_parameters())[name]
            value[tuple(slice(n) for n in old.shape)] = old
    wider = small()
    wider.network = wide
    assert np.array_equal(wider.transform(level, more), model.transform(level, index))
    assert np.array_equal(wider.errors(level, more), model.errors(level, index))


def test_masked_loss_counts_real_genes_only(level, index):
    x, mask = _Pairs(level, index)[torch.arange(6)]
    assert x.shape == (6, 25)
    assert mask.sum(dim=1).tolist() == [25, 10, 20] * 2
    assert (x[mask == 0] == 0).all()
    assert np.array_equal(x[4, :10], level[1, 25:35])


def test_bitwise_repeatable(level, index):
    first, again, other = small(), small(), small(seed=2)
    state = torch.random.get_rng_state()
    assert first.fit(level, index) == again.fit(level, index)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(first.transform(level, index), again.transform(level, index))
    other.fit(level, index)
    assert not np.array_equal(first.transform(level, index), other.transform(level, index))


def test_all_pairs_once_per_epoch(level, index):
    batches = small()._batches(_Pairs(level, index), torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(90))


def test_saved_and_loaded(level, index, tmp_path):
    model = small()
    model.fit(level, index)
    model.save(tmp_path / "a.safetensors")
    loaded = GeneSetAutoencoder.load(tmp_path / "a.safetensors")
    assert np.array_equal(loaded.transform(level, index), model.transform(level, index))


def test_refusals(level, index):
    with pytest.raises(ValueError, match="missing or infinite"):
        small().fit(np.where(level == level[0, 0], np.nan, level), index)
    with pytest.raises(ValueError, match="every set needs genes"):
        small().fit(level, index[:, ::-1].copy())
