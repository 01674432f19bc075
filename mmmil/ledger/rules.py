"""The rules of the ledger: from what was found to a verdict, fixed beforehand.

Every claim says that something lies between two bounds: a number within the tolerance of the paper's, a difference
above zero (above minus the margin, where as good is enough), two models within the margin of each other. It is
reproduced where the whole interval lies between the bounds, not reproduced where the interval lies outside them, and
else undecided: the interval holds the claim and its refutation. A claim of several differences is reproduced where each
of them is, not reproduced where one is refuted, else undecided. What has no sampling error is decided by the value:
facts of the program, settings, counts of the cohort and measurements.

A claim with a margin says that something is absent, a loss or a difference: it is decided by the 90 % interval, which
makes it a test of non-inferiority or equivalence at 5 % (two one-sided tests; Schuirmann, J. Pharmacokinet. Biopharm.
15:657, 1987). Every other is decided by the 95 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.ledger.claims import Claim
from mmmil.ledger.evidence import Answer, Difference

REPRODUCED, UNDECIDED, NOT, UNTESTABLE = VERDICTS = (
    "reproduced",
    "undecided",
    "not reproduced",
    "not testable here",
)
EXACT = {"fact", "setting", "count", "measured"}  # queries whose answers have no sampling error
DIFFERENCES = {"ordering", "equal", "contrast", "balance", "spread"}


def confidence(claim: Claim) -> float:
    """Of the interval that decides: 0.90 where the claim has a margin, within which it says that nothing is lost."""
    return 2 * CONFIDENCE - 1 if claim.tolerance and claim.query.name in (*DIFFERENCES, "attention") else CONFIDENCE


def bounds(claim: Claim, task: str = "") -> tuple[float, float]:
    """Between what a claim says that the value, or each difference, lies; task: the paper's."""
    margin = claim.tolerance
    if claim.query.name == "equal":
        return -margin, margin
    if claim.query.name in DIFFERENCES:
        return -margin, math.inf
    if claim.at_least is not None:
        return claim.at_least, math.inf
    paper = float(claim.paper_value(task) or 0)
    return paper - margin, paper + margin


def between(low: float, high: float, floor: float, ceiling: float) -> str:
    """The interval [low, high] against the bounds; NaN is no interval, and decides nothing."""
    if floor < low and high < ceiling:
        return REPRODUCED
    return NOT if high < floor or low > ceiling else UNDECIDED


def together(verdicts: Iterable[str]) -> str:
    """Of several that are all claimed: one refuted refutes the claim, all reproduced reproduce it."""
    each = set(verdicts)
    return NOT if NOT in each else REPRODUCED if each == {REPRODUCED} else UNDECIDED


def exact(value: float | int | str, claim: Claim, task: str = "") -> str:
    """Equal, to the tolerance, or at least the limit: of what has no sampling error."""
    paper = claim.paper_value(task)
    if isinstance(value, str) or isinstance(paper, str):
        return REPRODUCED if value == paper else NOT
    floor, ceiling = bounds(claim, task)
    return REPRODUCED if floor - 1e-12 <= value <= ceiling + 1e-12 else NOT


def verdict(claim: Claim, task: str, answer: Answer) -> str:
    """The verdict on an answer, were it found on the paper's cohort; task: the paper's."""
    if answer.parts:
        return together(answer.parts)
    if claim.query.name in EXACT:
        return exact(answer.value, claim, task)
    floor, ceiling = bounds(claim, task)
    if answer.differences:
        return together(between(d.low, d.high, floor, ceiling) for d in answer.differences)
    return between(answer.low, answer.high, floor, ceiling)


def shown(claim: Claim, answer: Answer) -> str:
    """The answer as the page shows it: of several differences the one on which the verdict hangs."""
    if answer.shown or not answer.differences:
        return answer.text
    floor, ceiling = bounds(claim)

    def beyond(d: Difference) -> float:  # how far an interval lies outside the bounds
        return max(floor - d.high, d.low - ceiling)

    def inside(d: Difference) -> float:
        return min(d.low - floor, ceiling - d.high)

    known = [d for d in answer.differences if not math.isnan(d.low)]
    refuted = max(known, key=beyond, default=None)
    if refuted and beyond(refuted) > 0:
        return refuted.text(len(answer.differences))
    unknown = [d for d in answer.differences if math.isnan(d.low)]
    return (unknown[0] if unknown else min(known, key=inside)).text(len(answer.differences))
