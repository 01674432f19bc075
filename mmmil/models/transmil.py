"""TransMIL (Shao et al. 2021, NeurIPS), a baseline on frozen features: the image encoder with a linear classifier.

Shapes: B patients, N tiles, W width, H heads.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmmil.models.fusion import Encoder


class TransMIL(Encoder):
    """TransMIL as published, for each patient alone: published checkpoints load strictly and give their own logits.

    Two of Nyström's layers with PPEG between them (Shao et al. 2021, the TPT module); repeated tokens and the padding
    of Nyström's segments are attended to (see `attention.PublishedSelfAttention`). Published batches hold one bag; here
    a batch gives what its patients give one by one. positions: without places there is no PPEG, and no token is
    repeated; it is then no longer the published model.
    """

    def __init__(
        self,
        image_dim: int,
        width: int = 512,
        heads: int = 8,
        landmarks: int = 256,
        dropout: float = 0.1,
        n_classes: int = 2,
        positions: bool = True,
    ):
        super().__init__(image_dim, width, heads, "published", landmarks, dropout, ppeg=positions)
        self._fc2 = nn.Linear(width, n_classes)

    def forward(  # type: ignore[override]  # the encoder with its classifier, which checkpoints hold as one module
        self, tiles: Tensor, genes: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Features (B, N, image_dim), mask (B, N) of real ones -> logits (B, 2) and self_image (B, H, N).

        att is the class token's in layer 2, a tile's copies added to it; it may be negative, as Nyström's
        approximation may, and sums to less than one, as padding takes its share. `genes` is not read.
        """
        summary, _, att = super().forward(tiles, mask=mask)
        return self._fc2(summary), {"self_image": att}
