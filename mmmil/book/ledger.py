"""The page of the claim ledger, and its short form for the first page: tables in MyST."""

from __future__ import annotations

from mmmil import paper, params, record
from mmmil.book.pages import executed_pages
from mmmil.book.text import markdown_table, title, wide_table
from mmmil.ledger.claims import Claim
from mmmil.ledger.verdicts import UNTESTABLE, VERDICTS, Ledger, Row, why_not_judged

NO_COHORT = "none: the program and what it measured"
COUNTED = {"patients": "cohort.csv", "genes": "cohort.csv", "tiles": "tiles.csv", "sets": "genes.csv"}


def _value(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _paper(claim: Claim, task: str) -> str:
    """The paper's value, or the limit that its words are taken to set."""
    if claim.at_least is not None:
        return f"at least {claim.at_least:g}"
    tolerance = f" ± {claim.tolerance:g}" if claim.tolerance and claim.paper is not None else ""
    return f"{_value(claim.paper_value(task))}{tolerance}"


def _all_of_paper(claim: Claim) -> str:
    if isinstance(claim.paper, dict):
        return " / ".join(_value(claim.paper[task]) for task in claim.tasks)
    return _paper(claim, "")


def _kind(p: params.Params) -> str:
    return "synthetic" if p.synthetic else "the paper's cohort" if not why_not_judged(p) else "real, not the paper's"


def _behind(row: Row, p: params.Params | None) -> str:
    """Parameters, seed and file that a row was computed from."""
    query = row.claim.query
    if query.none is not None:
        return "–"
    if p is None:
        return f"`benchmarks/results/{query.measured.file}.csv`" if query.measured else "`mmmil/ledger/facts.py`"
    files = " + ".join(f"`{name}.yaml`" for name in (p.task, p.overlay) if name)
    if query.setting:
        return files
    file = "predictions.parquet"
    if query.count:
        file = COUNTED[query.count.what]
    elif query.attention:
        file = "attention_sets.csv" if query.attention.sets else "attention.csv"
    return f"{files}, seed {p.seed}, `results/{p.task}/{file}`"


def _linked(text: str, row: Row, pages: set[str]) -> str:
    """The cohort's name, linked to the executed notebook that shows the claim, where that was made."""
    page = f"executed/{row.task}/{row.claim.page}"
    return f"[{text}]({page}.ipynb)" if page in pages else text


def _rows(section: str, ledger: Ledger, pages: set[str]) -> list[list]:
    """Claim, paper, cohort, ours, synthetic value, verdict, what is behind it: one row per claim and cohort."""
    rows, before = [], None
    for row in ledger.rows:
        claim = row.claim
        if claim.section != section:
            continue
        p = ledger.tasks.get(row.task)
        claim_text = f"**{claim.id}** {claim.claim} (*{claim.kind}*)" if claim is not before else ""
        if p is None:
            cohort = row.of.upper() if row.of else f"[section {claim.page[:2]}]({claim.page}.md)"
        else:
            cohort = f"{_linked(title(p), row, pages)} ({_kind(p)})"
        ours, synthetic = ("–", row.value) if row.synthetic else (row.value, "–")
        verdict = f"**{row.verdict}**" if row.verdict != UNTESTABLE else row.verdict
        verdict += f": {row.reason}" if row.reason else ""
        rows.append([claim_text, _paper(claim, row.of), cohort, ours, synthetic, verdict, _behind(row, p)])
        before = claim
    return rows


HEAD = ["claim (kind)", "paper", "cohort", "here", "synthetic value (decides nothing)", "verdict", "behind it"]


def counts(ledger: Ledger) -> str:
    """How many verdicts of each kind, cohort by cohort."""
    table, rows = ledger.counts(), []
    cohorts = [("", "")]
    cohorts += [(paper_task, r.p.task) for paper_task, results in ledger.standing.items() for r in results]
    cohorts += [(paper_task, "") for paper_task, results in ledger.standing.items() if not results]
    for paper_task, task in cohorts:
        p = ledger.tasks.get(task)
        name = f"{title(p)} ({_kind(p)})" if p else f"{paper_task.upper()}: none here" if paper_task else NO_COHORT
        if (paper_task, task) in table.index:
            rows.append([name, *table.loc[paper_task, task]])
    return markdown_table("Verdicts by cohort", ["cohort", *VERDICTS], rows)


def page(ledger: Ledger) -> str:
    """The whole ledger: counts, then a table per section of the paper."""
    pages = {path.with_suffix("").as_posix().removeprefix("book/") for path in executed_pages()}
    text = f"{len(ledger.claims)} claims. Code: commit {record.commit()}.\n\n{counts(ledger)}\n"
    for section in paper.HEADINGS:
        rows = _rows(section, ledger, pages)
        # A column that is empty in the whole table is left out.
        columns = [i for i in range(len(HEAD)) if i not in (3, 4) or any(row[i] != "–" for row in rows)]
        kept = [[row[i] for i in columns] for row in rows]
        head = [HEAD[i] for i in columns]
        text += f"### {section}\n\n{wide_table(section, head, kept, 'claims')}\n"
    return text


def glance(ledger: Ledger) -> str:
    """The headline claims with their verdict per task of the paper, and how many verdicts there are of each kind."""
    verdicts: dict[str, dict[str, str]] = {}
    for row in ledger.rows:
        verdict = row.verdict + (f" ({row.reason})" if row.verdict == UNTESTABLE else "")
        verdicts.setdefault(row.claim.id, {}).setdefault(row.of, verdict)  # the paper's own cohort comes first
    rows = []
    for claim in ledger.claims:
        if claim.headline:
            alike: dict[str, list[str]] = {}
            for task, verdict in verdicts[claim.id].items():
                alike.setdefault(verdict, []).append(task.upper())
            named = len(alike) > 1  # where all tasks have the same verdict it stands there once
            cell = "; ".join(f"{', '.join(tasks)}: {verdict}" if named else verdict for verdict, tasks in alike.items())
            rows.append([claim.id, claim.claim, _all_of_paper(claim), f"[{claim.page[:2]}]({claim.page}.md)", cell])
    head = ["#", "claim", "paper", "section", "verdict of this copy"]
    return f"{wide_table('The claim ledger at a glance', head, rows, 'glance')}\n{counts(ledger)}"
