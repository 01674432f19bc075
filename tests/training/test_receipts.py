"""Trainings as jobs: a receipt for each, the record from the receipts, and what becomes of those that fail."""

import json
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mmmil import params, record
from mmmil.book import status
from mmmil.evaluation import comparisons, metrics
from mmmil.evaluation import summary as summaries
from mmmil.processes import leases, wall_time
from mmmil.tables import frames
from mmmil.training import fit, receipts, runs
from mmmil.training import receipts as training_receipts
from mmmil.training import train as trainer

NAMES = ["wsi", "go", "baseline_genes"]


@pytest.fixture
def study(tmp_path, monkeypatch, code_replaced):
    """A study whose trainings are told what to predict; those in `study.broken` fail."""
    p = params.load("lgg", "demo", variants=NAMES, n_folds=2, results_dir=str(tmp_path))
    fake = SimpleNamespace(p=p, fold_numbers=[0, 1, -1], broken=set(), made=[], train=True, files="as they were")
    fake.slow = {}

    def place(study, name, fold, seed=None, labels=None):
        inputs = {"variant": name, "fold": fold, "settings": {"epochs": study.p.epochs}, "files": study.files}
        return runs._parent(study, name, fold, 0), inputs

    def train(study, v, fold, folder, checkpoint, seed, labels):
        study.made.append((v.name, fold))
        study.slow.get((v.name, fold), threading.Event()).wait(0 if (v.name, fold) not in study.slow else 60)
        if (v.name, fold) in study.broken:
            raise fit.TrainingError("the loss is nan in epoch 0\nand more")
        label = np.tile([0, 1], 6)
        table = pd.DataFrame(
            {"variant": v.name, "seed": 0, "fold": fold, "split": "test" if fold < 0 else "val"}, index=range(12)
        )
        table["patient_id"], table["label"] = [f"P{fold}-{i}" for i in range(12)], label
        table["prob"] = np.random.default_rng(fold + 1).random(12)
        table.to_parquet(folder / "predictions.parquet", index=False)

    monkeypatch.setattr(runs, "_place", place)
    monkeypatch.setattr(trainer, "train", train)
    return fake


def test_a_training_has_a_name():
    assert receipts.parse("dual_go/3") == ("dual_go", 3, None) and receipts.parse("wsi/final") == ("wsi", -1, None)
    assert receipts.parse("wsi/final-seed7") == ("wsi", -1, 7)
    two = params.load("lgg", "demo", n_folds=5, repeats=2, model_seeds=3)
    for there in receipts.trainings(two):
        receipts.require(two, there)
    for none in ("go/10", "go/0-seed0", "go/final-seed3"):
        with pytest.raises(
            params.ParameterError, match="none of task lgg, which has folds 0 to 9 and final, and -seed1 to -seed2"
        ):
            receipts.require(two, none)
    for wrong in ("dual_go", "dual_go/last", "duel/1", "wsi/1-seed", "wsi/1-seedx", "wsi/-seed1"):
        with pytest.raises(params.ParameterError):
            receipts.parse(wrong)


def test_the_record_is_gathered_from_the_receipts(study):
    assert training_receipts.make(study, receipts.trainings(study.p)) == 0
    assert len(study.made) == 9
    predictions, failures = receipts.read(study)
    assert len(predictions) == 9 * 12 and list(predictions.columns) == runs.PREDICTIONS and failures.empty
    receipts.receipt(study.p, "go/1").unlink()
    with pytest.raises(receipts.BatchError, match=r"(?s)go/1\.json.*python -m mmmil train --task lgg --overlay demo"):
        receipts.read(study)


def test_a_failed_training_leaves_the_others_and_says_so_everywhere(study):
    study.broken = {("go", 1)}
    assert training_receipts.make(study, receipts.trainings(study.p)) == 1
    predictions, failures = receipts.read(study)
    assert len(predictions) == 8 * 12
    row = failures.iloc[0]
    assert (row["variant"], row["fold"]) == ("go", "1") and "loss is nan" in row["error"] and "Traceback" in row["log"]
    assert "go/1: TrainingError: the loss is nan" in receipts.failed(study.p)[0]
    # Metrics over one fold of two would be no row of this table.
    summary = summaries.summarise(predictions, study.p, NAMES)
    incomplete = (summary["variant"] == "go") & (summary["split"] == "val")
    assert incomplete.any() and summary.loc[incomplete, "mean"].isna().all()
    assert summary.loc[~incomplete, "mean"].notna().all()
    shown = frames.table(summaries.table(summary, NAMES))
    assert shown.count(summaries.FAILED) == len(metrics.METRICS)
    assert summaries.FAILED not in frames.table(summaries.table(summary, NAMES, split="test"))
    record.write_atomically(study.p.results / "failures.csv", lambda path: failures.to_csv(path, index=False))


def test_case_a_failure_of_other_files_is_no_failure_of_this_study(study):
    study.broken = {("go", 1)}
    study.broken = {("go", 1), ("wsi", 0)}
    training_receipts.make(study, ["go/1", "wsi/0"])
    named = {t: json.loads(receipts.receipt(study.p, t).read_text())["folder"] for t in ("go/1", "wsi/0")}
    assert all((study.p.results / f"{folder}.failed.json").is_file() for folder in named.values())
    training_receipts.make(study, [t for t in receipts.trainings(study.p) if t not in named])
    assert len(receipts.read(study)[1]) == 2
    study.files = "another download"
    with pytest.raises(receipts.BatchError, match="9 of 9 trainings") as error:
        receipts.read(study)
    assert str(error.value).count("of other settings, code or files") == 9
    assert len(receipts.failed(study.p)) == 2  # what the batch tells at its end, and forgets at its next start


def test_a_page_does_not_train_again_what_failed_and_the_next_batch_does(study):
    study.broken = {("go", 1), ("go", -1)}
    training_receipts.make(study, receipts.trainings(study.p))
    study.made.clear()
    assert len(runs.predictions(study, NAMES)) == 7 * 12 and not study.made
    assert runs.failures(study)["fold"].tolist() == [1, -1]
    with pytest.raises(fit.TrainingError):  # asked for by name, it says what is wrong
        runs.run(study, "go", 1)
    receipts.forget_failures(study.p)
    lacking = [t for t in receipts.trainings(study.p) if not receipts.receipt(study.p, t).is_file()]
    assert lacking == ["go/1", "go/final"]
    study.broken, study.made = set(), []
    assert training_receipts.make(study, receipts.trainings(study.p)) == 0 and study.made == [("go", 1), ("go", -1)]
    assert not receipts.failed(study.p) and runs.failures(study).empty
    assert len(runs.predictions(study, NAMES)) == 9 * 12


@pytest.mark.parametrize("text", ["", '{"folder": "x"', "[]", '{"error": ""}', '{"folder": "x"}'])
def test_a_damaged_receipt_or_one_of_an_older_version_is_made_again(study, text):
    training_receipts.make(study, receipts.trainings(study.p))
    path = receipts.receipt(study.p, "go/1")
    path.write_text(text)
    assert not receipts.failed(study.p)
    with pytest.raises(receipts.BatchError, match=r"no whole receipt|of other settings"):
        receipts.read(study)
    receipts.forget_failures(study.p)
    assert [t for t in receipts.trainings(study.p) if not receipts.receipt(study.p, t).is_file()] == ["go/1"]


def test_a_task_of_which_every_training_failed_still_has_its_rows(study):
    study.broken = {(name, fold) for name in NAMES for fold in study.fold_numbers}
    assert training_receipts.make(study, receipts.trainings(study.p)) == 9
    predictions, failures = receipts.read(study)
    summary = summaries.summarise(predictions, study.p, NAMES)
    assert len(failures) == 9 and set(summary["variant"]) == set(NAMES) and summary["mean"].isna().all()
    assert comparisons.compare(predictions, study.p).empty


DIES = """
import os, sys
from pathlib import Path
from mmmil.processes import leases
with leases.held(Path(sys.argv[1]), wait=False):
    os.kill(os.getpid(), 9)
"""


def test_a_training_at_which_processes_died_is_tried_again_and_then_fails_alone(study):
    place = runs.place(study, "wsi", 1)
    for _ in range(runs.DEATHS - 1):
        assert subprocess.run([sys.executable, "-c", DIES, place]).returncode == -9
    assert training_receipts.make(study, ["wsi/0", "wsi/1"]) == 0 and study.made == [("wsi", 0), ("wsi", 1)]
    shutil.rmtree(place)
    for _ in range(runs.DEATHS):
        assert subprocess.run([sys.executable, "-c", DIES, place]).returncode == -9
    study.made.clear()
    assert training_receipts.make(study, ["wsi/0", "wsi/1", "wsi/final"]) == 1 and study.made == [("wsi", -1)]
    told = json.loads(receipts.receipt(study.p, "wsi/1").read_text())
    assert "2 processes died while they made this" in told["error"] and "out of memory" in told["error"]
    study.made.clear()
    assert len(runs.predictions(study, ["wsi"])) == 2 * 12 and not study.made  # pages do not die of it
    assert runs.standing(study, NAMES) == ["go", "baseline_genes"]
    assert runs.standing(study, NAMES, [0, -1]) == NAMES
    receipts.forget_failures(study.p)
    assert training_receipts.make(study, ["wsi/1"]) == 0  # the next batch tries it again, from the start of the count


def test_what_another_process_trains_comes_last_and_is_trained_once(study):
    with leases.held(runs.place(study, "wsi", 0)), pytest.raises(leases.HeldError, match="makes it now"):
        runs.attempt(study, "wsi", 0, wait=False)
    holder = threading.Thread(target=lambda: runs.run(study, "wsi", 0))
    study.slow, study.made = {("wsi", 0): threading.Event()}, []
    holder.start()
    while not study.made:
        time.sleep(0.01)
    threading.Timer(0.5, study.slow["wsi", 0].set).start()
    assert training_receipts.make(study, ["wsi/0", "wsi/1"]) == 0
    holder.join()
    assert study.made == [("wsi", 0), ("wsi", 1)]


def test_a_job_whose_time_is_up_starts_nothing_and_fails_nothing(study, monkeypatch):
    monkeypatch.setenv(wall_time.END, str(int(time.time() + wall_time.MARGIN / 2)))
    with pytest.raises(wall_time.OutOfTimeError):
        training_receipts.make(study, ["wsi/0"])
    assert not study.made and not receipts.receipt(study.p, "wsi/0").is_file()
    assert not list(study.p.results.rglob("*.failed.json")) and not list(study.p.results.rglob("*.lease-*"))
    monkeypatch.delenv(wall_time.END)
    assert training_receipts.make(study, ["wsi/0"]) == 0


def test_the_status_page_shows_the_end_of_the_log(tmp_path, monkeypatch):
    p = params.load("lgg", "demo")
    log = "\n".join(f"line {i}" for i in range(40))
    table = pd.DataFrame([("go", "1", "ValueError: x", log)], columns=receipts.FAILURES)
    monkeypatch.setattr(status, "read_results", lambda *_: table)
    text = status.failures({"lgg": p})
    assert text.startswith("(failed-trainings)=") and "`go/1`" in text and "line 39" in text and "line 3\n" not in text
    monkeypatch.setattr(status, "read_results", lambda *_: table[:0])
    assert "None." in status.failures({"lgg": p})
