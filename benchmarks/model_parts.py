"""What each part of the model is worth on real patients, by inner folds of the training patients.

    MMMIL_REAL_DATA=... python benchmarks/model_parts.py                      glioma, about an hour of one core
    MMMIL_REAL_DATA=... python benchmarks/model_parts.py --jobs 16            the same on sixteen
    MMMIL_REAL_DATA=... python benchmarks/model_parts.py --folds 0 --quick    a look

Every figure is from patients who train the outer fold's model: they are split in three once more, and neither the outer
fold's own patients nor the held-out test set are predicted. So what is chosen by this table is chosen without the test
set. But a patient whom one outer fold reports trains the others, so the book's cross-validation is flattered by one
choice among so many rows; `tuning` chooses for each fold alone. The gene sets and the autoencoder were fitted on all
training patients of the outer fold, the inner fold's included, which flatters models and regressions on gene tokens
alike. Each row changes one thing
of the first one; both are of the same trainings, and the difference has the standard error of the mean over inner
folds. Writes benchmarks/results/model_parts.md.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from torch import nn
from tqdm import tqdm

from mmmil import params, record, study, variants
from mmmil.models import baselines
from mmmil.models.attention import GatedAttention
from mmmil.models.fusion import MultimodalMIL
from mmmil.training import build, device, fit
from mmmil.training.inputs import inputs_of

INNER = 3
MODELS = ("wsi", "go", "dual_go")
Change = Callable[[nn.Module], None]


class GatedReadout(nn.Module):
    """Beside the class token, each modality's encoded tokens pooled by gated attention (Ilse et al. 2018)."""

    def __init__(self, inner: MultimodalMIL, width: int):
        super().__init__()
        self.inner = inner
        self.pools = nn.ModuleDict({name: GatedAttention(width, width // 2) for name in ("image", "genes")})
        self.read = nn.Linear(2 * width, 2)

    def forward(self, tiles, genes, mask=None):
        logits, att = self.inner(tiles, genes, mask)
        tokens = self.inner.encode(tiles, genes, mask).tokens
        pooled = [
            self.pools[name](tokens[name], mask if name == "image" else None)[0]
            if name in tokens
            else logits.new_zeros(len(logits), self.read.in_features // 2)
            for name in self.pools
        ]
        return logits + self.read(torch.cat(pooled, -1)), att


class FewerInstances(nn.Module):
    """Half of every bag's instances are left out while training."""

    def __init__(self, inner: MultimodalMIL):
        super().__init__()
        self.inner = inner

    def forward(self, tiles, genes, mask=None):
        if self.training and tiles is not None:
            real = torch.ones(tiles.shape[:2], dtype=torch.bool) if mask is None else mask
            kept = real & (torch.rand(real.shape) < 0.5)
            mask = torch.where(kept.any(1, keepdim=True), kept, real)
        return self.inner(tiles, genes, mask)


def gated(model: nn.Module) -> None:
    width = model.aggregator.classifier[-1].in_features // {"image": 1, "genes": 1, "dual": 4}[model.aggregator.fusion]
    model.aggregator = GatedReadout(model.aggregator, width)


def fewer(model: nn.Module) -> None:
    model.aggregator = FewerInstances(model.aggregator)


def unscaled(model: nn.Module) -> None:
    """Tokens as they come: nothing is measured."""
    for scale in (model.image_scale, model.gene_scale):
        if scale is not None:
            scale.mean.zero_(), scale.deviation.fill_(1)


def from_nothing(model: nn.Module) -> None:
    """The skip starts without the regressions, the classifier as PyTorch makes it."""
    model.aggregator.linear_skip.start(torch.zeros(model.aggregator.linear_skip.linear.in_features), 0.0)
    model.aggregator.classifier[-1].reset_parameters()


def not_trained(model: nn.Module) -> None:
    """The regressions stay as they were fitted; the encoders learn beside them."""
    model.aggregator.linear_skip.requires_grad_(False)


# What is tried: settings that differ from the task's own, a change of the model, seeds of which the mean is taken.
TRIED: dict[str, tuple[dict[str, Any], Change | None, int]] = {
    "**ours, as the parameter file says**": ({}, None, 1),
    "ours, another seed": ({"seed": 1}, None, 1),
    "without the linear skip, learning rate 5e-4": ({"lr": 5e-4, "linear_skip": False}, None, 1),
    "the skip starts from nothing, learning rate 5e-4": ({"lr": 5e-4}, from_nothing, 1),
    "the skip is not trained": ({}, not_trained, 1),
    "learning rate 3e-4": ({"lr": 3e-4}, None, 1),
    "learning rate 1e-3": ({"lr": 1e-3}, None, 1),
    "mean of three seeds": ({}, None, 3),
    "without the linear skip": ({"linear_skip": False}, None, 1),
    "the skip starts from nothing": ({}, from_nothing, 1),
    "image features not standardised": ({}, unscaled, 1),
    "twice the epochs": ({"epochs": 30}, None, 1),
    "weight decay 0.3": ({"weight_decay": 0.3}, None, 1),
    "dropout 0.1 in the encoders": ({"dropout": 0.1}, None, 1),
    "no value of gene tokens dropped": ({"gene_dropout": 0.0}, None, 1),
    "0.3 of the values of gene tokens dropped": ({"gene_dropout": 0.3}, None, 1),
    "width 48": ({"width": 48}, None, 1),
    "no embedding of the set": ({"set_embedding": False}, None, 1),
    "half of the instances left out while training": ({}, fewer, 1),
    "gated readout beside the class token": ({}, gated, 1),
}


def inner_folds(s: study.Study, fold: int) -> list[tuple[list[int], list[int]]]:
    """(trained on, predicted) of each inner fold: positions of the outer fold's training patients."""
    train = np.array([s.patients.index(i) for i in s.fold_patients(fold)[0]])
    labels = s.labels.to_numpy()[train]
    parts = StratifiedKFold(INNER, shuffle=True, random_state=s.p.seed).split(train, labels)
    return [(train[a].tolist(), train[b].tolist()) for a, b in parts]


def model_aucs(s: study.Study, name: str, folds: list[int], tried: tuple[dict[str, Any], Change | None, int]) -> list:
    """ROC-AUC of each inner fold of each outer one."""
    settings, change, seeds = tried
    p, v, aucs = s.p.override(**settings), variants.variant(name), []
    fabric, labels = device.make_fabric(p), torch.from_numpy(s.labels.to_numpy(np.int64, copy=True))
    for fold in folds:
        inputs, genes = inputs_of(s, v, fold)
        for train, held in inner_folds(s, fold):
            probs = []
            for seed in range(seeds):
                torch.manual_seed(build.start_seed(p, fold) + 1000 * seed)
                model = build.build(p, v, genes, None, inputs.image_dim, inputs.positions)
                build.measure_scale(model, p, inputs, train)
                if change is unscaled:  # the regressions are of the tokens as they come
                    change(model)
                build.start_skip(model, inputs, labels, train)
                if change is not None:
                    change(model)
                model, _ = fit.fit(fabric, model, inputs, labels, train, p)
                probs.append(fit.predict(fabric, model, inputs, held, p.batch_size)[0])
            aucs.append(roc_auc_score(labels[held], np.mean(probs, axis=0)))
    return aucs


def linear_aucs(s: study.Study, name: str, folds: list[int]) -> list:
    """The same of logistic regression on the mean instance, on all gene tokens, or of their late fusion."""
    v, labels, aucs = variants.variant(name), s.labels.to_numpy(), []
    for fold in folds:
        read = []
        if v.uses_slides:
            read.append((s.features(v.encoder(s.p)).means(), baselines.FEATURES))
        if v.uses_genes:
            tokens = inputs_of(s, v, fold)[0].genes.flatten(1).numpy()
            read.append((np.nan_to_num(tokens), baselines.GENES))  # patients outside the fold, who are not asked
        for train, held in inner_folds(s, fold):
            aucs.append(roc_auc_score(labels[held], baselines.late_fusion(read, train, labels[train], held)))
    return aucs


@functools.lru_cache(maxsize=1)
def loaded(task: str) -> study.Study:
    return study.load(params.load(task))


def one(task: str, quick: bool, asked: tuple[str, str, int]) -> list:
    """ROC-AUC of the inner folds of one row, model and outer fold."""
    said, name, fold = asked
    settings, change, seeds = TRIED[said]
    return model_aucs(loaded(task), name, [fold], (settings | ({"epochs": 1} if quick else {}), change, seeds))


def cell(values: list, reference: list | None) -> str:
    mean = f"{np.mean(values):.3f}"
    if reference is None:
        return mean
    difference = np.subtract(values, reference)
    return f"{mean} ({difference.mean():+.3f} ± {difference.std(ddof=1) / len(difference) ** 0.5:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="real_lgg")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="processes, a row and fold each")
    parser.add_argument("--rows", type=int, default=len(TRIED), help="the first so many")
    parser.add_argument("--quick", action="store_true", help="two rows, one epoch")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    s, start = study.load(params.load(given.task)), time.monotonic()
    for name, fold in itertools.product(MODELS, given.folds):
        inputs_of(s, variants.variant(name), fold)  # made once, before the processes ask for it
    rows = dict(list(TRIED.items())[: 2 if given.quick else given.rows])
    lines = ["| | images | genes | both |", "| --- | --- | --- | --- |"]
    linear = {name: linear_aucs(s, name, given.folds) for name in MODELS}
    lines.append("| logistic regression | " + " | ".join(cell(linear[name], None) for name in MODELS) + " |")
    every = [(said, name, fold) for said in rows for name in MODELS for fold in given.folds]
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        told = pool.imap(functools.partial(one, given.task, given.quick), every)
        aucs = dict(zip(every, tqdm(told, desc="rows", total=len(every)), strict=True))
    found = {
        said: {name: [auc for fold in given.folds for auc in aucs[said, name, fold]] for name in MODELS}
        for said in rows
    }
    reference = found[next(iter(rows))]
    for said in rows:
        compared = reference if found[said] is not reference else {}
        lines.append(f"| {said} | " + " | ".join(cell(found[said][n], compared.get(n)) for n in MODELS) + " |")
    print("\n".join(lines))
    made_on = record.made_on("torch", "gseapy", "scikit-learn", "numpy")
    head = [
        "# What each part of the model is worth",
        "",
        f"{s.p.title}: {len(s.patients)} patients. Mean ROC-AUC of {INNER} inner folds of outer folds "
        f"{', '.join(map(str, given.folds))}, n = {INNER * len(given.folds)}; in brackets the difference to the bold "
        "row on the same patients and its standard error. Inner folds share patients, so the error is somewhat too "
        "small. Every patient trains the outer fold's model; the held-out test set is not in it.",
        "",
        f"Made by `python {shlex.join(sys.argv)}`, {made_on}; {(time.monotonic() - start) / 60:.0f} minutes.",
        "",
    ]
    path = given.out / "model_parts.md"
    record.write_atomically(path, lambda temporary: temporary.write_text("\n".join([*head, *lines, ""])))
    print(path)


if __name__ == "__main__":
    main()
