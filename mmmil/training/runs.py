"""The variant table: every model behind the paper's tables is a row of data, trained once per fold and seed.

Importing this module is cheap: what trains is imported when something is trained.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from mmmil import record
from mmmil.params import Params
from mmmil.variants import Variant, variant, variants

TRAINS = "mmmil.training.train"  # the module whose code, with all that it imports, decides what a training gives
PREDICTIONS = ["variant", "seed", "fold", "split", "patient_id", "label", "prob"]


def run(study, name: str, fold: int) -> Path:
    """Folder of one training (variant, fold, seed): found again, or trained now.

    Holds predictions.parquet, history.csv, run.json and, for neural models, model.safetensors.
    """
    v, parent, inputs = variant(name), *_place(study, name, fold)
    checkpoint = parent / f"{record.key(inputs, TRAINS)}.checkpoint"

    def make(folder: Path) -> dict:
        from mmmil.training import train as trainer  # seconds of imports that finding a result does not need

        return trainer.train(study, v, fold, folder, checkpoint)

    made = record.cached(parent, inputs, make, TRAINS)
    for left in [*parent.glob(f"{checkpoint.stem}*.checkpoint"), parent / f"{made.name}.failed.json"]:
        left.unlink(missing_ok=True)
    return made


def attempt(study, name: str, fold: int) -> Path | None:
    """As `run`; but what goes wrong is kept in a note beside the result's place, so that other trainings go on.

    Returns None then. The next attempt trains again; `predictions` does not.
    """
    try:
        return run(study, name, fold)
    except Exception as error:  # whatever it is, it is this training's alone, and the note says it in full
        note_failure(study, name, fold, f"{type(error).__name__}: {error}", traceback.format_exc())
        return None


def note_failure(study, name: str, fold: int, error: str, log: str) -> None:
    """Keep a note beside a result's place that its training failed, and how."""
    parent, inputs = _place(study, name, fold)
    note = {"variant": name, "fold": fold, "error": error, "log": log, "commit": record.commit()}
    record.write_atomically(
        parent / f"{record.key(inputs, TRAINS)}.failed.json", lambda path: path.write_text(json.dumps(note, indent=1))
    )


def failure(study, name: str, fold: int) -> dict | None:
    """The note of a training that failed in the batch: variant, fold, error, log; None where there is none."""
    parent, inputs = _place(study, name, fold)
    try:
        return json.loads((parent / f"{record.key(inputs, TRAINS)}.failed.json").read_text())
    except FileNotFoundError:
        return None


def _place(study, name: str, fold: int) -> tuple[Path, dict]:
    """Where the results of a training lie, and all that the training depends on."""
    p, v = study.p, variant(name)
    train, evaluated = study.fold_patients(fold)
    inputs = {
        "variant": asdict(v) | {"tables": None, "shown_as": None},
        "fold": fold,
        "seed": p.seed,
        "train": {i: int(study.labels[i]) for i in train},
        "evaluated": {i: int(study.labels[i]) for i in evaluated},
        "settings": _settings(p, v),
        "versions": record.versions("torch", "timm", "nystrom-attention", "scikit-learn"),
    }
    if v.uses_slides:
        inputs["bags"] = study.bag_keys(fold)
    if v.genes == "all":
        inputs["expression"] = study.expression.fingerprint
    elif v.uses_genes:
        inputs["tokens"] = study.gene_tokens(fold, v.genes).folder.name
    return p.results / "models" / name / f"seed_{p.seed}" / (f"fold_{fold}" if fold >= 0 else "final"), inputs


def _settings(p: Params, v: Variant) -> dict:
    """Parameters that this variant's training depends on, and no others: changing those retrains it."""
    if v.fusion == "logistic":
        return {}
    settings = p.stage("model", "training")
    if not v.uses_slides:
        settings.pop("weights")
    elif p.weights_dir:
        from mmmil.models import backbone as models_backbone
        from mmmil.models import weights

        net = models_backbone.MOBILENET if v.is_trained_end_to_end else models_backbone.FROZEN[v.encoder(p)]
        settings["weights"] = weights.weights_key(net, p.weights, p.weights_dir)
    if v.backbone != "features":
        settings.pop("mil_features")
    if not v.is_trained_end_to_end:
        for name in ("augment", "tile_chunk", "batch_norm", "compile"):
            settings.pop(name)
    if v.backbone != "reduced":
        settings.pop("kept_channels")
    if not v.is_trained_end_to_end:
        settings.pop("apoz_tiles")
    if not v.uses_genes:
        settings.pop("set_embedding"), settings.pop("gene_dropout")
    settings["gene_encoder"] = "trained" if v.trains_gene_encoder(p) else "frozen"
    return settings


def predictions(study, names: list[str] | None = None) -> pd.DataFrame:
    """Per-patient predictions of the variants over all folds and the final model, one row each (columns PREDICTIONS).

    What is missing is trained now, but for trainings of which the batch has noted that they failed: their rows are
    left out (`failures` lists them). `split` is val for cross-validation, test for the final model's patients.
    """
    from tqdm import tqdm

    names = variants(study.p) if names is None else names
    jobs = [(name, fold) for name in names for fold in study.fold_numbers if failure(study, name, fold) is None]
    frames = [
        record.read_parquet(run(study, name, fold) / "predictions.parquet")
        for name, fold in tqdm(jobs, desc="models", unit="training", mininterval=5)
    ]
    return pd.concat(frames, ignore_index=True)[PREDICTIONS] if frames else pd.DataFrame(columns=PREDICTIONS)


def standing(study, names: list[str], folds: list[int] | None = None) -> list[str]:
    """Those of the variants of which the batch has noted no failure; folds: all and the final model if not given."""
    folds = study.fold_numbers if folds is None else folds
    return [name for name in names if all(failure(study, name, fold) is None for fold in folds)]


def failures(study, names: list[str] | None = None) -> pd.DataFrame:
    """Trainings of which the batch has noted that they failed: one row each, columns variant, fold, error."""
    names = variants(study.p) if names is None else names
    notes = [failure(study, name, fold) for name in names for fold in study.fold_numbers]
    return pd.DataFrame([note for note in notes if note], columns=["variant", "fold", "error"])
