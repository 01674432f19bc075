"""A trained variant made one folder: its final model and the folds', each with all that was fitted for it.

Nothing is trained and nothing is fitted here but the distance to the training patients. No patient's name goes in.
"""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmmil import __version__, check, record, source_code
from mmmil import variants as variant_table
from mmmil.apply import card, distance, folder, models, repeated
from mmmil.apply.folder import ModelError
from mmmil.evaluation import summary as summaries
from mmmil.evaluation.metrics import METRICS
from mmmil.genes.transform import Transform
from mmmil.models import registry
from mmmil.params import Params
from mmmil.schema import PATHS, STAGES
from mmmil.training import runs
from mmmil.variants import Variant

if TYPE_CHECKING:
    from mmmil.study import Study

# Settings of the cohort that a model was trained on and of the run, which are no part of the model.
OF_THE_COHORT = {
    *PATHS,
    *("overlay", "sample_sheets", "manifests", "gdc_projects", "label_rule", "class_values", "incomplete"),
    *("notebooks", "variants", "device", *STAGES["simulation"].model_fields, *STAGES["attention"].model_fields),
}
PACKAGES = ("torch", "timm", "nystrom-attention", "numpy", "pandas", "scikit-learn", "histolab")
NOT_STATED = "not stated (mmmil keep --licence says it)"
OF_SYNTHETIC = "made by mmmil.simulate: nobody's, to be used freely"


def place(p: Params, name: str) -> Path:
    """Where a variant's model is kept unless another folder is named."""
    return p.results / "kept" / name


def keep(study: Study, name: str, to: Path | None = None, licence: str = "") -> Path:
    """Gather a trained variant in the folder `to` (place(p, name) if not given) and return it.

    licence: of the data that it was trained on, for the model card. A folder that holds this very model is left as it
    is. Raises NotTrainedError where trainings are missing, for none is made here, and ModelError for what has no model
    that could be kept.
    """
    study = copy.copy(study)
    study.train = False
    p, v = study.p, variant_table.variant(name)
    _require_model(v)
    to = to or place(p, name)
    licence = licence or (OF_SYNTHETIC if p.synthetic else NOT_STATED)
    folders = runs.run_all(study, [runs.Training(name, fold) for fold in _folds(study)])
    inputs = {
        "trainings": [path.name for path in folders],
        "parameters": _parameters(p),
        "licence": licence,
        "title": [p.task, p.title, p.overlay],
        "code": source_code.digest(__name__),
    }
    key = record.digest(inputs)
    if not folder.is_kept(to, key):
        folder.write(to, key, lambda made: _fill(made, study, v, folders, licence))
    return to


def _require_model(v: Variant) -> None:
    if v.fusion == "logistic":
        raise ModelError(f"{v.name} is logistic regression, of which the record keeps no model: name another variant")
    if registry.source(v) is not None:
        raise ModelError(
            f"{v.name} is a class of a notebook's own, which another machine does not have: only the package's models "
            "can be kept"
        )


def _folds(study: Study) -> list[int]:
    """The final model first, then the folds."""
    return [-1, *range(study.p.n_folds)]


def _name(fold: int) -> str:
    return folder.FINAL if fold < 0 else f"fold_{fold}"


def _parameters(p: Params) -> dict[str, Any]:
    values = {name: value for name, value in p.model_dump().items() if name not in OF_THE_COHORT}
    folders = {name: "features:elsewhere" for name in p.feature_folders if name in p.encoders}
    return values | {"encoders": p.encoders | folders}  # folders are the cohort's own


def _fill(made: Path, study: Study, v: Variant, folders: list[Path], licence: str) -> None:
    from mmmil.training import device

    p, fabric = study.p, device.make_fabric(study.p)
    about: dict[str, Any] = {
        "task": p.task,
        "title": p.title or p.task,
        "synthetic": p.synthetic,
        "cohort": p.cohort,
        "confounded": list(check.confounded(study.cohort.patients, p, study.tiles)["text"]),
        "leaks": p.leaks and v.uses_genes,
        "variant": asdict(v),
        "parameters": _parameters(p),
        "image": _image(study, v, fabric),
        "expression_kind": p.expression_kind if v.uses_genes else None,
        "models": {},
        "training": _training(study),
        "metrics": _metrics(study, v),
        "licence": licence,
        "version": __version__,
        "versions": record.versions(*PACKAGES),
        "commit": record.commit(),
        "kept_on": device.circumstances(p),
    }
    transforms = []
    for fold, trained in zip(_folds(study), folders, strict=True):
        inside = made / _name(fold)
        inside.mkdir()
        shutil.copyfile(trained / folder.WEIGHTS, inside / folder.WEIGHTS)
        if v.uses_genes:
            library: Any = v.genes
            transform = Transform.load(study.gene_tokens(fold, library).folder)
            transform.save(inside)
            transforms.append(transform)
        if v.uses_slides and p.has_pixels and p.stain != "none":
            study.stain_reference(fold).save(inside / folder.STAIN)
        about["models"][_name(fold)] = _model(study, v, fold, trained, about["image"], fabric, made)
    if v.uses_genes:
        _write_expression(made, study, transforms)
    (made / folder.ABOUT).write_text(json.dumps(about, indent=1, default=_plain) + "\n")
    (made / folder.CARD).write_text(card.text(about, transforms))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _image(study: Study, v: Variant, fabric: Any) -> dict[str, Any]:
    """What the model reads of slides; {} without."""
    p = study.p
    if not v.uses_slides:
        return {}
    if v.reads_features(p) and v.encoder(p) in p.feature_folders:
        bags = study.features(v.encoder(p))
        stated = sorted(set(bags.files["encoder"]) - {""})
        about = {"kind": "features", "encoder": v.encoder(p), "width": bags.dim, "coordinates": bags.has_coords}
        return about | {"stated_encoder": stated[0] if stated else "", "tiles": p.n_tiles}
    assert study.tiles is not None
    sides = pd.to_numeric(study.tiles["um_per_tile"], errors="coerce").dropna()  # of images of tiles nobody knows it
    about = {"tiles": int(study.tile_masks.shape[1]), "coordinates": study.has_coords}
    about["um_per_tile"] = [float(sides.min()), float(sides.max())] if len(sides) else []
    if v.is_trained_end_to_end(p):
        return {"kind": "pixels", "backbone": v.backbone} | about
    from mmmil.apply import frozen
    from mmmil.training import features

    name = v.encoder(p)
    return {
        "kind": "frozen",
        "encoder": name,
        "source": variant_table.network(p, name)[0],
        "width": features.frozen_features(study, name, -1).dim,
        "sha256": frozen.checksum(features.encoder(p, name, fabric)),
    } | about


def _model(
    study: Study, v: Variant, fold: int, trained: Path, image: dict[str, Any], fabric: Any, made: Path
) -> dict[str, Any]:
    """What is told of one model; of the final one the distance to its training patients is written, too."""
    from safetensors.numpy import save_file

    from mmmil.training import build

    p = study.p
    module, inputs = build.load_model(study, v, fold, trained, fabric)
    transform = Transform.load(made / _name(fold)) if v.uses_genes else None
    shape = models.gene_shapes(v, p, transform)[1]
    train, _ = study.fold_patients(fold)
    if fold < 0:
        which = [study.patients.index(patient) for patient in train]
        tokens = models.mean_tokens(fabric, module, inputs, which, p.batch_size)
        fitted = {modality: distance.fit(values) for modality, values in tokens.items()}
        arrays = {key: value for modality, d in fitted.items() for key, value in d.arrays(modality).items()}
        save_file(arrays, made / folder.DISTANCE)
    facts = record.run_json(trained)["facts"]
    return {
        "probe": models.probe(module, fabric, p, image, shape),
        "training_patients": len(train),
        "key": trained.name,
        **{name: facts[name] for name in ("epochs", "tuned", "parameters", "device", "precision") if name in facts},
    }


def _training(study: Study) -> dict[str, Any]:
    """Who it was trained on, in numbers."""
    counts = {name: int((study.labels == label).sum()) for label, name in enumerate(study.p.class_names)}
    sites = study.cohort.patients["site"]
    held_out = study.labels[study.folds < 0]
    return {
        "patients": counts,
        "sites": int(sites[sites != ""].nunique()),
        "without_site": int((sites == "").sum()),
        "folds": study.p.n_folds,
        "test_patients": {name: int((held_out == label).sum()) for label, name in enumerate(study.p.class_names)},
    }


def _metrics(study: Study, v: Variant) -> dict[str, dict[str, list[Any]]]:
    """Split -> metric -> mean, and ends of its interval (None where there are none), as the record's tables have it."""
    summary = summaries.summarise(runs.predictions(study, [v.name]), study.p, [v.name])

    def numbers(metric: str, split: str) -> list[Any]:
        cell = summaries.cell(summary, v.name, metric, split)
        return [None if np.isnan(value) else float(value) for value in (cell.value, cell.low, cell.high)]

    return {split: {metric: numbers(metric, split) for metric in METRICS} for split in ("val", "test")}


def _write_expression(made: Path, study: Study, transforms: list[Transform]) -> None:
    """How the cohort's expression was read, so that another patient's is read likewise."""
    p, expression = study.p, study.expression
    genes = sorted({gene for transform in transforms for gene in transform.symbols})
    gene_id = dict(zip(expression.genes["symbol"], expression.genes.index, strict=True))
    matrices = study.cohort.patients["expression_path"][: len(study.cohort) * bool(p.expression_matrix)]
    ids = {*expression.measured, *(gene_id[gene] for gene in genes)}
    about = {
        "kind": p.expression_kind,
        "unit": expression.level_unit,
        "lowest": float(expression.level.min()),
        "gene_ids": {gene: gene_id[gene] for gene in genes},
        "measured": expression.measured,
        "taken": repeated.taken(matrices, p.expression_kind, not p.round_counts, ids),
    }
    (made / folder.EXPRESSION).write_text(json.dumps(about, indent=1) + "\n")
    if p.gene_table and p.expression_kind != "star":
        shutil.copyfile(p.path(p.gene_table), made / folder.GENE_TABLE)
