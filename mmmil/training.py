"""Training of one variant on one fold: its inputs, its model, its predictions (Experimental Setup)."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import nn

from mmmil import backbone, baselines, device, engine, record, weights
from mmmil.bags import BagFiles
from mmmil.clam import CLAM
from mmmil.device import make_fabric
from mmmil.engine import Inputs, TrainingError, predict
from mmmil.genesets import GeneTokens
from mmmil.mcat import MCAT
from mmmil.models import BagModel, MultimodalMIL
from mmmil.params import Params
from mmmil.transmil import TransMIL

__all__ = ["Genes", "Inputs", "TrainingError", "build", "inputs_of", "load_model", "make_fabric", "predict", "train"]


def frozen_features(study, name: str, fold: int) -> np.ndarray:
    """Features (patients, n_tiles, D) float32 of a frozen tile encoder, computed once for the cohort's bags."""
    p = study.p
    inputs = {
        "encoder": name,
        "weights": weights.weights_key(backbone.FROZEN[name], p.weights, p.weights_dir),
        "seed": p.seed if p.weights == "random" else None,
        "bags": study.bag_keys(fold),
        "precision": device.precision_of(p),
        "code": record.source_digest("mmmil.training", "mmmil.backbone", "mmmil.weights", "mmmil.ctranspath"),
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


def build(
    p: Params, v, genes: Genes | None = None, tile_encoder: nn.Module | None = None, image_dim: int = 0
) -> BagModel:
    """The untrained model of a variant; its sizes come from the gene tokens and the tile encoder."""
    image_dim = tile_encoder.channels if tile_encoder else image_dim
    n_sets, gene_dim = genes.tokens.tokens.shape[1:] if genes else (0, 0)
    if v.fusion == "clam":
        aggregator = CLAM(image_dim)
    elif v.fusion == "transmil":
        aggregator = TransMIL(image_dim)
    elif v.fusion == "co":
        aggregator = MCAT(image_dim, [gene_dim], shared=True)
    else:
        aggregator = MultimodalMIL(
            v.fusion,
            image_dim,
            gene_dim,
            n_sets,
            width=p.width,
            heads=p.heads,
            attention=p.attention,
            landmarks=p.landmarks,
            dropout=p.dropout,
            set_embedding=p.set_embedding,
        )
    return BagModel(
        aggregator,
        tile_encoder,
        genes.encoder if genes else None,
        p.gene_dropout,
        tile_chunk=p.tile_chunk if p.batch_norm == "fixed" else 0,  # a batch's statistics are of all its tiles
        fixed_norm=p.batch_norm == "fixed",
    )


def tile_encoder(
    p: Params, v, tiles: np.ndarray | BagFiles, masks: np.ndarray, train: list[int], fabric: Fabric
) -> tuple[backbone.TileEncoder, pd.DataFrame | None]:
    """The variant's tile encoder with the statistics of training tiles; the reduced one is pruned by APoZ on them.

    tiles (P, N, px, px, 3) uint8, masks (P, N), train: indices of the training patients. Returns the encoder with a
    table of every channel's APoZ and whether it was kept (None where nothing is pruned).
    """
    encoder = backbone.TileEncoder(v.backbone, p.weights, p.weights_dir).to(memory_format=torch.channels_last)
    if v.backbone != "reduced" and p.batch_norm == "batch" and p.weights != "random":
        return encoder, None
    patient, tile = np.nonzero(masks[train])
    picked = np.random.default_rng(p.seed).choice(len(tile), min(p.apoz_tiles, len(tile)), replace=False)
    pixels = np.stack([tiles[train[patient[i]]][tile[i]] for i in np.sort(picked)])
    encoder.to(fabric.device)
    batches = [
        backbone.to_input(torch.from_numpy(chunk).to(fabric.device), encoder.mean, encoder.std)
        for chunk in np.array_split(pixels, max(1, len(pixels) // 64))
    ]
    # Random weights have no statistics of their own yet, and ImageNet's are not those of tissue.
    backbone.measure_batch_norm(encoder, batches)
    if v.backbone != "reduced":
        return encoder, None
    shares = backbone.apoz(encoder, batches)
    kept = backbone.lowest_apoz(shares, p.kept_channels)
    table = pd.DataFrame({"apoz": shares.numpy(), "kept": np.isin(np.arange(len(shares)), kept.numpy())})
    return backbone.prune(encoder, kept), table


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


def start_seed(p: Params, fold: int) -> int:
    """Seed from which a fold's training draws its first weights and then everything else."""
    return 1000 * p.seed + fold + 1


def train(study, v, fold: int, folder: Path, checkpoint: Path | None = None) -> dict:
    """Train a variant on a fold's training patients, predict the evaluated ones, and write both into `folder`.

    checkpoint: a file from which an interrupted training goes on. Returns facts for run.json.
    """
    p = study.p
    train_ids, evaluated_ids = study.fold_patients(fold)
    position = {patient: i for i, patient in enumerate(study.patients)}
    train, evaluated = [position[i] for i in train_ids], [position[i] for i in evaluated_ids]
    labels = torch.from_numpy(study.labels.to_numpy(np.int64, copy=True))
    facts = {"parameters": None}
    if v.fusion == "logistic":
        facts["device"] = platform.processor() or platform.machine()
        if v.uses_genes:
            x, strength = study.expression.level, 1e-3
        else:
            x, strength = baselines.colour(study.bags(fold), study.tile_masks), 1.0
        probs = baselines.logistic(x[train], labels[train].numpy(), x[evaluated], strength)
    else:
        fabric = make_fabric(p)
        inputs, genes = inputs_of(study, v, fold)
        if fabric.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

        def start() -> BagModel:
            """The model before its first step: the same one whenever it is asked for."""
            torch.manual_seed(start_seed(p, fold))  # after the inputs: making them must not move the generator
            encoder = None
            if v.is_trained_end_to_end:
                encoder, channels = tile_encoder(p, v, study.bags(fold), study.tile_masks, train, fabric)
                if channels is not None:
                    channels.to_csv(folder / "apoz.csv", index_label="channel")
                facts["backbone_parameters"] = backbone.parameters(encoder)
            return build(p, v, genes, encoder, inputs.tiles.shape[-1] if v.uses_slides else 0)

        augment = p.augment and v.is_trained_end_to_end
        epochs, inputs = p.epochs, engine.on_device(fabric, inputs)
        if p.epoch_choice == "inner":
            epochs = _best_epoch(fabric, start(), inputs, labels, train, p, augment, folder, checkpoint)
        model = start()
        facts |= device.circumstances(p) | {"parameters": backbone.parameters(model), "epochs": epochs}
        fitted, history = engine.fit(
            fabric, model, inputs, labels, train, p, augment, epochs=epochs, checkpoint=checkpoint
        )
        probs, attention = predict(fabric, fitted, inputs, evaluated, p.batch_size)
        if fold < 0:  # of the test patients, on the very pass that predicts them
            np.savez(folder / "attention.npz", **attention)
        save_file({k: t.contiguous().cpu() for k, t in model.state_dict().items()}, folder / "model.safetensors")
        history.to_csv(folder / "history.csv", index_label="epoch")
        if fabric.device.type == "cuda":
            facts["gpu_peak_mib"] = torch.cuda.max_memory_allocated() // 2**20
    table = pd.DataFrame(
        {
            "variant": v.name,
            "seed": p.seed,
            "fold": fold,
            "split": "test" if fold < 0 else "val",
            "patient_id": evaluated_ids,
            "label": labels[evaluated].numpy(),
            "prob": probs,
        }
    )
    table.to_parquet(folder / "predictions.parquet", index=False)
    return facts


def _best_epoch(fabric, model, inputs, labels, train, p: Params, augment: bool, folder: Path, checkpoint) -> int:
    """Number of epochs after which the loss on a fifth of the training patients was lowest (history in `inner.csv`)."""
    from sklearn.model_selection import train_test_split

    inner, held = train_test_split(train, test_size=0.2, stratify=labels[train].numpy(), random_state=p.seed)
    beside = checkpoint and checkpoint.with_suffix(".inner" + checkpoint.suffix)
    _, history = engine.fit(fabric, model, inputs, labels, inner, p, augment, held, checkpoint=beside)
    history.to_csv(folder / "inner.csv", index_label="epoch")
    return int(history["held"].idxmin()) + 1


def load_model(study, v, fold: int, folder: Path, fabric: Fabric) -> tuple[nn.Module, Inputs]:
    """A trained model of a finished training's folder, set up on the device, with the inputs it reads.

    Its tile encoder is laid out and compiled as in training: in bf16 another kernel rounds to other probabilities.
    """
    p = study.p
    inputs, genes = inputs_of(study, v, fold)
    encoder = None
    if v.is_trained_end_to_end:
        encoder = backbone.TileEncoder(v.backbone, "random")
        if v.backbone == "reduced":
            backbone.prune(encoder, torch.arange(p.kept_channels))
        encoder.to(memory_format=torch.channels_last)
    model = build(p, v, genes, encoder, inputs.tiles.shape[-1] if v.uses_slides else 0)
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    engine.compile_encoder(model, p)
    return fabric.setup(model), inputs
