"""The tokens a trained model reads, so that each can be left out, and the scores by which they can be ranked.

A tile is left out by the mask that padding has: nothing attends to it. A gene set has no such mask; its token is
replaced by its mean over the training patients.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmmil import paper
from mmmil import variants as variant_table
from mmmil.models.reading import reading_layers
from mmmil.training import build, runs
from mmmil.training import device as training_device
from mmmil.training.fit import Inputs, joined

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from mmmil.study import Study

OVER = {"tiles": "_image", "sets": "_genes"}  # tokens, and how the names of attention over them end
AT_ONCE = 64  # bags in one pass


class AttributionError(ValueError):
    """A model has no such tokens; says what it reads."""


def variants(study: Study) -> list[str]:
    """The proposed models that a task has trained: multimodal where it has both modalities, else of the one it has.

    Left out are those of which a training failed in the batch.
    """
    standing = runs.standing(study, variant_table.all_proposed(study.p))
    kind = next((models for models in paper.PROPOSED.values() if standing and standing[0] in models), ())
    return [name for name in standing if name in kind]


def kinds(name: str) -> list[str]:
    """Tokens that a variant reads and that can be left out one by one: of tiles and sets."""
    v = variant_table.variant(name)
    return ["tiles"] * v.uses_slides + ["sets"] * v.uses_gene_sets


@dataclass(frozen=True)
class Tokens:
    """What a trained model's aggregator reads of a fold's evaluated patients, so that tokens can be left out.

    image: (P, N, C) or None; real: (P, N) bool, tiles that are no padding; genes: (P, S, D) or None; neutral: (S, D),
    the mean gene token of the training patients; patients, labels: (P,).
    """

    fabric: Fabric
    aggregator: torch.nn.Module
    patients: list[str]
    labels: np.ndarray
    image: Tensor | None
    real: Tensor | None
    genes: Tensor | None
    neutral: Tensor | None

    def number(self, over: str) -> np.ndarray:
        """Tokens of each patient, (P,)."""
        if over == "tiles":
            return self.real.sum(1).cpu().numpy()
        return np.full(len(self.patients), self.genes.shape[1])

    def run(self, which: Tensor, tiles: Tensor | None = None, sets: Tensor | None = None) -> tuple:
        """Logits (M, 2) and attention of patients `which` (M,) with the tokens that are True in tiles (M, N) or sets
        (M, S) only; None: all."""
        image, mask = (None, None) if self.image is None else (self.image[which], self.real[which])
        genes = None if self.genes is None else self.genes[which]
        if tiles is not None:
            mask = mask & tiles
        if sets is not None:
            genes = torch.where(sets[..., None], genes, self.neutral)
        if mask is not None and mask.all():
            mask = None  # as in training: the road without padding
        # What is left out leaves its place empty, where the model can be told of places.
        has_places = tiles is not None and "places" in inspect.signature(self.aggregator.forward).parameters
        with self.fabric.autocast():
            logits, att = self.aggregator(image, genes, mask, **({"places": self.real[which]} if has_places else {}))
        return logits.float(), att

    @torch.no_grad()
    def prob(self, which: np.ndarray, over: str = "", keep: np.ndarray | None = None) -> np.ndarray:
        """Probability of class 1, (M,), of patients `which` (M,) with the tokens `keep` (M, n) only, or with all."""
        device, probs = self.fabric.device, []
        for part in np.array_split(np.arange(len(which)), max(1, -(-len(which) // AT_ONCE))):
            kept = {} if keep is None else {over: torch.from_numpy(keep[part]).to(device)}
            probs.append(self.run(torch.from_numpy(which[part]).to(device), **kept)[0].double().softmax(-1)[:, 1])
        return torch.cat(probs).cpu().numpy()


def tokens(study: Study, name: str, fold: int = -1, over: str | None = None, seed: int | None = None) -> Tokens:
    """Tokens of a variant's kept model on the patients that its fold evaluates (-1: the test set).

    seed: of the training, where it is not the study's.

    Raises AttributionError where the model has no tokens of the kind `over` ('tiles' or 'sets').
    """
    v, p = variant_table.variant(name), study.p
    if over and over not in kinds(name):
        raise AttributionError(f"{name} reads no {over}: nothing can be left out of them (task inputs: {p.inputs})")
    fabric = training_device.make_fabric(p)
    model, inputs = build.load_model(study, v, fold, runs.run(study, name, fold, seed), fabric)
    model.eval()
    bag_model = model.module
    train, evaluated = study.fold_patients(fold)

    @torch.no_grad()
    def encode(read: Inputs, patients: list[str]) -> tuple[Tensor | None, Tensor | None]:
        """Tokens of tiles (P, N, C), smaller bags padded with zeros, and of gene sets (P, S, D)."""
        image, genes = [], []
        for part in torch.tensor([study.patients.index(i) for i in patients]).split(p.batch_size):
            given = fabric.to_device(read.take(part))
            with fabric.autocast():
                if read.tiles is not None:
                    image.append(bag_model.image_tokens(given["tiles"], given.get("mask")).float().mT)
                if read.genes is not None:
                    genes.append(bag_model.gene_tokens(given["genes"]).float())
        return joined(image).mT.contiguous() if image else None, torch.cat(genes) if genes else None

    image, genes = encode(inputs, evaluated)
    real = None
    if image is not None:
        real = inputs.real([study.patients.index(i) for i in evaluated])
        real = torch.ones(image.shape[:2], dtype=torch.bool) if real is None else real
        real = real.to(image.device)
    neutral = encode(replace(inputs, tiles=None), train)[1].mean(0) if v.uses_genes else None
    labels = study.labels.loc[evaluated].to_numpy()
    return Tokens(fabric, bag_model.aggregator, evaluated, labels, image, real, genes, neutral)


def rankings(t: Tokens, over: str, towards: int | None = None) -> dict[str, np.ndarray]:
    """Scores (P, n) by which tokens can be ranked: each attention over them (mean of the heads), and `gradient`.

    gradient is input x gradient, summed over a token's length: of the logit of the class that is called (or of class
    `towards`) less the other's, the input counted from zero for tiles and from `neutral` for gene sets. Padding
    is -inf.
    """
    by_source: dict[str, list] = {}
    field, zero = ("image", 0) if over == "tiles" else ("genes", t.neutral)
    for which in torch.arange(len(t.patients), device=t.fabric.device).split(8):
        read = getattr(t, field)[which].clone().requires_grad_()
        held = {name: getattr(t, name) for name in ("image", "real", "genes")}
        batch = {name: None if values is None else values[which] for name, values in held.items()}
        part = replace(t, **batch | {field: read})
        with reading_layers(t.aggregator, [OVER[over].removeprefix("_")]) as layers:
            logits, att = part.run(torch.arange(len(which), device=which.device))
        sign = torch.where(logits[:, 1] >= logits[:, 0], 1, -1) if towards is None else 2 * towards - 1
        gradient = torch.autograd.grad(((logits[:, 1] - logits[:, 0]) * sign).sum(), read)[0]
        values = {name: a.float().mean(1) for name, a in (att | layers).items() if name.endswith(OVER[over])}
        values["gradient"] = (gradient * (read - zero)).sum(-1)
        for name, value in values.items():
            by_source.setdefault(name, []).append(value.detach().cpu())
    scores = {name: torch.cat(parts).double().numpy() for name, parts in by_source.items()}
    if over == "tiles":
        scores = {name: np.where(t.real.cpu().numpy(), value, -np.inf) for name, value in scores.items()}
    return scores


def whole(t: Tokens) -> np.ndarray:
    """Probability of class 1 of every patient with all tokens, (P,)."""
    return t.prob(np.arange(len(t.patients)))


def alone(t: Tokens) -> np.ndarray:
    """Probability of class 1 (P, N) with one tile at a time; -inf for padding."""
    shape = t.real.shape
    patient, tile = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    keep = tile[:, None] == np.arange(shape[1])
    return np.where(t.real.cpu().numpy(), t.prob(patient, "tiles", keep).reshape(shape), -np.inf)
