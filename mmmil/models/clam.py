"""CLAM, single branch (Lu et al. 2021, Nature Biomedical Engineering 5:555), a baseline on frozen features.

Written from the paper's equations. Shapes: B patients, N tiles, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmil.models.attention import GatedAttention, plain_names

# The loss is BAG_WEIGHT * bag's + (1 - BAG_WEIGHT) * instances' (Lu et al. 2021, Methods: c1 = 0.7, c2 = 0.3).
BAG_WEIGHT = 0.7


class CLAM(nn.Module):
    """Gated attention pooling over tiles, with classifiers of the tiles that are attended to most and least.

    h = ReLU(W1 z) of a tile's features z, att = softmax of gated attention over h, logits = W_c (sum of att h).
    For each class m a linear classifier W_inst,m tells the tiles that speak for m from the others; attention itself
    gives their labels (`instance_loss`).

    Differs from the published default in the instances' loss: there it is the smooth top-1 SVM loss (margin 1,
    temperature 1), here cross-entropy, which the published code offers as well. State-dict names are the published
    ones, so that published checkpoints of the sizes [image_dim, 512, 256] load strictly; what that SVM loss stored
    in them is left out.
    """

    reads_labels = True  # training gives them to `forward`

    def __init__(
        self,
        image_dim: int,
        width: int = 512,
        hidden: int = 256,
        dropout: float = 0.25,
        k_sample: int = 8,
        subtyping: bool = True,
        n_classes: int = 2,
    ):
        super().__init__()
        self.k_sample, self.subtyping = k_sample, subtyping
        self.attention_net = nn.Sequential(
            nn.Linear(image_dim, width), nn.ReLU(), nn.Dropout(dropout), GatedAttention(width, hidden, dropout)
        )
        self.classifiers = nn.Linear(width, n_classes)
        self.instance_classifiers = nn.ModuleList(nn.Linear(width, 2) for _ in range(n_classes))
        self.register_load_state_dict_pre_hook(plain_names)
        self.register_load_state_dict_pre_hook(_without_instance_loss)

    def forward(
        self, tiles: Tensor, genes: Tensor | None = None, mask: Tensor | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]] | tuple[Tensor, dict[str, Tensor], Tensor]:
        """Features (B, N, image_dim), mask (B, N) of real ones -> logits (B, 2) and self_image (B, 1, N).

        With labels (B,), a third: the instances' loss, the mean over patients. `genes` is not read.
        """
        h = self.attention_net[:3](tiles)
        summary, att = self.attention_net[3](h, mask)
        output = self.classifiers(summary), {"self_image": att}
        if labels is None:
            return output
        real = torch.ones_like(att[:, 0], dtype=torch.bool) if mask is None else mask
        bags = zip(h, att[:, 0], real, labels.tolist(), strict=True)
        return *output, torch.stack([self.instance_loss(x[real], a[real], label) for x, a, real, label in bags]).mean()

    def instance_loss(self, h: Tensor, att: Tensor, label: int) -> Tensor:
        """Loss of one bag's tiles, encoded h (n, W), with weights att (n,) (Lu et al. 2021, Instance-level clustering).

        For the bag's own class, the k most attended tiles speak for it (1) and the k least attended do not (0). With
        `subtyping` classes exclude each other, so for every other class the k most attended do not either, and the
        loss is the mean over classes. k is at most half of the tiles, so that none gets both labels; the only tile of a
        bag is its most attended.
        """
        k = min(self.k_sample, max(1, len(h) // 2))
        top, bottom = h[att.topk(k).indices], h[att.topk(min(k, len(h) - k), largest=False).indices]
        yes, no = (torch.full((k,), side, device=h.device) for side in (1, 0))
        both = torch.cat([yes, no[: len(bottom)]])
        losses = []
        for m, classifier in enumerate(self.instance_classifiers):
            if m == label:
                losses.append(F.cross_entropy(classifier(torch.cat([top, bottom])), both))
            elif self.subtyping:
                losses.append(F.cross_entropy(classifier(top), no))
        return torch.stack(losses).mean()


def _without_instance_loss(module: nn.Module, state: dict, *_: object) -> None:
    for name in [name for name in state if name.startswith("instance_loss_fn.")]:
        del state[name]
