"""What a tile encoder costs: parameters, size on disk, multiply-accumulates for one tile (Table 2).

Counted on the modules themselves, never typed. The token is what the aggregator reads, so heads are left out.
"""

from __future__ import annotations

import pandas as pd
import torch
from safetensors.torch import save
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmmil import results
from mmmil.models import backbone, ctranspath

# Number of parameters of the paper's three configurations.
RECEIPTS = {"original": 340_992, "uib": 94_224, "reduced": 68_880}
SHOWN_AS = {
    "original": "MobileNetV4, original",
    "uib": "MobileNetV4, ten UIBs removed",
    "reduced": "MobileNetV4, UIBs removed + APoZ",
    "resnet50d": "ResNet50d, frozen",
    "ctranspath": "CTransPath, frozen",
}


def disk_bytes(module: nn.Module) -> int:
    """Bytes of the module's state, buffers included, as a safetensors file."""
    return len(save({name: value.contiguous() for name, value in module.state_dict().items()}))


@torch.no_grad()
def macs(module: nn.Module, *shape: int) -> int:
    """Multiply-accumulates of one forward pass on an input of this shape, in evaluation mode.

    PyTorch's counter knows convolutions, matrix products and attention, and counts a multiplication and an addition
    as two operations: 1 MAC = 2 FLOPs. Norms, activations, sums and resizing are left out, as is usual.
    """
    was_training = module.training
    module.eval()
    # Attention as plain matrix products: the CPU's fused kernel is not in the counter's table, and would count nothing.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(torch.zeros(shape))
    module.train(was_training)
    return counter.get_total_flops() // 2


def encoder(kind: str, kept_channels: int = 96) -> backbone.TileEncoder | backbone.FrozenEncoder:
    """A tile encoder of Table 2 with random weights, on which no count depends; kind: a key of `SHOWN_AS`."""
    if kind in backbone.FROZEN:
        return backbone.FrozenEncoder(kind, "random")
    tile_encoder = backbone.TileEncoder(kind, "random")
    return backbone.prune(tile_encoder, torch.arange(kept_channels)) if kind == "reduced" else tile_encoder


def backbones(tile_px: int = 256, kept_channels: int = 96) -> pd.DataFrame:
    """Table 2: one row per tile encoder (index: keys of `SHOWN_AS`).

    Columns: parameters, bytes (on disk), px (side of the tile that is counted), macs (for one such tile), token (its
    length). CTransPath resizes every tile to 224 px, so that is what it is counted at.
    """
    rows = {}
    with torch.random.fork_rng(devices=[]):
        for kind in SHOWN_AS:
            net, px = encoder(kind, kept_channels), ctranspath.PX if kind == "ctranspath" else tile_px
            token = net.channels if isinstance(net, backbone.TileEncoder) else net.net.num_features
            rows[kind] = (backbone.parameters(net), disk_bytes(net), px, macs(net, 1, 3, px, px), token)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["parameters", "bytes", "px", "macs", "token"])


def table(costs: pd.DataFrame) -> pd.DataFrame:
    """`backbones` as it is printed: names, sizes in MB (10^6 bytes), MACs in millions."""
    printed = pd.DataFrame(
        {
            "parameters": costs["parameters"].map("{:,}".format),
            "times the original": (costs["parameters"] / costs.loc["original", "parameters"]).map("{:.2f}".format),
            "size on disk, MB": (costs["bytes"] / 1e6).map("{:.2f}".format),
            "tile, px": costs["px"],
            "MACs a tile, millions": (costs["macs"] / 1e6).map("{:,.1f}".format),
            "token, values": costs["token"],
        }
    )
    return results.of_no_cohort(printed.rename(index=SHOWN_AS))


def beside_paper(costs: pd.DataFrame) -> pd.DataFrame:
    """The paper's parameter counts beside those of `backbones`: columns paper, here, equal."""
    counts = pd.DataFrame({"paper": RECEIPTS, "here": costs["parameters"].loc[list(RECEIPTS)]})
    return results.of_no_cohort(counts.assign(equal=counts["paper"] == counts["here"]).rename(index=SHOWN_AS))
