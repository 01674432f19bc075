"""What the page on applied models includes: the kept model of every task, and what became of its patients."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mmmil import params
from mmmil.apply import card, folder, keep, run
from mmmil.book.text import beside_scores, markdown_table, nothing, title
from mmmil.results import ResultsError


def models(tasks: Mapping[str, params.Params]) -> str:
    """The models that the tasks' notebooks have kept and applied, a row each."""
    rows = []
    for p in tasks.values():
        for path in sorted(keep.place(p, "*").parent.glob(f"*/{folder.ABOUT}")):
            about = json.loads(path.read_text())
            if about["synthetic"] is not p.synthetic:
                kinds = ("synthetic" if synthetic else "real" for synthetic in (about["synthetic"], p.synthetic))
                raise ResultsError(
                    f"{path}: a model of {' patients among the results of '.join(kinds)} ones; remove it"
                )
            reads = "; ".join(line.split(":")[0] for line in card.reads(about))
            internal = [card.numbers(about["metrics"], split, "roc_auc") for split in ("val", "test")]
            rows.append([title(p), about["variant"]["shown_as"], reads, len(about["models"]), *internal, *_applied(p)])
    if not rows:
        return nothing("kept model (results/<run>/kept)")
    head = ["cohort", "model", "reads", "models", "cross-validation", "test", "patients applied to", "flagged"]
    caption = "Kept models, their ROC-AUC on record, and the patients they were applied to"
    return markdown_table(caption, head, rows) + beside_scores(tasks)


def _applied(p: params.Params) -> list[str]:
    """Patients predicted of those given, and how many were flagged, where the task's notebook has applied its model."""
    path = p.results / "applied" / run.RUN
    if not path.is_file():
        return ["–", "–"]
    told = json.loads(path.read_text())
    return [f"{told['predicted']} of {told['patients']}", str(told["flagged"])]
