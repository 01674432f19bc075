"""What a trained model's own tokens give to models without attention, and what its prediction is without a modality.

Of every fold's kept model the tokens are read that its aggregator reads: those of tiles, and those of gene sets. Three
questions are put to them, each fitted on the fold's training patients alone and asked of the patients held out:

- trivial models: logistic regression on the mean tile token, on the gene tokens, the late fusion of the two, and a
  small multilayer perceptron on the means (mean pooling). What they reach, attention has not earned.
- one modality ablated: all its tokens replaced by their mean over the training patients. Such patients were never seen
  in training, so the model is asked outside its data; a model that does not change does not use the modality.
- the site, which a token should not tell (`evaluation.sites`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmmil import record, variants
from mmmil.evaluation import bootstrap, intervals
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.models import baselines
from mmmil.training import runs

if TYPE_CHECKING:
    from mmmil.study import Study

STRENGTHS = {"image": baselines.FEATURES, "genes": baselines.GENES}  # those that a model with a skip starts from
HIDDEN, PENALTY, STEPS = 32, 1.0, 300  # of the perceptron: width, L2, iterations at most
WHOLE = "the model itself"
NO_IMAGE, NO_GENES = "image tokens at their training mean", "gene tokens at their training mean"
ABLATED, TRIVIAL = "the model, and one modality ablated", "trivial models on its tokens"
MLP = "perceptron, mean tokens"
LOGISTIC = {"image": "logistic regression, mean tile token", "genes": "logistic regression, gene tokens"}
LATE = "late fusion of these two"
LEAST_OF_SITE = 5  # development patients: fewer cannot be held out in every fold
COLUMNS = ["roc_auc", "low", "high", "over_model", "over_low", "over_high", "patients"]


@dataclass(frozen=True)
class Tokens:
    """Of a fold's training and held-out patients, in this order: image (P, C), the mean of a patient's real tiles, and
    genes (P, S, D), as the aggregator reads them; None for a modality that the model does not read. train: how many of
    them trained it. ablated: condition -> probability of class 1 of the held-out patients.
    """

    patients: list[str]
    train: int
    image: np.ndarray | None
    genes: np.ndarray | None
    ablated: dict[str, np.ndarray]

    @property
    def flat(self) -> dict[str, np.ndarray]:
        """A patient's numbers (P, n) by modality, of those that there are."""
        genes = None if self.genes is None else self.genes.reshape(len(self.genes), -1)
        return {name: x for name, x in (("image", self.image), ("genes", genes)) if x is not None}


def read(study: Study, name: str, fold: int) -> Tokens:
    """Tokens of the kept model of a fold, and what it predicts with one modality ablated."""
    import torch

    from mmmil.models import fusion
    from mmmil.training import build, device

    p, fabric = study.p, device.make_fabric(study.p)
    model, inputs = build.load_model(study, variants.variant(name), fold, runs.run(study, name, fold), fabric)
    model.eval()
    bag_model: Any = model.module
    train, held_out = study.fold_patients(fold)
    place = {patient: i for i, patient in enumerate(study.patients)}

    def batches(patients: list[str]) -> Iterator[tuple[Any, Any, Any]]:
        for part in torch.tensor([place[i] for i in patients]).split(p.batch_size):
            given = fabric.to_device(inputs.take(part))
            mask = given.get("mask")
            with fabric.autocast():
                image = bag_model.image_tokens(given["tiles"], mask).float() if "tiles" in given else None
                genes = bag_model.gene_tokens(given["genes"]).float() if "genes" in given else None
            yield image, mask, genes

    def predicted(image: Any, mask: Any, genes: Any) -> np.ndarray:
        with fabric.autocast():
            output = bag_model.aggregator(image, genes, mask)
        logits = output if isinstance(output, torch.Tensor) else output[0]
        return logits.double().softmax(-1)[:, 1].cpu().numpy()

    images, sets, tiles = [], [], []
    probs: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for image, mask, genes in batches(train):
            if image is not None:
                images.append(fusion.mean_tile(image, mask).cpu().numpy())
                tiles.append((image.new_ones(image.shape[:2]) if mask is None else mask).sum(1).cpu().numpy())
            if genes is not None:
                sets.append(genes.cpu().numpy())
        # Over all tiles of the training patients, as the tokens' own scale was measured.
        mean_tile = np.average(np.concatenate(images), axis=0, weights=np.concatenate(tiles)) if images else None
        mean_sets = np.concatenate(sets).mean(0) if sets else None
        for image, mask, genes in batches(held_out):
            probs.setdefault(WHOLE, []).append(predicted(image, mask, genes))
            if image is not None and genes is not None:
                neutral_image = torch.from_numpy(mean_tile).to(image).expand_as(image)
                neutral_genes = torch.from_numpy(mean_sets).to(genes).expand_as(genes)
                probs.setdefault(NO_IMAGE, []).append(predicted(neutral_image, mask, genes))
                probs.setdefault(NO_GENES, []).append(predicted(image, mask, neutral_genes))
            if image is not None:
                images.append(fusion.mean_tile(image, mask).cpu().numpy())
            if genes is not None:
                sets.append(genes.cpu().numpy())
    return Tokens(
        [*train, *held_out],
        len(train),
        np.concatenate(images) if images else None,
        np.concatenate(sets) if sets else None,
        {condition: np.concatenate(parts) for condition, parts in probs.items()},
    )


def trivial(t: Tokens, y_train: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Probability of class 1 of the held-out patients by each trivial model; y_train (train,) 0/1."""
    flat, train, held_out = t.flat, range(t.train), range(t.train, len(t.patients))
    found = {
        LOGISTIC[name]: baselines.logistic(x[: t.train], y_train, x[t.train :], STRENGTHS[name])
        for name, x in flat.items()
    }
    if len(flat) > 1:
        inputs = [(x, STRENGTHS[name]) for name, x in flat.items()]
        found[LATE] = baselines.late_fusion(inputs, train, y_train, held_out)
    means = [x for x in (t.image, None if t.genes is None else t.genes.mean(1)) if x is not None]
    return found | {MLP: _perceptron(np.hstack(means), y_train, seed)}


def _perceptron(x: np.ndarray, y_train: np.ndarray, seed: int) -> np.ndarray:
    """Of x (P, n), whose first rows are the training patients: probability of class 1 of the others."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPClassifier((HIDDEN,), alpha=PENALTY, solver="lbfgs", max_iter=STEPS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are a limit on purpose
        model = make_pipeline(StandardScaler(), network).fit(x[: len(y_train)], y_train)
    return model.predict_proba(x[len(y_train) :])[:, 1]


def sites_of(t: Tokens, sites: pd.Series) -> dict[str, np.ndarray]:
    """Site of the held-out patients by a logistic regression of several classes on each modality's tokens, '' for
    those whose site was not asked for; sites: patient -> site, '' for patients left out.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    known = sites.reindex(t.patients).fillna("").to_numpy(str)
    train = np.flatnonzero(known[: t.train] != "")
    asked = t.train + np.flatnonzero(known[t.train :] != "")
    found = {}
    for name, x in t.flat.items():
        called = np.full(len(t.patients) - t.train, "", dtype=known.dtype)
        if len(set(known[train])) > 1 and len(asked):
            scaler = StandardScaler().fit(x[train])
            scaled = scaler.transform(x[train])
            # A penalised regression's weights lie in the span of its patients, so that as many numbers will do.
            _, _, span = np.linalg.svd(scaled, full_matrices=False)
            model = LogisticRegression(C=STRENGTHS[name], class_weight="balanced", max_iter=2000)
            model.fit(scaled @ span.T, known[train])
            called[asked - t.train] = model.predict(scaler.transform(x[asked]) @ span.T)
        found[name] = called
    return found


def asked_sites(study: Study) -> pd.Series:
    """Development patients -> their site, '' where it has fewer than LEAST_OF_SITE of them; folds that share no site
    leave none, since a fold's sites are not among those that it trains on.
    """
    sites = study.cohort.patients["site"][study.folds >= 0]
    if study.p.fold_groups == "site":
        return pd.Series("", index=sites.index)
    return sites.where(sites.map(sites.value_counts()) >= LEAST_OF_SITE, "")


def of_fold(study: Study, name: str, fold: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is asked of a fold's tokens, found in the record or made now.

    Two tables of the held-out patients: patient_id, label, fold, condition, prob; and patient_id, label, fold, tokens
    (image, genes), site, called.
    """
    inputs = {
        "model": [name, runs.run(study, name, fold).name],
        "seed": study.p.seed,
        "sites": asked_sites(study).to_dict(),
        "versions": record.versions("scikit-learn", "numpy", "torch"),
    }

    def make(folder: Path) -> None:
        from threadpoolctl import threadpool_limits

        t = read(study, name, fold)
        held_out = t.patients[t.train :]
        label = study.labels.loc[t.patients].to_numpy()
        about = {"patient_id": held_out, "label": label[t.train :], "fold": fold}
        with threadpool_limits(1):
            probs = t.ablated | trivial(t, label[: t.train], study.p.seed)
            called = sites_of(t, asked_sites(study))
        predicted = [pd.DataFrame(about | {"condition": condition, "prob": x}) for condition, x in probs.items()]
        pd.concat(predicted).to_parquet(folder / "predictions.parquet", index=False)
        site = asked_sites(study).reindex(held_out).to_numpy()
        of_sites = [pd.DataFrame(about | {"tokens": name, "site": site, "called": x}) for name, x in called.items()]
        pd.concat(of_sites).to_parquet(folder / "sites.parquet", index=False)

    folder = record.cached(study.p.results / "audits" / "tokens" / name / f"fold_{fold}", inputs, make)
    return record.read_parquet(folder / "predictions.parquet"), record.read_parquet(folder / "sites.parquet")


def of_all_folds(study: Study, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`of_fold` of every fold of the first cross-validation: every development patient held out once."""
    found = [of_fold(study, name, fold) for fold in study.once if fold >= 0]
    predicted, sites = (pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True))
    return predicted, sites


def table(predicted: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """ROC-AUC of every condition, mean over the folds, with its interval, and less that of the model itself, by a
    paired bootstrap of the patients within class and fold. Index kind and condition, columns COLUMNS; predicted: as
    `of_all_folds`.
    """
    by_condition = {name: rows.set_index("patient_id") for name, rows in predicted.groupby("condition", sort=False)}
    own, rows = by_condition[WHOLE], {}
    label, folds = own["label"].to_numpy(), own["fold"].to_numpy()
    for name, of in by_condition.items():
        prob = of.loc[own.index, "prob"].to_numpy()
        auc = intervals.of_model(label, prob, folds, confidence=confidence).loc["roc_auc", ["mean", "low", "high"]]
        over = (np.nan,) * 3
        if name != WHOLE:
            over = bootstrap.paired_bootstrap(label, prob, own["prob"].to_numpy(), folds, confidence=confidence)[:3]
        rows[ABLATED if name in (WHOLE, NO_IMAGE, NO_GENES) else TRIVIAL, name] = (*auc, *over, len(own))
    index = pd.MultiIndex.from_tuples(rows, names=["kind", "condition"])
    return pd.DataFrame(list(rows.values()), index=index, columns=COLUMNS)
