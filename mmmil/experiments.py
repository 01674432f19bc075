"""The variant table: every model behind the paper's tables is a row of data, trained once per fold and seed.

Importing this module is cheap: what trains is imported when something is trained.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from mmmil import record
from mmmil.params import ParameterError, Params

# Modules whose code decides what a training gives.
CODE = ["training", "engine", "device", "augmentation", "models", "attention", "clam", "transmil", "mcat"]
CODE += ["geneencoder", "backbone", "weights", "ctranspath", "baselines"]
PREDICTIONS = ["variant", "seed", "fold", "split", "patient_id", "label", "prob"]


@dataclass(frozen=True)
class Variant:
    """One model: tile encoder, gene representation, how both are joined, and the paper's tables that show it."""

    name: str
    shown_as: str
    # original, uib, reduced (trained end to end), resnet50d, ctranspath, features (frozen; the last by the parameter
    # mil_features), colour (baseline), or ""
    backbone: str
    genes: str  # go, kegg (gene sets), genes (one vector of single genes), all (baseline), or ""
    fusion: str  # image, genes, self, dual, co (MCAT), clam, transmil, or logistic (baseline)
    tables: tuple[str, ...] = ()

    @property
    def uses_slides(self) -> bool:
        return self.backbone != ""

    @property
    def uses_genes(self) -> bool:
        return self.genes != ""

    @property
    def is_trained_end_to_end(self) -> bool:
        return self.backbone in ("original", "uib", "reduced")

    @property
    def reads_features(self) -> bool:
        """Whether a frozen encoder's features are its tiles."""
        return self.backbone in ("resnet50d", "ctranspath", "features")

    def encoder(self, p: Params) -> str:
        """Name of the frozen tile encoder whose features the variant reads."""
        return p.mil_features if self.backbone == "features" else self.backbone

    def trains_gene_encoder(self, p: Params) -> bool:
        """Whether the encoder half of the autoencoder is trained with the model; a single-gene vector has none."""
        return p.gene_encoder == "trained" and self.genes in ("go", "kegg")


VARIANTS = {
    v.name: v
    for v in [
        Variant("wsi_original", "WSI, original MobileNetV4", "original", "", "image", ("2", "3")),
        Variant("wsi_uib", "WSI, UIB-reduced", "uib", "", "image", ("2", "3")),
        Variant("wsi", "WSI, UIB-reduced + APoZ", "reduced", "", "image", ("2", "3", "4", "5", "6")),
        Variant("clam", "CLAM, frozen features", "features", "", "clam", ("4",)),
        Variant("transmil", "TransMIL, frozen features", "features", "", "transmil", ("4",)),
        Variant("go", "GO sets", "", "go", "genes", ("5",)),
        Variant("kegg", "KEGG sets", "", "kegg", "genes", ("6",)),
        Variant("dual_go", "WSI + GO, dual-attention", "reduced", "go", "dual", ("5", "7", "9", "11")),
        Variant("dual_kegg", "WSI + KEGG, dual-attention", "reduced", "kegg", "dual", ("6", "8", "10", "11")),
        Variant("self_go", "WSI + GO, self-attention", "reduced", "go", "self", ("7",)),
        Variant("self_kegg", "WSI + KEGG, self-attention", "reduced", "kegg", "self", ("8",)),
        Variant("co_go", "WSI + GO, co-attention", "reduced", "go", "co", ("7",)),
        Variant("co_kegg", "WSI + KEGG, co-attention", "reduced", "kegg", "co", ("8",)),
        Variant("resnet50d_go", "WSI (frozen ResNet50d) + GO", "resnet50d", "go", "dual", ("2", "9")),
        Variant("resnet50d_kegg", "WSI (frozen ResNet50d) + KEGG", "resnet50d", "kegg", "dual", ("2", "10")),
        Variant("ctranspath_go", "WSI (frozen CTransPath) + GO", "ctranspath", "go", "dual", ("2", "9")),
        Variant("ctranspath_kegg", "WSI (frozen CTransPath) + KEGG", "ctranspath", "kegg", "dual", ("2", "10")),
        Variant("dual_genes", "WSI + single-gene vector", "reduced", "genes", "dual", ("11",)),
        # Not in the paper: what trivial models reach on the same folds stands beside every table.
        Variant("baseline_genes", "baseline: logistic regression, all genes", "", "all", "logistic"),
        Variant("baseline_image", "baseline: logistic regression, mean colour", "colour", "", "logistic"),
    ]
}
BASELINES = [name for name, v in VARIANTS.items() if v.fusion == "logistic"]


def variant(name: str) -> Variant:
    """A row of the table. Raises ParameterError for a name that is not in it."""
    if name not in VARIANTS:
        raise ParameterError(f"variants: no variant {name!r}; there are {', '.join(VARIANTS)}")
    return VARIANTS[name]


def variants(p: Params) -> list[str]:
    """Names of the variants a task trains: those asked for, or all that its inputs allow.

    Raises ParameterError for an unknown name, or one that needs a modality the cohort lacks.
    """
    allowed = [
        v.name
        for v in VARIANTS.values()
        if (p.has_slides or not v.uses_slides)
        and (p.has_genes or not v.uses_genes)
        and (p.kegg_gmt or v.genes != "kegg")
    ]
    for name in p.variants:
        if variant(name).name not in allowed:
            raise ParameterError(
                f"variants: {name} needs slides, genes or a GMT that inputs='{p.inputs}' does not give"
            )
    return [name for name in VARIANTS if name in p.variants] or allowed


def in_table(p: Params, table: str) -> list[str]:
    """Variants of one of the paper's tables that this task trains, in the table's order.

    Last come the baselines that read the same modalities.
    """
    trained = variants(p)
    own = [VARIANTS[n] for n in trained if table in VARIANTS[n].tables]
    baselines = [VARIANTS[n] for n in trained if n in BASELINES]
    slides, genes = any(v.uses_slides for v in own), any(v.uses_genes for v in own)
    return [v.name for v in [*own, *(b for b in baselines if (b.uses_slides and slides) or (b.uses_genes and genes))]]


def run(study, name: str, fold: int) -> Path:
    """Folder of one training (variant, fold, seed): found again, or trained now.

    Holds predictions.parquet, history.csv, run.json and, for neural models, model.safetensors.
    """
    v, parent, inputs = variant(name), *_place(study, name, fold)
    checkpoint = parent / f"{record.digest(inputs)}.checkpoint"

    def make(folder: Path) -> dict:
        from mmmil import training  # seconds of imports that finding a result does not need

        return training.train(study, v, fold, folder, checkpoint)

    made = record.cached(parent, inputs, make)
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
        parent / f"{record.digest(inputs)}.failed.json", lambda path: path.write_text(json.dumps(note, indent=1))
    )


def failure(study, name: str, fold: int) -> dict | None:
    """The note of a training that failed in the batch: variant, fold, error, log; None where there is none."""
    parent, inputs = _place(study, name, fold)
    try:
        return json.loads((parent / f"{record.digest(inputs)}.failed.json").read_text())
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
        "code": record.source_digest(*(f"mmmil.{m}" for m in CODE)),
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
        from mmmil import backbone, weights

        net = backbone.MOBILENET if v.is_trained_end_to_end else backbone.FROZEN[v.encoder(p)]
        settings["weights"] = weights.weights_key(net, p.weights, p.weights_dir)
    if v.backbone != "features":
        settings.pop("mil_features")
    if not v.is_trained_end_to_end:
        for name in ("augment", "colour_jitter", "tile_chunk", "batch_norm", "compile"):
            settings.pop(name)
    elif not p.augment:
        settings.pop("colour_jitter")
    if v.backbone != "reduced":
        settings.pop("kept_channels")
    if not v.is_trained_end_to_end:
        settings.pop("apoz_tiles")
    if not v.uses_genes:
        settings.pop("set_embedding"), settings.pop("gene_dropout")
    settings["gene_encoder"] = "trained" if v.trains_gene_encoder(p) else "frozen"
    if p.attention == "exact":
        settings.pop("landmarks")
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
