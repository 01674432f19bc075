"""The benchmarks run at the smallest size and write their pages: what they measure is measured elsewhere."""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmmil import variants

ROOT = Path(__file__).resolve().parents[2]


def page(tmp_path, name, *more):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick", "--device", "cpu", "--threads", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path), *more], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return (tmp_path / f"{name}.md").read_text()


def tables(text):
    """Every table of a page: its head, and its rows by their first cell."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, _, *rows = ([cell.strip() for cell in line.strip("|\n ").split("|")] for line in block.splitlines())
        assert all(len(row) == len(head) for row in rows)
        found.append((head, {row[0]: dict(zip(head, row, strict=True)) for row in rows}))
    return found


def number(text):
    return float(text.replace(",", ""))


def test_bytes_read_tells_what_each_training_opens(tmp_path):
    (_, jobs), (_, read) = tables(page(tmp_path, "bytes_read"))
    assert len(jobs) == 5 and list(read) == ["mapped", "in memory"]
    for name, row in jobs.items():
        assert number(row["opened: slides"]) == number(row["opened: bags"]) == 0
        assert number(row["opened: packed"]) == 0 or "genes" not in name
        assert number(row["read, KiB"]) >= number(row["of it hashed, KiB"])
    assert number(read["mapped"]["private, MiB"]) < number(read["in memory"]["private, MiB"])


def test_train_step_compares_both_recipes(tmp_path):
    text = page(tmp_path, "train_step")
    (_, speed), (_, loss) = tables(text)
    names = ["reference, Original backbone", "reference, reduced backbone", "ours"]
    assert list(speed) == names
    assert list(loss) == [
        "reference, Original backbone, width 96",
        "reference, reduced backbone, width 96",
        "ours, no augmentation",
        "ours, with augmentation and gene dropout",
    ]
    assert "The same in all rows" in text and "Gene dropout and class weights are off in both" in text
    for row in speed.values():
        bags, seconds = number(row["bags a second"]), number(row["s a step"])
        assert bags > 0 and number(row["peak, MiB"]) > 50
        assert seconds < 0.2 or bags == pytest.approx(2 / seconds, rel=0.1)  # two patients a step, both rounded
    assert speed["ours"]["ours: times the bags"] == "1.0" and speed["ours"]["ours: share of the peak"] == "1.00"
    assert all(0 < number(row["other patients, mean"]) < 5 for row in loss.values())
    assert "commit" in text and "load average" in text and "nothing here was measured on a GPU" in text


@pytest.mark.parametrize("way, augmented, dropped", [("ours", False, 0.0), ("shipped", True, 0.6)])
def test_the_loss_is_compared_without_what_the_reference_lacks(tmp_path, monkeypatch, way, augmented, dropped):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import train_step

    from mmmil.training import fit as engine

    train_step.make_data(tmp_path, 6, 4, 64, 5)
    asked, fit = [], engine.fit

    def watched(fabric, model, *given, augment):
        asked.append((augment, model.gene_dropout.p))
        return fit(fabric, model, *given, augment=augment)

    monkeypatch.setattr(engine, "fit", watched)
    numbers = {"steps": 2, "batch": 2, "lr": 3e-4, "threads": 1, "seed": 0, "warm_up": 0, "train": 4, "held": 2}
    found = train_step.here(way, tmp_path, argparse.Namespace(device="cpu", **numbers))
    assert asked == [(augmented, dropped)] and 0 < found["held"] < 5
    alike = train_step.Reference("reduced", *train_step.ALIKE)
    assert alike.classifier[-1].in_features == 4 * 96 and alike.image.layers[0].attention.num_landmarks == 64


def test_whole_paper_adds_up_every_variant_and_task(tmp_path):
    text = page(tmp_path, "whole_paper")
    ((head, rows),) = tables(text)
    neural = [name for name, v in variants.VARIANTS.items() if v.fusion != "logistic" and not v.optional]
    assert len(neural) == 18 and list(rows)[:18] == neural
    columns = [name for name in head if name.endswith(", min")]
    assert columns == ["LGG, min", "NSCLC, min", "BRCA, min", "all tasks, min"]
    for column in columns:
        parts = [number(row[column]) for name, row in rows.items() if name != "**all**"]
        assert sum(parts) == pytest.approx(number(rows["**all**"][column]), abs=0.05 * len(parts) + 0.1)
    assert rows["go"]["s a step"] == rows["kegg"]["s a step"]  # of one shape, measured once
    assert number(rows["wsi_original"]["all tasks, min"]) > 0
    assert "one hour on one H200. That was not measured" in text
    assert re.search(r"load average \d+\.\d at the start, without this, and \d+\.\d at the end", text)


def test_the_first_pass_of_a_prediction_is_not_timed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import whole_paper

    from mmmil.training import device
    from mmmil.training import fit as engine

    passes = []
    monkeypatch.setattr(engine, "predict", lambda *_: (passes.append(0), time.sleep(0.5 if len(passes) == 1 else 0)))
    sizes = {"tiles": 4, "px": 32, "sets": 5, "steps": 1, "warm_up": 1, "batch": 2, "threads": 1}
    given = argparse.Namespace(device="cpu", **sizes)
    v = next(v for v in whole_paper.neural() if v.name == "go")
    made = whole_paper.cost(v, given, device.make_fabric(whole_paper.settings(given)), torch.zeros(4, 4, 32, 32, 3))
    assert len(passes) == 2 and made["predict"] < 0.1


def test_a_task_of_one_variant_is_six_trainings(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import whole_paper

    one = {"step": 2.0, "prepare": 3.0, "predict": 0.5}
    # 100 patients: 20 tested, 80 for development, folds of 64; 8 a step: 8 steps a fold and 10 of the final model.
    assert whole_paper.seconds(one, 100, 30, 8, 1) == 30 * (5 * 8 + 10) * 2 + 6 * 3 + 100 * 0.5
    assert whole_paper.seconds(one, 100, 30, 8, 4) == whole_paper.seconds(one, 100, 30, 8, 1) / 4
    assert len({whole_paper.shape_of(v) for v in whole_paper.neural()}) == 12
