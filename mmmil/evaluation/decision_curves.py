"""Would a decision by the model do more good than one without it? Net benefit over thresholds (Vickers and Elkin, Med.
Decis. Making 26:565, 2006).

A threshold t is the probability from which a patient is treated as class 1; who chooses it says that a false alarm
weighs t / (1 - t) of a case that is found. Net benefit is found cases less false alarms so weighed, per patient; to
treat nobody has 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmmil.evaluation.bootstrap import percentile_interval, resample
from mmmil.evaluation.metrics import CONFIDENCE

THRESHOLDS = np.round(np.arange(0.05, 0.951, 0.05), 2)
COLUMNS = ["threshold", "net_benefit", "low", "high", "treat_all", "gain", "gain_low", "gain_high"]


def net_benefit(
    label: np.ndarray, called: np.ndarray, threshold: float, weights: np.ndarray | None = None
) -> np.ndarray:
    """Net benefit per patient of treating those `called` (n,), bool; weights (draws, n): how often each is drawn.

    Returns (draws,), or (1,) without weights.
    """
    weights = np.ones((1, len(label))) if weights is None else weights
    found, false = weights @ (called & (label == 1)), weights @ (called & (label == 0))
    return (found - false * threshold / (1 - threshold)) / weights.sum(1)


def curve(
    label: np.ndarray,
    prob: np.ndarray,
    folds: np.ndarray | None = None,
    confidence: float = CONFIDENCE,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """A decision curve: a row per threshold of THRESHOLDS, columns COLUMNS.

    label, prob, folds (n,): every patient once. Intervals are a bootstrap's over patients within class and fold, so for
    this share of class 1. gain: over the better of treating all and treating none, on the same draws; the better is
    taken from the patients as they are.
    """
    label, prob = np.asarray(label), np.asarray(prob, float)
    weights = resample(label, np.zeros(len(label)) if folds is None else np.asarray(folds), draws, seed)
    rows, everybody = [], np.ones(len(label), bool)
    for t in THRESHOLDS:
        value, drawn = (net_benefit(label, prob >= t, t, w) for w in (None, weights))
        of_all, all_drawn = (net_benefit(label, everybody, t, w) for w in (None, weights))
        beside, beside_drawn = (of_all[0], all_drawn) if of_all[0] > 0 else (0.0, np.zeros(draws))
        gain = percentile_interval(drawn - beside_drawn, confidence)
        rows.append((t, value[0], *percentile_interval(drawn, confidence), of_all[0], value[0] - beside, *gain))
    return pd.DataFrame(rows, columns=COLUMNS)


def curves(predictions: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """`curve` of every model over its validation patients (`calibration.once`): columns variant and COLUMNS."""
    val = predictions[predictions["split"] == "val"]
    of_model = {name: val[val["variant"] == name] for name in names}
    found = [
        curve(rows["label"].to_numpy(), rows["prob"].to_numpy(), rows["fold"].to_numpy()).assign(variant=name)
        for name, rows in of_model.items()
        if len(rows)
    ]
    return pd.concat(found, ignore_index=True)[["variant", *COLUMNS]]


def useful(table: pd.DataFrame) -> pd.Series:
    """variant -> the thresholds at which its gain over treating all and none is above 0 with its whole interval, in
    words.
    """
    return pd.Series(
        {name: _ranges(rows["gain_low"].to_numpy() > 0) for name, rows in table.groupby("variant", sort=False)},
        name="thresholds with a gain",
    )


def _ranges(above: np.ndarray) -> str:
    """'0.10; 0.25 to 0.60' of the THRESHOLDS that are True, 'none' of none."""
    steps = np.flatnonzero(above)
    runs = np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1) if len(steps) else []
    ends = [(THRESHOLDS[run[0]], THRESHOLDS[run[-1]]) for run in runs]
    return "; ".join(f"{a:.2f}" if a == b else f"{a:.2f} to {b:.2f}" for a, b in ends) or "none"
