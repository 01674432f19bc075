"""Which models the paper's tables compare, and every comparison by the paper's test and by those beside it.

The tests themselves, with what each of them asks, are in `paired_tests`; effect sizes, and how large a difference so
many patients could have shown, in `power`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from mmmil import paper, variants
from mmmil.evaluation import bootstrap, intervals, paired_tests, summary
from mmmil.evaluation.bootstrap import paired_bootstrap
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.evaluation.metrics import scores as scores_of
from mmmil.evaluation.multiple import holm
from mmmil.evaluation.paired_tests import Difference, corrected_t, delong, mcnemar, paired_t, widened
from mmmil.params import Params

__all__ = ["Difference", "compare", "corrected_t", "delong", "holm", "mcnemar", "paired_bootstrap", "paired_t", "pairs"]

Pair = tuple[str, str, str]  # table and the two variants that it compares
COMPARISON = ["table", "a", "b", "metric", "split", "method", "difference", "ci_low", "ci_high", "p", "p_holm", "n"]


def pairs(p: Params, tables: list[str] | None = None) -> list[tuple[str, str, str]]:
    """(table, a, b): the proposed model a against every other row b of its table, then against the baselines.

    The rows are those of the paper and of the task's encoders, whether it trains them or not. tables: some of 3-11 and
    "baseline"; all where None. A variant added to the variant table is compared by itself.
    """
    all_pairs = []
    for table in paper.TABLES.values():
        rows = [v.name for v in variants.rows(p) if table.number in v.tables]
        for i, a in enumerate(table.proposed):
            all_pairs += [(table.number, a, b) for b in rows if b not in table.proposed[: i + 1]]
    for model in (variants.variant(name) for models in paper.PROPOSED.values() for name in models):
        for baseline in map(variants.variant, variants.BASELINES):
            if baseline.uses_slides <= model.uses_slides and baseline.uses_genes <= model.uses_genes:
                all_pairs.append(("baseline", model.name, baseline.name))
    return [pair for pair in all_pairs if tables is None or pair[0] in tables]


def by_patient(predictions: pd.DataFrame, split: str, seed: int) -> pd.DataFrame:
    """One row per patient of a split (index fold, patient_id; sorted), columns label and each variant's probability.

    A variant that lacks a fold (its training failed) is NaN there. Raises ValueError where variants disagree about
    who is in a fold, or about a label: such predictions come from different cohorts and compare nothing.
    """
    of_split = predictions[(predictions["split"] == split) & (predictions["seed"] == seed)]
    index = ["fold", "patient_id"]
    wide = of_split.pivot(index=index, columns="variant", values="prob").sort_index()
    labels = of_split.groupby(index)["label"]
    for fold, part in wide.groupby(level="fold"):
        partly = part.columns[part.isna().any() & part.notna().any()]
        if len(partly):
            raise ValueError(
                f"predictions, fold {fold}: {', '.join(partly)} did not predict the same patients as the other "
                "variants; train them again on one cohort"
            )
    differ = labels.min() != labels.max()
    if differ.any():
        raise ValueError(f"predictions: patient {differ.idxmax()[1]} has two labels; train again on one cohort")
    wide.insert(0, "label", labels.first())
    return wide


def compare(
    predictions: pd.DataFrame,
    p: Params,
    metrics: tuple[str, ...] = ("roc_auc", "pr_auc"),
    tables: list[str] | None = None,
    draws: int = 2000,
) -> pd.DataFrame:
    """Every comparison of `pairs` whose variants are there, by every test that fits: columns COMPARISON.

    predictions: columns runs.PREDICTIONS. Methods: paired_t and corrected_t over the validation folds (n: folds),
    delong (ROC-AUC) and bootstrap (n: patients), mcnemar (accuracy). On the test set, where tables are called S1-S9 as
    in the paper, the final models are compared by the last three. p_holm is adjusted within a table, metric, split and
    method. A fold that one of two models lacks is left out for both.

    With repeats and model seeds all compare means over them, for which further repeats are no further patients; but
    paired_t and mcnemar, which know no such thing, have the first repeat, and mcnemar the first seed.
    """
    rows = []
    for split, seeds, here in _groups(predictions, p, tables):
        for (table, a, b), metric, method, tested in _tests(seeds, here, split, metrics, p, draws):
            rows.append((summary.shown_table(table, split), a, b, metric, split, method, *tested[:4], np.nan, tested.n))
    result = pd.DataFrame(rows, columns=COMPARISON)
    family = result.groupby(["table", "metric", "split", "method"], sort=False)["p"]
    return result.assign(p_holm=family.transform(lambda p: holm(p.to_numpy())))


def each_pair(
    predictions: pd.DataFrame, p: Params, tables: list[str] | None = None
) -> Iterator[tuple[str, pd.DataFrame, Pair]]:
    """(split, patients, (table, a, b)) of every pair that is there; patients: `by_patient`, of the folds both have, of
    the first repeat and the study's own seed.
    """
    for split, seeds, here in _groups(predictions, p, tables):
        once = seeds[0][seeds[0].index.get_level_values("fold") < p.n_folds]
        for pair in here if len(once) else []:
            yield split, once, pair


def _groups(
    predictions: pd.DataFrame, p: Params, tables: list[str] | None
) -> Iterator[tuple[str, list[pd.DataFrame], list[Pair]]]:
    """(split, `by_patient` of every seed, pairs): the pairs grouped by the folds that both models have of all seeds."""
    for split in ("val", "test"):
        first, *others = (by_patient(predictions, split, p.seed + further) for further in range(p.model_seeds))
        seeds = [first, *(wide.reindex_like(first) for wide in others)]
        trained = np.logical_and.reduce([wide.notna().groupby(level="fold").all() for wide in seeds])
        trained = pd.DataFrame(trained, first.index.unique("fold"), first.columns).drop(columns="label")
        groups: dict[tuple, list[Pair]] = {}
        for pair in pairs(p, tables):
            if pair[1] in trained and pair[2] in trained:
                groups.setdefault(tuple(trained.index[trained[pair[1]] & trained[pair[2]]]), []).append(pair)
        for folds, here in groups.items():
            if folds:
                yield split, [wide.loc[list(folds)] for wide in seeds], here


def _tests(
    seeds: list[pd.DataFrame], here: list[Pair], split: str, metrics: tuple[str, ...], p: Params, draws: int
) -> Iterator[tuple[Pair, str, str, Difference]]:
    """(pair, metric, method, Difference) of every pair; what belongs to one model is computed once."""
    names = list(dict.fromkeys(name for _, *both in here for name in both))
    label, folds, patients = (
        seeds[0]["label"].to_numpy(),
        *(seeds[0].index.get_level_values(level).to_numpy() for level in ("fold", "patient_id")),
    )
    prob = {name: np.stack([wide[name].to_numpy() for wide in seeds]) for name in names}  # (seeds, n)
    aucs, covariance = paired_tests.mean_auc_covariance(label, np.concatenate(list(prob.values())), folds, patients)
    over_seeds = np.kron(np.eye(len(names)), np.full(len(seeds), 1 / len(seeds)))
    aucs, covariance = over_seeds @ aucs, over_seeds @ covariance @ over_seeds.T
    shared = 1 / (p.n_folds - 1) if p.repeats > 1 else 0.0
    own = {
        name: intervals.of_model(label, prob[name], folds, p.threshold, CONFIDENCE, p.repeats, shared) for name in names
    }
    drawn = bootstrap.drawn_scores(label, prob, folds, p.threshold, draws, p.seed, patients)
    numbers, once, n = np.unique(folds), folds < p.n_folds, len(np.unique(patients))
    n1 = len(np.unique(patients[label == 1]))
    few = [intervals.near_ceiling(auc, n1, n - n1) for auc in aucs]
    scores = {
        name: sum(
            pd.DataFrame([scores_of(label[folds == k], of_seed[folds == k], p.threshold) for k in numbers])
            for of_seed in prob[name]
        )
        / len(seeds)
        for name in names
    }
    for pair in here:
        _, a, b = pair
        i, j = names.index(a), names.index(b)
        for metric in metrics:
            both: dict[str, Any] = {"a": own[a].loc[metric], "b": own[b].loc[metric]}
            if metric == "roc_auc":
                of_pair = covariance[np.ix_([i, j], [i, j])]
                both |= {"correlation": paired_tests.correlation(of_pair), "few": few[i] or few[j]}
            if split == "val":
                values = scores[a][metric], scores[b][metric]
                of_a, of_b = (of_model[numbers < p.n_folds] for of_model in values)
                if once.any():  # not all of them failed
                    yield pair, metric, "paired_t", widened(paired_t(of_a, of_b, CONFIDENCE), **both)
                yield pair, metric, "corrected_t", widened(corrected_t(*values, 1 / p.n_folds, CONFIDENCE), **both)
            if metric == "roc_auc":
                tested = paired_tests.contrast(aucs, covariance, i, j, CONFIDENCE, n)
                yield pair, metric, "delong", widened(tested, **both)
            drawn_pair = drawn[a][metric], drawn[b][metric]
            tested = bootstrap.paired_difference(*drawn_pair, CONFIDENCE, n)
            yield pair, metric, "bootstrap", widened(tested, **both)
            if metric == "accuracy" and once.any():
                called = prob[a][0][once], prob[b][0][once]
                yield pair, metric, "mcnemar", mcnemar(label[once], *called, p.threshold, CONFIDENCE)
