"""What a variant's model reads: tiles or frozen features, gene tokens, the mask of padding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mmmil import record
from mmmil.models import backbone, weights
from mmmil.slides.bag_files import BagFiles
from mmmil.training import device
from mmmil.training.device import make_fabric
from mmmil.training.fit import Inputs, TrainingError

if TYPE_CHECKING:
    from mmmil.genes.tokens import GeneTokens


def frozen_features(study, name: str, fold: int) -> np.ndarray:
    """Features (patients, n_tiles, D) float32 of a frozen tile encoder, computed once for the cohort's bags."""
    p = study.p
    inputs = {
        "encoder": name,
        "weights": weights.weights_key(backbone.FROZEN[name], p.weights, p.weights_dir),
        "seed": p.seed if p.weights == "random" else None,
        "bags": study.bag_keys(fold),
        "precision": device.precision_of(p),
        "versions": record.versions("torch", "timm"),
    }

    def make(folder: Path) -> dict:
        fabric = make_fabric(p)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(p.seed)
            encoder = backbone.FrozenEncoder(name, p.weights, p.weights_dir).to(fabric.device)
        features = []
        for bag in study.bags(fold):
            with torch.inference_mode(), fabric.autocast():
                tiles = torch.from_numpy(bag).to(fabric.device)[None]
                features.append(encoder(backbone.to_input(tiles, encoder.mean, encoder.std)).float().cpu().numpy())
        np.save(folder / "features.npy", np.stack(features))
        return device.circumstances(p)

    return np.load(record.cached(p.results / "features" / name, inputs, make) / "features.npy")


@dataclass(frozen=True)
class Genes:
    """A fold's gene tokens, and the encoder half that the model trains itself, or None where they are fixed."""

    tokens: GeneTokens
    encoder: nn.Module | None = None


def inputs_of(study, v, fold: int) -> tuple[Inputs, Genes | None]:
    """What a variant's model reads, and the gene tokens behind it (None without genes)."""
    tiles = rows = genes = mask = None
    if v.is_trained_end_to_end:
        tiles = study.bags(fold)
        tiles = tiles if isinstance(tiles, BagFiles) else torch.from_numpy(tiles)
    elif v.uses_slides:
        tiles = torch.from_numpy(frozen_features(study, v.encoder(study.p), fold))
    if v.uses_slides and not study.tile_masks.all():
        require_tiles(study.tile_masks, study.patients)
        mask = torch.from_numpy(study.tile_masks)
    if v.uses_genes:
        genes = Genes(study.gene_tokens(fold, v.genes))
        values, patients = genes.tokens.tokens, genes.tokens.patients
        if v.trains_gene_encoder(study.p):
            values, encoder = study.gene_encoder_inputs(fold, genes.tokens)
            genes = Genes(genes.tokens, encoder)
        if patients != [i for i in study.patients if i in set(patients)]:
            raise TrainingError("gene tokens are not in the cohort's order")
        rows = torch.full((len(study.patients), *values.shape[1:]), torch.nan)
        # patients outside the fold stay NaN, so that touching one cannot go unnoticed
        rows[[study.patients.index(i) for i in patients]] = torch.from_numpy(values)
    return Inputs(tiles, rows, mask, study.patients), genes


def require_tiles(masks: np.ndarray, patients: list[str]) -> None:
    """Raise TrainingError where a bag has no tile: there is nothing to attend to. masks (P, N) of real tiles."""
    empty = [patient for patient, mask in zip(patients, masks, strict=True) if not mask.any()]
    if empty:
        raise TrainingError(
            f"{len(empty)} bags have no tile ({', '.join(empty[:3])}); leave these patients out, or lower "
            "tissue_percent and tile them again"
        )
