import pytest
import torch

from mmmil.models import backbone
from mmmil.models.bag_model import BagModel


def test_the_papers_parameter_counts_come_out_of_timms_own_module():
    original = backbone.TileEncoder("original", "random")
    uib = backbone.TileEncoder("uib", "random")
    reduced = backbone.TileEncoder("reduced", "random")
    assert backbone.parameters(original) == 340_992
    assert backbone.parameters(uib) == 94_224
    tile = torch.zeros(1, 3, 256, 256)
    assert original.feature_map(tile).shape == uib.feature_map(tile).shape == (1, 480, 8, 8)
    backbone.prune(reduced, torch.arange(96))
    assert backbone.parameters(reduced) == 68_880
    assert reduced.feature_map(tile).shape == (1, 96, 8, 8)


def test_ten_uibs_are_removed_and_named():
    assert backbone.REMOVABLE == [(2, 1), (2, 2), (2, 3), (2, 4), (2, 5), (3, 1), (3, 2), (3, 3), (3, 4), (3, 5)]
    whole = backbone.TileEncoder("original", "random").blocks
    less = backbone.TileEncoder("uib", "random").blocks
    gone = [(i, j) for i, stage in enumerate(whole) for j in range(len(stage)) if j >= len(less[i])]
    assert gone == backbone.REMOVABLE and len(gone) == 10
    assert all(whole[i][j].has_skip and type(whole[i][j]).__name__ == "UniversalInvertedResidual" for i, j in gone)
    assert not any(stage[0].has_skip for stage in whole[2:4])  # the two that stay change the shape
    assert sum(backbone.parameters(whole[i][j]) for i, j in gone) == 340_992 - 94_224


def test_pruning_keeps_exactly_the_chosen_channels():
    torch.manual_seed(0)
    encoder = backbone.TileEncoder("uib", "random").eval()
    tiles = torch.randn(2, 3, 64, 64)
    before = encoder(tiles)
    kept = torch.tensor([3, 17, 400])
    assert torch.allclose(backbone.prune(encoder, kept)(tiles), before[:, kept])


def test_480_channels_become_96_with_66_parameters_each():
    encoder = backbone.TileEncoder("reduced", "random")
    assert encoder.channels == 480 and encoder.last.conv.weight.shape == (480, 64, 1, 1)
    rest = backbone.parameters(encoder) - backbone.parameters(encoder.last)
    assert rest == 62_544  # 64 weights and the scale and shift of batch norm make 66 a channel
    backbone.prune(encoder, torch.arange(96))
    assert encoder.channels == 96 and backbone.parameters(encoder) == rest + 66 * 96 == 68_880


def test_apoz_is_the_share_of_zeros():
    torch.manual_seed(0)
    encoder = backbone.TileEncoder("uib", "random").eval()
    tiles = torch.randn(5, 3, 64, 64)
    expected = (encoder.feature_map(tiles) == 0).float().mean((0, 2, 3))
    assert torch.allclose(backbone.apoz(encoder, tiles.split(2)), expected)
    with pytest.raises(ValueError, match="at least one tile"):
        backbone.apoz(encoder, [])


def test_the_channels_with_fewest_zeros_are_kept():
    assert backbone.lowest_apoz(torch.tensor([0.5, 0.1, 0.9, 0.2]), 2).tolist() == [1, 3]
    with pytest.raises(ValueError, match="kept_channels"):
        backbone.lowest_apoz(torch.zeros(4), 5)


def batch_norms(module):
    return [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_measured_batch_norm_does_in_eval_mode_what_training_mode_does_on_the_batch():
    torch.manual_seed(0)
    encoder = backbone.TileEncoder("uib", "random")
    tiles = torch.randn(6, 3, 64, 64) * 2 + 1
    counts = {}
    hooks = [
        norm.register_forward_hook(lambda m, x, y: counts.update({m: x[0][:, 0].numel()}))
        for norm in batch_norms(encoder)
    ]
    backbone.measure_batch_norm(encoder, [tiles])
    for hook in hooks:
        hook.remove()
    assert not any(m.training for m in encoder.modules())
    for norm, n in counts.items():  # running variances are unbiased, the batch's own is not
        norm.running_var *= (n - 1) / n
    measured = encoder(tiles)
    assert measured.std() > 0.01
    assert (measured - encoder.train()(tiles)).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["original", "reduced"])
def test_fixed_norms_are_taken_into_the_convolutions_and_change_no_gradient(kind):
    torch.manual_seed(0)
    encoder = backbone.TileEncoder(kind, "random").double()
    tiles = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    backbone.measure_batch_norm(encoder, [tiles])
    for norm in batch_norms(encoder):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5), torch.nn.init.normal_(norm.bias)
    made = []
    for folded in (False, True):
        encoder.train(folded)
        for norm in batch_norms(encoder):
            norm.eval()
        encoder.zero_grad()
        out = encoder(tiles)
        (out * torch.arange(encoder.channels)).sum().backward()
        made.append([out.detach(), *(p.grad.clone() for p in encoder.parameters())])
    for plain, folded in zip(*made, strict=True):
        assert torch.allclose(plain, folded, rtol=1e-9, atol=1e-9 * plain.abs().max())
    assert not all(torch.equal(a, b) for a, b in zip(*made, strict=True))  # so the two are not one path


def test_measured_batch_norm_is_the_mean_over_batches_and_repeats_itself():
    torch.manual_seed(0)
    encoder = backbone.TileEncoder("original", "random")
    momenta = [norm.momentum for norm in batch_norms(encoder)]
    batches = [torch.randn(4, 3, 64, 64) + i for i in range(3)]
    backbone.measure_batch_norm(encoder, batches)
    first = {k: v.clone() for k, v in encoder.state_dict().items()}
    backbone.measure_batch_norm(encoder, iter(batches))  # starts anew: nothing is left of the statistics before
    assert all(torch.equal(v, first[k]) for k, v in encoder.state_dict().items())
    own = [encoder.conv_stem(b).mean((0, 2, 3)) for b in batches]
    assert torch.allclose(encoder.bn1.running_mean, torch.stack(own).mean(0), atol=1e-5)
    assert momenta == [norm.momentum for norm in batch_norms(encoder)]
    with pytest.raises(ValueError, match="at least one tile"):
        backbone.measure_batch_norm(encoder, [])


def test_pixels_become_what_the_network_expects():
    tiles = torch.randint(0, 256, (2, 3, 8, 8, 3), dtype=torch.uint8)
    x = backbone.to_input(tiles, (0.5, 0.4, 0.3), (0.2, 0.3, 0.5))
    assert x.shape == (6, 3, 8, 8)
    assert torch.isclose(x[4, 1, 2, 3], (tiles[1, 1, 2, 3, 1] / 255 - 0.4) / 0.3)


@pytest.mark.parametrize("kind", ["original", "uib", "reduced"])
def test_a_tiles_token_does_not_depend_on_its_batch_mates(kind):
    """With fixed statistics, in training too; with those of the batch it does."""
    torch.manual_seed(0)
    encoder = backbone.TileEncoder(kind, "random")
    tiles = torch.randint(0, 256, (3, 4, 64, 64, 3), dtype=torch.uint8)
    backbone.measure_batch_norm(encoder, [backbone.to_input(tiles, encoder.mean, encoder.std)])
    if kind == "reduced":
        backbone.prune(encoder, torch.arange(96))
    fixed = BagModel(torch.nn.Identity(), encoder, fixed_norm=True).train()
    with torch.no_grad():
        together = fixed.image_tokens(tiles)
        alone = torch.cat([fixed.image_tokens(tiles[i : i + 1, j : j + 1]) for i in range(3) for j in range(4)])
        assert together.std() > 0.01 and (alone.view_as(together) - together).abs().max() < 1e-5
        moving = BagModel(torch.nn.Identity(), encoder, fixed_norm=False).train()
        assert (moving.image_tokens(tiles)[:1] - moving.image_tokens(tiles[:1])).abs().max() > 1e-3
