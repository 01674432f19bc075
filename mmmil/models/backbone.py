"""Tile encoders: MobileNetV4 as it is, with ten UIBs removed, and pruned by APoZ; frozen ResNet50d and CTransPath.

The paper's parameter counts are those of timm's `mobilenetv4_conv_small_050` from `conv_stem` through `blocks`:
340,992 as it is, 94,224 without the ten removable UIBs, 68,880 with 96 of the last convolution's 480 channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmil.models.weights import pretrained
from mmmil.variants import MOBILENET

FROZEN = {"resnet50d": "resnet50d", "ctranspath": "ctranspath"}
# In stages 2 and 3 only the first UIB changes shape; the other ten can be taken out and the rest still fits.
REMOVABLE = [(stage, block) for stage in (2, 3) for block in range(1, 6)]


class TileEncoder(nn.Module):
    """MobileNetV4 from `conv_stem` through `blocks`, then the mean over space: one token per tile.

    kind: original (480 channels), uib (ten UIBs removed, 480) or reduced (the same; `prune` brings it to 96).
    """

    conv_stem: nn.Conv2d
    bn1: nn.BatchNorm2d
    blocks: Any  # stages of blocks: nested nn.Sequential

    def __init__(self, kind: str = "reduced", weights: str = "imagenet", weights_dir: str = ""):
        super().__init__()
        if kind not in ("original", "uib", "reduced"):
            raise ValueError(f"backbone is original, uib or reduced, not {kind!r}")
        net = pretrained(MOBILENET, weights, weights_dir)
        self.conv_stem, self.bn1, self.blocks = net.conv_stem, net.bn1, net.blocks
        self.mean, self.std = net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
        if kind != "original":
            for stage in (2, 3):
                self.blocks[stage] = self.blocks[stage][:1]

    @property
    def last(self) -> Any:
        """The last 1x1 convolution with its batch norm and ReLU, which APoZ prunes."""
        return self.blocks[-1][-1]

    @property
    def channels(self) -> int:
        return self.last.conv.out_channels

    def feature_map(self, tiles: Tensor) -> Tensor:
        """(N, 3, px, px) -> (N, C, px/32, px/32), after the last ReLU."""
        if self.training and not self.bn1.training:
            return _with_fixed_norms(self, tiles)
        return self.blocks(self.bn1(self.conv_stem(tiles)))

    def forward(self, tiles: Tensor) -> Tensor:
        """(N, 3, px, px) -> (N, C)."""
        return self.feature_map(tiles).mean((2, 3))


def _with_fixed_norms(encoder: TileEncoder, x: Tensor) -> Tensor:
    """The feature map while training with batch norms that keep their statistics.

    Such a norm is a gain and a shift per channel. Taken into the convolution before it, it costs no pass over the
    activations of its own, in either direction, and half as many are kept for the gradient, which is the same.
    """
    x = _scaled(encoder.conv_stem, encoder.bn1, x)
    for block in (block for stage in encoder.blocks for block in stage):
        shortcut = x
        if hasattr(block, "conv"):
            x = block.aa(_scaled(block.conv, block.bn1, x))
        else:  # a UIB: its parts stand in the order in which they are applied; those it lacks are identities
            for part in block.children():
                x = _scaled(part.conv, part.bn, x) if hasattr(part, "conv") else part(x)
        if block.has_skip:
            x = x + shortcut
    return x


def _scaled(conv: nn.Conv2d, norm: Any, x: Tensor) -> Tensor:
    """norm(conv(x)) for a norm in evaluation mode, with its activation; the convolution has no bias of its own."""
    gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * gain
    return norm.act(norm.drop(conv._conv_forward(x, conv.weight * gain[:, None, None, None], shift)))


@torch.no_grad()
def apoz(encoder: TileEncoder, batches: Iterable[Tensor]) -> Tensor:
    """Average percentage of zeros per channel of the last convolution, (C,) in [0, 1] (Hu et al. 2016).

    `batches` yields tiles (N, 3, px, px), of training patients only. Batch norm uses the batch's own statistics if
    the encoder is in training mode, which is what an untrained one needs.
    """
    zeros, n_tiles = torch.zeros(encoder.channels), 0
    for tiles in batches:
        feature_map = encoder.feature_map(tiles)
        zeros += (feature_map == 0).float().mean((2, 3)).sum(0).cpu()
        n_tiles += len(feature_map)
    if not n_tiles:
        raise ValueError("APoZ needs at least one tile")
    return zeros / n_tiles


def prune(encoder: TileEncoder, kept: Tensor | Sequence[int]) -> TileEncoder:
    """Keep only the channels `kept` (indices) of the last convolution, in place; returns the encoder."""
    last = encoder.last
    conv, norm = last.conv, last.bn1
    conv.weight = nn.Parameter(conv.weight.detach()[kept].clone())
    conv.out_channels = norm.num_features = len(kept)
    for name in ("weight", "bias"):
        setattr(norm, name, nn.Parameter(getattr(norm, name).detach()[kept].clone()))
    for name in ("running_mean", "running_var"):
        setattr(norm, name, getattr(norm, name)[kept].clone())
    return encoder


def lowest_apoz(shares: Tensor, keep: int) -> Tensor:
    """Indices of the `keep` channels with the fewest zeros, in channel order; ties go to the lower index."""
    if not 0 < keep <= len(shares):
        raise ValueError(f"kept_channels must be 1 to {len(shares)}, not {keep}")
    return torch.argsort(shares, stable=True)[:keep].sort().values


@torch.no_grad()
def measure_batch_norm(encoder: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set every batch norm's running statistics to those of the given tiles; leaves the encoder in eval mode.

    `batches` yields tiles (N, 3, px, px) on the encoder's device, of training patients only; every batch counts the
    same. Nothing is drawn at random. Raises ValueError without a tile.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    encoder.eval()  # what else differs in training, dropout for one, stays out of it
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the plain mean over batches
    seen = 0
    for tiles in batches:
        encoder(tiles)
        seen += len(tiles)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    encoder.eval()
    if not seen:
        raise ValueError("batch norm needs at least one tile to be measured")


class FrozenEncoder(nn.Module):
    """A pretrained network whose pooled features are computed once and never trained (Tables 9, 10).

    source: resnet50d or ctranspath, or a source of `encoders`, which with weights 'imagenet' has its published ones.
    mean and std are those of the pixels that the network was trained with; one that takes a single size gets tiles
    resized to it. px: side of the tiles, see `pretrained`.
    """

    net: Any  # what a network of timm offers depends on its name

    def __init__(self, source: str, weights: str = "imagenet", weights_dir: str = "", px: int | None = None):
        super().__init__()
        self.net = pretrained(source, weights, weights_dir, num_classes=0, px=px).eval().requires_grad_(False)
        made_for = self.net.pretrained_cfg
        self.mean, self.std = made_for["mean"], made_for["std"]
        self.px = made_for["input_size"][-1] if made_for.get("fixed_input_size") else None

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """(N, 3, px, px) -> (N, D): 2048 for ResNet50d, 768 for CTransPath."""
        if self.px and tiles.shape[-1] != self.px:
            # Linear, so that it may come after the colours are scaled.
            tiles = F.interpolate(tiles, (self.px, self.px), mode="bilinear", antialias=True)
        return self.net(tiles)


def to_input(tiles: Tensor, mean: tuple, std: tuple, colour: Tensor | None = None) -> Tensor:
    """Pixels (..., px, px, 3) uint8 -> (N, 3, px, px) float, as the pretrained network expects, channels-last.

    colour (N, 2, 3): a gain and a shift of each channel, in units of the full range; what augmentation draws.
    """
    x = tiles.flatten(0, -4).permute(0, 3, 1, 2).float()  # the permuted view already is channels-last
    centre, spread = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (mean, std))
    if colour is None:
        return x.mul_(1 / (255 * spread)).sub_(centre / spread)
    gain, shift = (c[..., None, None] for c in colour.unbind(1))
    return x.mul_(gain / (255 * spread)).add_((shift - centre) / spread)


def parameters(module: nn.Module) -> int:
    """Number of trainable and frozen parameters."""
    return sum(p.numel() for p in module.parameters())
