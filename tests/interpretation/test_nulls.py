"""Nulls of attention over gene sets: what they change and what not, and p-values that are never zero."""

import numpy as np
import pandas as pd
import pytest

from mmmil import params, record
from mmmil.book import sections
from mmmil.interpretation import gene_sets, nulls
from mmmil.training import runs
from tests.interpretation.test_extract import SMALL
from tests.small_studies import make


@pytest.fixture(scope="module")
def genes_only(tmp_path_factory):
    own = {"inputs": "genes", "variants": ["go"], "null_models": 2, "null_draws": 100, "epochs": 2}
    return make(tmp_path_factory.mktemp("genes"), **SMALL | own)


def test_p_values_count_the_observed_one_and_are_never_zero():
    effect, null = np.array([0.9, -0.2, 0.0]), np.array([[0.1, -0.2, 0.3], [-0.4, 0.1, 0.0]])
    assert np.allclose(nulls.own_p(effect, null), [1 / 3, 2 / 3, 1])
    assert np.allclose(nulls.pooled_p(effect, null), [1 / 7, 4 / 7, 1])


def test_only_labels_of_the_development_patients_are_permuted(genes_only):
    labels = nulls.permuted_labels(genes_only, 0)
    development, test = genes_only.fold_patients(-1)
    assert (labels[test] == genes_only.labels[test]).all()
    assert (labels[development] != genes_only.labels[development]).any()
    assert sorted(labels[development]) == sorted(genes_only.labels[development])
    assert labels.equals(nulls.permuted_labels(genes_only, 0))
    assert not labels.equals(nulls.permuted_labels(genes_only, 1))
    folders = [runs.run(genes_only, "go", -1, labels=given) for given in (None, labels)]
    inputs = [record.run_json(folder)["inputs"] for folder in folders]
    assert {name for name in inputs[0] if inputs[0][name] != inputs[1][name]} == {"train"}
    assert runs.run(genes_only, "go", -1, labels=genes_only.labels) == folders[0]


def test_every_null_gives_a_p_and_the_survivors_are_counted(genes_only, monkeypatch, code_replaced):
    tables = nulls.against(genes_only, "go")
    table = tables["self_genes"]
    least = {"labels": 1 / (1 + genes_only.p.n_permutations), "trained": 1 / (1 + 2 * 9), "untrained": 1 / 101}
    for null, p in (least | {"size": 1 / 101}).items():
        assert np.allclose(table[f"least_{null}"], p) and (table[f"p_{null}"] >= p - 1e-12).all()
    for null in nulls.SHOWN_AS:
        assert table[f"p_{null}"].between(0, 1).all() and (table[f"p_{null}"] > 0).all()
    counted = nulls.survival({"self_genes": table}, 0.5).set_index("null")
    for null in nulls.SHOWN_AS:
        expected = ((table["fdr"] < 0.5) & (table[f"p_{null}"] < 0.5)).sum()
        assert counted.loc[null, "survive"] == expected
    assert counted.loc["all", "survive"] <= counted["survive"].min()
    monkeypatch.setattr(nulls, "_random_tokens", lambda *_: pytest.fail("drawn again"))
    again = nulls.against(genes_only, "go")["self_genes"]
    assert again.equals(table), "found in the record"


def test_a_null_that_is_too_small_to_decide_counts_nothing_and_is_left_out():
    table = pd.DataFrame({"fdr": [0.001, 0.002, 0.5]})
    for null in nulls.SHOWN_AS:
        table[f"p_{null}"], table[f"least_{null}"] = [0.001, 0.2, 0.001], 0.001
    table["p_trained"], table["least_trained"] = [0.053, 0.1, 0.2], 0.053  # 2 models of 9 sets, as in the demo
    counted = nulls.survival({"self_genes": table}, 0.01).set_index("null")
    assert pd.isna(counted.loc["trained", "survive"]) and pd.isna(counted.loc["trained", "alone"])
    assert counted.loc[["labels", "untrained", "size", "all"], "survive"].tolist() == [1, 1, 1, 1]
    assert counted.loc["trained", ["found_p", "least_p"]].tolist() == [0.053, 0.053]
    assert counted.loc["labels", "alone"] == 2


def test_the_section_page_says_where_a_null_cannot_decide(monkeypatch):
    rows = [("self_genes", "go", null, 3, 1, 0.001) for null in [*nulls.SHOWN_AS, "all"]]
    rows[1], rows[4] = ("self_genes", "go", "trained", 3, None, 0.053), ("self_genes", "go", "all", 3, 1, None)
    table = pd.DataFrame(rows, columns=["source", "library", "null", "differ", "survive", "least_p"])
    monkeypatch.setattr(sections, "read_results", lambda *_: table)
    text = sections._attention_nulls({"lgg": params.load("lgg", "demo")})
    assert "| self | GO | 3 | 1 | cannot decide | 1 | 1 | 1 |" in text
    assert "0.053, is not below the limit of 0.01" in text and "`null_models`" in text


def test_random_genes_are_others_than_the_sets_own(genes_only):
    draw = nulls._random_tokens(genes_only, "go", None)
    tokens, n_test = genes_only.gene_tokens(-1, "go"), len(genes_only.fold_patients(-1)[1])
    first = draw(0)
    assert first.shape == (n_test, *tokens.tokens.shape[1:]) and np.isfinite(first).all()
    assert np.array_equal(first, draw(0)) and not np.allclose(first, draw(1))


def test_too_few_draws_are_told_before_any_work():
    with pytest.raises(params.ParameterError, match=r"null_draws .* cannot give a p below"):
        params.load("nsclc", "demo", null_draws=50)


def test_effects_of_a_separated_class_are_one():
    labels = np.array([0, 0, 1, 1])
    values = np.array([[1.0, 4], [2, 3], [3, 2], [4, 1]])
    assert gene_sets.effects(values, labels).tolist() == [1, -1]
