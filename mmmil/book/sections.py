"""What the section pages include: tables of all tasks side by side, computed from `results/`.

Every part says on which cohort it was made. Synthetic cohorts and real ones never share a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan
from pathlib import Path
from typing import Any

from mmmil import params, record, variants
from mmmil.book import cohorts as book_cohorts
from mmmil.book import costs as book_costs
from mmmil.book import ledger as book_ledger
from mmmil.book import overview, status, unsaid
from mmmil.book.pages import entries_of, executed_pages, executed_tasks, read_toc
from mmmil.book.text import made_on, markdown_table, nothing, title, wide_table
from mmmil.evaluation.summary import estimate
from mmmil.ledger import verdicts
from mmmil.paper import CAPTIONS, TABLES, paper_table
from mmmil.results import read_results

METRICS = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}  # all six stand in the executed notebooks
SPLITS = {"val": "cross-validation", "test": "held-out test patients"}
FAILED = "{ref}`failed <failed-trainings>`"
CHILDREN = "```{tableofcontents}\n```\n"


Part = Callable[[Mapping[str, params.Params]], str]


def metrics_table(metrics: Mapping[str, Any], names: Mapping[str, str], split: str, caption: str) -> str:
    """One row per variant and metric, one column per cohort; empty where there is no such result.

    metrics: per task a frame with columns variant, metric, split, mean, ci_low, ci_high; names: column heads.
    """
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for task, frame in metrics.items():
        for row in frame[(frame["split"] == split) & frame["metric"].isin(METRICS)].itertuples():
            found = cells.setdefault((row.variant, row.metric), {})
            found.setdefault(task, FAILED if isnan(row.mean) else estimate(row.mean, row.ci_low, row.ci_high))
    order, seen = list(METRICS), list(dict.fromkeys(variant for variant, _ in cells))
    rows = [
        [
            _shown(variant),
            METRICS[metric],
            *(cells[variant, metric].get(task, "–") for task in metrics),
        ]
        for variant, metric in sorted(cells, key=lambda key: (seen.index(key[0]), order.index(key[1])))
    ]
    if not rows:
        return ""
    return markdown_table(f"{caption}; {SPLITS.get(split, split)}", ["variant", "metric", *names.values()], rows)


def _shown(variant: str) -> str:
    known = variants.VARIANTS.get(variant)
    return known.shown_as if known else variant


def results_of(section: str) -> Part:
    """The part of a section with metric tables; '09' is the summary of ROC-AUC over all variants."""

    def part(tasks: Mapping[str, params.Params]) -> str:
        columns = ["table", "variant", "metric", "split", "mean", "ci_low", "ci_high"]
        read = {task: read_results(task, "metrics", columns) for task in tasks}
        found = {task: frame for task, frame in read.items() if frame is not None}
        names, text = {task: title(tasks[task]) for task in found}, ""
        for split in SPLITS:
            if section == "09":
                chosen = {task: frame[frame["metric"] == "roc_auc"] for task, frame in found.items()}
                text += metrics_table(chosen, names, split, "ROC-AUC of every variant, mean and interval") + "\n"
            for number in TABLES.get(section, ()):
                chosen = {t: f[[_belongs(value, number) for value in f["table"]]] for t, f in found.items()}
                trained = {row.variant for f in chosen.values() for row in f.itertuples() if not _baseline(row.table)}
                if len(trained) > 1:
                    text += metrics_table(chosen, names, split, CAPTIONS[number]) + "\n"
                elif trained and split == "val":
                    text += f"{CAPTIONS[number]}: not shown, no model beside {_shown(*trained)} was trained here.\n\n"
        return text if text.strip() else nothing("result for the tables of this section")

    return part


def _baseline(table: Any) -> bool:
    return "baseline" in str(table).lower()


def _belongs(table: Any, number: int) -> bool:
    return _baseline(table) or paper_table(str(table)) == number


def attention(tasks: Mapping[str, params.Params]) -> str:
    """Gene sets whose attention differs between the classes."""
    rows = []
    for task, p in tasks.items():
        table = read_results(task, "attention", ["source", "library", "n_sets", "n_significant"])
        for row in [] if table is None else table.itertuples():
            rows.append(
                [title(p), row.source.removesuffix("_genes"), str(row.library).upper(), row.n_sets, row.n_significant]
            )
    if not rows:
        return nothing("attention analysis (results/<task>/attention.csv)")
    head = ["cohort", "attention", "library", "sets", "differ between the classes"]
    text = markdown_table("Gene sets weighted differently in the two classes (Mann-Whitney U, adjusted p)", head, rows)
    return "\n".join([text, _attention_nulls(tasks), _attention_terms(tasks)])


def _attention_nulls(tasks: Mapping[str, params.Params]) -> str:
    """Which of these findings survive which null, and which null is too small to tell."""
    rows: list[list] = []
    undecided: dict = {}
    for task, p in tasks.items():
        table = read_results(task, "attention_nulls", ["source", "library", "null", "differ", "survive", "least_p"])
        for (library, source), own in [] if table is None else table.groupby(["library", "source"], sort=False):
            left = own.set_index("null")["survive"]
            cells = ["cannot decide" if isnan(n) else int(n) for n in left]
            rows.append([title(p), source.removesuffix("_genes"), str(library).upper(), own["differ"].iloc[0], *cells])
            for row in own[own["survive"].isna() & own["least_p"].notna()].itertuples():
                undecided.setdefault((title(p), p.attention_fdr), []).append(row.least_p)
    head = ["cohort", "attention", "library", "adjusted p below the limit", "labels permuted, model fixed"]
    head += ["model trained on permuted labels", "random weights", "random genes of the set's size"]
    caption = "Findings that survive a null: its p is below the limit, too"
    text = wide_table(caption, [*head, "all that can decide"], rows, "attention") if rows else ""
    for (cohort, limit), least in undecided.items():
        best = f"{min(least):.3f}" if min(least) == max(least) else f"{min(least):.3f} to {max(least):.3f}"
        text += (
            f'\n{cohort}: "cannot decide" stands where the null is too small. The least p that it can give, '
            f"{best}, is not below the limit of {limit:g}, so that nothing could survive it whatever the model learnt; "
            "more `null_models` would let it decide.\n"
        )
    return text


def _attention_terms(tasks: Mapping[str, params.Params]) -> str:
    """How many of the terms that the paper reports were found here."""
    rows, states = [], ["significant", "not significant", "not tested", "not selected", "absent"]
    for task, p in tasks.items():
        table = read_results(task, "attention_terms", ["library", "source", "state"])
        for (library, source), own in [] if table is None else table.groupby(["library", "source"], sort=False):
            rows.append(
                [
                    title(p),
                    source.removesuffix("_genes"),
                    str(library).upper(),
                    *(int((own["state"] == s).sum()) for s in states),
                ]
            )
    head = ["cohort", "attention", "library", "significant", "found, not significant", "no such attention in the model"]
    head += ["in the GMT file, not selected", "not in the GMT file"]
    caption = "Terms that the paper reports, and what became of them here"
    return wide_table(caption, head, rows, "attention") if rows else ""


def gene_representation(tasks: Mapping[str, params.Params]) -> str:
    """The tables of section 06, then what tells whether its gene sets can be trusted."""
    return results_of("06")(tasks) + book_cohorts.gene_representation(tasks)


PARTS: dict[str, Part] = {
    "01": book_cohorts.dataset,
    "02": book_cohorts.preprocessing,
    **{section: results_of(section) for section in ("03", "04", "05")},
    "06": gene_representation,
    "07": attention,
    "09": results_of("09"),
}


def section(number: str, tasks: Mapping[str, params.Params]) -> str:
    """One section's generated part: synthetic cohorts and real ones apart, each with its note."""
    kinds = {"Synthetic cohorts": True, "Real cohorts": False}
    text = ""
    for head, synthetic in kinds.items():
        group = {
            task: p
            for task, p in tasks.items()
            if p.synthetic is synthetic and any(name.startswith(number) for name in p.notebooks)
        }
        if group:
            text += f"### {head}\n\n{made_on(group)}\n{PARTS[number](group)}\n"
    if not text:
        return nothing("result for this section")
    pages = "Each page below is the same notebook, executed for one task."
    return f"{text}## The notebooks of this section\n\n{pages}\n\n{CHILDREN}" if _has_children(number) else text


def real() -> str:
    """The list of pages made on real input, or how to make them."""
    return CHILDREN if _has_children("real") else "No page has been made on real input here. `make real` does it.\n"


def _has_children(name: str) -> bool:
    have = {page.with_suffix("").as_posix() for page in executed_pages()}
    pages = [e for e in entries_of(read_toc()) if Path(e["file"]).name.startswith(name) and "sections" in e]
    return any(child["file"] in have for page in pages for child in entries_of(page["sections"]))


def write() -> list[Path]:
    """Write every generated part of the book from the results of the tasks that have executed pages."""
    tasks, folder = executed_tasks(), params.root() / "book" / "generated"
    parts = {number: section(number, tasks) for number in PARTS}
    parts |= {"03_costs": book_costs.table_2(), "03_benchmarks": book_costs.benchmarks(folder)}
    parts |= {"unsaid": unsaid.unsaid(), "real": real()}
    parts["overview"] = overview.overview(tasks, folder)
    judged = verdicts.Ledger(tasks)
    parts |= {"ledger": book_ledger.page(judged), "glance": book_ledger.glance(judged)}
    parts["status"] = status.status(tasks)  # last: the workflow takes it as the sign that all are there
    return [
        record.write_atomically(folder / f"{name}.md", lambda path, text=text: path.write_text(text))
        for name, text in parts.items()
    ]
