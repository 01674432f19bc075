"""Do probabilities come true? Calibration as trained, and after a recalibration by other patients than those it is
judged on (the paper names its lack among its limitations).

The calibration intercept is 0 where as many patients are of class 1 as predicted, the slope 1 where predictions are as
spread as they should be and below 1 where they are too extreme (Van Calster et al., BMC Med. 17:230, 2019). Platt's
scaling fits both (Platt, 1999), temperature the slope alone (Guo et al., ICML 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy  # its parts are loaded where they are first used

from mmmil.evaluation import intervals
from mmmil.evaluation.bootstrap import interval
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.params import Params

NEAR = 1e-6  # probabilities are cut here before their logit is taken
WAYS = {"as trained": (), "temperature": ("slope",), "Platt": ("intercept", "slope")}  # what each fits
GROUPS = 5  # of patients by their probability; no more than a tenth of them, at least 2
COLUMNS = ["intercept", "intercept_low", "intercept_high", "slope", "slope_low", "slope_high"]
COLUMNS += ["brier", "brier_low", "brier_high", "brier_of_share", "patients"]


def once(predictions: pd.DataFrame, p: Params) -> pd.DataFrame:
    """Predictions of the task's own seed in the first cross-validation and of its final model: each patient once."""
    return predictions[(predictions["seed"] == p.seed) & (predictions["fold"] < p.n_folds)]


def logit(prob: np.ndarray) -> np.ndarray:
    """Log odds, of probabilities that are cut at NEAR and 1 - NEAR."""
    cut = np.clip(prob, NEAR, 1 - NEAR)
    return np.log(cut / (1 - cut))


def recalibration(
    label: np.ndarray, prob: np.ndarray, terms: Sequence[str] = ("intercept", "slope")
) -> tuple[np.ndarray, np.ndarray] | None:
    """Logistic regression of the label on the logit of `prob`: coefficients of `terms`, in their order, and their
    standard errors.

    Without `slope` the logit enters as it is; without `intercept` there is none. None where there is no finite answer,
    as where the probabilities part the classes wholly.
    """
    of_prob = logit(prob)
    columns = {"intercept": np.ones_like(of_prob), "slope": of_prob}
    x = np.column_stack([columns[term] for term in terms])
    offset, beta = (0.0 if "slope" in terms else of_prob), np.zeros(len(terms))
    for _ in range(100):
        fitted = 1 / (1 + np.exp(-np.clip(x @ beta + offset, -50, 50)))
        information = (x * (fitted * (1 - fitted))[:, None]).T @ x
        if np.linalg.cond(information) > 1e10 or not information.any():
            return None
        step = np.linalg.solve(information, x.T @ (label - fitted))
        beta = beta + step
        if not np.isfinite(beta).all():
            return None
        if np.abs(step).max() < 1e-8:
            return beta, np.sqrt(np.diag(np.linalg.inv(information)))
    return None


def recalibrated(predictions: pd.DataFrame, way: str) -> pd.DataFrame:
    """One model's predictions (`once`) with `prob` recalibrated by a key of WAYS; rows whose fit has no finite answer
    are left as they are, and said so: a column `fitted` is False there.

    A fold's patients are recalibrated by a fit on the out-of-fold predictions of all other folds' patients, the test
    patients by one on all folds'. So nobody's label has a part in the line that their own probability goes through; the
    models behind the other folds' predictions were trained on them, as in any cross-fitted calibration.
    """
    terms = WAYS[way]
    changed = predictions.assign(fitted=True)
    if not terms:
        return changed
    folds = predictions["fold"].to_numpy()
    label, prob = predictions["label"].to_numpy(), predictions["prob"].to_numpy(float)
    new, fitted = prob.copy(), np.ones(len(prob), bool)
    for fold in np.unique(folds):
        judged, used = folds == fold, (folds != fold) & (folds >= 0)
        found = recalibration(label[used], prob[used], terms) if used.any() else None
        if found is None:
            fitted[judged] = False
            continue
        of_term = dict(zip(terms, found[0], strict=True))
        line = of_term.get("intercept", 0.0) + of_term.get("slope", 1.0) * logit(prob[judged])
        new[judged] = 1 / (1 + np.exp(-line))
    return changed.assign(prob=new, fitted=fitted)


def measures(label: np.ndarray, prob: np.ndarray, confidence: float = CONFIDENCE) -> dict[str, float]:
    """Calibration intercept (slope 1), slope and Brier score, each with its interval: keys COLUMNS.

    Intercept and slope have Wald's interval, Brier a bootstrap's over patients. brier_of_share: of a prediction that is
    the share of class 1 for everybody. Intercept and slope are NaN where the probabilities part the classes wholly.
    """
    z = scipy.stats.norm.ppf((1 + confidence) / 2)
    row: dict[str, float] = {}
    both = recalibration(label, prob)
    for name, found in (("intercept", recalibration(label, prob, ["intercept"]) if both else None), ("slope", both)):
        value, error = (np.nan, np.nan) if found is None else (found[0][-1], found[1][-1])
        row |= {name: value, f"{name}_low": value - z * error, f"{name}_high": value + z * error}
    brier = interval(np.square(prob - label), confidence, bounds=(0, 1))
    row |= dict(zip(("brier", "brier_low", "brier_high"), brier, strict=True))
    return row | {"brier_of_share": label.mean() * (1 - label.mean()), "patients": len(label)}


def table(predictions: pd.DataFrame, p: Params, names: Sequence[str], split: str = "val") -> pd.DataFrame:
    """`measures` of every model and way of WAYS over the patients of a split, each predicted once, by a model that did
    not train on them. Index variant, calibration; columns COLUMNS, and folds_not_fitted: in how many folds the way had
    no finite answer, so that their probabilities are as trained.
    """
    rows = {}
    for name in names:
        of_model = once(predictions[predictions["variant"] == name], p)
        for way in WAYS if len(of_model) else ():
            changed = recalibrated(of_model, way)
            judged = changed[changed["split"] == split]
            row = measures(judged["label"].to_numpy(), judged["prob"].to_numpy(float))
            row["folds_not_fitted"] = judged.loc[~judged["fitted"], "fold"].nunique()
            rows[name, way] = row
    index = pd.MultiIndex.from_tuples(rows, names=["variant", "calibration"])
    return pd.DataFrame(list(rows.values()), index=index, columns=[*COLUMNS, "folds_not_fitted"])


def reliability(label: np.ndarray, prob: np.ndarray, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Observed against predicted by groups of patients of like probability: a row each, columns predicted (mean),
    observed (share of class 1), low and high (Wilson's interval) and patients.
    """
    groups = np.array_split(np.argsort(prob, kind="stable"), max(2, min(GROUPS, len(prob) // 10)))
    rows = [
        (prob[g].mean(), label[g].mean(), *intervals.share(label[g].mean(), [len(g)], confidence), len(g))
        for g in groups
        if len(g)
    ]
    return pd.DataFrame(rows, columns=["predicted", "observed", "low", "high", "patients"])
