"""Attention, encoders and fusion: against plain equations in float64, and one patient never sees another."""

import nystrom_attention
import pytest
import torch

from mmmil.models import attention, backbone
from mmmil.models.bag_model import BagModel
from mmmil.models.fusion import PPEG, Encoder, MultimodalMIL


def plain_attention(module, x):
    """softmax(Q K^T / sqrt(D)) V, head by head, from the module's weights."""
    width = x.shape[-1]
    q, k, v = (x @ w.T for w in module.to_qkv.weight.split(width))
    size = width // module.heads
    out, atts = [], []
    for h in range(module.heads):
        part = slice(h * size, (h + 1) * size)
        att = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / size**0.5, -1)
        atts.append(att)
        out.append(att @ v[..., part])
    return module.to_out(torch.cat(out, -1)), torch.stack(atts, 1)


def test_exact_attention_follows_its_equation():
    torch.manual_seed(0)
    module = attention.ExactSelfAttention(24, heads=4).double().eval()
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    expected, att = plain_attention(module, x)
    out, returned = module(x, return_att=True)
    assert torch.allclose(out, expected, atol=1e-12) and torch.allclose(returned, att, atol=1e-12)
    assert torch.allclose(module(x), expected, atol=1e-12)


def test_nystrom_equals_the_library_where_nothing_is_padded_and_one_patient_is_alone():
    torch.manual_seed(0)
    ours = attention.NystromSelfAttention(24, 6, 4, num_landmarks=4).double().eval()
    theirs = nystrom_attention.NystromAttention(24, 6, 4, num_landmarks=4).double().eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(1, 12, 24, dtype=torch.float64)
    # The library scales its pseudo-inverse by a maximum over all heads; more iterations make that irrelevant.
    ours.pinv_iterations = theirs.pinv_iterations = 30
    assert torch.allclose(ours(x), theirs(x), atol=1e-8)


@pytest.mark.parametrize("n", [5, 16, 17, 65])
def test_nystrom_rows_sum_to_one_and_nothing_is_padded(n):
    torch.manual_seed(1)
    module = attention.NystromSelfAttention(24, 6, 4, num_landmarks=8, pinv_iterations=60).double().eval()
    out, att = module(torch.randn(2, n, 24, dtype=torch.float64), return_att=True)
    assert out.shape == (2, n, 24) and att.shape == (2, 4, n, n)
    assert torch.allclose(att.sum(-1), torch.ones(2, 4, n, dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("kind", ["exact", "nystrom", "published"])
def test_the_first_tokens_attention_is_the_first_row_of_all(kind, padded):
    torch.manual_seed(0)
    module = attention.self_attention(24, 4, kind, 4, 0.0).double().eval()
    x, mask = torch.randn(3, 10, 24, dtype=torch.float64), torch.ones(3, 10, dtype=torch.bool)
    mask[1, 7:], mask[2, 4] = False, False
    mask = mask if padded else None
    out, att = module(x, return_att=True, mask=mask)
    same, first = module(x, return_att="first", mask=mask)
    assert first.shape == (3, 4, 1, 10) and torch.allclose(first, att[:, :, :1], atol=1e-12)
    real = torch.ones(3, 10, dtype=torch.bool) if mask is None else mask
    assert torch.allclose(same[real], out[real], atol=1e-12)


@pytest.mark.parametrize("kind", ["exact", "nystrom", "published"])
@pytest.mark.parametrize("fusion", ["image", "genes", "self", "dual"])
def test_a_patients_output_does_not_depend_on_batch_mates(kind, fusion):
    torch.manual_seed(0)
    encoder = backbone.prune(backbone.TileEncoder("reduced", "random"), torch.arange(24))
    aggregator = MultimodalMIL(fusion, 24, 10, 13, width=24, heads=4, attention=kind, landmarks=4)
    model = BagModel(aggregator, None if fusion == "genes" else encoder).eval()
    tiles = torch.randint(0, 256, (3, 5, 32, 32, 3), dtype=torch.uint8)
    genes = torch.randn(3, 13, 10)
    genes[2] *= 50  # an outlier in the batch must not matter to the others
    given = (None if fusion == "genes" else tiles, None if fusion == "image" else genes)
    together, _ = model(*given)
    for i in range(3):
        alone, _ = model(*(None if x is None else x[i : i + 1] for x in given))
        assert torch.allclose(alone[0], together[i], atol=1e-5)


@pytest.mark.parametrize("fusion", ["image", "self", "dual"])
@pytest.mark.parametrize("end_to_end, fixed", [(True, True), (True, False), (False, True)])
def test_padding_is_seen_by_nobody(fusion, end_to_end, fixed):
    torch.manual_seed(0)
    encoder = backbone.prune(backbone.TileEncoder("reduced", "random"), torch.arange(24)) if end_to_end else None
    model = BagModel(MultimodalMIL(fusion, 24, 10, 13, width=24, heads=4, dropout=0.0), encoder, fixed_norm=fixed)
    tiles = torch.randint(0, 256, (3, 6, 32, 32, 3), dtype=torch.uint8) if end_to_end else torch.randn(3, 6, 24)
    genes, mask = torch.randn(3, 13, 10), torch.ones(3, 6, dtype=torch.bool)
    mask[1, 4:] = False
    other = tiles.clone()
    other[1, 4:] = 7
    for mode in (True, False):  # in training mode, too: batch norm must not see padding
        model.train(mode)
        first, att = model(tiles, genes, mask)
        second, _ = model(other, genes, mask)
        assert torch.equal(first, second)
        for name in att.keys() & {"self_image", "cross_image"}:
            assert (att[name][1, :, 4:] == 0).all() and (att[name][0] > 0).all()
    whole, _ = model.eval()(tiles, genes)
    assert torch.allclose(whole[[0, 2]], first[[0, 2]], atol=1e-6) and not torch.allclose(whole[1], first[1], atol=1e-6)


def test_ppeg_follows_its_equation_on_a_square_and_repeats_tokens_elsewhere():
    torch.manual_seed(0)
    ppeg = PPEG(6).double()
    x = torch.randn(2, 1 + 9, 6, dtype=torch.float64)
    square = x[:, 1:].reshape(2, 3, 3, 6).permute(0, 3, 1, 2)
    expected = square + ppeg.proj(square) + ppeg.proj1(square) + ppeg.proj2(square)
    out = ppeg(x)
    assert torch.equal(out[:, 0], x[:, 0])
    assert torch.allclose(out[:, 1:], expected.permute(0, 2, 3, 1).reshape(2, 9, 6))
    assert ppeg(x[:, : 1 + 7]).shape == (2, 8, 6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["exact", "nystrom", "published"])
def test_a_bag_with_places_is_the_same_alone_and_beside_a_larger_one(kind, precision):
    torch.manual_seed(0)
    model = MultimodalMIL("dual", 7, 10, 3, width=16, attention=kind, landmarks=4).eval()
    tiles, genes = torch.randn(3, 11, 7), torch.randn(3, 3, 10)
    mask = torch.arange(11) < torch.tensor([[5], [11], [1]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, precision == torch.bfloat16):
        together, att = model(tiles, genes, mask)
        for i, n in enumerate(mask.sum(1)):
            alone, its = model(tiles[i : i + 1, :n], genes[i : i + 1])
            assert torch.allclose(together[i], alone[0], atol=1e-6 if precision == torch.float32 else 0.02)
            assert torch.allclose(
                att["self_image"][i, :, :n], its["self_image"][0], atol=1e-6 if precision == torch.float32 else 0.02
            )


def test_a_tile_that_is_left_out_leaves_its_place_empty():
    encoder = MultimodalMIL("image", 7, width=16).eval().image_encoder
    tiles, places = torch.randn(1, 6, 7), torch.ones(1, 6, dtype=torch.bool)
    places[0, 4:] = False
    left_out = places.clone()
    left_out[0, 3] = False  # the last one: without `places` three tiles would repeat the first in its place
    kept = torch.zeros(1, 1 + 6, 16)
    kept[:, :5] = 1
    real = torch.nn.functional.pad(left_out, (1, 0), value=True)
    square = encoder._placed(kept, real, torch.nn.functional.pad(places, (1, 0), value=True))
    empty = kept[:, :5].clone()
    empty[:, 4] = 0
    assert torch.allclose(square[:, :5], encoder.pos_layer(empty)) and (square[:, 5:] == 0).all()
    given, closed_up = encoder(tiles, mask=left_out, places=places)[0], encoder(tiles, mask=left_out)[0]
    assert not torch.allclose(given, closed_up)
    assert torch.equal(encoder(tiles, mask=places, places=places)[0], encoder(tiles, mask=places)[0])


def test_cross_attention_follows_its_equation():
    torch.manual_seed(0)
    module = attention.CrossAttention(8, heads=2).double().eval()
    query, tokens = torch.randn(2, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    q = module.to_q(module.norm_query(query))
    k, v = module.to_kv(module.norm_tokens(tokens)).chunk(2, -1)
    parts = []
    for h in (slice(0, 4), slice(4, 8)):
        att = torch.softmax(torch.einsum("bd,bnd->bn", q[:, h], k[..., h]) / 2, -1)
        parts.append(torch.einsum("bn,bnd->bd", att, v[..., h]))
    out, att = module(query, tokens)
    assert torch.allclose(out, module.to_out(torch.cat(parts, -1)))
    assert att.shape == (2, 2, 5) and torch.allclose(att.sum(-1), torch.ones(2, 2, dtype=torch.float64))


def test_dual_attention_joins_four_vectors_and_returns_four_attentions():
    model = MultimodalMIL("dual", 7, 10, 13, width=24, heads=4)
    logits, att = model(torch.randn(2, 5, 7), torch.randn(2, 13, 10))
    assert logits.shape == (2, 2) and model.classifier[0].normalized_shape == (4 * 24,)
    shapes = {k: tuple(a.shape) for k, a in att.items()}
    assert shapes == {
        "self_image": (2, 4, 5),
        "self_genes": (2, 4, 13),
        "cross_genes": (2, 4, 13),
        "cross_image": (2, 4, 5),
    }


def test_the_encoders_parts_carry_transmils_names():
    names = {name.split(".")[0] for name in Encoder(8, 8, 2, "nystrom", 4, 0.0, ppeg=True).state_dict()}
    assert names == {"_fc1", "cls_token", "layer1", "pos_layer", "layer2", "norm"}


def test_an_unknown_fusion_or_attention_is_refused():
    with pytest.raises(ValueError, match="fusion"):
        MultimodalMIL("late")
    with pytest.raises(ValueError, match="exact"):
        attention.self_attention(8, 2, "flash", 4, 0.0)


def test_gene_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = BagModel(MultimodalMIL("genes", 0, 10, 13, width=24, heads=4, dropout=0.0), gene_dropout=0.5)
    genes = torch.randn(2, 13, 10)
    assert not torch.equal(model(None, genes)[0], model(None, genes)[0])
    model.eval()
    assert torch.equal(model(None, genes)[0], model(None, genes)[0])


@pytest.mark.parametrize("padded", [True, False])
def test_tiles_in_chunks_give_the_gradients_of_all_at_once(padded):
    torch.manual_seed(0)
    encoder = backbone.prune(backbone.TileEncoder("reduced", "random"), torch.arange(24))
    tiles = torch.randint(0, 256, (2, 9, 64, 64, 3), dtype=torch.uint8)
    backbone.measure_batch_norm(encoder, [backbone.to_input(tiles, encoder.mean, encoder.std)])
    aggregator, genes = MultimodalMIL("dual", 24, 10, 13, width=24, heads=4, dropout=0.0), torch.randn(2, 13, 10)
    colour = torch.tensor([1.0, 0.0])[:, None] + 0.1 * torch.randn(2, 2, 3)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 7:] = False
    found = []
    for chunk in (0, 4):
        model = BagModel(aggregator, encoder, tile_chunk=chunk).train()
        model.zero_grad()
        model(tiles, genes, mask if padded else None, colour)[0][:, 1].sum().backward()
        found.append(torch.cat([w.grad.flatten().clone() for w in model.parameters()]))
    assert (found[0] - found[1]).norm() <= 1e-4 * found[0].norm() and found[0].norm() > 0


def test_chunks_and_statistics_of_a_batch_exclude_each_other():
    with pytest.raises(ValueError, match="fixed_norm"):
        BagModel(MultimodalMIL("image", 24, width=24, heads=4), tile_chunk=4, fixed_norm=False)


def test_the_model_starts_as_its_linear_skip_which_reads_real_tiles_and_every_gene_value():
    torch.manual_seed(0)
    plain = MultimodalMIL("dual", 6, 5, 4, width=16, heads=2, dropout=0.0).eval()
    torch.manual_seed(0)
    beside = MultimodalMIL("dual", 6, 5, 4, width=16, heads=2, dropout=0.0, linear_skip=True).eval()
    tiles, genes = torch.randn(3, 7, 6), torch.randn(3, 4, 5)
    mask = torch.arange(7) < torch.tensor([[7], [4], [2]])
    with torch.no_grad():
        assert beside(tiles, genes, mask)[0].abs().max() == 0
        weights = torch.randn(26)
        beside.linear_skip.start(weights, 0.3)
        mean = torch.stack([bag[real].mean(0) for bag, real in zip(tiles, mask, strict=True)])
        by_hand = torch.cat([mean, genes.flatten(1)], 1) @ weights + 0.3
        assert torch.allclose(beside(tiles, genes, mask)[0].diff(dim=1)[:, 0], by_hand, atol=1e-5)
        for ours, theirs in zip(beside.classifier[-1].parameters(), plain.classifier[-1].parameters(), strict=True):
            ours.copy_(theirs)
        beside.linear_skip.start(0 * weights, 0.0)
        assert torch.equal(plain(tiles, genes, mask)[0], beside(tiles, genes, mask)[0])
        padded = torch.where(mask[..., None], tiles, 99.0)
        assert torch.allclose(beside(padded, genes, mask)[0], beside(tiles, genes, mask)[0], atol=1e-5)


def test_raw_keys_are_tokens_that_know_of_no_other():
    torch.manual_seed(0)
    encoded = MultimodalMIL("dual", 6, 5, 4, width=16, heads=2, dropout=0.0).eval()
    torch.manual_seed(0)
    raw = MultimodalMIL("dual", 6, 5, 4, width=16, heads=2, dropout=0.0, raw_keys=True).eval()
    assert all(torch.equal(a, b) for a, b in zip(encoded.state_dict().values(), raw.state_dict().values(), strict=True))
    tiles, genes = torch.randn(2, 7, 6), torch.randn(2, 4, 5)
    read = {}
    for name in ("image_to_genes", "genes_to_image"):
        getattr(raw, name).register_forward_pre_hook(lambda _, given, name=name: read.update({name: given[1]}))
    with torch.no_grad():
        one, other = encoded.encode(tiles, genes), raw.encode(tiles, genes)
        assert torch.equal(one.vectors["image"], other.vectors["image"])
        assert not torch.allclose(one.vectors["image_from_genes"], other.vectors["image_from_genes"])
        first = read["genes_to_image"][:, 0].clone()
        tiles[:, 1:] += 1  # the others, which an encoded token would have heard of
        raw(tiles, genes)
        assert torch.equal(read["genes_to_image"][:, 0], first)
        assert torch.equal(read["image_to_genes"], raw.gene_encoder.projected(genes, raw.set_embedding))
