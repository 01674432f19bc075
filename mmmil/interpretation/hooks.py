"""Attention read out of a model while it predicts: before the softmax, or rolled out over an encoder's layers.

A model's own forward pass gives what its last attention weighed. The rest is read by hooks, which ask an attention
module again for what it made of the same input; what the model predicts does not change by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmmil.models.attention import NystromSelfAttention
from mmmil.models.clam import CLAM
from mmmil.models.fusion import Encoder, MultimodalMIL, Squared
from mmmil.models.mcat import MCAT

Kept = dict[str, list[Tensor]]  # source -> a tensor per batch, patients first


def encoders(aggregator: nn.Module) -> dict[str, Encoder]:
    """Encoders with a class token, by the source that their attention is called: self_image, self_genes."""
    if isinstance(aggregator, MultimodalMIL):
        named = {"self_image": "image_encoder", "self_genes": "gene_encoder"}
        return {source: getattr(aggregator, name) for source, name in named.items() if hasattr(aggregator, name)}
    return {"self_image": aggregator} if isinstance(aggregator, Encoder) else {}


def rollout(layers: Sequence[Tensor]) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020, Attention Rollout): the product over layers of (A + I) / 2.

    layers: A of each layer, the first one first, averaged over heads, (B, N, N). Returns (B, N, N): row i says how much
    of each input token is in token i after the last layer. Rows are scaled to sum to one in every layer, which changes
    Nyström's approximation only; its negative entries stay, and what its published form gives to padding is left out.
    What mixes tokens beside attention (PPEG, Nyström's convolution) is not in it.
    """
    identity = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype, device=layers[0].device)
    out = identity
    for att in layers:
        mixed = (att + identity) / 2
        out = (mixed / mixed.sum(-1, keepdim=True)) @ out
    return out


@contextmanager
def reading_rollout(aggregator: nn.Module) -> Iterator[Kept]:
    """While open, every prediction adds the class token's rollout over the input tokens: source -> (B, N) each.

    Where an encoder repeats tokens (`fusion.Square`), copies count for their token. Raises AttentionError for a model
    without such an encoder.
    """
    by_source = encoders(aggregator)
    if not by_source:
        raise AttentionError(
            f"{type(aggregator).__name__} has no layers of self-attention to roll out; use layers='last'"
        )
    kept: Kept = {}
    hooks = []
    for source, encoder in by_source.items():
        below: list[Tensor] = []
        squares: list[tuple[Squared, int]] = []

        def repeated(_: nn.Module, args: tuple, square: Squared, squares: list = squares) -> None:
            squares[:] = [(square, args[0].shape[1])]

        def first(module: nn.Module, args: tuple, named: dict, _: Any, below: list[Tensor] = below) -> None:
            below[:] = [_matrix(module, args, named)]

        def last(
            module: nn.Module,
            args: tuple,
            named: dict,
            _: Any,
            below: list[Tensor] = below,
            squares: list = squares,
            source: str = source,
        ) -> None:
            rolled = rollout([*below, _matrix(module, args, named)])[:, 0, 1:]
            for square, n in squares:
                rolled = square.gathered(rolled, n)
            _keep(kept, source, rolled)

        if encoder.square is not None:
            hooks.append(encoder.square.register_forward_hook(repeated))
        hooks.append(encoder.layer1.attn.register_forward_hook(first, with_kwargs=True))
        hooks.append(encoder.layer2.attn.register_forward_hook(last, with_kwargs=True))
    with _removed(hooks):
        yield kept


@contextmanager
def reading_scores(aggregator: nn.Module) -> Iterator[Kept]:
    """While open, every prediction adds the scores before the softmax: source -> (B, H, N) each.

    Of the class token of layer 2 (the scores over the other tokens), of cross-attention, of gated pooling (H = 1), and
    of MCAT's co-attention (the gene sets in place of heads). Raises AttentionError for Nyström's attention, which has
    none: its matrix is a product of three softmaxes.
    """
    of_class = {source: encoder.layer2.attn for source, encoder in encoders(aggregator).items()}
    nystrom = [source for source, module in of_class.items() if isinstance(module, NystromSelfAttention)]
    if nystrom:
        raise AttentionError(
            f"Nyström's attention ({', '.join(nystrom)}) has no scores before a softmax, it is a product of three "
            "softmaxes: ask for form='weights', or train with attention: exact"
        )
    asked: dict[str, tuple[nn.Module, Callable]] = {
        source: (module, lambda m, args, named: m.scores(args[0], named.get("mask"))[:, :, 0, 1:])
        for source, module in of_class.items()
    }
    if hasattr(aggregator, "image_to_genes"):
        asked["cross_genes"] = (aggregator.image_to_genes, lambda m, args, named: m.scores(*args, **named))
        asked["cross_image"] = (aggregator.genes_to_image, lambda m, args, named: m.scores(*args, **named))
    if isinstance(aggregator, CLAM):
        asked["self_image"] = (aggregator.attention_net[3], lambda m, args, named: m.scores(*args, **named))
    if isinstance(aggregator, MCAT):
        asked["co_attention"] = (aggregator.coattn, _co_attention_scores)
        asked["self_genes"] = (aggregator.omic_attention_head, lambda m, args, named: m.scores(*args, **named))
    kept: Kept = {}
    hooks = [
        module.register_forward_hook(
            lambda m, args, named, _, source=source, ask=ask: _keep(kept, source, ask(m, args, named)),
            with_kwargs=True,
        )
        for source, (module, ask) in asked.items()
    ]
    with _removed(hooks):
        yield kept


def _matrix(module: nn.Module, args: tuple, named: dict) -> Tensor:
    """Attention of a self-attention module averaged over heads, (B, N, N), of the input that it has just had."""
    return module.forward(args[0], return_att=True, mask=named.get("mask"))[1].float().mean(1)


def _co_attention_scores(module: nn.MultiheadAttention, args: tuple, named: dict) -> Tensor:
    """MCAT's co-attention before the softmax, one head: (B, S, N), padding at the lowest number there is."""
    query, key = args[0], args[1]
    (w_q, w_k, _), (b_q, b_k, _) = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    scores = (query @ w_q.T + b_q) @ (key @ w_k.T + b_k).mT * module.embed_dim**-0.5
    padding = named.get("key_padding_mask")
    return scores if padding is None else scores.masked_fill(padding[:, None], -torch.finfo(scores.dtype).max)


def _keep(kept: Kept, source: str, values: Tensor) -> None:
    kept.setdefault(source, []).append(values.detach().float().cpu())


@contextmanager
def _removed(hooks: list) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class AttentionError(ValueError):
    """Attention that a model does not have, or that does not belong to its record; says which and what to do."""
