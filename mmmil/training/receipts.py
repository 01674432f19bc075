"""The batch: every training is a job with a receipt, and the record gathers what the receipts name.

A receipt, `results/<task>/trainings/<variant>/<fold>.json`, says where a training's result lies or why there is none.
A training that fails leaves all others intact: its rows are missing from the record, its cells say "failed", and the
next batch tries it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tqdm import tqdm

from mmmil import record, variants
from mmmil.params import ParameterError, Params
from mmmil.training import runs

if TYPE_CHECKING:
    from mmmil.study import Study

FINAL = "final"
FAILURES = ["variant", "fold", "error", "log"]


class BatchError(RuntimeError):
    """A receipt is missing or unreadable; says which and what to run."""


def trainings(p: Params) -> list[str]:
    """Every training of a task as `<variant>/<fold>`, folds from 0, then `final`: the model of the test patients."""
    return [f"{name}/{fold}" for name in variants.variants(p) for fold in [*range(p.n_folds), FINAL]]


def parse(training: str) -> tuple[str, int]:
    """(variant, fold) of `<variant>/<fold>`; -1 for the final model. Raises ParameterError for another text."""
    name, _, fold = training.partition("/")
    if fold != FINAL and not fold.isdigit():
        raise ParameterError(f"training: write <variant>/<fold> or <variant>/{FINAL}, not {training!r}")
    return variants.variant(name).name, -1 if fold == FINAL else int(fold)


def receipt(p: Params, training: str) -> Path:
    return p.results / "trainings" / f"{training}.json"


def make(study: Study, names: Iterable[str]) -> int:
    """Make or find trainings, write a receipt for each, and return how many of them failed."""
    failed = 0
    for training in tqdm(list(names), desc="trainings", unit="training", mininterval=5):
        name, fold = parse(training)
        folder = runs.attempt(study, name, fold)
        if folder is None:
            note, failed = runs.failure(study, name, fold), failed + 1
            print(f"{training} failed: {note['error']}\n{note['log']}", flush=True)
            _write(study.p, training, error=note["error"], log=note["log"])
        else:
            _write(study.p, training, folder=folder.relative_to(study.p.results).as_posix())
    return failed


def give_up(study: Study, names: Iterable[str], why: str) -> list[str]:
    """Note that the first training without a receipt failed, for its process was killed; returns those after it.

    Without this, the next attempt would die at the same training, and the others would never have their turn.
    """
    lacking = [training for training in names if not receipt(study.p, training).is_file()]
    if not lacking:  # it died on its way out, all work done
        return []
    first, *rest = lacking
    error = "the process was killed while it trained; out of memory is the usual reason"
    runs.note_failure(study, *parse(first), error, why)
    _write(study.p, first, error=error, log=why)
    return rest


def _write(p: Params, training: str, folder: str = "", error: str = "", log: str = "") -> None:
    text = json.dumps({"folder": folder, "error": error, "log": log}, indent=1)
    record.write_atomically(receipt(p, training), lambda path: path.write_text(text + "\n"))


def read(p: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The record of a task, from its receipts: predictions (columns experiments.PREDICTIONS), failures (FAILURES).

    Raises BatchError where a training has no receipt, or where its result is gone.
    """
    frames, failures = [], []
    for training in trainings(p):
        try:
            note = json.loads(receipt(p, training).read_text())
            if note["error"]:
                failures.append((*training.split("/"), note["error"], note["log"]))
            else:
                frames.append(runs.read(p.results / note["folder"]))
        except (FileNotFoundError, ValueError, KeyError) as error:
            overlay = f" --overlay {p.overlay}" if p.overlay else ""
            raise BatchError(
                f"{receipt(p, training)}: no whole receipt, or its result is gone ({type(error).__name__}); "
                f"run: python -m mmmil train --task {p.task}{overlay} --training {training}"
            ) from None
    return runs.gather(frames), pd.DataFrame(failures, columns=FAILURES)


def failed(p: Params) -> list[str]:
    """A line for every training of the task whose receipt says that it failed."""
    lines = []
    for training in trainings(p):
        path = receipt(p, training)
        error = json.loads(path.read_text())["error"] if path.is_file() else ""
        lines += [f"  {p.task} {training}: {error.splitlines()[0]} (log in {path})"] if error else []
    return lines


def forget_failures(p: Params) -> None:
    """Remove the receipts of trainings that failed, so that the next batch tries them again."""
    for path in (p.results / "trainings").glob("*/*.json"):
        if json.loads(path.read_text())["error"]:
            path.unlink()
