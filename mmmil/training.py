"""Training of one variant on one fold, with Lightning Fabric placing a plain PyTorch loop on the device.

Epochs are fixed beforehand; nothing is chosen on the patients that are reported.
"""

from __future__ import annotations

import logging
import platform
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmmil import backbone, baselines, record
from mmmil.genesets import GeneTokens
from mmmil.models import MultimodalMIL
from mmmil.params import Params

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


class TrainingError(RuntimeError):
    """Training cannot go on; says at which step and what to change."""


def make_fabric(p: Params) -> Fabric:
    """One device by the parameters `device` and `precision`; bf16 only where the hardware has it."""
    torch.set_num_threads(p.cpu_threads)
    cuda = torch.cuda.is_available() if p.device == "auto" else p.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise TrainingError("device: cuda, but PyTorch sees no GPU here; set device: auto")
    precision = p.precision
    if precision == "auto":
        precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
    fabric = Fabric(accelerator="cuda" if cuda else "cpu", devices=1, precision=precision)
    torch.use_deterministic_algorithms(not cuda)
    return fabric


@dataclass(frozen=True)
class Inputs:
    """What a model reads, patients first: tiles (P, N, px, px, 3) uint8 or features (P, N, D), genes (P, S, D), or
    levels (P, G) where the model encodes them itself, and the mask (P, N) of real tiles where bags are padded; None
    for what it does not read.
    """

    tiles: Tensor | None = None
    genes: Tensor | None = None
    mask: Tensor | None = None

    def take(self, which: Tensor) -> dict[str, Tensor]:
        """Arguments of the model for some patients."""
        return {f.name: getattr(self, f.name)[which] for f in fields(self) if getattr(self, f.name) is not None}


def frozen_features(study, name: str, fold: int) -> np.ndarray:
    """Features (patients, n_tiles, D) float32 of a frozen tile encoder, computed once for the cohort's bags."""
    p = study.p
    inputs = {
        "encoder": name,
        "weights": backbone.weights_key(backbone.FROZEN[name], p.weights, p.weights_dir),
        "seed": p.seed if p.weights == "random" else None,
        "bags": study.bag_keys(fold),
        "code": record.source_digest("mmmil.backbone"),
        "versions": record.versions("torch", "timm"),
    }

    def make(folder: Path) -> None:
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

    return np.load(record.cached(p.results / "features" / name, inputs, make) / "features.npy")


def build(
    study, v, genes: Genes | None = None, tile_encoder: nn.Module | None = None, image_dim: int = 0
) -> MultimodalMIL:
    """The untrained model of a variant; its sizes come from the gene tokens and the tile encoder."""
    p = study.p
    return MultimodalMIL(
        v.fusion,
        tile_encoder,
        image_dim=tile_encoder.channels if tile_encoder else image_dim,
        gene_dim=genes.tokens.tokens.shape[2] if genes else 0,
        n_sets=genes.tokens.tokens.shape[1] if genes else 0,
        width=p.width,
        heads=p.heads,
        attention=p.attention,
        landmarks=p.landmarks,
        dropout=p.dropout,
        set_embedding=p.set_embedding,
        gene_encoder=genes.encoder if genes else None,
        gene_dropout=p.gene_dropout,
    )


def pruned_encoder(
    study, v, fold: int, train: list[int], fabric: Fabric
) -> tuple[backbone.TileEncoder, pd.DataFrame | None]:
    """The variant's tile encoder; the reduced one is pruned by APoZ on tiles of the training patients.

    Returns it with a table of every channel's APoZ and whether it was kept (None where nothing is pruned).
    """
    p = study.p
    encoder = backbone.TileEncoder(v.backbone, p.weights, p.weights_dir)
    if v.backbone != "reduced":
        return encoder, None
    patient, tile = np.nonzero(study.tile_masks[train])
    picked = np.random.default_rng(p.seed).choice(len(tile), min(p.apoz_tiles, len(tile)), replace=False)
    pixels = study.bags(fold)[np.array(train)[patient[picked]], tile[picked]]
    # Random weights have no running statistics yet; pretrained ones are used as they are.
    encoder.train(p.weights == "random").to(fabric.device)
    batches = (
        backbone.to_input(torch.from_numpy(chunk).to(fabric.device), encoder.mean, encoder.std)
        for chunk in np.array_split(pixels, max(1, len(pixels) // 64))
    )
    shares = backbone.apoz(encoder, batches)
    kept = backbone.lowest_apoz(shares, p.kept_channels)
    table = pd.DataFrame({"apoz": shares.numpy(), "kept": np.isin(np.arange(len(shares)), kept.numpy())})
    return backbone.prune(encoder, kept), table


def turned(tiles: Tensor, generator: torch.Generator) -> Tensor:
    """Each patient's tiles (B, N, px, px, 3) flipped and turned by a random multiple of 90 degrees."""
    out = []
    for bag, turn in zip(tiles, torch.randint(0, 8, (len(tiles),), generator=generator).tolist(), strict=True):
        bag = torch.rot90(bag, turn % 4, (1, 2))
        out.append(bag.flip(1) if turn >= 4 else bag)
    return torch.stack(out)


def fit(
    fabric: Fabric,
    model: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    train: list[int],
    p: Params,
    augment: bool,
) -> tuple[nn.Module, list[float]]:
    """Train on the patients with indices `train`; returns the model on its device and the mean loss per epoch.

    labels: (P,) int64, of all patients of the inputs.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=p.lr, weight_decay=p.weight_decay)
    model, optimizer = fabric.setup(model, optimizer)
    steps = -(-len(train) // p.batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Fabric's wrapped optimizer hides the step counter that torch looks for
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, p.lr, total_steps=p.epochs * steps)
    weights = None
    if p.class_weights:
        counts = torch.bincount(labels[train], minlength=2)
        weights = (len(train) / (2 * counts)).to(fabric.device)
    generator = torch.Generator().manual_seed(p.seed)
    history = []
    model.train()
    for epoch in range(p.epochs):
        order = torch.tensor(train)[torch.randperm(len(train), generator=generator)]
        losses = []
        for step, batch in enumerate(order.split(p.batch_size)):
            given = inputs.take(batch)
            if augment:
                given["tiles"] = turned(given["tiles"], generator)
            logits, _ = model(**fabric.to_device(given))
            loss = F.cross_entropy(
                logits.float(), labels[batch].to(fabric.device), weights, label_smoothing=p.label_smoothing
            )
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss.item()} in epoch {epoch}, step {step} (patients {batch.tolist()}); "
                    "lower lr, or look for broken tiles or expression of these patients"
                )
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        history.append(torch.stack(losses).mean().item())
    return model, history


@torch.no_grad()
def predict(
    fabric: Fabric,
    model: nn.Module,
    inputs: Inputs,
    which: list[int],
    batch: int = 8,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Probability of class 1, (len(which),) float64, and attention averaged over heads, name -> (len(which), N)."""
    model.eval()
    probs, atts = [], []
    for chunk in torch.tensor(which).split(batch):
        logits, att = model(**fabric.to_device(inputs.take(chunk)))
        probs.append(logits.double().softmax(-1)[:, 1].cpu())
        atts.append({k: a.float().mean(1).cpu() for k, a in att.items()})
    return torch.cat(probs).numpy(), {k: torch.cat([a[k] for a in atts]).numpy() for k in atts[0]}


@dataclass(frozen=True)
class Genes:
    """A fold's gene tokens, and the encoder half that the model trains itself, or None where they are fixed."""

    tokens: GeneTokens
    encoder: nn.Module | None = None


def inputs_of(study, v, fold: int) -> tuple[Inputs, Genes | None]:
    """What a variant's model reads, and the gene tokens behind it (None without genes)."""
    tiles = rows = genes = mask = None
    if v.is_trained_end_to_end:
        tiles = torch.from_numpy(study.bags(fold))
    elif v.uses_slides:
        tiles = torch.from_numpy(frozen_features(study, v.backbone, fold))
    if v.uses_slides and not study.tile_masks.all():
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
    return Inputs(tiles, rows, mask), genes


def train(study, v, fold: int, folder: Path) -> dict:
    """Train a variant on a fold's training patients, predict the evaluated ones, and write both into `folder`."""
    p = study.p
    train_ids, evaluated_ids = study.fold_patients(fold)
    position = {patient: i for i, patient in enumerate(study.patients)}
    train, evaluated = [position[i] for i in train_ids], [position[i] for i in evaluated_ids]
    labels = torch.from_numpy(study.labels.to_numpy(np.int64, copy=True))
    facts = {"device": platform.processor() or platform.machine(), "parameters": None}
    if v.fusion == "logistic":
        if v.uses_genes:
            x, strength = study.expression.level, 1e-3
        else:
            x, strength = baselines.colour(study.bags(fold), study.tile_masks), 1.0
        probs = baselines.logistic(x[train], labels[train].numpy(), x[evaluated], strength)
    else:
        fabric = make_fabric(p)
        inputs, genes = inputs_of(study, v, fold)
        torch.manual_seed(1000 * p.seed + fold + 1)  # after the inputs: making them must not move the generator
        encoder = None
        if fabric.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if v.is_trained_end_to_end:
            encoder, channels = pruned_encoder(study, v, fold, train, fabric)
            if channels is not None:
                channels.to_csv(folder / "apoz.csv", index_label="channel")
            facts["backbone_parameters"] = backbone.parameters(encoder)
        model = build(study, v, genes, encoder, inputs.tiles.shape[-1] if v.uses_slides else 0)
        facts["parameters"] = backbone.parameters(model)
        fitted, history = fit(fabric, model, inputs, labels, train, p, p.augment and v.is_trained_end_to_end)
        probs, attention = predict(fabric, fitted, inputs, evaluated, p.batch_size)
        if fold < 0:  # of the test patients, on the very pass that predicts them
            np.savez(folder / "attention.npz", **attention)
        save_file({k: t.contiguous().cpu() for k, t in model.state_dict().items()}, folder / "model.safetensors")
        pd.DataFrame({"loss": history}).to_csv(folder / "history.csv", index_label="epoch")
        if fabric.device.type == "cuda":
            facts["device"] = torch.cuda.get_device_name(fabric.device)
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


def load_model(study, v, fold: int, folder: Path, fabric: Fabric) -> tuple[nn.Module, Inputs]:
    """A trained model of a finished training's folder, set up on the device, with the inputs it reads."""
    p = study.p
    inputs, genes = inputs_of(study, v, fold)
    encoder = None
    if v.is_trained_end_to_end:
        encoder = backbone.TileEncoder(v.backbone, "random")
        if v.backbone == "reduced":
            backbone.prune(encoder, torch.arange(p.kept_channels))
    model = build(study, v, genes, encoder, inputs.tiles.shape[-1] if v.uses_slides else 0)
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return fabric.setup(model), inputs
