"""Settings chosen otherwise: each open setting has a topic, each value is legal, and the page shows what was found."""

import pkgutil
import re

import pandas as pd
import pytest
import torch

from mmmil import params, schema
from mmmil.book import unsaid
from mmmil.book.decisions import DECISIONS
from mmmil.evaluation import alternatives
from mmmil.models.fusion import MultimodalMIL
from tests import book_stubs


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(book_stubs.ROOT)
    folder = book_stubs.project(tmp_path, tasks=())
    monkeypatch.chdir(folder)
    return folder


def test_every_open_setting_stands_under_its_topic(project):
    text = unsaid.unsaid()
    assert set(unsaid.TOPICS) == set(schema.UNSTATED.values())
    assert all(text.count(f"| `{name}` |") == 1 for name in schema.UNSTATED)


def test_what_no_setting_decides_stands_there_with_the_code_that_does(project):
    """The list is the issue's; a decision whose code was moved or renamed is found here."""
    text = unsaid.unsaid()
    for words in (
        "positive class",
        "test set",
        "keys of cross-attention",
        '"the" attention',
        "GSEA ranks",
        "branch of GO",
    ):
        assert words.lower() in text.lower(), words
    for words in ("optimiser", "classifier", "confidence intervals"):
        assert any(words in decision.open for decision in DECISIONS), words
    for decision in DECISIONS:
        assert decision.topic in unsaid.TOPICS and f"`mmmil.{decision.where}`" in text
        assert callable(pkgutil.resolve_name(f"mmmil.{decision.where}"))


def test_what_is_said_of_a_decision_is_what_the_code_does():
    model = MultimodalMIL("dual", image_dim=4, gene_dim=4, n_sets=3, width=8).eval()
    asked = []
    for attention in (model.image_to_genes, model.genes_to_image):
        attention.register_forward_pre_hook(lambda module, args: asked.append(args))
    encoded = model.encode(torch.randn(2, 5, 4), torch.randn(2, 3, 4))
    (image, sets), (genes, tiles) = (args[:2] for args in asked)
    assert image is encoded.vectors["image"] and genes is encoded.vectors["genes"]  # the summaries ask
    assert sets is encoded.tokens["genes"] and tiles is encoded.tokens["image"]  # tokens as encoded are the keys
    assert [type(layer).__name__ for layer in model.classifier] == ["LayerNorm", "Dropout", "Linear"]
    second = {"lgg": "grade III", "nsclc": "LUSC", "brca": "TNBC"}
    assert {task: params.load(task).class_names[1] for task in second} == second


def test_every_value_tried_is_legal_and_differs_from_the_demo():
    p = params.load("lgg", "demo")
    for setting, values in alternatives.TRIED.items():
        for value in values:
            changed = p.override(**{setting: value})
            assert getattr(changed, setting) != getattr(p, setting), setting


def measured(auc: dict[str, float], value: str = "0.3") -> list[dict]:
    row = dict.fromkeys(alternatives.COLUMNS, 0.0) | {"task": "lgg", "cohort": "LGG", "synthetic": True}
    row |= {"patients": 37, "value": value, "default_value": "0.6", "commit": "abc"}
    return [row | {"setting": "gene_dropout", "variant": v, "difference": d, "ci_low": d - 0.1} for v, d in auc.items()]


def test_rows_are_replaced_and_others_kept(project):
    alternatives.add(measured({"go": 0.1, "dual_go": 0.2}))
    alternatives.add(measured({"go": 0.3}))
    table = alternatives.add(measured({"go": 0.5}, value="0.0"))
    assert len(table) == 3
    told = alternatives.effect(alternatives.read(), "gene_dropout")
    assert "`0.3`: dual_go +0.200 [+0.100, +0.000], go +0.300" in told and "`0.0`: go +0.500" in told


def plain(text):
    """Without the marks of HTML that intervals carry in a table."""
    return re.sub(r"<[^>]+>", "", text)


def test_a_change_is_set_against_what_it_was_measured_against(project):
    rows = measured({"go": 0.1}, value="256") + measured({"go": 0.2}, value="512")
    alternatives.add([row | {"setting": "ae_hidden", "default_value": "64"} for row in rows])
    alternatives.add(measured({"go": 0.3}))
    text = unsaid.unsaid()
    line = next(x for x in text.split("\n") if x.startswith("| `ae_hidden`"))
    assert "| `256` |" in line and "`256` instead of `64`: go +0.100" in plain(line) and "`512` instead of `64`" in line
    assert "`0.3`: go +0.300" in plain(text)  # against the default itself


def test_the_page_says_what_was_measured_on_which_cohort_or_how_to(project):
    assert "has not been measured here" in unsaid.unsaid()
    alternatives.add(measured({"go": 0.1}))
    text = unsaid.unsaid()
    line = next(x for x in text.split("\n") if x.startswith("| `gene_dropout`"))
    assert "lgg: `0.3`: go +0.100" in plain(line) and "37 patients, a synthetic cohort" in text


def test_a_table_of_other_columns_is_named(project):
    alternatives.path().parent.mkdir(parents=True)
    pd.DataFrame({"a": [1]}).to_csv(alternatives.path(), index=False)
    with pytest.raises(params.ParameterError, match=r"alternatives\.csv: has other columns"):
        alternatives.read()
