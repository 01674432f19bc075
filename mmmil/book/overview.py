"""The first page's figure: every variant over every task, from the same metrics as all tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mmmil import params, record
from mmmil.book.text import LEAKS, beside_scores, confounded_by, nothing, title
from mmmil.evaluation import summary as summaries


def overview(tasks: Mapping[str, params.Params], folder: Path) -> str:
    """A figure per kind of cohort, drawn into `folder`, and how to make its numbers; synthetic and real apart."""
    text = ""
    for kind, synthetic in (("synthetic", True), ("real", False)):
        read = {t: summaries.read(p) for t, p in tasks.items() if p.synthetic is synthetic}
        metrics = {t: table for t, table in read.items() if table is not None and table["mean"].notna().any()}
        if metrics:
            told = [f"{title(tasks[t])}: {name}" for t in metrics for name in confounded_by(tasks[t])]
            text += _figure({title(tasks[t]): table for t, table in metrics.items()}, kind, folder, told)
            text += "".join(f"{title(tasks[t])}: {LEAKS}.\n\n" for t in metrics if tasks[t].leaks)
            text += beside_scores({t: tasks[t] for t in metrics})
            text += _commands(tasks, list(metrics))
    return text or nothing("figure of all models")


def _figure(metrics: Mapping[str, pd.DataFrame], kind: str, folder: Path, told: list[str]) -> str:
    from mmmil import plots  # seconds of imports that the other parts do not need

    plots.of_cohort(kind == "synthetic", told)
    figure = plots.all_variants(metrics)
    picture = record.write_atomically(
        folder / f"overview_{kind}.png",
        lambda path: figure.savefig(path, format="png", dpi=110, bbox_inches="tight"),
    )
    warning = "**Synthetic cohorts: not a reproduction of any figure of the paper.** " if kind == "synthetic" else ""
    caption = (
        f"{warning}ROC-AUC of every variant on every {kind} cohort of this copy: mean over the validation folds with "
        "its 95 % interval; logistic regression in grey; the dotted line is chance."
    )
    return f"```{{figure}} generated/{picture.name}\n:alt: ROC-AUC of all variants\n\n{caption}\n```\n\n"


def _commands(tasks: Mapping[str, params.Params], names: list[str]) -> str:
    """The command that makes these numbers, from nothing."""
    overlays: dict[str, list[str]] = {}
    for task in names:
        overlays.setdefault(tasks[task].overlay, []).append(task)
    commands = [f'make book TASKS="{" ".join(group)}" OVERLAY={overlay}' for overlay, group in overlays.items()]
    text = "\n".join(commands)
    return f"Every number of it, and of the tables behind it, from nothing:\n\n```bash\n{text}\n```\n\n"
