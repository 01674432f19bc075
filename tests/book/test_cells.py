"""The road from a prediction to a cell: notebook, section page and ledger show one number, and fail together."""

import re

import numpy as np
import pandas as pd
import pytest

from mmmil import params, results, variants
from mmmil.book import scores
from mmmil.book.text import FAILED, METRICS
from mmmil.evaluation import summary as summaries
from mmmil.ledger.evidence import NotTestable, Results
from mmmil.tables.estimates import estimate
from mmmil.training import runs
from tests import book_stubs

NAMES = ["wsi", "go", "dual_go", "baseline_genes"]


def predict(p, without=()) -> pd.DataFrame:
    """Predictions of NAMES over all folds and the final model; without: (variant, fold) of trainings that failed."""
    rng, frames = np.random.default_rng(0), []
    for name in NAMES:
        for fold in [*range(p.n_folds), -1]:
            label = np.arange(24) % 2
            frame = {"variant": name, "seed": p.seed, "fold": fold, "split": "test" if fold < 0 else "val"}
            frame |= {"patient_id": [f"P{fold}-{i}" for i in range(24)], "label": label}
            frame["prob"] = 1 / (1 + np.exp(0.5 - label - rng.normal(size=24)))
            if (name, fold) not in without:
                frames.append(pd.DataFrame(frame)[runs.PREDICTIONS])
    return runs.gather(frames)


@pytest.fixture
def p(tmp_path, monkeypatch):
    book_stubs.project(tmp_path, tasks=("lgg",), names=["09_summary"])
    monkeypatch.chdir(tmp_path)
    return params.load("lgg", "demo", variants=NAMES)


def record(p, predictions: pd.DataFrame) -> pd.DataFrame:
    """Writes the record as `python -m mmmil record` does; returns the summary as it was computed."""
    summary = summaries.summarise(predictions, p, variants.variants(p))
    results.write(p, results.PREDICTIONS, predictions)
    results.write(p, "metrics", summary)
    return summary


def of_notebook(summary, name: str, metric: str, split: str) -> str:
    return summaries.table(summary, NAMES, split).loc[variants.variant(name).shown_as, metric]


def of_page(p, name: str, metric: str, split: str) -> str:
    text = scores.metrics_table({p.task: summaries.read(p)}, {p.task: "LGG"}, split, "a table")
    head, *lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    (row,) = [line for line in lines if line[0] == variants.variant(name).shown_as]
    shown = row[head.index(f"LGG, {METRICS[metric]}")]
    full = re.search(r'data-n="([^"]+)"', shown)  # the numbers behind the short text
    return estimate(*map(float, full[1].split())) if full else shown


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("metric", list(METRICS))
def test_notebook_page_and_ledger_show_the_same_cell(p, split, metric):
    summary = record(p, predict(p))
    for name in NAMES:
        computed = summaries.cell(summary, name, metric, split)
        recorded = Results(p).cell(name, metric, split)
        assert computed.n_folds == (p.n_folds if split == "val" else 1) and not computed.failed
        assert recorded == pytest.approx(computed, abs=1e-12) and recorded.low < recorded.value < recorded.high
        assert of_notebook(summary, name, metric, split) == of_page(p, name, metric, split) == recorded.text()


@pytest.mark.parametrize(("lost", "split", "other"), [(1, "val", "test"), (-1, "test", "val")])
def test_a_training_that_failed_has_failed_everywhere(p, lost, split, other):
    summary = record(p, predict(p, without=[("go", lost)]))
    assert of_notebook(summary, "go", "roc_auc", split) == summaries.FAILED
    assert of_page(p, "go", "roc_auc", split) == FAILED
    with pytest.raises(NotTestable, match="failed: the training of go"):
        Results(p).cell("go", "roc_auc", split)
    for name, where in [("go", other), ("wsi", split)]:  # no other cell is touched
        shown = Results(p).cell(name, "roc_auc", where).text()
        assert of_notebook(summary, name, "roc_auc", where) == of_page(p, name, "roc_auc", where) == shown


def test_a_variant_without_any_prediction_failed_and_one_not_asked_for_did_not(p):
    everywhere = [("go", fold) for fold in [*range(p.n_folds), -1]]
    summary = record(p, predict(p, without=everywhere))
    assert of_notebook(summary, "go", "roc_auc", "val") == summaries.FAILED
    assert of_page(p, "go", "roc_auc", "val") == FAILED
    missing = summaries.cell(summary, "kegg", "roc_auc")
    assert not missing.failed and np.isnan(missing.value) and missing.text() == "–"


def test_a_record_written_by_hand_without_a_mean_decides_no_claim(p):
    record(p, predict(p))
    table = summaries.read(p)
    table.loc[table["variant"] == "go", "mean"] = np.nan
    results.write(p, "metrics", table)
    with pytest.raises(NotTestable, match="failed: no ROC-AUC of go"):
        Results(p).cell("go", "roc_auc", "val")


def test_a_mean_without_an_interval_stands_alone_everywhere(p):
    record(p, predict(p))
    results.write(p, "metrics", summaries.read(p).assign(ci_low=np.nan, ci_high=np.nan))
    cell = Results(p).cell("wsi", "roc_auc", "val")
    assert cell.text() == f"{cell.value:.3f}" == of_page(p, "wsi", "roc_auc", "val")
    assert cell.text() == of_notebook(summaries.read(p), "wsi", "roc_auc", "val")


def test_the_balance_is_printed_as_every_estimate(p):
    table = summaries.balance(summaries.per_fold(predict(p)), NAMES, ["II", "III"])
    assert table["|sensitivity - specificity|"].str.fullmatch(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]").all()


@pytest.mark.parametrize(
    ("numbers", "signed", "text"),
    [
        ((0.8123, 0.7, 0.9), False, "0.812 [0.700, 0.900]"),
        ((0.5, np.nan, np.nan), False, "0.500"),
        ((0.5,), False, "0.500"),
        ((np.nan, np.nan, np.nan), False, "–"),
        ((0.1, -0.2, 0.4), True, "+0.100 [-0.200, +0.400]"),
    ],
)
def test_an_estimate_is_printed_with_the_interval_it_has(numbers, signed, text):
    assert summaries.estimate(*numbers, signed=signed) == text


def test_tables_of_results_are_read_in_one_module():
    folder = book_stubs.ROOT / "mmmil"
    sources = [path for wing in ("book", "ledger") for path in (folder / wing).glob("*.py")]
    assert len(sources) > 10
    assert not [path.name for path in sources if re.search(r"\bread_(csv|parquet)\(", path.read_text())]


def test_predictions_without_their_columns_are_named(p):
    assert results.read_predictions(p, runs.PREDICTIONS) is None
    predict(p).drop(columns="prob").to_parquet(p.results / "predictions.parquet")
    with pytest.raises(results.ResultsError, match=r"predictions\.parquet lacks the columns prob"):
        results.read_predictions(p, runs.PREDICTIONS)
    with pytest.raises(results.ResultsError):
        _ = Results(p).predictions
