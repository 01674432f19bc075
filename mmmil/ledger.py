"""Verdicts: each claim of the paper on each cohort that is here, by rules fixed beforehand.

Exact: equal, to the tolerance, is reproduced. A number: within the tolerance of the paper's is reproduced; else, the
paper's value inside our 95 % interval is within interval. A difference (ordering): reproduced where the interval of
every one lies above zero (above minus the tolerance, where as good is enough), within interval where all point the
claimed way and some interval does not. Equality: reproduced where every interval lies within the tolerance, within
interval where every difference does. Anything else is not reproduced.

Differences over folds have the interval of the corrected resampled t-test (Nadeau and Bengio 2003); on the test
patients that of the paired bootstrap. Only the paper's own cohorts at its scale are judged: of any other cohort the
value is shown, and the verdict is that it cannot be tested there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from mmmil import claims, evidence, params, queries, receipts
from mmmil.claims import Claim
from mmmil.evidence import Answer, Difference, NotTestable, Results

REPRODUCED, WITHIN, NOT, UNTESTABLE = VERDICTS = (
    "reproduced",
    "within interval",
    "not reproduced",
    "not testable here",
)


@dataclass(frozen=True)
class Row:
    """One claim on one cohort; task '' where no cohort is asked. value: what was found, as text; reason: why."""

    claim: Claim
    task: str
    value: str
    verdict: str
    reason: str = ""
    synthetic: bool = False


def stands_for(p: params.Params) -> str:
    """The paper's task whose two classes this cohort has, or ''."""
    for task in claims.TASKS:
        if params.read_yaml(task)["class_names"] == list(p.class_names):
            return task
    return ""


def why_not_judged(p: params.Params) -> str:
    """Why a cohort decides no claim about patients, or '' for the paper's own at its scale."""
    if p.synthetic:
        return "synthetic cohort"
    if p.task not in claims.TASKS:
        return f"not the paper's cohort but {p.title or p.task}"
    return f"not at the paper's scale (overlay {p.overlay})" if p.overlay else ""


def exact(value: float | int | str, paper: float | int | str, tolerance: float = 0.0) -> str:
    """Equal, to the tolerance."""
    if isinstance(value, str) or isinstance(paper, str):
        return REPRODUCED if value == paper else NOT
    return REPRODUCED if abs(value - paper) <= tolerance + 1e-12 else NOT


def number(value: float, low: float, high: float, paper: float, tolerance: float) -> str:
    """Within the tolerance; else the paper's value inside [low, high]; NaN bounds are no interval."""
    if abs(value - paper) <= tolerance + 1e-12:
        return REPRODUCED
    return WITHIN if low <= paper <= high else NOT


def at_least(value: float, low: float, limit: float) -> str:
    """The interval, or where there is none (NaN) the value itself, reaches the limit."""
    if (value if math.isnan(low) else low) >= limit:
        return REPRODUCED
    return WITHIN if value >= limit else NOT


def ordering(differences: Iterable[Difference], tolerance: float = 0.0) -> str:
    """Every difference above minus the tolerance, by its interval or by its estimate alone."""
    found = list(differences)
    if any(not d.value > -tolerance for d in found):
        return NOT
    return REPRODUCED if all(d.low > -tolerance for d in found) else WITHIN


def equal(differences: Iterable[Difference], tolerance: float) -> str:
    """Every difference within the tolerance of zero, by its interval or by its estimate alone."""
    found = list(differences)
    if any(abs(d.value) > tolerance for d in found):
        return NOT
    return REPRODUCED if all(-tolerance <= d.low and d.high <= tolerance for d in found) else WITHIN


def rule(claim: Claim, task: str, found: Answer) -> str:
    """The verdict on what was found, were it found on the paper's cohort; task: the paper's."""
    query = claim.query.name
    if query in ("ordering", "contrast", "balance", "spread"):
        return ordering(found.differences, claim.tolerance)
    if query == "equal":
        return equal(found.differences, claim.tolerance)
    if query in ("overlap", "significance") or (query == "attention" and claim.query.attention.sets):
        return REPRODUCED if found.holds else NOT
    if claim.at_least is not None or query == "attention":
        return at_least(found.value, found.low, claim.at_least or 1)
    paper = claim.paper_value(task)
    if claim.kind == "exact":
        return exact(found.value, paper, claim.tolerance)
    return number(found.value, found.low, found.high, paper, claim.tolerance)


def judge(claim: Claim, results: Results | None = None, task: str = "") -> Row:
    """A claim on one cohort (results), which stands for a task of the paper; without one where no cohort is asked."""
    query, here = claim.query, results.p.task if results else ""
    synthetic = bool(results and results.p.synthetic)
    if query.none is not None:
        return Row(claim, here, "–", UNTESTABLE, query.none)
    try:
        if query.receipt:
            found = Answer(receipts.value(query.receipt))
        elif query.measured:
            found = evidence.measured(query.measured)
        else:
            found = queries.answer(claim, results)
    except NotTestable as reason:
        return Row(claim, here, "–", UNTESTABLE, str(reason), synthetic)
    verdict, reason = rule(claim, task, found), found.note
    if query.setting:  # a fact of the parameters, which an overlay may have changed for this cohort
        if verdict == NOT and (why_not := why_not_judged(results.p)):
            return Row(claim, here, found.text, UNTESTABLE, f"set to {found.text} here; {why_not}", synthetic)
    elif results and (why_not := why_not_judged(results.p)):
        return Row(claim, here, found.text, UNTESTABLE, why_not, synthetic)
    return Row(claim, here, found.text, verdict, reason, synthetic)


@dataclass
class Ledger:
    """Every claim on every cohort that is here: tasks maps a name to the parameters its results were made with."""

    tasks: Mapping[str, params.Params]
    claims: list[Claim] = field(default_factory=claims.load)

    @cached_property
    def standing(self) -> dict[str, list[Results]]:
        """The paper's tasks -> results of the cohorts that stand for them, the paper's own first."""
        found: dict[str, list[Results]] = {task: [] for task in claims.TASKS}
        for p in sorted(self.tasks.values(), key=lambda p: bool(why_not_judged(p))):
            if task := stands_for(p):
                found[task].append(Results(p))
        return found

    @cached_property
    def rows(self) -> list[Row]:
        """In the claims' order; a task without any cohort has one row that says so."""
        rows = []
        for claim in self.claims:
            if not claim.tasks:
                rows.append(judge(claim))
            for task in claim.tasks:
                cohorts = self.standing[task]
                rows += [judge(claim, results, task) for results in cohorts]
                if not cohorts:
                    rows.append(Row(claim, task, "–", UNTESTABLE, "no cohort of this task is here"))
        return rows

    def counts(self) -> pd.DataFrame:
        """Verdicts per cohort: index the cohort ('' for what needs none), columns VERDICTS."""
        rows = [(row.task, row.verdict) for row in self.rows]
        table = pd.DataFrame(rows, columns=["task", "verdict"])
        return pd.crosstab(table["task"], table["verdict"]).reindex(columns=list(VERDICTS), fill_value=0)
