"""The planted truth of the demo's cohorts is found by differential expression and enrichment, task by task."""

import pandas as pd
import pytest

from mmmil import params, study
from mmmil.genes import enrichment, findings
from mmmil.genes import tokens as gene_tokens
from mmmil.simulate import cohort as synthetic
from mmmil.simulate import slides as synthetic_slides


@pytest.fixture
def no_slides(monkeypatch, code_replaced):
    """The cohort's files without drawing its slides, which take most of the time and are not read here."""
    monkeypatch.setattr(synthetic_slides, "write_slide", lambda path, slide: path.write_bytes(b"no slide"))


def load(task, folder, **values):
    p = params.load(
        task,
        "demo",
        **{"inputs": "genes", "variants": ["go", "kegg"]}
        | {"data_dir": str(folder / "data"), "results_dir": str(folder / "results")}
        | values,
    )
    synthetic.make(p, 1)
    return study.load(p)


def recovered(s, library):
    sets = pd.read_csv(s.p.data / "truth" / "sets.csv").query("library == @library")
    table = gene_tokens.enrichment_table(s.p, s.expression, s.labels, s.folds, -1, library)
    return enrichment.recovered(table, sets.loc[sets["planted"], "name"], fdr=0.01)


@pytest.mark.parametrize("task", ["lgg", "nsclc", "brca"])
def test_planted_sets_are_found_in_the_demo_cohort(no_slides, tmp_path, task):
    s = load(task, tmp_path)
    assert findings.find(s.cohort.patients, s.p) == []
    for library, planted in (("go", 9), ("kegg", 4)):
        found = recovered(s, library)
        assert found["planted"] == planted
        assert found["power"] >= 0.8, (library, found)
        # The test permutes genes, and the genes of a set go together (and other sets hold one planted gene each), so
        # more than the 1 % of BH pass: over ten seeds of the three tasks 0 to 3 of 51 GO sets, 0 of 26 KEGG sets.
        assert found["false"] <= 3, (library, found)


def test_what_a_null_cohort_selects_is_few_and_counted_as_false(no_slides, tmp_path):
    """Without any class difference sets pass all the same: why a selected set is an input and no finding."""
    s = load("nsclc", tmp_path, sim_null=True)
    for library, most in (("go", 15), ("kegg", 6)):  # over ten seeds 1 to 10 of 60 GO sets, 0 to 2 of 30 KEGG
        found = recovered(s, library)
        assert found["planted"] == found["found"] == 0 and found["false"] <= most, (library, found)
