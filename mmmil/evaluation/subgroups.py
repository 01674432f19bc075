"""Does a model hold in every kind of patient? Its metrics by site, sex, age, and in glioma IDH and 1p/19q.

A group's ROC-AUC is taken over pairs of patients of one fold, since models of different folds need not share a scale;
its interval is the score interval of so many patients (`intervals.roc_auc`), and the difference from all the others,
who are other patients, that of two independent estimates. Of many groups, one in twenty differs by chance alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmmil.evaluation import intervals
from mmmil.evaluation.calibration import once
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.params import Params

LEAST = 10  # patients of a group, and of each class LEAST_OF_CLASS: smaller ones are joined (sites) or left out
LEAST_OF_CLASS = 3
OTHERS = "other sites"
COLUMNS = ["characteristic", "group", "patients", "class_1", "roc_auc", "low", "high"]
COLUMNS += ["over_others", "over_low", "over_high", "predicted", "observed", "observed_low", "observed_high"]


def groups(characteristics: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    """Characteristics (`cohort.characteristics.of`) as groups: age below its median, or from it on; sites with too few
    patients as one. Text, '' where nothing is known.
    """
    found = characteristics.loc[labels.index].copy()
    if "age" in found:
        median = found["age"].median()
        young = found["age"].lt(median).map({True: f"below {median:g} years", False: f"{median:g} years or more"})
        found["age"] = young.where(found["age"].notna(), "")
    if "site" in found:
        enough = found["site"].map(lambda site: _enough(labels[found["site"] == site]))
        found["site"] = found["site"].where(enough | (found["site"] == ""), OTHERS)
    return found


def pairwise_auc(label: np.ndarray, prob: np.ndarray, folds: np.ndarray) -> float:
    """Share of the pairs of a patient of class 1 and one of class 0, both of one fold, that are ranked rightly; ties
    count one half. NaN without such a pair.
    """
    won = pairs = 0.0
    for fold in np.unique(folds):
        high, low = (prob[(folds == fold) & (label == c)] for c in (1, 0))
        won += (high[:, None] > low).sum() + 0.5 * (high[:, None] == low).sum()
        pairs += len(high) * len(low)
    return won / pairs if pairs else np.nan


def table(predictions: pd.DataFrame, of_group: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """A row per characteristic and group with enough patients, after one of all patients; columns COLUMNS.

    predictions: one model's, each patient once (`once`, validation); of_group: as `groups` returns it. over_others:
    the group's ROC-AUC less that of the patients of the characteristic's other groups. predicted: mean probability of
    class 1, beside the observed share with Wilson's interval. Groups that are too small are not shown.
    """
    rows = [("all", "all patients", *_of_group(predictions, confidence), np.nan, np.nan, np.nan, *_share(predictions))]
    for characteristic in of_group:
        values = of_group[characteristic].reindex(predictions["patient_id"]).fillna("").to_numpy()
        for value in sorted(set(values) - {""}):
            inside, outside = predictions[values == value], predictions[(values != value) & (values != "")]
            if not (_enough(inside["label"]) and _enough(outside["label"])):
                continue
            here, there = _of_group(inside, confidence), _of_group(outside, confidence)
            over = intervals.difference(here[2:], there[2:])
            rows.append((characteristic, value, *here, *over, *_share(inside)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _enough(labels: pd.Series) -> bool:
    return len(labels) >= LEAST and min((labels == c).sum() for c in (0, 1)) >= LEAST_OF_CLASS


def _of_group(rows: pd.DataFrame, confidence: float) -> tuple:
    """patients, class_1, roc_auc, low, high."""
    label = rows["label"].to_numpy()
    auc = pairwise_auc(label, rows["prob"].to_numpy(), rows["fold"].to_numpy())
    n1 = int((label == 1).sum())
    ends = (np.nan, np.nan) if np.isnan(auc) else intervals.roc_auc(auc, [(n1, len(label) - n1)], confidence)
    return len(label), n1, auc, *ends


def _share(rows: pd.DataFrame) -> tuple:
    observed = rows["label"].mean()
    return rows["prob"].mean(), observed, *intervals.share(observed, [len(rows)])


def where_it_shows(p: Params, predictions: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Of a synthetic cohort: the share of validation patients called wrongly, by where their class was planted.

    A row per model and place (both, image, genes; none in null mode): columns variant, shows_in, patients, wrong (a
    share), low, high (Wilson). predictions: of several models (`once`). Raises ValueError for a real cohort.
    """
    if not p.synthetic:
        raise ValueError(f"task '{p.task}' is no synthetic cohort: nobody knows where a patient's class shows")
    truth = pd.read_csv(p.data / "truth" / "patients.csv", dtype={"patient_id": str}).set_index("patient_id")
    val = once(predictions, p).query("split == 'val'")
    val = val.assign(
        wrong=(val["prob"] >= p.threshold) != (val["label"] == 1), shows_in=val["patient_id"].map(truth["shows_in"])
    )
    rows = [
        (name, place, len(of), of["wrong"].mean(), *intervals.share(of["wrong"].mean(), [len(of)]))
        for name in names
        for place, of in val[val["variant"] == name].groupby("shows_in")
    ]
    return pd.DataFrame(rows, columns=["variant", "shows_in", "patients", "wrong", "low", "high"])
