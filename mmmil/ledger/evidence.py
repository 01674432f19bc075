"""What the results of one cohort hold for the claim ledger: metrics by fold, differences with intervals, p-values.

Everything is read from `results/<task>/`: differences from comparisons.csv where they stand there, and else computed
from predictions.parquet by the same tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from mmmil import params, results
from mmmil import variants as variant_table
from mmmil.evaluation import bootstrap, intervals, metrics, paired_tests
from mmmil.evaluation import summary as summaries
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.evaluation.summary import estimate
from mmmil.ledger import standing
from mmmil.ledger.claims import Measured
from mmmil.training import runs

SHORT = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "f1": "F1"}


class NotTestable(Exception):
    """The results here do not hold what the query asks for; the message is the reason."""


@dataclass(frozen=True)
class Difference:
    """What a claim says is above zero, with its interval (NaN: none) and what it is the difference of."""

    value: float
    low: float
    high: float
    of: str


@dataclass(frozen=True)
class Answer:
    """value with interval, or differences, or whether something holds; text: as the page shows it."""

    value: float | int | str = math.nan
    low: float = math.nan
    high: float = math.nan
    differences: list[Difference] = field(default_factory=list)
    holds: bool | None = None
    shown: str = ""
    note: str = ""
    undecided: str = ""  # why it is shown and decides nothing
    tolerance: float = 0.0  # the claim's, of differences
    alike: bool = False  # the differences are claimed to lie within the tolerance, not above zero

    @property
    def text(self) -> str:
        if self.shown:
            return self.shown
        if self.differences:
            return (
                _farthest(self.differences, self.tolerance) if self.alike else _least(self.differences, self.tolerance)
            )
        if isinstance(self.value, int):
            return f"{self.value:,}"
        return str(self.value) if isinstance(self.value, str) else estimate(self.value, self.low, self.high)


def _least(differences: list[Difference], tolerance: float) -> str:
    """The difference on which an ordering hangs: the smallest, by its estimate where that alone decides."""
    least = min(differences, key=lambda d: d.value)
    if least.value > -tolerance:
        least = min(differences, key=lambda d: d.low)
    return _text(least, "least", len(differences))


def _farthest(differences: list[Difference], tolerance: float) -> str:
    """The difference on which an equality hangs: the largest either way, by its estimate where that alone decides."""
    farthest = max(differences, key=lambda d: abs(d.value))
    if abs(farthest.value) <= tolerance:
        farthest = max(differences, key=lambda d: max(-d.low, d.high))
    return _text(farthest, "farthest from zero", len(differences))


def _text(difference: Difference, which: str, number: int) -> str:
    suffix = f", {which} of {number}" if number > 1 else ""
    return f"{estimate(difference.value, difference.low, difference.high, signed=True)} ({difference.of}{suffix})"


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
        return self._there(results.read_results(self.p.task, name, columns), name)

    def _there(self, table: pd.DataFrame | None, name: str) -> pd.DataFrame:
        if table is None:
            raise NotTestable(f"no results/{self.p.task}/{name}.csv: that step has not run here")
        return table

    @cached_property
    def summary(self) -> pd.DataFrame:
        return self._there(summaries.read(self.p.task), "metrics")

    def cell(self, variant: str, metric: str, split: str) -> summaries.Cell:
        """A cell of the paper's tables, the one that notebooks and section pages show; never of a failed training."""
        self.require(variant, split=split)
        cell = summaries.cell(self.summary, variant, metric, split)
        if math.isnan(cell.value):
            raise NotTestable(f"failed: no {shown_metric(metric)} of {variant}")
        return cell

    @cached_property
    def predictions(self) -> pd.DataFrame:
        table = results.read_predictions(results.folder(self.p.task), runs.PREDICTIONS)
        if table is None:
            raise NotTestable(f"no results/{self.p.task}/predictions.parquet: nothing was trained here")
        return table[table["seed"] == self.p.seed]

    @cached_property
    def per_fold(self) -> pd.DataFrame:
        """Metrics by variant and fold, of cross-validation: index (variant, fold)."""
        val = self.predictions[self.predictions["split"] == "val"]
        return metrics.per_fold(val, self.p.threshold).droplevel(["split", "seed"])

    def require(self, *variants: str, split: str = "val") -> None:
        """Raises NotTestable for a variant that was not to be trained here, or of which a training failed.

        split: val reads every fold, test the final model; a mean over four folds of five is that of other patients.
        """
        for name in variants:
            if name not in variant_table.variants(self.p):
                raise NotTestable(f"{name} is not trained on this cohort")
        have = self.predictions[self.predictions["split"] == split]
        needed = {-1} if split == "test" else set(range(self.p.n_folds))
        for name in variants:
            missing = needed - set(have.loc[have["variant"] == name, "fold"])
            if missing == needed:
                raise NotTestable(f"failed: the training of {name} left no predictions")
            if missing:
                folds = ", ".join(str(fold) for fold in sorted(missing))
                raise NotTestable(f"failed: the training of {name} left no predictions of fold {folds}")

    def folds(self, *variants: str) -> list[pd.DataFrame]:
        """Metrics of each variant by fold, all of them."""
        self.require(*variants)
        return [self.per_fold.loc[name].loc[list(range(self.p.n_folds))] for name in variants]

    def difference(self, a: str, b: str, metric: str, split: str) -> Difference:
        """Metric of a less that of b: corrected t-test over the folds, or paired bootstrap of the test patients."""
        self.require(a, b, split=split)
        contrast = f"{a} − {b}, {shown_metric(metric)}"
        tested = self.compared(a, b, metric, split, "corrected_t" if split == "val" else "bootstrap")
        if tested is None:
            tested = self._difference(a, b, metric, split)
        if math.isnan(tested[1]):
            raise NotTestable(f"no interval for {contrast}")
        value, low, high = tested[:3]
        return Difference(value, low, high, contrast)

    def compared(self, a: str, b: str, metric: str, split: str, method: str) -> tuple[float, ...] | None:
        """Difference, low, high and p as comparisons.csv has them, or None."""
        columns = ["a", "b", "metric", "split", "method", "difference", "ci_low", "ci_high", "p"]
        table = results.read_results(self.p.task, "comparisons", columns)
        if table is None:
            return None
        table = table[(table["metric"] == metric) & (table["split"] == split) & (table["method"] == method)]
        for first, second, sign in ((a, b, 1), (b, a, -1)):
            rows = table[(table["a"] == first) & (table["b"] == second)]
            if len(rows):
                row = rows.iloc[0]
                low, high = sorted((sign * row["ci_low"], sign * row["ci_high"]))
                return sign * row["difference"], low, high, row["p"]
        return None

    def p_value(self, a: str, b: str, metric: str, method: str) -> float:
        """p of a test over the validation folds."""
        self.require(a, b)
        tested = self.compared(a, b, metric, "val", method)
        if tested is not None and not math.isnan(tested[3]):
            return float(tested[3])
        left, right = (f[metric].to_numpy() for f in self.folds(a, b))
        share = {} if method == "paired_t" else {"test_share": 1 / self.p.n_folds}
        p = float(getattr(paired_tests, method)(left, right, **share).p)
        if math.isnan(p):
            raise NotTestable(f"no p of {a} against {b}: the difference is the same in every fold")
        return p

    def over_folds(self, a: pd.Series, b: pd.Series, contrast: str) -> Difference:
        """Mean of a less b over the folds, by the corrected t-test."""
        tested = paired_tests.corrected_t(a.to_numpy(), b.to_numpy(), 1 / self.p.n_folds, CONFIDENCE)
        if math.isnan(tested.low):
            raise NotTestable(f"no interval for {contrast}: the difference is the same in every fold")
        return Difference(tested.difference, tested.low, tested.high, contrast)

    def _own(self, variant: str, metric: str) -> pd.Series:
        """mean, low and high of a model over the folds."""
        of = self.predictions[(self.predictions["split"] == "val") & (self.predictions["variant"] == variant)]
        label, prob, folds = (of[name].to_numpy() for name in ("label", "prob", "fold"))
        return intervals.of_model(label, prob, folds, self.p.threshold, CONFIDENCE).loc[metric]

    def _difference(self, a: str, b: str, metric: str, split: str) -> paired_tests.Difference:
        if split == "val":
            left, right = (f[metric].to_numpy() for f in self.folds(a, b))
            tested = paired_tests.corrected_t(left, right, 1 / self.p.n_folds, CONFIDENCE)
            return paired_tests.widened(tested, *(self._own(variant, metric) for variant in (a, b)))
        test = self.predictions[self.predictions["split"] == "test"]
        wide = test.pivot(index="patient_id", columns="variant", values="prob")
        if wide[[a, b]].isna().any(axis=None):
            raise NotTestable(f"failed: {a} and {b} did not predict the same test patients")
        label = test.drop_duplicates("patient_id").set_index("patient_id")["label"].reindex(wide.index)
        prob_a, prob_b = wide[a].to_numpy(), wide[b].to_numpy()
        settings = {"threshold": self.p.threshold, "confidence": CONFIDENCE, "seed": self.p.seed}
        return bootstrap.paired_bootstrap(label.to_numpy(), prob_a, prob_b, metric=metric, **settings)


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
    undecided = (
        "counted or measured on a CPU, where the paper speaks of a GPU" if asked.on_gpu and device == "cpu" else ""
    )
    value, parts = float(top[asked.column]), ""
    if below is not None:
        value, parts = value / float(below[asked.column]), f" ({value:g} / {float(below[asked.column]):g})"
    return Answer(value, shown=f"{value:.3f}{parts}", note=f"device: {device}", undecided=undecided)
