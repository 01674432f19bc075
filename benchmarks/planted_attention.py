"""Which attention of an encoder finds planted tiles and gene sets, and whether input x gradient does.

    python benchmarks/planted_attention.py

Bags are drawn as tokens, so that a training takes seconds and nothing but the aggregator is asked. In class 1 a few
tiles of a bag are moved along one direction, which no average shows well; planted sets are moved in all patients,
towards their class. The model is built as the book's are: tokens standardised, and where it has a linear skip, started
from the regressions. It is read on patients that it was not trained on. Writes
benchmarks/results/planted_attention.csv and .md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from mmmil import params, record
from mmmil.interpretation import attribution
from mmmil.interpretation.faithfulness import evenness
from mmmil.models.bag_model import BagModel
from mmmil.models.fusion import MultimodalMIL
from mmmil.models.standardise import Standardise
from mmmil.models.transmil import TransMIL
from mmmil.training import build, device, fit

TILES, SETS, DIM, PLANTED_SETS = 64, 40, 16, 4
SHARE = (0.05, 0.15)  # of a bag's tiles, planted
MOVED = {"tiles": 4.0, "sets": 1.5}  # standard deviations of a token's noise
ONE_MODALITY = 0.3  # patients of the dual model whose class shows in the image alone, and as many in the genes alone
TRAINING = {"lr": 1e-3, "epochs": 30, "batch_size": 8, "device": "cpu"}
SEEDS = range(5)
MODELS = {  # fusion and self-attention: how they are called
    ("image", "exact"): "tiles, exact attention",
    ("image", "nystrom"): "tiles, Nyström's",
    ("image", "published"): "tiles, TransMIL",
    ("genes", "exact"): "gene sets, exact attention",
    ("dual", "exact"): "tiles and gene sets, exact attention",
}
READ = {
    **{"layer1": "layer 1", "self": "layer 2", "rollout": "rollout", "cross": "cross-attention"},
    "gradient": "input × gradient",
}
LEARNT = 0.8  # held-out ROC-AUC from which a model counts as having learnt what was planted


class Cohort(NamedTuple):
    """tiles (P, N, D), genes (P, S, D), labels (P,), and what is planted: tiles (P, N) and sets (S,), bool."""

    tiles: torch.Tensor
    genes: torch.Tensor
    labels: torch.Tensor
    planted_tiles: np.ndarray
    planted_sets: np.ndarray


def cohort(seed: int, patients: int, one_modality: float = 0.0) -> Cohort:
    """Bags of noise with planted tiles and sets; one_modality: share of patients whose class shows in one alone."""
    rng = np.random.default_rng(seed)
    labels, place = np.arange(patients) % 2, rng.permutation(patients) / patients
    tiles, genes = rng.normal(size=(patients, TILES, DIM)), rng.normal(size=(patients, SETS, DIM))
    towards = rng.normal(size=(2, DIM))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    planted = np.zeros((patients, TILES), bool)
    for i in np.flatnonzero((labels == 1) & (place < 1 - one_modality)):
        number = round(rng.uniform(*SHARE) * TILES)
        planted[i, rng.choice(TILES, number, replace=False)] = True
    tiles[planted] += MOVED["tiles"] * towards[0]
    sets = np.isin(np.arange(SETS), rng.choice(SETS, PLANTED_SETS, replace=False))
    genes[:, sets] += MOVED["sets"] * ((2 * labels - 1) * (place >= one_modality))[:, None, None] * towards[1]
    given = (torch.from_numpy(values.astype(np.float32)) for values in (tiles, genes))
    return Cohort(*given, torch.from_numpy(labels), planted, sets)


def read(fusion: str, attention: str, seed: int, patients: int = 160, width: int = 32, **training) -> pd.DataFrame:
    """One training on half of a cohort, read on the other half: a row per attention.

    Columns auc (held-out), found: AUROC of a patient's weights for the planted tiles, mean over patients, or of the
    mean weight for the planted sets; evenness of attention: see `faithfulness.evenness`. The gradient is towards class
    1 for tiles, which are planted in that class alone, and towards the class that is called for sets.
    """
    drawn = cohort(seed, patients, ONE_MODALITY if fusion == "dual" else 0.0)
    p = params.load("lgg", "demo", seed=seed, **TRAINING | training)
    fabric = device.make_fabric(p)
    torch.manual_seed(seed)
    given = {"image_dim": DIM, "width": width, "landmarks": 16}
    if attention == "published":
        aggregator = TransMIL(**given)
    else:
        sizes = {"gene_dim": DIM, "n_sets": SETS}
        aggregator = MultimodalMIL(fusion, **given, **sizes, attention=attention, linear_skip=True)
    inputs = fit.Inputs(drawn.tiles if fusion != "genes" else None, drawn.genes if fusion != "image" else None)
    half = patients // 2
    scale = {"image_scale": Standardise(DIM)} if inputs.tiles is not None else {}
    scale |= {"gene_scale": Standardise(SETS, DIM)} if inputs.genes is not None else {}
    untrained, train = BagModel(aggregator, **scale), list(range(half))
    build.measure_scale(untrained, p, inputs, train)
    build.start_skip(untrained, inputs, drawn.labels, train)
    model, _ = fit.fit(fabric, untrained, inputs, drawn.labels, train, p)
    prob, att = fit.predict(fabric, model, inputs, range(half, patients))
    auc, rows = roc_auc_score(drawn.labels[half:], prob), {}
    for source, weights in (att | gradients(model.eval().module, fabric, inputs, drawn.labels, half)).items():
        if source.endswith("_image"):
            truth = drawn.planted_tiles[half:]
            found = np.mean([roc_auc_score(t, w) for t, w in zip(truth, weights, strict=True) if t.any()])
        else:
            share = weights if source.startswith("gradient") else weights / weights.sum(1, keepdims=True)
            found = roc_auc_score(drawn.planted_sets, share.mean(0))
        rows[source] = {"auc": auc, "found": found, "evenness": np.nan}
        if not source.startswith("gradient"):
            rows[source]["evenness"] = np.mean([evenness(w) for w in weights])
    return pd.DataFrame.from_dict(rows, orient="index")


def gradients(model: BagModel, fabric, inputs: fit.Inputs, labels: torch.Tensor, half: int) -> dict[str, np.ndarray]:
    """Input x gradient of the patients from `half` on, over tiles (P, N) and over sets (P, S), of those it reads."""
    with torch.no_grad():
        image = None if inputs.tiles is None else model.image_tokens(inputs.tiles)
        genes = None if inputs.genes is None else model.gene_tokens(inputs.genes)
    read = attribution.Tokens(
        fabric,
        model.aggregator,
        [f"P{i}" for i in range(half, len(labels))],
        labels[half:].numpy(),
        None if image is None else image[half:],
        None if image is None else torch.ones(image[half:].shape[:2], dtype=torch.bool),
        None if genes is None else genes[half:],
        None if genes is None else genes[:half].mean(0),
    )
    found = {}
    for over, values, towards in (("tiles", image, 1), ("sets", genes, None)):
        if values is not None:
            found[f"gradient{attribution.OVER[over]}"] = attribution.rankings(read, over, towards)["gradient"]
    return found


def measured() -> pd.DataFrame:
    """`read` of every model and seed: columns model, seed, source, auc, found, evenness, read, over."""
    found = {}
    for (fusion, attention), called in MODELS.items():
        for seed in SEEDS:
            found[called, seed] = read(fusion, attention, seed)
            print(f"{called}, seed {seed}:\n{found[called, seed].round(2)}", flush=True)
    table = pd.concat(found, names=["model", "seed", "source"]).reset_index()
    table[["read", "over"]] = table["source"].str.split("_", expand=True).to_numpy()
    return table


def table_and_least(table: pd.DataFrame) -> list[str]:
    """The page's lines: a table over models, and which readout is lost the least."""
    lines = [
        f"Bags drawn as tokens, {len(SEEDS)} cohorts of 160 patients (seeds {SEEDS[0]} to {SEEDS[-1]}), half of them "
        f"trained on and the others read: {TILES} tiles, of which {SHARE[0]:.0%} to {SHARE[1]:.0%} are moved by "
        f"{MOVED['tiles']:g} standard deviations in class 1, and {SETS} gene sets, of which {PLANTED_SETS} are moved "
        f"by {MOVED['sets']:g}, towards the class; for the model of both, a share of {ONE_MODALITY} shows its class in "
        f"the image alone and as many in the genes alone. Width 32, {TRAINING['epochs']} epochs, learning rate "
        f"{TRAINING['lr']:g}. AUROC of each readout for the planted tokens, mean over the cohorts and range, then "
        "for attention its "
        "evenness (1: all tokens alike). 0.5 is chance. Tokens are standardised; models with a linear skip start from "
        "the regressions.",
        "",
        "| model | held-out ROC-AUC | over | " + " | ".join(READ.values()) + " |",
        "| --- | --- | --- | " + "--- | " * len(READ),
    ]
    for (called, over), rows in table.groupby(["model", "over"], sort=False):
        by = rows.groupby("read")
        cells = ["–"] * len(READ)
        for i, way in enumerate(READ):
            if way in by.groups:
                values, even = by.get_group(way)["found"], by.get_group(way)["evenness"].mean()
                cells[i] = f"{values.mean():.2f} ({values.min():.2f}–{values.max():.2f})"
                cells[i] += "" if np.isnan(even) else f", {even:.2f}"
        auc = rows.groupby("seed")["auc"].first()
        about = [called, f"{auc.mean():.2f} ({auc.min():.2f}–{auc.max():.2f})", {"image": "tiles"}.get(over, "sets")]
        lines.append("| " + " | ".join([*about, *cells]) + " |")
    lines.append("")
    for over, rows in table[table["auc"] >= LEARNT].groupby("over", sort=False):
        least = rows.groupby("read")["found"].agg(["min", "mean"])
        trainings = len(rows[["model", "seed"]].drop_duplicates())
        said = ", ".join(f"{READ[way]} {r['min']:.2f} (mean {r['mean']:.2f})" for way, r in least.iterrows())
        lines.append(
            f"- Over {'tiles' if over == 'image' else 'sets'}, in the {trainings} trainings that learnt it (held-out "
            f"ROC-AUC of at least {LEARNT}), the lowest AUROC is: {said}."
        )
    return [*lines, ""]


def main() -> None:
    table = measured()
    lines = table_and_least(table)
    head = [
        "# Which attention finds what was planted",
        "",
        f"Made by `python benchmarks/planted_attention.py`, {record.made_on('torch', 'scikit-learn', 'numpy')}. "
        "Synthetic: no number here says anything about patients.",
        "",
    ]
    path = Path(__file__).parent / "results" / "planted_attention.md"
    columns = ["model", "seed", "over", "read", "auc", "found", "evenness"]
    record.write_atomically(
        path.with_suffix(".csv"), lambda made: table[columns].to_csv(made, index=False, float_format="%.6f")
    )
    record.write_atomically(path, lambda temporary: temporary.write_text("\n".join([*head, *lines])))
    print(path)


if __name__ == "__main__":
    main()
