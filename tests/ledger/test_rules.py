"""Every rule of the ledger on cases made to be true, false and undecided."""

import math

import pytest

from mmmil.ledger import claims, rules
from mmmil.ledger.evidence import Answer, Difference
from mmmil.ledger.rules import NOT, REPRODUCED, UNDECIDED

NAN = math.nan
PAIR = {"pairs": [["dual_go", "wsi"]], "metrics": ["roc_auc"]}
QUERIES = {
    "ordering": {"ordering": PAIR},
    "equal": {"equal": PAIR},
    "contrast": {"contrast": {"variant": "wsi", "higher": "sensitivity", "lower": "specificity"}},
    "balance": {"balance": {"pairs": PAIR["pairs"]}},
    "spread": {"spread": PAIR},
    "metric": {"metric": {"variant": "wsi", "metric": "roc_auc"}},
    "attention": {"attention": {"library": "go", "source": "self_genes"}},
    "setting": {"setting": "attention"},
    "count": {"count": {"what": "genes"}},
    "measured": {"measured": {"file": "memory", "column": "peak", "where": {}}},
    "fact": {"fact": "removed_uibs"},
}


def claim(query: str, **changes) -> claims.Claim:
    kind = next(kind for kind, queries in claims.KINDS.items() if query in queries)
    tasks = [] if query in claims.WITHOUT_COHORT else ["lgg"]
    valid = {"id": "C001", "section": "Abstract", "claim": "what the paper says", "kind": kind, "tasks": tasks}
    return claims.Claim.model_validate(valid | {"page": "09_summary", "query": QUERIES[query]} | changes)


def differences(*intervals: tuple[float, float]) -> Answer:
    return Answer(differences=[Difference((low + high) / 2, low, high, f"{low:g}") for low, high in intervals])


ABOVE, AROUND, BELOW = (0.01, 0.09), (-0.03, 0.05), (-0.09, -0.01)


@pytest.mark.parametrize("query", ["ordering", "contrast", "balance", "spread"])
@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ([ABOVE], REPRODUCED),
        ([AROUND], UNDECIDED),
        ([BELOW], NOT),
        ([ABOVE, ABOVE], REPRODUCED),
        ([ABOVE, AROUND], UNDECIDED),
        ([ABOVE, BELOW], NOT),
        ([AROUND, BELOW], NOT),
        ([(0.0, 0.09)], UNDECIDED),  # zero itself is a refutation, and within
        ([(NAN, NAN)], UNDECIDED),
        ([(NAN, NAN), BELOW], NOT),
    ],
)
def test_differences_claimed_to_be_above_zero(query, intervals, verdict):
    assert rules.verdict(claim(query), "lgg", differences(*intervals)) == verdict


@pytest.mark.parametrize(
    ("query", "interval", "verdict"),
    [
        ("ordering", (-0.015, 0.03), REPRODUCED),  # as good or better
        ("ordering", (-0.03, 0.03), UNDECIDED),
        ("ordering", (-0.09, -0.03), NOT),
        ("equal", (-0.015, 0.01), REPRODUCED),
        ("equal", (0.005, 0.015), REPRODUCED),  # a difference, and within the margin all the same
        ("equal", (-0.03, 0.01), UNDECIDED),
        ("equal", (-0.05, 0.05), UNDECIDED),
        ("equal", (0.03, 0.09), NOT),
        ("equal", (-0.09, -0.03), NOT),
        ("equal", (NAN, NAN), UNDECIDED),
    ],
)
def test_a_margin(query, interval, verdict):
    assert rules.verdict(claim(query, tolerance=0.02), "lgg", differences(interval)) == verdict


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.73, 0.75), REPRODUCED), ((0.70, 0.77), UNDECIDED), ((0.755, 0.77), UNDECIDED), ((0.77, 0.9), NOT),
     ((0.6, 0.71), NOT), ((NAN, NAN), UNDECIDED)],
)  # fmt: skip
def test_a_number(interval, verdict):
    own = claim("metric", kind="number", paper=0.74, tolerance=0.02)
    assert rules.verdict(own, "lgg", Answer(0.74, *interval)) == verdict


@pytest.mark.parametrize(
    ("interval", "verdict"), [((0.91, 0.99), REPRODUCED), ((0.85, 0.95), UNDECIDED), ((0.8, 0.89), NOT)]
)
def test_at_least(interval, verdict):
    own = claim("metric", kind="qualitative", at_least=0.9)
    assert rules.verdict(own, "lgg", Answer(sum(interval) / 2, *interval)) == verdict


@pytest.mark.parametrize(
    ("query", "limits", "value", "verdict"),
    [
        ("setting", {"paper": "nystrom"}, "nystrom", REPRODUCED),
        ("setting", {"paper": "nystrom"}, "exact", NOT),
        ("count", {"paper": 60660}, 60660, REPRODUCED),
        ("count", {"paper": 60660}, 60659, NOT),
        ("count", {"at_least": 2.0, "kind": "qualitative"}, 2, REPRODUCED),
        ("count", {"at_least": 2.0, "kind": "qualitative"}, 1, NOT),
        ("fact", {"paper": 0.8, "tolerance": 0.01}, 0.798, REPRODUCED),
        ("fact", {"paper": 0.8, "tolerance": 0.01}, 0.789, NOT),
        ("fact", {"at_least": 10.0}, 70.0, REPRODUCED),
        ("measured", {"paper": 0.779, "tolerance": 0.05}, 0.73, REPRODUCED),
        ("measured", {"paper": 0.779, "tolerance": 0.05}, 0.72, NOT),
    ],
)
def test_what_has_no_sampling_error_is_decided_by_its_value(query, limits, value, verdict):
    assert rules.verdict(claim(query, **limits), "lgg", Answer(value)) == verdict


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [([REPRODUCED, REPRODUCED], REPRODUCED), ([REPRODUCED, UNDECIDED], UNDECIDED), ([UNDECIDED, NOT], NOT)],
)
def test_named_gene_sets(parts, verdict):
    assert rules.verdict(claim("attention", tolerance=0.3), "lgg", Answer(parts=parts)) == verdict


def test_a_claim_with_a_margin_is_decided_by_two_one_sided_tests():
    assert rules.confidence(claim("equal", tolerance=0.02)) == pytest.approx(0.9)
    assert rules.confidence(claim("ordering", tolerance=0.02)) == pytest.approx(0.9)
    assert rules.confidence(claim("ordering")) == rules.confidence(claim("spread")) == 0.95


def test_the_difference_shown_is_the_one_that_decides():
    own, alike = claim("ordering"), claim("equal", tolerance=0.02)
    assert "(-0.03, decides of 2)" in rules.shown(own, differences(ABOVE, AROUND))
    assert "(-0.09, decides of 3)" in rules.shown(own, differences(AROUND, (-0.5, 0.9), BELOW))
    assert "(0.03, decides of 3)" in rules.shown(alike, differences((-0.5, 0.5), (0.03, 0.09), (0.021, 0.05)))
    assert "(-0.019, decides of 2)" in rules.shown(alike, differences((-0.019, 0.0), (-0.01, 0.018)))
    assert rules.shown(own, differences((NAN, NAN))).startswith("–")
