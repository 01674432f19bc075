"""Attention of the final model over the test patients: which gene sets and which tiles (Gene Set-Level Analysis)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from mmmil import experiments, record


@dataclass(frozen=True)
class Attention:
    """Attention after the softmax, averaged over heads, of the class token or of the other modality's summary.

    weights: source -> (patients, N), over gene sets for self_genes and cross_genes, over tiles for self_image and
    cross_image; prob: (patients,) as predicted on the same pass; sets: names of the gene sets.
    """

    variant: str
    patients: list[str]
    labels: np.ndarray
    prob: np.ndarray
    sets: list[str]
    weights: dict[str, np.ndarray]

    def over_sets(self, source: str) -> pd.DataFrame:
        """The paper's table: one row per patient, one column per gene set."""
        return pd.DataFrame(self.weights[source], index=self.patients, columns=self.sets)


def extract(study, name: str) -> Attention:
    """Attention of a variant's final model over the held-out test patients.

    Both were kept when the model predicted these patients, so they belong to the same pass.
    """
    v = experiments.variant(name)
    folder = experiments.run(study, name, -1)
    predicted = record.read_parquet(folder / "predictions.parquet")
    with np.load(folder / "attention.npz") as kept:
        weights = dict(kept)
    sets = study.gene_tokens(-1, v.genes).names if v.uses_genes else []
    ids, labels, prob = (predicted[column].to_numpy() for column in ("patient_id", "label", "prob"))
    return Attention(name, list(ids), labels, prob, sets, weights)


def compare(table: pd.DataFrame, labels: np.ndarray) -> pd.DataFrame:
    """Mann-Whitney U of attention between the classes, one row per gene set, Benjamini-Hochberg over the sets.

    table: patients x sets; labels: (patients,) 0/1. effect is the rank-biserial correlation in [-1, 1], positive
    where class 1 is attended more. Raises ValueError if a class has no patient.
    """
    zero, one = table[labels == 0], table[labels == 1]
    if not len(zero) or not len(one):
        raise ValueError(
            f"attention of class {int(bool(len(zero)))} cannot be compared: no such patient in the test set"
        )
    u, p = stats.mannwhitneyu(one, zero, axis=0)
    return pd.DataFrame(
        {
            "mean_0": zero.mean(),
            "mean_1": one.mean(),
            "effect": 2 * u / (len(zero) * len(one)) - 1,
            "p": p,
            "fdr": stats.false_discovery_control(p),
        },
        index=table.columns,
    ).sort_values("p", kind="stable")


def permutation_p(table: pd.DataFrame, labels: np.ndarray, n: int = 1000, seed: int = 0) -> pd.Series:
    """p of the difference of means under shuffled labels, the model fixed: (1 + hits) / (1 + n), never 0."""
    values = table.to_numpy(float)
    rng = np.random.default_rng(seed)
    observed = np.abs(values[labels == 1].mean(0) - values[labels == 0].mean(0))
    hits = np.zeros(values.shape[1])
    for _ in range(n):
        shuffled = rng.permutation(labels)
        hits += np.abs(values[shuffled == 1].mean(0) - values[shuffled == 0].mean(0)) >= observed - 1e-12
    return pd.Series((1 + hits) / (1 + n), index=table.columns, name="permutation_p")


def analyse(study, name: str) -> tuple[Attention, dict[str, pd.DataFrame]]:
    """Attention of a variant's final model, and per source over gene sets the comparison with its permutation p.

    A set is `significant` where the adjusted p and the permutation p are both below `attention_fdr`.
    """
    p = study.p
    attention = extract(study, name)
    tables = {}
    for source in attention.weights:
        if source.endswith("_genes"):
            over_sets = attention.over_sets(source)
            table = compare(over_sets, attention.labels)
            table["permutation_p"] = permutation_p(over_sets, attention.labels, p.n_permutations, p.seed)
            table["significant"] = table[["fdr", "permutation_p"]].max(axis=1) < p.attention_fdr
            tables[source] = table
    return attention, tables


def counts(study) -> pd.DataFrame:
    """Significant gene sets of the proposed models: one row per library and source, as the section page shows them."""
    rows = []
    for name in ("dual_go", "dual_kegg"):
        if name in experiments.variants(study.p):
            for source, table in analyse(study, name)[1].items():
                rows.append((experiments.variant(name).genes, source, len(table), int(table["significant"].sum())))
    return pd.DataFrame(rows, columns=["library", "source", "n_sets", "n_significant"])


def compared_sets(study) -> pd.DataFrame:
    """Every gene set of the proposed models by name: columns library, source, set, and those of `analyse`'s tables."""
    tables = [
        table.rename_axis("set").reset_index().assign(library=experiments.variant(name).genes, source=source)
        for name in ("dual_go", "dual_kegg")
        if name in experiments.variants(study.p)
        for source, table in analyse(study, name)[1].items()
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["library", "source", "set"])


def exemplars(attention: Attention, threshold: float = 0.5) -> list[int]:
    """Index of one patient per class, by rule: of those called rightly, the nearest to the median probability."""
    chosen = []
    for label in (0, 1):
        own = np.flatnonzero(attention.labels == label)
        right = own[(attention.prob[own] >= threshold) == label]
        pool = right if len(right) else own
        chosen.append(int(pool[np.argmin(np.abs(attention.prob[pool] - np.median(attention.prob[pool])))]))
    return chosen
