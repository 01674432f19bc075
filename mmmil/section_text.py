"""How the section pages say things: tables in MyST, estimates with their interval, and on which cohorts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmmil import params, record
from mmmil.pages import PageError


def markdown_table(caption: str, head: list[str], rows: list[list[Any]]) -> str:
    """A MyST table with a caption."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [head, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "|" + " --- |" * len(head))
    return "\n".join([f"```{{table}} {caption}", *lines, "```", ""])


def wide_table(caption: str, head: list[str], rows: list[list[Any]], kind: str) -> str:
    """The same in smaller print; kind: a class whose column widths are in book/_static/book.css."""
    first, *rest = markdown_table(caption, head, rows).split("\n")
    return "\n".join([first, f":class: wide {kind}", "", *rest])


def estimate(mean: float, low: float, high: float) -> str:
    """'0.812 [0.702, 0.922]', or the mean alone where there is no interval."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.3f}" if math.isnan(low) or math.isnan(high) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def title(p: params.Params) -> str:
    return p.title or p.task


LEAKS = (
    "**The selection leaks** (`selection: all_patients`): gene sets were chosen on all patients, those that are "
    "evaluated included, so no score of a model that reads them is a result"
)


def made_on(tasks: Mapping[str, params.Params]) -> str:
    """The note that opens every generated part: cohorts, number of patients, parameter files and commit."""
    lines = []
    for task, p in tasks.items():
        cohort = read_results(task, "cohort", ["patient_id"])
        number = "" if cohort is None else f", {len(cohort)} patients"
        null = " **without any signal (null mode)**" if p.sim_null else ""
        kind = f"synthetic cohort{null}" if p.synthetic else "real cohort"
        files = " + ".join(f"`params/{name}.yaml`" for name in (task, p.overlay) if name)
        leaks = f". {LEAKS}" if p.leaks else ""
        lines.append(f"- {title(p)}: {kind}{number}; {files}{leaks}")
    synthetic = any(p.synthetic for p in tasks.values())
    warning = (
        "\nThe synthetic cohorts have a planted, known truth. Their numbers show that the code does what it "
        "says; they say nothing about the paper's patients and are not comparable with its figures.\n"
    )
    head = "Synthetic cohorts: not a reproduction" if synthetic else "Made on"
    body = "\n".join(lines) + f"\n- code: commit {record.commit()}\n" + (warning if synthetic else "")
    return f"```{{admonition}} {head}\n:class: {'warning' if synthetic else 'note'}\n{body}```\n"


def read_results(task: str, name: str, columns: list[str]):
    """`results/<task>/<name>.csv`, or None where there is none. Raises PageError if a column is missing."""
    import pandas as pd

    path = params.root() / "results" / task / f"{name}.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype={"patient_id": str, "table": str})
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise PageError(f"{path} lacks the columns {', '.join(missing)}; remove it and run the step again")
    return table


def nothing(what: str) -> str:
    """A sentence in place of a table that no run has made."""
    return f"There is no {what} yet. `make book` makes it on the synthetic cohorts, `make real` on real input.\n"
