"""CTransPath: the published checkpoint's names, and that nothing of it may be missing, left over or another's."""

import re

import pytest
import torch
import torch.nn.functional as F

from mmmil.models import backbone, ctranspath, weights


def published(net):
    """The net's tensors as the authors' timm 0.5.4 names and stores them: the inverse of the renaming."""
    state = {}
    for name, value in net.state_dict().items():
        earlier = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.", name)
        state[earlier] = value
    for name, value in net.named_buffers():
        if name.endswith(("relative_position_index", "attn_mask")) and value is not None:
            state[name] = value.long() if name.endswith("index") else value
    return state


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = ctranspath.CTransPath().eval()
    for norm in (net.patch_embed.proj[1], net.patch_embed.proj[4]):  # statistics that a checkpoint has to bring
        torch.nn.init.uniform_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return net


def test_the_published_names_are_those_of_timm_0_5_4(net):
    names = set(published(net))
    assert {f"layers.{i}.downsample.reduction.weight" for i in (0, 1, 2)} <= names
    assert not [name for name in names if name.startswith("layers.3.downsample")]
    masks = {name for name in names if name.endswith("attn_mask")}
    assert masks == {f"layers.{i}.blocks.{j}.attn_mask" for i, j in [(0, 1), (1, 1), (2, 1), (2, 3), (2, 5)]}
    assert sum(name.endswith("relative_position_index") for name in names) == 2 + 2 + 6 + 2
    assert {"patch_embed.proj.0.weight", "patch_embed.proj.6.bias", "patch_embed.norm.weight", "norm.bias"} <= names
    assert not [name for name in names if name.startswith("head")]


def test_a_checkpoint_of_the_published_layout_loads_strictly_and_predicts_the_same(net, tmp_path):
    torch.save({"model": published(net)}, tmp_path / "ctranspath.pth")
    encoder = backbone.FrozenEncoder("ctranspath", "imagenet", str(tmp_path))
    tiles = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = net(tiles)
    assert encoder(tiles).shape == (2, 768) and torch.equal(encoder(tiles), expected)
    assert expected.std() > 0.01 and not encoder.net.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_renaming_and_its_inverse_lose_nothing(net):
    renamed = ctranspath.from_published(published(net), net)
    ours = net.state_dict()
    assert set(renamed) == set(ours) and all(torch.equal(renamed[name], ours[name]) for name in ours)
    assert set(published(net)) - set(published(net).keys() & ours.keys()) >= {"layers.0.downsample.norm.weight"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("layers.2.blocks.3.attn.qkv.bias"), "layers.2.blocks.3.attn.qkv.bias is missing"),
        (lambda s: s.pop("layers.0.downsample.norm.bias"), "layers.1.downsample.norm.bias is missing"),
        (lambda s: s.update({"head.weight": torch.zeros(9, 768)}), "head.weight is left over"),
        (lambda s: s.update({"norm.weight": torch.ones(96)}), r"norm.weight is \(96,\), not \(768,\)"),
        (
            lambda s: s.update({"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}),
            "layers.0.blocks.1.attn_mask is not that of a Swin-T with window 7",
        ),
        (
            lambda s: s.update({"layers.0.blocks.0.attn_mask": torch.zeros(64, 49, 49)}),
            "layers.0.blocks.0.attn_mask is not that of a Swin-T",
        ),
    ],
)
def test_what_is_missing_left_over_or_of_another_shape_is_named(net, tmp_path, change, told):
    state = published(net)
    change(state)
    torch.save({"model": state}, tmp_path / "ctranspath.pth")
    with pytest.raises(weights.WeightsError, match=told):
        weights.load_weights(net, "ctranspath", tmp_path / "ctranspath.pth")


def test_a_plain_swin_t_is_told_from_ctranspath(tmp_path):
    import timm

    swin = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False)
    torch.save({"model": swin.state_dict()}, tmp_path / "ctranspath.pth")
    with pytest.raises(weights.WeightsError, match="is of another architecture than ctranspath"):
        weights.pretrained("ctranspath", "imagenet", str(tmp_path))


def test_tiles_of_another_size_are_resized_to_224(net):
    tiles = torch.rand(1, 3, 256, 256)
    resized = F.interpolate(tiles, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert torch.equal(net(tiles), net(resized))


def test_parameter_counts_of_the_frozen_encoders_come_from_the_real_modules(net):
    # ResNet50d of timm: 25,576,264 with its head of 2048 x 1000 + 1000.
    resnet = backbone.FrozenEncoder("resnet50d", "random")
    assert backbone.parameters(resnet) == 25_576_264 - 2_049_000 == 23_527_264
    # Swin-T of timm without head: 27,519,354; its patch embedding 4x4x3x96 + 96 makes way for the convolutional stem.
    stem = 3 * 12 * 9 + 2 * 12 + 12 * 24 * 9 + 2 * 24 + 24 * 96 + 96
    assert backbone.parameters(net) == 27_519_354 - (4 * 4 * 3 * 96 + 96) + stem == 27_520_038
