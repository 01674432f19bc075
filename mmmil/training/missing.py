"""Trainings that are missing: what is said of them before any is made, and where none is to be made."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from mmmil import params, record, variants
from mmmil.params import ParameterError, Params

SHOWN = 12  # trainings spelled out; the rest is counted
READ = 20  # finished trainings of a variant whose time is looked at


def announced(p: Params, trainings: list[str]) -> str:
    """The line before trainings are made: how many, and how long it takes if earlier ones tell."""
    return f"training {_number(trainings)} ({_listed(trainings)}): {_time(p, trainings)}"


def told(p: Params, trainings: list[str]) -> str:
    """The error for trainings that are not there and are not to be made here: which, why, and the two ways on."""
    lines = [
        f"not trained, or settings, code or files have changed since: {_number(trainings)} ({_listed(trainings)})",
        f"either {_batch(p, trainings)}",
        f"or set train = True in the parameters cell, which makes what is missing here: {_time(p, trainings)}",
    ]
    return "\n".join(lines)


def _number(trainings: list[str]) -> str:
    return f"{len(trainings)} model" + "s" * (len(trainings) != 1)


def _listed(trainings: list[str]) -> str:
    more = f" and {len(trainings) - SHOWN} more" if len(trainings) > SHOWN else ""
    return "; ".join(trainings[:SHOWN]) + more


def _batch(p: Params, trainings: list[str]) -> str:
    """How the batch makes them, or why it does not: it knows the parameter files and the package's variants only."""
    own = sorted({_variant(t) for t in trainings} & variants.OWN.keys())
    if own:
        return f"register {', '.join(own)} in whatever process is to train it, for the batch does not know it"
    try:
        batch = params.load(p.task, p.overlay)
    except ParameterError:
        return f"write params/{p.task}.yaml and run: make book TASKS={p.task} OVERLAY={p.overlay}"
    command = f"make book TASKS={p.task} OVERLAY={p.overlay}"
    differs = [name for name in Params.model_fields if getattr(batch, name) != getattr(p, name)]
    if differs:
        files = " and ".join(f"params/{name}.yaml" for name in (p.task, p.overlay) if name)
        return f"take {', '.join(differs)} as the batch has it, or set it in {files} and run it: {command}"
    return f"run: {command}"


def _time(p: Params, trainings: list[str]) -> str:
    """Roughly how long, by finished trainings of the same variants, or of any; seconds go with the epochs."""
    by_variant = {name: _seconds(p, name) for name in dict.fromkeys(map(_variant, trainings))}
    known = [seconds for seconds in by_variant.values() if seconds is not None] or [
        seconds for path in (p.results / "models").glob("*") if (seconds := _seconds(p, path.name)) is not None
    ]
    if not known:
        return "how long it takes is not known, for none has been made here: after the first the bar tells"
    total = sum(by_variant[_variant(t)] or max(known) for t in trainings)
    size, unit = next((n, u) for n, u in ((3600, "h"), (60, "min"), (1, "s")) if total >= n or n == 1)
    return f"about {max(total / size, 1):.0f} {unit} on the machine that made the others"


def _seconds(p: Params, name: str) -> float | None:
    """Median seconds of a variant's finished trainings, at these epochs and candidates; None where there is none."""
    found = []
    for path in sorted((p.results / "models" / name).glob(f"seed_*/*/*/{record.RUN}"))[:READ]:
        run = _read(path)
        made = {"epochs": p.epochs, "tuning": p.tuning} | run.get("inputs", {}).get("settings", {})
        if "seconds" in run:  # a candidate takes two trainings
            found.append(run["seconds"] * p.epochs * (1 + 2 * p.tuning) / (made["epochs"] * (1 + 2 * made["tuning"])))
    return median(found) if found else None


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # being written, or removed
        return {}


def _variant(training: str) -> str:
    return training.split("/")[0]
