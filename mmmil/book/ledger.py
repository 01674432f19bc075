"""The page of the claim ledger, and its short form for the first page: tables in MyST."""

from __future__ import annotations

from mmmil import paper, params, record
from mmmil.book import captions
from mmmil.book.pages import executed_pages, shown_of
from mmmil.book.text import beside_scores, confounded, markdown_table, title, wide_table
from mmmil.ledger import chances
from mmmil.ledger.claims import Claim
from mmmil.ledger.evidence import Results
from mmmil.ledger.rules import UNTESTABLE, VERDICTS
from mmmil.ledger.standing import OWN
from mmmil.ledger.verdicts import NO_SECOND, Ledger, Row

NO_COHORT = "none: the program and what it measured"
COUNTED = {"patients": "cohort.csv", "genes": "cohort.csv", "tiles": "tiles.csv", "sets": "genes.csv"}


def _value(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _paper(claim: Claim, task: str) -> str:
    """The paper's value, or the limit or margin that its words are taken to set."""
    if claim.at_least is not None:
        return f"at least {claim.at_least:g}"
    if claim.paper is None and claim.tolerance:
        return f"margin {claim.tolerance:g}"
    tolerance = f" ± {claim.tolerance:g}" if claim.tolerance and claim.paper is not None else ""
    return f"{_value(claim.paper_value(task))}{tolerance}"


def _all_of_paper(claim: Claim) -> str:
    if isinstance(claim.paper, dict):
        return " / ".join(_value(claim.paper[task]) for task in claim.tasks)
    return _paper(claim, "")


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
        file = "attention_sets.csv"
    return f"{files}, seed {p.seed}, `results/{p.run}/{file}`"


def _linked(text: str, row: Row, run: str, pages: set[str]) -> str:
    """The cohort's name, linked to the executed notebook that shows the claim, where that was made."""
    page = f"executed/{run}/{row.claim.page}"
    return f"[{text}]({page}.ipynb)" if page in pages else text


def _rows(section: str, ledger: Ledger, pages: set[str], known: chances.Known) -> list[list]:
    """Cells of HEAD, one row per claim and cohort; what speaks for the paper, what is synthetic and what runs with
    other settings or features say stand in columns of their own; the chances once per claim and task.
    """
    rows, before, told = [], None, set()
    confounding = {task for task, p in ledger.tasks.items() if confounded(p)}
    for row in ledger.rows:
        claim = row.claim
        if claim.section != section:
            continue
        p = ledger.tasks.get(row.task)
        claim_text = f"**{claim.id}** {claim.claim} (*{claim.kind}*)" if claim is not before else ""
        if p is None:
            cohort = row.of.upper() if row.of else f"[section {claim.page[:2]}]({claim.page}.md)"
        else:
            confounds = f", {captions.CONFOUNDED.lower()}: see above" * (row.task in confounding)
            cohort = f"{_linked(_named(ledger, row.task), row, p.run, pages)} ({row.kind}{confounds})"
        verdict = f"**{row.verdict}**" if row.verdict not in (UNTESTABLE, NO_SECOND) else row.verdict
        verdict += f": {row.reason}" if row.reason else ""
        cells = ["–", "–", verdict, "–"]
        if row.own:
            verdict = f"with other settings: {verdict}" if row.settings else verdict
            cells = ["–", "–", "–", f"{row.value}; {verdict}" if row.value != "–" else verdict]
        else:
            cells[int(row.synthetic)] = row.value
        chance = "–" if (claim.id, row.of) in told else chances.text(claim, row.of, known)
        told.add((claim.id, row.of))
        rows.append([claim_text, _paper(claim, row.of), cohort, *cells, chance, _behind(row, p)])
        before = claim
    return rows


APART = "other settings or features"
HEAD = ["claim (kind)", "paper", "cohort", "here", "synthetic value (decides nothing)", "verdict"]
HEAD += [f"{APART}: value and own verdict", "chances of the verdicts, %", "behind it"]
MAY_BE_EMPTY = (3, 4, 6, 7)


def counts(ledger: Ledger) -> str:
    """How many verdicts of each kind, cohort by cohort; those of runs with other settings or features apart."""
    table = ledger.counts()
    groups: dict[bool, list[list]] = {False: [], True: []}

    def count(name: str, of: str, task: str, own: bool = False) -> None:
        if (of, task) in table.index and table.loc[of, task].any():
            groups[own].append([name, *table.loc[of, task]])

    count(NO_COHORT, "", "")
    for of, cohorts in ledger.standing.items():
        for results in cohorts:
            kind, settings = results.standing.kind, results.standing.settings
            name = f"{_named(ledger, results.p.task)} ({'; '.join(filter(None, (kind, settings)))})"
            count(name, of, results.p.task, kind in OWN)
    for of in ledger.standing:
        count(f"{of.upper()}: none here", of, "")
    text = markdown_table("Verdicts by cohort", ["cohort", *VERDICTS], groups[False])
    if groups[True]:
        caption = f"Own verdicts of runs with {APART}: none is among those above"
        text += "\n" + markdown_table(caption, ["cohort", *VERDICTS], groups[True])
    return text


def page(ledger: Ledger) -> str:
    """The whole ledger: counts, then a table per section of the paper."""
    pages = {path.with_suffix("").as_posix().removeprefix("book/") for path in executed_pages(shown_of(ledger.tasks))}
    known = chances.read()
    text = f"{len(ledger.claims)} claims. Code: commit {record.commit()}.\n\n{counts(ledger)}\n"
    text += beside_scores(ledger.tasks)
    for section in paper.HEADINGS:
        rows = _rows(section, ledger, pages, known)
        # A column that is empty in the whole table is left out.
        columns = [i for i in range(len(HEAD)) if i not in MAY_BE_EMPTY or any(row[i] != "–" for row in rows)]
        kept = [[row[i] for i in columns] for row in rows]
        head = [HEAD[i] for i in columns]
        text += f"### {section}\n\n{wide_table(section, head, kept, 'claims unsorted')}\n"
    return text


def _verdicts(ledger: Ledger) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Claim -> the paper's task -> verdict; and the own verdicts of runs with other settings or features."""
    verdicts: dict[str, dict[str, str]] = {}
    own: dict[str, dict[str, str]] = {}
    for row in ledger.rows:
        if row.own and row.verdict != NO_SECOND:
            verdict = row.verdict.removesuffix(" here") + ", with other settings" * bool(row.settings)
            own.setdefault(row.claim.id, {})[_short(ledger, row)] = verdict
        elif not row.own:
            verdict = row.verdict + (f" ({row.reason})" if row.verdict == UNTESTABLE else "")
            of_claim = verdicts.setdefault(row.claim.id, {})
            of_claim.setdefault(row.of.upper(), verdict)  # the paper's own cohort comes first
    return verdicts, own


def _headline_table(ledger: Ledger, chosen: list[Claim], caption: str) -> str:
    verdicts, own = _verdicts(ledger)
    rows = []
    for claim in chosen:
        section = f"[{claim.page[:2]}]({claim.page}.md)"
        cells = [claim.id, claim.claim, _all_of_paper(claim), section, _alike(verdicts[claim.id])]
        rows.append(cells + [_alike(own.get(claim.id, {}), named=True) or "–"] * bool(own))
    head = ["#", "claim", "paper", "section", "verdict of this copy"] + [APART] * bool(own)
    return wide_table(caption, head, rows, "glance")


def glance(ledger: Ledger) -> str:
    """The headline claims with their verdict per task of the paper, and how many verdicts there are of each kind.

    Where the paper's patients are here with other settings or features, their own verdicts have a column of their own.
    """
    headlines = [claim for claim in ledger.claims if claim.headline]
    return f"{_headline_table(ledger, headlines, 'The claim ledger at a glance')}\n{counts(ledger)}"


def headlines(ledger: Ledger) -> str:
    """The same for the first page: the claims that have a verdict here in a table, the others counted and folded."""
    verdicts, own = _verdicts(ledger)
    judged: list[Claim] = []
    others: list[Claim] = []
    for claim in ledger.claims:
        if claim.headline:
            of = [*verdicts[claim.id].values(), *own.get(claim.id, {}).values()]
            (others if all(verdict.startswith(UNTESTABLE) for verdict in of) else judged).append(claim)
    text = f"Of {len(judged) + len(others)} main claims this copy can judge {len(judged)}."
    if judged:
        text += "\n\n" + _headline_table(ledger, judged, "Main claims with a verdict here")
    if others:
        values = {c.id: f"the paper: {_all_of_paper(c)}; " if c.paper is not None else "" for c in others}
        listed = [f"- {c.claim} ({values[c.id]}[section {c.page[:2]}]({c.page}.md))" for c in others]
        head = f"{len(others)} that this copy cannot judge"
        why = "What each of them lacks here stands in [the ledger](ledger.md)."
        text += "\n" + "\n".join([f"```{{dropdown}} {head}", why, "", *listed, "```", ""])
    return text


def _short(ledger: Ledger, row: Row) -> str:
    """The paper's task, or the cohort's own title where several cohorts of it are judged."""
    alike = [results for results in ledger.standing[row.of] if _has_own_verdicts(results)]
    return row.of.upper() if len(alike) == 1 else _named(ledger, row.task)


def _named(ledger: Ledger, task: str) -> str:
    """A cohort's title, and the task where another cohort has the same title."""
    name = title(ledger.tasks[task])
    return name if [title(p) for p in ledger.tasks.values()].count(name) == 1 else f"{name}, {task}"


def _has_own_verdicts(results: Results) -> bool:
    return results.standing.kind in OWN and results.p.fold_groups == "none"


def _alike(verdicts: dict[str, str], named: bool = False) -> str:
    """'LGG, NSCLC: a verdict; BRCA: another'; where all have the same one it stands there alone, unless named."""
    alike: dict[str, list[str]] = {}
    for name, verdict in verdicts.items():
        alike.setdefault(verdict, []).append(name)
    named = named or len(alike) > 1
    return "; ".join(f"{', '.join(names)}: {verdict}" if named else verdict for verdict, names in alike.items())
