"""Before its first step a model with a linear skip is the logistic regression of its training patients' tokens."""

import numpy as np
import pytest
import torch

from mmmil import params
from mmmil.models import baselines
from mmmil.models.bag_model import BagModel
from mmmil.models.fusion import MultimodalMIL
from mmmil.models.standardise import Standardise
from mmmil.training import build, device, fit
from mmmil.training.fit import Inputs

P = params.check({"task": "t", "class_names": ["A", "B"], "device": "cpu"})
TRAIN, HELD = list(range(20)), list(range(20, 30))


def started(fusion, tiles, genes, mask, labels):
    """The untrained model and its inputs, standardised and started on the training patients."""
    torch.manual_seed(5)
    aggregator = MultimodalMIL(fusion, 6, 5, 4, width=16, heads=2, linear_skip=True)
    scales = Standardise(6) if fusion != "genes" else None, Standardise(4, 5) if fusion != "image" else None
    model = BagModel(aggregator, None, None, 0.2, image_scale=scales[0], gene_scale=scales[1])
    inputs = Inputs(tiles if scales[0] else None, genes if scales[1] else None, mask if scales[0] else None)
    build.measure_scale(model, P, inputs, TRAIN)
    build.start_skip(model, inputs, labels, TRAIN)
    return model, inputs


@pytest.fixture
def data():
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 2
    tiles = torch.randn(30, 7, 6, generator=random) + labels[:, None, None]
    genes = torch.randn(30, 4, 5, generator=random) + labels[:, None, None] / 2
    mask = torch.arange(7) < torch.randint(2, 8, (30, 1), generator=random)
    return torch.where(mask[..., None], tiles, 0.0), genes, mask, labels


@pytest.mark.parametrize("fusion", ["image", "genes", "dual"])
def test_an_untrained_model_is_the_late_fusion_of_its_own_tokens(fusion, data):
    tiles, genes, mask, labels = data
    model, inputs = started(fusion, tiles, genes, mask, labels)
    fabric = device.make_fabric(P)
    found = fit.predict(fabric, fabric.setup(model), inputs, HELD, layers=False)[0]
    mean = ((tiles * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).double().numpy()
    read = [(mean, baselines.FEATURES)] * (fusion != "genes")
    read += [(genes.flatten(1).double().numpy(), baselines.GENES)] * (fusion != "image")
    expected = baselines.late_fusion(read, TRAIN, labels[TRAIN].numpy(), HELD)
    assert np.abs(found - expected).max() < 1e-4 and expected.std() > 0.05


@pytest.mark.parametrize("fusion", ["image", "genes", "dual"])
def test_nothing_that_is_fitted_moves_with_a_held_out_patient(fusion, data):
    tiles, genes, mask, labels = data
    before = started(fusion, tiles, genes, mask, labels)[0].state_dict()
    genes[HELD], labels[HELD] = torch.nan, 1 - labels[HELD]
    tiles[HELD], mask[HELD] = 99.0, True
    after = started(fusion, tiles, genes, mask, labels)[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_readers_own_part_of_that_name_is_left_alone(data):
    """A class of a notebook may call a layer of its own `linear_skip`; it is trained as it is."""

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear_skip = torch.nn.Linear(6, 2)

    tiles, _, mask, labels = data
    model = BagModel(Own(), image_scale=Standardise(6))
    before = model.aggregator.linear_skip.weight.clone()
    build.start_skip(model, Inputs(tiles, None, mask), labels, TRAIN)
    assert torch.equal(model.aggregator.linear_skip.weight, before)
