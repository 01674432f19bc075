"""Tests over gene sets: which are attended to differently in the two classes (Gene Set-Level Analysis of Attention)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from mmmil import variants
from mmmil.genes.set_names import set_id
from mmmil.interpretation.extract import Attention, extract
from mmmil.models.reading import SHOWN
from mmmil.training import runs

if TYPE_CHECKING:
    from mmmil.study import Study

NAMES = ["library", "source", "set"]
SHOWN_AS = {
    "self_genes": "self-attention, layer 2",
    "rollout_genes": "self-attention, rolled out",
    "layer1_genes": "self-attention, layer 1",
    "cross_genes": "cross-attention",
}
DRAWN = (f"{SHOWN}_genes", "cross_genes")  # as heatmaps do; all others are counted and written, too


def models(study: Study) -> dict[str, str]:
    """library -> the model whose attention over its sets is analysed: the proposed one, or without slides the sets'.

    A library is left out where the batch could not train its final model.
    """
    readers = [name for name in variants.proposed(study.p) if variants.variant(name).uses_gene_sets]
    return {variants.variant(name).genes: name for name in runs.standing(study, readers, [-1])}


def compare(table: pd.DataFrame, labels: np.ndarray) -> pd.DataFrame:
    """Mann-Whitney U of attention between the classes, one row per gene set, Benjamini-Hochberg over the sets.

    table: patients x sets; labels: (patients,) 0/1. effect is the rank-biserial correlation in [-1, 1], positive
    where class 1 is attended more. Raises ValueError if a class has no patient, or there is one gene set only.
    """
    effect, p = _mann_whitney(table, labels)
    return pd.DataFrame(
        {
            "id": [set_id(str(name)) for name in table.columns],
            "mean_0": table[labels == 0].mean(),
            "mean_1": table[labels == 1].mean(),
            "effect": effect,
            "p": p,
            "fdr": stats.false_discovery_control(p),
        },
        index=table.columns,
    ).sort_values("p", kind="stable")


def _mann_whitney(table: pd.DataFrame, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    class_0, class_1 = table[labels == 0], table[labels == 1]
    if not len(class_0) or not len(class_1):
        raise ValueError(
            f"attention of class {int(bool(len(class_0)))} cannot be compared: no such patient in the test set; raise "
            "test_fraction, or add patients of this class"
        )
    if table.shape[1] < 2:
        raise ValueError(
            f"there is a single gene set ({', '.join(map(str, table.columns))}), to which all attention goes in every "
            "patient: nothing to compare; raise gene_set_fdr, or take a model of several gene sets"
        )
    u, p = stats.mannwhitneyu(class_1, class_0, axis=0)
    # The same weight in every patient is no difference, of which SciPy's p is not a number.
    return 2 * u / (len(class_0) * len(class_1)) - 1, np.nan_to_num(p, nan=1.0)


def effects(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rank-biserial correlation of attention (patients, sets) with the labels (patients,): (sets,)."""
    ranks = stats.rankdata(values, axis=0)
    n_one = int((labels == 1).sum())
    u = ranks[labels == 1].sum(0) - n_one * (n_one + 1) / 2
    return 2 * u / (n_one * (len(labels) - n_one)) - 1


def permutation_p(table: pd.DataFrame, labels: np.ndarray, n: int = 1000, seed: int = 0) -> pd.Series:
    """p of the difference of means under shuffled labels, the model fixed: (1 + hits) / (1 + n), never 0."""
    values = table.to_numpy(float)
    rng = np.random.default_rng(seed)
    observed = np.abs(values[labels == 1].mean(0) - values[labels == 0].mean(0))
    slack = 1e-9 * np.abs(values).max()  # of rounding: the same patients summed in another order
    hits = np.zeros(values.shape[1])
    for _ in range(n):
        shuffled = rng.permutation(labels)
        hits += np.abs(values[shuffled == 1].mean(0) - values[shuffled == 0].mean(0)) >= observed - slack
    return pd.Series((1 + hits) / (1 + n), index=table.columns, name="permutation_p")


def analyse(study: Study, name: str) -> tuple[Attention, dict[str, pd.DataFrame]]:
    """Attention of a variant's final model, and per source over gene sets the comparison with its permutation p.

    A set is `significant` where the adjusted p and the permutation p are both below `attention_fdr`, as in the paper;
    `more_in` is the class that attends to it more.
    """
    p = study.p
    attention = extract(study, name)
    tables = {}
    for source in sorted(attention.weights, reverse=True):  # self before cross
        if source.endswith("_genes"):
            over_sets = attention.over_sets(source)
            table = compare(over_sets, attention.labels)
            table["more_in"] = np.select(
                [table["effect"] > 0, table["effect"] < 0], [p.class_names[1], p.class_names[0]], "neither"
            )
            table["permutation_p"] = permutation_p(over_sets, attention.labels, p.n_permutations, p.seed)
            table["significant"] = table[["fdr", "permutation_p"]].max(axis=1) < p.attention_fdr
            tables[source] = table
    return attention, tables


def smallest_p(labels: np.ndarray) -> float:
    """The smallest p that the test can give with so many patients of each class: the classes wholly apart."""
    n_class_1, n_class_0 = int((labels == 1).sum()), int((labels == 0).sum())
    return float(stats.mannwhitneyu(np.arange(n_class_1) + n_class_0, np.arange(n_class_0)).pvalue)


def gsea_overlap(study: Study, library: str, tables: dict[str, pd.DataFrame], k: int = 10) -> pd.DataFrame:
    """Whether attention orders the sets as the enrichment of the training patients does, one row per source.

    rho and its p: Spearman's between `|effect|` and `|NES|` over the chosen sets; signed_rho: between effect and NES;
    top: sets among the k largest of both, k at most half of the sets; by_chance: as many as two random orders share,
    k²/n; top_p: hypergeometric. NaN where fewer than three sets have a score.
    """
    tokens = study.gene_tokens(-1, library)
    nes = pd.read_csv(tokens.folder / "enrichment.csv", index_col=0, keep_default_na=False, na_values={"nes": [""]})[
        "nes"
    ]
    rows = {}
    for source, table in tables.items():
        both = pd.DataFrame({"effect": table["effect"], "nes": nes.reindex(table.index)}).dropna()
        n = len(both)
        row = {"sets": n, "k": min(k, n // 2)}
        if n >= 3:
            size = both.abs()
            correlation = stats.spearmanr(size["effect"], size["nes"])
            row |= {
                "rho": correlation.statistic,
                "p": correlation.pvalue,
                "signed_rho": stats.spearmanr(*both.to_numpy().T).statistic,
            }
            best = [set(size[c].nlargest(row["k"]).index) for c in size]
            shared = len(best[0] & best[1])
            row |= {"top": shared, "by_chance": row["k"] ** 2 / n}
            row["top_p"] = float(stats.hypergeom.sf(shared - 1, n, row["k"], row["k"]))
        rows[source] = row
    columns = ["sets", "k", "rho", "p", "signed_rho", "top", "by_chance", "top_p"]
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)


def planted_auroc(attention: Attention, tables: dict[str, pd.DataFrame], planted: pd.Series) -> pd.DataFrame:
    """How well attention tells planted gene sets from the others, one row per source.

    planted: set name -> bool. by_effect: AUROC of `|effect|`; by_mean: of the mean weight over test patients; NaN where
    all chosen sets are planted, or none is.
    """
    from sklearn.metrics import roc_auc_score

    rows = {}
    for source, table in tables.items():
        truth = planted.reindex(table.index).astype(bool)
        row = {"planted": int(truth.sum()), "others": int((~truth).sum()), "by_effect": np.nan, "by_mean": np.nan}
        if row["planted"] and row["others"]:
            mean = attention.over_sets(source).mean().reindex(table.index)
            row |= {"by_effect": roc_auc_score(truth, table["effect"].abs()), "by_mean": roc_auc_score(truth, mean)}
        rows[source] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def counts(study: Study) -> pd.DataFrame:
    """Significant gene sets of the analysed models, one row per library and source, as the section page shows them.

    smallest_p: what the test can give at best with so many test patients.
    """
    rows = []
    for library, name in models(study).items():
        attention, tables = analyse(study, name)
        best = smallest_p(attention.labels)
        for source, table in tables.items():
            rows.append(
                (library, source, name, len(table), int(table["significant"].sum()), len(attention.labels), best)
            )
    return pd.DataFrame(
        rows, columns=["library", "source", "variant", "n_sets", "n_significant", "n_patients", "smallest_p"]
    )


def every_set(study: Study) -> pd.DataFrame:
    """The tests of every analysed model, one row per gene set: columns library, source, set, then `analyse`'s."""
    tables = {
        (library, source): table
        for library, name in models(study).items()
        for source, table in analyse(study, name)[1].items()
    }
    return pd.concat(tables, names=NAMES).reset_index() if tables else pd.DataFrame(columns=NAMES)
