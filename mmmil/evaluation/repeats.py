"""What repeats of the cross-validation and several seeds tell: how much of a ROC-AUC hangs on patients, folds and
seeds, and what the mean of several models' probabilities gives beside one of them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmmil import variants
from mmmil.evaluation import bootstrap, paired_tests
from mmmil.evaluation.bootstrap import paired_difference
from mmmil.evaluation.metrics import CONFIDENCE, METRICS, per_fold
from mmmil.evaluation.summary import estimate
from mmmil.params import Params

VARIANCE = ["variant", "roc_auc", "patients", "folds", "seeds"]


def variance(predictions: pd.DataFrame, p: Params) -> pd.DataFrame:
    """Standard deviation of the ROC-AUC of one cross-validation with one seed, by what it is due to: columns VARIANCE.

    roc_auc: mean over folds, repeats and seeds. patients: other ones to evaluate on (DeLong, the models as they are,
    which no repeat makes smaller); folds: the same patients dealt anew, which trains on others, too; seeds: initial
    weights and batches, and what each chose of its own where trainings are tuned. Folds are what is left of the scatter
    of repeats when that of seeds is taken off it, 0 where nothing is. NaN where p.repeats or p.model_seeds is 1. Of
    variants of which no training failed.
    """
    val = predictions[predictions["split"] == "val"]
    number, rows = p.repeats * p.n_folds * p.model_seeds, []
    for name, of_variant in val.groupby("variant", sort=False):
        aucs = per_fold(of_variant, p.threshold)["roc_auc"].reset_index()
        if len(aucs) < number:
            continue
        runs = aucs.pivot_table("roc_auc", aucs["fold"] // p.n_folds, "seed").to_numpy()  # (repeats, seeds)
        by_seed = runs.var(1, ddof=1).mean() if p.model_seeds > 1 else np.nan
        between = runs.mean(1).var(ddof=1) if p.repeats > 1 else np.nan
        by_fold = max(between - np.nan_to_num(by_seed) / p.model_seeds, 0.0) if p.repeats > 1 else np.nan
        wide = of_variant.pivot(index=["fold", "patient_id", "label"], columns="seed", values="prob")
        fold, patient, label = (wide.index.get_level_values(level).to_numpy() for level in wide.index.names)
        _, covariance = paired_tests.mean_auc_covariance(label, wide.to_numpy().T, fold, patient)
        squares = (covariance.mean(), by_fold, by_seed)
        rows.append((variants.variant(str(name)).shown_as, runs.mean(), *np.sqrt(squares)))
    return pd.DataFrame(rows, columns=VARIANCE)


def ensembles(predictions: pd.DataFrame, p: Params, metric: str = "roc_auc") -> pd.DataFrame:
    """The final models of a variant on the test patients: one model, all as one (mean probability), the difference.

    Columns variant, one model (mean over seeds), ensemble, ensemble less one model, each with its bootstrap interval
    over patients; no rows where p.model_seeds is 1. Of variants of which no final training failed.
    """
    if metric not in METRICS:
        raise ValueError(f"'{metric}' is not one of {', '.join(METRICS)}")
    test = predictions[predictions["split"] == "test"]
    rows = []
    for name, of_variant in test.groupby("variant", sort=False) if p.model_seeds > 1 else []:
        wide = of_variant.pivot(index=["patient_id", "label"], columns="seed", values="prob")
        if wide.shape[1] < p.model_seeds:
            continue
        label, probs = wide.index.get_level_values("label").to_numpy(), wide.to_numpy().T
        models = {"one model": probs, "ensemble": probs.mean(0)}
        drawn = {
            which: scores[metric].to_numpy()
            for which, scores in bootstrap.drawn_scores(label, models, threshold=p.threshold, seed=p.seed).items()
        }
        row = {"variant": variants.variant(str(name)).shown_as}
        for which, values in drawn.items():
            row[which] = estimate(values[0], *bootstrap.percentile_interval(values[1:], CONFIDENCE))
        less = paired_difference(drawn["ensemble"], drawn["one model"], CONFIDENCE, len(label))
        rows.append(row | {"ensemble less one model": estimate(*less[:3], signed=True)})
    return pd.DataFrame(rows, columns=["variant", "one model", "ensemble", "ensemble less one model"])
