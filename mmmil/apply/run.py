"""A kept model applied to new patients: each is predicted alone by the final model and the folds'.

Nothing is fitted, and no patient has a say in another's probability. predictions.csv has a row per patient, run.json
says how it was made, reports/ has a page per patient and, where there are labels, validation.csv and validation.html
the external validation.
"""

from __future__ import annotations

import datetime
import json
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from mmmil import __version__, record
from mmmil.apply import cohort as new_cohort
from mmmil.apply import folder, models, report, validation
from mmmil.apply.cohort import ApplyError
from mmmil.apply.distance import Distance
from mmmil.apply.folder import KeptModel
from mmmil.apply.patient import Reader
from mmmil.apply.prediction import Prediction, predicted
from mmmil.params import Params

PREDICTIONS, RUN, REPORTS = "predictions.csv", "run.json", "reports"


def run(
    model: Path | str,
    cohort: Params | Path | str,
    out: Path | str,
    reports: bool | Collection[str] = True,
    places: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Apply a kept model to a cohort and write what comes of it into the folder `out`; returns predictions.csv's table.

    cohort: a table as `cohort_table` (labels and sites may be missing; relative paths lie beside it; a column mpp gives
    µm per px; for a matrix, expression_path names it), or a task's parameters. reports: whether each patient gets a
    page, or whose. places: setting -> path, as of gene_table or weights_dir. The table has one row per patient: prob of
    the final model, mean, sd, min and max over the folds' models, each model's, flags, distances in percentiles of the
    training patients, and the problem of a patient that could not be predicted.

    Raises ModelError for a folder that is no whole model, ApplyError for a cohort that contradicts it and where no
    patient at all could be predicted.
    """
    from mmmil.training import device

    started, out = time.monotonic(), Path(out)
    kept = folder.read(model)
    if out.resolve().is_relative_to(kept.folder.resolve()):
        raise ApplyError(f"out: {out} lies in the model's folder, which holds nothing of a patient; name another")
    out.mkdir(parents=True, exist_ok=True)
    p = new_cohort.settings(kept, cohort, out, places or {})
    found, left_out = new_cohort.patients(p)
    patients = found.patients
    fabric = device.make_fabric(p)
    loaded = models.load(kept, p, fabric)
    reader = Reader(kept, p, loaded, fabric, found.features, new_cohort.stated_scales(cohort, p))
    distances = {
        name.partition(".")[0]: Distance.from_arrays(kept.distances, name.partition(".")[0])
        for name in kept.distances
        if name.endswith(".mean")
    }
    _remove_older(out)
    same: dict[tuple[str, str], list[str]] = {}
    labels = {name: int(label) for name, label in patients["label"].items()}
    rows = [row_of(kept, name, -1, None, reason) for name, reason in left_out.items()]
    for name, row in tqdm(patients.iterrows(), total=len(patients), desc="patients", unit="patient", mininterval=5):
        made, problem = None, ""
        try:
            made = predicted(reader.read(name, row), reader, loaded, distances)
        except (ValueError, RuntimeError, OSError) as error:  # the patient's own: the others go on
            problem = str(error)
        rows.append(row_of(kept, name, labels[name], made, problem))
        for what, content in made.patient.contents().items() if made else ():
            same.setdefault((what, content), []).append(name)
        if made is not None and (reports is True or (reports and name in reports)):
            report.write(out / REPORTS, kept, made, loaded[0], labels[name])
    _flag_same(rows, same)
    table = pd.DataFrame(rows).sort_values("patient_id", ignore_index=True)
    if "label" in table and (table["label"] == "").all():
        table = table.drop(columns="label")
    record.write_atomically(out / PREDICTIONS, lambda t: folder.of_model(kept, table).to_csv(t, index=False))
    done = table["problem"] == ""
    about = {
        "model": str(model),
        "title": kept.about["title"],
        "patients": len(table),
        "predicted": int(done.sum()),
        "refused": int((~done).sum()),
        "flagged": int((table["flags"] != "").sum()),
        "version": __version__,
        "commit": record.commit(),
        "kept_by_commit": kept.about["commit"],
        "on": device.circumstances(p),
        "versions": record.versions("torch", "numpy", "timm"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 2),
    }
    record.write_atomically(out / RUN, lambda t: t.write_text(json.dumps(about, indent=1) + "\n"))
    if not done.any():
        raise ApplyError(_nobody(table, out))
    if "label" in table:
        validation.write(out, kept, table)
    return table


def _remove_older(out: Path) -> None:
    """What an earlier run has left in the folder, which would lie beside this one's as if it were of it."""
    older = [out / PREDICTIONS, out / RUN, *(out / name for name in validation.FILES), *(out / REPORTS).glob("*.html")]
    for path in older:
        path.unlink(missing_ok=True)


def _flag_same(rows: list[dict[str, Any]], same: Mapping[tuple[str, str], list[str]]) -> None:
    """Say in their rows of which patients the one input is: it counts for each, and can be right for one alone."""
    by_name = {row["patient_id"]: row for row in rows}
    for (what, _), names in same.items():
        for name in names[: len(names) * (len(names) > 1)]:
            flag = f"{what} is that of {names[0] if name != names[0] else names[1]}, too"
            by_name[name]["flags"] = "; ".join(filter(None, [by_name[name]["flags"], flag]))


def row_of(kept: KeptModel, name: str, label: int, made: Prediction | None, problem: str) -> dict[str, Any]:
    """A row of predictions.csv."""
    prob = dict.fromkeys(kept.models, np.nan) if made is None else made.prob
    folds = np.array([value for model, value in prob.items() if model != folder.FINAL])
    row: dict[str, Any] = {"patient_id": name, "label": label if label >= 0 else "", "prob": prob[folder.FINAL]}
    row |= {"prob_mean": folds.mean(), "prob_sd": folds.std(ddof=1), "prob_min": folds.min(), "prob_max": folds.max()}
    row |= {f"prob_{model}": value for model, value in prob.items() if model != folder.FINAL}
    row["flags"] = "; ".join(made.flags) if made else ""
    for modality in ("image", "genes"):
        if kept.inputs in ("both", {"image": "slides", "genes": "genes"}[modality]):
            row[f"distance_{modality}"] = made.distance[modality] if made else np.nan
    return row | {"problem": problem}


def _nobody(table: pd.DataFrame, out: Path) -> str:
    reasons = Counter(table["problem"])
    lines = [f"  {n} x {reason}" for reason, n in reasons.most_common(5)]
    more = [f"  and {len(reasons) - 5} more"] if len(reasons) > 5 else []
    return "\n".join([f"none of {len(table)} patients could be predicted ({out / PREDICTIONS}):", *lines, *more])
