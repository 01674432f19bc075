"""Attention read out of a model before the softmax, while it predicts.

Hooks ask an attention module again for what it made of the same input; what the model predicts does not change by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmmil.models.attention import NystromSelfAttention
from mmmil.models.clam import CLAM
from mmmil.models.mcat import MCAT
from mmmil.models.reading import encoders

Kept = dict[str, list[Tensor]]  # source -> a tensor per batch, patients first


@contextmanager
def reading_scores(aggregator: nn.Module) -> Iterator[Kept]:
    """While open, every prediction adds the scores before the softmax: source -> (B, H, N) each.

    Of the class token of layers 1 and 2 (the scores over the other tokens), of cross-attention, of gated pooling
    (H = 1), and of MCAT's co-attention (the gene sets in place of heads). Raises AttentionError for Nyström's
    attention, which has none: its matrix is a product of three softmaxes.
    """
    of_class: dict[str, nn.Module] = {}
    for tokens, encoder in encoders(aggregator).items():
        of_class |= {f"layer1_{tokens}": encoder.layer1.attn, f"self_{tokens}": encoder.layer2.attn}
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
