"""What every variant is: encoders that make tokens, and an aggregator over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmil.models import backbone
from mmmil.models.standardise import Standardise


class BagModel(nn.Module):
    """What every variant is: encoders that make tokens of pixels and of levels, and an aggregator over the tokens.

    aggregator: called with (tiles, genes, mask) and, if it reads labels while training, labels=; it may return logits
    alone; tile_encoder: None
    where tiles are features of a frozen one; gene_set_encoder: None where gene tokens are fixed; tile_chunk: tiles
    that pass the tile encoder at once, each chunk computed again for its gradient, so that memory does not grow with
    the bag; 0: all at once; fixed_norm: batch norm keeps the statistics that it has, by which no tile changes another;
    image_scale, gene_scale: what brings the tokens of either modality to one scale, None: nothing.
    """

    def __init__(
        self,
        aggregator: nn.Module,
        tile_encoder: nn.Module | None = None,
        gene_set_encoder: nn.Module | None = None,
        gene_dropout: float = 0.0,
        tile_chunk: int = 0,
        fixed_norm: bool = True,
        image_scale: Standardise | None = None,
        gene_scale: Standardise | None = None,
    ):
        super().__init__()
        if tile_chunk and not fixed_norm:
            raise ValueError("tiles in chunks need fixed_norm: statistics of a batch are of all its tiles")
        self.aggregator = aggregator
        self.tile_encoder = tile_encoder
        self.gene_set_encoder = gene_set_encoder
        self.gene_dropout = nn.Dropout(gene_dropout)
        self.tile_chunk, self.fixed_norm = tile_chunk, fixed_norm
        self.image_scale, self.gene_scale = image_scale, gene_scale

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
        """Pixels (B, N, px, px, 3) uint8 -> (B, N, C), or features (B, N, D) of a frozen encoder, standardised.

        Padding is not shown to the backbone. colour (B, 2, 3): see `backbone.to_input`.
        """
        x = self.unscaled_image_tokens(tiles, mask, colour)
        return x if self.image_scale is None else self.image_scale(x)

    def gene_tokens(self, genes: Tensor) -> Tensor:
        """Tokens (B, S, gene_dim), or levels (B, G) that the gene set encoder makes tokens of -> (B, S, gene_dim)."""
        x = self.unscaled_gene_tokens(genes)
        return x if self.gene_scale is None else self.gene_scale(x)

    def unscaled_gene_tokens(self, genes: Tensor) -> Tensor:
        """As `gene_tokens`, before they are standardised."""
        return genes if self.gene_set_encoder is None else self.gene_set_encoder(genes)

    def unscaled_image_tokens(self, tiles: Tensor, mask: Tensor | None = None, colour: Tensor | None = None) -> Tensor:
        """As `image_tokens`, before they are standardised."""
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
            encoder: Any = self.tile_encoder  # one of `backbone`, with the mean and standard deviation of its input
            return encoder(backbone.to_input(part, encoder.mean, encoder.std, its_colour))

        size = self.tile_chunk or len(tiles)
        if len(tiles) <= size:
            return encode(tiles, colour)
        parts = tiles.split(size)
        colours = [None] * len(parts) if colour is None else colour.split(size)
        if torch.is_grad_enabled():
            encoded = [checkpoint(encode, *both, use_reentrant=False) for both in zip(parts, colours, strict=True)]
        else:
            encoded = [encode(*both) for both in zip(parts, colours, strict=True)]
        return torch.cat(encoded)

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

        With labels (B,), an aggregator that reads them adds a third: the loss of its instances, one number, or the loss
        of each bag (B,), which is trained in place of the cross-entropy.
        """
        image = None if tiles is None else self.image_tokens(tiles, mask, colour)
        if genes is not None:
            genes = self.gene_dropout(self.gene_tokens(genes))
        output = self.aggregator(image, genes, mask, **({} if labels is None else {"labels": labels}))
        return (output, {}) if isinstance(output, Tensor) else output
