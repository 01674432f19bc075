"""torchmil's aggregators (Castro-Macías et al.; Apache-2.0) as variants: its own classes, made by name from a table.

Shapes: B patients, N tiles, D values of a tile's features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Row(NamedTuple):
    """A class of torchmil.models, made for features of one length and otherwise with its own defaults.

    attention: what its forward returns as attention: scores before the softmax, weights after it, or ''. masked: it
    does not run without a mask. draws: it groups tiles at random.
    """

    model: str
    attention: Literal["", "scores", "weights"] = ""
    masked: bool = False
    draws: bool = False


# By the variants' fusion. Left out are those that want a graph of the tiles, a training loop of their own (IIBMIL), or
# another input (SETMIL, VAEABMIL), and CLAM_SB, whose instance loss mixes its instances up (torchmil 1.0.2).
ROWS = {
    "torchmil_abmil": Row("ABMIL", "scores"),
    "torchmil_dsmil": Row("DSMIL", "weights"),
    "torchmil_dtfd": Row("DTFDMIL", masked=True, draws=True),
    "torchmil_transmil": Row("TransMIL", "weights"),
    "torchmil_transformer": Row("TransformerABMIL", "scores"),
}


class TorchMIL(nn.Module):
    """A model of torchmil behind our interface: each bag passes it alone, with its real tiles only.

    So padding is in no result (DSMIL takes it for a critical tile and DTFD distils it, mask or not) and no patient
    changes another (TransMIL's pseudo-inverse is scaled by a batch). Its logit y of class 1 becomes the logits (0, y),
    whose softmax is the sigmoid of y. What it predicts is what its `predict` says, which for DSMIL is the mean of both
    streams. TransMIL squares tiles in their order whether or not that says where they lie.

    Training takes the sum of torchmil's own losses (`compute_loss`: DSMIL's critical tile and DTFD's pseudo-bags
    beside the bag) of each bag in place of our cross-entropy; the engine weighs bags as for any other model.
    """

    reads_labels = True  # training gives them to `forward`

    def __init__(self, name: str, image_dim: int):
        super().__init__()
        self.row = ROWS[name]
        self.net = _torchmil(self.row.model)(in_shape=(image_dim,))

    def forward(
        self, tiles: Tensor, genes: Tensor | None = None, mask: Tensor | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]] | tuple[Tensor, dict[str, Tensor], Tensor]:
        """Features (B, N, D), mask (B, N) of real ones -> logits (B, 2) and self_image (B, 1, N), 0 for padding.

        With labels (B,), a third: the loss of each bag (B,), and no attention. `genes` is not read.
        """
        real = [slice(None)] * len(tiles) if mask is None else list(mask)
        bags = [bag[its][None] for bag, its in zip(tiles, real, strict=True)]
        if labels is not None:
            of_bags = [self._loss(bag, label[None]) for bag, label in zip(bags, labels, strict=True)]
            return _logits([y for y, _ in of_bags]), {}, torch.stack([loss for _, loss in of_bags])
        logits = _logits([self._call("predict", bag, return_inst_pred=False) for bag in bags])
        if not self.row.attention:
            return logits, {}
        att = logits.new_zeros(len(tiles), 1, tiles.shape[1])
        for i, bag in enumerate(bags):
            its = self._call("forward", bag, return_att=True)[1].flatten().to(att)
            att[i, 0, real[i]] = its.softmax(0) if self.row.attention == "scores" else its
        return logits, {"self_image": att}

    def _loss(self, bag: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        y, losses = self._call("compute_loss", label, bag)
        return y, torch.stack(list(losses.values())).sum()

    def _call(self, name: str, *given: Tensor, **named: Any) -> Any:
        """A method of torchmil's model for one bag, the last of what is given."""
        if self.row.masked:
            named["mask"] = torch.ones(given[-1].shape[:2], dtype=torch.bool, device=given[-1].device)
        if not self.row.draws:
            return getattr(self.net, name)(*given, **named)
        with _drawing(self.training):
            return getattr(self.net, name)(*given, **named)


def _logits(y: list[Tensor]) -> Tensor:
    """torchmil's logit of each bag, (1,) -> (B, 2)."""
    of_one = torch.cat(y).float()
    return torch.stack([torch.zeros_like(of_one), of_one], 1)


@contextmanager
def _drawing(training: bool) -> Iterator[None]:
    """NumPy's global generator, from which torchmil draws: in training seeded by torch's, which the engine seeds and
    keeps in its checkpoints, else always alike. It is left as it was found."""
    before = np.random.get_state()  # noqa: NPY002  # torchmil reads this one
    np.random.seed(int(torch.randint(2**31, ())) if training else 0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _torchmil(model: str) -> Any:
    """A class of torchmil's. Imported here: it brings seconds of imports that no other model needs."""
    import torchmil.models

    return getattr(torchmil.models, model)
