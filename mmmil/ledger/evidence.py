"""What the results of one cohort hold for the claim ledger: metrics by fold, differences with intervals, p-values.

Everything is read from `results/<task>/`: differences from comparisons.csv where they stand there, and else computed
from predictions.parquet by the same tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mmmil import params, record
from mmmil import variants as variant_table
from mmmil.evaluation import bootstrap, metrics, paired_tests
from mmmil.evaluation.summary import estimate
from mmmil.ledger.claims import Measured
from mmmil.results import read_results

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
    found = min(differences, key=lambda d: d.value)
    if found.value > -tolerance:
        found = min(differences, key=lambda d: d.low)
    return _told(found, "least", len(differences))


def _farthest(differences: list[Difference], tolerance: float) -> str:
    """The difference on which an equality hangs: the largest either way, by its estimate where that alone decides."""
    found = max(differences, key=lambda d: abs(d.value))
    if abs(found.value) <= tolerance:
        found = max(differences, key=lambda d: max(-d.low, d.high))
    return _told(found, "farthest from zero", len(differences))


def _told(found: Difference, which: str, number: int) -> str:
    of = f", {which} of {number}" if number > 1 else ""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}] ({found.of}{of})"


def shown_metric(metric: str) -> str:
    return SHORT.get(metric, metric)


@dataclass
class Results:
    """The results of one cohort; p: the parameters they were made with."""

    p: params.Params

    def table(self, name: str, columns: list[str]) -> pd.DataFrame:
        found = read_results(self.p.task, name, columns)
        if found is None:
            raise NotTestable(f"no results/{self.p.task}/{name}.csv: that step has not run here")
        return found

    @property
    def predictions_file(self) -> Path:
        return params.root() / "results" / self.p.task / "predictions.parquet"

    @cached_property
    def predictions(self) -> pd.DataFrame:
        if not self.predictions_file.is_file():
            raise NotTestable(f"no results/{self.p.task}/predictions.parquet: nothing was trained here")
        table = record.read_parquet(self.predictions_file)
        return table[table["seed"] == self.p.seed]

    @cached_property
    def per_fold(self) -> pd.DataFrame:
        """Metrics by variant and fold, of cross-validation: index (variant, fold)."""
        val = self.predictions[self.predictions["split"] == "val"]
        return metrics.per_fold(val).droplevel(["split", "seed"])

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
        of = f"{a} − {b}, {shown_metric(metric)}"
        found = self.compared(a, b, metric, split, "corrected_t" if split == "val" else "bootstrap")
        if found is None:
            found = self._difference(a, b, metric, split)
        value, low, high = found[:3]
        if math.isnan(low) and value:
            raise NotTestable(f"no interval for {of}")
        return Difference(value, *((0.0, 0.0) if math.isnan(low) else (low, high)), of)

    def compared(self, a: str, b: str, metric: str, split: str, method: str) -> tuple[float, ...] | None:
        """Difference, low, high and p as comparisons.csv has them, or None."""
        columns = ["a", "b", "metric", "split", "method", "difference", "ci_low", "ci_high", "p"]
        table = read_results(self.p.task, "comparisons", columns)
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
        found = self.compared(a, b, metric, "val", method)
        if found is not None and not math.isnan(found[3]):
            return float(found[3])
        left, right = (f[metric].to_numpy() for f in self.folds(a, b))
        share = {} if method == "paired_t" else {"test_share": 1 / self.p.n_folds}
        p = float(getattr(paired_tests, method)(left, right, **share).p)
        if math.isnan(p):
            raise NotTestable(f"no p of {a} against {b}: the difference is the same in every fold")
        return p

    def over_folds(self, a: pd.Series, b: pd.Series, of: str) -> Difference:
        """Mean of a less b over the folds, by the corrected t-test."""
        found = paired_tests.corrected_t(a.to_numpy(), b.to_numpy(), 1 / self.p.n_folds)
        if math.isnan(found.low) and found.difference:
            raise NotTestable(f"no interval for {of}: the difference is the same in every fold")
        return Difference(found.difference, *((0.0, 0.0) if math.isnan(found.low) else found[1:3]), of)

    def _difference(self, a: str, b: str, metric: str, split: str) -> paired_tests.Difference:
        if split == "val":
            left, right = (f[metric].to_numpy() for f in self.folds(a, b))
            return paired_tests.corrected_t(left, right, 1 / self.p.n_folds)
        test = self.predictions[self.predictions["split"] == "test"]
        wide = test.pivot(index="patient_id", columns="variant", values="prob")
        if wide[[a, b]].isna().any(axis=None):
            raise NotTestable(f"failed: {a} and {b} did not predict the same test patients")
        label = test.drop_duplicates("patient_id").set_index("patient_id")["label"].reindex(wide.index)
        one, other = wide[a].to_numpy(), wide[b].to_numpy()
        return bootstrap.paired_bootstrap(label.to_numpy(), one, other, metric=metric, seed=self.p.seed)


def measured(asked: Measured) -> Answer:
    """A figure of benchmarks/results, or the ratio of two."""
    path = params.root() / "benchmarks" / "results" / f"{asked.file}.csv"
    if not path.is_file():
        raise NotTestable(f"not measured: there is no benchmarks/results/{asked.file}.csv")
    table = pd.read_csv(path, dtype=str)

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
    value, shown = float(top[asked.column]), ""
    if below is not None:
        value, shown = value / float(below[asked.column]), f" ({value:g} / {float(below[asked.column]):g})"
    return Answer(value, shown=f"{value:.3f}{shown}", note=f"device: {device}", undecided=undecided)
