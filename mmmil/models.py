"""The multimodal multiple instance learning model: encoders, cross-attention, classifier (Proposed Method, Fig. 1).

Shapes: B patients, N tiles, S gene sets, W width. Names of the encoder's parts follow TransMIL's published ones.
"""

from __future__ import annotations

from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmil import backbone
from mmmil.attention import CrossAttention, ReturnAtt, self_attention


class TransLayer(nn.Module):
    """x + Attention(LayerNorm(x))."""

    def __init__(self, width: int, heads: int, kind: str, landmarks: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = self_attention(width, heads, kind, landmarks, dropout)

    def forward(self, x: Tensor, return_att: ReturnAtt = False, mask: Tensor | None = None):
        """(B, N, W) -> (B, N, W), and att as its attention gives it if asked for; `mask` (B, N): True for real."""
        if return_att:
            out, att = self.attn(self.norm(x), return_att=return_att, mask=mask)
            return x + out, att
        return x + self.attn(self.norm(x), mask=mask)


class PPEG(nn.Module):
    """Pyramid position encoding generator (TransMIL): tokens on a square, plus depth-wise 7x7, 5x5 and 3x3."""

    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.proj1 = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.proj2 = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """Class token first: (B, 1 + N, W) -> (B, 1 + N, W). Bags that fill no square repeat their first tokens."""
        cls, tokens = x[:, :1], x[:, 1:]
        n = tokens.shape[1]
        side = ceil(n**0.5)
        square = torch.cat([tokens, tokens[:, : side * side - n]], 1).mT.unflatten(2, (side, side))
        square = square + self.proj(square) + self.proj1(square) + self.proj2(square)
        return torch.cat([cls, square.flatten(2).mT[:, :n]], 1)


class Encoder(nn.Module):
    """TransMIL-style aggregation: class token, layer 1, PPEG for images only, layer 2, norm."""

    def __init__(self, dim: int, width: int, heads: int, kind: str, landmarks: int, dropout: float, ppeg: bool):
        super().__init__()
        self._fc1 = nn.Sequential(nn.Linear(dim, width), nn.ReLU())
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.layer1 = TransLayer(width, heads, kind, landmarks, dropout)
        self.pos_layer = PPEG(width) if ppeg else None
        self.layer2 = TransLayer(width, heads, kind, landmarks, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, shift: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, dim) -> summary (B, W), encoded tokens (B, N, W), att of the class token over tokens (B, H, N).

        `shift` (N, W) is added to the projected tokens: the learned identity of a gene set. `mask` (B, N) is False
        for padding, which is attended to by none and is empty space to the PPEG.
        """
        x = self._fc1(tokens)
        if shift is not None:
            x = x + shift
        real = None if mask is None else F.pad(mask, (1, 0), value=True)  # the class token is real
        x = self.layer1(torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1), mask=real)
        if self.pos_layer is not None:
            x = self.pos_layer(x if real is None else x * real[..., None])
        x, att = self.layer2(x, return_att="first", mask=real)
        x = self.norm(x)
        # The class token stands first; its weight on itself is left out and the rest is what tokens share.
        return x[:, 0], x[:, 1:], att[:, :, 0, 1:]


class MultimodalMIL(nn.Module):
    """Image tokens and gene tokens -> two logits.

    fusion: image (summary of the tiles), genes (summary of the sets), self (both summaries) or dual (both, and what
    each summary gathers from the other modality's tokens by cross-attention: four vectors).
    """

    def __init__(
        self,
        fusion: str = "dual",
        image_dim: int = 0,
        gene_dim: int = 0,
        n_sets: int = 0,
        width: int = 96,
        heads: int = 8,
        attention: str = "exact",
        landmarks: int = 64,
        dropout: float = 0.1,
        set_embedding: bool = True,
    ):
        super().__init__()
        vectors = {"image": 1, "genes": 1, "self": 2, "dual": 4}
        if fusion not in vectors:
            raise ValueError(f"fusion is one of {', '.join(vectors)}, not {fusion!r}")
        self.fusion = fusion
        common = (width, heads, attention, landmarks, dropout)
        if fusion != "genes":
            self.image_encoder = Encoder(image_dim, *common, ppeg=True)
        if fusion != "image":
            self.gene_encoder = Encoder(gene_dim, *common, ppeg=False)
            self.set_embedding = nn.Parameter(torch.randn(n_sets, width) * 0.02) if set_embedding else None
        if fusion == "dual":
            self.image_to_genes = CrossAttention(width, heads, dropout)
            self.genes_to_image = CrossAttention(width, heads, dropout)
        self.classifier = nn.Sequential(
            nn.LayerNorm(vectors[fusion] * width), nn.Dropout(dropout), nn.Linear(vectors[fusion] * width, 2)
        )

    def forward(
        self, tiles: Tensor | None = None, genes: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """tiles (B, N, image_dim), genes (B, S, gene_dim) -> logits (B, 2) and att.

        mask (B, N) bool is False where a bag is padded; None where none is.

        att maps self_image (B, H, N), self_genes (B, H, S) and, for dual, cross_genes (B, H, S: the image's summary
        over gene sets) and cross_image (B, H, N: the genes' summary over tiles), each after the softmax.
        """
        vectors, att = [], {}
        if self.fusion != "genes":
            image, image_tokens, att["self_image"] = self.image_encoder(tiles, mask=mask)
            vectors.append(image)
        if self.fusion != "image":
            gene, gene_tokens, att["self_genes"] = self.gene_encoder(genes, self.set_embedding)
            vectors.append(gene)
        if self.fusion == "dual":
            from_genes, att["cross_genes"] = self.image_to_genes(image, gene_tokens)
            from_image, att["cross_image"] = self.genes_to_image(gene, image_tokens, mask)
            vectors += [from_genes, from_image]
        return self.classifier(torch.cat(vectors, -1)), att


class BagModel(nn.Module):
    """What every variant is: encoders that make tokens of pixels and of levels, and an aggregator over the tokens.

    aggregator: called with (tiles, genes, mask) and, if it reads labels while training, labels=; tile_encoder: None
    where tiles are features of a frozen one; gene_set_encoder: None where gene tokens are fixed; tile_chunk: tiles
    that pass the tile encoder at once, each chunk computed again for its gradient, so that memory does not grow with
    the bag; 0: all at once; fixed_norm: batch norm keeps the statistics that it has, by which no tile changes another.
    """

    def __init__(
        self,
        aggregator: nn.Module,
        tile_encoder: nn.Module | None = None,
        gene_set_encoder: nn.Module | None = None,
        gene_dropout: float = 0.0,
        tile_chunk: int = 0,
        fixed_norm: bool = True,
    ):
        super().__init__()
        if tile_chunk and not fixed_norm:
            raise ValueError("tiles in chunks need fixed_norm: statistics of a batch are of all its tiles")
        self.aggregator = aggregator
        self.tile_encoder = tile_encoder
        self.gene_set_encoder = gene_set_encoder
        self.gene_dropout = nn.Dropout(gene_dropout)
        self.tile_chunk, self.fixed_norm = tile_chunk, fixed_norm

    @property
    def reads_labels(self) -> bool:
        """Whether the aggregator's training reads labels beside the logits' loss."""
        return getattr(self.aggregator, "reads_labels", False)

    def train(self, mode: bool = True) -> BagModel:
        super().train(mode)
        if self.fixed_norm and self.tile_encoder is not None:
            for module in self.tile_encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def image_tokens(self, tiles: Tensor, mask: Tensor | None = None, colour: Tensor | None = None) -> Tensor:
        """Pixels (B, N, px, px, 3) uint8 -> (B, N, C); features (B, N, D) of a frozen encoder pass through.

        Padding is not shown to the backbone. colour (B, 2, 3): see `backbone.to_input`.
        """
        if self.tile_encoder is None:
            return tiles.float()
        real = tiles.flatten(0, 1) if mask is None else tiles[mask]
        if colour is not None:
            bag = torch.arange(len(tiles), device=tiles.device)[:, None].expand(tiles.shape[:2])
            colour = colour[bag.flatten() if mask is None else bag[mask]]
        x = self._encoded(real, colour)
        if mask is None:
            return x.unflatten(0, tiles.shape[:2])
        return x.new_zeros(*mask.shape, x.shape[-1]).masked_scatter(mask[..., None], x)

    def _encoded(self, tiles: Tensor, colour: Tensor | None) -> Tensor:
        def encode(part: Tensor, its_colour: Tensor | None) -> Tensor:
            encoder = self.tile_encoder
            return encoder(backbone.to_input(part, encoder.mean, encoder.std, its_colour))

        size = self.tile_chunk or len(tiles)
        if len(tiles) <= size:
            return encode(tiles, colour)
        parts = tiles.split(size)
        colours = [None] * len(parts) if colour is None else colour.split(size)
        if torch.is_grad_enabled():
            made = [checkpoint(encode, *both, use_reentrant=False) for both in zip(parts, colours, strict=True)]
        else:
            made = [encode(*both) for both in zip(parts, colours, strict=True)]
        return torch.cat(made)

    def forward(
        self,
        tiles: Tensor | None = None,
        genes: Tensor | None = None,
        mask: Tensor | None = None,
        colour: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """tiles (B, N, px, px, 3) uint8 or features (B, N, D); genes (B, S, gene_dim), or levels (B, G) that the gene
        set encoder makes tokens of; mask (B, N) of real tiles -> logits (B, 2) and att, name -> (B, H, N or S).

        With labels (B,), an aggregator that reads them adds a third: the loss of its instances.
        """
        image = None if tiles is None else self.image_tokens(tiles, mask, colour)
        if genes is not None:
            genes = self.gene_dropout(genes if self.gene_set_encoder is None else self.gene_set_encoder(genes))
        return self.aggregator(image, genes, mask, **({} if labels is None else {"labels": labels}))
