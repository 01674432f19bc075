"""What the first page includes: what was found, with one figure, and the three doors into the book."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mmmil import params, record, variants
from mmmil.book.pages import entries_of, read_toc
from mmmil.book.scores import paired
from mmmil.book.text import LEAKS, beside_scores, confounded_by, markdown_table, nothing, other_features, title
from mmmil.evaluation import summary as summaries
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.tables.estimates import Estimate

METRIC = "roc_auc"
JOINT, PARTS = "dual_go", {"wsi": "images alone", "go": "gene sets alone"}
LINEAR = "baseline_genes"
SYNTHETIC = (
    "**Synthetic cohorts with planted truth: no patient stands behind these numbers**, which show the code at work and "
    "reproduce nothing. This copy compares no models on real patients; [Real input](real.md) says how one does."
)
ALIKE = (
    "Not told apart does not mean alike: the notebooks of [section 04](04_multimodal_ablations.md) have the smallest "
    "gain that so many patients could have shown."
)


def found(tasks: Mapping[str, params.Params], folder: Path) -> str:
    """What images, gene sets and both gave: a sentence, a row per cohort, and a figure drawn into `folder`.

    Of real patients where a task of them has such models, else of synthetic ones.
    """
    asked = {task: read for task, p in tasks.items() if (read := _asked(p)) is not None}
    real = {task: table for task, table in asked.items() if not tasks[task].synthetic}
    chosen = _one_of_each({task: tasks[task] for task in (real or asked)})
    if not chosen:
        return nothing("model of images, gene sets or both")
    metrics = {task: asked[task] for task in chosen}
    differences = {task: _difference(p, metrics[task]) for task, p in chosen.items()}
    notes = [f"{title(p)}: {n}." for p in chosen.values() for n in (other_features(p), LEAKS * p.leaks) if n]
    others = [title(tasks[task]) for task in real if task not in chosen]
    if others:
        notes.append(f"The same patients in other folds, repeats or settings: {'; '.join(others)} ([page](real.md)).")
    parts = [SYNTHETIC] * (not real) + [_told(list(differences.values())), _figure(chosen, metrics, folder, bool(real))]
    parts += [_table(chosen, metrics, differences), *notes, beside_scores(chosen)]
    return "\n\n".join(part for part in parts if part.strip()) + "\n"


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
        cohort = (str(p.data), p.inputs, *p.class_names)
        kept = tasks.get(best.get(cohort, ""))
        if kept is None or _rank(p) > _rank(kept):
            best[cohort] = task
    return {task: p for task, p in tasks.items() if task in best.values()}


def _rank(p: params.Params) -> tuple[bool, int, int]:
    return p.fold_groups == "none", p.repeats, p.model_seeds


def _difference(p: params.Params, table: pd.DataFrame) -> Estimate | None:
    """ROC-AUC of both less that of the better one alone, by DeLong's test where predictions are on record."""
    have = {row.variant: row.mean for row in table.itertuples()}
    parts = [name for name in PARTS if name in have]
    if JOINT not in have or not parts:
        return None
    other = max(parts, key=have.__getitem__)
    models = paired(p, "val")
    if models is None or not {JOINT, other} <= models.prob.keys():
        return Estimate(have[JOINT] - have[other], signed=True)
    tested = models.difference(JOINT, other, METRIC, CONFIDENCE)
    return Estimate(tested.difference, tested.low, tested.high, signed=True)


def _told(differences: list[Estimate | None]) -> str:
    """What the differences say, all cohorts together."""
    tested = [d for d in differences if d is not None and d.has_interval]
    if not tested:
        return ""
    better, worse = sum(d.low > 0 for d in tested), sum(d.high < 0 for d in tested)
    alike = len(tested) - better - worse
    counts = {"better than": better, "worse than": worse, "not told apart from": alike}
    said = [f"{what} the better of the two alone in {n} of {len(tested)}" for what, n in counts.items() if n]
    cohorts = "cohort" if len(tested) == 1 else "cohorts"
    sentence = f"Images and gene sets together are {', '.join(said)} {cohorts} (paired test of ROC-AUC, 5 %)."
    return f"{sentence} {ALIKE}" if alike else sentence


def _table(
    tasks: Mapping[str, params.Params],
    metrics: Mapping[str, pd.DataFrame],
    differences: Mapping[str, Estimate | None],
) -> str:
    named = {JOINT: "both", **PARTS, LINEAR: "logistic regression on all genes"}
    rows = [
        [
            title(p),
            *(summaries.cell(metrics[task], name, METRIC).estimate() for name in named),
            differences[task] or "–",
        ]
        for task, p in tasks.items()
    ]
    kind = "Real cohorts" if not any(p.synthetic for p in tasks.values()) else "Synthetic cohorts"
    caption = f"ROC-AUC in cross-validation. {kind}"
    return markdown_table(caption, ["cohort", *named.values(), "both less the better one alone"], rows)


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
    return f"```{{figure}} generated/{picture.name}\n:alt: {alt}\n\n{caption}\n```\n\n"


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
