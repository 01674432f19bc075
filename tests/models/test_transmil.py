"""TransMIL against its equations, its published names, and padding."""

from math import ceil

import pytest
import torch
import torch.nn.functional as F
from nystrom_attention import NystromAttention

from mmmil.models.fusion import MultimodalMIL
from mmmil.models.transmil import TransMIL
from tests.models.test_aggregators import encoder
from tests.models.test_attention import alone, gradients_hold, linear, part, uneven_mask


def small():
    torch.manual_seed(0)
    return TransMIL(5, width=8, heads=2, landmarks=4)


def published(w, bag, heads=2, landmarks=4):
    """The published model for a batch of one bag (1, N, D), from the paper, with plain modules and the library's
    attention -> logits (1, 2), and layer 2's attention over 1 + side * side tokens behind the library's padding."""

    def layer(name, x):
        width = x.shape[2]
        attention = NystromAttention(
            dim=width,
            dim_head=width // heads,
            heads=heads,
            num_landmarks=landmarks,
            pinv_iterations=6,
            residual=True,
            dropout=0.1,
        )
        attention.load_state_dict(part(w, f"{name}.attn"), strict=True)
        normed = F.layer_norm(x, (width,), w[f"{name}.norm.weight"], w[f"{name}.norm.bias"])
        out, att = attention.to(x).eval()(normed, return_attn=True)
        return x + out, att

    x = F.linear(bag, w["_fc1.0.weight"], w["_fc1.0.bias"]).relu()
    n, side = x.shape[1], ceil(x.shape[1] ** 0.5)
    x = torch.cat([x, x[:, : side * side - n]], 1)
    x, _ = layer("layer1", torch.cat([w["cls_token"], x], 1))
    square = x[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
    summed = square
    for name, pad in (("proj", 3), ("proj1", 2), ("proj2", 1)):
        of = f"pos_layer.{name}"
        summed = summed + F.conv2d(square, w[f"{of}.weight"], w[f"{of}.bias"], padding=pad, groups=square.shape[1])
    x = torch.cat([x[:, :1], summed.flatten(2).transpose(1, 2)], 1)
    x, att = layer("layer2", x)
    x = F.layer_norm(x, x.shape[2:], w["norm.weight"], w["norm.bias"])
    return F.linear(x[:, 0], w["_fc2.weight"], w["_fc2.bias"]), att


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 9, 12, 16, 20])
def test_it_is_the_published_model(n):
    """Square bags and others, fewer tokens than landmarks and more; padding and repeated tokens attended to."""
    torch.manual_seed(n)
    model, tiles = small().double().eval(), torch.randn(2, n, 5, dtype=torch.float64)
    logits, att = model(tiles)
    for i in range(2):
        expected, weights = published(model.state_dict(), tiles[i : i + 1])
        assert torch.allclose(logits[i], expected[0], atol=1e-10)
        side = ceil(n**0.5)
        weights = weights[0, :, -(1 + side * side), -side * side :]  # the class token's, past the library's padding
        weights = weights[:, :n] + F.pad(weights[:, n:], (0, 2 * n - side * side))
        assert torch.allclose(att["self_image"][i], weights, atol=1e-10)


def test_bags_of_a_batch_are_the_published_model_one_by_one():
    number = [9, 3, 5, 1, 4, 8]
    model, tiles, mask = small().double().eval(), torch.randn(6, 9, 5, dtype=torch.float64), uneven_mask(number, 9)
    mask[5] = torch.tensor([1, 1, 1, 0, 1, 1, 1, 1, 1], dtype=torch.bool)  # padding may stand anywhere
    logits, att = model(tiles, mask=mask)
    for i in range(6):
        expected, _ = published(model.state_dict(), tiles[i : i + 1, mask[i]])
        assert torch.allclose(logits[i], expected[0], atol=1e-10)
        assert torch.allclose(att["self_image"][i][:, mask[i]], model(tiles[i : i + 1, mask[i]])[1]["self_image"][0])


def test_at_its_published_size_too():
    torch.manual_seed(0)
    model, bag = TransMIL(24).eval(), torch.randn(1, 10, 24)
    with torch.no_grad():
        assert torch.allclose(model(bag)[0], published(model.state_dict(), bag, 8, 256)[0], atol=1e-5)


def test_repeated_tokens_and_padding_take_their_share():
    """By hand: with queries and keys of zero all is attended to alike. 3 tiles, the first once more, and the class
    token make 5 tokens, which 4 landmarks pad to 8."""
    model = small().eval()
    with torch.no_grad():
        model.layer2.attn.to_qkv.weight[:16] = 0
    att = model(torch.randn(1, 3, 5))[1]["self_image"][0]
    assert torch.allclose(att, torch.tensor([2 / 8, 1 / 8, 1 / 8]).expand(2, 3), atol=1e-6)


def test_without_places_nothing_is_repeated():
    model, tiles = TransMIL(5, width=8, heads=2, landmarks=4, positions=False).double().eval(), torch.randn(2, 7, 5)
    summary, _, att = encoder(model.state_dict(), tiles[0].double(), 2, "published", 4)
    logits, got = model(tiles.double())
    assert model.square is None and not [name for name in model.state_dict() if name.startswith("pos_layer")]
    assert torch.allclose(logits[0], linear(part(model.state_dict(), "_fc2"), summary), atol=1e-10)
    assert torch.allclose(got["self_image"][0], att, atol=1e-10)


def test_the_order_of_tiles_matters_only_with_places():
    for positions, moves in ((True, True), (False, False)):
        torch.manual_seed(0)
        model = MultimodalMIL("image", 5, width=8, heads=2, positions=positions).double().eval()
        tiles = torch.randn(1, 7, 5, dtype=torch.float64)
        turned = model(tiles.flip(1))[0]
        assert torch.allclose(model(tiles)[0], turned, atol=1e-10) != moves


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


def test_published_checkpoints_fit(tmp_path):
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
    torch.save(model.state_dict(), tmp_path / "published.pth")
    torch.manual_seed(1)
    again, bag = TransMIL(1024).eval(), torch.randn(1, 3, 1024)
    again.load_state_dict(torch.load(tmp_path / "published.pth", weights_only=True), strict=True)
    assert torch.equal(again(bag)[0], model.eval()(bag)[0])
