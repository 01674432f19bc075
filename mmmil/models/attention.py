"""Self-attention over the tokens of a bag, exact or by Nyström's approximation; cross-attention between modalities.

Shapes: B patients, N tokens, W width, H heads. A returned `att` is after the softmax, (B, H, N_query, N_key); `scores`
are what a softmax is taken of, masked keys at the lowest number there is.
"""

from __future__ import annotations

from math import ceil, log
from typing import Any, Literal

import torch
import torch.nn.functional as F
from nystrom_attention import NystromAttention
from torch import Tensor, nn

HEADS = 8  # as TransMIL; the paper does not say
# All rows of the attention, or those of the first token only, which is the class token where there is one.
ReturnAtt = bool | Literal["first"]
AT_ONCE = 2**24  # numbers of an attention matrix that are made at once where all rows are read and none is kept


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

    def rolled(self, x: Tensor, row: Tensor, mask: Tensor | None = None) -> Tensor:
        """A step of attention rollout: row (B, N) over the tokens after this layer -> row @ (att + I) / 2, (B, N).

        x (B, N, W): what the layer was given; att is the mean of the heads. It is made a few rows at a time, so that
        memory does not grow with the square of the bag.
        """
        q, k, _ = (split_heads(t, self.heads) for t in self.to_qkv(x).chunk(3, dim=-1))
        keys = None if mask is None else mask[:, None, None]
        size = max(1, AT_ONCE // (k.shape[0] * k.shape[1] * k.shape[2]))
        carried = torch.zeros_like(row)
        for part, its_row in zip(q.split(size, 2), row.split(size, 1), strict=True):
            carried += (scaled_scores(part, k, keys).softmax(-1) * its_row[:, None, :, None]).sum(2).mean(1)
        return (carried + row) / 2


def pseudo_inverse(x: Tensor, iterations: int = 6) -> Tensor:
    """Iterative Moore-Penrose inverse (Nyströmformer, eq. 11), each matrix scaled by its own norms.

    The library scales by a maximum over the whole batch, by which one patient's output depends on its batch mates.
    """
    a = x.abs()
    return _inverted(x, x.mT / (a.sum(-1).amax(-1) * a.sum(-2).amax(-1))[..., None, None], iterations)


def _inverted(x: Tensor, z: Tensor, iterations: int) -> Tensor:
    """The inverse of x that the iteration of eq. 11 comes to from z, a multiple of its transpose."""
    identity = torch.eye(x.shape[-1], device=x.device, dtype=x.dtype)
    for _ in range(iterations):
        xz = x @ z
        z = 0.25 * z @ (13 * identity - xz @ (15 * identity - xz @ (7 * identity - xz)))
    return z


class NystromSelfAttention(NystromAttention):
    """The library's module (as in TransMIL and the paper) with padding that cannot be attended to.

    Segments are as long as needed for at most `num_landmarks` of them, so that the first is shorter than the others by
    less than one segment, and every landmark is the mean of real tokens only.
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
        q, k, v = (split_heads(t, self.heads) for t in self.to_qkv(x).chunk(3, dim=-1))
        first, inverse, last = self._factors(q * self.scale, k)
        out = first @ inverse @ (last @ v)
        if self.residual:
            out = out + self.res_conv(v)
        out = self.to_out(out.transpose(1, 2).flatten(2))
        if not return_att:
            return out
        return out, (first[:, :, :1] if return_att == "first" else first) @ inverse @ last

    def rolled(self, x: Tensor, row: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `ExactSelfAttention.rolled`, by the product's factors; rows of att + I are scaled to sum to one, which
        the approximation's do not, nor those that give a share to the published form's padding."""
        if mask is not None:
            out = torch.zeros_like(row)
            for i, real in enumerate(mask):
                out[i, real] = self.rolled(x[i : i + 1, real], row[i : i + 1, real])[0]
            return out
        q, k, _ = (split_heads(t, self.heads) for t in self.to_qkv(x).chunk(3, dim=-1))
        first, inverse, last = self._factors(q * self.scale, k)
        row = row / (1 + (first @ (inverse @ last.sum(-1, keepdim=True))).mean(1)[..., 0])
        return row + (row[:, None, None] @ first @ inverse @ last).mean(1)[:, 0]

    def _factors(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries and keys (B, H, N, D) -> the matrices (N, L), (L, L), (L, N) whose product is att."""
        n = q.shape[2]
        length = ceil(n / self.num_landmarks)
        real = q.new_full((ceil(n / length), 1), length)
        real[0] -= -n % length
        q_mean, k_mean = (self._segment_sums(t, length) / real for t in (q, k))
        middle = (q_mean @ k_mean.mT).softmax(-1)
        inverse = pseudo_inverse(middle, self.pinv_iterations)
        return (q @ k_mean.mT).softmax(-1), inverse, (q_mean @ k.mT).softmax(-1)

    @staticmethod
    def _segment_sums(t: Tensor, length: int) -> Tensor:
        """Sums over segments of a length, (B, H, N, D) -> (B, H, L, D); the first segment is what is left over."""
        return F.pad(t, (0, 0, -t.shape[2] % length, 0)).unflatten(2, (-1, length)).sum(3)

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


class PublishedSelfAttention(NystromSelfAttention):
    """What the library's module computes for a patient alone, as published TransMIL runs it (batches of one bag).

    The library puts zeros in front of n tokens until they fill `num_landmarks` segments of ceil(n / num_landmarks),
    and attends to them like to any token; the pseudo-inverse is scaled by a maximum over the heads. As the padding's
    keys are zero, it scores 0 everywhere, and segments that hold nothing else are all alike: one row and one column
    stand for all of them, with their number as its weight. That changes no value, and 9 tiles cost what 9 tiles cost,
    not what 256 do. att is that between real tokens: what falls on padding is left out, so rows sum to less than one.
    """

    def _factors(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = q.shape[2]
        length = ceil(n / self.num_landmarks)
        padding = length * self.num_landmarks - n
        empty = padding // length  # segments of nothing but padding
        q_mean, k_mean = (self._segment_sums(t, length) / length for t in (q, k))  # what pads a segment counts in it
        if empty:
            q_mean, k_mean = (F.pad(t, (0, 0, 1, 0)) for t in (q_mean, k_mean))
        # How many landmarks each of these is; in bf16 the logarithm of it would be off by 1 %.
        like = torch.ones(k_mean.shape[2], device=q.device, dtype=torch.promote_types(q.dtype, torch.float32))
        like[0] = max(empty, 1)
        # A column's softmax, with the log of its number added to its score, is that of all that it stands for.
        first, middle = ((t @ k_mean.mT + like.log()).softmax(-1) for t in (q, q_mean))
        last = q_mean @ k.mT
        if padding:
            of_padding = torch.full_like(last[..., :1], log(padding))
            last = torch.cat([of_padding, last], -1).softmax(-1)[..., 1:]
        else:
            last = last.softmax(-1)
        # Sums over the library's whole matrix, of one entry for each landmark.
        each = middle / like
        rows, columns = middle.sum(-1).amax((1, 2)), (each * like[:, None]).sum(-2).amax((1, 2))
        start = each.mT * like / (rows * columns)[:, None, None, None]
        return first, _inverted(middle, start, self.pinv_iterations), last


def self_attention(width: int, heads: int, kind: str, landmarks: int, dropout: float) -> nn.Module:
    """The self-attention module of the given `kind`: exact, nystrom or published."""
    if kind == "exact":
        return ExactSelfAttention(width, heads, dropout)
    kinds = {"nystrom": NystromSelfAttention, "published": PublishedSelfAttention}
    if kind not in kinds:
        raise ValueError(f"attention is 'exact', 'nystrom' or 'published', not {kind!r}")
    return kinds[kind](width, width // heads, heads, num_landmarks=landmarks, dropout=dropout)


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
