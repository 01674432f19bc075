"""Does attention say what the prediction rests on? Deletion and insertion curves, and planted tiles.

Tokens are taken away, or put back, in the order of a ranking, and the probability is watched (deletion and insertion
of Petsiuk et al. 2018; for bags of tiles Javed et al. 2022). A ranking that says what the model uses makes it fall
fast and rise fast: faster than a random order does, which is what every curve is held against. Bags with tokens left
out were never seen in training, so a curve speaks of its ranking only beside the random order's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import roc_auc_score

from mmmil import paper, record, variants
from mmmil.evaluation.bootstrap import interval
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.interpretation import attribution
from mmmil.interpretation.attribution import Tokens
from mmmil.simulate import truth as planted_truth
from mmmil.slides import bag_files
from mmmil.training import runs

if TYPE_CHECKING:
    from mmmil.study import Study

FRACTIONS = np.linspace(0, 1, 11)
RANDOM_ORDERS = 20
COLUMNS = ["over", "ranking", "direction", "patient_id", "fraction", "prob"]


class FaithfulnessError(ValueError):
    """What a ranking should be held against is not known; says why."""


# -- deletion and insertion --------------------------------------------------------------------------------------
def curves(study: Study, name: str, over: str, orders: int = RANDOM_ORDERS) -> pd.DataFrame:
    """Deletion and insertion curves of the test patients, found in the record or made now.

    One row per ranking (each attention, `gradient`, and `random`: the mean of `orders` orders), direction, patient and
    fraction of the tokens taken away or put in, columns COLUMNS; prob is that of the class that all tokens call. One
    tile always stays: a bag without any has no prediction.
    """
    model = runs.run(study, name, -1)
    inputs = {
        "model": [name, model.name],
        "over": over,
        "orders": orders,
        "seed": study.p.seed,
    }

    def make(folder: Path) -> None:
        t = attribution.tokens(study, name, -1, over)
        _curves(t, over, orders, study.p.seed).to_parquet(folder / "curves.parquet", index=False)

    folder = record.cached(study.p.results / "faithfulness" / name, inputs, make)
    return record.read_parquet(folder / "curves.parquet")


def _curves(t: Tokens, over: str, orders: int, seed: int) -> pd.DataFrame:
    scores, number = attribution.rankings(t, over), t.number(over)
    shape = next(iter(scores.values())).shape
    rng = np.random.default_rng(seed)
    padding = np.where(np.arange(shape[1]) < number[:, None], 0, np.inf)  # last in every order
    if over == "tiles":
        padding = np.where(t.real.cpu().numpy(), 0, np.inf)
    drawn = {f"random {k}": rng.random(shape) - padding for k in range(orders)}
    called = attribution.whole(t) >= 0.5
    least = 1 if over == "tiles" else 0
    frames = []
    for ranking, score in (scores | drawn).items():
        rank = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1)[:, None]  # 0: first to go
        some = np.rint(FRACTIONS * number[:, None]).astype(int)  # (P, F)
        kept = {
            "deletion": rank >= np.minimum(some, number[:, None] - least)[..., None],
            "insertion": rank < np.maximum(some, least)[..., None],
        }
        for direction, keep in kept.items():
            patient = np.repeat(np.arange(shape[0]), len(FRACTIONS))
            prob = t.prob(patient, over, keep.reshape(-1, shape[1]))
            prob = np.where(called[patient], prob, 1 - prob)
            fraction = np.tile(FRACTIONS, shape[0])
            ids = np.array(t.patients)[patient]
            frames.append((over, ranking.split(" ")[0], direction, ids, fraction, prob))
    table = pd.concat(pd.DataFrame(dict(zip(COLUMNS, frame, strict=True))) for frame in frames)
    return table.groupby(COLUMNS[:-1], sort=False, as_index=False)["prob"].mean()


def areas(table: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Area under each curve, and how much better than a random order and than the gradient it is, patient by patient.

    Index over, direction, ranking; area is the mean over patients. over_random and over_gradient are paired
    differences, positive where the ranking is the more faithful (a smaller area in deletion, a larger one in
    insertion), with bootstrap intervals over the patients.
    """
    order = table[["over", "direction", "ranking"]].drop_duplicates().itertuples(index=False, name=None)
    groups = table.groupby(["over", "direction", "ranking", "patient_id"], sort=False)
    area = groups[["prob", "fraction"]].apply(lambda g: np.trapezoid(g["prob"], g["fraction"])).sort_index()
    rows = {}
    for key in order:
        per_patient, sign = area.loc[key], -1 if key[1] == "deletion" else 1
        rows[key] = {"area": per_patient.mean()}
        for reference in ("random", "gradient"):
            gain = sign * (per_patient - area.loc[(*key[:2], reference)])
            columns = (f"over_{reference}", f"{reference}_low", f"{reference}_high")
            known = interval(gain.to_numpy(), confidence) if key[2] != reference else (np.nan,) * 3
            rows[key] |= dict(zip(columns, known, strict=True))
        rows[key]["patients"] = len(per_patient)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["over", "direction", "ranking"])


# -- planted truth -----------------------------------------------------------------------------------------------
def models_of_tiles(study: Study) -> list[str]:
    """The proposed models that read tiles, and beside joint ones that of images alone, which has nothing else to go by:
    what a joint model misses it may have had no need of. None where nobody knows which tiles are planted.
    """
    if not (study.p.synthetic and study.p.has_pixels):
        return []
    alone = [name for name in paper.PROPOSED["slides"] if name in variants.variants(study.p)]
    names = dict.fromkeys([*attribution.variants(study), *runs.standing(study, alone)])
    return [name for name in names if "tiles" in attribution.kinds(name)]


def planted_tiles(study: Study, name: str, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """AUROC of a model's scores for the tiles that carry planted nuclei, each patient once, by a model that never saw
    the patient.

    A tile is planted where at least half of it is (`truth.planted_share`); patients whose tiles are all of one kind
    have no AUROC. One row per score: each attention, `gradient` towards class 1, and `alone`, the probability of
    class 1 where the tile is the bag's only one. auroc is the mean over patients with its bootstrap interval; missed:
    patients whose class is called rightly although the score ranks planted tiles below the others (AUROC < 0.5);
    evenness: of attention, the number of tiles that its entropy amounts to, by the number of tiles (1: all alike).

    Raises FaithfulnessError for a cohort without planted truth, and for a model that reads no tiles.
    """
    p = study.p
    if not p.synthetic:
        raise FaithfulnessError(f"task '{p.task}' is no synthetic cohort: nobody knows which tiles should be attended")
    aurocs: dict[str, list[float]] = {}
    even: dict[str, list[float]] = {}
    right = []
    for fold in study.once:
        t = attribution.tokens(study, name, fold, "tiles")
        truth = [_planted(study, patient) for patient in t.patients]
        usable = [i for i, planted in enumerate(truth) if 0 < planted.sum() < len(planted)]
        scores = attribution.rankings(t, "tiles", towards=1) | {"alone": attribution.alone(t)}
        right += [bool((attribution.whole(t)[i] >= p.threshold) == t.labels[i]) for i in usable]
        for source, values in scores.items():
            real = t.real.cpu().numpy()
            aurocs.setdefault(source, [])
            aurocs[source] += [roc_auc_score(truth[i], values[i][real[i]]) for i in usable]
            if source.endswith("_image"):
                even.setdefault(source, []).extend(evenness(values[i][real[i]]) for i in usable)
    rows = {}
    for source, values in aurocs.items():
        mean, low, high = interval(np.array(values), confidence, bounds=(0, 1))
        missed = int((np.array(right, bool) & (np.array(values) < 0.5)).sum())
        rows[source] = {"auroc": mean, "low": low, "high": high, "patients": len(values), "missed": missed}
        rows[source]["evenness"] = np.mean(even[source]) if source in even else np.nan
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def evenness(weights: np.ndarray) -> float:
    """Perplexity of attention weights (N,) by N: 1 where all are alike, 1 / N where one holds everything."""
    share = np.clip(weights, 0, None) / np.clip(weights, 0, None).sum()
    return float(np.exp(stats.entropy(share)) / len(share))


def _planted(study: Study, patient: str) -> np.ndarray:
    coords, a = bag_files.load_coords(study.bag_paths[patient])
    slide_id = study.cohort.patients.loc[patient, "slide_id"]
    return planted_truth.planted_share(study.p.data, slide_id, coords, int(a["patch_size_level0"])) >= 0.5
