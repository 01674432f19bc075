"""How the section pages say things: tables in MyST, estimates with their interval, and on which cohorts."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmmil import check, params, record, variants
from mmmil.book import captions
from mmmil.evaluation import summary as summaries
from mmmil.ledger import standing
from mmmil.results import ResultsError, read_results
from mmmil.study import Study
from mmmil.tables import cells
from mmmil.tables.estimates import PLUS_MINUS, Estimate

if TYPE_CHECKING:
    import pandas as pd

METRICS = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}  # all six stand in the executed notebooks
SPLITS = {"val": "cross-validation", "test": "held-out test patients"}
FAILED = "{ref}`failed <failed-trainings>`"


_kind: contextvars.ContextVar[str] = contextvars.ContextVar("kind", default="")


@contextlib.contextmanager
def of_cohorts(kind: str) -> Iterator[None]:
    """Every table that is made within says in its caption of which cohorts it is: 'Synthetic cohorts'."""
    before = _kind.set(kind)
    try:
        yield
    finally:
        _kind.reset(before)


def markdown_table(caption: str, head: list[str], rows: list[list[Any]], kind: str = "") -> str:
    """A MyST table with a caption, which says of which cohorts it is (`of_cohorts`); kind: classes."""
    caption = ". ".join(filter(None, (caption, _kind.get())))
    if any(isinstance(cell, Estimate) and cell.has_interval for row in rows for cell in row):
        caption += f". {PLUS_MINUS}"
    written = [[cells.in_markdown(cell) for cell in row] for row in [head, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in written]
    lines.insert(1, "|" + " --- |" * len(head))
    classes = " ".join(["book-table", *kind.split()])
    return "\n".join([f"```{{table}} {caption}", f":class: {classes}", "", *lines, "```", ""])


def wide_table(caption: str, head: list[str], rows: list[list[Any]], kind: str) -> str:
    """The same for columns of prose; kind: a class whose column widths are in book/_static/book.css."""
    return markdown_table(caption, head, rows, f"wide {kind}")


def title(p: params.Params) -> str:
    return p.title or p.task


def shown_variant(name: str) -> str:
    """What the pages call a model; its name where this copy knows no such one."""
    try:
        return variants.variant(name).shown_as
    except params.ParameterError:
        return name


def other_features(p: params.Params) -> str:
    """The note on real patients whose inputs are not the paper's, by the settings alone; '' for all others."""
    inputs = standing.other_inputs(p)
    if p.synthetic or not inputs:
        return ""
    backbone = "" if p.has_pixels or not p.has_slides else "; no model has a backbone, whatever a row's name says"
    return f"**Real patients, other features**: {', '.join(inputs)}{backbone}; no figure is the paper's"


LEAKS = (
    "**The selection leaks** (`selection: all_patients`): gene sets were chosen on all patients, those that are "
    "evaluated included, so no score of a model that reads them is a result"
)


def confounded(p: params.Params) -> list[str]:
    """What else tells the classes of a cohort apart, as its record has it; nothing where there is no record yet.

    Raises ResultsError where scores are on record, and nobody has looked.
    """
    return list(_confounded(p)["text"])


def confounded_by(p: params.Params) -> list[str]:
    """The same in a word each, as figures have it."""
    return list(_confounded(p)["check"])


def _confounded(p: params.Params) -> pd.DataFrame:
    import pandas as pd

    table = read_results(p, "confounded", check.CONFOUNDED)
    if table is None and summaries.read(p) is not None:
        raise ResultsError(f"{p.results}: has metrics.csv and no confounded.csv; run the record of {p.run} again")
    return pd.DataFrame(columns=check.CONFOUNDED) if table is None else table


def beside_scores(tasks: Mapping[str, params.Params]) -> str:
    """What stands where a cohort's scores stand: a line for each whose classes are told apart by something else."""
    lines = [
        f"{captions.CONFOUNDED}, {title(p)}: {'; '.join(found)}.\n" for p in tasks.values() if (found := confounded(p))
    ]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def made_on(tasks: Mapping[str, params.Params]) -> str:
    """The note that opens every generated part: cohorts, number of patients, parameter files and commit."""
    lines = []
    for task, p in tasks.items():
        cohort = read_results(p, "cohort", ["patient_id"])
        number = "" if cohort is None else f", {len(cohort)} patients"
        null = " **without any signal (null mode)**" if p.sim_null else ""
        kind = f"synthetic cohort{null}" if p.synthetic else "real cohort"
        files = " + ".join(f"`params/{name}.yaml`" for name in (task, p.overlay) if name)
        notes = "".join(f". {note}" for note in (other_features(p), LEAKS * p.leaks) if note)
        lines.append(f"- {title(p)}: {kind}{number}; {files}{notes}")
    synthetic = any(p.synthetic for p in tasks.values())
    warning = (
        "\nThe synthetic cohorts have a planted, known truth. Their numbers show that the code does what it "
        "says; they say nothing about the paper's patients and are not comparable with its figures.\n"
    )
    head = "Synthetic cohorts: not a reproduction" if synthetic else "Made on"
    body = "\n".join(lines) + f"\n- code: commit {record.commit()}\n" + (warning if synthetic else "")
    return f"```{{admonition}} {head}\n:class: {'warning' if synthetic else 'note'}\n{body}```\n"


def nothing(missing: str) -> str:
    """A sentence in place of a table that no run has made."""
    return f"There is no {missing} yet. `make book` makes it on the synthetic cohorts, `make real` on real input.\n"


def provenance(study: Study) -> str:
    """The paragraph at the head of a page: cohort, patients, parameters, commit, and what is not as in the paper.

    From here on the tables and figures of this notebook carry their cohort, and those of scores what else tells its
    classes apart.
    """
    p = study.p
    found = check.confounded(study.cohort.patients, p, study.tiles)
    warnings = list(found["text"])
    captions.carry(title(p), p.synthetic, warnings, list(found["check"]))
    if p.synthetic:
        kind = (
            f"**Synthetic cohort**{' without any signal (null mode)' if p.sim_null else ' with planted truth'}: "
            "no number on this page says anything about patients, nor about the paper."
        )
    else:
        kind = f"**Real data** ({p.title or p.task})."
    counts = study.labels.value_counts()
    classes = ", ".join(f"{counts.get(i, 0)} {name}" for i, name in enumerate(p.class_names))
    classes = "no labels" if -1 in counts else classes
    files = f"`params/{p.task}.yaml`" + (f" and `params/{p.overlay}.yaml`" if p.overlay else "")
    sites = "Folds and test set share no site (`fold_groups: site`)" if p.fold_groups == "site" else ""
    notes = "".join(f" {note}." for note in (sites, other_features(p), LEAKS * p.leaks) if note)
    return (
        f"{kind} {len(study.cohort)} patients used ({classes}); parameters {files}; commit `{record.commit()}`.{notes}"
        + "".join(f" {captions.CONFOUNDED}: {warning}." for warning in warnings)
    )
