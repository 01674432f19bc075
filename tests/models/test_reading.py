"""What is read of an encoder beside layer 2: layer 1 and rollout by their equations; training reads none."""

import pytest
import torch

from mmmil import params
from mmmil.models import attention as attention_module
from mmmil.models.bag_model import BagModel
from mmmil.models.clam import CLAM
from mmmil.models.fusion import Encoder
from mmmil.models.reading import reading_layers
from mmmil.models.transmil import TransMIL
from mmmil.training import device, fit
from tests.models.test_aggregators import encoder, small_dual
from tests.models.test_attention import attended, layer_norm, linear, part

kinds = pytest.mark.parametrize("kind", ["exact", "nystrom", "published"])


@kinds
def test_layer_1_and_the_rollout_follow_their_equations(kind, monkeypatch):
    """Abnar & Zuidema 2020: Ã(l) = (A(l) + I) / 2 · Ã(l - 1), rows summing to one, one patient at a time."""
    monkeypatch.setattr(attention_module, "AT_ONCE", 60)  # exact attention is made two rows at a time
    torch.manual_seed(0)
    model, tokens = Encoder(5, 8, 2, kind, 4, 0.1, ppeg=False).double().eval(), torch.randn(2, 6, 5).double()
    with reading_layers(model) as read:
        model(tokens)
    w = model.state_dict()
    for i in range(2):
        x = torch.cat([w["cls_token"][0], linear(part(w, "_fc1.0"), tokens[i]).clamp(min=0)])
        out, rows = torch.eye(7).double(), {}
        for name in ("layer1", "layer2"):
            added, att = attended(kind, part(w, f"{name}.attn"), layer_norm(part(w, f"{name}.norm"), x), 2, 4)
            mixed = (att.mean(0) + torch.eye(7)) / 2
            out, x, rows[name] = mixed / mixed.sum(-1, keepdim=True) @ out, x + added, att[:, 0, 1:]
        assert torch.allclose(read["layer1_image"][i], rows["layer1"])
        assert torch.allclose(read["rollout_image"][i, 0], out[0, 1:])
        assert torch.allclose(out.sum(-1), torch.ones(7).double())
    assert torch.allclose(encoder(w, tokens[0], 2, kind, 4)[0], model(tokens)[0][0])


def test_repeated_tokens_are_added_to_their_own():
    """By hand: without queries and keys, 3 tiles, one copy and the class token get 1/8 each and padding the rest. Rows
    that sum to one are (J + 8 I) / 13, two layers of them (21 J + 64 I) / 169."""
    model = TransMIL(5, width=8, heads=2, landmarks=4).eval()
    with torch.no_grad():
        for layer in (model.layer1, model.layer2):
            layer.attn.to_qkv.weight[:16] = 0
    mask = torch.tensor([[True, True, True, False], [False, True, False, False]])
    with reading_layers(model) as read:
        model(torch.randn(2, 4, 5), mask=mask)
    expected = torch.tensor([[42, 21, 21, 0], [0, 10, 0, 0]]) / torch.tensor([[169.0], [36]])
    assert torch.allclose(read["rollout_image"][:, 0], expected, atol=1e-5)
    expected = torch.tensor([[2, 1, 1, 0], [0, 2, 0, 0]]) / 8
    assert torch.allclose(read["layer1_image"], expected[:, None].expand(2, 2, 4), atol=1e-5)


@kinds
def test_a_padded_bag_gives_what_it_gives_alone_and_padding_nothing(kind):
    torch.manual_seed(0)
    model, tiles, genes = small_dual(kind).eval(), torch.randn(2, 7, 5), torch.randn(2, 6, 3)
    with reading_layers(model) as read:
        model(tiles, genes, torch.arange(7) < torch.tensor([[7], [4]]))
        together = dict(read)
        model(tiles[1:, :4], genes[1:])
    assert set(read) == {"layer1_image", "rollout_image", "layer1_genes", "rollout_genes"}
    for source, alone in read.items():
        n = alone.shape[-1]
        assert torch.allclose(together[source][1:, :, :n], alone, atol=1e-6), source
        assert (together[source][1, :, n:] == 0).all()


def test_what_is_not_asked_for_and_what_has_no_encoder_is_not_read():
    model, tiles, genes = small_dual("exact").eval(), torch.randn(2, 7, 5), torch.randn(2, 6, 3)
    with reading_layers(model, ["genes"]) as read:
        model(tiles, genes)
    assert set(read) == {"layer1_genes", "rollout_genes"} and not any(t.requires_grad for t in read.values())
    read.clear()
    model(tiles, genes)
    with reading_layers(CLAM(5)) as of_clam:
        assert read == of_clam == {}, "nothing is read once the block is left"


def test_training_reads_no_further_layer_and_prediction_does(monkeypatch):
    rolled, asked = attention_module.ExactSelfAttention.rolled, []
    monkeypatch.setattr(
        attention_module.ExactSelfAttention, "rolled", lambda *given: [asked.append(0), rolled(*given)][1]
    )
    p = params.load("lgg", "demo", epochs=2, batch_size=4, device="cpu")
    torch.manual_seed(0)
    inputs = fit.Inputs(torch.randn(8, 7, 5), torch.randn(8, 6, 3))
    fabric, labels = device.make_fabric(p), torch.arange(8) % 2
    model, _ = fit.fit(fabric, BagModel(small_dual("exact")), inputs, labels, list(range(6)), p)
    assert not asked
    prob, att = fit.predict(fabric, model, inputs, range(8), 4)
    assert len(asked) == 4 and att["rollout_image"].shape == (8, 7) and att["layer1_genes"].shape == (8, 6)
    same, own = fit.predict(fabric, model, inputs, range(8), 4, layers=False)
    assert (prob == same).all() and own.keys() == att.keys() - {
        f"{a}_{b}" for a in ("layer1", "rollout") for b in ("image", "genes")
    }
