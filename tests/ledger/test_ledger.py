"""The claim ledger: what it refuses, its facts, each rule, and that synthetic cohorts decide nothing."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from mmmil import check, paper, params, results, variants
from mmmil.book import ledger as book_ledger
from mmmil.evaluation import summary
from mmmil.ledger import claims, evidence, queries, standing, verdicts
from mmmil.ledger import facts as paper_facts
from mmmil.ledger.rules import NOT, REPRODUCED, UNDECIDED, UNTESTABLE
from mmmil.training import runs
from tests import book_stubs

PAPER = [name for name, v in variants.VARIANTS.items() if v.fusion != "logistic" and not v.optional]


def predict(p, effects: dict[str, float], without=(), patients: int = 240, seed: int = 0) -> pd.DataFrame:
    """Predictions of all variants on the same patients; effects: how far a variant's classes lie apart."""
    rng = np.random.default_rng(seed)
    label, fold = np.arange(patients) % 2, (np.arange(patients) // 2) % (p.n_folds + 1) - 1
    frames = []
    for name in (n for n in PAPER if n not in without):
        score = effects.get(name, 1.0) * (label - 0.5) + rng.normal(size=patients)
        frame = {"variant": name, "seed": p.seed, "fold": fold, "split": np.where(fold < 0, "test", "val")}
        frame |= {
            "patient_id": [f"P{i:03d}" for i in range(patients)],
            "label": label,
            "prob": 1 / (1 + np.exp(-score)),
        }
        frames.append(pd.DataFrame(frame)[runs.PREDICTIONS])
    return pd.concat(frames, ignore_index=True)


def write(folder, p, table: pd.DataFrame) -> None:
    assert p.results.is_relative_to(folder)
    results.write(p, results.PREDICTIONS, table)
    results.write(p, "metrics", summary.summarise(table, p, variants.variants(p)))
    results.write(p, "confounded", pd.DataFrame(columns=check.CONFOUNDED))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """lgg and brca synthetic, nsclc the paper's cohort at its scale and settings, with every variant but clam."""
    folder, before = tmp_path_factory.mktemp("project"), Path.cwd()
    os.chdir(book_stubs.ROOT)
    try:
        book_stubs.project(folder, tasks=("lgg", "nsclc", "brca"), names=["09_summary"])
        with (folder / "params" / "nsclc.yaml").open("a") as file:  # what the paper states, and no default
            file.write("attention: nystrom\n")
        book_stubs.write_results(folder, "nsclc", overlay="")
        book_stubs.write_page(folder, "nsclc", "09_summary", overlay="")
        os.chdir(folder)
        effects = {"dual_go": 3.0, "dual_kegg": 3.0, "go": 0.5, "kegg": 0.5, "wsi": 0.5, "wsi_original": 0.2}
        write(folder, params.load("nsclc"), predict(params.load("nsclc"), effects, without=["clam"]))
        write(folder, params.load("lgg", "demo"), predict(params.load("lgg", "demo"), effects))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def project(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def tasks() -> dict[str, params.Params]:
    return {"lgg": params.load("lgg", "demo"), "nsclc": params.load("nsclc"), "brca": params.load("brca", "demo")}


@pytest.fixture(scope="module")
def book(folder):
    """The ledger of the three tasks, judged once."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        made = verdicts.Ledger(tasks())
        assert made.rows
    finally:
        os.chdir(before)
    return made


@pytest.fixture
def rows(book):
    return {(row.claim.id, row.of): row for row in book.rows}


def claim(**changes):
    """A valid claim with some fields replaced."""
    valid = {"id": "C001", "section": "Abstract", "claim": "both are better than one", "kind": "ordering"}
    valid |= {"tasks": ["lgg"], "page": "04_multimodal_ablations", "tables": ["5"]}
    valid |= {"query": {"ordering": {"pairs": [["dual_go", "go"]], "metrics": ["roc_auc"]}}}
    return valid | changes


# -- the claims as data ------------------------------------------------------------------------------------------


def test_every_claim_is_valid_and_all_of_the_paper_appears():
    found = claims.load()
    assert len(found) >= 40
    named = yaml.safe_dump([c.query.model_dump() for c in found])
    assert not [name for name in PAPER if f" {name}\n" not in named]
    assert {table for c in found for table in c.tables} == set(claims.TABLES)
    assert {c.section for c in found} == set(paper.HEADINGS)
    assert {c.query.name for c in found} == set(claims.Query.model_fields)


def test_no_claim_is_a_sentence_of_another():
    texts = [c.claim for c in claims.load()]
    assert len(set(texts)) >= len(texts) - 1  # "None of these four differences is significant" stands twice


def test_where_the_direction_alone_is_judged_the_claim_says_no_more():
    for c in claims.load():
        if c.query.name in ("ordering", "contrast", "balance"):
            said, _, aside = c.claim.partition("(the paper: ")
            assert not re.search(r"\b(far|much|clear|marked|slight|notabl|substantial)", said), c.id
            assert "direction is judged" in aside or not re.search("marked|slight|notabl|substantial", aside), c.id


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"id": "7"}, "7: id"),
        ({"tolerence": 0.1}, "C001: tolerence: Extra inputs"),
        ({"tasks": ["glioma"]}, "no task of the paper 'glioma'"),
        ({"tables": ["12"]}, "no table of the paper '12'"),
        ({"page": "10_more"}, "no notebook '10_more'"),
        ({"tasks": []}, "an? ordering is that of a task"),
        ({"kind": "number"}, "not by ordering"),
        ({"query": {"ordering": {"pairs": [["dual_go", "xgo"]], "metrics": ["roc_auc"]}}}, "no variant 'xgo'"),
        ({"query": {"ordering": {"pairs": [["dual_go", "go"]], "metrics": ["auc"]}}}, "no metric 'auc'"),
        ({"query": {"ordering": {"pairs": [["go"]], "metrics": ["f1"]}}}, "at least 2 items"),
        ({"query": {"python": "1 + 1"}}, "query.python: Extra inputs"),
        ({"query": {}}, "exactly one of"),
        ({"query": {"fact": "parameters"}}, "no fact 'parameters'"),
        ({"kind": "exact", "query": {"setting": "tile_size"}}, "no setting 'tile_size'"),
        ({"kind": "exact", "query": {"setting": "tile_px"}}, "give one"),
        ({"kind": "exact", "query": {"setting": "tile_px"}, "paper": {"nsclc": 256}}, "each of its tasks"),
        ({"kind": "exact", "query": {"count": {"what": "patients"}}, "paper": 3}, "counted per label"),
        (
            {"kind": "qualitative", "query": {"equal": {"pairs": [["dual_go", "go"]], "metrics": ["f1"]}}},
            "an? equal needs a tolerance",
        ),
        ({"states": {"tile_size": 1}}, "no setting 'tile_size'"),
    ],
)
def test_a_wrong_claim_is_an_error_that_names_it(changes, told):
    with pytest.raises(claims.LedgerError, match=told):
        claims.check([claim(**changes)])


def test_a_claim_that_stands_twice_is_an_error():
    with pytest.raises(claims.LedgerError, match="C001: stands there 2 times"):
        claims.check([claim(), claim()])


def test_a_file_that_is_no_list_is_an_error(tmp_path, monkeypatch):
    for name in ("params", "book"):
        (tmp_path / name).mkdir()
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "book" / "claims.yml").write_text("id: C001")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(claims.LedgerError, match="must be a list"):
        claims.load()


# -- facts -------------------------------------------------------------------------------------------------------


def test_facts_of_the_real_modules_equal_the_paper():
    judged = {c.id: verdicts.judge(c) for c in claims.load() if c.query.fact}
    assert len(judged) >= 15
    assert not [(row.claim.id, row.value) for row in judged.values() if row.verdict != REPRODUCED]
    assert {"340,992", "94,224", "68,880"} <= {row.value for row in judged.values()}


def test_a_changed_fact_is_not_reproduced(monkeypatch):
    (own,) = [c for c in claims.load() if c.query.fact == "parameters_reduced"]
    monkeypatch.setattr(paper_facts, "value", lambda name: 68_881)
    assert verdicts.judge(own).verdict == NOT


# -- what is shown -----------------------------------------------------------------------------------------------


def test_of_several_differences_the_one_that_decides_is_shown(rows):
    assert "decides of 2" in rows["C079", "nsclc"].value
    assert "decides of 4" in rows["C071", "nsclc"].value


# -- cohorts -----------------------------------------------------------------------------------------------------


def test_on_synthetic_cohorts_only_facts_of_code_are_reproduced(rows):
    synthetic = [row for row in rows.values() if row.synthetic]
    assert {row.task for row in synthetic} == {"lgg", "brca"}
    decided = [row for row in synthetic if row.verdict != UNTESTABLE]
    assert decided and all(row.claim.query.setting for row in decided)
    assert not [row for row in synthetic if row.verdict == NOT]
    asked = [row for row in synthetic if row.claim.query.ordering and row.of == "lgg" and "4" not in row.claim.tables]
    shown = [row for row in asked if row.reason == "synthetic cohort"]
    assert len(shown) >= 5 and all(row.value.startswith(("+", "-")) for row in shown)
    assert {row.reason for row in asked} == {"synthetic cohort"}  # the demo trains all variants
    less = evidence.Results(params.load("lgg", "demo", variants=["wsi"]))
    with pytest.raises(evidence.NotTestable, match="ctranspath_go is not trained on this cohort"):
        less.require("ctranspath_go")
    assert rows["C023", "lgg"].reason == "set to 48 here; synthetic cohort"  # the demo's tiles


def test_the_papers_cohort_is_judged(rows):
    better = rows["C071", "nsclc"]
    assert better.verdict == REPRODUCED and "dual_go − go" in better.value
    assert rows["C023", "nsclc"].verdict == REPRODUCED
    assert rows["C014", "nsclc"].verdict == REPRODUCED and rows["C014", "nsclc"].value == "nystrom"
    assert rows["C001", "nsclc"].verdict in (REPRODUCED, UNDECIDED, NOT)
    assert rows["C019", "nsclc"].verdict == NOT  # six patients of the stub, not 465


def test_a_failed_training_decides_nothing(rows):
    assert rows["C065", "nsclc"].verdict == UNTESTABLE
    assert rows["C065", "nsclc"].reason.startswith("failed: the training of clam")


def test_a_training_of_one_fold_that_failed_decides_nothing_either(project):
    by_id = {c.id: c for c in claims.load()}
    results = evidence.Results(params.load("nsclc"))
    lost = (results.predictions["variant"] == "dual_go") & (results.predictions["fold"] == 3)
    results.predictions = results.predictions[~lost]
    for name in ("C001", "C003", "C071", "C091"):
        row = verdicts.judge(by_id[name], results, "nsclc")
        assert (row.value, row.verdict) == ("–", UNTESTABLE)
        assert row.reason == "failed: the training of dual_go left no predictions of fold 3"
    assert verdicts.judge(by_id["C103"], results, "nsclc").verdict != UNTESTABLE  # the final models are all there
    results.predictions = results.predictions[results.predictions["split"] == "val"]
    with pytest.raises(evidence.NotTestable, match="failed: the training of wsi left"):
        results.difference("wsi", "go", "roc_auc", "test", 0.95)


def test_a_real_cohort_that_is_not_the_papers_decides_nothing(project):
    p = params.load("real_nsclc")
    write(project, p, predict(p, {}, without=[n for n in PAPER if n not in ("go", "kegg")]))
    own = verdicts.Ledger({"real_nsclc": p})
    found = {row.claim.id: row for row in own.rows if row.task == "real_nsclc"}
    assert found["C074"].verdict == UNTESTABLE and found["C074"].value.startswith("0.")
    assert found["C074"].reason == "not the paper's cohort but NSCLC LUAD / LUSC, real counts"
    assert found["C071"].reason == "dual_go is not trained on this cohort"
    assert standing.stands_for(params.load("real_lgg")) == "lgg"
    lgg = [row for row in own.rows if row.of == "lgg" and row.claim.query.none is None]
    assert {row.reason for row in lgg} == {"no cohort of this task is here"}


def test_an_own_table_of_patients_is_not_the_papers_cohort(project):
    (own,) = [c for c in claims.load() if c.id == "C071"]
    for changes in ({"cohort_table": "own.csv"}, {"sample_sheets": []}):
        row = verdicts.judge(own, evidence.Results(params.load("nsclc", **changes)), "nsclc")
        assert row.verdict == UNTESTABLE and row.reason.startswith("an own table of patients")
    path = project / "results" / "nsclc" / "cohort.csv"
    before = path.read_text()
    path.write_text(before.replace("TCGA-AA-0003", "H-3"))
    row = verdicts.judge(own, evidence.Results(params.load("nsclc")), "nsclc")
    path.write_text(before)
    assert row.verdict == UNTESTABLE and row.reason == "not TCGA's patients: 1 of 12 names are no barcodes"


def test_models_whose_gene_sets_were_chosen_on_all_patients_reproduce_nothing(project):
    by_id, results = {c.id: c for c in claims.load()}, evidence.Results(params.load("nsclc", selection="all_patients"))
    for name in ("C001", "C004", "C071", "C030"):
        row = verdicts.judge(by_id[name], results, "nsclc")
        assert (row.verdict, row.reason) == (UNTESTABLE, "gene sets chosen on all patients") and row.value != "–"
    for name in ("C050", "C022"):  # images alone, and a setting
        assert verdicts.judge(by_id[name], results, "nsclc").verdict != UNTESTABLE
    (row,) = [
        r
        for r in verdicts.Ledger({"lgg": params.load("lgg", "demo", selection="all_patients")}).rows
        if (r.claim.id, r.of) == ("C071", "lgg")
    ]
    assert row.reason == "synthetic cohort; gene sets chosen on all patients"


def test_a_setting_of_a_modality_that_is_not_there_decides_nothing(project):
    by_id = {c.id: c for c in claims.load()}
    genes = evidence.Results(params.load("real_lgg", inputs="genes"))
    slides = evidence.Results(params.load("nsclc", inputs="slides"))
    assert verdicts.judge(by_id["C023"], genes, "lgg").reason == "this cohort has no slides"
    assert verdicts.judge(by_id["C028"], slides, "nsclc").reason == "this cohort has no genes"
    assert verdicts.judge(by_id["C028"], genes, "lgg").verdict == REPRODUCED
    assert verdicts.judge(by_id["C023"], slides, "nsclc").verdict == REPRODUCED


def test_a_copy_may_have_given_up_a_task_of_the_paper(project):
    path = project / "params" / "brca.yaml"
    p, text = params.load("brca", "demo"), path.read_text()
    path.unlink()
    try:
        assert standing.stands_for(p) == "" and standing.stands_for(params.load("nsclc")) == "nsclc"
    finally:
        path.write_text(text)


def test_two_cohorts_of_one_title_are_told_apart(with_others, project):
    """Each with verdicts of its own: neither takes the other's place at a glance."""
    both = {task: other(task, title="LGG", fold_groups="none") for task in OTHERS}
    found = verdicts.Ledger({"nsclc": params.load("nsclc")} | both, asked())
    text = book_ledger.glance(found)
    assert all(f"LGG, {task} (" in text for task in OTHERS) and "LGG, real_lgg, LGG, real_lgg_sites: " in text


def test_a_cohort_of_other_classes_stands_for_none(project):
    assert standing.stands_for(params.load("nsclc", class_names=["a", "b"])) == ""


# -- the paper's cohort with other settings -----------------------------------------------------------------------


def test_the_settings_that_the_paper_states_are_those_of_its_claims():
    for task in paper.TASKS:
        stated = claims.stated(task)
        assert {"attention": "nystrom", "n_folds": 5, "n_tiles": 64, "kept_channels": 96}.items() <= stated.items()
        assert params.load(task, attention="nystrom").model_dump().items() >= stated.items()  # as the files have it


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attention": "exact"}, "attention exact (the paper: nystrom)"),
        ({"n_folds": 4}, "n_folds 4 (the paper: 5)"),
        ({"latent_dim": 48, "n_tiles": 32}, "n_tiles 32 (the paper: 64), latent_dim 48 (the paper: 96)"),
    ],
)
def test_a_run_with_other_settings_is_called_so(project, changes, told):
    found = standing.of(params.load("nsclc").override(**changes))
    assert (found.kind, found.settings) == (standing.SETTINGS, told) and told in found.why_not
    assert standing.of(params.load("nsclc").override(inputs="genes", tile_px=64)).kind == standing.PAPER  # no tiles
    assert standing.of(params.load("nsclc").override(epochs=3)).kind == standing.PAPER  # the paper states none


def test_its_verdicts_are_its_own_and_none_of_the_papers(project, book):
    exact = params.load("nsclc").override(attention="exact")
    found = verdicts.Ledger({"nsclc": exact}, asked())
    rows = {row.claim.id: row for row in found.rows if row.task == "nsclc"}
    assert all(row.own for row in rows.values())
    assert rows["C071"].verdict == REPRODUCED and rows["C014"].verdict == NOT
    assert {row.verdict for row in found.rows if row.of == "nsclc" and not row.own} == {UNTESTABLE}
    text = book_ledger.page(found)
    line = next(x for x in text.split("\n") if "(the paper's cohort, other settings)" in x and "dual_go − go" in x)
    cells = [cell.strip() for cell in line.strip("|").split(" | ")]
    assert "with other settings: **reproduced**" in line and cells[3] == "–"
    paper_counts, own_counts = book_ledger.counts(found).split("Own verdicts of runs")
    assert "attention exact (the paper: nystrom)" in own_counts and "other settings" not in paper_counts


# -- the paper's patients with other features ---------------------------------------------------------------------
OTHERS = ["real_lgg", "real_lgg_sites"]
ASKED = {f"C{n:03d}" for n in (1, 3, 14, 19, 22, 23, 26, 27, 29, 46, 49, 57, 70, 71, 79, 97, 107)}


def other(task: str = "real_lgg", **changes) -> params.Params:
    """A task of other features, of some models that features allow."""
    return params.load(task, **{"variants": ["wsi", "go", "kegg", "dual_go", "dual_kegg"]} | changes)


def asked() -> list[claims.Claim]:
    return [c for c in claims.load() if c.id in ASKED]


@pytest.fixture(scope="module")
def with_others(folder):
    """The ledger of some claims on the paper's lung, and on glioma with other features in random folds and by site."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        for task in OTHERS:
            p = other(task)
            book_stubs.write_results(folder, task, overlay="")
            effects = {"dual_go": 3.0, "dual_kegg": 3.0, "go": 0.5, "kegg": 0.5, "wsi": 0.5}
            write(folder, p, predict(p, effects, without={*PAPER} - {*p.variants}))
            sets = [("go", "self_genes", "a", True, 0.6), ("go", "self_genes", "b", False, 0.1)]
            columns = ["library", "source", "set", "significant", "effect"]
            results.write(p, "attention_sets", pd.DataFrame(sets, columns=columns))
        made = verdicts.Ledger({"nsclc": params.load("nsclc")} | {task: other(task) for task in OTHERS}, asked())
        assert made.rows
    finally:
        os.chdir(before)
    return made


@pytest.fixture
def own(with_others):
    return {row.claim.id: row for row in with_others.rows if row.task == "real_lgg"}


def kind(of: str = "real_lgg", **changes) -> str:
    return standing.of(params.load(of).override(**changes)).kind


def test_what_a_cohort_is_to_the_paper_follows_from_its_data(with_others, project):
    assert kind() == standing.OTHER and kind(features_dir="", inputs="genes") == standing.OTHER
    assert kind(of="nsclc") == standing.PAPER and kind(of="nsclc", synthetic=True) == standing.SYNTHETIC
    by_site = standing.of(params.load("nsclc", fold_groups="site"))  # the paper's folds are random
    assert by_site == standing.Standing(standing.REAL, standing.BY_SITE)
    assert kind(of="nsclc", features_dir="x") == standing.OTHER  # the paper's download, another encoder
    why_not = standing.of(params.load("nsclc", features_dir="x")).why_not
    assert why_not == "not the paper's inputs: frozen features (`x`) in place of the slides' pixels"


@pytest.mark.parametrize(
    "changes",
    [
        {"cohort_table": "own.csv"},
        {"class_names": ["low", "high"]},
        {"features_dir": "", "inputs": "genes", "expression_kind": "counts"},  # no other inputs, but others' counts
        {"task": "real_nobody"},  # without a table of the cohort nobody knows whose patients these are
        {"synthetic": True},
    ],
)
def test_what_nearly_is_the_papers_patients_with_other_features_is_not(with_others, project, changes):
    assert kind(**changes) != standing.OTHER


def test_patients_of_another_hospital_are_not_the_papers(with_others, project):
    path = project / "results" / "real_lgg" / "cohort.csv"
    before = path.read_text()
    path.write_text(before.replace("TCGA-AA-0003", "H-3"))
    found = kind()
    path.write_text(before)
    assert found == standing.REAL


def test_they_have_verdicts_of_their_own_by_the_same_rules(own):
    assert own["C071"].verdict == REPRODUCED and own["C071"].own
    assert own["C079"].value.startswith(("+", "-"))
    assert {own[name].verdict for name in ("C001", "C070", "C079")} <= {REPRODUCED, UNDECIDED, NOT} and own[
        "C107"
    ].verdict == REPRODUCED
    assert own["C022"].verdict == REPRODUCED  # five folds: a fact of the settings


def test_what_such_inputs_cannot_test_says_why(own):
    backbone = "about the backbone trained end to end: of features made beforehand there is none"
    for name in ("C003", "C057", "C049", "C097", "C046"):
        expected = backbone if name != "C003" else ""
        assert own[name].reason == expected, name
    reasons = {name: (own[name].verdict, own[name].reason) for name in ("C019", "C023", "C026", "C029", "C014", "C027")}
    assert {verdict for verdict, _ in reasons.values()} == {UNTESTABLE}
    assert reasons["C019"][1].startswith("these are the patients who have such inputs")
    assert reasons["C023"][1] == reasons["C026"][1] == "of this cohort's slides only features are here, no tiles"
    assert reasons["C029"][1] == "the paper's sets come from DESeq2 on counts, these from Welch's t on z-scores"
    assert reasons["C014"][1].startswith("set to exact here") and "not a STAR file" in reasons["C027"][1]
    assert own["C019"].value == "6"  # shown all the same


def test_no_other_features_change_a_verdict_of_the_papers(with_others, project):
    alone = verdicts.Ledger({"nsclc": params.load("nsclc")}, asked())
    assert [row.verdict for row in alone.rows if row.task == "nsclc"] == [
        row.verdict for row in with_others.rows if row.task == "nsclc"
    ]
    counts = with_others.counts()
    assert counts.drop(index=[("lgg", task) for task in OTHERS]).equals(alone.counts())


def test_alone_they_are_no_cohort_of_the_paper(with_others):
    mine = [row for row in with_others.rows if row.of == "lgg" and not row.own]
    assert {(row.verdict, row.task, row.reason) for row in mine} == {(UNTESTABLE, "", verdicts.ALONE)}


def test_folds_by_site_are_evidence_and_no_second_verdict(with_others):
    by_site = [row for row in with_others.rows if row.task == "real_lgg_sites"]
    assert {row.verdict for row in by_site} == {verdicts.NO_SECOND}
    assert next(row for row in by_site if row.claim.id == "C071").value.startswith("+")
    assert not with_others.counts().loc["lgg", "real_lgg_sites"].any()


def test_gene_sets_that_leak_decide_nothing_there_either(with_others, project):
    by_id = {c.id: c for c in claims.load()}
    results = evidence.Results(other(selection="all_patients"))
    row = verdicts.judge(by_id["C071"], results, "lgg")
    assert (row.verdict, row.reason) == (UNTESTABLE, "gene sets chosen on all patients")


def test_page_and_glance_keep_them_in_a_column_of_their_own(with_others, project):
    text = book_stubs.in_full(book_ledger.page(with_others))
    after = text[text.index("**C071**") :].split("\n")
    line = next(x for x in after if "LGG grade II / III, real features and z-scores (" in x)
    cells = [cell.strip() for cell in line.strip("|").split(" | ")]
    assert cells[2].endswith(f"({standing.OTHER})") and cells[3:5] == ["–", "–"]
    assert cells[5].startswith("+") and cells[5].endswith("with other settings: **reproduced**")
    glance = book_ledger.glance(with_others)
    (line,) = [x for x in glance.split("\n") if x.startswith("| C071")]
    assert line.endswith("| LGG: reproduced, with other settings |") and "NSCLC: reproduced" in line
    paper_counts, own_counts = glance.split("Own verdicts of runs")
    assert "real features" not in paper_counts and own_counts.count("real features") == 1


# -- what the queries find ---------------------------------------------------------------------------------------


def test_differences_come_from_the_predictions(project):
    results = evidence.Results(params.load("nsclc"))
    folds = of_folds(results).sort_index()
    one, other = (folds.loc[name, "val"]["pr_auc"] for name in ("dual_go", "go"))
    found = results.difference("dual_go", "go", "pr_auc", "val", 0.95)
    assert found.value == pytest.approx((one - other).mean()) and found.low < found.value < found.high
    turned = results.difference("go", "dual_go", "pr_auc", "val", 0.95)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    test = results.difference("dual_go", "wsi_original", "roc_auc", "test", 0.9)
    assert test.low <= test.value <= test.high


def of_folds(results) -> pd.DataFrame:
    return summary.per_fold(results.predictions).droplevel("seed")


def test_a_training_of_one_seed_that_failed_is_named(project):
    results = evidence.Results(params.load("nsclc"))
    again = results.predictions.assign(seed=7)
    lost = (again["variant"] == "go") & (again["fold"] == 2)
    results.predictions = pd.concat([results.predictions, again[~lost]])
    with pytest.raises(evidence.NotTestable, match="the training of go left no predictions of fold 2"):
        results.difference("dual_go", "go", "pr_auc", "val", 0.95)
    assert results.difference("dual_go", "kegg", "roc_auc", "val", 0.95).value > 0


def test_named_gene_sets_are_found_by_identifier_or_name(project):
    names = ["GOBP_SKIN_DEVELOPMENT", "organelle fission (GO:0048285)", "Meiotic Cell Cycle", "protein folding"]
    table = pd.DataFrame(
        {"library": "go", "source": "cross_genes", "set": names, "significant": [True, True, False, True]}
    ).assign(effect=0.3)
    effects = {"dual_go": 1.0}
    p = params.load("brca")
    write(project, p, predict(p, effects, without=[name for name in PAPER if name != "dual_go"]))
    (own,) = [c for c in claims.load() if c.id == "C117"]

    def judged(table) -> verdicts.Row:
        results.write(p, "attention_sets", table)
        return verdicts.judge(own, evidence.Results(p), "brca")

    row = judged(table)
    assert row.verdict == UNDECIDED and row.value == "2 of 4 differ, 0 do not; not among the chosen: GO:0009306"
    whole = table.assign(set=[*names[:3], "GOBP_PROTEIN_SECRETION"])
    assert judged(whole.assign(significant=True)).verdict == REPRODUCED
    assert judged(whole).verdict == UNDECIDED  # not significant, and no evidence of absence: 40 test patients
    row = judged(whole.assign(effect=[0.3, 0.3, 0.0, 0.3]))
    assert row.verdict == UNDECIDED and "3 of 4 differ, 0 do not" in row.value
    many = evidence.Results(p)
    many.predictions = predict(p, effects, without=[n for n in PAPER if n != "dual_go"], patients=2400)
    row = verdicts.judge(own.model_copy(), many, "brca")
    assert row.verdict == NOT and "3 of 4 differ, 1 do not" in row.value


def test_a_measurement_is_a_ratio_of_two_rows(project):
    (own,) = [c for c in claims.load() if c.id == "C038"]
    path = project / "benchmarks" / "results" / "memory.csv"
    path.parent.mkdir(parents=True)
    assert verdicts.judge(own).reason.startswith("not measured")
    rows = [("batch", "dual", f"{way}, reference", "a GPU", mib) for way, mib in (("Original", 1000), ("reduced", 790))]
    table = pd.DataFrame(rows, columns=["part", "fusion", "way", "device", "peak_mib"])
    table.to_csv(path, index=False)
    assert verdicts.judge(own).verdict == REPRODUCED and verdicts.judge(own).value == "0.790 (790 / 1000)"
    table.assign(device="cpu").to_csv(path, index=False)  # counted without a GPU: shown, and decides nothing
    assert verdicts.judge(own).verdict == UNTESTABLE and verdicts.judge(own).value == "0.790 (790 / 1000)"
    table[:1].to_csv(path, index=False)
    assert "has 0 rows" in verdicts.judge(own).reason


def asking(query: dict) -> claims.Claim:
    return claims.Claim.model_validate(claim(query=query))


def test_spread_balance_and_contrast_by_hand(project):
    p = params.load("nsclc")
    results = evidence.Results(p)
    folds = of_folds(results).xs("val", level="split")
    query = asking({"spread": {"pairs": [["kegg", "wsi"]], "metrics": ["roc_auc"]}})
    found = queries.ANSWERS["spread"](query, results).differences[0]
    assert found.value == pytest.approx(np.log(folds.loc["wsi"]["roc_auc"].std() / folds.loc["kegg"]["roc_auc"].std()))
    query = asking({"balance": {"pairs": [["wsi_uib", "wsi"]]}})
    gap = {v: (folds.loc[v]["sensitivity"] - folds.loc[v]["specificity"]).abs().mean() for v in ("wsi", "wsi_uib")}
    assert queries.ANSWERS["balance"](query, results).differences[0].value == pytest.approx(gap["wsi"] - gap["wsi_uib"])
    query = asking({"contrast": {"variant": "wsi", "higher": "sensitivity", "lower": "specificity"}})
    expected = (folds.loc["wsi"]["sensitivity"] - folds.loc["wsi"]["specificity"]).mean()
    assert queries.ANSWERS["contrast"](query, results).differences[0].value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("valid", "tested", "found"),
    [
        ([90, 70, 80], [100, 100, 100], 70),
        ([64, 12, 64], [80, 100, 99], 12),  # who has fewer than were wanted was tested whole
        ([64, 64, 64], [80, 100, 99], 64),
        ([64, 64, 64], [80, 90, 99], None),
    ],
)
def test_the_fewest_valid_tiles_are_counted_only_where_they_are_known(project, valid, tested, found):
    results = evidence.Results(params.load("nsclc"))
    asked = claims.Claim.model_validate(claim(query={"count": {"what": "tiles"}}, kind="number", paper=64))
    table = pd.DataFrame({"candidates": 100, "tested": tested, "valid": valid})
    results.table = lambda name, columns: table[columns]
    if found is None:
        with pytest.raises(evidence.NotTestable, match="at least 64 valid tiles"):
            queries.ANSWERS["count"](asked, results)
    else:
        assert queries.ANSWERS["count"](asked, results).value == found


# -- the page ----------------------------------------------------------------------------------------------------


def test_the_page_has_every_claim_and_keeps_synthetic_values_apart(project, book):
    text = book_stubs.in_full(book_ledger.page(book))
    assert not [c.id for c in claims.load() if f"**{c.id}**" not in text]
    line = next(x for x in text.split("\n") if "**C071**" in x)
    cells = [cell.strip() for cell in line.strip("|").split(" | ")]
    assert cells[2] == "LGG grade II / III (synthetic)" and cells[3] == "–" and cells[4].startswith("+")
    assert cells[5] == "not testable here: synthetic cohort"
    assert "`lgg.yaml` + `demo.yaml`, seed 0, `results/demo/lgg/predictions.parquet`" in cells[7]
    assert "[NSCLC LUAD / LUSC](executed/nsclc/09_summary.ipynb) (the paper's cohort)" in text


def test_the_glance_counts_every_row_once(project, book):
    assert book.counts().to_numpy().sum() == len(book.rows)
    text = book_ledger.glance(book)
    assert "0.74 / 0.982 / 0.966" in text and "| C042 |" in text and "340,992" in text
    assert "not testable here (synthetic cohort)" in text
