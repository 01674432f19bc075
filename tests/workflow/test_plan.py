"""What the steps of the batch read and depend on, without a run of Snakemake."""

import ast
import json
import re
import shutil
import subprocess

import pandas as pd
import pytest

from mmmil import paper, params, source_code, variants
from mmmil.cohort import inventory
from mmmil.params import ParameterError
from tests import book_stubs

ROOT = book_stubs.ROOT


@pytest.fixture
def plan(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "workflow"))
    import plan

    return plan


@pytest.fixture
def steps(plan):
    return lambda task="lgg", overlay="demo", **changes: plan.Steps(params.load(task, overlay, **changes))


def trained(lgg, files):
    """The variants of the lots among some inputs."""
    lots = [lot for lot in lgg.lots if lgg.done(lot) in files]
    return {training.split("/")[0] for lot in lots for training in lgg.lots[lot]}


def test_what_each_page_reads(steps):
    lgg = steps()
    assert lgg.page_inputs("01_dataset") == ["data/demo/lgg/truth/cohort.json", "results/demo/lgg/tiles.csv"]
    assert set(lgg.page_inputs("02_preprocessing")) == {
        f"results/demo/lgg/{n}.csv" for n in ("tiles", "quality", "genes")
    }
    assert {
        *("dual_go", "resnet50d_go", "ctranspath_go", "dual_kegg", "resnet50d_kegg", "ctranspath_kegg"),
        *variants.BASELINES,
    } <= trained(lgg, lgg.page_inputs("05_end_to_end_vs_frozen"))
    assert "results/demo/lgg/leakage.csv" in lgg.page_inputs("06_gene_representation")
    assert "dual_genes" in trained(lgg, lgg.page_inputs("06_gene_representation"))
    assert "results/demo/lgg/attention.csv" in lgg.page_inputs("07_attention_analysis")
    assert {"results/demo/lgg/audits.csv", "results/demo/lgg/leakage.csv"} <= set(lgg.page_inputs("08_audits"))
    assert {"wsi", "go", "dual_go", *variants.BASELINES} <= trained(lgg, lgg.audited)
    assert not {"clam", "ctranspath_go"} & trained(lgg, lgg.audited)
    assert lgg.page_inputs("09_summary") == ["results/demo/lgg/metrics.csv"]


def test_runs_of_one_task_share_no_file(steps):
    demo, paper_scale = steps("lgg", "demo"), steps("lgg", "")
    for files in (lambda task: task.pages, lambda task: task.summaries, lambda task: task.trainings(task.trained)):
        assert files(demo) and not set(files(demo)) & set(files(paper_scale))
    assert demo.pages[0] == "book/executed/demo/lgg/00_method.ipynb"
    assert paper_scale.pages[0] == "book/executed/lgg/00_method.ipynb"
    assert demo.result("x") == "results/demo/lgg/x" and paper_scale.result("x") == "results/lgg/x"


def test_a_task_of_genes_alone_reads_no_slides(steps):
    genes = steps(inputs="genes", variants=["go", "kegg", "baseline_genes"])
    assert not [file for name in paper.SECTIONS for file in genes.page_inputs(name) if "tiles" in file]
    assert genes.patients == ["data/demo/lgg/truth/cohort.json"] and genes.attended == ["go", "kegg"]
    lots = genes.trainings(genes.models_of(paper.SECTIONS["06_gene_representation"]))
    assert trained(genes, lots) == {*("go", "kegg", "baseline_genes")}


def test_a_task_of_features_tiles_nothing_and_computes_none(steps, tmp_path):
    values = {"features_dir": "hipt", "encoders": {"uni": "features:uni"}, "results_dir": str(tmp_path)}
    features = steps(**values)
    assert features.patients == ["data/demo/lgg/truth/cohort.json"] and features.prepared("tiles", "quality") == []
    assert features.variant_inputs("clam") == [] == features.variant_inputs("wsi_uni")
    assert features.variant_inputs("uni_go") == ["results/demo/lgg/genes.csv"] == features.variant_inputs("dual_go")
    beside = steps(encoders={"uni": "features:uni", "vit": "hf-hub:owner/vit"})
    assert beside.variant_inputs("clam_uni") == ["results/demo/lgg/tiles.csv"]
    assert beside.variant_inputs("clam_vit") == ["results/demo/lgg/tiles.csv", "results/demo/lgg/features_vit.done"]


def test_a_replaced_file_of_features_reruns_what_reads_it_and_another_patient_all(steps, plan, tmp_path):
    values = {"features_dir": "hipt", "results_dir": str(tmp_path)}
    rows = [("features_dir", patient, f"/{patient}.pt", 1, 1, 1, "as it was") for patient in "PQ"]
    table = pd.DataFrame(rows, columns=inventory.COLUMNS)
    table.to_parquet(tmp_path / inventory.FILE)
    before = state(steps(**values))
    table.loc[0, "fingerprint"] = "replaced"
    table.to_parquet(tmp_path / inventory.FILE)
    after = state(steps(**values))
    assert {name for name in before if before[name] != after[name]} - {"tiles", "quality"} == {
        *("v:wsi", "v:dual_go", "audits", "01", "02"),
    }
    table[:1].to_parquet(tmp_path / inventory.FILE)
    assert {"genes", "v:go", "01"} <= {name for name, value in state(steps(**values)).items() if before[name] != value}
    assert plan.tiles({"lgg": steps(**values)}) == {}


def test_slides_without_labels_are_tiled_and_nothing_is_trained(steps):
    slide = steps("real_slide", "")
    assert slide.trained == [] == slide.attended == list(slide.lots)
    assert slide.pages == ["book/executed/real_slide/02_preprocessing.ipynb"]
    assert slide.summaries == ["results/real_slide/tiles.csv", "results/real_slide/quality.csv"]


def test_every_training_is_in_one_lot_with_others_of_the_same_inputs(steps, plan):
    lgg = steps()
    trainings = [training for lot in lgg.lots.values() for training in lot]
    assert sorted(trainings) == sorted(plan.receipts.trainings(lgg.p))
    for lot, names in lgg.lots.items():
        assert len({tuple(lgg.variant_inputs(training.split("/")[0])) for training in names}) == 1
        assert all(f"--training {training}" in lgg.train_call(lot) for training in names)
        assert lgg.lot_inputs(lot) == lgg.variant_inputs(names[0].split("/")[0])
        assert lgg.lot_gpus(lot) == 1  # each has a neural model
    assert lgg.variant_inputs("clam") == ["results/demo/lgg/tiles.csv", "results/demo/lgg/features_resnet50d.done"]
    assert lgg.variant_inputs("go") == ["results/demo/lgg/genes.csv"]
    assert lgg.trainings(["go"]) == ["results/demo/lgg/trainings/genes-0.done"]
    many = steps(repeats=5, model_seeds=3)
    assert max(map(len, many.lots.values())) == plan.LOT and {lot.rpartition("-")[0] for lot in lgg.lots} == {
        *("tiles", "genes", "tiles-genes", "tiles-features_resnet50d", "tiles-genes-features_resnet50d"),
        "tiles-genes-features_ctranspath",
    }
    linear = [lot for lot, names in many.lots.items() if not many.lot_gpus(lot)]
    assert linear and {name.split("/")[0] for lot in linear for name in many.lots[lot]} <= set(variants.BASELINES)


def test_a_lot_that_lacks_a_receipt_is_made_again(steps, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(plan.params, "root", lambda: tmp_path)
    lgg = steps(results_dir=str(tmp_path / "results" / "demo" / "lgg"))
    for lot, names in lgg.lots.items():
        for file in [tmp_path / lgg.done(lot), *(plan.receipts.receipt(lgg.p, name) for name in names)]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    lgg.reopen()
    assert all((tmp_path / lgg.done(lot)).is_file() for lot in lgg.lots)
    plan.receipts.receipt(lgg.p, "go/1").unlink()
    lgg.reopen()
    assert [lot for lot in lgg.lots if not (tmp_path / lgg.done(lot)).is_file()] == ["genes-0"]


TRAININGS = {"v:wsi", "v:go", "v:dual_go", "v:baseline_genes"}


def state(task):
    """What every step, training (`v:` and the variant) and page of a task depends on."""
    made = {step: task.depends(step) for step in ("tiles", "quality", "genes", "leakage", "features", "record")}
    made |= {step: task.depends(step) for step in ("attention", "audits")}
    made |= {"simulated": task.simulated}
    made |= {f"v:{name}": task.variant_depends(name) for name in ("wsi", "go", "dual_go", "baseline_genes")}
    return made | {section.number: task.page_depends(section.notebook) for section in task.sections}


def changed(steps, **changes):
    """Steps, trainings and pages of the demo that a changed value runs again."""
    before, after = state(steps()), state(steps(**changes))
    return {name for name in before if before[name] != after[name]}


def test_one_changed_value_reruns_what_depends_on_it(steps):
    assert changed(steps) == set() == changed(steps, device="cpu")
    assert changed(steps, title="another") == {section.number for section in paper.SECTIONS.values()}
    assert changed(steps, epochs=3) == {*TRAININGS, "audits", "00", "03", "04", "05", "08", "09", "10"}
    assert changed(steps, gene_set_fdr=0.02) == {
        "genes",
        "leakage",
        "v:go",
        "v:dual_go",
        "v:baseline_genes",
        "audits",
        "00",
        "02",
        "06",
        "08",
    }
    assert changed(steps, null_draws=150) == {"attention", "07"}
    shown_by = {"00", "03", "04", "05", "06", "07", "08", "09", "10"}
    assert changed(steps, null_repeats=2) == {"leakage", "record", "attention"} | shown_by
    # Other tiles change nothing in the genes, unless a patient may leave for want of them.
    assert changed(steps, stain="macenko") == {
        *("tiles", "quality", "features", "v:wsi", "v:dual_go", "audits", "00", "02", "08")
    }
    assert {"genes", "leakage", "01", "09"} <= changed(steps, tissue_percent=80.0)


def test_the_papers_map_is_part_of_what_shows_it(steps, monkeypatch):
    before = {step: steps().depends(step) for step in ("genes", "record", "attention")}
    monkeypatch.setattr(paper, "PROPOSED", paper.PROPOSED | {"genes": ("go",)})
    assert [step for step, value in before.items() if steps().depends(step) != value] == ["record", "attention"]


@pytest.mark.parametrize(
    ("setting", "runs_again"),
    [
        ("slide_path", {"tiles", "quality", "01", "02"}),
        ("expression_path", {"genes", "leakage", "audits", "01", "02"}),
        ("weights_dir", {"features", "v:wsi", "v:dual_go", "audits", "01", "02"}),
        ("clinical", {"tiles", "01", "02", "08"}),
    ],
)
def test_a_replaced_file_reruns_what_reads_it(steps, tmp_path, setting, runs_again):
    """Files of an inventory, one of them with other content. What depends on tiles follows their table."""
    place = {"results_dir": str(tmp_path)}
    settings = ["slide_path", "expression_path", "weights_dir", "clinical"]
    rows = [(name, "P", f"/{name}", 1, 1, 1, "as it was") for name in settings]
    table = pd.DataFrame(rows, columns=inventory.COLUMNS)
    table.to_parquet(tmp_path / inventory.FILE)
    before = state(steps(**place))
    table["time"] = 2
    table.to_parquet(tmp_path / inventory.FILE)
    assert state(steps(**place)) == before
    table.loc[table["setting"] == setting, "fingerprint"] = "replaced"
    table.to_parquet(tmp_path / inventory.FILE)
    after = state(steps(**place))
    assert {name for name in before if before[name] != after[name]} == runs_again


@pytest.mark.parametrize(
    ("name", "runs_again"),
    [
        ("tiles.csv", {"quality", "features", "v:wsi", "v:dual_go", "audits", "00", "01", "02", "07"}),
        ("cohort.csv", {"genes", "leakage", *TRAININGS, "audits", "00", "01", "02", "07"}),
    ],
)
def test_other_tiles_and_other_patients_rerun_what_reads_them(steps, tmp_path, name, runs_again):
    place = {"results_dir": str(tmp_path)}
    before = state(steps(**place))
    (tmp_path / name).write_text("another")
    after = state(steps(**place))
    assert {name for name in before if before[name] != after[name]} == runs_again


def test_a_step_depends_on_the_modules_that_its_command_calls(plan):
    tree = ast.parse((ROOT / "mmmil" / "__main__.py").read_text())
    commands = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    commands["record"] = commands["collect"]
    for step, (_, stages) in plan.STEPS.items():
        held = source_code.modules(*(module for stage in stages for module in plan.CODE[stage]))
        called = set(source_code.imported(ast.unparse(commands[step]))) - source_code.GROUND
        assert called - {"mmmil.study"} <= set(held), step  # whose own code every step holds
    called = source_code.imported(ast.unparse(commands["train"]))
    assert set(called) - {"mmmil.study"} <= set(source_code.modules(*plan.CODE["training"]))


def test_the_code_of_the_study_is_part_of_every_step(steps, plan, monkeypatch):
    before = {step: steps().depends(step) for step in plan.STEPS} | {"wsi": steps().variant_depends("wsi")}
    monkeypatch.setattr(plan, "_study", lambda: "another")
    after = {step: steps().depends(step) for step in plan.STEPS} | {"wsi": steps().variant_depends("wsi")}
    assert not [step for step in before if before[step] == after[step]]


def test_the_code_behind_a_page_is_read_from_its_notebook(plan, tmp_path):
    for name in paper.SECTIONS:
        found = plan.imports(ROOT / "notebooks" / f"{name}.ipynb")
        assert {"mmmil.params", "mmmil.study", "mmmil.plots", "mmmil.book.text"} <= set(found)
    assert "mmmil.evaluation.leakage" in plan.imports(ROOT / "notebooks" / "06_gene_representation.ipynb")
    cells = [("code", "%matplotlib inline\nfrom mmmil.slides import stain\n"), ("markdown", "import mmmil.genes")]
    cells += [("code", "!ls\nif True:\n    %time 1\n    from mmmil import study as s, nothing\nimport numpy")]
    notebook = {"cells": [{"cell_type": kind, "source": text.splitlines(True)} for kind, text in cells]}
    (tmp_path / "own.ipynb").write_text(json.dumps(notebook))
    assert plan.imports(tmp_path / "own.ipynb") == ["mmmil.slides.stain", "mmmil.study"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"variants": ["wsi", "go"]}, r"00_method \(task lgg\) needs the variant dual_go: train it"),
        ({"inputs": "genes", "variants": ["kegg"]}, r"07_attention_analysis \(task lgg\) needs the variant go"),
        ({"inputs": "genes", "notebooks": ["03_backbone_pruning"]}, "cannot be made with inputs: genes"),
        ({"notebooks": ["08_none"]}, "no such notebook: 08_none"),
        ({"results_dir": "elsewhere/{task}"}, "the batch engine writes to results/demo/lgg;"),
    ],
)
def test_a_page_that_cannot_be_made_is_told_before_any_work(plan, monkeypatch, changes, told):
    wrong = params.load("lgg", "demo", **changes)
    monkeypatch.setattr(plan.params, "load", lambda task, overlay: wrong)
    with pytest.raises(ParameterError, match=told):
        plan.load(["lgg"], "demo")


def test_synthetic_cohorts_have_a_folder_each_within_the_project(plan, monkeypatch, tmp_path):
    load, changes = params.load, {"data_dir": "data/shared"}
    monkeypatch.setattr(plan.params, "load", lambda task, overlay: load(task, overlay, **changes))
    with pytest.raises(
        ParameterError, match=r"data_dir of nsclc: .*shared is the synthetic cohort of lgg; name another"
    ):
        plan.load(["lgg", "nsclc"], "demo")
    changes["data_dir"] = str(tmp_path)
    with pytest.raises(ParameterError, match=r"data_dir of lgg: .* is outside the project"):
        plan.load(["lgg"], "demo")


def test_a_variant_is_enough_for_the_pages_that_need_no_other(plan, monkeypatch):
    fewer = params.load("lgg", "demo", variants=["wsi"], notebooks=["01_dataset", "03_backbone_pruning"])
    monkeypatch.setattr(plan.params, "load", lambda task, overlay: fewer)
    assert plan.load(["lgg"], "demo")["lgg"].trained == ["wsi"] == variants.variants(fewer)


def test_the_book_waits_for_the_pages_of_this_run_and_takes_those_of_earlier_ones(plan, tmp_path, monkeypatch):
    book_stubs_root = book_stubs.project(tmp_path, tasks=["nsclc"], names=["01_dataset"])
    monkeypatch.chdir(book_stubs_root)
    tasks = plan.load(["lgg"], "demo")
    assert "book/executed/demo/nsclc/01_dataset.ipynb" in plan.all_pages(tasks)
    assert set(tasks["lgg"].pages) < set(plan.all_pages(tasks)) and len(tasks["lgg"].pages) == len(paper.SECTIONS)
    assert {"results/demo/nsclc/metrics.csv", "results/demo/lgg/leakage.csv"} <= set(plan.summaries(tasks))
    assert plan.synthetic_folders(tasks) == {"data/demo/lgg": "lgg"}
    assert plan.book_tables()[0] == "book/claims.yml" and "book/intro.md" in plan.book_sources()
    before = plan.book_depends()
    assert before == plan.book_depends()
    (tmp_path / "book" / "claims.yml").write_text("[]")
    assert before != plan.book_depends()


# -- the shell -----------------------------------------------------------------------------------------------------
def shell(command, folder):
    bash = shutil.which("bash") or pytest.skip("no bash")
    text = command.format(log="log")  # as Snakemake does
    return subprocess.run([bash, "-euo", "pipefail", "-c", text], cwd=folder, capture_output=True, text=True)


def test_a_command_that_fails_shows_the_end_of_its_log(plan, tmp_path):
    done = shell(plan.logged("seq 30; echo no >&2; (exit 3)"), tmp_path)
    assert done.returncode == 3 and done.stdout == "" and done.stderr.split() == [*map(str, range(12, 31)), "no"]
    done = shell(plan.logged("echo yes"), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and (tmp_path / "log").read_text() == "yes\n"
    assert shell(plan.logged("false", on_failure="echo without >&2"), tmp_path).returncode == 0


def test_the_rules_are_few_lines_and_hold_no_function():
    text = (ROOT / "workflow" / "Snakefile").read_text()
    assert len(text.splitlines()) <= 250 and not re.search(r"^\s*(def|class) ", text, re.MULTILINE)
    assert text.count("2>&1") == 0  # plan.logged says it once


@pytest.mark.parametrize("file", sorted((ROOT / "params").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_page_of_every_task_has_its_place_in_the_book(plan, monkeypatch, file):
    """Found by running the real tasks for an hour: the book was not built, for its contents lacked three of them."""
    monkeypatch.setattr(plan, "_require_own_folders", lambda _: None)
    if "task:" not in file.read_text():
        pytest.skip("an overlay")
    assert plan.load([file.stem])[file.stem].pages


def test_a_page_without_a_place_in_the_book_is_told_before_anything_is_trained(plan):
    with pytest.raises(ParameterError, match=r"_toc.yml has no place (.|\n)*- file: book/executed/fifth/01_dataset"):
        plan._require_named(["book/executed/lgg/01_dataset.ipynb", "book/executed/fifth/01_dataset.ipynb"])
