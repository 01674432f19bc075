"""What the page of real input includes: the pages made on it, and random beside site-grouped folds.

Two tasks whose settings differ in nothing but `fold_groups`, and in what the task is called, trains and shows, are
twins: the same patients and models, once in random folds as in the paper, once in folds that share no site.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mmmil import params, variants
from mmmil.book.pages import entries_of, read_toc, task_of
from mmmil.book.text import (
    FAILED,
    METRICS,
    SPLITS,
    beside_scores,
    made_on,
    markdown_table,
    of_cohorts,
    shown_variant,
    title,
    wide_table,
)
from mmmil.evaluation import summary as summaries
from mmmil.results import benchmark, read_results

FREE = {"task", "title", "fold_groups", "variants", "notebooks"}  # in which twins may differ
TABLES_OF_REPEATS = (
    "ROC-AUC on the validation folds with its 95 % interval, and the standard deviation by what it is due to",
    "Differences in ROC-AUC on the validation folds, with 95 % intervals",
)
READING = """A hospital leaves its mark on slides and on sequencing. In random folds, patients of one site stand in
training and in evaluation, and a model may use that mark. In folds by site no site is divided. The columns hold the
same models and the same patients, but other folds and other held-out patients. So the difference (by site less
random) has no interval: read it beside the two that stand there. No row is marked as best: intervals of this width
rank no models.
"""


def twins(tasks: Mapping[str, params.Params]) -> list[tuple[str, str]]:
    """(task with random folds, task with folds by site) of every pair of twins, in the order of `tasks`."""
    settings = {task: _compared(p) for task, p in tasks.items()}
    random = [task for task, p in tasks.items() if p.fold_groups == "none"]
    by_site = [task for task, p in tasks.items() if p.fold_groups == "site"]
    return [(one, other) for one, other in itertools.product(random, by_site) if settings[one] == settings[other]]


def _compared(p: params.Params) -> dict[str, Any]:
    """What twins have in common: all settings but FREE, and the folder that their files lie in."""
    return p.model_dump(exclude={*FREE, "data_dir"}) | {"data": p.data}


def folds(executed: Mapping[str, params.Params]) -> str:
    """The tables of every pair of real twins, or the command that makes them; executed: the tasks that have pages."""
    text, reading = "", READING + "\n"
    for pair in twins(_real(executed)):
        read = {task: summaries.read(executed[task]) if task in executed else None for task in pair}
        random, by_site = read.values()
        if random is None or by_site is None:
            missing = " and ".join(f"`{task}`" for task, table in read.items() if table is None)
            command = f'`make real REAL_TASKS="{" ".join(pair)}"`'
            text += f"There are no results of {missing} yet: {command} makes the table of `{pair[0]}`.\n\n"
            continue
        if said := _other_patients([executed[task] for task in pair]):
            text += f"{said}\n\n"
            continue
        pages = {task: executed[task] for task in pair}
        with of_cohorts("Real cohorts"):
            tables = "\n".join(_table(random, by_site, split) + beside_scores(pages) for split in SPLITS)
        text += f"{reading}### {title(executed[pair[0]])}\n\n{made_on(pages)}\n{tables}\n"
        reading = ""
    return text or "No two tasks of this book differ in their folds alone.\n"


def measured(which: str) -> str:
    """What was measured once on real patients and kept with the project, "repeats" or "tuned" (every fold by itself);
    a sentence where nobody did.

    The benchmark's page one level of headings further down, each table as one of the book's.
    """
    path = benchmark(f"real_{which}").with_suffix(".md")
    if not path.is_file():
        return f"`python benchmarks/real_repeats.py {which}` has not been run here: there is no table of it.\n"
    text = re.sub(r"^# .*\n", "", path.read_text())
    text, captions = re.sub(r"^## ", "#### ", text, flags=re.M), iter(itertools.cycle(TABLES_OF_REPEATS))

    def as_wide(block: re.Match[str]) -> str:
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in block[0].splitlines())
        return markdown_table(next(captions), head, rows)

    return re.sub(r"(?:^\|.*\n)+", as_wide, text, flags=re.M)


def _other_patients(twins: list[params.Params]) -> str:
    """Why the results of twins are not of the same patients, '' where they are: one is of before their data changed."""
    cohorts, pair = [read_results(p, "cohort", ["patient_id", "label"]) for p in twins], [p.task for p in twins]
    there = [set() if c is None else set(zip(c["patient_id"], c["label"].astype(str), strict=True)) for c in cohorts]
    if there[0] == there[1]:
        return ""
    return (
        f"`{pair[0]}` and `{pair[1]}` were not run on the same patients and labels ({len(there[0])} and "
        f"{len(there[1])}, {len(there[0] & there[1])} in both), so that they are not set side by side: "
        f'`make real REAL_TASKS="{" ".join(pair)}"` runs both on the files that are there now.'
    )


def _real(executed: Mapping[str, params.Params]) -> dict[str, params.Params]:
    """The real tasks of the table of contents, with the parameters of their pages or, without pages, of their files."""
    named = dict.fromkeys(task_of(entry["file"]) for entry in entries_of(read_toc()))
    files = {task for task in named if task and (params.root() / "params" / f"{task}.yaml").is_file()}
    tasks = {t: executed[t] if t in executed else params.load(t) for t in named if t in executed or t in files}
    return {task: p for task, p in tasks.items() if not p.synthetic}


def _table(random: pd.DataFrame, by_site: pd.DataFrame, split: str) -> str:
    """One row per model that both tasks trained, in the variant table's order, the baselines last."""
    names = [name for name in dict.fromkeys(random["variant"]) if name in set(by_site["variant"])]
    rows = []
    for name in sorted(names, key=[*variants.VARIANTS, *names].index):
        cells: list[str] = []
        for metric in METRICS:
            one, other = (summaries.cell(summary, name, metric, split) for summary in (random, by_site))
            cells += [one.text(FAILED), other.text(FAILED), summaries.estimate(other.value - one.value, signed=True)]
        rows.append([shown_variant(name), *cells])
    head = [f"{metric}, {column}" for metric in METRICS.values() for column in ("random", "by site", "difference")]
    return wide_table(f"Random folds, and folds by site; {SPLITS[split]}", ["model", *head], rows, "twins")
