"""What the first page includes: what was found, with one figure, and the three doors into the book."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mmmil import params, record, variants
from mmmil.book.pages import entries_of, read_toc
from mmmil.book.scores import paired
from mmmil.book.text import LEAKS, beside_scores, confounded_by, nothing, other_features, title
from mmmil.evaluation import summary as summaries
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.tables import cells
from mmmil.tables.estimates import PLUS_MINUS, Estimate

METRIC = "roc_auc"
JOINT, PARTS = "dual_go", {"wsi": "images alone", "go": "gene sets alone"}
LINEAR = "baseline_genes"
SYNTHETIC = (
    "**Synthetic cohorts with planted truth: no patient stands behind these numbers**, which show the code at work and "
    "reproduce nothing."
)


def found(tasks: Mapping[str, params.Params], folder: Path) -> str:
    """What images, gene sets and both gave, a sentence per cohort, and a figure drawn into `folder`.

    Of real patients where a task of them has such models, else of synthetic ones.
    """
    asked = {task: read for task, p in tasks.items() if (read := _asked(p)) is not None}
    real = {task: table for task, table in asked.items() if not tasks[task].synthetic}
    chosen = _one_of_each({task: tasks[task] for task in (real or asked)})
    if not chosen:
        return nothing("model of images, gene sets or both")
    metrics = {task: asked[task] for task in chosen}
    head = "" if real else f"{SYNTHETIC}\n\n"
    said = "".join(f"- {_sentence(p, metrics[task])}\n" for task, p in chosen.items())
    notes = "".join(
        f"{title(p)}: {note}.\n\n" for p in chosen.values() for note in (other_features(p), LEAKS * p.leaks) if note
    )
    others = [f"{title(tasks[task])}" for task in real if task not in chosen]
    notes += (
        f"The same patients in other folds or with repeats: {'; '.join(others)} ([page](real.md)).\n\n"
        if others
        else ""
    )
    key = f"{PLUS_MINUS}; differences by DeLong's test on the same patients.\n\n"
    return f"{head}{said}\n{key}{_figure(chosen, metrics, folder, bool(real))}{notes}{beside_scores(chosen)}"


def _asked(p: params.Params) -> pd.DataFrame | None:
    """The rows of a run's summary that the first page is about; None where it has not two kinds of models."""
    summary = summaries.read(p)
    if summary is None:
        return None
    kept = summary[summary["variant"].isin([JOINT, *PARTS, *variants.BASELINES])]
    kept = kept[(kept["split"] == "val") & (kept["metric"] == METRIC) & kept["mean"].notna()]
    return kept.drop_duplicates("variant") if len({JOINT, *PARTS} & set(kept["variant"])) > 1 else None


def _one_of_each(tasks: Mapping[str, params.Params]) -> dict[str, params.Params]:
    """One task of those on the same patients: of random folds before folds by site, with the most repeats."""
    best: dict[tuple, str] = {}
    for task, p in tasks.items():
        cohort = (p.cohort, str(p.data), *p.class_names)
        kept = tasks.get(best.get(cohort, ""))
        if kept is None or _rank(p) > _rank(kept):
            best[cohort] = task
    return {task: p for task, p in tasks.items() if task in best.values()}


def _rank(p: params.Params) -> tuple[bool, int, int]:
    return p.fold_groups == "none", p.repeats, p.model_seeds


def _sentence(p: params.Params, table: pd.DataFrame) -> str:
    """'LGG: both 0.81 ± 0.05, images alone ..., gene sets alone ...; both less ...: +0.03 ± 0.04, not told apart.'"""
    of = {name: summaries.cell(table, name, METRIC) for name in [JOINT, *PARTS, LINEAR]}
    have = {name: cell for name, cell in of.items() if cell.value == cell.value}
    named = {JOINT: "images and gene sets", **PARTS, LINEAR: "a logistic regression on all genes"}
    text = ", ".join(f"{named[name]} {cells.estimate(cell.estimate())}" for name, cell in have.items())
    parts = [name for name in PARTS if name in have]
    if JOINT in have and parts:
        better = max(parts, key=lambda name: have[name].value)
        text += f". Both less {PARTS[better]}: {_compared(p, better, have)}"
    return f"**{title(p)}**, ROC-AUC: {text}."


def _compared(p: params.Params, other: str, have: Mapping[str, summaries.Cell]) -> str:
    models = paired(p, "val")
    if models is None or not {JOINT, other} <= models.prob.keys():
        return str(cells.estimate(Estimate(have[JOINT].value - have[other].value, signed=True)))
    tested = models.difference(JOINT, other, METRIC, CONFIDENCE)
    verdict = "not told apart on these patients"
    if tested.low > 0 or tested.high < 0:
        verdict = "both are better" if tested.difference > 0 else "both are worse"
    return f"{cells.estimate(Estimate(*tested[:3], signed=True))}, {verdict}"


def _figure(tasks: Mapping[str, params.Params], metrics: Mapping[str, pd.DataFrame], folder: Path, real: bool) -> str:
    from mmmil import plots  # seconds of imports that the other parts do not need

    told = [f"{title(p)}: {name}" for p in tasks.values() for name in confounded_by(p)]
    plots.of_cohort(not real, told)
    figure = plots.all_variants({title(tasks[task]): table for task, table in metrics.items()}, METRIC, [JOINT])
    picture = record.write_atomically(
        folder / "found.png", lambda path: figure.savefig(path, format="png", dpi=110, bbox_inches="tight")
    )
    kind = "Real patients" if real else "Synthetic cohorts, no patients"
    caption = (
        f"{kind}: ROC-AUC in cross-validation, mean over the folds with its 95 % interval. Red: images and gene sets "
        "joined by dual attention; blue: one kind alone; grey: logistic regression; dotted: chance."
    )
    alt = "ROC-AUC of images, gene sets and both with intervals, one panel per cohort"
    return f"```{{figure}} generated/{picture.name}\n:alt: {alt}\n:width: 100%\n\n{caption}\n```\n\n"


DOORS = (
    (
        "Read",
        "Each section has the paper's claim, the tables of all cohorts, and below it the notebook that made them.",
        (("book/00_method", "the method, for one patient"), ("book/01_dataset", "the cohorts"),
         ("book/04_multimodal_ablations", "images, genes, both"), ("book/ledger", "every claim and its verdict")),
    ),
    (
        "Run it on your cohort",
        "A table of slides and counts and one file of settings; what is wrong in them is named before anything starts.",
        (("book/howto/cohort", "a cohort of your own"), ("book/howto/features", "features made beforehand"),
         ("book/real", "what real patients look like here"), ("book/10_apply", "a trained model on new patients")),
    ),
    (
        "Change the model",
        "Every notebook is a few calls with parameters to change. A class of your own is trained on the same folds.",
        (("book/00_method", "write an aggregator"), ("book/howto/variant", "add a variant"),
         ("book/what_the_paper_does_not_say", "settings that the paper leaves open"), ("book/api", "the package")),
    ),
)  # fmt: skip


def doors() -> str:
    """The three ways into the book, as cards with links to those pages that the table of contents has."""
    there = {entry["file"] for entry in entries_of(read_toc())}
    cards = []
    for name, text, links in DOORS:
        listed = [f"- [{label}]({page.removeprefix('book/')}.md)" for page, label in links if page in there]
        cards.append("\n".join([f":::{{grid-item-card}} {name}", text, "", *listed, ":::"]))
    return "\n".join(["::::{grid} 1 1 3 3", ":gutter: 3", "", *cards, "::::", ""])
