"""Attention against its equations written out for one patient and one head at a time, in float64.

`exact`, `nystrom`, `cross`, `gated` and their parts take the weights `w` of a state dict, and no code of the modules.
"""

from math import ceil

import pytest
import torch
from nystrom_attention import NystromAttention
from torch.func import functional_call

from mmmil.models.attention import (
    CrossAttention,
    ExactSelfAttention,
    GatedAttention,
    NystromSelfAttention,
    PublishedSelfAttention,
    pseudo_inverse,
)


def part(w, name):
    """The weights below `name` in a state dict."""
    return {key.removeprefix(f"{name}."): value for key, value in w.items() if key.startswith(f"{name}.")}


def linear(w, x):
    return torch.einsum("...i,oi->...o", x, w["weight"]) + w.get("bias", 0)


def layer_norm(w, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5) * w["weight"] + w["bias"]


def softmax(scores):
    e = torch.exp(scores - scores.max())
    return e / e.sum(-1, keepdim=True)


def by_head(q, k, v, heads, attend):
    """Each head's `attend(q, k, v, head)` -> (out, att), heads side by side and stacked."""
    made = [attend(*three, h) for h, three in enumerate(zip(*(t.chunk(heads, -1) for t in (q, k, v)), strict=True))]
    return torch.cat([out for out, _ in made], -1), torch.stack([att for _, att in made])


def scaled_dot_product(q, k, v, head=0):
    """Vaswani et al. 2017, eq. 1."""
    att = softmax(torch.einsum("id,jd->ij", q, k) / q.shape[-1] ** 0.5)
    return torch.einsum("ij,jd->id", att, v), att


def exact(w, x, heads):
    """(N, W) -> (N, W) and att (H, N, N)."""
    out, att = by_head(*linear(part(w, "to_qkv"), x).chunk(3, -1), heads, scaled_dot_product)
    return linear(part(w, "to_out.0"), out), att


def nystrom(w, x, heads, landmarks, iterations=6):
    """Xiong et al. 2021: eq. 13 with the inverse of eq. 11, landmarks are means of segments (eq. 7).

    Segments are counted from the last token, so it is the first that may be shorter.
    """
    n = len(x)
    length = ceil(n / landmarks)
    stops = list(range(n, 0, -length))[::-1]
    segments = [slice(max(0, stop - length), stop) for stop in stops]

    def attend(q, k, v, head):
        q = q / q.shape[-1] ** 0.5
        q_mean, k_mean = (torch.stack([t[s].mean(0) for s in segments]) for t in (q, k))
        first, middle, last = softmax(q @ k_mean.T), softmax(q_mean @ k_mean.T), softmax(q_mean @ k.T)
        z = middle.T / (middle.abs().sum(0).max() * middle.abs().sum(1).max())
        one = torch.eye(len(middle), dtype=x.dtype)
        for _ in range(iterations):
            a = middle @ z
            z = z @ (13 * one - a @ (15 * one - a @ (7 * one - a))) / 4
        att = first @ z @ last
        kernel = w["res_conv.weight"][head, 0, :, 0]  # over tokens, the same for every channel of a head
        near = torch.zeros(n, n, dtype=x.dtype)
        for i in range(n):
            for j in range(n):
                if abs(j - i) <= len(kernel) // 2:
                    near[i, j] = kernel[j - i + len(kernel) // 2]
        return att @ v + near @ v, att

    out, att = by_head(*linear(part(w, "to_qkv"), x).chunk(3, -1), heads, attend)
    return linear(part(w, "to_out.0"), out), att


def published(w, x, heads, landmarks):
    """The library's own module for one patient: (N, W) -> (N, W) and att (H, N, N), its padding in front cut off."""
    kernel = w["res_conv.weight"].shape[2]
    width, n = x.shape[1], len(x)
    module = NystromAttention(
        width, width // heads, heads, num_landmarks=landmarks, residual=True, residual_conv_kernel=kernel
    )
    module.to(x.dtype).load_state_dict(w, strict=True)
    out, att = module.eval()(x[None], return_attn=True)
    return out[0].detach(), att[0, :, -n:, -n:].detach()


def attended(kind, w, x, heads, landmarks):
    """Self-attention of a kind: (N, W) -> (N, W) and att (H, N, N)."""
    return {"exact": lambda: exact(w, x, heads)}.get(kind, lambda: globals()[kind](w, x, heads, landmarks))()


def cross(w, query, tokens, heads):
    """query (W,), tokens (N, W) -> vector (W,) and att (H, N)."""
    q = linear(part(w, "to_q"), layer_norm(part(w, "norm_query"), query))[None]
    k, v = linear(part(w, "to_kv"), layer_norm(part(w, "norm_tokens"), tokens)).chunk(2, -1)
    out, att = by_head(q, k, v, heads, scaled_dot_product)
    return linear(part(w, "to_out.0"), out)[0], att[:, 0]


def gated(w, h):
    """Ilse et al. 2018, eq. 8 and 9: h (N, W) -> vector (W,) and att (N,)."""
    scores = torch.stack(
        [
            w["attention_c.bias"][0]
            + (
                w["attention_c.weight"][0]
                * torch.tanh(linear(part(w, "attention_a.0"), one))
                / (1 + torch.exp(-linear(part(w, "attention_b.0"), one)))
            ).sum()
            for one in h
        ]
    )
    att = softmax(scores)
    return sum(a * one for a, one in zip(att, h, strict=True)), att


def gradients_hold(module, *inputs, **named):
    """gradcheck over the inputs and all parameters at once, of every floating-point output."""
    module = module.double().eval()
    names, values = zip(*module.named_parameters(), strict=True)

    def outputs(*args):
        given = dict(zip(names, args[len(inputs) :], strict=True))
        made = functional_call(module, given, args[: len(inputs)], named)
        flat = []
        for one in made if isinstance(made, tuple) else (made,):
            flat += one.values() if isinstance(one, dict) else [one]
        return tuple(flat)

    leaves = [t.detach().double().requires_grad_() for t in (*inputs, *values)]
    return torch.autograd.gradcheck(outputs, leaves, fast_mode=True)


def alone(model, i, *inputs, **named):
    """The outputs of patient `i` as a batch of one."""
    return model(*(x[i : i + 1] for x in inputs), **{key: x[i : i + 1] for key, x in named.items()})


def uneven_mask(number, n):
    """(B, N), False behind each patient's number of real tokens."""
    return torch.arange(n) < torch.tensor(number)[:, None]


KINDS = {
    "exact": lambda **kw: ExactSelfAttention(8, heads=2, **kw),
    "nystrom": lambda **kw: NystromSelfAttention(8, 4, 2, num_landmarks=4, residual_conv_kernel=5, **kw),
    "published": lambda **kw: PublishedSelfAttention(8, 4, 2, num_landmarks=4, residual_conv_kernel=5, **kw),
}


@pytest.mark.parametrize("n", [1, 3, 4, 7, 9, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_self_attention_follows_its_equations(kind, n):
    torch.manual_seed(0)
    module = KINDS[kind]().double().eval()
    x = torch.randn(2, n, 8, dtype=torch.float64)
    out, att = module(x, return_att=True)
    assert torch.allclose(module(x), out, atol=1e-12)
    for i in range(2):
        expected, weights = attended(kind, module.state_dict(), x[i], 2, 4)
        assert torch.allclose(out[i], expected, atol=1e-6) and torch.allclose(att[i], weights, atol=1e-6)


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_real_token(kind, end):
    torch.manual_seed(0)
    module = KINDS[kind]().eval()
    x = torch.randn(4, 11, 8) * 3
    mask = uneven_mask([11, 6, 9, 6], 11)
    if not end:
        mask = mask.flip(1)
    out, att = module(x, return_att=True, mask=mask)
    assert torch.allclose(module(x, mask=mask)[mask], out[mask], atol=1e-5)
    for i in range(4):
        expected, weights = module(x[i : i + 1, mask[i]], return_att=True)
        assert torch.allclose(out[i, mask[i]], expected[0], atol=1e-5)
        assert torch.allclose(att[i][:, mask[i]][:, :, mask[i]], weights[0], atol=1e-5)
        assert (att[i][:, mask[i]][:, :, ~mask[i]] == 0).all()
        if kind != "exact":
            assert (att[i][:, ~mask[i]] == 0).all() and (out[i, ~mask[i]] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_real_tokens_only_is_no_mask(kind):
    torch.manual_seed(0)
    module, x = KINDS[kind]().eval(), torch.randn(2, 9, 8)
    for got, expected in zip(module(x, True, torch.ones(2, 9, dtype=torch.bool)), module(x, True), strict=True):
        assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_patient_alone_is_the_patient_in_a_batch(kind, masked):
    torch.manual_seed(0)
    module = KINDS[kind]().eval()
    x = torch.randn(3, 7, 8) * torch.tensor([1, 1, 30])[:, None, None]  # an outlier is nobody else's concern
    mask = {"mask": uneven_mask([7, 4, 5], 7)} if masked else {}
    together = module(x, **mask)
    for i in range(3):
        assert torch.allclose(alone(module, i, x, **mask)[0], together[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_self_attention(kind, masked):
    torch.manual_seed(0)
    mask = uneven_mask([6, 4], 6) if masked else None
    assert gradients_hold(KINDS[kind](), torch.randn(2, 6, 8), return_att=True, mask=mask)


@pytest.mark.parametrize("n", [0, 3])
def test_cross_attention_follows_its_equations_and_skips_padding(n):
    torch.manual_seed(0)
    module = CrossAttention(8, heads=2).double().eval()
    query, tokens = torch.randn(2, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    mask = uneven_mask([5, n], 5) if n else None
    out, att = module(query, tokens, mask)
    for i, real in enumerate([5, n or 5]):
        vector, weights = cross(module.state_dict(), query[i], tokens[i, :real], 2)
        assert torch.allclose(out[i], vector, atol=1e-6) and torch.allclose(att[i, :, :real], weights, atol=1e-6)
        assert (att[i, :, real:] == 0).all()
    assert gradients_hold(module, query, tokens, mask=mask)


@pytest.mark.parametrize("n", [0, 3])
def test_gated_attention_follows_its_equations_and_skips_padding(n):
    torch.manual_seed(0)
    module = GatedAttention(6, 4).double().eval()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    mask = uneven_mask([5, n], 5) if n else None
    out, att = module(x, mask)
    for i, real in enumerate([5, n or 5]):
        vector, weights = gated(module.state_dict(), x[i, :real])
        assert torch.allclose(out[i], vector, atol=1e-6) and torch.allclose(att[i, 0, :real], weights, atol=1e-6)
        assert (att[i, 0, real:] == 0).all()
    assert gradients_hold(module, x, mask=mask)


def test_the_iteration_converges_to_the_inverse():
    torch.manual_seed(0)
    a = torch.softmax(torch.randn(2, 3, 5, 5, dtype=torch.float64), -1)
    assert torch.allclose(pseudo_inverse(a, 40), torch.linalg.inv(a), atol=1e-6)


@pytest.mark.parametrize("landmarks", [1, 3, 8, 64])
def test_published_attention_is_the_librarys_for_each_patient(landmarks):
    """However much of it is padding: less than a segment, some segments, or nearly all of them."""
    torch.manual_seed(0)
    module = PublishedSelfAttention(8, 4, 2, num_landmarks=landmarks).double().eval()
    for n in (1, 2, 3, 7, 8, 9, 10, 17, 65):
        x = torch.randn(2, n, 8, dtype=torch.float64) * 2
        out, att = module(x, return_att=True)
        for i in range(2):
            expected, weights = published(module.state_dict(), x[i], 2, landmarks)
            assert torch.allclose(out[i], expected, atol=1e-10) and torch.allclose(att[i], weights, atol=1e-10)


def test_published_attention_attends_to_its_padding():
    """By hand: queries and keys of zero, values as they are. 5 tokens of 4 landmarks are padded to 8, all alike."""
    module = PublishedSelfAttention(2, 2, 1, num_landmarks=4, residual=False).eval()
    with torch.no_grad():
        module.to_qkv.weight.copy_(torch.cat([torch.zeros(4, 2), torch.eye(2)]))
        module.to_out[0].weight.copy_(torch.eye(2)), module.to_out[0].bias.zero_()
    x = torch.tensor([[[8.0, 0], [0, 8], [8, 0], [0, 0], [0, 0]]])
    out, att = module(x, return_att=True)
    assert torch.allclose(out, torch.tensor([2.0, 1]).expand(1, 5, 2), atol=1e-6)
    assert torch.allclose(att, torch.full((1, 1, 5, 5), 1 / 8), atol=1e-6)


def test_nystroms_parameters_have_the_librarys_names():
    shapes = {name: tuple(value.shape) for name, value in NystromSelfAttention(8, 4, 2).state_dict().items()}
    assert shapes == {
        "to_qkv.weight": (24, 8),
        "to_out.0.weight": (8, 8),
        "to_out.0.bias": (8,),
        "res_conv.weight": (2, 1, 33, 1),
    }
