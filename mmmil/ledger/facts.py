"""Facts of the code that can be set beside the paper's exactly: parameter counts, lengths, what is trained together.

Each is computed from the modules that the trainings use. None of them depends on a cohort.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmmil.models import bag_model


@lru_cache
def _encoder(kind: str) -> Any:  # a TileEncoder, whose blocks are counted
    from mmmil import schema
    from mmmil.models import backbone

    encoder = backbone.TileEncoder(kind, weights="random")
    kept = schema.Model.model_fields["kept_channels"].default
    return backbone.prune(encoder, range(kept)) if kind == "reduced" else encoder


@lru_cache
def parameters(name: str) -> int:
    """Parameters of a tile encoder: original, uib, reduced (without a head); resnet50d, ctranspath (frozen)."""
    import torch

    from mmmil.models import backbone

    if name in ("original", "uib", "reduced"):
        return backbone.parameters(_encoder(name))
    with torch.device("meta"):  # counted, not filled
        return backbone.parameters(backbone.pretrained(name, "random", num_classes=0))


@lru_cache
def _model() -> bag_model.BagModel:
    """The proposed model as it is trained, at the default settings, for ten gene sets."""
    from mmmil import schema
    from mmmil.models import bag_model
    from mmmil.models import fusion as models_fusion

    width = schema.Model.model_fields["width"].default
    latent = schema.Genes.model_fields["latent_dim"].default
    fusion = models_fusion.MultimodalMIL("dual", _encoder("reduced").channels, latent, 10, width)
    return bag_model.BagModel(fusion, _encoder("reduced"))


def _reduction() -> float:
    return 1 - parameters("reduced") / parameters("original")


def _joined_vectors() -> int:
    fusion: Any = _model().aggregator
    return fusion.classifier[-1].in_features // fusion.image_encoder.norm.normalized_shape[0]


def _trained_share() -> float:
    """Share of the proposed model's parameters that one backward pass from the logits reaches."""
    import torch

    model = _model()
    model.zero_grad()
    tiles = torch.randint(0, 255, (2, 4, 64, 64, 3), dtype=torch.uint8)
    logits, _ = model(tiles, torch.randn(2, 10, _gene_token()))
    logits.logsumexp(1).sum().backward()
    reached = sum(p.numel() for p in model.parameters() if p.grad is not None)
    return reached / sum(p.numel() for p in model.parameters())


def _gene_token() -> int:
    from mmmil import schema

    return schema.Genes.model_fields["latent_dim"].default


def _attended() -> int:
    import torch

    _, att = _model()(torch.zeros(1, 4, 64, 64, 3, dtype=torch.uint8), torch.randn(1, 10, _gene_token()))
    return len(att)


def _positions(modality: str) -> int:
    encoder = getattr(_model().aggregator, f"{modality}_encoder")
    return int(encoder.pos_layer is not None)


def _padding_counted() -> float:
    """Zero-padded places that the autoencoder's loss counts, of a short set beside a long one."""
    import numpy as np
    import torch

    from mmmil.genes import autoencoder

    level = np.ones((4, 12), dtype=np.float32)
    index = autoencoder.index_table({"short": list("abc"), "long": list("abcdefghijkl")}, "abcdefghijkl")
    pairs = autoencoder._Pairs(level, index)  # what `fit` multiplies its squared errors with
    levels, mask = pairs[torch.arange(len(pairs))]
    return float(mask[levels == 0].sum())


def _removed_uibs() -> int:
    return sum(len(stage) for stage in _encoder("original").blocks) - sum(len(s) for s in _encoder("uib").blocks)


def _joint_libraries() -> int:
    """Variants that read GO and KEGG sets at once."""
    from mmmil import variants

    return sum(v.genes not in ("", "go", "kegg", "genes", "all") for v in variants.VARIANTS.values())


FACTS: dict[str, Callable[[], int | float]] = {
    "parameters_original": lambda: parameters("original"),
    "parameters_uib": lambda: parameters("uib"),
    "parameters_reduced": lambda: parameters("reduced"),
    "parameter_reduction": _reduction,
    "times_smaller_than_resnet50d": lambda: parameters("resnet50d") / parameters("reduced"),
    "times_smaller_than_ctranspath": lambda: parameters("ctranspath") / parameters("reduced"),
    "removed_uibs": _removed_uibs,
    "last_channels_original": lambda: _encoder("original").channels,
    "last_channels_reduced": lambda: _encoder("reduced").channels,
    "image_token_length": lambda: _encoder("reduced").channels,
    "gene_token_length": _gene_token,
    "joined_vectors": _joined_vectors,
    "attention_maps": _attended,
    "trained_together": _trained_share,
    "image_positions": lambda: _positions("image"),
    "gene_positions": lambda: _positions("gene"),
    "padding_in_the_loss": _padding_counted,
    "variants_of_both_libraries": _joint_libraries,
}


@lru_cache
def value(name: str) -> int | float:
    """A fact, computed once per process."""
    return FACTS[name]()
