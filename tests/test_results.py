"""Results lie apart by overlay, say of which cohort they are, and are read as no other cohort's."""

import pandas as pd
import pytest

from mmmil import params, results

TABLE = pd.DataFrame({"patient_id": ["007", "8"], "roc_auc": [0.25, 0.5]})


@pytest.fixture
def runs(tmp_path):
    """A run with the overlay and one without, of one task, in a folder of their own."""
    place = str(tmp_path / "results/{run}")
    return params.load("lgg", "demo", results_dir=place), params.load("lgg", results_dir=place)


def test_runs_of_one_task_lie_apart_by_overlay(runs, tmp_path):
    demo, paper = runs
    assert (demo.results, paper.results) == (tmp_path / "results/demo/lgg", tmp_path / "results/lgg")
    assert (demo.run, paper.run) == ("demo/lgg", "lgg")
    assert (demo.cohort, paper.cohort) == ("synthetic cohort demo/lgg", "lgg")
    assert demo.override(overlay="").results == paper.results
    default = params.load("lgg", "demo").results.relative_to(params.root())
    assert default.as_posix() == "results/demo/lgg"


def test_where_a_run_lies_is_in_no_key():
    demo = params.load("lgg", "demo")
    moved = demo.override(overlay="another", results_dir="results/{task}")
    assert moved.results != demo.results and moved.stage("cohort", "training") == demo.stage("cohort", "training")


def test_a_table_says_of_which_cohort_it_is_and_is_read_back_as_it_was(runs):
    demo, _ = runs
    path = results.write(demo, "metrics", TABLE)
    assert path.read_text().startswith("cohort,patient_id,roc_auc\nsynthetic cohort demo/lgg,007,0.25\n")
    pd.testing.assert_frame_equal(results.read_results(demo, "metrics", ["roc_auc"]), TABLE)
    assert "cohort" not in TABLE and results.read_results(demo, "other", []) is None
    results.write(demo, results.PREDICTIONS, TABLE)
    assert set(pd.read_parquet(demo.results / "predictions.parquet")["cohort"]) == {demo.cohort}
    pd.testing.assert_frame_equal(results.read_predictions(demo, ["roc_auc"]), TABLE)


def test_a_table_without_rows_keeps_its_columns(runs):
    results.write(runs[0], "failures", TABLE[:0])
    assert list(results.read_results(runs[0], "failures", ["roc_auc"])) == list(TABLE)
    results.require_own(runs[0])


@pytest.mark.parametrize("before", [True, False])
def test_tables_of_another_cohort_are_refused(runs, before):
    """before: made when the results of an overlay lay in results/<task>, and tables did not name their cohort."""
    demo, paper = runs
    results.write(demo, "metrics", TABLE)
    results.write(demo, results.PREDICTIONS, TABLE)
    demo.results.rename(paper.results)
    told = "synthetic cohort demo/lgg"
    if before:
        TABLE.to_csv(paper.results / "metrics.csv", index=False)
        TABLE.to_parquet(paper.results / "predictions.parquet")
        told = "a cohort that it does not name"
    for read in (
        lambda: results.read_results(paper, "metrics", []),
        lambda: results.read_predictions(paper, []),
        lambda: results.require_own(paper),
    ):
        with pytest.raises(results.ResultsError, match=rf"lgg/(metrics|predictions).\w+ is of {told}, .*Remove"):
            read()


def test_a_folder_without_tables_holds_nothing_of_others(runs):
    demo, paper = runs
    results.require_own(demo)
    results.write(demo, "metrics", TABLE)
    results.require_own(demo)
    results.require_own(paper)  # it does not look into the folder of an overlay
