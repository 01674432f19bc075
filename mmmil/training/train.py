"""Training of one variant on one fold: its inputs, its model, its predictions (Experimental Setup)."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from mmmil.models import backbone, baselines
from mmmil.models.bag_model import BagModel
from mmmil.params import Params
from mmmil.slides import packed
from mmmil.training import device, fit, tuning
from mmmil.training.build import build, measure_scale, start_seed, start_skip, tile_encoder
from mmmil.training.device import make_fabric
from mmmil.training.fit import predict
from mmmil.training.inputs import inputs_of
from mmmil.variants import Variant

if TYPE_CHECKING:
    from mmmil.study import Study


def train(
    study: Study,
    v: Variant,
    fold: int,
    folder: Path,
    checkpoint: Path | None = None,
    seed: int | None = None,
    labels: pd.Series | None = None,
) -> dict:
    """Train a variant on a fold's training patients, predict the evaluated ones, and write both into `folder`.

    checkpoint: a file from which an interrupted training goes on; seed, labels (patient -> 0/1): of this training
    alone, where they are not the study's. Returns facts for run.json.
    """
    p = study.p if seed is None else study.p.override(seed=seed)
    train_ids, evaluated_ids = study.fold_patients(fold)
    position = {patient: i for i, patient in enumerate(study.patients)}
    train, evaluated = [position[i] for i in train_ids], [position[i] for i in evaluated_ids]
    own_labels = study.labels if labels is None else labels.loc[study.patients]
    targets = torch.from_numpy(own_labels.to_numpy(np.int64, copy=True))
    facts: dict = {"parameters": None}
    if v.fusion == "logistic":
        facts["device"] = platform.processor() or platform.machine()
        probs = _baseline(study, v, fold, train, targets[train].numpy(), evaluated)
    else:
        fabric = make_fabric(p)
        inputs, genes = inputs_of(study, v, fold)
        if fabric.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

        def start(p: Params, train: list[int]) -> BagModel:
            """The model before its first step: the same one whenever the same is asked for."""
            torch.manual_seed(start_seed(p, fold))  # after the inputs: making them must not move the generator
            encoder = None
            if v.is_trained_end_to_end(p):
                encoder, channels = tile_encoder(p, v, study.bags(fold), study.tile_masks, train, fabric)
                if channels is not None:
                    channels.to_csv(folder / "apoz.csv", index_label="channel")
                facts["backbone_parameters"] = backbone.parameters(encoder)
            model = build(p, v, genes, encoder, inputs.image_dim, inputs.positions)
            measure_scale(model, p, inputs, train)
            start_skip(model, inputs, targets, train)
            return model

        augment = p.augment and v.is_trained_end_to_end(p)
        inputs = fit.on_device(fabric, inputs, [*train, *evaluated])
        if p.tuning:
            sites = study.cohort.patients["site"].to_numpy() if p.fold_groups == "site" else None
            p, tried = tuning.choose(p, fabric, start, inputs, targets, train, sites, augment, checkpoint)
            tried.to_csv(folder / "tuning.csv", index_label="candidate")
            facts["tuned"] = {name: getattr(p, name) for name in tuning.SPACE}
        model = start(p, train)
        facts |= device.circumstances(p) | {"parameters": backbone.parameters(model), "epochs": p.epochs}
        fitted, history = fit.fit(fabric, model, inputs, targets, train, p, augment, checkpoint=checkpoint)
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
            "label": targets[evaluated].numpy(),
            "prob": probs,
        }
    )
    table.to_parquet(folder / "predictions.parquet", index=False)
    return facts


def _baseline(
    study: Study, v: Variant, fold: int, train: list[int], labels: np.ndarray, evaluated: list[int]
) -> np.ndarray:
    """Probability of class 1 of the evaluated patients by logistic regression on genes, on image features (the mean
    of those that the task brings, else the colours of the tiles), or by the late fusion of the two.
    """
    inputs, used = [], [*train, *evaluated]  # nobody else's tiles are read

    def of_all(values: np.ndarray) -> np.ndarray:
        x = np.full((len(study.patients), values.shape[1]), np.nan, values.dtype)
        x[used] = values
        return x

    if v.uses_slides and v.reads_features(study.p):
        inputs.append((of_all(study.features(v.encoder(study.p)).means(used)), baselines.FEATURES))
    elif v.uses_slides:
        pixels, masks = packed.each(study.bags(fold), used), study.tile_masks[used]
        inputs.append((of_all(baselines.colour(pixels, masks)), baselines.COLOUR))
    if v.uses_genes:
        inputs.append((study.expression.level, baselines.GENES))
    if len(inputs) > 1:
        return baselines.late_fusion(inputs, train, labels, evaluated)
    [(x, strength)] = inputs
    return baselines.logistic(x[train], labels, x[evaluated], strength)
