"""Tables of a notebook carry their cohort, and those of scores what else tells the classes apart."""

import json
import re

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from mmmil import plots, results
from mmmil.book import captions
from mmmil.evaluation import summary
from tests import book_stubs

PATIENTS = pd.DataFrame({"label": [0, 1]}, index=["P1", "P2"])
WARNING = "all of A & B lie in one file"


def caption(table, warnings=(WARNING,)):
    (found,) = re.findall(r"<table[^>]*>\s*<caption>(.*?)</caption>", captions.captioned(table, "LGG, x", warnings))
    return found


def scores():
    rows = [("5", "wsi", metric, "val", 0.7, 0.6, 0.8, 5) for metric in ("roc_auc", "pr_auc")]
    return summary.table(pd.DataFrame(rows, columns=summary.SUMMARY), ["wsi"])


def test_every_table_carries_its_cohort():
    assert caption(PATIENTS) == caption(PATIENTS.style) == "LGG, x"
    assert caption(scores(), warnings=()).startswith('LGG, x. <span class="key">±')


@pytest.mark.parametrize("table", [scores(), pd.DataFrame({"metric": ["roc_auc"], "value": [0.7]})])
def test_a_table_of_scores_carries_the_warning(table):
    assert caption(table).startswith("LGG, x")
    assert caption(table).endswith("<br><strong>Confounded</strong>: all of A &amp; B lie in one file.")


def test_what_was_counted_on_no_patients_carries_none():
    table = results.of_no_cohort(pd.DataFrame({"parameters": [1]}))
    assert "<caption>" not in captions.captioned(table, "LGG", [WARNING])


def test_a_kernel_shows_them_from_then_on(monkeypatch):
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)

    def show(table):
        return shell.display_formatter.format(table)[0]

    assert "<caption>" not in show(PATIENTS)["text/html"]
    captions.carry("LGG", True, [WARNING])
    assert "<caption>LGG, synthetic cohort</caption>" in show(PATIENTS)["text/html"]
    assert WARNING.replace("&", "&amp;") in show(scores())["text/html"]
    assert show(pd.DataFrame({"a": [1]}))["text/html"].count("Confounded") == 0
    captions.carry("LGG", True, [WARNING], ["class is a file"])
    rows = pd.DataFrame({"auc": [0.7], "low": [0.6], "high": [0.8], "patients": [9], "a": ["x"], "b": ["y"]})

    def written():
        figure = plots.rows_of_estimates(rows, "auc", "a", "b", "ROC-AUC")
        return " ".join(text.get_text() for text in figure.texts)

    assert "class is a file" in written() and "synthetic" in written()
    captions.carry("LUNG", False)
    assert written() == ""
    assert "<caption>LUNG</caption>" in show(PATIENTS)["text/html"] and "label" in show(PATIENTS)["text/plain"]


def test_every_notebook_names_its_cohort_before_its_tables():
    for path in sorted((book_stubs.ROOT / "notebooks").glob("[0-9]*.ipynb")):
        cells = [
            "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"
        ]
        first = next(i for i, cell in enumerate(cells) if "page_text.provenance(s)" in cell)
        before = [cell for cell in cells[:first] if "import" not in cell and "task =" not in cell]
        assert all(cell.strip() in ("check.look(p)",) for cell in before), path.name
