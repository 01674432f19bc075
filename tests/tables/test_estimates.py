"""A number with its interval: what it prints, and that the short form promises no more than the interval."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest

from mmmil.tables.estimates import Estimate, estimate


@pytest.mark.parametrize(
    ("numbers", "signed", "short"),
    [
        ((0.77, 0.72, 0.82), False, "0.77 ± 0.05"),
        ((0.98, 0.80, 1.0), False, "0.98 ± 0.18"),  # the longer side
        ((0.9991, 0.9961, 0.9998), False, "0.999 ± 0.003"),
        ((0.05, 0.01, 0.12), True, "+0.050 ± 0.040"),  # the side towards 0
        ((-0.02, -0.08, 0.03), True, "-0.020 ± 0.050"),
        ((1.2, -math.inf, 3.0), False, "1.20 ± ∞"),
        ((0.5, math.nan, math.nan), False, "0.500"),
        ((math.nan, math.nan, math.nan), False, "–"),
    ],
)
def test_the_short_form(numbers, signed, short):
    assert estimate(*numbers, signed=signed).short() == short


def test_a_difference_in_short_holds_zero_where_its_interval_does():
    rng = np.random.default_rng(0)
    for value, below, above in zip(rng.normal(0, 0.1, 200), *rng.exponential(0.1, (2, 200)), strict=True):
        shown = estimate(value, value - below, value + above, signed=True).short()
        middle, side = (float(part) for part in shown.split(" ± "))
        if min(abs(value - below), abs(value + above)) > 0.002:  # else the rounding decides
            assert (abs(middle) < side) == (value - below < 0 < value + above), shown


def test_it_is_its_text_and_keeps_its_numbers():
    one = estimate(0.123456, 0.1, 0.2).marked("best")
    assert one == "0.123 [0.100, 0.200]" and one.mark == "best" and one.value == 0.123456
    again = pickle.loads(pickle.dumps(one))
    assert again == one and (again.low, again.mark) == (0.1, "best")
    kept = pd.DataFrame({"a": [one]}).copy().loc[0, "a"]
    assert isinstance(kept, Estimate) and kept.high == 0.2
