"""PPEG, the encoder and dual attention against their equations, one patient at a time, in float64."""

from math import ceil

import pytest
import torch

from mmmil.models.fusion import PPEG, Encoder, MultimodalMIL
from tests.models.test_attention import (
    alone,
    attended,
    cross,
    gradients_hold,
    layer_norm,
    linear,
    part,
    uneven_mask,
)


def ppeg(w, x):
    """Class token and tokens on a square (1 + N, W): each adds its neighbours, weighted by three kernels."""
    tokens = list(x[1:])
    n, side = len(tokens), ceil((len(tokens)) ** 0.5)
    tokens += tokens[: side * side - n]
    out = []
    for at in range(n):
        total = tokens[at]
        for name, size in (("proj", 7), ("proj1", 5), ("proj2", 3)):
            total = total + w[f"{name}.bias"]
            for i in range(size):
                for j in range(size):
                    row, column = at // side + i - size // 2, at % side + j - size // 2
                    if 0 <= row < side and 0 <= column < side:
                        total = total + w[f"{name}.weight"][:, 0, i, j] * tokens[row * side + column]
        out.append(total)
    return torch.stack([x[0], *out])


def encoder(w, tokens, heads, kind, landmarks, shift=None):
    """(N, D) -> summary (W,), tokens (N, W), att of the class token (H, N); published repeats tokens for its PPEG."""

    def layer(name, x):
        its, normed = part(w, f"{name}.attn"), layer_norm(part(w, f"{name}.norm"), x)
        out, att = attended(kind, its, normed, heads, landmarks)
        return x + out, att

    x = linear(part(w, "_fc1.0"), tokens).clamp(min=0)
    x = x if shift is None else x + shift
    places, n, copies = "pos_layer.proj.weight" in w, len(x), 0
    if places and kind == "published":
        copies = ceil(n**0.5) ** 2 - n
        x = torch.cat([x, x[:copies]])
    x, _ = layer("layer1", torch.cat([w["cls_token"][0], x]))
    if places:
        x = ppeg(part(w, "pos_layer"), x)
    x, att = layer("layer2", x)
    x = layer_norm(part(w, "norm"), x)
    att = att[:, 0, 1:]
    att[:, :copies] += att[:, n:]
    return x[0], x[1 : 1 + n], att[:, :n]


def small_encoder(kind, position):
    torch.manual_seed(0)
    return Encoder(5, 8, 2, kind, 4, 0.1, ppeg=position)


def small_dual(kind):
    torch.manual_seed(0)
    return MultimodalMIL("dual", 5, 3, 6, width=8, heads=2, attention=kind, landmarks=4)


kinds = pytest.mark.parametrize("kind", ["exact", "nystrom", "published"])
masked = pytest.mark.parametrize("masked", [False, True])


@pytest.mark.parametrize("n", [1, 4, 7, 9])
def test_ppeg_follows_its_equation(n):
    torch.manual_seed(0)
    module, x = PPEG(3).double(), torch.randn(2, 1 + n, 3, dtype=torch.float64)
    for one, got in zip(x, module(x), strict=True):
        assert torch.allclose(got, ppeg(module.state_dict(), one), atol=1e-6)
    assert gradients_hold(module, x)


@pytest.mark.parametrize("position", [True, False])
@kinds
def test_the_encoder_follows_its_equations(kind, position):
    model = small_encoder(kind, position).double().eval()
    tokens, shift = torch.randn(2, 7, 5, dtype=torch.float64), torch.randn(7, 8, dtype=torch.float64)
    made = model(tokens, shift)
    for i in range(2):
        for got, expected in zip(made, encoder(model.state_dict(), tokens[i], 2, kind, 4, shift), strict=True):
            assert torch.allclose(got[i], expected, atol=1e-6)


@kinds
def test_dual_attention_follows_its_equations(kind):
    model = small_dual(kind).double().eval()
    tiles, genes = torch.randn(2, 7, 5, dtype=torch.float64), torch.randn(2, 6, 3, dtype=torch.float64)
    logits, att = model(tiles, genes)
    w = model.state_dict()
    for i in range(2):
        image, tiles_out, self_image = encoder(part(w, "image_encoder"), tiles[i], 2, kind, 4)
        gene, sets_out, self_genes = encoder(part(w, "gene_encoder"), genes[i], 2, kind, 4, w["set_embedding"])
        from_genes, cross_genes = cross(part(w, "image_to_genes"), image, sets_out, 2)
        from_image, cross_image = cross(part(w, "genes_to_image"), gene, tiles_out, 2)
        joined = layer_norm(part(w, "classifier.0"), torch.cat([image, gene, from_genes, from_image]))
        assert torch.allclose(logits[i], linear(part(w, "classifier.2"), joined), atol=1e-6)
        expected = {
            "self_image": self_image,
            "self_genes": self_genes,
            "cross_genes": cross_genes,
            "cross_image": cross_image,
        }
        assert att.keys() == expected.keys()
        assert all(torch.allclose(att[name][i], expected[name], atol=1e-6) for name in att)


@masked
@kinds
def test_a_patient_alone_is_the_patient_in_a_batch(kind, masked):
    model, tiles, genes = small_dual(kind).eval(), torch.randn(3, 7, 5), torch.randn(3, 6, 3)
    tiles[2] *= 30
    mask = {"mask": uneven_mask([7, 4, 2], 7)} if masked else {}
    logits, att = model(tiles, genes, **mask)
    for i in range(3):
        its, its_att = alone(model, i, tiles, genes, **mask)
        assert torch.allclose(its[0], logits[i], atol=1e-5)
        assert all(torch.allclose(its_att[name][0], att[name][i], atol=1e-5) for name in att)


@kinds
def test_padding_is_seen_by_nobody(kind):
    model, tiles, genes = small_dual(kind).eval(), torch.randn(3, 7, 5), torch.randn(3, 6, 3)
    mask, other = uneven_mask([7, 4, 2], 7), tiles.clone()
    other[~mask] = 7
    (logits, att), (same, _) = model(tiles, genes, mask), model(other, genes, mask)
    assert torch.equal(logits, same)
    assert all((att[name].mT[~mask] == 0).all() for name in ("self_image", "cross_image"))
    # The first patient has no padding.
    assert torch.allclose(model(tiles, genes)[0][0], logits[0], atol=1e-5)


@masked
@pytest.mark.parametrize("kind", ["exact", "nystrom"])  # those of published are TransMIL's
def test_gradients_of_the_encoder_and_of_dual_attention(kind, masked):
    tiles, genes, mask = torch.randn(2, 6, 5), torch.randn(2, 6, 3), uneven_mask([6, 4], 6) if masked else None
    assert gradients_hold(small_encoder(kind, True), tiles, mask=mask)
    assert gradients_hold(small_dual(kind), tiles, genes, mask=mask)
