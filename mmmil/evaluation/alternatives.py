"""What changes when a setting that the paper leaves open is chosen otherwise: one setting at a time, the rest the same.

Each is compared with the default on the same patients and folds of one cohort, by ROC-AUC in cross-validation. The
first row changes nothing but the seed: what it moves is noise, and no other row means more unless it moves more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mmmil import params, record, results, study
from mmmil.evaluation import bootstrap, paired_tests
from mmmil.evaluation.summary import estimate
from mmmil.params import Params
from mmmil.training import runs

COLUMNS = [
    *("task", "cohort", "synthetic", "patients", "variant", "setting", "value", "default_value", "default_roc_auc"),
    *("roc_auc", "difference", "ci_low", "ci_high", "commit"),
]
VARIANTS = ("go", "dual_go")
# Setting -> the values tried. Those that change who is evaluated are left out.
TRIED: dict[str, list[Any]] = {
    "seed": [1],
    "selection": ["all_patients"],
    "min_count": [1],
    "set_sizes": [[5, 500], [10, 30]],
    "max_sets": [5],
    "gene_order": ["gmt"],
    "gene_scaling": ["none"],
    "gene_clip": [0.0],
    "ae_loss": ["set"],
    "ae_hidden": [256],
    "ae_epochs": [20, 80],
    "ae_batch": [256],
    "gene_encoder": ["trained"],
    "gene_dropout": [0.0, 0.3],
    "set_embedding": [False],
    "width": [48],
    "attention": ["nystrom"],
    "dropout": [0.3],
    "batch_norm": ["batch"],
    "apoz_tiles": [16],
    "tile_choice": ["tissue", "spread"],
    "augment": [False],
    "epochs": [7, 28],
    "batch_size": [4],
    "lr": [3e-4],
    "weight_decay": [0.1],
    "class_weights": [False],
}
IMAGES_ONLY = {"batch_norm", "apoz_tiles", "tile_choice", "augment"}  # nothing to a gene model


def path() -> Path:
    return results.benchmark("alternatives")


def predictions(p: Params, variant: str, folds: pd.Series | None = None) -> tuple[pd.DataFrame, pd.Series]:
    """Cross-validated predictions, index patient_id, columns label, prob, fold; and the folds (patient -> number).

    folds: those of the default, so that another seed does not divide the patients otherwise. Every training is a
    result of the record: what was made is found again.
    """
    this_study = study.load(p)
    if folds is not None:
        this_study = study.Study(p, this_study.cohort, folds.loc[this_study.patients], this_study.tiles)
    table = runs.gather(runs.read(runs.run(this_study, variant, k)) for k in range(p.n_folds))
    return table.set_index("patient_id")[["label", "prob", "fold"]].sort_index(), this_study.folds


def compare(default: Params, changes: Mapping[str, Any], variant: str, setting: str) -> dict[str, Any]:
    """A row of COLUMNS: ROC-AUC with one setting changed, less that of the default, on the same patients.

    The interval is that of a paired bootstrap of the patients within folds. Raises ParameterError for an unknown
    setting or value, and ValueError where the change evaluates other patients.
    """
    changed = default.override(**changes)
    before, folds = predictions(default, variant)
    after, _ = predictions(changed, variant, folds)
    if not after.index.equals(before.index) or not (after["fold"] == before["fold"]).all():
        raise ValueError(f"{setting}: changes who is evaluated, so the two cannot be compared patient by patient")
    label, fold = before["label"].to_numpy(), before["fold"].to_numpy()
    difference = bootstrap.paired_bootstrap(label, after["prob"].to_numpy(), before["prob"].to_numpy(), fold)
    auc = paired_tests.mean_auc_covariance(label, before[["prob"]].to_numpy().T, fold)[0][0]
    values = (
        *(default.task, default.title or default.task, default.synthetic, len(before), variant, setting),
        *(str(changes[setting]), str(getattr(default, setting)), auc, auc + difference.difference),
        *(*difference[:3], record.commit()),
    )
    return dict(zip(COLUMNS, values, strict=True))


def add(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Put rows into benchmarks/results/alternatives.csv, in place of those of the same cohort, variant and value."""
    table = pd.DataFrame(rows, columns=COLUMNS)
    if path().is_file():
        table = pd.concat([read(), table.astype({"value": str})])
    key = ["task", "synthetic", "variant", "setting", "value"]
    order = {name: number for number, name in enumerate(TRIED)}
    table = table.drop_duplicates(key, keep="last").sort_values(
        ["task", "setting", "value", "variant"], key=lambda c: c.map(order) if c.name == "setting" else c, kind="stable"
    )
    record.write_atomically(path(), lambda temporary: table.to_csv(temporary, index=False, float_format="%.6f"))
    return table


def read() -> pd.DataFrame:
    """What was measured; an empty frame with COLUMNS where nothing was. Raises ParameterError for other columns."""
    text = {"value": str, "default_value": str, "commit": str}
    table = results.read_benchmark("alternatives", dtype=text, keep_default_na=False)
    if table is None:
        return pd.DataFrame(columns=COLUMNS)
    if list(table.columns) != COLUMNS:
        raise params.ParameterError(f"{path()}: has other columns; remove it and run benchmarks/alternatives.py again")
    table["synthetic"] = table["synthetic"].astype(str) == "True"
    return table.astype(dict.fromkeys(("default_roc_auc", "roc_auc", "difference", "ci_low", "ci_high"), float))


def effect(table: pd.DataFrame, setting: str) -> str:
    """'`gmt`: go +0.010 [-0.020, +0.040], dual_go ...' of every value tried of a setting; '' where none was.

    '`256` instead of `64`: ...' where it was set against another value than the schema's default, such as an overlay's.
    """
    effects, default = [], str(Params.model_fields[setting].default)
    rows = table[table["setting"] == setting]
    for (value, before), of_value in rows.groupby(["value", "default_value"], sort=False):
        cells = [f"{r.variant} {estimate(r.difference, r.ci_low, r.ci_high, True)}" for r in of_value.itertuples()]
        against = "" if before == default else f" instead of `{before}`"
        effects.append(f"`{value}`{against}: {', '.join(cells)}")
    return "; ".join(effects)
