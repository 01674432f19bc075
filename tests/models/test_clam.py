"""CLAM against its equations tile by tile, its published names, and padding."""

import pytest
import torch

from mmmil.models.clam import BAG_WEIGHT, CLAM
from tests.models.test_attention import alone, gated, gradients_hold, linear, part, softmax, uneven_mask


def plain_clam(w, z, label, k, subtyping):
    """One bag z (N, D) -> logits, att (N,), loss of its instances."""
    h = linear(part(w, "attention_net.0"), z).clamp(min=0)
    summary, att = gated(part(w, "attention_net.3"), h)
    order = sorted(range(len(z)), key=lambda i: float(att[i]))
    losses = []
    for m in range(2):
        if m != label and not subtyping:
            continue
        labels = {i: int(m == label) for i in order[-k:]} | (dict.fromkeys(order[:k], 0) if m == label else {})
        p = {i: softmax(linear(part(w, f"instance_classifiers.{m}"), h[i])) for i in labels}
        losses.append(-sum(torch.log(p[i][side]) for i, side in labels.items()) / len(labels))
    return linear(part(w, "classifiers"), summary), att, sum(losses) / len(losses)


def small(**settings):
    torch.manual_seed(0)
    return CLAM(5, width=6, hidden=4, k_sample=3, **settings)


@pytest.mark.parametrize("subtyping", [True, False])
@pytest.mark.parametrize("number", [(9, 9, 9), (9, 7, 5)])
def test_clam_follows_its_equations(number, subtyping):
    model = small(subtyping=subtyping).double().eval()
    tiles, labels = torch.randn(3, 9, 5, dtype=torch.float64), torch.tensor([0, 1, 1])
    mask = None if number == (9, 9, 9) else uneven_mask(number, 9)
    logits, att, loss = model(tiles, mask=mask, labels=labels)
    losses = []
    for i, n in enumerate(number):
        k = min(3, n // 2)  # of five tiles the two highest and the two lowest
        expected, weights, its_loss = plain_clam(model.state_dict(), tiles[i, :n], labels[i], k, subtyping)
        losses.append(its_loss)
        assert torch.allclose(logits[i], expected, atol=1e-6)
        assert torch.allclose(att["self_image"][i, 0, :n], weights, atol=1e-6)
        assert (att["self_image"][i, 0, n:] == 0).all()
    assert torch.allclose(loss, sum(losses) / 3, atol=1e-6)
    assert len(model(tiles, mask=mask)) == 2  # without labels, no loss


def test_the_only_tile_of_a_bag_speaks_for_its_class_and_not_against_it_too():
    model = small(subtyping=False).eval()
    h = torch.randn(1, model.classifiers.in_features)
    assert model.instance_loss(h, torch.ones(1), 1) == -model.instance_classifiers[1](h).log_softmax(-1)[0, 1]


def test_gradients_of_clam():
    labels, mask = torch.tensor([0, 1]), uneven_mask([7, 5], 7)
    assert gradients_hold(small(), torch.randn(2, 7, 5), mask=mask, labels=labels)


@pytest.mark.parametrize("masked", [False, True])
def test_a_patient_alone_is_the_patient_in_a_batch(masked):
    model, tiles = small().eval(), torch.randn(3, 9, 5)
    mask = {"mask": uneven_mask([9, 1, 4], 9)} if masked else {}
    logits, att, loss = model(tiles, labels=torch.tensor([1, 0, 1]), **mask)
    each = [alone(model, i, tiles, labels=torch.tensor([1, 0, 1]), **mask) for i in range(3)]
    assert torch.allclose(torch.cat([one[0] for one in each]), logits, atol=1e-5)
    assert torch.allclose(torch.cat([one[1]["self_image"] for one in each]), att["self_image"], atol=1e-5)
    assert torch.allclose(torch.stack([one[2] for one in each]).mean(), loss, atol=1e-5)
    if masked:
        other = tiles.clone()
        other[~mask["mask"]] = 1e3
        assert torch.equal(model(other, labels=torch.tensor([1, 0, 1]), **mask)[2], loss)
        assert torch.allclose(model(tiles[2:, :4])[0][0], logits[2], atol=1e-5)


def test_published_checkpoints_load_strictly():
    shapes = {
        "attention_net.0": (512, 1024),
        "attention_net.3.attention_a.0": (256, 512),
        "attention_net.3.attention_b.0": (256, 512),
        "attention_net.3.attention_c": (1, 256),
        "classifiers": (2, 512),
        "instance_classifiers.0": (2, 512),
        "instance_classifiers.1": (2, 512),
    }
    state = {f"{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.ones(shape[0]) for name, shape in shapes.items()}
    model = CLAM(1024)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in state.items()}
    # As written after training on several devices, with the buffer of the SVM loss.
    wrapped = {k.replace("attention_net.", "attention_net.module."): v for k, v in state.items()}
    model.load_state_dict(wrapped | {"instance_loss_fn.labels": torch.arange(2)}, strict=True)
    assert all((value == 1).all() for value in model.state_dict().values())
    assert "instance_loss_fn.labels" not in wrapped and CLAM.reads_labels and BAG_WEIGHT == 0.7
