"""The batch: every training is a job with a receipt, and the record gathers what the receipts name.

A receipt, `results/<run>/trainings/<variant>/<fold>.json` (`<fold>-seed<seed>.json` of a further model seed), says
where a training's result lies, or would lie, and why there is none. That place has the training's key for its name, so
a receipt of other settings, code or files is known.
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
from mmmil.processes import leases
from mmmil.training import runs

if TYPE_CHECKING:
    from mmmil.study import Study

FINAL, SEED = "final", "-seed"
FAILURES = ["variant", "fold", "error", "log"]
OTHER = "of other settings, code or files than today's"
SHOWN = 10  # receipts spelled out in one error; the rest is counted


class BatchError(RuntimeError):
    """Receipts are missing, unreadable or of another study; says which and what to run."""


def trainings(p: Params) -> list[str]:
    """Every training of a task as `<variant>/<fold>`, folds from 0, then `final`: the model of the test patients; with
    `-seed<seed>` where it is not the study's own.
    """
    return [
        f"{t.variant}/{FINAL if t.fold < 0 else t.fold}" + ("" if t.seed is None else f"{SEED}{t.seed}")
        for t in runs.trainings(p, variants.variants(p))
    ]


def parse(training: str) -> tuple[str, int, int | None]:
    """(variant, fold, seed) of what `trainings` writes: -1 is the final model, None the study's own seed.

    Raises ParameterError for another text.
    """
    name, _, rest = training.partition("/")
    fold, with_seed, seed = rest.partition(SEED)
    if (fold != FINAL and not fold.isdigit()) or bool(with_seed) != seed.isdigit():
        raise ParameterError(
            f"training: write <variant>/<fold> or <variant>/{FINAL}, and {SEED}<seed> after it for another seed than "
            f"the task's, not {training!r}"
        )
    return variants.variant(name).name, -1 if fold == FINAL else int(fold), int(seed) if seed else None


def require(p: Params, training: str) -> None:
    """Raise ParameterError for a training of a variant that is none of the task's folds and seeds (`trainings`)."""
    _, fold, seed = parse(training)
    folds, further = p.repeats * p.n_folds, range(p.seed + 1, p.seed + p.model_seeds)
    if fold >= folds or not (seed is None or seed in further):
        seeds = f", and {SEED}{further[0]} to {SEED}{further[-1]} after them" if further else ""
        raise ParameterError(
            f"training: {training} is none of task {p.task}, which has folds 0 to {folds - 1} and {FINAL}{seeds} "
            "(n_folds, repeats, seed, model_seeds)"
        )


def receipt(p: Params, training: str) -> Path:
    return p.results / "trainings" / f"{training}.json"


def make(study: Study, names: Iterable[str]) -> int:
    """Make or find trainings, write a receipt for each, and return how many of them failed.

    What another process trains now comes last, and is found then.
    """
    names, held = list(names), []
    with tqdm(total=len(names), desc="trainings", unit="training", mininterval=5) as bar:
        for training in names:
            try:
                _receipt(study, training, wait=False)
                bar.update()
            except leases.HeldError:
                held.append(training)
        for training in held:
            _receipt(study, training)
            bar.update()
    return sum(_noted_error(receipt(study.p, training)) != "" for training in names)


def _receipt(study: Study, training: str, wait: bool = True) -> None:
    which = parse(training)
    if runs.attempt(study, *which, wait=wait) is None:
        note = runs.failure(study, *which) or {"error": "its note is damaged", "log": ""}
        print(f"{training} failed: {note['error']}\n{note['log']}", flush=True)
        _write(study, training, error=note["error"], log=note["log"])
    else:
        _write(study, training)


def _write(study: Study, training: str, error: str = "", log: str = "") -> None:
    text = json.dumps({"folder": _folder(study, training), "error": error, "log": log}, indent=1)
    record.write_atomically(receipt(study.p, training), lambda path: path.write_text(text + "\n"))


def _folder(study: Study, training: str) -> str:
    """Where the result of a training lies, or would lie if it had not failed; its name is the training's key."""
    return runs.place(study, *parse(training)).relative_to(study.p.results).as_posix()


def read(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The record of a task, from its receipts: predictions (columns runs.PREDICTIONS), failures (FAILURES).

    Raises BatchError, naming all of them, where a training has no receipt, where its result is gone, and where the
    receipt is that of other settings, code or files than the study's, for a table never mixes two. Makes nothing.
    """
    frames, failures, faults = [], [], {}
    for training in trainings(study.p):
        try:
            with record.only_found():
                folder = _folder(study, training)
        except record.NotThereError:  # not even what it reads is made of today's settings, code and files
            folder = ""
        try:
            note = json.loads(receipt(study.p, training).read_text())
            if note["folder"] != folder:
                faults[training] = OTHER
            elif note["error"]:
                failures.append((*training.split("/"), note["error"], note["log"]))
            else:
                frames.append(runs.read(study.p.results / note["folder"]))
        except (FileNotFoundError, NotADirectoryError):
            there = receipt(study.p, training).is_file()
            faults[training] = "the result is gone" if there else "there is no receipt"
        except (ValueError, KeyError, TypeError):
            faults[training] = "no whole receipt or result"
    if faults:
        raise BatchError(_told(study.p, faults))
    return runs.gather(frames), pd.DataFrame(failures, columns=FAILURES)


def _told(p: Params, faults: dict[str, str]) -> str:
    lines = [f"  {receipt(p, training)}: {fault}" for training, fault in list(faults.items())[:SHOWN]]
    lines += [f"  and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    if len(faults) > SHOWN:
        remedy = f"remove {p.results / 'trainings'} and run: make book TASKS={p.task} OVERLAY={p.overlay}"
        remedy += " (trainings whose results are there are found again)"
    else:
        overlay = f" --overlay {p.overlay}" if p.overlay else ""
        named = "".join(f" --training {training}" for training in faults)
        remedy = f"run: python -m mmmil train --task {p.task}{overlay}{named}"
    first = f"{len(faults)} of {len(trainings(p))} trainings are not there for the record of {p.task}:"
    return "\n".join([first, *lines, remedy])


def failed(p: Params) -> list[str]:
    """A line for every training of the task whose receipt says that it failed."""
    lines = []
    for training in trainings(p):
        path = receipt(p, training)
        error = _noted_error(path) if path.is_file() else ""
        lines += [f"  {p.task} {training}: {error.splitlines()[0]} (log in {path})"] if error else []
    return lines


def forget_failures(p: Params) -> None:
    """Remove the receipts of trainings that failed, so that the next batch tries them again, and damaged ones."""
    for path in (p.results / "trainings").glob("*/*.json"):
        if _noted_error(path) != "":
            path.unlink()


def _noted_error(path: Path) -> str | None:
    """Why a training failed, by its receipt; '' where it did not, None where the receipt is damaged or an older one."""
    try:
        note = json.loads(path.read_text())
        return note["error"] if isinstance(note["folder"], str) else None
    except (ValueError, KeyError, TypeError):
        return None
