"""The settings of a training chosen on inner folds of its own training patients (Experimental Setup tunes, and does
not say what).

Nested: who is reported is in no inner fold. Every variant, fold and seed chooses among the same candidates, so that all
have the same budget, and every candidate is trained with a schedule for its own number of epochs. The choice goes by
the log loss, pooled over the inner folds, in which each training patient is held out once: it weighs every probability,
where the AUC of a few dozen patients moves in steps and cannot tell most candidates apart. It is weighted as the
training's loss is. The table has the AUC beside it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from mmmil import record
from mmmil.models.bag_model import BagModel
from mmmil.params import Params
from mmmil.training import fit
from mmmil.training.fit import Inputs, TrainingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Setting -> the values that candidates are drawn from; of epochs, multiples of the setting.
SPACE: dict[str, tuple[float, ...]] = {
    "lr": (1e-4, 3e-4, 1e-3),
    "weight_decay": (1e-2, 1e-1, 1.0),
    "dropout": (0.1, 0.3, 0.5),
    "gene_dropout": (0.0, 0.3, 0.6),
    "epochs": (0.5, 1, 2),
}
# Two trainings' time a candidate, as each is fitted on two thirds of the patients; a fifth held out would take 0.8 of
# one, and judge by a fifth of the patients.
INNER_FOLDS = 3


def candidates(p: Params) -> list[Params]:
    """`p.tuning` different candidates: the settings themselves, then what is drawn from SPACE, the same for all."""
    given = {name: getattr(p, name) for name in SPACE}
    every = [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]
    drawn = [every[i] for i in np.random.default_rng(0).permutation(len(every))]
    own = [values | {"epochs": math.ceil(values["epochs"] * p.epochs)} for values in drawn]
    return [p.override(**values) for values in [given, *(v for v in own if v != given)][: p.tuning]]


def inner_folds(
    p: Params, train: list[int], labels: np.ndarray, groups: np.ndarray | None
) -> list[tuple[list[int], list[int]]]:
    """(fitted, held) of each inner fold, stratified; labels, groups (P,): of all patients; a group is never divided.

    Raises TrainingError where one of them would lack a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    which, folder = np.array(train), StratifiedKFold if groups is None else StratifiedGroupKFold
    folds: list[tuple[list[int], list[int]]] = []
    if np.bincount(labels[which], minlength=2).min() >= INNER_FOLDS:
        parts = folder(INNER_FOLDS, shuffle=True, random_state=p.seed)
        dealt = parts.split(which, labels[which], None if groups is None else groups[which])
        folds = [(which[fitted].tolist(), which[held].tolist()) for fitted, held in dealt]
    if not folds or any(len(np.unique(labels[part])) < 2 for fold in folds for part in fold):
        what = "" if groups is None else " and whole sites"
        raise TrainingError(
            f"{len(train)} training patients cannot be dealt into {INNER_FOLDS} inner folds of both classes{what}; "
            "set tuning: 0"
        )
    return folds


def choose(
    p: Params,
    fabric: Fabric,
    start: Callable[[Params, list[int]], BagModel],
    inputs: Inputs,
    labels: torch.Tensor,
    train: list[int],
    groups: np.ndarray | None,
    augment: bool,
    checkpoint: Path | None = None,
) -> tuple[Params, pd.DataFrame]:
    """The parameters to train with, and a row per candidate: its values of SPACE, log_loss, roc_auc, chosen.

    start: the untrained model of some parameters, whose statistics are of the patients given; labels (P,), groups (P,)
    or None: of all patients of the inputs; roc_auc: mean over the inner folds. What is done is kept beside the
    checkpoint, so that an interrupted choice goes on; the caller removes it.
    """
    from sklearn import metrics

    tried, targets = candidates(p), labels.numpy()
    folds = inner_folds(p, train, targets, groups)
    done = checkpoint and checkpoint.with_suffix(".tuning" + checkpoint.suffix)
    probs: list[list[float]] = json.loads(done.read_text()) if done and done.is_file() else []
    for number, (candidate, (fitted, held)) in enumerate(itertools.product(tried, folds)):
        if number < len(probs):
            continue
        beside = checkpoint and checkpoint.with_suffix(f".inner_{number}{checkpoint.suffix}")
        model, _ = fit.fit(
            fabric, start(candidate, fitted), inputs, labels, fitted, candidate, augment, checkpoint=beside
        )
        probs.append(fit.predict(fabric, model, inputs, held, p.batch_size, layers=False)[0].tolist())
        if done and not fabric.global_rank:
            record.write_atomically(done, lambda path: path.write_text(json.dumps(probs)))
        if beside:
            beside.unlink(missing_ok=True)
    held_out = [held for _, held in folds]
    label = targets[np.concatenate(held_out)]
    weights = len(label) / (2 * np.bincount(label))[label] if p.class_weights else None
    rows = []
    for number, candidate in enumerate(tried):
        of_folds = probs[number * len(folds) : (number + 1) * len(folds)]
        aucs = [metrics.roc_auc_score(targets[held], prob) for held, prob in zip(held_out, of_folds, strict=True)]
        loss = metrics.log_loss(label, np.concatenate(of_folds), sample_weight=weights)
        values = {name: getattr(candidate, name) for name in SPACE}
        rows.append(values | {"log_loss": loss, "roc_auc": np.mean(aucs)})
    table = pd.DataFrame(rows)
    best = int(table["log_loss"].idxmin())
    return tried[best], table.assign(chosen=table.index == best)
