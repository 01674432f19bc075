"""What a variant's model reads: tiles or frozen features, gene tokens, the mask of padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mmmil.training.features import frozen_features
from mmmil.training.fit import Inputs, TrainingError
from mmmil.variants import Variant

if TYPE_CHECKING:
    from mmmil.genes.tokens import GeneTokens
    from mmmil.study import Study


@dataclass(frozen=True)
class Genes:
    """A fold's gene tokens, and the encoder half that the model trains itself, or None where they are fixed."""

    tokens: GeneTokens
    encoder: nn.Module | None = None


def inputs_of(study: Study, v: Variant, fold: int) -> tuple[Inputs, Genes | None]:
    """What a variant's model reads, and the gene tokens behind it (None without genes)."""
    tiles = rows = genes = mask = None
    positions = True
    if v.is_trained_end_to_end(study.p):
        tiles = study.bags(fold)
        positions = study.has_coords
    elif v.uses_slides:
        bags = frozen_features(study, v.encoder(study.p), fold)
        positions, alike = bags.has_coords, len(set(bags.sizes)) == 1
        tiles = bags.instances.reshape(len(bags), -1, bags.dim) if alike else bags
    if v.is_trained_end_to_end(study.p) and not study.tile_masks.all():
        require_tiles(study.tile_masks, study.patients)
        mask = torch.from_numpy(study.tile_masks)
    if v.uses_genes:
        genes = Genes(study.gene_tokens(fold, v.genes))
        values, patients = genes.tokens.tokens, genes.tokens.patients
        if v.trains_gene_encoder(study.p):
            values, encoder = study.gene_encoder_inputs(genes.tokens)
            genes = Genes(genes.tokens, encoder)
        if patients != [i for i in study.patients if i in set(patients)]:
            raise TrainingError("gene tokens are not in the cohort's order")
        rows = torch.full((len(study.patients), *values.shape[1:]), torch.nan)
        # patients outside the fold stay NaN, so that touching one cannot go unnoticed
        rows[[study.patients.index(i) for i in patients]] = torch.from_numpy(values)
    return Inputs(tiles, rows, mask, study.patients, positions), genes


def require_tiles(masks: np.ndarray, patients: list[str]) -> None:
    """Raise TrainingError where a bag has no tile: there is nothing to attend to. masks (P, N) of real tiles."""
    empty = [patient for patient, mask in zip(patients, masks, strict=True) if not mask.any()]
    if empty:
        raise TrainingError(
            f"{len(empty)} bags have no tile ({', '.join(empty[:3])}); leave these patients out, or lower "
            "tissue_percent and tile them again"
        )
