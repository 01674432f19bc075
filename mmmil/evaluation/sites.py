"""Do tokens tell where a patient was treated? The site predicted from them, against sites permuted among like patients.

A site that can be told is no fault by itself; it is where classes are unequal over sites, since a model may then learn
the site in the class's stead (Howard et al., Nat. Commun. 12:4423, 2021).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmmil.evaluation import intervals
from mmmil.evaluation.bootstrap import percentile_interval
from mmmil.evaluation.metrics import CONFIDENCE

PERMUTATIONS = 999
COLUMNS = ["tokens", "sites", "patients", "balanced_accuracy", "low", "high", "null", "null_low", "null_high", "p"]


def balanced_accuracy(site: np.ndarray, called: np.ndarray) -> float:
    """Mean over sites of the share of their patients that are called rightly; site, called (n,)."""
    return float(np.mean([(called[site == name] == name).mean() for name in np.unique(site)]))


def table(of_sites: pd.DataFrame, seed: int = 0, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """A row per kind of tokens, columns COLUMNS; of_sites: the second table of `token_models.of_all_folds`.

    The interval is the score interval of a mean of shares. null: mean and interval of the balanced accuracy where the
    true sites are permuted within class and fold, so that what class and fold say of the site is in it; p is one-sided,
    (1 + hits) / (1 + PERMUTATIONS). No rows where fewer than two sites were asked for
    (folds that share none).
    """
    rows = []
    for tokens, of in of_sites[of_sites["site"] != ""].groupby("tokens", sort=False):
        if of["site"].nunique() < 2:
            continue
        site, called = of["site"].to_numpy(str), of["called"].to_numpy(str)
        strata = of.groupby(["fold", "label"]).indices.values()
        found, random = balanced_accuracy(site, called), np.random.default_rng(seed)
        drawn = np.empty(PERMUTATIONS)
        for i in range(PERMUTATIONS):
            mixed = site.copy()
            for patients in strata:
                mixed[patients] = random.permutation(site[patients])
            drawn[i] = balanced_accuracy(mixed, called)
        sizes = np.unique(site, return_counts=True)[1]
        interval = intervals.share(found, sizes.tolist(), confidence)
        p = (1 + (drawn >= found - 1e-12).sum()) / (1 + PERMUTATIONS)
        null = (drawn.mean(), *percentile_interval(drawn, confidence))
        rows.append((tokens, len(sizes), len(site), found, *interval, *null, p))
    return pd.DataFrame(rows, columns=COLUMNS)
