"""Verdicts: each claim of the paper on each cohort that is here, by the rules of `mmmil.ledger.rules`.

Only runs of the paper's own cohorts, at its scale and with settings that state what it states, are judged as the
paper's: of any other cohort the value is shown, and the verdict is that it cannot be tested there. So it is of models
whose gene sets were chosen on all patients. Runs of the paper's cohorts with other settings, and the paper's patients
with other features (`mmmil.ledger.standing`), have verdicts of their own, by the same rules, which are counted apart
and stand for none of the paper's; of other features on what such inputs can test, and from folds drawn at random, as
the paper's are. A setting is a fact of the parameters: it is judged on every cohort that has what it is about, but
where it is not the paper's on another cohort, or by an overlay, that refutes nothing and cannot be tested there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from mmmil import paper as paper_map
from mmmil import params, variants
from mmmil.ledger import claims as ledger_claims
from mmmil.ledger import evidence, queries, rules
from mmmil.ledger import facts as paper_facts
from mmmil.ledger import standing as cohort_standing
from mmmil.ledger.claims import Claim
from mmmil.ledger.evidence import Answer, NotTestable, Results
from mmmil.ledger.rules import NOT, UNTESTABLE, VERDICTS
from mmmil.ledger.standing import BY_SITE, OTHER, OWN, SETTINGS, SYNTHETIC

NO_SECOND = "no second verdict"  # evidence beside the verdict of the same patients in random folds: never counted
NONE, ALONE = "no cohort of this task is here", "this task is here with other settings or features alone"


@dataclass(frozen=True)
class Row:
    """One claim on one cohort. task: the cohort's, of: the paper's that it stands for, both '' where none is asked;
    value: what was found, as text; reason: why no other verdict was given, or what the value is; kind: of the cohort
    (`mmmil.ledger.standing`), '' where none is asked; settings: those that are not the paper's. The verdict on a cohort
    of a kind of OWN is that run's own.
    """

    claim: Claim
    task: str
    of: str
    value: str
    verdict: str
    reason: str = ""
    kind: str = ""
    settings: str = ""

    @property
    def synthetic(self) -> bool:
        return self.kind == SYNTHETIC

    @property
    def own(self) -> bool:
        """Whether its verdict is that of a run with other settings or features, and none of the paper's."""
        return self.kind in OWN


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


def judge(claim: Claim, results: Results | None = None, paper_task: str = "") -> Row:
    """A claim on one cohort (results) that stands for `paper_task`; without both where no cohort is asked."""
    query, p, kind, why_not, settings = claim.query, None, "", "", ""
    if results:
        p, standing = results.p, results.standing
        kind, why_not, settings = standing.kind, standing.why_not, standing.settings
    by_site = p is not None and kind == OTHER and p.fold_groups != "none"

    def row(value: str, verdict: str, reason: str = "") -> Row:
        if by_site:
            verdict, reason = NO_SECOND, reason or BY_SITE
        return Row(claim, p.task if p else "", paper_task, value, verdict, reason, kind, settings)

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
    shown = rules.shown(claim, answer)
    if answer.withheld:
        return row(shown, UNTESTABLE, answer.withheld)
    verdict = rules.verdict(claim, paper_task, answer)
    if query.setting:  # a fact of the parameters; what an overlay or another cohort's file changed refutes nothing
        if why_not and verdict == NOT and kind != SETTINGS:
            return row(shown, UNTESTABLE, f"set to {shown} here; {why_not}")
    elif p and (reasons := [*filter(None, (beyond if kind in OWN else why_not, _leaked(query, p)))]):
        return row(shown, UNTESTABLE, "; ".join(reasons))
    return row(shown, verdict, answer.note)


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
        """In the claims' order; a task without any cohort has one row that says so, and so has one that is here with
        other settings or features alone: their verdicts take no other's place.
        """
        rows = []
        for claim in self.claims:
            if not claim.tasks:
                rows.append(judge(claim))
            for task in claim.tasks:
                cohorts = self.standing[task]
                if all(results.standing.kind in OWN for results in cohorts):
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
