"""What the results of one cohort hold for the claim ledger: cells of the tables, differences with intervals.

Everything is read from a run's results: cells from metrics.csv, differences from predictions.parquet, over all its
seeds and repeats (`mmmil.evaluation.repeated`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from mmmil import params, results
from mmmil import variants as variant_table
from mmmil.evaluation import paired_tests
from mmmil.evaluation import summary as summaries
from mmmil.evaluation.repeated import Repeated
from mmmil.evaluation.summary import estimate
from mmmil.ledger import standing
from mmmil.ledger.claims import Measured
from mmmil.training import runs

SHORT = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "f1": "F1"}


class NotTestable(Exception):
    """The results here do not hold what the query asks for; the message is the reason."""


@dataclass(frozen=True)
class Difference:
    """What a claim says is above zero, or near it, with its interval (NaN: none) and what it is the difference of."""

    value: float
    low: float
    high: float
    of: str

    def text(self, number: int = 1) -> str:
        """As the page shows it; number: of how many differences it is the one that decides."""
        suffix = f", decides of {number}" if number > 1 else ""
        return f"{estimate(self.value, self.low, self.high, signed=True)} ({self.of}{suffix})"


@dataclass(frozen=True)
class Answer:
    """A value with its interval, or differences, or the verdicts on parts; shown: as the page has it."""

    value: float | int | str = math.nan
    low: float = math.nan
    high: float = math.nan
    differences: list[Difference] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    shown: str = ""
    note: str = ""
    withheld: str = ""  # why it is shown and decides nothing

    @property
    def text(self) -> str:
        if self.shown:
            return self.shown
        if isinstance(self.value, int):
            return f"{self.value:,}"
        return str(self.value) if isinstance(self.value, str) else estimate(self.value, self.low, self.high)


def shown_metric(metric: str) -> str:
    return SHORT.get(metric, metric)


@dataclass
class Results:
    """The results of one cohort; p: the parameters they were made with."""

    p: params.Params

    @cached_property
    def standing(self) -> standing.Standing:
        """What the cohort is to the paper."""
        return standing.of(self.p)

    def table(self, name: str, columns: list[str]) -> pd.DataFrame:
        return self._there(results.read_results(self.p, name, columns), name)

    def _there(self, table: pd.DataFrame | None, name: str) -> pd.DataFrame:
        if table is None:
            raise NotTestable(f"no results/{self.p.run}/{name}.csv: that step has not run here")
        return table

    @cached_property
    def summary(self) -> pd.DataFrame:
        return self._there(summaries.read(self.p), "metrics")

    def cell(self, variant: str, metric: str, split: str) -> summaries.Cell:
        """A cell of the paper's tables, the one that notebooks and section pages show; never of a failed training."""
        self.require(variant, split=split)
        cell = summaries.cell(self.summary, variant, metric, split)
        if math.isnan(cell.value):
            raise NotTestable(f"failed: no {shown_metric(metric)} of {variant}")
        return cell

    @cached_property
    def predictions(self) -> pd.DataFrame:
        table = results.read_predictions(self.p, runs.PREDICTIONS)
        if table is None:
            raise NotTestable(f"no results/{self.p.run}/predictions.parquet: nothing was trained here")
        return table

    @cached_property
    def repeated(self) -> dict[str, Repeated]:
        """Split -> its predictions, arranged by run and patient."""
        return {
            str(split): Repeated.arrange(table, self.p.n_folds, self.p.threshold, self.p.seed)
            for split, table in self.predictions.groupby("split")
        }

    def require(self, *variants: str, split: str = "val") -> None:
        """Raises NotTestable for a variant that was not to be trained here, or of which a training failed.

        split: val reads every fold, test the final model; a mean over four folds of five is that of other patients.
        """
        for name in variants:
            if name not in variant_table.variants(self.p):
                raise NotTestable(f"{name} is not trained on this cohort")
        have, n = self.predictions[self.predictions["split"] == split], self.p.n_folds
        of = {name: set(zip(part["seed"], part["fold"], strict=True)) for name, part in have.groupby("variant")}
        runs = {(seed, fold // n) for name in variants for seed, fold in of.get(name, {(self.p.seed, 0)})}
        needed = {(seed, repeat * n + k) for seed, repeat in runs for k in range(n)}
        if split == "test":
            needed = {(seed, -1) for seed, _ in runs}
        for name in variants:
            missing = needed - of.get(name, set())
            if missing == needed:
                raise NotTestable(f"failed: the training of {name} left no predictions")
            if missing:
                folds = ", ".join(str(fold) for fold in sorted({fold for _, fold in missing}))
                raise NotTestable(f"failed: the training of {name} left no predictions of fold {folds}")

    def test_patients(self) -> tuple[int, int]:
        """How many test patients of class 0 and of class 1 there are."""
        label = self.repeated["test"].label
        return int((label == 0).sum()), int((label == 1).sum())

    def folds(self, *variants: str) -> list[pd.DataFrame]:
        """Metrics of each variant by fold, one repeat after the other, each the mean over the seeds."""
        self.require(*variants)
        return [self.repeated["val"].by_fold(name) for name in variants]

    def difference(self, a: str, b: str, metric: str, split: str, confidence: float) -> Difference:
        """Metric of a less that of b, by DeLong (ROC-AUC) or the paired bootstrap of the patients."""
        self.require(a, b, split=split)
        tested = self.repeated[split].difference(a, b, metric, confidence)
        return _difference(tested, f"{a} − {b}, {shown_metric(metric)}")

    def contrast(self, variant: str, higher: str, lower: str, confidence: float) -> Difference:
        """One metric of a variant less another, over the folds, by the bootstrap of the patients."""
        self.require(variant)
        tested = self.repeated["val"].contrast(variant, higher, lower, confidence)
        return _difference(tested, f"{variant}, {shown_metric(higher)} − {shown_metric(lower)}")

    def over_folds(self, a: pd.Series, b: pd.Series, contrast: str, confidence: float) -> Difference:
        """Mean of a less b over the folds, by the corrected t-test."""
        tested = paired_tests.corrected_t(a.to_numpy(), b.to_numpy(), 1 / self.p.n_folds, confidence)
        return _difference(tested, contrast)


def _difference(tested: paired_tests.Difference, of: str) -> Difference:
    """An interval without width is none: that nothing scattered among so few says nothing of other patients."""
    value, low, high = tested[:3]
    return Difference(value, *((low, high) if high - low > 1e-9 else (math.nan, math.nan)), of)


def measured(asked: Measured) -> Answer:
    """A figure of benchmarks/results, or the ratio of two."""
    table = results.read_benchmark(asked.file, dtype=str)
    if table is None:
        raise NotTestable(f"not measured: there is no benchmarks/results/{asked.file}.csv")

    def row(where: dict[str, str]) -> pd.Series:
        missing = [name for name in (*where, asked.column) if name not in table]
        if missing:
            raise NotTestable(f"benchmarks/results/{asked.file}.csv has no column {', '.join(missing)}")
        rows = table[np.logical_and.reduce([table[name] == value for name, value in where.items()])]
        if len(rows) != 1 or pd.isna(rows[asked.column].iloc[0]):
            raise NotTestable(
                f"benchmarks/results/{asked.file}.csv has {len(rows)} rows of {where}, not one with a value"
            )
        return rows.iloc[0]

    top, below = row(asked.where), row(asked.over) if asked.over else None
    device = str(top.get("device", "cpu"))
    withheld = (
        "counted or measured on a CPU, where the paper speaks of a GPU" if asked.on_gpu and device == "cpu" else ""
    )
    value, parts = float(top[asked.column]), ""
    if below is not None:
        value, parts = value / float(below[asked.column]), f" ({value:g} / {float(below[asked.column]):g})"
    return Answer(value, shown=f"{value:.3f}{parts}", note=f"device: {device}", withheld=withheld)
