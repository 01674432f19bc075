"""Tile encoders: MobileNetV4 as it is, with ten UIBs removed, and pruned by APoZ; frozen ResNet50d (Proposed Method).

The paper's parameter counts are those of timm's `mobilenetv4_conv_small_050` from `conv_stem` through `blocks`:
340,992 as it is, 94,224 without the ten removable UIBs, 68,880 with 96 of the last convolution's 480 channels.
"""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from mmmil import record

MOBILENET = "mobilenetv4_conv_small_050"
FROZEN = {"resnet50d": "resnet50d"}
# In stages 2 and 3 only the first UIB changes shape; the other ten can be taken out and the rest still fits.
REMOVABLE = [(stage, block) for stage in (2, 3) for block in range(1, 6)]


class WeightsError(RuntimeError):
    """Pretrained weights are not to be had; says how to get them."""


def pretrained(name: str, weights: str = "imagenet", weights_dir: str = "", **kwargs) -> nn.Module:
    """A timm model with ImageNet weights from `weights_dir` or timm's cache, or explicitly random ones.

    Raises WeightsError offline without a file: never a silent random start.
    """
    if weights == "random":
        return timm.create_model(name, pretrained=False, **kwargs)
    try:
        if weights_dir:
            path = Path(weights_dir) / f"{name}.safetensors"
            if not path.is_file():
                raise FileNotFoundError(path)
            overlay = {"file": str(path)}
            return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)
        return timm.create_model(name, pretrained=True, **kwargs)
    except Exception as error:  # hub, network and file errors come as many types
        hub = timm.get_pretrained_cfg(name).hf_hub_id
        raise WeightsError(
            f"ImageNet weights of {name} are not to be had ({type(error).__name__}: {error}). Either fetch {hub} once "
            f"on a machine with network into timm's cache, or save its model.safetensors as "
            f"<weights_dir>/{name}.safetensors and set weights_dir"
        ) from error


def weights_key(name: str, weights: str, weights_dir: str) -> str:
    """What a result that starts from these weights depends on: the kind, and the checksum of a file of one's own."""
    path = Path(weights_dir) / f"{name}.safetensors"
    return f"{weights} {record.file_digest(path)}" if weights_dir and path.is_file() else weights


class TileEncoder(nn.Module):
    """MobileNetV4 from `conv_stem` through `blocks`, then the mean over space: one token per tile.

    kind: original (480 channels), uib (ten UIBs removed, 480) or reduced (the same; `prune` brings it to 96).
    """

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
    def last(self) -> nn.Module:
        """The last 1x1 convolution with its batch norm and ReLU, which APoZ prunes."""
        return self.blocks[-1][-1]

    @property
    def channels(self) -> int:
        return self.last.conv.out_channels

    def feature_map(self, tiles: Tensor) -> Tensor:
        """(N, 3, px, px) -> (N, C, px/32, px/32), after the last ReLU."""
        return self.blocks(self.bn1(self.conv_stem(tiles)))

    def forward(self, tiles: Tensor) -> Tensor:
        """(N, 3, px, px) -> (N, C)."""
        return self.feature_map(tiles).mean((2, 3))


@torch.no_grad()
def apoz(encoder: TileEncoder, batches) -> Tensor:
    """Average percentage of zeros per channel of the last convolution, (C,) in [0, 1] (Hu et al. 2016).

    `batches` yields tiles (N, 3, px, px), of training patients only. Batch norm uses the batch's own statistics if
    the encoder is in training mode, which is what an untrained one needs.
    """
    zeros, seen = torch.zeros(encoder.channels), 0
    for tiles in batches:
        feature_map = encoder.feature_map(tiles)
        zeros += (feature_map == 0).float().mean((2, 3)).sum(0).cpu()
        seen += len(feature_map)
    if not seen:
        raise ValueError("APoZ needs at least one tile")
    return zeros / seen


def prune(encoder: TileEncoder, kept: Tensor) -> TileEncoder:
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


class FrozenEncoder(nn.Module):
    """A pretrained network whose pooled features are computed once and never trained (Tables 9, 10)."""

    def __init__(self, name: str, weights: str = "imagenet", weights_dir: str = ""):
        super().__init__()
        self.net = pretrained(FROZEN[name], weights, weights_dir, num_classes=0).eval().requires_grad_(False)
        self.mean, self.std = self.net.pretrained_cfg["mean"], self.net.pretrained_cfg["std"]

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """(N, 3, px, px) -> (N, 2048 for ResNet50d)."""
        return self.net(tiles)


def to_input(tiles: Tensor, mean: tuple, std: tuple) -> Tensor:
    """Pixels (..., px, px, 3) uint8 -> (N, 3, px, px) float, as the pretrained network expects, channels-last."""
    x = tiles.flatten(0, -4).permute(0, 3, 1, 2).float() / 255  # the permuted view already is channels-last
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (mean, std))
    return (x - mean) / std


def parameters(module: nn.Module) -> int:
    """Number of trainable and frozen parameters."""
    return sum(p.numel() for p in module.parameters())
