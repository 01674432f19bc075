"""Attention of the final model over the test patients, by gene set and by tile (Gene Set-Level Analysis).

One interface for every variant that has attention. A source says who attends to what: self_image and self_genes are
an encoder's class token over its own tokens in its last layer (gated pooling for CLAM and MCAT), layer1_* the same in
the first layer and rollout_* over both, cross_genes the image's summary over gene sets, cross_image the genes' summary
over tiles (in MCAT the mean of co_attention, every gene set over tiles).
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from mmmil import record, variants
from mmmil.interpretation.hooks import AttentionError
from mmmil.training import runs

if TYPE_CHECKING:
    from mmmil.study import Study
    from mmmil.variants import Variant

# A prediction is made again with the same weights, inputs and batches; this is what may differ.
TOLERANCE = 1e-6
ELSEWHERE = 0.02  # on another device, or in another precision: bf16 keeps three digits, and the layers add up

Heads = Literal["mean", "each"]
Form = Literal["weights", "scores"]


@dataclass(frozen=True)
class Attention:
    """Attention over the tokens of the test patients.

    weights: source -> (patients, N), over gene sets where its name ends with _genes, over tiles for the others; with
    heads 'each' (patients, H, N), H = 1 for a rollout, which averages over heads by its definition. N is that of the
    largest bag; a smaller one is padded at its end. In the form 'weights' a row sums to one over the tokens and is 0
    at padding; in the form 'scores' it is what the softmax is taken of, NaN at padding. prob: (patients,) as predicted
    on the same pass;
    sets: names of the gene sets.
    """

    variant: str
    patients: list[str]
    labels: np.ndarray
    prob: np.ndarray
    sets: list[str]
    weights: dict[str, np.ndarray]
    heads: Heads = "mean"
    form: Form = "weights"

    def over_sets(self, source: str, head: int | None = None) -> pd.DataFrame:
        """The paper's table: one row per patient, one column per gene set; of one head where heads are apart."""
        values = self.weights[source] if head is None else self.weights[source][:, head]
        if values.ndim != 2:
            raise ValueError(f"{source} is kept by head; say which of {values.shape[1]}, or extract with heads='mean'")
        return pd.DataFrame(values, index=self.patients, columns=self.sets)


def over_tokens(rows: np.ndarray) -> np.ndarray:
    """Rows of attention (..., N) divided by their sum, so that they are shares of the tokens.

    The class token also attends to itself; that part is left out, and what is left says how the tokens share the rest.
    Nyström's approximation may give single tokens a negative weight; it is kept, for the model adds the token with
    that very weight. Raises AttentionError where a row has no positive sum, which has no share to speak of.
    """
    total = rows.sum(-1, keepdims=True)
    if not (total > 0).all():
        raise AttentionError(
            f"{int((~(total > 0)).sum())} rows of attention over the tokens have a sum that is not positive: Nyström's "
            "approximation fails here; raise landmarks, or train with attention: exact"
        )
    return rows / total


def extract(
    study: Study,
    name: str,
    heads: Heads = "mean",
    form: Form = "weights",
    anew: bool = False,
    labels: pd.Series | None = None,
) -> Attention:
    """Attention of a variant's final model over the held-out test patients.

    heads: 'mean' over them, each counted by what it gives to tokens, or 'each'; form: 'weights' after the softmax, or
    'scores' before it, which a rollout does not have; labels: patient -> 0/1 that the model was trained on, where they
    are not the study's.

    Averaged weights were kept when the model predicted these patients. Everything else, and these
    too with `anew`, is read from the kept model, which predicts them once more. Raises AttentionError where that
    prediction is not the record's within 1e-6 (0.02 on another device than the training's, of which it warns), and for
    what the variant does not have.
    """
    for value, known in ((heads, Heads), (form, Form)):
        if value not in get_args(known):
            raise ValueError(f"{value!r} is not one of {', '.join(get_args(known))}")
    v = variants.variant(name)
    if v.fusion == "logistic":
        raise AttentionError(f"{name} is logistic regression, which has no attention")
    folder = runs.run(study, name, -1, labels=labels)
    predicted = record.read_parquet(folder / "predictions.parquet")
    ids, classes, prob = (predicted[column].to_numpy() for column in ("patient_id", "label", "prob"))
    if (heads, form) == ("mean", "weights") and not anew:
        with np.load(folder / "attention.npz") as kept:
            weights = dict(kept)
    else:
        weights, prob = _again(study, v, folder, ids, prob, heads, form)
    if heads == "mean":  # MCAT's has gene sets in place of heads, and their mean is cross_image
        weights.pop("co_attention", None)
    if form == "weights":
        weights = {source: over_tokens(rows) for source, rows in weights.items()}
    sets = study.gene_tokens(-1, v.genes).names if v.uses_genes else []
    return Attention(name, list(ids), classes, prob, sets, weights, heads, form)


def _again(
    study: Study,
    v: Variant,
    folder: Path,
    ids: np.ndarray,
    recorded: np.ndarray,
    heads: Heads,
    form: Form,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Attention from the kept model, source -> (patients, [H,] N), and the probabilities of that pass."""

    from mmmil.interpretation import hooks
    from mmmil.training import build, device, fit

    fabric = device.make_fabric(study.p)
    model, inputs = build.load_model(study, v, -1, folder, fabric)
    which = [study.patients.index(patient) for patient in ids]
    aggregator = model.module.aggregator
    reading: AbstractContextManager = hooks.reading_scores(aggregator) if form == "scores" else nullcontext({})
    with reading as kept:
        prob, by_head = fit.predict(
            fabric, model, inputs, which, study.p.batch_size, heads="each", layers=form == "weights"
        )
    require_recorded(v.name, list(ids), prob, recorded, record.run_json(folder)["facts"], device.circumstances(study.p))
    if not kept:
        return {k: rows.mean(1) for k, rows in by_head.items()} if heads == "mean" else by_head, prob
    weights = {source: fit.joined(parts).numpy() for source, parts in kept.items()}
    real = inputs.real(which)
    for source, scores in weights.items():
        if real is not None and not source.endswith("_genes"):
            scores[np.broadcast_to(~real.numpy()[:, None], scores.shape)] = np.nan
    return {k: scores.mean(1) for k, scores in weights.items()} if heads == "mean" else weights, prob


def require_recorded(
    name: str, patients: list[str], prob: np.ndarray, recorded: np.ndarray, trained: dict, now: dict
) -> None:
    """Raise AttentionError where probabilities (patients,) are not the record's.

    trained, now: device and precision of the training, and of these probabilities. Where they are the same, 1e-6 may
    differ; elsewhere other kernels round otherwise, 0.02 may differ, and a warning says how much does.
    """
    same = all(trained.get(key) == value for key, value in now.items())
    off, tolerance = np.abs(prob - recorded), TOLERANCE if same else ELSEWHERE
    worst = int(np.argmax(off))
    here, there = (f"{run.get('device')} ({run.get('precision')})" for run in (now, trained))
    if not off[worst] <= tolerance:  # a NaN is no agreement either
        raise AttentionError(
            f"{name}: patient {patients[worst]} is predicted {prob[worst]:.6f} on {here} and recorded "
            f"{recorded[worst]:.6f}, trained on {there}: more than {tolerance:g} apart, so that this attention is not "
            "that of the record; read it where the model was trained, or train again here, into another results_dir"
        )
    if not same:
        warnings.warn(f"{name}: trained on {there}, read on {here}: probabilities differ by {off[worst]:.6f} at most")


def exemplars(attention: Attention, threshold: float = 0.5) -> list[int]:
    """Index of one patient per class, by rule: of those called rightly, the nearest to the median probability."""
    chosen = []
    for label in (0, 1):
        in_class = np.flatnonzero(attention.labels == label)
        right = in_class[(attention.prob[in_class] >= threshold) == label]
        pool = right if len(right) else in_class
        chosen.append(int(pool[np.argmin(np.abs(attention.prob[pool] - np.median(attention.prob[pool])))]))
    return chosen
