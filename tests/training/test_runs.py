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
    assert len(told) == 1 and told[0].startswith("training 3 models (go/0; go/1; go/final): about ")
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


def test_every_repeat_and_seed_is_trained_recorded_and_summarised(s, monkeypatch):
    """Regression is quick; its models do not know the seed, so all of a fold are alike."""
    changes = {"repeats": 2, "model_seeds": 2, "variants": ["baseline_genes"]}
    more = of(s, **changes, epochs=1)
    names = receipts.trainings(more.p)
    assert names[:5] == [f"baseline_genes/{k}" for k in (0, 1, 2, 3, "final")]
    assert names[5:] == [f"{name}-seed1" for name in names[:5]]
    assert receipts.make(more, names) == 0
    table, failures = receipts.read(more)
    assert failures.empty and table.equals(runs.predictions(of(s, **changes, train=False)))
    val = table[table["split"] == "val"]
    dev = s.folds.index[s.folds >= 0]
    assert (val.groupby("patient_id").size()[dev] == 4).all() and set(val["seed"]) == {0, 1}
    assert set(table.loc[table["split"] == "test", "patient_id"]) == set(s.folds.index[s.folds < 0])
    held = {k: set(more.fold_patients(k)[1]) for k in range(4)}
    assert held[2] | held[3] == set(dev) == held[0] | held[1] and held[2] not in (held[0], held[1])
    assert not set(more.fold_patients(2)[0]) & held[2]
    monkeypatch.setattr(params, "load", lambda *_: more.p)
    cli.collect("nsclc", "demo")
    rows = pd.read_csv(s.p.results / "metrics.csv")
    assert set(rows.loc[rows["split"] == "val", "n_folds"]) == {4}
    study.write(more)
    cohort = pd.read_csv(s.p.results / "cohort.csv", index_col="patient_id")
    assert cohort["fold_of_repeat_1"].to_dict() == more.folds_of(2).to_dict()
    assert (s.p.results / "splits" / "splits_3.csv").is_file()


def test_a_training_is_tuned_on_inner_folds_and_keeps_what_it_tried_and_chose(s):
    from mmmil.training import tuning

    tuned = of(s, tuning=2)
    folder = runs.run(tuned, "go", 0)
    facts, tried = record.run_json(folder)["facts"], pd.read_csv(folder / "tuning.csv")
    values = tried[list(tuning.SPACE)]
    assert len(tried) == 2 and values.loc[0].to_dict() == {name: getattr(s.p, name) for name in values}
    assert values[tried["chosen"]].to_dict("records") == [facts["tuned"]]
    assert tried["chosen"].idxmax() == tried["log_loss"].idxmin()
    assert len(pd.read_csv(folder / "history.csv")) == facts["epochs"] == facts["tuned"]["epochs"]
    assert not list(folder.parent.glob("*checkpoint"))
    assert not (runs.run(tuned, "baseline_genes", 0) / "tuning.csv").exists()  # its strength is fixed
    table = runs.tuned(tuned, ["go"])  # of every fold and the final model
    assert len(table) == 2 * 3 and table.xs(0, level="fold")["chosen"].tolist() == tried["chosen"].tolist()
    assert runs.tuned(s) is None
