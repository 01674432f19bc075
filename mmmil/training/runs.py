"""Every training once per variant, fold and seed: found again in the record, or made now.

Importing this module is cheap: what trains is imported when something is trained.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mmmil import record, source_code
from mmmil.models import registry
from mmmil.params import Params
from mmmil.processes import leases, wall_time
from mmmil.training import missing as missing_trainings
from mmmil.variants import MOBILENET, Variant, network, variant, variants

if TYPE_CHECKING:
    from mmmil.study import Study

DEATHS = 2  # so many processes may die at a training: killed for memory for one, where the next may be given more
TRAINS = "mmmil.training.train"  # the module whose code, with all that it imports, decides what a training gives
PREDICTIONS = ["variant", "seed", "fold", "split", "patient_id", "label", "prob"]


class NotTrainedError(ValueError):
    """Trainings are not in the record, where none is to be made; says which, and how they are made."""


@dataclass(frozen=True, eq=False)
class Training:
    """One training; seed and labels (patient -> 0/1): of this one alone, where they are not the study's."""

    variant: str
    fold: int
    seed: int | None = None
    labels: pd.Series | None = None

    def __str__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.variant}/{self.fold if self.fold >= 0 else 'final'}{seed}" + (
            "" if self.labels is None else ", permuted labels"
        )


def run(study: Study, name: str, fold: int, seed: int | None = None, labels: pd.Series | None = None) -> Path:
    """Folder of one training (variant, fold): found again, or trained now.

    Holds predictions.parquet, history.csv, run.json and, for neural models, model.safetensors. seed, labels: see
    Training; tiles, gene tokens and split stay as they are. Raises NotTrainedError as `run_all` does.
    """
    return run_all(study, [Training(name, fold, seed, labels)])[0]


def run_all(study: Study, wanted: Sequence[Training]) -> list[Path]:
    """Folders of trainings, in their order: each found again, or trained now after one line that says how many are.

    Raises NotTrainedError where some are missing and the study is not to train (`study.load(p, train=False)`).
    """
    from tqdm import tqdm

    source_code.require_as_loaded(TRAINS, __name__)  # neither is another code's result found under this one's key
    found = {t: _found(study, t) for t in wanted}
    missing = [t for t, folder in found.items() if folder is None]
    if missing and not study.train:
        raise NotTrainedError(missing_trainings.told(study.p, list(map(str, missing))))
    if missing:
        print(missing_trainings.announced(study.p, list(map(str, missing))), file=sys.stderr, flush=True)
    for t in tqdm(missing, desc="models", unit="training", mininterval=5, disable=len(missing) < 2):
        found[t] = _trained(study, t)
    return [folder for folder in found.values() if folder is not None]


def _found(study: Study, t: Training) -> Path | None:
    """A training's folder, None where it is not there."""
    try:
        with record.only_found():  # not the gene tokens for its key either, before it is said what will be made
            return record.find(*_place(study, t.variant, t.fold, t.seed, t.labels), TRAINS)
    except record.NotThereError:  # not even the gene tokens that it reads
        return None


def _trained(study: Study, t: Training, wait: bool = True, deaths: int | None = None) -> Path:
    v, parent, inputs = variant(t.variant), *_place(study, t.variant, t.fold, t.seed, t.labels)
    checkpoint = parent / f"{record.key(inputs, TRAINS)}.checkpoint"

    def make(folder: Path) -> dict:
        wall_time.require()
        from mmmil.training import train  # seconds of imports that finding a result does not need

        return train.train(study, v, t.fold, folder, checkpoint, t.seed, t.labels)

    folder = record.cached(parent, inputs, make, TRAINS, wait, deaths)
    for left in [*parent.glob(f"{checkpoint.stem}*.checkpoint"), parent / f"{folder.name}.failed.json"]:
        left.unlink(missing_ok=True)
    return folder


def trainings(p: Params, names: Iterable[str]) -> list[Training]:
    """All trainings of the variants: every fold of every repeat, then the final model, of each of the model seeds."""
    folds = [*range(p.repeats * p.n_folds), -1]
    seeds = [None, *range(p.seed + 1, p.seed + p.model_seeds)]
    return [Training(name, fold, seed) for name in names for seed in seeds for fold in folds]


def place(study: Study, name: str, fold: int, seed: int | None = None) -> Path:
    """The folder in which a training's result lies, or would lie; its name is the training's key."""
    parent, inputs = _place(study, name, fold, seed)
    return parent / record.key(inputs, TRAINS)


def attempt(study: Study, name: str, fold: int, seed: int | None = None, wait: bool = True) -> Path | None:
    """As `run` of a study that trains; but what goes wrong is kept in a note beside the result's place, so that other
    trainings go on.

    Returns None then. The next attempt trains again; `predictions` does not. What is no training's own fault ends the
    job: changed code (ChangedCodeError), or its time (OutOfTimeError). So does death, twice; a third attempt is noted
    as failed. With wait=False raises HeldError where another process trains it now.
    """
    try:
        return _trained(study, Training(name, fold, seed), wait, DEATHS)
    except (source_code.ChangedCodeError, wall_time.OutOfTimeError, leases.HeldError):
        raise
    except Exception as error:  # whatever it is, it is this training's alone, and the note says it in full
        note_failure(study, name, fold, seed, f"{type(error).__name__}: {error}", traceback.format_exc())
        return None


def note_failure(study: Study, name: str, fold: int, seed: int | None, error: str, log: str) -> None:
    """Keep a note beside a result's place that its training failed, and how."""
    note = {
        "variant": name,
        "fold": fold,
        "seed": study.p.seed if seed is None else seed,
        "error": error,
        "log": log,
        "commit": record.commit(),
    }
    path = _failure_note(study, name, fold, seed)
    record.write_atomically(path, lambda path: path.write_text(json.dumps(note, indent=1)))


def failure(study: Study, name: str, fold: int, seed: int | None = None) -> dict | None:
    """The note of a training that failed in the batch: variant, fold, seed, error, log; None where there is none."""
    if not any(_parent(study, name, fold, study.p.seed if seed is None else seed).glob("*.failed.json")):
        return None
    try:
        with record.only_found():
            return json.loads(_failure_note(study, name, fold, seed).read_text())
    except (FileNotFoundError, ValueError, record.NotThereError):  # a damaged one is none: the training is tried again
        return None


def _failure_note(study: Study, name: str, fold: int, seed: int | None) -> Path:
    folder = place(study, name, fold, seed)
    return folder.with_name(f"{folder.name}.failed.json")


def _place(
    study: Study, name: str, fold: int, seed: int | None = None, labels: pd.Series | None = None
) -> tuple[Path, dict]:
    """Where the results of a training lie, and all that the training depends on."""
    p, v = study.p, variant(name)
    seed, labels = p.seed if seed is None else seed, study.labels if labels is None else labels
    train, evaluated = study.fold_patients(fold)
    library = ["torchmil"] if v.fusion.startswith("torchmil_") else []
    inputs = {
        "variant": asdict(v) | {"tables": None, "shown_as": None},
        "aggregator": registry.source(v),
        "fold": fold,
        "seed": seed,
        "train": {i: int(labels[i]) for i in train},
        "evaluated": {i: int(labels[i]) for i in evaluated},
        "settings": _settings(p, v),
        "versions": record.versions("torch", "timm", "nystrom-attention", "scikit-learn", *library),
    }
    if v.uses_slides:
        inputs |= _image_inputs(study, v, fold)
    if v.genes == "all":
        inputs["expression"] = study.expression.fingerprint
    elif v.uses_genes:
        inputs["tokens"] = study.gene_tokens_key(fold, v.genes)
    return _parent(study, name, fold, seed), inputs


def _parent(study: Study, name: str, fold: int, seed: int) -> Path:
    """The folder in which a training's results lie, whatever else they depend on."""
    return study.p.results / "models" / name / f"seed_{seed}" / (f"fold_{fold}" if fold >= 0 else "final")


def _image_inputs(study: Study, v: Variant, fold: int) -> dict:
    """What names the tiles that a variant reads: their pixels, or the files of features and the sample of them."""
    p = study.p
    encoder = v.encoder(p) if v.reads_features(p) else ""
    if encoder in p.feature_folders:
        sample = {"sample": [p.n_tiles, p.seed]} if p.n_tiles else {}
        return {"features": study.feature_keys(encoder)} | sample
    drawn = encoder and network(p, encoder)[1] == "random"
    return {"bags": study.bag_keys(fold)} | ({"features of seed": p.seed} if drawn else {})


def _settings(p: Params, v: Variant) -> dict:
    """Parameters that this variant's training depends on, and no others: changing those retrains it."""
    if v.fusion == "logistic":
        return {}
    settings = p.stage("model", "training")
    settings.pop("encoders"), settings.pop("weights"), settings.pop("model_seeds")
    encoder = v.encoder(p) if v.reads_features(p) else ""
    if v.uses_slides and encoder not in p.feature_folders:
        name, settings["weights"] = network(p, encoder) if encoder else ("", p.weights)
        if encoder in p.encoders:
            settings["encoder"] = p.encoders[encoder]
        if p.weights_dir or encoder in p.encoders:  # a file of one's own, or one that a package brings
            from mmmil.models import weights

            name = name or MOBILENET
            settings["weights"] = weights.weights_key(name, settings["weights"], p.weights_folder)
    if not v.is_trained_end_to_end(p):
        for name in ("augment", "batch_norm", "kept_channels", "apoz_tiles"):
            settings.pop(name)
    elif v.backbone != "reduced":
        settings.pop("kept_channels")
    if not v.uses_genes:
        settings.pop("set_embedding"), settings.pop("gene_dropout")
    if v.faithful:  # these are as the paper states them, whatever the task says
        settings = {
            name: value for name, value in settings.items() if name not in (*registry.AS_STATED, "gene_dropout")
        }
    settings["gene_encoder"] = "trained" if v.trains_gene_encoder(p) else "frozen"
    return settings


def predictions(study: Study, names: list[str] | None = None) -> pd.DataFrame:
    """Per-patient predictions of the variants, a row for every repeat and seed of a patient (columns PREDICTIONS).

    What is missing is trained now, or an error (`run_all`), but for trainings of which the batch has noted that they
    failed: their rows are left out (`failures` lists them). `split` is val for cross-validation, test for the final
    models' patients.
    """
    return gather(map(read, run_all(study, _standing_trainings(study, names))))


def _standing_trainings(study: Study, names: list[str] | None) -> list[Training]:
    """All trainings of the variants but for those of which the batch has noted that they failed."""
    all_of_them = trainings(study.p, variants(study.p) if names is None else names)
    return [t for t in all_of_them if failure(study, t.variant, t.fold, t.seed) is None]


def tuned(study: Study, names: list[str] | None = None) -> pd.DataFrame | None:
    """What the variants' trainings tried on their inner folds (`tuning.choose`): a row per training and candidate.

    Index variant, fold, seed; columns candidate and those of the table that `choose` returns; None where nothing was
    tuned.
    """
    made = _standing_trainings(study, names) if study.p.tuning else []
    folders = dict(zip(made, run_all(study, made), strict=True))
    tables = {
        (t.variant, t.fold, study.p.seed if t.seed is None else t.seed): pd.read_csv(folder / "tuning.csv")
        for t, folder in folders.items()
        if (folder / "tuning.csv").is_file()  # logistic regression's strength is fixed
    }
    return pd.concat(tables, names=["variant", "fold", "seed"]).droplevel(-1) if tables else None


def read(folder: Path) -> pd.DataFrame:
    """The predictions of one finished training (columns PREDICTIONS); folder: what `run` returns."""
    return record.read_parquet(folder / "predictions.parquet")[PREDICTIONS]


def gather(predictions: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The predictions of many trainings, each as `read` returns them, in one table; no rows where there are none."""
    tables = list(predictions)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=PREDICTIONS)


def standing(study: Study, names: list[str], folds: list[int] | None = None) -> list[str]:
    """Those of the variants of which the batch has noted no failure with the study's own seed; folds: all and the final
    model if not given.
    """
    folds = study.fold_numbers if folds is None else folds
    return [name for name in names if all(failure(study, name, fold) is None for fold in folds)]


def failures(study: Study, names: list[str] | None = None) -> pd.DataFrame:
    """Trainings of which the batch has noted that they failed: one row each, columns variant, fold, seed, error."""
    all_of_them = trainings(study.p, variants(study.p) if names is None else names)
    notes = [failure(study, t.variant, t.fold, t.seed) for t in all_of_them]
    return pd.DataFrame([note for note in notes if note], columns=["variant", "fold", "seed", "error"])
