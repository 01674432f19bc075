"""The page of real input: which tasks are twins, and their tables side by side."""

import pandas as pd
import pytest
import yaml

from mmmil import check, params, results
from mmmil.book import real, sections
from mmmil.book import text as page_text
from mmmil.ledger import standing
from tests import book_stubs

READING_STARTS = real.READING[:40]
PAIR = ("real_lgg", "real_lgg_sites")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of both twins: by site every model is 0.1 lower, and one was trained there alone."""
    folder = book_stubs.project(
        tmp_path_factory.mktemp("project"), tasks=PAIR, names=["04_multimodal_ablations"], overlay=""
    )
    for task in PAIR:
        path = folder / "results" / task / "metrics.csv"
        table = pd.read_csv(path, dtype={"table": str})
        late = table[table["variant"] == "baseline_genes"].assign(variant="baseline_late", mean=0.8)
        lower = 0.1 * (task == "real_lgg_sites")
        table = pd.concat([table, late]).assign(mean=lambda t, lower=lower: t["mean"] - lower)
        only = table[table["variant"] == "wsi"].assign(variant="co_go") if lower else table[:0]
        pd.concat([table, only]).to_csv(path, index=False)
    return folder


@pytest.fixture
def project(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def tasks(**changes) -> dict[str, params.Params]:
    first, second = (params.load(task) for task in PAIR)
    return {PAIR[0]: first, PAIR[1]: second.override(**changes)}


def test_tasks_that_differ_in_their_folds_alone_are_twins(project):
    assert real.twins(tasks()) == [PAIR] == real.twins(dict(reversed(tasks().items())))
    assert real.twins(tasks(variants=["wsi"], title="another", notebooks=[])) == [PAIR]
    files = [path.stem for path in (project / "params").glob("real_*.yaml")]
    found = real.twins({name: params.load(name) for name in sorted(files)})
    assert set(found) == {PAIR, ("real_nsclc_zscores", "real_nsclc_zscores_sites")}


@pytest.mark.parametrize(
    "changes",
    [
        *({"lr": 2.0e-4}, {"seed": 1}, {"features_dir": "another"}, {"class_names": ["low", "high"]}),
        *({"fold_groups": "none"}, {"data_dir": "elsewhere"}, {"n_tiles": 32}),
    ],
)
def test_what_differs_in_anything_else_is_no_twin(project, changes):
    assert real.twins(tasks(**changes)) == []


def test_folder_of_each_tasks_own_is_other_data(project):
    own = {task: p.override(data_dir="data/{task}") for task, p in tasks().items()}
    assert real.twins(own) == []


def test_twins_stand_side_by_side_with_intervals_and_no_best(project):
    text = book_stubs.in_full(real.folds(tasks()))
    assert text.count("```{table}") == 2 and "cross-validation" in text and "held-out test patients" in text
    interval = "0.750 [0.600, 0.900] | 0.650 [0.600, 0.900] | -0.100"
    assert f"| WSI + GO, dual-attention | {interval} | {interval} |" in text
    assert "| baseline: late fusion of these two | 0.800 | 0.700 | -0.100 | – | – | – |" in text
    assert "co-attention" not in text  # trained by site alone
    assert "**0." not in text and "No row is marked as best" in text
    assert "Real patients, other features" in text


def test_what_confounds_the_classes_stands_beneath_both_tables(project):
    p = params.load(PAIR[1])
    before = (p.results / "confounded.csv").read_text()
    results.write(p, "confounded", pd.DataFrame([("x", "scaled apart", "y")], columns=check.CONFOUNDED))
    text = real.folds(tasks())
    (p.results / "confounded.csv").write_text(before)
    assert text.count(f"**Confounded**, {p.title}: scaled apart.") == 2 and text.count(". Real cohorts. ±") == 2
    assert "Confounded" not in real.folds(tasks())


def test_where_results_are_missing_the_command_stands(project):
    for executed in ({}, {PAIR[0]: tasks()[PAIR[0]]}):
        text = real.folds(executed)
        assert 'make real REAL_TASKS="real_lgg real_lgg_sites"' in text and "```{table}" not in text
    assert "no results of `real_nsclc_zscores` and `real_nsclc_zscores_sites`" in real.folds(tasks())


def test_twins_of_other_patients_are_not_set_side_by_side(project):
    path = project / "results" / PAIR[1] / "cohort.csv"
    before = path.read_text()
    path.write_text(before.replace("TCGA-AA-0003", "TCGA-AA-0099"))
    text = real.folds(tasks())
    path.write_text(before)
    assert "(12 and 12, 11 in both)" in text and "```{table}" not in text and READING_STARTS not in text


def test_a_copy_without_such_tasks_has_no_table(project):
    toc = project / "_toc.yml"
    before = toc.read_text()
    toc.write_text(yaml.safe_dump({"format": "jb-book", "root": "book/intro", "parts": []}))
    text = real.folds({})
    toc.write_text(before)
    assert text == "No two tasks of this book differ in their folds alone.\n"


def test_a_failed_training_is_told_there_too(project):
    path = project / "results" / PAIR[1] / "metrics.csv"
    before = path.read_text()
    table = pd.read_csv(path, dtype={"table": str})
    table.loc[table["variant"] == "wsi", ["mean", "ci_low", "ci_high"]] = None
    table.to_csv(path, index=False)
    text = book_stubs.in_full(real.folds(tasks()))
    path.write_text(before)
    assert f"| 0.750 [0.600, 0.900] | {page_text.FAILED} | – |" in text


def test_pages_say_what_the_inputs_are_by_the_settings_alone(project):
    note = (
        "**Real patients, other features**: frozen features (`features/hipt_vit256`) in place of the slides' pixels, "
    )
    p = params.load("real_lgg")
    assert page_text.other_features(p).startswith(note + "z-scores in place of counts; no model has a backbone")
    renamed = p.override(task="mine", title="mine")
    assert page_text.other_features(renamed) == page_text.other_features(p)
    assert "backbone" not in page_text.other_features(p.override(inputs="genes", features_dir=""))
    for other in (params.load("lgg"), params.load("real_nsclc"), p.override(synthetic=True)):
        assert page_text.other_features(other) == ""
    assert standing.other_inputs(params.load("nsclc", features_dir="uni")) == [
        "frozen features (`uni`) in place of the slides' pixels"
    ]
    assert "Real patients, other features" in sections.section("04", {PAIR[0]: p})


def test_repeated_cross_validation_is_shown_as_it_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(real, "benchmark", lambda name: tmp_path / f"{name}.csv")
    assert "`python benchmarks/real_repeats.py repeats` has not been run here" in real.measured("repeats")
    page = tmp_path / "real_repeats.md"
    one = "## A cohort\n\n| model | ROC-AUC |\n| --- | --- |\n| GO sets | 0.817 [0.765, 0.863] |\n"
    page.write_text(f"# Real patients, repeated\n\nMade by a command.\n\n{one}\n{one}")
    text = book_stubs.in_full(real.measured("repeats"))
    assert text.startswith("\nMade by a command.") and text.count("#### A cohort\n") == 2
    assert text.count("| GO sets | 0.817 [0.765, 0.863] |") == 2
    assert [text.count(caption) for caption in real.TABLES_OF_REPEATS] == [1, 1]
