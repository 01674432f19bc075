"""Attention of an encoder's class token in its first layer, and rolled out over both, read while a model predicts.

A model's own forward pass gives the class token's row of layer 2, over tokens that layer 1 has mixed. The other two are
read by hooks that ask an attention module again for what it made of the same input: a training, which opens none,
does not pay for them, and what the model predicts does not change.

Called by how it was read and over which tokens: layer1_image, self_image (layer 2), rollout_image, and so of genes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmmil.models.fusion import Encoder, MultimodalMIL, Squared

OVER = ("image", "genes")
SHOWN = "rollout"  # of an encoder's three, the one that stands for it: benchmarks/results/planted_attention.md says why


def encoders(model: nn.Module) -> dict[str, Encoder]:
    """A model's encoders with a class token, by the tokens that they read: image, genes."""
    for module in model.modules():
        if isinstance(module, MultimodalMIL):
            named = {"image": "image_encoder", "genes": "gene_encoder"}
            return {over: getattr(module, name) for over, name in named.items() if hasattr(module, name)}
        if isinstance(module, Encoder):
            return {"image": module}
    return {}


@contextmanager
def reading_layers(model: nn.Module, over: Sequence[str] = OVER) -> Iterator[dict[str, Tensor]]:
    """While open, every pass of the model leaves here what is not in its own att; nothing where it has no encoder.

    layer1_image and layer1_genes (B, H, N): the class token's row of layer 1. rollout_image and rollout_genes
    (B, 1, N): attention rollout (Abnar & Zuidema 2020, Attention Rollout), the class token's row of the product over
    layers of (A + I) / 2, A the mean of the heads: how much of each input token is in the class token after layer 2.
    Where an encoder repeats tokens (`fusion.Square`), copies count for their token. What mixes tokens beside attention
    (PPEG, Nyström's convolution) is in neither. No gradient passes. over: the tokens that are asked for.
    """
    read: dict[str, Tensor] = {}
    hooks = [h for tokens, encoder in encoders(model).items() if tokens in over for h in _hooked(encoder, tokens, read)]
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()


def _hooked(encoder: Encoder, tokens: str, read: dict[str, Tensor]) -> list:
    layer1: Any = encoder.layer1.attn
    given: dict[str, Any] = {}

    def repeated(_: nn.Module, args: tuple, square: Squared) -> None:
        given.update(square=square, n=args[0].shape[1])

    def over_tokens(row: Tensor) -> Tensor:
        """A row (B, H, 1 + places) without the class token's own weight, copies added to their token: (B, H, N)."""
        return given["square"].gathered(row[..., 1:], given["n"]) if "square" in given else row[..., 1:]

    @torch.no_grad()
    def first(module: Any, args: tuple, named: dict, _: Tensor) -> None:
        given.update(x=args[0].to(module.to_qkv.weight), mask=named.get("mask"))
        with torch.autocast(args[0].device.type, enabled=False):  # bf16 would make weights equal that are not
            _, att = module.forward(given["x"], return_att="first", mask=given["mask"])
        read[f"layer1_{tokens}"] = over_tokens(att[:, :, 0])

    @torch.no_grad()
    def last(_: Any, __: tuple, output: tuple[Tensor, Tensor]) -> None:
        x = given.pop("x")
        row = output[1][:, :, 0].mean(1).to(x)
        row[:, 0] += 1  # of att + I
        with torch.autocast(x.device.type, enabled=False):
            row = layer1.rolled(x, row / row.sum(1, keepdim=True), given["mask"])
        read[f"rollout_{tokens}"] = over_tokens(row[:, None])

    hooks = [layer1.register_forward_hook(first, with_kwargs=True)]
    hooks += [encoder.layer2.attn.register_forward_hook(last)]
    return hooks + ([] if encoder.square is None else [encoder.square.register_forward_hook(repeated)])
