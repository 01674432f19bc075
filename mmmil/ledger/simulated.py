"""Simulated patients of the paper's cohorts, and claims about models of which is known how good they are.

A model's score of a patient is Gaussian in both classes, as far apart as its ROC-AUC demands; half its variance within
a class is the patient's and shared by all models, as different models fail on the same patients. The best model of a
claim has the ROC-AUC of the paper's abstract for that task. One seed, one repeat of the folds.
"""

from __future__ import annotations

import math
import zlib
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy  # its parts are loaded where they are first used

from mmmil import paper, params
from mmmil.evaluation import power
from mmmil.evaluation import summary as summaries
from mmmil.evaluation.repeated import Repeated
from mmmil.ledger import evidence
from mmmil.ledger.claims import Claim

SHARED = 0.5  # correlation of two models' scores within a class
SETS = 40  # gene sets of a simulated model
SOME = 4  # of them are attended differently, where a claim names none
GAP = 0.05  # sensitivity less specificity of the more even model


class Model(NamedTuple):
    """A simulated model; copy: tells models of one ROC-AUC apart; shift: of all scores, towards class 1.

    shifts, distances: deviations over the folds of the shift and of the distance between the classes.
    """

    auc: float
    copy: int = 0
    shift: float = 0.0
    shifts: float = 0.0
    distances: float = 0.0


class Scores(dict[Model, np.ndarray]):
    """Model -> its probabilities (1, n), made when they are asked for; label, folds (n,)."""

    def __init__(self, label: np.ndarray, folds: np.ndarray, seed: list[int]) -> None:
        super().__init__()
        self.label, self.folds, self.seed = label, folds, seed
        self.of_patient = np.random.default_rng(seed).normal(size=len(label))

    def __missing__(self, model: Model) -> np.ndarray:
        rng = np.random.default_rng([*self.seed, zlib.crc32(repr(model).encode())])
        score = math.sqrt(SHARED) * self.of_patient + math.sqrt(1 - SHARED) * rng.normal(size=len(self.label))
        shifts, distances = rng.normal(size=(2, self.folds.max() + 1))[:, self.folds]
        score += (_distance(model.auc) + model.distances * distances) * (self.label - 0.5)
        self[model] = scipy.special.expit(score + model.shift + model.shifts * shifts)[None]
        return self[model]


def _distance(auc: float) -> float:
    """Between the means of two classes of unit variance."""
    return math.sqrt(2) * float(scipy.stats.norm.ppf(auc))


class Simulated(evidence.Results):
    """What the paper's cohort of a task would leave, of whatever models are asked for; draws: of the bootstrap."""

    def __init__(self, p: params.Params, seed: int, draws: int) -> None:
        super().__init__(p)
        self.seed, self.draws = seed, draws
        self.named, self.effect = [""], 0.0  # gene sets that are attended differently, and how differently

    @cached_property
    def repeated(self) -> dict[str, Repeated]:
        patients, of_split = paper.PATIENTS[self.p.class_names[0], self.p.class_names[1]], {}
        held = [round(n * self.p.test_fraction) for n in patients]
        of_val = [n - test for n, test in zip(patients, held, strict=True)]
        for number, (split, sizes) in enumerate({"val": of_val, "test": held}.items()):
            label, order = np.repeat([0, 1], sizes), np.concatenate([np.arange(n) for n in sizes])
            folds = order % self.p.n_folds if split == "val" else np.zeros_like(order)
            scores = Scores(label, folds, [self.seed, number])
            of_split[split] = Repeated(label, folds[None], scores, self.p.threshold, self.draws, self.seed)
        return of_split

    def require(self, *variants: str, split: str = "val") -> None:
        """All of them are there."""

    def cell(self, variant: str, metric: str, split: str) -> summaries.Cell:
        of, name = self.repeated[split], "dual_go"  # any model of the paper's: the summary knows no others
        fold = of.folds[0] if split == "val" else -1
        table = pd.DataFrame({"variant": name, "seed": self.p.seed, "fold": fold, "split": split, "label": of.label})
        table = table.assign(patient_id=table.index.astype(str), prob=of.prob[variant][0])
        return summaries.cell(summaries.summarise(table, self.p, [name]), name, metric, split)

    def table(self, name: str, columns: list[str]) -> pd.DataFrame:
        """Attention over the sets. The permutation p is left out: it is never the larger one by more than its step."""
        from mmmil.interpretation import gene_sets  # loads torch, which the page does without

        label, rng = self.repeated["test"].label, np.random.default_rng([self.seed, 2, len(self.named)])
        names = [*self.named, *(f"set {i}" for i in range(SETS - len(self.named)))]
        distance = np.where(np.arange(SETS) < len(self.named), _distance((1 + self.effect) / 2), 0)
        weights = rng.normal(size=(len(label), SETS)) + distance * label[:, None]
        made = gene_sets.compare(pd.DataFrame(weights, columns=names), label).rename_axis("set").reset_index()
        made["significant"] = made["fdr"] < self.p.attention_fdr
        return pd.concat(
            [made.assign(library=lib, source=source) for lib in ("go", "kegg") for source in gene_sets.SHOWN_AS]
        )


def _levels(pairs: list[list[str]], difference: float) -> dict[str, float]:
    """A level for every model so that the first of each pair is higher than the second by the difference."""
    levels: dict[str, float] = {}
    for start in pairs:
        levels.setdefault(start[1], levels.get(start[0], difference) - difference)
        for _ in pairs:  # whoever is compared with these, and with those in turn
            for a, b in pairs:
                if b in levels:
                    levels.setdefault(a, levels[b] + difference)
                elif a in levels:
                    levels[b] = levels[a] - difference
    return levels


def posed(claim: Claim, task: str, value: float, simulated: Simulated) -> Claim:
    """The claim about simulated models of which it is true by so much as `value` says."""
    query, top = claim.query.name, paper.ROC_AUC[task]
    asked = getattr(claim.query, query)
    if query == "attention":
        simulated.named, simulated.effect = list(asked.sets.values()) or [f"attended {i}" for i in range(SOME)], value
        return claim
    if query == "metric":
        changes: dict = {"variant": Model(value)}
    elif query == "contrast":
        changes = {"variant": Model(top, shift=_shift(top, value if asked.higher == "sensitivity" else -value))}
    elif query == "balance":
        gaps = [GAP + max(-value, 0), GAP + max(value, 0)]
        changes = {"pairs": [[Model(top, i, _shift(top, gap)) for i, gap in enumerate(gaps)] for _ in asked.pairs]}
    elif query == "spread":
        changes = {"pairs": _scattered(asked.pairs, value, _scatter(asked.metrics[0], top, simulated))}
    else:
        levels = _levels(asked.pairs, value)
        models = {
            name: Model(round(top + level - max(levels.values()), 6), i)
            for i, (name, level) in enumerate(levels.items())
        }
        changes = {"pairs": [[models[name] for name in pair] for pair in asked.pairs]}
    return claim.model_copy(update={"query": claim.query.model_copy(update={query: asked.model_copy(update=changes)})})


def _shift(auc: float, gap: float) -> float:
    """Of the scores, so that sensitivity is above specificity by the gap."""
    cdf, half = scipy.stats.norm.cdf, _distance(auc) / 2
    return float(scipy.optimize.brentq(lambda s: cdf(half + s) - cdf(half - s) - gap, -5, 5))


def _scatter(metric: str, auc: float, simulated: Simulated) -> dict[str, float]:
    """How much the folds must scatter for a metric's deviation over them to be twice that of the patients alone."""
    of, pdf, d = simulated.repeated["val"], scipy.stats.norm.pdf, _distance(auc)
    n0, n1 = (int((of.label[of.folds[0] == 0] == c).sum()) for c in (0, 1))
    if metric in ("roc_auc", "pr_auc"):
        alone = math.sqrt(power.hanley_mcneil(auc, n1, n0))
        return {"distances": math.sqrt(3) * alone / (pdf(d / math.sqrt(2)) / math.sqrt(2))}
    hit = scipy.stats.norm.cdf(d / 2)
    alone = math.sqrt(hit * (1 - hit) / (n0 if metric == "specificity" else n1))
    return {"shifts": math.sqrt(3) * alone / pdf(d / 2)}


def _scattered(pairs: list[list[str]], value: float, scatter: dict[str, float]) -> list[list[Model]]:
    """(narrow, wide) of every pair; false claims have them the other way round."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    more = {pair[1] for pair in pairs} if value > 0 else {pair[0] for pair in pairs} if value < 0 else set()
    return [[Model(0.8, names.index(n), **(scatter if n in more else {})) for n in pair] for pair in pairs]
