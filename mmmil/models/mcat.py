"""MCAT's co-attention of gene sets over tiles (Chen et al. 2021, ICCV), a baseline of multimodal fusion.

Written from the paper's equations. Shapes: B patients, N tiles, S gene sets, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmmil.models.attention import GatedAttention, plain_names


class MCAT(nn.Module):
    """Gene sets ask the tiles, once; then both sequences of length S are encoded, pooled and joined.

    H = ReLU(W z) of the tiles, G of the gene sets, each by a self-normalising network of two layers.
    Co-attention: softmax(W_q G (W_k H)^T / sqrt(W)) W_v H, one head. Each sequence passes a transformer of
    two layers and gated attention pooling; the two vectors are concatenated and pass two layers.

    omic_sizes: length of each gene set's vector, one network for each. With `shared`, one size and one network for
    all sets, however many: tokens of one length, of which there may be hundreds. Sets then differ by their
    tokens only, as there is no position. State-dict names are the published ones (size small, fusion concat), so that
    published checkpoints load strictly with shared=False and n_classes=4, the intervals of survival.
    """

    def __init__(
        self,
        image_dim: int,
        omic_sizes: Sequence[int],
        shared: bool = False,
        n_classes: int = 2,
        width: int = 256,
        heads: int = 8,
        dropout: float = 0.25,
    ):
        super().__init__()
        if shared and len(omic_sizes) != 1:
            raise ValueError(f"a shared network has one size, not {len(omic_sizes)}")
        self.shared = shared
        self.wsi_net = nn.Sequential(nn.Linear(image_dim, width), nn.ReLU(), nn.Dropout(dropout))
        self.sig_networks = nn.ModuleList(
            nn.Sequential(_self_normalising(size, width, dropout), _self_normalising(width, width, dropout))
            for size in omic_sizes
        )
        self.coattn = nn.MultiheadAttention(width, 1, batch_first=True)
        self.path_transformer, self.omic_transformer = (_transformer(width, heads, dropout) for _ in range(2))
        self.path_attention_head, self.omic_attention_head = (GatedAttention(width, width, dropout) for _ in range(2))
        self.path_rho, self.omic_rho = (
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout)) for _ in range(2)
        )
        self.mm = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.classifier = nn.Linear(width, n_classes)
        self.register_load_state_dict_pre_hook(plain_names)

    def forward(
        self, image_tokens: Tensor, gene_tokens: Tensor | Sequence[Tensor], mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """image_tokens (B, N, image_dim), gene_tokens (B, S, gene_dim), mask (B, N) of real tiles -> logits and att.

        Where the network is not shared, gene_tokens is a sequence of S tensors (B, size of the set).
        att maps co_attention (B, S, N: each gene set over tiles), cross_image (B, 1, N: its mean over gene sets) and
        self_genes (B, 1, S: the pooling of the gene sets' own sequence), each after the softmax.
        """
        tiles = self.wsi_net(image_tokens)
        if self.shared:
            sets = self.sig_networks[0](gene_tokens)
        else:
            sets = torch.stack([net(x) for net, x in zip(self.sig_networks, gene_tokens, strict=True)], 1)
        co_attended, co_attention = self.coattn(sets, tiles, tiles, key_padding_mask=None if mask is None else ~mask)
        image, _ = self.path_attention_head(self.path_transformer(co_attended))
        genes, self_genes = self.omic_attention_head(self.omic_transformer(sets))
        logits = self.classifier(self.mm(torch.cat([self.path_rho(image), self.omic_rho(genes)], -1)))
        cross_image = co_attention.mean(1, keepdim=True)
        return logits, {"co_attention": co_attention, "cross_image": cross_image, "self_genes": self_genes}


def _self_normalising(size: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, width), nn.ELU(), nn.AlphaDropout(dropout))


def _transformer(width: int, heads: int, dropout: float) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
