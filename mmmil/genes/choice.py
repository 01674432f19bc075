"""Differential expression and enrichment of a fold, each a result of its own in the record.

They are the steps that read labels. With `selection: nested` they read the training patients of the fold and nobody
else's; with `selection: all_patients` the whole cohort's, which is the leak that the audits measure. Whatever reads no
label is fitted on training patients either way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from mmmil import record
from mmmil.cohort.split import fold_patients
from mmmil.genes import coverage, differential, enrichment
from mmmil.genes.coverage import Coverage
from mmmil.params import Params

if TYPE_CHECKING:
    from mmmil.genes.expression import Expression

Library = Literal["go", "kegg", "genes"]
MIN_CLASS_PATIENTS = 3  # of each class in every fold: a variance of fewer says nothing


class GeneSetError(ValueError):
    """Patients, labels or a library that no gene tokens can be made of; says which and what to do."""


def deg_table(p: Params, expression: Expression, labels: pd.Series, folds: pd.Series, fold: int) -> pd.DataFrame:
    """Differential expression on the patients whose labels choose, once for all libraries.

    Returns DESeq2's six columns indexed by gene_id, positive where higher in class 1: DESeq2 for counts, Welch's t
    (see `differential.welch`) for log2(TPM + 1) or z-scores.
    """
    fitted = choosing(p, labels, folds, fold)

    def make(folder: Path) -> dict:
        rows = rows_of(expression, fitted)
        ids, classes = expression.genes.index, labels.loc[fitted].to_numpy()
        if expression.kind == "counts":
            assert expression.counts is not None
            table = differential.differential_expression(expression.counts[rows], classes, ids, p.min_count, fitted)
        else:
            table = differential.welch(expression.level[rows], classes, ids, fitted)
        table.to_csv(folder / "deg.csv")
        return {"test": "DESeq2" if expression.kind == "counts" else "Welch", "genes": len(table)}

    inputs = deg_inputs(p, expression, labels, fitted)
    return read_table(record.cached(p.results / "genes" / "deg" / folder_name(p, fold), inputs, make) / "deg.csv")


def enrichment_table(
    p: Params, expression: Expression, labels: pd.Series, folds: pd.Series, fold: int, library: Library
) -> pd.DataFrame:
    """Enrichment of every set of a library ('go' or 'kegg') on the same patients: see `enrichment.enrich`."""
    check(p, expression, labels, folds, library)
    fitted = choosing(p, labels, folds, fold)
    inputs = deg_inputs(p, expression, labels, fitted) | {
        "gmt": record.file_digest(gmt(p, library)),
        "set_size": p.set_sizes,
        "seed": p.seed,
        "enrichment versions": record.versions("gseapy", "scipy"),
    }

    def make(folder: Path) -> dict:
        require_sets(p, expression, [library])  # a wrong GMT file is an error now, not after hours of DESeq2
        sets = enrichment.read_gmt(gmt(p, library))
        ranking = gene_statistic(p, expression, labels, folds, fold)
        table = enrichment.enrich(ranking, sets, p.set_sizes[0], p.set_sizes[1], p.seed)
        table.to_csv(folder / "enrichment.csv")
        without = int(table["pval"].isna().sum())
        return {"sets in the file": len(sets), "sets tested": len(table), "sets without p": without}

    parent = p.results / "genes" / library / "enrichment" / folder_name(p, fold)
    return read_table(record.cached(parent, inputs, make) / "enrichment.csv")


def choosing(p: Params, labels: pd.Series, folds: pd.Series, fold: int) -> list[str]:
    """Patients whose labels choose genes and sets, in cohort order: the fold's training patients; or all, a leak."""
    return list(labels.index) if p.selection == "all_patients" else patients_of(labels, folds, fold)[0]


def patients_of(labels: pd.Series, folds: pd.Series, fold: int) -> tuple[list[str], list[str]]:
    """(training patients, on whom scalers and autoencoder are fitted, patients that get tokens), in cohort order."""
    train, held_out = fold_patients(folds, fold)
    fitted, covered = set(train), {*train, *held_out}
    return [i for i in labels.index if i in fitted], [i for i in labels.index if i in covered]


def gene_statistic(p: Params, expression: Expression, labels: pd.Series, folds: pd.Series, fold: int) -> pd.Series:
    """symbol -> statistic of differential expression on the patients whose labels choose."""
    statistic = deg_table(p, expression, labels, folds, fold)["stat"]
    return statistic.set_axis(expression.genes["symbol"].reindex(statistic.index))


def folder_name(p: Params, fold: int) -> str:
    """Where a fold's results lie; those of all patients serve every fold."""
    return "all_patients" if p.selection == "all_patients" else f"fold_{fold}"


def check(p: Params, expression: Expression, labels: pd.Series, folds: pd.Series, library: Library) -> None:
    """Raise GeneSetError for an unknown library, a missing GMT file, patients that do not match or are too few."""
    if library not in ("go", "kegg", "genes"):
        raise GeneSetError(f"library '{library}' is not one of go, kegg, genes")
    gmt_file = {"go": p.go_gmt, "kegg": p.kegg_gmt, "genes": ""}[library]
    if library != "genes" and not (gmt_file and gmt(p, library).is_file()):
        raise GeneSetError(
            f"{library}_gmt: '{gmt(p, library)}' is no file; name the GMT file, or leave '{library}' out"
        )
    if set(labels.index) != set(folds.index):
        raise GeneSetError("labels and folds are not of the same patients; split these labels again")
    _require_classes(p, labels, folds)
    missing = sorted(set(labels.index) - set(expression.patients))
    if missing:
        raise GeneSetError(
            f"{len(missing)} patients have no expression ({', '.join(missing[:3])}); exclude them from the cohort"
        )


def _require_classes(p: Params, labels: pd.Series, folds: pd.Series) -> None:
    """Every fold's fitted patients must be enough of both classes: told of all folds, before the first is fitted."""
    for fold in sorted(folds.unique()):
        fitted, _ = patients_of(labels, folds, fold)
        sizes = [int((labels[fitted] == c).sum()) for c in (0, 1)]
        if min(sizes) < MIN_CLASS_PATIENTS:
            raise GeneSetError(
                f"fold {fold} would be fitted on {sizes[0]} patients of {p.class_names[0]} and {sizes[1]} of "
                f"{p.class_names[1]}, fewer than {MIN_CLASS_PATIENTS} of each: add patients, lower "
                "n_folds, or check class_values"
            )


def require_sets(p: Params, expression: Expression, libraries: Sequence[Library]) -> dict[Library, Coverage]:
    """What the data hold of each library's sets; EnrichmentError where a GMT file cannot be read or gives too few."""
    covered: dict[Library, Coverage] = {}
    for library in libraries:
        if library != "genes":
            sets = enrichment.read_gmt(gmt(p, library))
            covered[library] = coverage.coverage(sets, list(expression.genes["symbol"]), *p.set_sizes)
            data = ", ".join(p.expression_matrix) or "the expression files"
            coverage.require(covered[library], gmt(p, library), data, *p.set_sizes)
    return covered


def gmt(p: Params, library: Library) -> Path:
    """The library's GMT file."""
    return p.path(p.go_gmt if library == "go" else p.kegg_gmt)


def rows_of(expression: Expression, patients: Sequence[str]) -> np.ndarray:
    """Rows of these patients in the expression matrices, int."""
    row = {patient: i for i, patient in enumerate(expression.patients)}
    return np.array([row[patient] for patient in patients])


def deg_inputs(p: Params, expression: Expression, labels: pd.Series, fitted: list[str]) -> dict:
    """What differential expression depends on, for the key of it and of all that is built on it."""
    return {
        "expression": _fingerprint(expression),
        "fitted": fitted,
        "labels": labels.loc[fitted].tolist(),
        "min_count": p.min_count,
        "deg versions": record.versions("pydeseq2", "numpy", "scipy"),
    }


def _fingerprint(expression: Expression) -> str:
    stated = getattr(expression, "fingerprint", None)
    if stated:
        return stated
    hasher = hashlib.sha256(record.digest([expression.patients, expression.kind]).encode())
    hasher.update(record.digest([expression.genes.index.tolist(), expression.genes["symbol"].tolist()]).encode())
    for values in (expression.counts, expression.level):
        if values is not None:
            hasher.update(np.ascontiguousarray(values).data)
    return hasher.hexdigest()[:16]


def read_table(path: Path) -> pd.DataFrame:
    """A table of genes or sets as it was written, bit for bit; a gene or set called NA stays one."""
    return pd.read_csv(
        path,
        index_col=0,
        float_precision="round_trip",
        keep_default_na=False,
        na_values={name: [""] for name in [*differential.COLUMNS, "es", "nes", "pval", "fdr"]},
    )
