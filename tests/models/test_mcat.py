"""MCAT against its equations, its published names, and padding."""

import pytest
import torch

from mmmil.models.mcat import MCAT
from tests.models.test_attention import (
    alone,
    by_head,
    gated,
    gradients_hold,
    layer_norm,
    linear,
    part,
    scaled_dot_product,
    uneven_mask,
)


def attention(w, query, tokens, heads):
    """Vaswani et al. 2017, section 3.2.2, with the three input projections in one matrix."""
    projected = [
        linear({"weight": weight, "bias": bias}, x)
        for weight, bias, x in zip(
            w["in_proj_weight"].chunk(3), w["in_proj_bias"].chunk(3), (query, tokens, tokens), strict=True
        )
    ]
    out, att = by_head(*projected, heads, scaled_dot_product)
    return linear(part(w, "out_proj"), out), att


def transformer(w, x, heads):
    for layer in (part(w, "layers.0"), part(w, "layers.1")):
        x = layer_norm(part(layer, "norm1"), x + attention(part(layer, "self_attn"), x, x, heads)[0])
        inner = linear(part(layer, "linear1"), x).clamp(min=0)
        x = layer_norm(part(layer, "norm2"), x + linear(part(layer, "linear2"), inner))
    return x


def snn(w, x):
    for block in (part(w, "0.0"), part(w, "1.0")):
        x = linear(block, x)
        x = torch.where(x > 0, x, torch.exp(x) - 1)
    return x


def plain_mcat(w, tiles, sets, heads):
    """One patient: tiles (N, D), a vector for each set -> logits, co-attention (S, N), weights of the sets (S,)."""
    h = linear(part(w, "wsi_net.0"), tiles).clamp(min=0)
    shared = "sig_networks.1.0.0.weight" not in w
    g = torch.stack([snn(part(w, f"sig_networks.{0 if shared else i}"), x) for i, x in enumerate(sets)])
    asked, co_attention = attention(part(w, "coattn"), g, h, 1)
    vectors, weights = [], None
    for name, x in (("path", asked), ("omic", g)):
        pooled, weights = gated(
            part(w, f"{name}_attention_head"), transformer(part(w, f"{name}_transformer"), x, heads)
        )
        vectors.append(linear(part(w, f"{name}_rho.0"), pooled).clamp(min=0))
    joined = linear(part(w, "mm.0"), torch.cat(vectors)).clamp(min=0)
    joined = linear(part(w, "mm.2"), joined).clamp(min=0)
    return linear(part(w, "classifier"), joined), co_attention[0], weights


def small():
    torch.manual_seed(0)
    return MCAT(5, [3], shared=True, width=8, heads=2)


@pytest.mark.parametrize("number", [(7, 7), (7, 4)])
def test_mcat_follows_its_equations_and_skips_padding(number):
    model = small().double().eval()
    tiles, genes = torch.randn(2, 7, 5, dtype=torch.float64), torch.randn(2, 6, 3, dtype=torch.float64)
    logits, att = model(tiles, genes, None if number == (7, 7) else uneven_mask(number, 7))
    for i, n in enumerate(number):
        expected, co_attention, weights = plain_mcat(model.state_dict(), tiles[i, :n], genes[i], 2)
        assert torch.allclose(logits[i], expected, atol=1e-6)
        assert torch.allclose(att["co_attention"][i, :, :n], co_attention, atol=1e-6)
        assert torch.allclose(att["cross_image"][i, 0, :n], sum(co_attention) / 6, atol=1e-6)
        assert torch.allclose(att["self_genes"][i, 0], weights, atol=1e-6)
        assert (att["co_attention"][i, :, n:] == 0).all()
    assert all(torch.allclose(a.sum(-1), torch.ones(1, dtype=torch.float64)) for a in att.values())


def test_sets_of_different_sizes_have_their_own_networks():
    torch.manual_seed(0)
    model = MCAT(5, [3, 2, 4], n_classes=4, width=8, heads=2).double().eval()
    tiles = torch.randn(2, 7, 5, dtype=torch.float64)
    sets = [torch.randn(2, size, dtype=torch.float64) for size in (3, 2, 4)]
    logits, att = model(tiles, sets)
    assert logits.shape == (2, 4) and att["co_attention"].shape == (2, 3, 7)
    for i in range(2):
        assert torch.allclose(
            logits[i], plain_mcat(model.state_dict(), tiles[i], [x[i] for x in sets], 2)[0], atol=1e-6
        )
    with pytest.raises(ValueError, match="one size"):
        MCAT(5, [3, 2], shared=True)


@pytest.mark.parametrize("grad", [True, False])  # without gradients torch takes another path
@pytest.mark.parametrize("masked", [False, True])
def test_a_patient_alone_is_the_patient_in_a_batch(masked, grad):
    model, tiles, genes = small().eval(), torch.randn(3, 7, 5), torch.randn(3, 6, 3)
    mask = {"mask": uneven_mask([7, 4, 1], 7)} if masked else {}
    with torch.set_grad_enabled(grad):
        logits, att = model(tiles, genes, **mask)
        for i in range(3):
            its, its_att = alone(model, i, tiles, genes, **mask)
            assert torch.allclose(its[0], logits[i], atol=1e-5)
            assert all(torch.allclose(its_att[name][0], att[name][i], atol=1e-5) for name in att)
            if masked:
                real = mask["mask"][i]
                assert torch.allclose(model(tiles[i : i + 1, real], genes[i : i + 1])[0][0], logits[i], atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_mcat(masked):
    mask = uneven_mask([6, 4], 6) if masked else None
    assert gradients_hold(small(), torch.randn(2, 6, 5), torch.randn(2, 4, 3), mask=mask)


def test_published_checkpoints_load_strictly():
    sizes = [100, 200, 300, 400, 500, 600]
    linears = {"wsi_net.0": (256, 1024), "mm.0": (256, 512), "mm.2": (256, 256), "classifier": (4, 256)}
    attentions, norms = ["coattn"], []
    for i, size in enumerate(sizes):
        linears |= {f"sig_networks.{i}.0.0": (256, size), f"sig_networks.{i}.1.0": (256, 256)}
    for name in ("path", "omic"):
        for i in (0, 1):
            layer = f"{name}_transformer.layers.{i}"
            linears |= {f"{layer}.linear1": (512, 256), f"{layer}.linear2": (256, 512)}
            attentions.append(f"{layer}.self_attn")
            norms += [f"{layer}.norm1", f"{layer}.norm2"]
        head = f"{name}_attention_head"
        linears |= {f"{head}.attention_a.0": (256, 256), f"{head}.attention_b.0": (256, 256)}
        linears |= {f"{head}.attention_c": (1, 256), f"{name}_rho.0": (256, 256)}
    linears |= {f"{name}.out_proj": (256, 256) for name in attentions}
    state = {f"{name}.weight": torch.ones(shape) for name, shape in linears.items()}
    state |= {f"{name}.bias": torch.ones(shape[0]) for name, shape in linears.items()}
    state |= {f"{name}.in_proj_weight": torch.ones(768, 256) for name in attentions}
    state |= {f"{name}.in_proj_bias": torch.ones(768) for name in attentions}
    state |= {f"{name}.{kind}": torch.ones(256) for name in norms for kind in ("weight", "bias")}
    model = MCAT(1024, sizes, n_classes=4)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in state.items()}
    # As written after training: most parts wrapped by DataParallel.
    wrapped = {k.replace("wsi_net.", "wsi_net.module."): v for k, v in state.items()}
    model.load_state_dict(
        {k.replace("_networks.0.", "_networks.0.module."): v for k, v in wrapped.items()}, strict=True
    )
    assert all((value == 1).all() for value in model.state_dict().values())
