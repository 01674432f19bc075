"""External validation: discrimination, calibration and the change from internal, and what cannot be told."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from mmmil.apply import validation
from mmmil.evaluation.metrics import METRICS


@pytest.fixture
def kept():
    inside = {split: {metric: [0.8, 0.7, 0.85] for metric in METRICS} for split in ("val", "test")}
    inside["val"]["f1"] = [0.8, None, None]
    about = {
        "metrics": inside,
        "parameters": {"threshold": 0.5},
        "training": {"patients": {"A": 60, "B": 40}},
        "title": "A or B",
        "variant": {"shown_as": "a model"},
        "synthetic": True,
        "leaks": False,
        "commit": "0",
    }
    return SimpleNamespace(about=about, class_names=["A", "B"])


def predictions(label, prob):
    table = pd.DataFrame({"patient_id": range(len(label)), "label": label, "prob": prob, "flags": "", "problem": ""})
    table.loc[0, "flags"] = "far"
    return table.astype({"label": object})


def test_discrimination_calibration_and_change(kept, tmp_path):
    random = np.random.default_rng(0)
    logit = random.normal(0, 2, 400)
    label = (random.random(400) < 1 / (1 + np.exp(-(0.5 + 0.5 * logit)))).astype(int)
    prob = 1 / (1 + np.exp(-logit))
    table = predictions(label, prob)
    table.loc[len(table)] = ["x", "", np.nan, "", "no slide"]  # who is not predicted counts nowhere
    found = validation.write(tmp_path, kept, table).set_index("quantity")
    auc = found.loc["ROC-AUC"].iloc[0]
    assert auc["value"] == roc_auc_score(label, prob) and auc["low"] < auc["value"] < auc["high"]
    assert (
        auc["change"] == pytest.approx(auc["value"] - 0.8) and auc["internal"] == "internal test 0.800 [0.700, 0.850]"
    )
    assert auc["change_low"] == pytest.approx(auc["change"] - np.hypot(auc["value"] - auc["low"], 0.05))
    assert auc["change_high"] == pytest.approx(auc["change"] + np.hypot(auc["high"] - auc["value"], 0.1))
    assert np.isnan(found.loc["F1"].iloc[1]["change_low"]) and found.loc["F1"].iloc[1]["internal"].endswith("0.800")
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], label)
    assert found.loc["calibration slope", "value"] == pytest.approx(fitted.coef_[0, 0], abs=1e-5)
    low, high = found.loc["calibration slope", ["low", "high"]]
    assert low < 0.5 < high < 1 and found.loc["calibration intercept", "low"] > 0
    assert found.loc["patients", "note"].endswith("1 flagged, 1 not predicted")
    assert set(pd.read_csv(tmp_path / "validation.csv")["model_of"]) == {"synthetic cohort A or B"}
    page = (tmp_path / "validation.html").read_text()
    assert "calibration slope" in page and page.count("data:image/") == 1


def test_worse_than_chance_is_said(kept, tmp_path):
    label = np.repeat([1, 0], 20)
    table = predictions(label, np.linspace(0.2, 0.9, 40) + np.tile([0.3, -0.3], 20))
    notes = validation.write(tmp_path, kept, table).set_index("quantity")["note"]
    assert (notes["ROC-AUC"] == validation.SWAPPED).all() and (notes["PR-AUC"] == "").all()
    page = (tmp_path / "validation.html").read_text()
    assert "labels of the classes are swapped" in page and "names none of the patients" in page


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ([1] * 30, "no patient is A"),
        ([0, 1] * 4, "8 patients, of whom 4 are of the rarer class, are too few"),
        ([0] * 20 + [1], "21 patients, of whom 1 are of the rarer class"),
    ],
)
def test_what_cannot_be_computed_is_said(kept, tmp_path, label, said):
    prob = np.linspace(0.2, 0.9, len(label))
    found = validation.write(tmp_path, kept, predictions(label, prob)).set_index("quantity")
    assert said in found.loc["ROC-AUC", "note"] and said in found.loc["calibration slope", "note"]
    assert np.isnan(found.loc["ROC-AUC", "value"]) and found.loc["Brier score", "value"] > 0


def test_probabilities_that_part_the_classes_have_no_slope(kept):
    label = np.repeat([0, 1], 10)
    found = validation.assess(kept, predictions(label, np.linspace(0.1, 0.9, 20))).set_index("quantity")
    assert "part the classes wholly" in found.loc["calibration slope", "note"]
    assert found.loc["calibration intercept", "value"] == pytest.approx(0, abs=1e-6)
