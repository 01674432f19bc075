"""TransMIL against its equations, its published names, and padding."""

import pytest
import torch

from mmmil.models.transmil import TransMIL
from tests.models.test_aggregators import encoder
from tests.models.test_attention import alone, gradients_hold, linear, part, uneven_mask


def small():
    torch.manual_seed(0)
    return TransMIL(5, width=8, heads=2, landmarks=4)


def test_transmil_follows_its_equations():
    model, tiles = small().double().eval(), torch.randn(2, 7, 5, dtype=torch.float64)
    logits, att = model(tiles)
    for i in range(2):
        summary, _, weights = encoder(model.state_dict(), tiles[i], 2, "nystrom", 4)
        assert torch.allclose(logits[i], linear(part(model.state_dict(), "_fc2"), summary), atol=1e-6)
        assert torch.allclose(att["self_image"][i], weights, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_a_patient_alone_is_the_patient_in_a_batch_and_padding_is_not_seen(masked):
    model, tiles = small().eval(), torch.randn(3, 7, 5)
    mask = {"mask": uneven_mask([7, 3, 5], 7)} if masked else {}
    logits, att = model(tiles, **mask)
    for i in range(3):
        its, its_att = alone(model, i, tiles, **mask)
        assert torch.allclose(its[0], logits[i], atol=1e-5)
        assert torch.allclose(its_att["self_image"][0], att["self_image"][i], atol=1e-5)
    if masked:
        other = tiles.clone()
        other[~mask["mask"]] = 7
        assert torch.equal(model(other, **mask)[0], logits)
        assert (att["self_image"].mT[~mask["mask"]] == 0).all()


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_transmil(masked):
    assert gradients_hold(small(), torch.randn(2, 6, 5), mask=uneven_mask([6, 4], 6) if masked else None)


def test_published_checkpoints_fit():
    layer = {
        "norm.weight": (512,),
        "norm.bias": (512,),
        "attn.to_qkv.weight": (1536, 512),
        "attn.to_out.0.weight": (512, 512),
        "attn.to_out.0.bias": (512,),
        "attn.res_conv.weight": (8, 1, 33, 1),
    }
    shapes = {
        "cls_token": (1, 1, 512),
        "_fc1.0.weight": (512, 1024),
        "_fc1.0.bias": (512,),
        **{f"layer1.{name}": shape for name, shape in layer.items()},
        "pos_layer.proj.weight": (512, 1, 7, 7),
        "pos_layer.proj.bias": (512,),
        "pos_layer.proj1.weight": (512, 1, 5, 5),
        "pos_layer.proj1.bias": (512,),
        "pos_layer.proj2.weight": (512, 1, 3, 3),
        "pos_layer.proj2.bias": (512,),
        **{f"layer2.{name}": shape for name, shape in layer.items()},
        "norm.weight": (512,),
        "norm.bias": (512,),
        "_fc2.weight": (2, 512),
        "_fc2.bias": (2,),
    }
    model = TransMIL(1024)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == shapes
    assert model.layer1.attn.num_landmarks == 256 and model.layer1.attn.heads == 8
