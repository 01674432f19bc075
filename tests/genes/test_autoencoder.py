"""The masked autoencoder: it learns, ignores padding and repeats itself."""

import numpy as np
import pytest
import torch

from mmmil.genes.autoencoder import LR, GeneSetAutoencoder, MaskedMLP, _Pairs, index_table


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


def padded(model, level, index, epochs):
    """Weights after training on pairs that are all padded to the longest set, by the formula as it is written."""
    patients, sets = len(level), len(index)
    mask = np.tile(index >= 0, (patients, 1))
    x = torch.tensor(np.where(mask, level[:, index].reshape(patients * sets, -1), 0), dtype=torch.float64)
    mask = torch.tensor(mask, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.seed)
        network = MaskedMLP(index.shape[1], model.hidden, model.latent)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    draw = torch.Generator().manual_seed(model.seed)
    for _ in range(epochs):
        for batch in model._batches(_Pairs(level, index), draw):
            squared = mask[batch] * (network.decode(network.encode(x[batch]), x.shape[1]) - x[batch]) ** 2
            if model.average == "set":
                loss = (squared.sum(1) / mask[batch].sum(1)).mean()
            else:  # the mean number of genes in place of the batch's own
                loss = squared.sum() / (len(batch) * mask.sum(1).mean())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.state_dict()


@pytest.fixture
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("average", ["element", "set"])
def test_weights_are_those_of_a_fully_padded_training(level, index, doubles, average):
    model = small(average=average, epochs=3)
    model.fit(level, index)
    plain = padded(model, level, index, 3)
    for name, value in model.network.state_dict().items():
        assert value.numpy() == pytest.approx(plain[name].numpy(), abs=1e-10), name


def test_averages_differ_for_sets_of_different_sizes_only(level, index):
    def weights(average, index):
        model = small(average=average, epochs=3)
        model.fit(level, index)
        return torch.cat([value.ravel() for value in model.network.state_dict().values()])

    assert torch.equal(weights("set", index[:, :10]), weights("element", index[:, :10]))
    assert (weights("set", index) - weights("element", index)).abs().max() > 1e-3


def test_unseen_patients_are_measured_and_not_trained_on(level, index):
    without, model = small(), small()
    losses = without.fit(level[:20], index)
    assert model.fit(level[:20], index, unseen=level[20:]) == losses
    assert without.history == {"mse_train": losses} and list(model.history) == ["mse_train", "mse_unseen"]
    for name, value in without.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value), name
    sizes = (index >= 0).sum(axis=1)
    own, others = (np.average(model.errors(rows, index), weights=sizes) for rows in (level[:20], level[20:]))
    assert model.history["mse_unseen"][-1] == pytest.approx(others, rel=1e-12) and others > own
    shorter = small(epochs=4)
    shorter.fit(level[:20], index, unseen=level[20:])
    assert shorter.history["mse_unseen"] == model.history["mse_unseen"][:4]
    model.fit(level[:20], index, unseen=level[:0])
    assert model.history == {"mse_train": losses}


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
    with pytest.raises(ValueError, match="missing or infinite"):
        small().fit(level, index, unseen=np.full_like(level, np.nan))
    with pytest.raises(ValueError, match="average is 'gene'; give 'element' or 'set'"):
        small(average="gene")
