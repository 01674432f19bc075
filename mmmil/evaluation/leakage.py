"""The null audit: what the choice of gene sets gives where there is nothing to find, nested and leaking.

The paper does not say which patients DESeq2, GSEA and the autoencoder saw. With shuffled labels a fair road ends at a
ROC-AUC of 0.5; what a road reaches above it that has seen the evaluated patients (`selection: all_patients`) is its
own making. The leak is the choice of genes and sets and their order, which read labels; scaling and autoencoder read
none.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import delayed
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from mmmil import record
from mmmil.evaluation import metrics
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.genes.choice import Library, check, deg_inputs, gmt
from mmmil.models import baselines
from mmmil.params import Params
from mmmil.processes.pool import parallel

if TYPE_CHECKING:
    from mmmil.genes.expression import Expression
    from mmmil.genes.tokens import GeneTokens

COLUMNS = ["selection", "library", "repeat", "fold", "roc_auc", "passed"]
SELECTIONS = ("nested", "all_patients")
STRENGTH = 1e-2  # of the logistic regression: tokens are scaled, and a patient has hundreds to thousands of numbers


def libraries(p: Params) -> list[Library]:
    """What is audited: one library of sets, since a second one leaks in the same way, and the single-gene vector."""
    sets: list[Library] = ["go"] if p.go_gmt else ["kegg"] if p.kegg_gmt else []
    return [*sets, "genes"]


def shuffled(labels: pd.Series, folds: pd.Series, seed: Sequence[int]) -> pd.Series:
    """Labels shuffled among the patients of each fold, and of the test set; every one of them keeps its classes.

    So the labels of different folds are independent. Shuffled over all patients they would not be: a class that is
    drawn often into training is left rare in the evaluated fold, which pulls a fair AUC below 0.5.
    """
    random, mixed = np.random.default_rng(list(seed)), labels.copy()
    for fold in sorted(folds.unique()):
        patients = folds.index[folds == fold]
        mixed[patients] = random.permutation(labels[patients].to_numpy())
    return mixed


def audit(
    p: Params,
    expression: Expression,
    labels: pd.Series,
    folds: pd.Series,
    chosen: Sequence[Library] | None = None,
    workers: int = 1,
    shuffle: bool = True,
) -> pd.DataFrame:
    """ROC-AUC of a logistic regression on the gene tokens of validation folds, with nothing to find.

    labels: patient_id -> 0/1; folds: patient_id -> fold, -1 for test patients; chosen: see `libraries`. Every fold is
    evaluated `null_repeats` times, each time on labels shuffled anew, so that the values are independent of one
    another, as folds of one shuffle are not. shuffle: False takes the labels as they are, once, for a cohort without
    signal (`sim_null`); its folds do depend on one another.

    Returns COLUMNS, a row per selection, library, repeat and fold; passed is False where sets were taken by rank.
    Costs 2 x null_repeats x n_folds runs of DESeq2, and as many of GSEA and autoencoder. Every run is found again in
    the record. Raises GeneSetError as `tokens.tokens` does, ValueError where a validation fold lacks a class.
    """
    chosen = libraries(p) if chosen is None else list(chosen)
    for library in chosen:
        check(p, expression, labels, folds, library)
    numbers = sorted(int(fold) for fold in folds.unique() if fold >= 0)
    lacking = [fold for fold in numbers if labels[folds.index[folds == fold]].nunique() < 2]
    if lacking:
        raise ValueError(f"folds {lacking} have patients of one class only, so no AUC; use fewer folds")
    jobs = []
    for repeat in range(p.null_repeats if shuffle else 1):
        for fold in numbers:
            mixed = shuffled(labels, folds, [p.seed, repeat, fold]) if shuffle else labels
            jobs += [(selection, repeat, fold, mixed) for selection in SELECTIONS]
    done = parallel(workers, return_as="generator")(
        delayed(_run)(p.override(selection=selection), expression, mixed, folds, repeat, fold, chosen)
        for selection, repeat, fold, mixed in jobs
    )
    rows = [row for rows in tqdm(done, total=len(jobs), desc="null audit", unit="run") for row in rows]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values(["selection", "library"], ascending=[False, True], kind="stable", ignore_index=True)


def summary(table: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Mean ROC-AUC per selection and library, and Student's t interval over the n values (repeats x folds), in [0, 1].

    Returns selection, library, mean, ci_low, ci_high, n, by_rank (values whose sets were taken by rank).
    """
    rows = [
        (
            *key,
            *metrics.mean_interval(group["roc_auc"], confidence),
            len(group),
            int((~group["passed"].astype(bool)).sum()),
        )
        for key, group in table.groupby(["selection", "library"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["selection", "library", "mean", "ci_low", "ci_high", "n", "by_rank"])


def _run(
    p: Params,
    expression: Expression,
    labels: pd.Series,
    folds: pd.Series,
    repeat: int,
    fold: int,
    chosen: list[Library],
) -> list[tuple]:
    """The rows of one fold and one shuffle: the road is walked in a folder of its own, of which the AUCs stay."""
    from mmmil.genes import tokens as gene_tokens  # seconds of imports that the tables of a page do not need

    inputs = deg_inputs(p, expression, labels, list(labels.index)) | {
        "folds": folds.loc[labels.index].tolist(),
        "fold": fold,
        "libraries": {library: "" if library == "genes" else record.file_digest(gmt(p, library)) for library in chosen},
        "parameters": p.stage("genes"),
        "seed": p.seed,
        "versions": record.versions("pydeseq2", "gseapy", "torch", "numpy", "scipy", "scikit-learn"),
    }

    def make(folder: Path) -> dict:
        scratch_params, rows = p.override(results_dir=str(folder / "road")), {}
        for library in chosen:
            tokens = gene_tokens.tokens(scratch_params, expression, labels, folds, fold, library)
            rows[library] = {"roc_auc": _auc(tokens, labels, folds, fold), "passed": tokens.passed}
        shutil.rmtree(scratch_params.results)  # hundreds of megabytes at the paper's scale, which nobody reads
        pd.DataFrame.from_dict(rows, orient="index").to_csv(folder / "auc.csv", index_label="library")
        return {"selection": p.selection, "repeat": repeat}

    folder = record.cached(p.results / "leakage" / p.selection / f"fold_{fold}", inputs, make)
    table = pd.read_csv(folder / "auc.csv", float_precision="round_trip")
    return [(p.selection, r.library, repeat, fold, r.roc_auc, r.passed) for r in table.itertuples()]


def _auc(tokens: GeneTokens, labels: pd.Series, folds: pd.Series, fold: int) -> float:
    from sklearn.metrics import roc_auc_score  # seconds to import

    flat, y = tokens.tokens.reshape(len(tokens.patients), -1), labels[tokens.patients].to_numpy()
    held_out = (folds[tokens.patients] == fold).to_numpy()
    with threadpool_limits(1):
        prob = baselines.logistic(flat[~held_out], y[~held_out], flat[held_out], STRENGTH)
    return float(roc_auc_score(y[held_out], prob))
