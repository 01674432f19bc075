"""What is missing is trained where that was asked for, else an error; the record never mixes two studies."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mmmil import __main__ as cli
from mmmil import params, record, study, variants
from mmmil.interpretation import nulls, seeds
from mmmil.models import registry
from mmmil.training import receipts, runs
from tests.small_studies import make

SMALL = {"inputs": "genes", "variants": ["go", "baseline_genes"], "sim_patients": 24, "sim_genes": 500}
SMALL |= {"sim_sets": 20, "n_folds": 2, "epochs": 2, "ae_epochs": 2, "kegg_gmt": "", "fallback_sets": 6}


@pytest.fixture(scope="module")
def s(tmp_path_factory):
    """A study of genes of which every training was made, with its receipts."""
    made = make(tmp_path_factory.mktemp("runs"), **SMALL)
    assert receipts.make(made, receipts.trainings(made.p)) == 0
    return made


def of(s, train=True, **changes):
    """The same study with other settings."""
    return dataclasses.replace(s, p=s.p.override(**changes), train=train)


def test_case_receipts_of_other_settings_are_not_read_into_the_record(s):
    predictions, failures = receipts.read(s)
    assert len(predictions) == 2 * 24 and failures.empty
    with pytest.raises(receipts.BatchError) as error:
        receipts.read(of(s, epochs=3))
    told = str(error.value)
    assert "3 of 6 trainings" in told and "of other settings, code or files" in told  # regression has no epochs
    assert told.endswith("mmmil train --task nsclc --overlay demo --training go/0 --training go/1 --training go/final")
    with pytest.raises(receipts.BatchError, match="6 of 6 trainings"):
        receipts.read(of(s, seed=1))


def test_case_receipts_of_other_files_are_not_read_into_the_record(s, monkeypatch):
    monkeypatch.setattr(params, "load", lambda *_: s.p)
    cli.collect("nsclc", "demo")
    before = pd.read_csv(s.p.results / "metrics.csv")
    path = Path(s.cohort.patients["expression_path"].iloc[0])
    original, made = path.read_bytes(), {f for f in s.p.results.rglob("*") if f.is_dir()}
    lines = original.decode().splitlines(keepends=True)
    cells = lines[20].split("\t")
    lines[20] = "\t".join([*cells[:3], str(int(cells[3]) + 7), *cells[4:]])
    try:
        path.write_text("".join(lines))
        with pytest.raises((receipts.BatchError, record.NotThereError), match="files"):
            cli.collect("nsclc", "demo")
    finally:
        path.write_bytes(original)
    assert {f for f in s.p.results.rglob("*") if f.is_dir()} == made  # nothing was computed on the way
    pd.testing.assert_frame_equal(pd.read_csv(s.p.results / "metrics.csv"), before)
    cli.collect("nsclc", "demo")


def test_the_record_is_read_without_what_trains(s):
    values = {name: value for name, value in s.p.model_dump().items() if name not in ("task", "overlay")}
    script = (
        "import sys\nfrom mmmil import params, record, study\nfrom mmmil.training import receipts\n"
        f"p = params.load('nsclc', 'demo', **{values!r})\n"
        "with record.only_found():\n    assert len(receipts.read(study.load(p))[0]) == 48\n"
        "assert 'torch' not in sys.modules, 'seconds of imports'"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=params.root(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_made_where_nothing_may_be(s, tmp_path):
    with record.only_found(), pytest.raises(record.NotThereError, match=r"these files; run make book"):
        study.load(s.p.override(results_dir=str(tmp_path)))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with record.only_found():
        assert len(study.load(s.p).expression.patients) == 24


def test_case_a_notebook_finds_what_is_there_and_trains_nothing_else(s):
    assert len(runs.predictions(of(s, train=False))) == 48
    with pytest.raises(runs.NotTrainedError) as error:
        runs.predictions(of(s, train=False, epochs=200))
    told = str(error.value)
    assert "settings, code or files have changed since: 3 models (go/0; go/1; go/final)" in told
    assert "epochs" in told and "params/nsclc.yaml and params/demo.yaml" in told and "train = True" in told
    assert "about " in told and "on the machine that made the others" in told
    assert not list(s.p.results.glob("models/go/*/*/*.failed.json"))
    made = {path for path in s.p.results.rglob("*") if path.is_dir()}
    with pytest.raises(runs.NotTrainedError, match="3 models"):
        runs.predictions(of(s, train=False, ae_epochs=3))
    assert {path for path in s.p.results.rglob("*") if path.is_dir()} == made  # no gene tokens either


def test_a_time_is_told_of_other_trainings_or_is_said_to_be_unknown(s, tmp_path):
    per_epoch = sorted(record.run_json(runs.run(s, "go", fold))["seconds"] / 2 for fold in s.fold_numbers)[1]
    with pytest.raises(runs.NotTrainedError) as error:
        runs.run(of(s, train=False, epochs=int(3 * 3600 / per_epoch)), "go", 0)
    assert "about 3 h on the machine" in str(error.value)
    with pytest.raises(runs.NotTrainedError, match="is not known"):
        runs.run(of(s, train=False, results_dir=str(tmp_path)), "baseline_genes", 0)


def test_models_of_permuted_labels_and_other_seeds_are_no_surprise_either(s):
    with pytest.raises(runs.NotTrainedError, match=r"2 models \(go/final, permuted labels; go/final, permuted"):
        nulls.trained(of(s, train=False), "go", 2)
    with pytest.raises(runs.NotTrainedError, match=r"2 models \(go/final, seed 1; go/final, seed 2\)"):
        seeds.across_seeds(of(s, train=False), "go")


def test_one_line_says_what_is_trained_before_it_is(s, capsys):
    capsys.readouterr()
    runs.predictions(of(s, epochs=1))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training ")]
    assert len(told) == 1 and told[0].startswith("training 3 models (go/0; go/1; go/final): about 1 s")
    assert len(runs.predictions(of(s, epochs=1, train=False))) == 48
    assert "training " not in capsys.readouterr().err


def test_the_batch_is_no_way_on_for_a_model_that_is_registered_here(s):
    from torch import nn

    try:

        @registry.register("mine", genes="go")
        class Mine(nn.Module):
            def __init__(self, gene_dim):
                super().__init__()

        with pytest.raises(runs.NotTrainedError, match="register mine in whatever process"):
            runs.run(of(s, train=False), "mine", 0)
    finally:
        variants.OWN.clear(), registry._registered.clear()


def test_the_way_on_names_the_command_where_the_batch_would_make_the_same():
    from mmmil.training import missing

    p = params.load("lgg", "demo")
    assert "either run: make book TASKS=lgg OVERLAY=demo\n" in missing.told(p, ["go/0"])
    assert "in params/lgg.yaml and params/demo.yaml" in missing.told(p.override(epochs=99), ["go/0"])
