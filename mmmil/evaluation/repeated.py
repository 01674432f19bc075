"""Differences of models over repeated cross-validation, the patient being the unit.

Every patient is predicted once a run, which is one seed and one repeat of the folds. A score is the mean over the folds
of a run, as in the paper's tables, and then over the runs. It is never that of pooled probabilities: those of different
folds come from different models and are not on one scale, so that ranking them against each other would measure the
scales as well. However many runs there are, the patients are the same, and it is they who are drawn again: the interval
says what other patients would show of these models, not what other trainings would. Where a model makes hardly a
mistake it is that of `paired_tests.widened`, which is no point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd

from mmmil.evaluation import bootstrap, intervals, paired_tests
from mmmil.evaluation.metrics import METRICS, weighted_scores
from mmmil.evaluation.paired_tests import Difference

DRAWS = 1000


@dataclass
class Repeated:
    """Models on the same patients: label (n,), folds (runs, n), prob name -> (runs, n), NaN where a training failed.

    What belongs to one model is computed once, so that any number of pairs costs as much as their models.
    """

    label: np.ndarray
    folds: np.ndarray
    prob: Mapping[str, np.ndarray]
    threshold: float = 0.5
    draws: int = DRAWS
    seed: int = 0
    _aucs: dict[str, tuple[float, np.ndarray]] = field(default_factory=dict, repr=False)
    _drawn: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)
    _own: dict[tuple[str, float], pd.DataFrame] = field(default_factory=dict, repr=False)

    @classmethod
    def arrange(cls, predictions: pd.DataFrame, n_folds: int, threshold: float = 0.5, seed: int = 0) -> Self:
        """Of the predictions of one split (columns runs.PREDICTIONS); a run is a seed and a repeat, fold // n_folds.

        Raises ValueError where models disagree about who is in a fold or about a label.
        """
        table = predictions.assign(repeat=predictions["fold"] // n_folds)
        of_patient, of_fold = (table.groupby(key) for key in ("patient_id", ["seed", "repeat", "patient_id"]))
        for groups, column, what in ((of_patient, "label", "labels"), (of_fold, "fold", "folds")):
            several = groups[column].min() != groups[column].max()
            if several.any():
                raise ValueError(f"predictions: patient {several.idxmax()} has two {what}; train again on one cohort")
        folds = of_fold["fold"].first().unstack()
        probs = table.pivot(index=["variant", "seed", "repeat"], columns="patient_id", values="prob")
        by_name = {
            name: probs.loc[name].reindex(index=folds.index, columns=folds.columns).to_numpy()
            for name in table["variant"].unique()
        }
        label = of_patient["label"].first().loc[folds.columns].to_numpy()
        return cls(label, folds.to_numpy(), by_name, threshold, seed=seed)

    @cached_property
    def _weights(self) -> np.ndarray:
        """Row 0: every patient once; then draws, within the class, and within the fold where there is one run."""
        strata = self.folds[0] if len(self.folds) == 1 else np.zeros(len(self.label))
        return np.vstack([np.ones(len(self.label)), bootstrap.resample(self.label, strata, self.draws, self.seed)])

    def _parts(self, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """(patients, probabilities) of each fold of each run."""
        if np.isnan(self.prob[name]).any():
            raise ValueError(f"{name} did not predict every patient in every run; train what failed again")
        runs = zip(self.folds, self.prob[name], strict=True)
        return [(np.flatnonzero(folds == k), prob[folds == k]) for folds, prob in runs for k in np.unique(folds)]

    def by_fold(self, name: str) -> pd.DataFrame:
        """The six metrics by fold, one repeat after the other (index fold); each is the mean over the seeds."""
        once, rows = np.ones((1, len(self.label))), []
        for i, prob in self._parts(name):
            scores = weighted_scores(self.label[i], prob, once[:, i], self.threshold)
            rows.append({metric: scores[metric][0] for metric in METRICS})
        numbers = [k for folds in self.folds for k in np.unique(folds)]
        return pd.DataFrame(rows, index=pd.Index(numbers, name="fold")).groupby(level="fold").mean()

    def drawn(self, name: str) -> pd.DataFrame:
        """The six metrics, mean over folds and runs: row 0 of the patients as they are, then one row a draw.

        A fold in which a draw leaves a class without patients does not count in that draw.
        """
        if name not in self._drawn:
            parts, w = self._parts(name), self._weights
            with np.errstate(invalid="ignore", divide="ignore"):
                scores = [weighted_scores(self.label[i], prob, w[:, i], self.threshold) for i, prob in parts]
            means = {metric: np.nanmean([of[metric] for of in scores], axis=0) for metric in METRICS}
            self._drawn[name] = pd.DataFrame(means)
        return self._drawn[name]

    def auc(self, name: str) -> tuple[float, np.ndarray]:
        """ROC-AUC, mean over folds and runs, and each patient's influence on it (n,): `paired_tests.auc_influence`."""
        if name not in self._aucs:
            parts, influence, aucs = self._parts(name), np.zeros(len(self.label)), []
            for i, prob in parts:
                auc, of_patients = paired_tests.auc_influence(self.label[i], prob)
                aucs.append(auc)
                influence[i] += of_patients / len(parts)
            self._aucs[name] = float(np.mean(aucs)), influence
        return self._aucs[name]

    def own(self, name: str, confidence: float) -> pd.DataFrame:
        """The six metrics of a model with their score intervals, by the patients alone: `intervals.of_model`."""
        if (name, confidence) not in self._own:
            runs, n = self.folds.shape
            numbers = np.unique(self.folds, return_inverse=True)[1].reshape(runs, n)
            apart = numbers + (numbers.max() + 1) * np.arange(runs)[:, None]  # a fold of one run is none of another
            self._own[name, confidence] = intervals.of_model(
                np.tile(self.label, runs),
                self.prob[name].ravel(),
                apart.ravel(),
                self.threshold,
                confidence,
                repeats=runs,
                trainings=False,
            )
        return self._own[name, confidence]

    def difference(self, a: str, b: str, metric: str, confidence: float) -> Difference:
        """Metric of a less that of b: ROC-AUC by DeLong, every other metric by the paired bootstrap of the patients."""
        n, correlated, few = len(self.label), 0.0, False
        if metric == "roc_auc":
            (auc_a, of_a), (auc_b, of_b) = self.auc(a), self.auc(b)
            tested = paired_tests.by_influence(auc_a - auc_b, of_a - of_b, confidence)
            influence, n1 = np.stack([of_a, of_b]), int(self.label.sum())
            correlated = paired_tests.correlation(influence @ influence.T)
            few = any(intervals.near_ceiling(auc, n1, n - n1) for auc in (auc_a, auc_b))
            values = (auc_a, auc_b)
        else:
            drawn = self.drawn(a)[metric], self.drawn(b)[metric]
            tested = bootstrap.paired_difference(*drawn, confidence, n)
            values = (drawn[0][0], drawn[1][0])
        if not few and paired_tests.sees_scatter(tested, *values):
            return tested
        own_a, own_b = (self.own(name, confidence).loc[metric] for name in (a, b))
        return paired_tests.widened(tested, own_a, own_b, confidence, correlated, few)

    def contrast(self, name: str, higher: str, lower: str, confidence: float) -> Difference:
        """One metric less another of the same model, by the bootstrap of the patients."""
        drawn = self.drawn(name)
        tested = bootstrap.paired_difference(drawn[higher], drawn[lower], confidence, len(self.label))
        if paired_tests.sees_scatter(tested, drawn[higher][0], drawn[lower][0]):
            return tested
        own = self.own(name, confidence)
        return paired_tests.widened(tested, own.loc[higher], own.loc[lower], confidence)
