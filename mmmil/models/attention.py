"""Self-attention over the tokens of a bag, exact or by Nyström's approximation; cross-attention between modalities.

Shapes: B patients, N tokens, W width, H heads. A returned `att` is after the softmax, (B, H, N_query, N_key); `scores`
are what a softmax is taken of, masked keys at the lowest number there is.
"""

from __future__ import annotations

from math import ceil
from typing import Any, Literal

import torch
import torch.nn.functional as F
from nystrom_attention import NystromAttention
from torch import Tensor, nn

HEADS = 8  # as TransMIL; the paper does not say
# All rows of the attention, or those of the first token only, which is the class token where there is one.
ReturnAtt = bool | Literal["first"]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, H*D) -> (B, H, N, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def masked(scores: Tensor, keys: Tensor | None) -> Tensor:
    """Scores (B, H, N_query, N_key) before the softmax, lowest where `keys` (broadcastable bool) is False."""
    return scores if keys is None else scores.masked_fill(~keys, -torch.finfo(scores.dtype).max)


def scaled_scores(q: Tensor, k: Tensor, keys: Tensor | None = None) -> Tensor:
    """Q K^T / sqrt(D), masked: (B, H, N_query, D) and (B, H, N_key, D) -> (B, H, N_query, N_key)."""
    return masked(q @ k.mT * q.shape[-1] ** -0.5, keys)


class ExactSelfAttention(nn.Module):
    """Multi-head scaled dot-product attention: softmax(Q K^T / sqrt(D)) V. At 64 tokens this is the fast one."""

    def __init__(self, width: int, heads: int = HEADS, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def forward(
        self, x: Tensor, return_att: ReturnAtt = False, mask: Tensor | None = None
    ) -> Any:  # a Tensor, or two where att is asked for
        """(B, N, W) -> (B, N, W), and att (B, H, N, N) if asked for, (B, H, 1, N) for "first".

        `mask` (B, N): False is never attended to.
        """
        q, k, v = (split_heads(t, self.heads) for t in self.to_qkv(x).chunk(3, dim=-1))
        keys = None if mask is None else mask[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, keys)
        out = self.to_out(out.transpose(1, 2).flatten(2))
        if not return_att:
            return out
        return out, scaled_scores(q[:, :, :1] if return_att == "first" else q, k, keys).softmax(-1)

    def scores(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What `forward` takes the softmax of: (B, N, W) -> (B, H, N, N)."""
        q, k, _ = (split_heads(t, self.heads) for t in self.to_qkv(x).chunk(3, dim=-1))
        return scaled_scores(q, k, None if mask is None else mask[:, None, None])


def pseudo_inverse(x: Tensor, iterations: int = 6) -> Tensor:
    """Iterative Moore-Penrose inverse (Nyströmformer, eq. 11), each matrix scaled by its own norms.

    The library scales by a maximum over the whole batch, by which one patient's output depends on its batch mates.
    """
    a = x.abs()
    z = x.mT / (a.sum(-1).amax(-1) * a.sum(-2).amax(-1))[..., None, None]
    identity = torch.eye(x.shape[-1], device=x.device, dtype=x.dtype)
    for _ in range(iterations):
        xz = x @ z
        z = 0.25 * z @ (13 * identity - xz @ (15 * identity - xz @ (7 * identity - xz)))
    return z


class NystromSelfAttention(NystromAttention):
    """The library's module (as in TransMIL and the paper) with padding that cannot be attended to.

    Segments are as long as needed for at most `num_landmarks` of them, so that padding is shorter than one segment
    and every landmark is the mean of real tokens; padded keys are masked, padded rows and columns removed.
    """

    def forward(
        self, x: Tensor, return_att: ReturnAtt = False, mask: Tensor | None = None
    ) -> Any:  # a Tensor, or two where att is asked for
        """(B, N, W) -> (B, N, W), and att (B, H, N, N) if asked for, (B, H, 1, N) of the first real token for "first".

        `mask` (B, N) is False for padding, wherever it stands: a patient's real tokens give what they give without
        it. Padded rows of the output, and padded rows and columns of att, are zero.
        """
        if mask is not None:
            return self._padded(x, return_att, mask)
        n = x.shape[1]
        length = ceil(n / self.num_landmarks)
        segments = ceil(n / length)
        pad = segments * length - n
        # to_qkv has no bias: padded tokens stay zero and add nothing to the sums over a segment.
        q, k, v = (split_heads(t, self.heads) for t in self.to_qkv(F.pad(x, (0, 0, pad, 0))).chunk(3, dim=-1))
        q = q * self.scale
        real = x.new_full((segments, 1), length)
        real[0] = length - pad
        q_mean, k_mean = (t.unflatten(2, (segments, length)).sum(3) / real for t in (q, k))
        to_keys = q_mean @ k.mT
        to_keys[..., :pad] = -torch.finfo(to_keys.dtype).max
        first = (q @ k_mean.mT).softmax(-1)
        middle = pseudo_inverse((q_mean @ k_mean.mT).softmax(-1), self.pinv_iterations)
        last = to_keys.softmax(-1)
        out = first @ middle @ (last @ v)
        if self.residual:
            out = out + self.res_conv(v)
        out = self.to_out(out.transpose(1, 2).flatten(2)[:, pad:])
        if not return_att:
            return out
        rows = first[:, :, pad : pad + 1] if return_att == "first" else first[:, :, pad:]
        return out, rows @ middle @ last[..., pad:]

    def _padded(self, x: Tensor, return_att: ReturnAtt, mask: Tensor) -> Any:  # a Tensor, or two where att is asked for
        """As `forward`, for bags with padding: the segments follow from the number of real tokens, so patients of one
        number go together, with their real tokens only."""
        number = mask.sum(1)
        out: Tensor | None = None
        att: Tensor | None = None
        for n in number.unique().tolist():
            real = mask & (number == n)[:, None]
            part = self.forward(x[real].unflatten(0, (-1, n)), return_att)
            if return_att:
                part, its_att = part
                first = return_att == "first"
                if att is None:
                    att = its_att.new_zeros(len(mask), 1 if first else mask.shape[1], mask.shape[1], self.heads)
                rows = (number == n)[:, None, None] if first else real[:, :, None]
                att[rows & real[:, None]] = its_att.permute(0, 2, 3, 1).flatten(0, 2)
            if out is None:
                out = part.new_zeros(x.shape)  # of the part's own type, which differs from x's under autocast
            out[real] = part.flatten(0, 1)
        return out if att is None else (out, att.permute(0, 3, 1, 2))


def self_attention(width: int, heads: int, kind: str, landmarks: int, dropout: float) -> nn.Module:
    """The self-attention module of the given `kind`, exact or nystrom."""
    if kind == "exact":
        return ExactSelfAttention(width, heads, dropout)
    if kind == "nystrom":
        return NystromSelfAttention(width, width // heads, heads, num_landmarks=landmarks, dropout=dropout)
    raise ValueError(f"attention is 'exact' or 'nystrom', not {kind!r}")


class CrossAttention(nn.Module):
    """One modality's summary asks the other modality's tokens: softmax(q K^T / sqrt(D)) V (Proposed Method)."""

    def __init__(self, width: int, heads: int = HEADS, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_tokens = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def forward(self, query: Tensor, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """query (B, W), tokens (B, N, W), mask (B, N) of real tokens -> vector (B, W) and att (B, H, N)."""
        att, v = self._scores(query, tokens, mask)
        att = att.softmax(-1)
        out = self.to_out((att @ v).transpose(1, 2).flatten(2))
        return out[:, 0], att[:, :, 0]

    def scores(self, query: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """What `forward` takes the softmax of: (B, H, N)."""
        return self._scores(query, tokens, mask)[0][:, :, 0]

    def _scores(self, query: Tensor, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        q = split_heads(self.to_q(self.norm_query(query))[:, None], self.heads)
        k, v = (split_heads(t, self.heads) for t in self.to_kv(self.norm_tokens(tokens)).chunk(2, dim=-1))
        return scaled_scores(q, k, None if mask is None else mask[:, None, None]), v


class GatedAttention(nn.Module):
    """Gated attention pooling (Ilse et al. 2018, eq. 9): softmax(w^T (tanh(V h) * sigmoid(U h))) over tokens.

    The names of its parts are those of CLAM's and MCAT's published checkpoints.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.25):
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Dropout(dropout))
        self.attention_b = nn.Sequential(nn.Linear(width, hidden), nn.Sigmoid(), nn.Dropout(dropout))
        self.attention_c = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, W), mask (B, N) of real ones -> their weighted sum (B, W) and att (B, 1, N)."""
        att = self.scores(x, mask).softmax(-1)
        return (att @ x)[:, 0], att

    def scores(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What `forward` takes the softmax of: (B, 1, N)."""
        scores = self.attention_c(self.attention_a(x) * self.attention_b(x)).mT
        return masked(scores, None if mask is None else mask[:, None])


def plain_names(module: nn.Module, state: dict, *_: object) -> None:
    """Hook before a checkpoint is loaded: DataParallel's `module.` is taken from the names of parts within it."""
    for name in list(state):
        if ".module." in name:
            state[name.replace(".module.", ".")] = state.pop(name)
