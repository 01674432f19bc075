"""How often each verdict is given if a claim is true and if it is false, at the paper's sizes.

The answers are those on simulated patients (`mmmil.ledger.simulated`); query and rule are the ledger's own code, from
predictions, or weights of attention, to the verdict. Claims that are judged alike share a simulation: `Case` is all
that matters. Where the value decides there is nothing to simulate. `benchmarks/verdicts.py` writes what the page reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from mmmil import params, results
from mmmil.ledger import queries, rules
from mmmil.ledger.claims import Claim
from mmmil.ledger.simulated import Simulated, posed

FILE = "verdicts"  # of benchmarks/results
EFFECT, SLIGHT = 0.05, 0.02  # how far beyond the claim's bound the truth lies, in ROC-AUC
ATTENDED = 0.5  # rank-biserial effect of a set that is attended differently
DRAWS = 200  # of the bootstrap in a simulated cohort
FIRST = 20  # verdicts that the table keeps, so that a test can hold them against the rules
CODES = {"R": rules.REPRODUCED, "U": rules.UNDECIDED, "N": rules.NOT}
COLUMNS = ["query", "shape", "metrics", "split", "tolerance", "task", "truth", "value", *CODES.values(), "n", "first"]


class Case(NamedTuple):
    """query, its pairs by letters ('ab cb': two models against one), metrics, split, tolerance or limit, and task."""

    query: str
    shape: str
    metrics: str
    split: str
    tolerance: str
    task: str


class Truth(NamedTuple):
    """name: true, slightly true, edge or false; value: what the claim is about is so large."""

    name: str
    value: float


Known = dict[Case, pd.DataFrame]


def case(claim: Claim, task: str) -> Case | None:
    """What of a claim its chances depend on; None where the value decides it, or nothing does."""
    query = claim.query.name
    if query in rules.EXACT or query == "none":
        return None
    asked = getattr(claim.query, query)
    letters: dict[str, str] = {}
    pairs = [
        [letters.setdefault(name, chr(97 + len(letters))) for name in pair] for pair in getattr(asked, "pairs", [])
    ]
    shape = " ".join("".join(pair) for pair in pairs)
    metrics = list(getattr(asked, "metrics", []))
    if query == "attention":
        shape = f"{len(asked.sets)} named" if asked.sets else "any"
    elif query == "contrast":
        metrics = [asked.higher, asked.lower]
    elif query == "metric":
        metrics = [asked.metric]
    limit = claim.at_least if claim.at_least is not None else claim.tolerance
    split = "test" if query == "attention" else getattr(asked, "split", "val")
    return Case(query, shape, " ".join(metrics), split, f"{limit:g}", task)


def truths(claim: Claim, task: str) -> list[Truth]:
    """What is simulated for a claim: it holds, at its edge, and it does not."""
    floor, ceiling = rules.bounds(claim, task)
    query = claim.query.name
    if query == "attention":
        return [Truth("true", ATTENDED), Truth("false", 0.0)]
    if query == "spread":  # log of the ratio of the two deviations
        return [Truth("true", math.log(2)), Truth("edge", 0.0), Truth("false", -math.log(2))]
    if query == "metric" and claim.at_least is None:
        return [Truth("true", (floor + ceiling) / 2), Truth("edge", floor), Truth("false", floor - EFFECT)]
    if claim.at_least is not None:
        return [Truth("true", floor + EFFECT), Truth("edge", floor), Truth("false", floor - EFFECT)]
    if claim.tolerance:  # that nothing is lost
        return [Truth("true", 0.0), Truth("edge", floor), Truth("false", floor - EFFECT)]
    return [Truth("true", EFFECT), Truth("slightly true", SLIGHT), Truth("edge", 0.0), Truth("false", -EFFECT)]


def cases(claims: Iterable[Claim]) -> dict[Case, Claim]:
    """Every case with the first claim that is one."""
    found: dict[Case, Claim] = {}
    for claim in claims:
        for task in claim.tasks:
            if (key := case(claim, task)) is not None:
                found.setdefault(key, claim)
    return found


def simulate(asked: dict[Case, Claim], seeds: Iterable[int], draws: int = DRAWS) -> dict[tuple[Case, Truth], str]:
    """The verdicts on every case and truth, one letter of CODES per simulated cohort; draws: of the bootstrap."""
    letters = {verdict: code for code, verdict in CODES.items()}
    given: dict[tuple[Case, Truth], str] = {}
    of_task = {task: params.load(task) for task in dict.fromkeys(key.task for key in asked)}
    for seed in seeds:
        simulated = {task: Simulated(p, seed, draws) for task, p in of_task.items()}
        for key, claim in asked.items():
            for truth in truths(claim, key.task):
                about = posed(claim, key.task, truth.value, simulated[key.task])
                verdict = rules.verdict(about, key.task, queries.answer(about, simulated[key.task]))
                given[key, truth] = given.get((key, truth), "") + letters[verdict]
    return given


def table(given: dict[tuple[Case, Truth], str]) -> pd.DataFrame:
    """One row per case and truth: columns COLUMNS, the share of each verdict, and the first FIRST verdicts."""
    rows = [
        (*key, truth.name, round(truth.value, 4), *(v.count(code) / len(v) for code in CODES), len(v), v[:FIRST])
        for (key, truth), v in given.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(COLUMNS[:7], kind="stable")


def read() -> Known:
    """Case -> its rows of benchmarks/results/verdicts.csv; {} where it was not simulated here."""
    made = results.read_benchmark(FILE, dtype=dict.fromkeys(COLUMNS[:7], str), keep_default_na=False)
    if made is None:
        return {}
    return {Case(*key): rows for key, rows in made.groupby(list(Case._fields), sort=False)}


def text(claim: Claim, task: str, known: Known) -> str:
    """'true (+0.05): 31 / 69 / 0; ...': the percentages of CODES' verdicts, by what is true."""
    key = case(claim, task)
    if key is None:
        return "–" if claim.query.none is not None else "the value decides"
    if key not in known:
        return "not simulated: python benchmarks/verdicts.py"
    rows = known[key][known[key]["truth"] != "edge"]
    sign = "" if claim.query.metric else "+"
    shares = rows[list(CODES.values())].mul(100).round().astype(int)
    return "; ".join(
        f"{row['truth']} ({row['value']:{sign}.2g}): {' / '.join(map(str, share))}"
        for (_, row), share in zip(rows.iterrows(), shares.to_numpy(), strict=True)
    )
