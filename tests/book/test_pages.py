"""Generated parts of the book: tables side by side, labels of cohorts, the table of contents, failed notebooks."""

import json

import pandas as pd
import pytest
import yaml

from mmmil import check, paper, params, results, study
from mmmil.apply import folder
from mmmil.book import kept, overview, pages, sections
from mmmil.book import text as page_text
from mmmil.cohort import build as cohorts
from mmmil.evaluation import summary as summaries
from tests import book_stubs


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(book_stubs.ROOT)
    folder = book_stubs.project(tmp_path)
    monkeypatch.chdir(folder)
    return folder


def test_every_part_is_written_and_synthetic_is_labelled(project):
    written = {path.stem: path.read_text() for path in sections.write()}
    own = {"03_costs", "03_benchmarks", "07_readouts", "unsaid", "real", "real_folds", "real_repeats", "real_tuned"}
    own |= {"ledger", "glance", "verdicts", "overview", "found", "doors", "status"}
    assert set(written) == {*sections.PARTS, *own}
    for number in sections.PARTS:
        assert "Synthetic cohorts: not a reproduction" in written[number]
        assert "params/lgg.yaml` + `params/demo.yaml" in written[number]
        assert "12 patients" in written[number]
    assert "| LGG grade II / III | grade II | 6 | 3 | 1 |" in written["01"]
    assert "18 (12–23)" in written["02"] and "| GO | 60 |" in written["02"]
    shown = book_stubs.in_full(written["04"])
    assert f"WSI + GO, dual-attention |{4 * ' 0.750 [0.600, 0.900] |'}" in shown
    assert "baseline: logistic regression, all genes | 0.700 | – |" in shown
    assert "held-out test patients" in written["04"]
    assert "no result for the tables of this section" in written["05"]
    assert "not a reproduction" in written["overview"] and 'TASKS="lgg nsclc" OVERLAY=demo' in written["overview"]
    assert (project / "book/generated/overview_synthetic.png").stat().st_size > 5000
    assert "`lr`" in written["unsaid"] and "`n_tiles`" not in written["unsaid"]
    assert not list((project / "book" / "generated").glob(".*"))


def test_real_and_synthetic_never_share_a_table(project):
    text = (project / "params" / "demo.yaml").read_text().replace("synthetic: true", "synthetic: false")
    text = text.replace("overlay: demo", "overlay: atscale")
    (project / "params" / "atscale.yaml").write_text(text.replace("weights: random", "weights: imagenet"))
    book_stubs.write_results(project, "nsclc", overlay="atscale")
    for page in (project / "book" / "executed" / "demo" / "nsclc").glob("*.ipynb"):
        book_stubs.write_page(project, "nsclc", page.stem, overlay="atscale")
    part = sections.section("04", pages.executed_tasks(["atscale/nsclc"]))
    synthetic, real = part.split("### Real cohorts")
    assert "NSCLC" not in synthetic and "LGG" not in real.split("## The notebooks")[0]
    assert "not a reproduction" not in real


def test_a_selection_that_leaks_is_told_of_its_cohort_alone(project, monkeypatch):
    tasks = {"lgg": params.load("lgg", "demo", selection="all_patients"), "nsclc": params.load("nsclc", "demo")}
    for text in (sections.section("04", tasks), sections.section("09", tasks)):
        told = [line for line in text.split("\n") if "The selection leaks" in line]
        assert len(told) == 1 and "LGG grade II / III" in told[0]
    told = overview.overview(tasks, project).split("\n")
    assert [line[:3] for line in told if "The selection leaks" in line] == ["LGG"]
    assert "leaks" not in page_text.made_on({"nsclc": tasks["nsclc"]})
    patients = cohorts.Cohort(pd.DataFrame({"label": [0, 1]}), pd.DataFrame(), [])
    monkeypatch.setattr(page_text.check, "confounded", lambda *_: pd.DataFrame(columns=check.CONFOUNDED))
    heads = {task: page_text.provenance(study.Study(p, patients, pd.Series(), None)) for task, p in tasks.items()}
    assert "The selection leaks" in heads["lgg"] and "leaks" not in heads["nsclc"]


def test_toc_leaves_out_what_others_have_not_made(project):
    toc = yaml.safe_load(pages.write_toc(["demo/lgg", "demo/nsclc"]).read_text())
    files = [entry["file"] for entry in pages.entries_of(toc)]
    assert "book/executed/demo/lgg/09_summary" in files and "book/real" in files
    assert not [file for file in files if "brca" in file or "real_" in file]


def test_toc_stops_on_a_missing_page_of_this_run(project):
    (project / "book/executed/demo/nsclc/07_attention_analysis.ipynb").unlink()
    with pytest.raises(pages.PageError, match=r"nsclc/07_attention_analysis\.ipynb: not there"):
        pages.write_toc(["demo/lgg", "demo/nsclc"])
    assert pages.write_toc(["demo/lgg"]).is_file()


def test_a_failed_notebook_never_becomes_a_page(project):
    path = book_stubs.write_page(project, "lgg", "01_dataset", fails=True)
    with pytest.raises(pages.PageError, match="papermill recorded an exception"):
        pages.check_executed(path)
    notebook = book_stubs.executed_notebook("lgg", "01_dataset", fails=True)
    notebook["metadata"]["papermill"]["exception"] = None
    path.write_text(json.dumps(notebook))
    with pytest.raises(pages.PageError, match="failed in cell 2: ValueError: bad"):
        pages.write_toc(["demo/lgg"])


@pytest.mark.parametrize("text", ["", "{}", '{"cells": [], "metadata": {}}'])
def test_what_papermill_did_not_make_is_no_page(tmp_path, text):
    (tmp_path / "a.ipynb").write_text(text)
    with pytest.raises(pages.PageError):
        pages.check_executed(tmp_path / "a.ipynb")


def test_a_table_without_its_columns_is_named(project):
    (project / "results/demo/lgg/metrics.csv").write_text("variant,mean\nwsi,1\n")
    with pytest.raises(results.ResultsError, match="lacks the columns table, metric"):
        sections.write()


def test_nothing_made_says_how_to_make_it(project):
    for path in (project / "results").rglob("*.csv"):
        path.unlink()
    assert all("`make book`" in sections.section(n, pages.executed_tasks()) for n in sections.PARTS)


# -- one run of each task ----------------------------------------------------------------------------------------
@pytest.fixture
def both(project):
    """lgg was run with the overlay and without; nsclc with it alone."""
    book_stubs.write_results(project, "lgg", overlay="")
    for name in paper.SECTIONS:
        book_stubs.write_page(project, "lgg", name, overlay="")
    return project


def test_a_book_shows_the_run_that_it_is_made_for_and_of_other_tasks_the_one_without_an_overlay(both):
    assert pages.shown() == {"lgg": "lgg", "nsclc": "demo/nsclc"}
    assert pages.shown(["demo/lgg"]) == {"lgg": "demo/lgg", "nsclc": "demo/nsclc"}
    assert pages.shown(["nsclc"]) == {"lgg": "lgg", "nsclc": "nsclc"}  # planned, and not there yet
    for runs, synthetic in ((["demo/lgg"], True), (["lgg"], False)):
        p = pages.executed_tasks(runs)["lgg"]
        assert p.synthetic is synthetic and [p.run] == runs
    files = pages.executed_pages(pages.shown(["lgg"]))
    assert len({file.as_posix() for file in files}) == len(files) == 2 * len(paper.SECTIONS)
    assert {file.parent.as_posix() for file in files} == {"book/executed/lgg", "book/executed/demo/nsclc"}
    tables = [table.as_posix() for table in pages.summary_tables(pages.shown(["lgg"]))]
    assert "results/lgg/metrics.csv" in tables and "results/demo/nsclc/confounded.csv" in tables


def test_the_book_of_one_run_says_that_it_leaves_out_the_other(both):
    written = {path.stem: path.read_text() for path in sections.write(["demo/lgg"])}
    assert "shows one run of a task: `lgg`." in written["status"]
    assert "### Real cohorts" not in written["04"]
    written = {path.stem: path.read_text() for path in sections.write(["lgg"])}
    assert "shows one run of a task: `demo/lgg`." in written["status"]
    synthetic, real = written["04"].split("### Real cohorts")
    assert "LGG" not in synthetic and "LGG" in real


def test_the_table_of_contents_names_the_pages_of_that_run_and_what_is_synthetic(both):
    for run, file, title in (
        ("demo/lgg", "book/executed/demo/lgg/01_dataset", "LGG grade II / III (synthetic)"),
        ("lgg", "book/executed/lgg/01_dataset", "LGG grade II / III"),
    ):
        toc = yaml.safe_load(pages.write_toc([run]).read_text())
        entries = {entry["file"]: entry.get("title") for entry in pages.entries_of(toc)}
        assert entries[file] == title
        assert len([name for name in entries if name.endswith("lgg/01_dataset")]) == 1


def test_a_page_that_another_run_left_in_the_folder_is_refused(both):
    old = both / "book" / "executed" / "demo" / "lgg"
    for page in old.glob("*.ipynb"):
        page.replace(both / "book" / "executed" / "lgg" / page.name)  # as it lay before runs lay apart
    with pytest.raises(pages.PageError, match=r"was made by the run demo/lgg, .*: remove book/executed/lgg"):
        sections.write(["lgg"])


@pytest.mark.parametrize(("run", "up"), [("lgg", "../../"), ("demo/lgg", "../../../")])
def test_a_failed_cell_leads_to_the_status_page_from_every_run(project, run, up):
    notebook = book_stubs.executed_notebook("lgg", "04_multimodal_ablations")
    notebook["cells"][1]["outputs"][0] = {"output_type": "display_data", "data": {"text/html": summaries.FAILED}}
    draft = project / "draft.ipynb"
    draft.write_text(json.dumps(notebook))
    page = pages.publish(draft, pages.page_of(run, "04_multimodal_ablations"))
    (shown,) = json.loads(page.read_text())["cells"][1]["outputs"][0]["data"].values()
    assert f'href="{up}status.html#failed-trainings"' in shown
    assert (page.parent / up / "status.html").resolve() == project / "book" / "status.html"


# -- beside the scores -------------------------------------------------------------------------------------------
WARNING = "all patients of A are in a.tsv and all of B in b.tsv"


@pytest.fixture
def confounded(project):
    """The classes of nsclc are told apart by something else, those of lgg are not."""
    p = params.load("nsclc", "demo")
    results.write(p, "confounded", pd.DataFrame([("class is a file", WARNING, "x")], columns=check.CONFOUNDED))
    return project


def test_what_confounds_a_class_stands_beneath_every_table_of_its_scores(confounded):
    line = f"**Confounded**, NSCLC LUAD / LUSC: {WARNING}."
    written = {path.stem: path.read_text() for path in sections.write()}
    for part in ("03", "04", "05", "06", "09", "overview", "ledger"):
        assert written[part].count(line) >= ("ROC-AUC" in written[part]), part
    for part in ("04", "09"):
        blocks = written[part].split("```{table}")[1:]
        of_scores = [block for block in blocks if "LGG grade II / III, ROC-AUC |" in block]
        assert len(of_scores) >= 2 and all(line in block for block in of_scores)
    assert "**Confounded**, LGG" not in "".join(written.values())


def test_the_first_pages_figure_says_which_of_its_cohorts_are_confounded(confounded, monkeypatch):
    told = []
    monkeypatch.setattr("mmmil.plots.of_cohort", lambda *given: told.append(given))
    overview.overview(pages.executed_tasks(), confounded / "book" / "generated")
    assert told == [(True, ["NSCLC LUAD / LUSC: class is a file"])]


def test_tables_of_a_section_say_of_which_cohorts_they_are(confounded):
    text = sections.section("04", pages.executed_tasks())
    captions = [line for line in text.splitlines() if line.startswith("```{table}")]
    assert captions and all(". Synthetic cohorts" in line for line in captions)
    assert not page_text.markdown_table("x", ["a"], [["b"]]).splitlines()[0].endswith("cohorts")


def test_scores_of_which_nobody_has_looked_what_confounds_them_are_not_shown(project):
    (project / "results/demo/nsclc/confounded.csv").unlink()
    with pytest.raises(results.ResultsError, match=r"no confounded.csv; run the record of demo/nsclc again"):
        sections.section("04", pages.executed_tasks())


def test_a_model_of_another_kind_of_cohort_is_not_shown_among_a_runs_own(project):
    p = params.load("lgg", "demo")
    path = p.results / "kept" / "dual_go" / folder.ABOUT
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"synthetic": False}))
    with pytest.raises(results.ResultsError, match="a model of real patients among the results of synthetic ones"):
        kept.models({"lgg": p})
