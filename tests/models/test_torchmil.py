"""torchmil's models behind our interface: their own outputs and losses, whatever is padded, trained by the engine."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmmil import params, variants
from mmmil.models import registry
from mmmil.models.bag_model import BagModel
from mmmil.models.torchmil_adapter import ROWS, TorchMIL
from mmmil.training import device, fit
from mmmil.training.fit import Inputs
from tests.models.test_attention import alone, uneven_mask

rows = pytest.mark.parametrize("name", ROWS)


def made(name, n=7, dim=16):
    torch.manual_seed(0)
    model = TorchMIL(name, dim).eval()
    for module in model.modules():
        if hasattr(module, "n_landmarks"):
            module.n_landmarks = 4  # in place of TransMIL's 256, which take seconds
    return model, torch.randn(3, n, dim), uneven_mask([n, 3, n - 2], n)


def theirs(model, bag, method="forward", label=None, **named):
    """torchmil's own method on one bag (N, D), with the mask of real tiles that it may want."""
    call = getattr(model.net, method)
    if "mask" in inspect.signature(call).parameters:
        named["mask"] = torch.ones(1, len(bag), dtype=torch.bool)
    return call(*(() if label is None else (label[None],)), bag[None], **named)


@rows
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_torchmils_own_forward(name, padded):
    model, tiles, mask = made(name)
    logits, att = model(tiles, mask=mask if padded else None)
    assert logits.shape == (3, 2) and (logits[:, 0] == 0).all()
    for i, bag in enumerate(tiles):
        bag = bag[mask[i]] if padded else bag
        if name == "torchmil_dsmil":  # of its two streams: forward gives one, and predicts the mean of both
            y, one_by_one = theirs(model, bag, return_inst_pred=True)
            y = (y + one_by_one.max()) / 2
        else:
            y = theirs(model, bag)
        assert torch.allclose(logits[i, 1], y[0], atol=1e-6)
        assert torch.allclose(
            logits[i].softmax(0)[1], torch.sigmoid(theirs(model, bag, "predict", return_inst_pred=False))[0], atol=1e-6
        )
        if ROWS[name].attention:
            its = theirs(model, bag, return_att=True)[1].flatten()
            its = its.softmax(0) if ROWS[name].attention == "scores" else its
            got = att["self_image"][i, 0]
            assert torch.allclose(got[mask[i]] if padded else got, its, atol=1e-6)
            assert not padded or (got[~mask[i]] == 0).all()
    assert bool(att) == bool(ROWS[name].attention)


@rows
def test_padding_and_batch_mates_change_nothing(name):
    model, tiles, mask = made(name)
    logits, _ = model(tiles, mask=mask)
    other = tiles.clone()
    other[~mask] = 50
    assert torch.equal(model(other, mask=mask)[0], logits)
    other[1:] *= 30
    assert torch.equal(model(other, mask=mask)[0][0], logits[0])
    for i in range(3):
        assert torch.equal(alone(model, i, tiles, mask=mask)[0][0], logits[i])
    of_one = model(tiles[:, :1])[0]
    assert of_one.shape == (3, 2) and of_one.isfinite().all()


@rows
def test_it_trains_on_torchmils_own_losses(name):
    model, tiles, mask = made(name)
    labels = torch.tensor([0, 1, 1])
    logits, att, losses = model(tiles, mask=mask, labels=labels)
    assert att == {} and losses.shape == (3,) and torch.allclose(logits, model(tiles, mask=mask)[0], atol=1e-6)
    for i, label in enumerate(labels):
        np.random.seed(0)  # noqa: NPY002  # DTFD's pseudo-bags, as the adapter draws them where nothing is trained
        _, its = theirs(model, tiles[i, mask[i]], "compute_loss", label)
        assert torch.allclose(losses[i], sum(its.values()), atol=1e-6)
        assert (len(its) == 1) == (name not in ("torchmil_dsmil", "torchmil_dtfd"))
    if name == "torchmil_abmil":
        assert torch.allclose(losses, F.cross_entropy(logits, labels, reduction="none"), atol=1e-6)


@rows
def test_the_engine_trains_it(name):
    p = params.check(
        {"task": "t", "class_names": ["A", "B"], "epochs": 1, "batch_size": 4, "lr": 1e-3, "device": "cpu"}
    )
    model, tiles, labels = BagModel(made(name)[0]), torch.randn(8, 7, 16), torch.arange(8) % 2
    before = {key: value.clone() for key, value in model.state_dict().items()}
    drawn = np.random.get_state()[1].copy()  # noqa: NPY002
    mask = uneven_mask([7, 3, 5, 7, 6, 7, 4, 7], 7)

    def trained():
        torch.manual_seed(1)
        model.load_state_dict(before)
        _, history = fit.fit(device.make_fabric(p), model, Inputs(tiles, mask=mask), labels, list(range(8)), p)
        return history["loss"].tolist(), {key: value.clone() for key, value in model.state_dict().items()}

    loss, after = trained()
    assert np.isfinite(loss).all() and any(not torch.equal(before[key], after[key]) for key in before)
    assert (np.random.get_state()[1] == drawn).all(), "NumPy's generator is as it was"  # noqa: NPY002
    again, same = trained()
    assert again == loss and all(torch.equal(after[key], same[key]) for key in after)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_engine_weighs_the_losses_of_bags_by_class(weighted):
    model, tiles, mask = made("torchmil_dsmil")
    p = params.check({"task": "t", "class_names": ["A", "B"], "device": "cpu"})
    fabric, labels, weights = (
        device.make_fabric(p),
        torch.tensor([0, 1, 1]),
        torch.tensor([3.0, 1]) if weighted else torch.ones(2),
    )
    module = fabric.setup(BagModel(model))
    loss = fit._loss(fabric, module, Inputs(tiles, mask=mask), labels, torch.arange(3), weights, None)
    of_bags = model(tiles, mask=mask, labels=labels)[2]
    assert torch.allclose(loss, (of_bags * weights[labels]).sum() / weights[labels].sum(), atol=1e-6)


def test_they_are_trained_where_a_task_names_them():
    assert {v.fusion for v in variants.VARIANTS.values() if v.fusion.startswith("torchmil")} == set(ROWS)
    p = params.load("lgg", "demo")
    assert not set(ROWS) & set(variants.variants(p))
    p = params.load("lgg", "demo", variants=["torchmil_dsmil", "clam"])
    assert variants.variants(p) == variants.in_table(p, "4") == ["clam", "torchmil_dsmil"]
    assert isinstance(registry.make(variants.variant("torchmil_dsmil"), p, 16, 0, 0), TorchMIL)
