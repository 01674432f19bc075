"""Does attention survive another training? The same patients, tiles and gene tokens, other initial weights and batches.

What the seed of a training decides beside the data: initial weights, the order of the batches, dropout, augmentation
and the tiles on which APoZ is measured. An explanation that changes with these says little about the patients.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from mmmil.evaluation.bootstrap import interval
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.interpretation import attribution
from mmmil.study import Study
from mmmil.training import runs

FURTHER = 2  # trainings with other seeds: three in all, of which every two are compared


def attentions(study: Study, name: str, further: int) -> list[dict[str, np.ndarray]]:
    """Attention (P, n) of a variant's final model over the test patients: of this seed, then of `further` other ones.

    Models that are not there are trained now, or an error (`runs.run_all`), and kept in the record under their seed.
    """
    by_seed, seeds = [], range(study.p.seed, study.p.seed + further + 1)
    runs.run_all(study, [runs.Training(name, -1, seed) for seed in seeds])
    for seed in seeds:
        t = attribution.tokens(study, name, seed=seed)
        by_source = {}
        for over in attribution.kinds(name):
            scores = attribution.rankings(t, over)
            for source, values in scores.items():
                by_source[f"gradient, {over}" if source == "gradient" else source] = values
        by_seed.append(by_source | {"probability": attribution.whole(t)})
    return by_seed


def across_seeds(study: Study, name: str, further: int = FURTHER, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Spearman's correlation between the rankings of seeds, one row per score: attention, gradient, and probability.

    For a score over tokens it is taken within each test patient for every two seeds, and averaged over the pairs; the
    row is the mean over patients with its bootstrap interval (0: the seeds share nothing). A patient of a single token,
    or whose tokens all have one score, has no ranking and is left out; patients: how many were counted. For the
    probability it is over the patients, so that a low row can be told from models that disagree altogether.
    """
    by_seed = attentions(study, name, further)
    rows = {}
    for source in by_seed[0]:
        pairs = [(a[source], b[source]) for a, b in combinations(by_seed, 2)]
        if source == "probability":
            values = [stats.spearmanr(a, b).statistic for a, b in pairs]
            rows[source] = {"spearman": np.mean(values), "low": np.nan, "high": np.nan, "patients": len(pairs[0][0])}
        else:
            values = np.mean([[_spearman(x, y) for x, y in zip(a, b, strict=True)] for a, b in pairs], axis=0)
            values = values[~np.isnan(values)]
            rows[source] = dict(zip(("spearman", "low", "high"), interval(values, confidence), strict=True))
            rows[source]["patients"] = len(values)
        rows[source]["seeds"] = len(by_seed)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Of one patient's real tokens, padding being -inf in both; NaN where one of the two ranks nothing."""
    real = np.isfinite(a)
    a, b = a[real], b[real]
    return stats.spearmanr(a, b).statistic if min(map(np.ptp, (a, b))) > 0 else np.nan
