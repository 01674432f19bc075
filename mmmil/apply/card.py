"""The model card of a kept folder: what the model predicts, of whom it learnt it, how well, and what it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmmil.apply.folder import FINAL
from mmmil.evaluation.summary import estimate
from mmmil.genes.expression import UNITS
from mmmil.genes.transform import Transform

NOT_CLINICAL = "For research only: not a medical device, not for any clinical use."
SYNTHETIC = "Trained on a synthetic cohort with planted truth: it says nothing about any patient."
NAMES = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "f1": "F1"}
SHOWN = (
    *("expression_kind", "counts_level", "round_counts", "tile_px", "tile_level", "tile_mpp", "tissue"),
    *("tissue_percent", "tile_choice", "few_tiles", "stain", "gene_scaling", "gene_clip"),
    *("latent_dim", "attention", "width", "epochs", "batch_size", "lr", "seed", "selection", "fold_groups"),
)


def one_line(about: dict[str, Any]) -> str:
    """What the model is, in a sentence."""
    first, second = about["parameters"]["class_names"]
    patients = sum(about["training"]["patients"].values())
    kind = "synthetic patients" if about["synthetic"] else "patients"
    return f"{about['variant']['shown_as']}: probability of {second} against {first}, learnt of {patients} {kind}"


def reads(about: dict[str, Any]) -> list[str]:
    """What the model reads of a patient, a line each."""
    lines, image, p = [], about["image"], about["parameters"]
    if image:
        tiles = f"{image['tiles']} tiles" if image["tiles"] else "all tiles"
        at = f"{p['tile_mpp']:g} µm per px" if p["tile_mpp"] else f"pyramid level {p['tile_level']}"
        cut = f"{tiles} of {p['tile_px']} px at {at}, tissue above {p['tissue_percent']:g} %"
        lines += {
            "pixels": [f"a whole-slide image: {cut}; the backbone ({image.get('backbone')}) reads the pixels"],
            "frozen": [
                f"a whole-slide image: {cut}; features of the frozen encoder {image.get('encoder')} "
                f"({image.get('width')} numbers a tile), whose weights are not in this folder"
            ],
            "features": [f"features made beforehand, {image.get('width')} numbers an instance"],
        }[image["kind"]]
    if about["expression_kind"]:
        kind = about["expression_kind"]
        unit = UNITS.get(p["counts_level"] if kind in ("htseq", "counts") else {"star": "tpm"}.get(kind, kind), kind)
        lines.append(f"gene expression: {kind} files, read as {unit}")
    return lines


def text(about: dict[str, Any], transforms: Sequence[Transform]) -> str:
    """The card in Markdown; transforms: of the final model and the folds, none without genes."""
    training, p = about["training"], about["parameters"]
    tuned = about["models"][FINAL].get("tuned", {})
    patients = ", ".join(f"{n} {name}" for name, n in training["patients"].items())
    held_out = ", ".join(f"{n} {name}" for name, n in training["test_patients"].items())
    kind = SYNTHETIC if about["synthetic"] else "Trained on real patients."
    leaks = " Gene sets were chosen on all patients, those that are evaluated included: no score of it is a result."
    unknown = f", {training['without_site']} patients without one" if training["without_site"] else ""
    lines = [
        f"# {about['title']}: {about['variant']['shown_as']}",
        f"**{kind}**{leaks if about['leaks'] else ''} **{NOT_CLINICAL}**",
        "## What it predicts",
        f"The probability of class 1, {p['class_names'][1]}, against class 0, {p['class_names'][0]}, of one patient. "
        f"The final model was trained on all development patients; the {training['folds']} models of the folds, each "
        "without a part of them, show by their spread how far the answer depends on who was there.",
        "## What it reads",
        _list(reads(about)),
        "## Training data",
        f"Task `{about['task']}`: {patients}, from {training['sites']} sites{unknown}. Of these {held_out} were held "
        f"out as the test set; the others were split into {training['folds']} folds.",
        "Licence of the inputs: " + about["licence"] + ".",
        "## Internal metrics",
        _metrics(about["metrics"]),
        *(f"**Confounded**: {warning}." for warning in about["confounded"]),
        "Cross-validation: mean over folds, with the wider of Student's t interval and the score interval of so many "
        "patients; test: the final model on the held-out patients, with the score interval. Another hospital's "
        "patients are another matter.",
        "## Limits",
        _list(_limits(about, transforms)),
        "## Parameters",
        _list([f"`{name}`: {(p | tuned)[name]}" for name in SHOWN if name in p]) + "\n\n`model.json` has all of them.",
        "## How it was made",
        f"mmmil {about['version']}, commit `{about['commit']}`, "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + ". Every file's SHA-256 is in `manifest.json`. Apply it with `mmmil apply --model <this folder> --cohort "
        "new.csv --out <folder>`.",
    ]
    return "\n\n".join(lines) + "\n"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _metrics(metrics: dict[str, dict[str, list]]) -> str:
    rows = ["| metric | cross-validation | held-out test |", "| --- | --- | --- |"]
    for metric in metrics["val"]:
        cells = [numbers(metrics, split, metric) for split in ("val", "test")]
        rows.append(f"| {NAMES.get(metric, metric)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def numbers(metrics: dict[str, dict[str, list]], split: str, metric: str) -> str:
    """An internal figure with its interval, as it is printed."""
    value, low, high = (float("nan") if x is None else x for x in metrics[split][metric])
    return estimate(value, low, high)


def _limits(about: dict[str, Any], transforms: Sequence[Transform]) -> list[str]:
    lines = [NOT_CLINICAL]
    if about["training"]["sites"] < 2:
        lines.append("All patients are of one site, or none is known: other sites may differ in ways it never saw.")
    elif about["parameters"]["fold_groups"] == "none":
        lines.append("Folds share sites, so that the internal metrics do not tell what another site would give.")
    if transforms:
        first = transforms[0]
        genes = f"{len(first.genes)} tokens of {len(first.symbols)} genes in the final model"
        lines.append(f"It reads {genes}; a cohort that lacks many of them is refused.")
        if not all(transform.passed for transform in transforms):
            lines.append("In some of its models too few gene sets were significant; the best by rank were taken.")
    lines.append("Attention says what the model weighed, not what causes the disease.")
    return lines
