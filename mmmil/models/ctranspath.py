"""CTransPath: a Swin-T with a convolutional stem, pretrained on histology (Wang et al. 2022, Medical Image Analysis).

The published checkpoint was written by a modified timm 0.5.4. Its names are turned into those of the timm used here,
and nothing of it may be left over or missing. The weights are at https://github.com/Xiyue-Wang/TransPath.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

PX = 224  # side of the tiles it was trained on; window 7 on a grid of 56
# What timm 0.5.4 stored and newer ones compute: follows from the architecture, nothing in it is learned.
SMALLER = (56, 112)  # sides that random weights may have: whole windows in the first stage
COMPUTED = ("relative_position_index", "attn_mask")


class ConvStem(nn.Module):
    """Two 3x3 convolutions of stride 2 and a 1x1 one in place of Swin's patch embedding; stands in for timm's.

    Names of the layers are the published ones: proj.0, 1, 3, 4, 6 and norm.
    """

    def __init__(
        self,
        img_size: int = PX,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        **_: object,
    ):
        super().__init__()
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        layers, width = [], embed_dim // 8
        for n_in, n_out in ((in_chans, width), (width, 2 * width)):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
        self.proj = nn.Sequential(*layers, nn.Conv2d(2 * width, embed_dim, 1))
        self.norm = norm_layer(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) -> (N, 56, 56, 96), channels last as timm's Swin reads them."""
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class CTransPath(SwinTransformer):
    """timm's Swin-T (2, 2, 6, 2 blocks) on `ConvStem`, without a head; weights are random until they are loaded.

    Tiles of any size are resized to 224 px, as in the published use: bilinear with antialiasing, which is what
    torchvision does to a PIL image, on the tiles' own device. Other sizes would need other attention masks than the
    ones the network was trained with. As resizing is linear, it may come after the colours are scaled.

    px: the side of its input. Random weights were trained with none, and small tiles blown up cost sixteen times as
    much as at 56 px; published ones need 224.
    """

    def __init__(self, px: int = PX) -> None:
        super().__init__(img_size=px, num_classes=0, embed_layer=ConvStem)
        self.px = px
        self.pretrained_cfg = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}

    def forward(self, tiles: Tensor) -> Tensor:
        """(N, 3, px, px) -> (N, 768): the mean over the last stage's tokens, 7x7 of 224 px."""
        if tiles.shape[-2:] != (self.px, self.px):
            tiles = F.interpolate(tiles, (self.px, self.px), mode="bilinear", antialias=True)
        return super().forward(tiles)


def from_published(state: Mapping[str, Tensor], net: CTransPath) -> dict[str, Tensor]:
    """The published state dict under the names of `net`, without the buffers that timm now computes.

    timm 0.5.4 kept the downsampling at the end of a stage, timm now has it at the start of the next.
    Raises ValueError where a buffer that is dropped is not the one that `net` computes, or is not there in `net`.
    """
    renamed, ours = {}, dict(net.named_buffers())
    for name, value in state.items():
        if name.rpartition(".")[2] in COMPUTED:
            buffer = ours.get(name)
            if buffer is None or buffer.shape != value.shape or not torch.equal(buffer, value.to(buffer)):
                raise ValueError(f"{name} is not that of a Swin-T with window 7 on {PX} px")
        else:
            later = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name)
            renamed[later] = value
    return renamed
