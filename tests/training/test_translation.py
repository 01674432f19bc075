"""The same constant added to every token, of tiles or of genes, moves no prediction: with the training's and unseen."""

import numpy as np
import pytest
import torch

from mmmil import params
from mmmil.models.bag_model import BagModel
from mmmil.models.fusion import MultimodalMIL
from mmmil.models.standardise import Standardise
from mmmil.training import build, device, fit
from mmmil.training.fit import Inputs

P = params.check({"task": "t", "class_names": ["A", "B"], "epochs": 6, "batch_size": 8, "lr": 1e-3, "device": "cpu"})


def predicted(fusion, tiles, genes, skip):
    torch.manual_seed(5)
    aggregator = MultimodalMIL(fusion, 6, 5, 4, width=16, heads=2, linear_skip=skip)
    scales = Standardise(6) if fusion != "genes" else None, Standardise(4, 5) if fusion != "image" else None
    model = BagModel(aggregator, None, None, 0.2, image_scale=scales[0], gene_scale=scales[1])
    inputs, labels = Inputs(tiles if scales[0] else None, genes if scales[1] else None), torch.arange(30) % 2
    build.measure_scale(model, P, inputs, list(range(20)))
    build.start_skip(model, inputs, labels, list(range(20)))
    fabric = device.make_fabric(P)
    model, _ = fit.fit(fabric, model, inputs, labels, list(range(20)), P)
    return fit.predict(fabric, model, inputs, range(30))[0]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("fusion", ["image", "genes", "dual"])
def test_a_constant_added_to_all_tokens_changes_no_prediction(fusion, skip):
    random = torch.Generator().manual_seed(0)
    tiles, genes = torch.randn(30, 7, 6, generator=random), torch.randn(30, 4, 5, generator=random)
    plain = predicted(fusion, tiles, genes, skip)
    moved = predicted(
        fusion, tiles + 3 * torch.randn(6, generator=random), genes + 2 * torch.randn(5, generator=random), skip
    )
    assert np.abs(moved - plain).max() < 1e-4 and plain.std() > 1e-3
