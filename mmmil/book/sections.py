"""What the section pages include: tables of all tasks side by side, computed from `results/`.

Every part says on which cohort it was made. Synthetic cohorts and real ones never share a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import Any

from mmmil import paper, params, record
from mmmil.book import audits as book_audits
from mmmil.book import cohorts as book_cohorts
from mmmil.book import costs as book_costs
from mmmil.book import first_page, overview, readouts, scores, status, unsaid
from mmmil.book import kept as book_kept
from mmmil.book import ledger as book_ledger
from mmmil.book import method as book_method
from mmmil.book import real as book_real
from mmmil.book.pages import entries_of, entry_of, executed_pages, executed_tasks, read_toc, sections_of, shown_of
from mmmil.book.text import (
    SPLITS,
    made_on,
    markdown_table,
    nothing,
    of_cohorts,
    shown_variant,
    title,
    wide_table,
)
from mmmil.evaluation import summary as summaries
from mmmil.ledger import verdicts
from mmmil.results import read_results

CHILDREN = "```{tableofcontents}\n```\n"


Part = Callable[[Mapping[str, params.Params]], str]


def results_of(section: paper.Section) -> Part:
    """The part of a section with the paper's tables of scores that it shows."""

    def part(tasks: Mapping[str, params.Params]) -> str:
        metrics, names = _metrics(tasks)
        text = ""
        for split in SPLITS:
            for table in section.scores:
                chosen = {t: f[[_belongs(value, table) for value in f["table"]]] for t, f in metrics.items()}
                trained = {row.variant for f in chosen.values() for row in f.itertuples() if not _baseline(row.table)}
                if len(trained) > 1:
                    text += scores.tables(chosen, names, split, table.caption, tasks)
                elif trained and split == "val":
                    text += (
                        f"{table.caption}: not shown, no model beside {shown_variant(*trained)} was trained here.\n\n"
                    )
        return text if text.strip() else nothing("result for the tables of this section")

    return part


def every_model(tasks: Mapping[str, params.Params]) -> str:
    """The summary: ROC-AUC of every variant."""
    metrics, names = _metrics(tasks)
    chosen = {task: frame[frame["metric"] == "roc_auc"] for task, frame in metrics.items()}
    caption = "ROC-AUC of every variant, mean and interval"
    text = "".join(scores.tables(chosen, names, split, caption, tasks) for split in SPLITS)
    return text if text.strip() else nothing("result for the tables of this section")


def _metrics(tasks: Mapping[str, params.Params]) -> tuple[dict[str, Any], dict[str, str]]:
    """metrics.csv of the tasks that have it, and these tasks' titles."""
    read = {task: summaries.read(p) for task, p in tasks.items()}
    metrics = {task: frame for task, frame in read.items() if frame is not None}
    return metrics, {task: title(tasks[task]) for task in metrics}


def _baseline(table: Any) -> bool:
    return "baseline" in str(table).lower()


def _belongs(value: Any, table: paper.Table) -> bool:
    return _baseline(value) or paper.table_of(str(value)) == table


def attention(tasks: Mapping[str, params.Params]) -> str:
    """Gene sets whose attention differs between the classes."""
    rows = []
    for p in tasks.values():
        table = read_results(p, "attention", ["source", "library", "n_sets", "n_significant"])
        for row in [] if table is None else table.itertuples():
            rows.append(
                [title(p), row.source.removesuffix("_genes"), str(row.library).upper(), row.n_sets, row.n_significant]
            )
    if not rows:
        return nothing("attention analysis (results/<run>/attention.csv)")
    head = ["cohort", "attention", "library", "sets", "differ between the classes"]
    text = markdown_table("Gene sets weighted differently in the two classes (Mann-Whitney U, adjusted p)", head, rows)
    return "\n".join([text, _attention_nulls(tasks), _attention_terms(tasks)])


def _attention_nulls(tasks: Mapping[str, params.Params]) -> str:
    """Which of these findings survive which null, and which null is too small to tell."""
    rows: list[list] = []
    undecided: dict = {}
    for p in tasks.values():
        table = read_results(p, "attention_nulls", ["source", "library", "null", "differ", "survive", "least_p"])
        for (library, source), nulls in [] if table is None else table.groupby(["library", "source"], sort=False):
            left = nulls.set_index("null")["survive"]
            cells = ["cannot decide" if isnan(n) else int(n) for n in left]
            differ = nulls["differ"].iloc[0]
            rows.append([title(p), source.removesuffix("_genes"), str(library).upper(), differ, *cells])
            for row in nulls[nulls["survive"].isna() & nulls["least_p"].notna()].itertuples():
                undecided.setdefault((title(p), p.attention_fdr), []).append(row.least_p)
    head = ["cohort", "attention", "library", "adjusted p below the limit", "labels permuted, model fixed"]
    head += ["model trained on permuted labels", "random weights", "random genes of the set's size"]
    caption = "Findings that survive each null: their p under it is below the limit, too"
    text = wide_table(caption, [*head, "all that can decide"], rows, "attention") if rows else ""
    for (cohort, limit), least in undecided.items():
        best = f"{min(least):.3f}" if min(least) == max(least) else f"{min(least):.3f} to {max(least):.3f}"
        text += (
            f'\n{cohort}: a null that "cannot decide" is too small. The least p that it can give, {best}, is not below '
            f"the limit of {limit:g}, so nothing could survive it. More `null_models` would let it decide.\n"
        )
    return text


def _attention_terms(tasks: Mapping[str, params.Params]) -> str:
    """How many of the terms that the paper reports were found here."""
    rows, states = [], ["significant", "not significant", "not tested", "not selected", "absent"]
    for p in tasks.values():
        table = read_results(p, "attention_terms", ["library", "source", "state"])
        for (library, source), terms in [] if table is None else table.groupby(["library", "source"], sort=False):
            rows.append(
                [
                    title(p),
                    source.removesuffix("_genes"),
                    str(library).upper(),
                    *(int((terms["state"] == s).sum()) for s in states),
                ]
            )
    head = ["cohort", "attention", "library", "significant", "found, not significant", "no such attention in the model"]
    head += ["in the GMT file, not selected", "not in the GMT file"]
    caption = "Terms that the paper reports, and what became of them here"
    return wide_table(caption, head, rows, "attention") if rows else ""


def gene_representation(tasks: Mapping[str, params.Params]) -> str:
    """The tables of section 06, then what tells whether its gene sets can be trusted."""
    return results_of(paper.SECTIONS["06_gene_representation"])(tasks) + book_cohorts.gene_representation(tasks)


PARTS: dict[str, Part] = {
    "00": book_method.sizes,
    "01": book_cohorts.dataset,
    "02": book_cohorts.preprocessing,
    **{section.number: results_of(section) for section in paper.SECTIONS.values() if section.scores},
    "06": gene_representation,
    "07": attention,
    "08": book_audits.part,
    "09": every_model,
    "10": book_kept.models,
}


def section(number: str, tasks: Mapping[str, params.Params]) -> str:
    """One section's generated part: synthetic cohorts and real ones apart, each with its note."""
    kinds = {"Synthetic cohorts": True, "Real cohorts": False}
    text = ""
    for head, synthetic in kinds.items():
        group = {
            task: p
            for task, p in tasks.items()
            if p.synthetic is synthetic and any(section.number == number for section in sections_of(p))
        }
        if group:
            with of_cohorts(head):
                text += f"### {head}\n\n{made_on(group)}\n{PARTS[number](group)}\n"
    if not text:
        return nothing("result for this section")
    pages = "Each page below is the same notebook, executed for one task."
    return f"{text}## The notebooks of this section\n\n{pages}\n\n{CHILDREN}" if _has_children(number, tasks) else text


def real(tasks: Mapping[str, params.Params]) -> str:
    """The list of pages made on real input, or how to make them."""
    return (
        CHILDREN if _has_children("real", tasks) else "No page has been made on real input here. `make real` does it.\n"
    )


def _has_children(name: str, tasks: Mapping[str, params.Params]) -> bool:
    have = {entry_of(str(page)) for page in executed_pages(shown_of(tasks))}
    pages = [e for e in entries_of(read_toc()) if Path(e["file"]).name.startswith(name) and "sections" in e]
    return any(child["file"] in have for page in pages for child in entries_of(page["sections"]))


def write(runs: Iterable[str] = ()) -> list[Path]:
    """Write every generated part of the book from the results of the runs that it shows; runs: see `pages.shown`."""
    tasks, folder = executed_tasks(runs), params.root() / "book" / "generated"
    parts = {number: section(number, tasks) for number in PARTS}
    parts |= {"03_costs": book_costs.table_2(), "03_benchmarks": book_costs.benchmarks(folder)}
    parts |= {
        "07_readouts": readouts.readouts(),
        "unsaid": unsaid.unsaid(),
        "real": real(tasks),
        "real_folds": book_real.folds(tasks),
        **{f"real_{which}": book_real.measured(which) for which in ("repeats", "tuned")},
    }
    parts["overview"] = overview.overview(tasks, folder)
    parts |= {"found": first_page.found(tasks, folder), "doors": first_page.doors()}
    judged = verdicts.Ledger(tasks)
    parts |= {
        "ledger": book_ledger.page(judged),
        "glance": book_ledger.glance(judged),
        "verdicts": book_ledger.headlines(judged),
    }
    parts["status"] = status.status(tasks)  # last: the workflow takes it as the sign that all are there
    return [
        record.write_atomically(folder / f"{name}.md", lambda path, text=text: path.write_text(text))
        for name, text in parts.items()
    ]
