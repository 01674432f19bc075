"""The multimodal multiple instance learning model: encoders, cross-attention, classifier (Proposed Method, Fig. 1).

Shapes: B patients, N tiles, S gene sets, W width. Names of the encoder's parts follow TransMIL's published ones.
"""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmil.models.attention import HEADS, CrossAttention, ReturnAtt, self_attention


class TransLayer(nn.Module):
    """x + Attention(LayerNorm(x))."""

    def __init__(self, width: int, heads: int, kind: str, landmarks: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = self_attention(width, heads, kind, landmarks, dropout)

    def forward(
        self, x: Tensor, return_att: ReturnAtt = False, mask: Tensor | None = None
    ) -> Any:  # a Tensor, or two where att is asked for
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


class Squared(NamedTuple):
    """Bags as published TransMIL lays them out: each a square of S places at most, its first tokens once more.

    tokens: (B, S, W); token: (B, S), which one stands at a place; mask: (B, S), False for places there are not;
    first: (B, S), True for the first place of a token.
    """

    tokens: Tensor
    token: Tensor
    mask: Tensor
    first: Tensor

    def gathered(self, values: Tensor, n: int) -> Tensor:
        """Values of places (B, ..., S), 0 where there is none -> of the N tokens (B, ..., N), copies added up."""
        index = self.token.view(len(values), *[1] * (values.ndim - 2), -1).expand_as(values)
        return values.new_zeros(*values.shape[:-1], n).scatter_add(-1, index, values)


class Square(nn.Module):
    """Repeats the first tokens of a bag until it fills a square of side ceil(sqrt(N)); it has no parameters."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Squared:
        """(B, N, W), mask (B, N) of real tokens, wherever they stand."""
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        number = real.sum(1, keepdim=True)
        places = number.sqrt().ceil().long() ** 2
        place = torch.arange(int(places.max()), device=x.device)[None]
        exists, first = place < places, place < number
        order = (~real).to(torch.uint8).argsort(dim=1, stable=True)  # real tokens come first, in their order
        token = order.gather(1, torch.where(first, place, place - number) * exists)
        tokens = x.gather(1, token[..., None].expand(-1, -1, x.shape[2])) * exists[..., None]
        return Squared(tokens, token, exists, first)


class Encoder(nn.Module):
    """TransMIL-style aggregation: class token, layer 1, PPEG, layer 2, norm.

    ppeg: only for tokens that have a place, those of images. kind: see `attention.self_attention`; with published and
    a PPEG all is computed as published TransMIL does for the patient alone (Shao et al. 2021): its first tokens are
    repeated until they fill a square, before the class token is put in front, and both layers attend to the copies.
    """

    def __init__(self, dim: int, width: int, heads: int, kind: str, landmarks: int, dropout: float, ppeg: bool):
        super().__init__()
        self._fc1 = nn.Sequential(nn.Linear(dim, width), nn.ReLU())
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.layer1 = TransLayer(width, heads, kind, landmarks, dropout)
        self.square = Square() if ppeg and kind == "published" else None
        self.pos_layer = PPEG(width) if ppeg else None
        self.layer2 = TransLayer(width, heads, kind, landmarks, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, shift: Tensor | None = None, mask: Tensor | None = None, places: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, dim) -> summary (B, W), encoded tokens (B, N, W), att of the class token over tokens (B, H, N).

        `shift` (N, W) is added to the projected tokens: the learned identity of a gene set. `mask` (B, N) is False
        for padding, which is attended to by none. To the PPEG the padding behind a bag is not there: a patient's square
        is that of its own tokens, whoever else is in the batch. places (B, N): tokens of the bag, where `mask` leaves
        some of them out, which are empty space to the PPEG (published attention closes up); None: mask. Where tokens
        are repeated, a token's att is what it and its copies get together.
        """
        x = self.projected(tokens, shift)
        if self.square is not None:
            return self._as_published(self.square(x, mask), mask, tokens.shape[1])
        real = None if mask is None else F.pad(mask, (1, 0), value=True)  # the class token is real
        x = self.layer1(self._with_class(x), mask=real)
        if self.pos_layer is not None:
            x = self._placed(x, real, real if places is None else F.pad(places, (1, 0), value=True))
        x, att = self.layer2(x, return_att="first", mask=real)
        x = self.norm(x)
        # The class token stands first; its weight on itself is left out and the rest is what tokens share.
        return x[:, 0], x[:, 1:], att[:, :, 0, 1:]

    def projected(self, tokens: Tensor, shift: Tensor | None = None) -> Tensor:
        """Tokens (B, N, dim) at the encoder's width (B, N, W), none of which knows of another yet."""
        x = self._fc1(tokens)
        return x if shift is None else x + shift

    def _with_class(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)

    def _placed(self, x: Tensor, real: Tensor | None, places: Tensor | None) -> Tensor:
        """PPEG of class token and tokens (B, 1 + N, W), each patient's square alone; masks (B, 1 + N), None: all."""
        assert self.pos_layer is not None
        if real is None or places is None:
            return self.pos_layer(x)
        x, placed = x * real[..., None], torch.zeros_like(x)
        number = (places * torch.arange(1, x.shape[1] + 1, device=x.device)).amax(1)  # up to a bag's last token
        for n in number.unique().tolist():  # patients with bags of one size go together
            placed[number == n, :n] = self.pos_layer(x[number == n, :n])
        return placed

    def _as_published(self, square: Squared, mask: Tensor | None, n: int) -> tuple[Tensor, Tensor, Tensor]:
        real = F.pad(square.mask, (1, 0), value=True)
        x = self.layer1(self._with_class(square.tokens), mask=real)
        x, att = self.layer2(self._placed(x, real, real), return_att="first", mask=real)
        x = self.norm(x)
        if mask is None:
            encoded = x[:, 1 : 1 + n]
        else:
            encoded = x.new_zeros(*mask.shape, x.shape[-1]).masked_scatter(mask[..., None], x[:, 1:][square.first])
        return x[:, 0], encoded, square.gathered(att[:, :, 0, 1:], n)


def mean_tile(tiles: Tensor, mask: Tensor | None) -> Tensor:
    """tiles (B, N, C), mask (B, N) of real ones or None -> mean of each bag, (B, C); zeros where none is real."""
    real = tiles.new_ones(tiles.shape[:2]) if mask is None else mask.to(tiles.dtype)
    return (tiles * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp_min(1)


class LinearSkip(nn.Module):
    """A logistic regression beside the encoders, on what they read: the mean tile and every number of the gene tokens.

    Its two logits are added to the classifier's. It starts as the regression fitted to the training patients (`start`)
    and the classifier at nothing, so that an untrained model tells patients apart as the linear baseline does, and what
    attention adds is learnt on top. Not in the paper; worth what benchmarks/results/model_parts.md says.
    """

    def __init__(self, image_dim: int, gene_length: int, dropout: float = 0.5):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.utils.skip_init(nn.Linear, image_dim + gene_length, 2)  # it draws no random number
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def start(self, weights: Tensor, bias: float) -> None:
        """Become the regression whose logit of class 1 is weights (image_dim + gene_length,) times what is read."""
        self.linear.weight.copy_(torch.stack([-weights, weights]) / 2)
        self.linear.bias.copy_(torch.tensor([-bias, bias]) / 2)

    def read(self, tiles: Tensor | None, genes: Tensor | None, mask: Tensor | None) -> list[Tensor]:
        """The mean tile (B, image_dim) and the numbers of the gene tokens (B, S * gene_dim), as far as they are given.

        tiles (B, N, image_dim), genes (B, S, gene_dim), mask (B, N) of real tiles.
        """
        parts = []
        if tiles is not None:
            parts.append(mean_tile(tiles, mask))
        if genes is not None:
            parts.append(genes.flatten(1))
        return parts

    def forward(self, tiles: Tensor | None, genes: Tensor | None, mask: Tensor | None) -> Tensor:
        """Logits (B, 2) of what `read` reads."""
        parts = self.read(tiles, genes, mask)
        if tiles is not None:  # values of gene tokens are dropped before (`gene_dropout`)
            parts[0] = self.dropout(parts[0])
        return self.linear(torch.cat(parts, -1))


class Encoded(NamedTuple):
    """What `MultimodalMIL` makes of a patient, by name; an entry is there where the fusion has it.

    vectors: (B, W) each, in the classifier's order: image and genes, the summaries of the tiles and of the sets;
    image_from_genes and genes_from_image, what each summary gathers from the other modality's tokens. tokens: image
    (B, N, W) and genes (B, S, W), as their encoder leaves them. att: after the softmax, self_image (B, H, N),
    self_genes (B, H, S), cross_genes (B, H, S: the image's summary over gene sets) and cross_image (B, H, N: the
    genes' summary over tiles).
    """

    vectors: dict[str, Tensor]
    tokens: dict[str, Tensor]
    att: dict[str, Tensor]


class MultimodalMIL(nn.Module):
    """Image tokens and gene tokens -> two logits.

    fusion: image (summary of the tiles), genes (summary of the sets), self (both summaries) or dual (both, and what
    each summary gathers from the other modality's tokens by cross-attention: four vectors). positions: whether the
    order of tiles says where they lie; without it there is no PPEG. linear_skip: see `LinearSkip`. raw_keys: the keys
    and values of cross-attention are the other modality's tokens as projected, not as encoded.
    """

    def __init__(
        self,
        fusion: str = "dual",
        image_dim: int = 0,
        gene_dim: int = 0,
        n_sets: int = 0,
        width: int = 96,
        heads: int = HEADS,
        attention: str = "exact",
        landmarks: int = 64,
        dropout: float = 0.1,
        set_embedding: bool = True,
        positions: bool = True,
        linear_skip: bool = False,
        raw_keys: bool = False,
    ):
        super().__init__()
        vectors = {"image": 1, "genes": 1, "self": 2, "dual": 4}
        if fusion not in vectors:
            raise ValueError(f"fusion is one of {', '.join(vectors)}, not {fusion!r}")
        self.fusion, self.raw_keys = fusion, raw_keys
        common = (width, heads, attention, landmarks, dropout)
        if fusion != "genes":
            self.image_encoder = Encoder(image_dim, *common, ppeg=positions)
        if fusion != "image":
            self.gene_encoder = Encoder(gene_dim, *common, ppeg=False)
            self.set_embedding = nn.Parameter(torch.randn(n_sets, width) * 0.02) if set_embedding else None
        if fusion == "dual":
            self.image_to_genes = CrossAttention(width, heads, dropout)
            self.genes_to_image = CrossAttention(width, heads, dropout)
        self.classifier = nn.Sequential(
            nn.LayerNorm(vectors[fusion] * width), nn.Dropout(dropout), nn.Linear(vectors[fusion] * width, 2)
        )
        lengths = (0 if fusion == "genes" else image_dim, 0 if fusion == "image" else n_sets * gene_dim)
        self.linear_skip = LinearSkip(*lengths) if linear_skip else None
        if linear_skip:
            for parameter in self.classifier[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        tiles: Tensor | None = None,
        genes: Tensor | None = None,
        mask: Tensor | None = None,
        places: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """tiles (B, N, image_dim), genes (B, S, gene_dim) -> logits (B, 2) and att (see `encode`).

        mask (B, N) bool is False where a bag is padded; None where none is. places: see `Encoder.forward`.
        """
        encoded = self.encode(tiles, genes, mask, places)
        logits = self.classifier(torch.cat(list(encoded.vectors.values()), -1))
        if self.linear_skip is not None:
            read = (None if self.fusion == "genes" else tiles), (None if self.fusion == "image" else genes)
            logits = logits + self.linear_skip(*read, mask)
        return logits, encoded.att

    def encode(
        self,
        tiles: Tensor | None = None,
        genes: Tensor | None = None,
        mask: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Encoded:
        """All that the classifier's answer is made of, by name; arguments as for `forward`."""
        vectors, tokens, att = {}, {}, {}
        if self.fusion != "genes":
            vectors["image"], tokens["image"], att["self_image"] = self.image_encoder(tiles, mask=mask, places=places)
        if self.fusion != "image":
            vectors["genes"], tokens["genes"], att["self_genes"] = self.gene_encoder(genes, self.set_embedding)
        if self.fusion == "dual":
            image, sets = tokens["image"], tokens["genes"]
            if self.raw_keys:
                assert tiles is not None and genes is not None
                image = self.image_encoder.projected(tiles)
                sets = self.gene_encoder.projected(genes, self.set_embedding)
            vectors["image_from_genes"], att["cross_genes"] = self.image_to_genes(vectors["image"], sets)
            vectors["genes_from_image"], att["cross_image"] = self.genes_to_image(vectors["genes"], image, mask)
        return Encoded(vectors, tokens, att)
