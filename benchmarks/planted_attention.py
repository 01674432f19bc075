"""Which attention of an encoder finds planted tiles and gene sets.

    python benchmarks/planted_attention.py

Bags are drawn as tokens, so that a training takes seconds and nothing but the aggregator is asked. In class 1 a few
tiles of a bag are moved along one direction, which no average shows well; planted sets are moved in all patients,
towards their class. The model is read on patients that it was not trained on. Writes
benchmarks/results/planted_attention.md.
"""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from mmmil import params, record
from mmmil.interpretation.faithfulness import evenness
from mmmil.models.bag_model import BagModel
from mmmil.models.fusion import MultimodalMIL
from mmmil.models.transmil import TransMIL
from mmmil.training import device, fit

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
READ = {"layer1": "layer 1", "self": "layer 2", "rollout": "rollout", "cross": "cross-attention"}
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
    mean weight for the planted sets; evenness: see `faithfulness.evenness`.
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
    model, _ = fit.fit(fabric, BagModel(aggregator), inputs, drawn.labels, list(range(half)), p)
    prob, att = fit.predict(fabric, model, inputs, range(half, patients))
    auc, rows = roc_auc_score(drawn.labels[half:], prob), {}
    for source, weights in att.items():
        if source.endswith("_image"):
            truth = drawn.planted_tiles[half:]
            found = np.mean([roc_auc_score(t, w) for t, w in zip(truth, weights, strict=True) if t.any()])
        else:
            found = roc_auc_score(drawn.planted_sets, (weights / weights.sum(1, keepdims=True)).mean(0))
        rows[source] = {"auc": auc, "found": found, "evenness": np.mean([evenness(w) for w in weights])}
    return pd.DataFrame.from_dict(rows, orient="index")


def table_and_least() -> list[str]:
    """The page's lines: a table over models, and which attention of an encoder is lost the least."""
    found = {}
    for (fusion, attention), called in MODELS.items():
        for seed in SEEDS:
            found[called, seed] = read(fusion, attention, seed)
            print(f"{called}, seed {seed}:\n{found[called, seed].round(2)}", flush=True)
    table = pd.concat(found, names=["model", "seed", "source"]).reset_index()
    table[["read", "over"]] = table["source"].str.split("_", expand=True).to_numpy()
    lines = [
        f"Bags drawn as tokens, {len(SEEDS)} cohorts of 160 patients (seeds {SEEDS[0]} to {SEEDS[-1]}), half of them "
        f"trained on and the others read: {TILES} tiles, of which {SHARE[0]:.0%} to {SHARE[1]:.0%} are moved by "
        f"{MOVED['tiles']:g} standard deviations in class 1, and {SETS} gene sets, of which {PLANTED_SETS} are moved "
        f"by {MOVED['sets']:g}, towards the class; for the model of both, a share of {ONE_MODALITY} shows its class in "
        f"the image alone and as many in the genes alone. Width 32, {TRAINING['epochs']} epochs, learning rate "
        f"{TRAINING['lr']:g}. AUROC of attention for the planted tokens, mean over the cohorts and range, then its "
        "evenness (1: all tokens alike). 0.5 is chance.",
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
                cells[i] = f"{values.mean():.2f} ({values.min():.2f}–{values.max():.2f}), {even:.2f}"
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
    lines, versions = table_and_least(), record.versions("torch", "scikit-learn", "numpy")
    head = [
        "# Which attention finds what was planted",
        "",
        f"Made by `python benchmarks/planted_attention.py`, {datetime.date.today()}, commit `{record.commit()}`, "
        f"{platform.machine()}, {os.cpu_count()} cores shared with other work, no GPU, Python "
        f"{platform.python_version()}, "
        + ", ".join(f"{n} {v}" for n, v in versions.items())
        + ". Synthetic: no number "
        "here says anything about patients.",
        "",
    ]
    path = Path(__file__).parent / "results" / "planted_attention.md"
    record.write_atomically(path, lambda temporary: temporary.write_text("\n".join([*head, *lines])))
    print(path)


if __name__ == "__main__":
    main()
