"""Subgroups: pairs within folds, groups of enough patients, and a group for which a model does nothing."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mmmil import params
from mmmil.evaluation import subgroups


def predictions(n=200, seed=0):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    prob = 1 / (1 + np.exp(-(3 * label - 1.5 + rng.normal(0, 1, n))))
    ids = [f"P{i:03d}" for i in range(n)]
    return pd.DataFrame({"patient_id": ids, "label": label, "prob": prob, "fold": np.arange(n) // 2 % 5})


def test_pairs_are_those_of_one_fold():
    table = predictions()
    label, prob = table["label"].to_numpy(), table["prob"].round(1).to_numpy()
    one = np.zeros(len(table))
    assert subgroups.pairwise_auc(label, prob, one) == pytest.approx(roc_auc_score(label, prob))
    # Two folds on scales of their own: each ranks rightly, together they do not.
    label, prob, folds = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    assert subgroups.pairwise_auc(label, prob, folds) == 1 > roc_auc_score(label, prob)
    assert np.isnan(subgroups.pairwise_auc(np.array([0, 1]), np.array([0.1, 0.9]), np.array([0, 1])))


def test_small_sites_are_one_group_and_age_is_parted_at_its_median():
    labels = pd.Series(np.arange(40) % 2, index=[f"P{i}" for i in range(40)])
    told = pd.DataFrame(index=labels.index)
    told["site"] = ["AA"] * 20 + ["BB"] * 9 + ["CC"] * 10 + [""]
    told["age"] = [*np.arange(39.0), np.nan]
    labels[[f"P{i}" for i in range(29, 39)]] = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]  # CC: two of class 1
    groups = subgroups.groups(told, labels)
    assert groups["site"].value_counts().to_dict() == {"AA": 20, subgroups.OTHERS: 19, "": 1}
    assert groups["age"].value_counts().to_dict() == {"below 19 years": 19, "19 years or more": 20, "": 1}


def test_a_group_that_the_model_does_nothing_for_is_told_from_the_others():
    table = predictions()
    groups = pd.DataFrame({"sex": ["female", "female", "male", "male"] * 50}, index=table["patient_id"])
    men = groups["sex"].to_numpy() == "male"
    mixed = table.assign(prob=np.where(men, np.random.default_rng(0).random(len(table)), table["prob"]))
    found = subgroups.table(mixed, groups).set_index("group")
    assert found.loc["male", "low"] < 0.5 < found.loc["male", "high"] < found.loc["female", "low"]
    assert found.loc["male", "over_high"] < 0 < found.loc["female", "over_low"]
    even = subgroups.table(table, groups).set_index("group")
    assert even.loc["male", "over_low"] < 0 < even.loc["male", "over_high"]
    assert even["patients"].tolist() == [200, 100, 100] and np.isnan(even.loc["all patients", "over_others"])
    assert (even["observed_low"] < even["observed"]).all()


def test_groups_too_small_and_patients_of_whom_nothing_is_known_are_not_shown():
    table = predictions(60)
    groups = pd.DataFrame({"IDH": ["mutant"] * 45 + ["wild type"] * 5 + [""] * 10}, index=table["patient_id"])
    assert subgroups.table(table, groups)["group"].tolist() == ["all patients"]  # 5 others are no comparison either


def test_where_the_class_shows_is_known_of_synthetic_cohorts_alone(tmp_path):
    p = params.load("lgg", "demo", data_dir=str(tmp_path))
    (tmp_path / "truth").mkdir()
    truth = pd.DataFrame({"patient_id": ["P1", "P2", "P3", "P4"], "shows_in": ["both", "both", "image", "genes"]})
    truth.to_csv(tmp_path / "truth" / "patients.csv", index=False)
    rows = {"variant": "go", "seed": p.seed, "fold": 0, "split": "val", "patient_id": truth["patient_id"]}
    table = pd.DataFrame(rows | {"label": [0, 1, 1, 0], "prob": [0.1, 0.4, 0.2, 0.3]})
    found = subgroups.where_it_shows(p, table, ["go", "wsi"]).set_index("shows_in")
    assert found["wrong"].to_dict() == {"both": 0.5, "image": 1.0, "genes": 0.0}
    assert found["patients"].tolist() == [2, 1, 1] and (found["variant"] == "go").all()
    with pytest.raises(ValueError, match="is no synthetic cohort"):
        subgroups.where_it_shows(p.override(synthetic=False), table, ["go"])
