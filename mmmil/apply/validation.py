"""External validation: how a kept model does on patients it never saw, and how that differs from what it promised.

Discrimination by the evaluation's own metrics and intervals; calibration by Brier's score,
the calibration intercept and the calibration slope (Van Calster et al., BMC Med. 17:230, 2019). The change from the
internal figures is a difference of two independent estimates, its interval that of Zou and Donner (Stat. Med. 27:1693,
2008), which needs nothing of the internal patients but the intervals.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmil import record
from mmmil.apply import folder
from mmmil.apply import page as pages
from mmmil.apply.folder import KeptModel
from mmmil.evaluation import intervals
from mmmil.evaluation.calibration import recalibration
from mmmil.evaluation.metrics import CONFIDENCE, METRICS
from mmmil.evaluation.summary import estimate

LEAST = 10  # patients, and at least two of each class: below, an interval says nothing
COLUMNS = ["quantity", "value", "low", "high", "internal", "change", "change_low", "change_high", "note"]
NAMES = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "f1": "F1"}
BRIER, INTERCEPT, SLOPE = "Brier score", "calibration intercept", "calibration slope"
FILES = ("validation.csv", "validation.html")
SWAPPED = "below 0.5 with its whole interval, worse than chance: see whether the labels of the classes are swapped"
INTERNAL = {"test": "internal test", "val": "cross-validation"}


def assess(kept: KeptModel, table: pd.DataFrame) -> pd.DataFrame:
    """The validation of predictions.csv's table: one row per quantity and internal figure, columns COLUMNS.

    internal: which of the model's own figures `change` is from; '' where there is none. What cannot be computed has a
    note that says why.
    """
    known = labelled(table)
    label, prob = known["label"].to_numpy(int), known["prob"].to_numpy()
    counts = [int((label == c).sum()) for c in (0, 1)]
    rows = [{"quantity": "patients", "value": len(known), "note": _counted(kept, table, counts)}]
    lacking = _lacking(kept, counts)
    threshold = kept.about["parameters"]["threshold"]
    if lacking:
        rows += [{"quantity": NAMES.get(name, name), "note": lacking} for name in METRICS]
    else:
        here = intervals.of_model(label, prob, None, threshold, CONFIDENCE)
        for name in METRICS:
            external = tuple(here.loc[name, ["mean", "low", "high"]])
            for split, called in INTERNAL.items():
                value, low, high = (math.nan if x is None else x for x in kept.about["metrics"][split][name])
                change = intervals.difference(external, (value, low, high))
                row = _row(NAMES.get(name, name), external, f"{called} {estimate(value, low, high)}", change)
                rows.append(row | ({"note": SWAPPED} if name == "roc_auc" and external[2] < 0.5 else {}))
    rows += _calibration(label, prob, lacking)
    empty = dict.fromkeys(COLUMNS, math.nan) | {"internal": "", "note": ""}
    return pd.DataFrame([empty | row for row in rows], columns=COLUMNS)


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The predicted patients whose label is known."""
    return table[(table["problem"] == "") & (table["label"].astype(str) != "")]


def _counted(kept: KeptModel, table: pd.DataFrame, counts: list[int]) -> str:
    flagged, refused = int((table["flags"] != "").sum()), int((table["problem"] != "").sum())
    classes = ", ".join(f"{n} {name}" for n, name in zip(counts, kept.class_names, strict=True))
    return f"{classes}; {flagged} flagged, {refused} not predicted"


def _lacking(kept: KeptModel, counts: list[int]) -> str:
    """Why discrimination cannot be told, or ''."""
    absent = [name for n, name in zip(counts, kept.class_names, strict=True) if not n]
    if absent:
        return f"not computed: no patient is {' or '.join(absent)}"
    if sum(counts) < LEAST or min(counts) < 2:
        return f"not computed: {sum(counts)} patients, of whom {min(counts)} are of the rarer class, are too few"
    return ""


def _row(name: str, external: tuple, internal: str, change: tuple) -> dict[str, Any]:
    cells = dict(zip(("value", "low", "high"), external, strict=True))
    return {"quantity": name, **cells, "internal": internal} | dict(
        zip(("change", "change_low", "change_high"), change, strict=True)
    )


# -- calibration -------------------------------------------------------------------------------------------------
def _calibration(label: np.ndarray, prob: np.ndarray, lacking: str) -> list[dict[str, Any]]:
    from scipy.stats import norm

    rows: list[dict[str, Any]] = []
    if len(label):
        share = label.mean()
        note = f"{share * (1 - share):.3f} is what the share of the classes alone gives"
        rows.append({"quantity": BRIER, "value": float(np.square(prob - label).mean()), "note": note})
    if lacking:
        return [*rows, *({"quantity": name, "note": lacking} for name in (INTERCEPT, SLOPE))]
    z = norm.ppf((1 + CONFIDENCE) / 2)
    for name, terms, ideal in (
        (INTERCEPT, ["intercept"], "0: as many as predicted"),
        (SLOPE, ["intercept", "slope"], "1: as spread as predicted"),
    ):
        found = recalibration(label, prob, terms)
        if found is None:
            rows.append({"quantity": name, "note": "not computed: the probabilities part the classes wholly"})
        else:
            value, error = found[0][-1], found[1][-1]
            ends = {"value": value, "low": value - z * error, "high": value + z * error}
            rows.append({"quantity": name, **ends, "note": ideal})
    return rows


# -- the page ----------------------------------------------------------------------------------------------------
def shown(assessed: pd.DataFrame) -> pd.DataFrame:
    """The validation as it is printed: quantity, here, internal, change, note."""
    rows = []
    for row in assessed.itertuples():
        here = f"{row.value:.0f}" if row.quantity == "patients" else estimate(row.value, row.low, row.high)
        change = estimate(row.change, row.change_low, row.change_high, signed=True) if row.internal else ""
        rows.append([row.quantity, here, row.internal, change, row.note])
    return pd.DataFrame(rows, columns=["quantity", "here", "internal", "change", "note"])


def figure(kept: KeptModel, table: pd.DataFrame) -> Any:
    """The calibration plot, None where no patient's label is known."""
    from mmmil.plots import validation as plots
    from mmmil.plots.style import of_cohort

    of_cohort(kept.about["synthetic"])
    known = labelled(table)
    if len(known) < 2:
        return None
    label, prob = known["label"].to_numpy(int), known["prob"].to_numpy()
    line = recalibration(label, prob) if len(np.unique(label)) == 2 else None
    return plots.calibration(label, prob, kept.class_names, None if line is None else (line[0][0], line[0][1]))


def write(out: Path, kept: KeptModel, table: pd.DataFrame) -> pd.DataFrame:
    """Write validation.csv and validation.html; returns `assess`'s table."""
    assessed = assess(kept, table)
    record.write_atomically(out / FILES[0], lambda t: folder.of_model(kept, assessed).to_csv(t, index=False))
    printed, drawn = shown(assessed), figure(kept, table)
    trained, known = kept.about["training"]["patients"], labelled(table)["label"].astype(int)
    share = list(trained.values())[1] / max(sum(trained.values()), 1)
    parts = [
        f"<h1>External validation: {pages.escaped(kept.about['title'])}</h1>",
        f'<p class="sub">{pages.escaped(kept.about["variant"]["shown_as"])}, the final model, on new patients.</p>',
        pages.table(list(printed.columns), printed.to_numpy().tolist()),
        f"<p>Intervals: {CONFIDENCE:.0%}, over patients. PR-AUC goes with the share of "
        f"{pages.escaped(kept.class_names[1])}, which is {known.mean() if len(known) else math.nan:.0%} here and "
        f"{share:.0%} among the model's own patients: its change is one of the patients, too.</p>",
        "<p>The model's folder names none of the patients that it was trained on. Whether some of these are among them "
        "cannot be seen here, and would make these figures too good: make sure that none is.</p>",
    ]
    if drawn is not None:
        parts += ["<h2>Calibration</h2>", pages.figure(drawn, "calibration plot", width="62%")]
    text = pages.page("External validation", kept.about, parts, f"Kept by commit {kept.about['commit']}.")
    record.write_atomically(out / FILES[1], lambda t: t.write_text(text))
    return assessed
