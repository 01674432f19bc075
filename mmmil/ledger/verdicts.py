"""Verdicts: each claim of the paper on each cohort that is here, by rules fixed beforehand.

Exact: equal, to the tolerance, is reproduced. A number: within the tolerance of the paper's is reproduced; else, the
paper's value inside our 95 % interval is within interval. A difference (ordering): reproduced where the interval of
every one lies above zero (above minus the tolerance, where as good is enough), within interval where all point the
claimed way and some interval does not. Equality: reproduced where every interval lies within the tolerance, within
interval where every difference does. Intervals that overlap, differences that are significant or not, and gene sets
named by the paper are as it says or not. Anything else is not reproduced.

Differences over folds have the interval of the corrected resampled t-test (Nadeau and Bengio 2003); on the test
patients that of the paired bootstrap. Only the paper's own cohorts at its scale are judged: of any other cohort the
value is shown, and the verdict is that it cannot be tested there. So it is of models whose gene sets were chosen on all
patients. The paper's patients with other features (`mmmil.ledger.standing`) have verdicts of their own, by the same
rules, which are counted apart and stand for none of the paper's: on what such inputs can test, and from folds drawn at
random, as the paper's are. A setting is a fact of the parameters: it is judged on every cohort that has what it is
about, but where it is not the paper's on another cohort, or by an overlay, that refutes nothing and cannot be tested
there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from mmmil import paper as paper_map
from mmmil import params, variants
from mmmil.ledger import claims as ledger_claims
from mmmil.ledger import evidence, queries
from mmmil.ledger import facts as paper_facts
from mmmil.ledger import standing as cohort_standing
from mmmil.ledger.claims import Claim
from mmmil.ledger.evidence import Answer, Difference, NotTestable, Results
from mmmil.ledger.standing import BY_SITE, OTHER, SYNTHETIC

REPRODUCED, WITHIN, NOT, UNTESTABLE = VERDICTS = (
    "reproduced",
    "within interval",
    "not reproduced",
    "not testable here",
)
NO_SECOND = "no second verdict"  # evidence beside the verdict of the same patients in random folds: never counted
NONE, ALONE = "no cohort of this task is here", "no cohort of this task is here but its patients with other features"


@dataclass(frozen=True)
class Row:
    """One claim on one cohort. task: the cohort's, of: the paper's that it stands for, both '' where none is asked;
    value: what was found, as text; reason: why no other verdict was given, or what the value is; kind: of the cohort
    (`mmmil.ledger.standing`), '' where none is asked. The verdict on a cohort of the kind OTHER is that cohort's own.
    """

    claim: Claim
    task: str
    of: str
    value: str
    verdict: str
    reason: str = ""
    kind: str = ""

    @property
    def synthetic(self) -> bool:
        return self.kind == SYNTHETIC

    @property
    def own(self) -> bool:
        """Whether its verdict is that of the paper's patients with other features, and none of the paper's."""
        return self.kind == OTHER


def _leaked(query: ledger_claims.Query, p: params.Params) -> str:
    """Why what a query finds on a cohort with leaking gene sets reproduces nothing, or ''."""
    reads_sets = query.attention or (query.count and query.count.what == "sets")
    chosen = any(variants.VARIANTS[name].genes in ("go", "kegg", "genes") for name in query.variants)
    return "gene sets chosen on all patients" if p.leaks and (reads_sets or chosen) else ""


def _out_of_reach(query: ledger_claims.Query, p: params.Params) -> str:
    """Why inputs that are not the paper's cannot test what a query asks, or ''."""
    asked = query.count
    if asked and asked.what == "patients":
        return "these are the patients who have such inputs, not all of the paper's"
    if asked and asked.what == "sets" and p.expression_kind in cohort_standing.NO_COUNTS:
        levels = cohort_standing.NO_COUNTS[p.expression_kind]
        return f"the paper's sets come from DESeq2 on counts, these from Welch's t on {levels}"
    backbones = {variants.VARIANTS[name].backbone for name in query.variants} - {""}
    trained = backbones & {*variants.TRAINED}
    if p.has_slides and not p.has_pixels and trained and backbones != {"reduced"}:
        return "about the backbone trained end to end: of features made beforehand there is none"
    return ""


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
    differences = list(differences)
    if any(not d.value > -tolerance for d in differences):
        return NOT
    return REPRODUCED if all(d.low > -tolerance for d in differences) else WITHIN


def equal(differences: Iterable[Difference], tolerance: float) -> str:
    """Every difference within the tolerance of zero, by its interval or by its estimate alone."""
    differences = list(differences)
    if any(abs(d.value) > tolerance for d in differences):
        return NOT
    return REPRODUCED if all(-tolerance <= d.low and d.high <= tolerance for d in differences) else WITHIN


def rule(claim: Claim, task: str, answer: Answer) -> str:
    """The verdict on an answer, were it found on the paper's cohort; task: the paper's."""
    query = claim.query.name
    if query in ("ordering", "contrast", "balance", "spread"):
        return ordering(answer.differences, claim.tolerance)
    if query == "equal":
        return equal(answer.differences, claim.tolerance)
    if query in ("overlap", "significance") or (query == "attention" and claim.query.attention.sets):
        return REPRODUCED if answer.holds else NOT
    if claim.at_least is not None or query == "attention":
        return at_least(answer.value, answer.low, claim.at_least or 1)
    paper = claim.paper_value(task)
    if claim.kind == "exact":
        return exact(answer.value, paper, claim.tolerance)
    return number(answer.value, answer.low, answer.high, paper, claim.tolerance)


def judge(claim: Claim, results: Results | None = None, paper_task: str = "") -> Row:
    """A claim on one cohort (results) that stands for `paper_task`; without both where no cohort is asked."""
    query, p, kind, why_not = claim.query, None, "", ""
    if results:
        p, kind, why_not = results.p, results.standing.kind, results.standing.why_not
    by_site = p is not None and kind == OTHER and p.fold_groups != "none"

    def row(value: str, verdict: str, reason: str = "") -> Row:
        if by_site:
            verdict, reason = NO_SECOND, reason or BY_SITE
        return Row(claim, p.task if p else "", paper_task, value, verdict, reason, kind)

    if query.none is not None:
        return row("–", UNTESTABLE, query.none)
    beyond = _out_of_reach(query, p) if p and kind == OTHER else ""
    try:
        if query.fact:
            answer = Answer(paper_facts.value(query.fact))
        elif query.measured:
            answer = evidence.measured(query.measured)
        else:
            answer = queries.answer(claim, results)
    except NotTestable as reason:
        return row("–", UNTESTABLE, beyond or str(reason))
    if answer.undecided:
        return row(answer.text, UNTESTABLE, answer.undecided)
    verdict = rule(claim, paper_task, answer)
    if query.setting:  # a fact of the parameters; what an overlay or another cohort's file changed refutes nothing
        if why_not and verdict == NOT:
            return row(answer.text, UNTESTABLE, f"set to {answer.text} here; {why_not}")
    elif p and (reasons := [*filter(None, (beyond if kind == OTHER else why_not, _leaked(query, p)))]):
        return row(answer.text, UNTESTABLE, "; ".join(reasons))
    return row(answer.text, verdict, answer.note)


@dataclass
class Ledger:
    """Every claim on every cohort that is here: tasks maps a name to the parameters its results were made with."""

    tasks: Mapping[str, params.Params]
    claims: list[Claim] = field(default_factory=ledger_claims.load)

    @cached_property
    def standing(self) -> dict[str, list[Results]]:
        """The paper's tasks -> results of the cohorts that stand for them, the paper's own first."""
        by_task: dict[str, list[Results]] = {task: [] for task in paper_map.TASKS}
        for results in sorted(map(Results, self.tasks.values()), key=lambda results: bool(results.standing.why_not)):
            if task := cohort_standing.stands_for(results.p):
                by_task[task].append(results)
        return by_task

    @cached_property
    def rows(self) -> list[Row]:
        """In the claims' order; a task without any cohort has one row that says so, and so has one whose patients are
        here with other features alone: their verdicts take no other's place.
        """
        rows = []
        for claim in self.claims:
            if not claim.tasks:
                rows.append(judge(claim))
            for task in claim.tasks:
                cohorts = self.standing[task]
                if all(results.standing.kind == OTHER for results in cohorts):
                    rows.append(Row(claim, "", task, "–", UNTESTABLE, ALONE if cohorts else NONE))
                rows += [judge(claim, results, task) for results in cohorts]
        return rows

    def counts(self) -> pd.DataFrame:
        """Verdicts per cohort: index (of, task), ('', '') what needs no cohort, (of, '') a task without any; columns
        VERDICTS.
        """
        table = pd.DataFrame([(row.of, row.task, row.verdict) for row in self.rows], columns=["of", "task", "verdict"])
        counted = table.groupby(["of", "task", "verdict"]).size().unstack(fill_value=0)
        return counted.reindex(columns=list(VERDICTS), fill_value=0)
