"""The chances of the verdicts: every claim has them, and they are those of the rules as they stand."""

import pytest

from mmmil import paper, params
from mmmil.ledger import chances, claims, rules
from mmmil.ledger.simulated import Simulated, _levels, posed

CASES = chances.cases(claims.load())
RULES = [("ordering", "val"), ("ordering", "test"), ("equal", "val"), ("contrast", "val"), ("balance", "val")]
RULES += [("spread", "val"), ("attention", "test"), ("metric", "val")]
ONE_OF_EACH = [next(c for c in CASES if (c.query, c.split, c.task) == (*rule, "lgg")) for rule in RULES]


@pytest.fixture(scope="module")
def known():
    return chances.read()


def test_every_claim_has_its_chances_or_is_decided_by_its_value(known):
    for claim in claims.load():
        for task in claim.tasks or [""]:
            text = chances.text(claim, task, known)
            assert "not simulated" not in text, f"{claim.id}, {task}: run benchmarks/verdicts.py"
            assert (text == "–") == (claim.query.none is not None)
            assert ("true" in text and "false" in text) == (chances.case(claim, task) is not None)


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: f"{case.query} {case.split}")
def test_the_recorded_verdicts_are_those_of_the_rules_as_they_stand(known, case):
    """Where this fails, a query, a rule or a statistic has changed: run benchmarks/verdicts.py."""
    n = 1 if case.query == "metric" else 3
    made = chances.table(chances.simulate({case: CASES[case]}, range(n)))
    recorded = known[case].set_index("truth")["first"].str[:n]
    assert recorded.to_dict() == made.set_index("truth")["first"].to_dict()
    assert set("".join(made["first"])) <= set(chances.CODES)


def test_the_rules_tell_true_from_false_at_the_papers_sizes(known):
    """A claim that is true is seldom refuted, one that is false seldom reproduced, one at its edge neither."""
    for case, rows in known.items():
        shares = rows.set_index("truth")
        assert shares.loc["true", rules.NOT] <= 0.1, case
        assert shares.loc["false", rules.REPRODUCED] <= 0.1, case


def test_simulated_cohorts_have_the_papers_patients_and_models_the_auc_that_is_asked():
    p = params.load("brca")
    simulated = Simulated(p, 0, 10)
    n0, n1 = paper.PATIENTS["Luminal A", "TNBC"]
    sizes = {split: len(of.label) for split, of in simulated.repeated.items()}
    assert sum(sizes.values()) == n0 + n1 and sizes["test"] == round(0.2 * n0) + round(0.2 * n1)
    claim = next(c for c in claims.load() if c.id == "C136")
    asked = posed(claim, "brca", 0.05, simulated).query.ordering.pairs
    assert {(a.auc, b.auc) for a, b in asked} == {(0.966, 0.916)} and len(
        {model for pair in asked for model in pair}
    ) == 4


def test_the_best_model_of_a_claim_is_that_of_the_abstract():
    assert next(c for c in claims.load() if c.id == "C001").paper == paper.ROC_AUC


def test_levels_of_a_chain_and_of_pairs_that_share_no_model():
    assert _levels([["b", "a"], ["c", "b"]], 1.0) == {"a": 0.0, "b": 1.0, "c": 2.0}
    assert _levels([["c", "b"], ["b", "a"], ["e", "d"]], 1.0) == {"b": 0.0, "c": 1.0, "a": -1.0, "d": 0.0, "e": 1.0}
