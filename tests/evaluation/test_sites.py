"""The site told from tokens: found where it is there, not where the class alone tells it."""

import numpy as np
import pandas as pd

from mmmil.evaluation import sites


def called(share, n=120, seed=0, by_class=False):
    """Patients of three sites, of whom a share is called rightly, the others at random; by_class: called by the class
    alone, which goes with the site.
    """
    rng = np.random.default_rng(seed)
    site = np.array(["AA", "BB", "CC"])[rng.integers(0, 3, n)]
    label = rng.integers(0, 2, n)
    said = np.where(rng.random(n) < share, site, np.array(["AA", "BB", "CC"])[rng.integers(0, 3, n)])
    if by_class:
        label = np.where(rng.random(n) < 0.9, (site == "AA").astype(int), rng.integers(0, 2, n))
        said = np.where(label == 1, "AA", "BB")
    about = {"patient_id": [f"P{i}" for i in range(n)], "label": label, "fold": np.arange(n) % 5, "tokens": "image"}
    return pd.DataFrame(about | {"site": site, "called": said})


def test_balanced_accuracy_weighs_sites_alike():
    site, said = np.array(["AA"] * 9 + ["BB"]), np.array(["AA"] * 10)
    assert sites.balanced_accuracy(site, said) == 0.5


def test_a_site_that_tokens_tell_is_found_and_one_that_they_do_not_is_not():
    found = sites.table(called(0.5)).iloc[0]
    assert found["p"] == 1 / (1 + sites.PERMUTATIONS) and found["low"] > found["null_high"] and found["sites"] == 3
    nothing = sites.table(called(0.0)).iloc[0]
    assert nothing["p"] > 0.05 and nothing["low"] < 1 / 3 < nothing["high"]


def test_what_the_class_says_of_the_site_is_in_the_null():
    found = sites.table(called(0.0, by_class=True)).iloc[0]
    assert found["balanced_accuracy"] > 0.45 and found["p"] > 0.05


def test_the_least_p_is_not_given_too_often():
    p = [sites.table(called(0.0, 40, seed)).iloc[0]["p"] for seed in range(40)]
    assert np.mean(np.array(p) < 0.05) <= 0.15


def test_patients_that_were_not_asked_for_do_not_count_and_one_site_is_none():
    table = called(0.5)
    more = pd.concat([table, table.assign(site="", called="AA")])
    pd.testing.assert_frame_equal(sites.table(more), sites.table(table))
    assert sites.table(table.assign(site="AA")).empty and sites.table(table.assign(site="")).empty
