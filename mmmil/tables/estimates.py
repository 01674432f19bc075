"""A number with its interval: a text that knows its numbers."""

from __future__ import annotations

import math
from typing import Self

PLUS_MINUS = "±: the 95 % interval, its longer side (of a difference, the side towards 0)"


class Estimate(str):
    """'0.812 [0.702, 0.922]', or the value alone where there is no interval, or a dash; signed: '+0.812 ...'.

    value, low, high: the full numbers, NaN where there is none. mark: what the number is in its column, 'best' or
    'alike' (not told from the best), else ''.
    """

    value: float
    low: float
    high: float
    signed: bool
    mark: str

    def __new__(
        cls, value: float, low: float = math.nan, high: float = math.nan, signed: bool = False, mark: str = ""
    ) -> Self:
        """The text of a value with its interval."""
        sign = "+" if signed else ""
        interval = "" if math.isnan(low) or math.isnan(high) else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
        made = super().__new__(cls, "–" if math.isnan(value) else f"{value:{sign}.3f}{interval}")
        made.value, made.low, made.high, made.signed, made.mark = float(value), float(low), float(high), signed, mark
        return made

    def __getnewargs__(self) -> tuple[float, float, float, bool, str]:  # type: ignore[override]
        return self.value, self.low, self.high, self.signed, self.mark

    @property
    def has_interval(self) -> bool:
        return not math.isnan(self.value + self.low + self.high)

    def marked(self, mark: str) -> Estimate:
        """The same number with another mark."""
        return Estimate(self.value, self.low, self.high, self.signed, mark)

    def short(self) -> str:
        """'0.77 ± 0.05': the longer side of the interval, so that it promises no more than the interval does.

        Of a difference it is the side towards 0, so that the short form holds 0 where the interval does.
        """
        if not self.has_interval:
            return str(self)
        below, above = self.value - self.low, self.high - self.value
        side = max(below, above)
        if self.signed and self.value:
            side = below if self.value > 0 else above
        if math.isinf(side):
            return f"{self.value:.2f} ± ∞"
        digits = 3 if self.signed or side < 0.01 else 2
        return f"{self.value:{'+' if self.signed else ''}.{digits}f} ± {side:.{digits}f}"


def estimate(value: float, low: float = math.nan, high: float = math.nan, signed: bool = False) -> Estimate:
    """A value with its interval as it is printed; signed: of a difference."""
    return Estimate(value, low, high, signed)
