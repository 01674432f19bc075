"""Gene tokens: everything between an expression matrix and the model, fitted on a fold's training patients.

Differential expression → enrichment → chosen sets → levels scaled per gene → one autoencoder → one latent vector per
patient and set, scaled per set (Preprocessing, Fig. 6). Each of these steps sees the training patients of the fold and
nobody else; with `selection: all_patients` those that read labels see the whole cohort, held-out test patients too: the
leak that the audits measure. Every step is a result of its own in the record, found again by its inputs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import delayed
from tqdm import tqdm

from mmmil import record
from mmmil.genes import enrichment
from mmmil.genes.choice import (
    GeneSetError,
    Library,
    check,
    choosing,
    deg_inputs,
    deg_table,
    enrichment_table,
    gene_statistic,
    gmt,
    patients_of,
    require_sets,
    rows_of,
)
from mmmil.genes.transform import Transform, one_thread, union
from mmmil.params import Params
from mmmil.processes.pool import parallel

if TYPE_CHECKING:
    from mmmil.genes.encoder import GeneSetEncoder
    from mmmil.genes.expression import Expression

__all__ = ["GeneSetError", "GeneTokens", "all_folds", "deg_table", "enrichment_table", "stability", "tokens"]

SINGLE = "single-gene vector"
# What a token depends on beside the two tables above it; the rest of the stage does not make it again.
VECTOR = {"gene_scaling", "gene_clip", "single_genes"}
SETS = {
    *("gene_set_fdr", "set_sizes", "fallback_sets", "max_sets"),
    *("gene_order", "gene_scaling", "gene_clip"),
    *("latent_dim", "ae_hidden", "ae_epochs", "ae_batch", "ae_loss"),
}


@dataclass(frozen=True)
class GeneTokens:
    """Gene tokens of a fold's training and evaluation patients.

    patients: in cohort order; names: of the tokens (gene sets, best first; one for the single-gene vector);
    tokens: (patients, names, length) float32; genes: name -> its symbols; passed: False where the sets are the best
    by rank because fewer than two were significant; folder: what was fitted (`Transform.load`), enrichment.csv,
    losses.csv, errors.csv, ...
    """

    patients: list[str]
    names: list[str]
    tokens: np.ndarray
    genes: dict[str, list[str]]
    passed: bool
    folder: Path


def tokens(
    p: Params, expression: Expression, labels: pd.Series, folds: pd.Series, fold: int, library: Library
) -> GeneTokens:
    """Gene tokens of fold `fold` (-1: final model, evaluated on the test patients), made now or found in the record.

    labels: patient_id -> 0/1, in cohort order; folds: patient_id -> fold, -1 for test patients; library: 'go' and
    'kegg' give one token per gene set, 'genes' one token that holds the levels of the `single_genes` genes with the
    largest absolute statistic. Raises GeneSetError, DegError or EnrichmentError before the long work.
    """
    check(p, expression, labels, folds, library)
    _, covered = patients_of(labels, folds, fold)
    folder = _folder(p, expression, labels, folds, fold, library)
    sets = json.loads((folder / "sets.json").read_text())
    with np.load(folder / "tokens.npz") as saved:
        values = saved["tokens"]
    return GeneTokens(
        patients=covered,
        names=list(sets["genes"]),
        tokens=values,
        genes=sets["genes"],
        passed=sets["passed"],
        folder=folder,
    )


def _place(
    p: Params, expression: Expression, labels: pd.Series, folds: pd.Series, fold: int, library: Library
) -> tuple[Path, dict]:
    """Where the tokens of a fold and library lie, and what they depend on."""
    fitted, covered = patients_of(labels, folds, fold)
    inputs = deg_inputs(p, expression, labels, choosing(p, labels, folds, fold)) | {
        "fitted": fitted,
        "covered": covered,
        "library": library,
        "seed": p.seed,
        "parameters": {name: getattr(p, name) for name in (VECTOR if library == "genes" else SETS)},
        "versions": record.versions("pydeseq2", "gseapy", "torch", "numpy", "scipy"),
    }
    if library != "genes":
        inputs["gmt"] = record.file_digest(gmt(p, library))
    return p.results / "genes" / library / f"{p.selection}_fold_{fold}", inputs


def _folder(
    p: Params, expression: Expression, labels: pd.Series, folds: pd.Series, fold: int, library: Library
) -> Path:
    """The folder of a fold's tokens, made now or found in the record."""
    fitted, covered = patients_of(labels, folds, fold)

    def make(folder: Path) -> dict:
        if library == "genes":
            statistic = gene_statistic(p, expression, labels, folds, fold)
            return _make_vector(p, expression, statistic, fitted, covered, folder)
        enriched = enrichment_table(p, expression, labels, folds, fold, library)
        names, passed = enrichment.select(enriched, p.gene_set_fdr, p.fallback_sets, p.max_sets)
        enriched.assign(selected=enriched.index.isin(names)).to_csv(folder / "enrichment.csv")
        ranked = enrichment.rank(gene_statistic(p, expression, labels, folds, fold))
        sets = enrichment.within(enrichment.read_gmt(gmt(p, library)), ranked.index, *p.set_sizes)
        chosen = {name: sets[name] for name in names}
        if p.gene_order == "leading":
            chosen = {n: enrichment.leading_first(genes, ranked, enriched.loc[n, "nes"]) for n, genes in chosen.items()}
        return _make_latents(p, expression, chosen, passed, fitted, covered, folder)

    return record.cached(*_place(p, expression, labels, folds, fold, library), make)


def encoder_inputs(expression: Expression, fold_tokens: GeneTokens) -> tuple[np.ndarray, GeneSetEncoder]:
    """What a model that trains the encoder half itself reads in place of `fold_tokens.tokens`, and that half as fitted.

    Returns the levels (patients, genes) float32 of all genes of the sets, in the order of `fold_tokens.patients`, and
    the module that makes `fold_tokens.tokens` of them until it is trained.
    """
    transform = Transform.load(fold_tokens.folder)
    rows = rows_of(expression, fold_tokens.patients)
    return transform.levels(expression.level, list(expression.genes["symbol"]))[rows], transform.encoder()


def all_folds(
    p: Params,
    expression: Expression,
    labels: pd.Series,
    folds: pd.Series,
    libraries: Sequence[Library] = ("go", "kegg", "genes"),
    workers: int = 1,
) -> pd.DataFrame:
    """Make the tokens of every fold and of the final model, one fold per process.

    Returns one row per fold and library: fold, library, tokens, tested, significant, passed, folder. The numbers do
    not depend on `workers`: every process computes on one thread.
    """
    for library in libraries:
        check(p, expression, labels, folds, library)
    require_sets(p, expression, libraries)
    numbers = [-1, *sorted(int(k) for k in folds.unique() if k >= 0)]
    if p.selection == "all_patients":  # the first fold makes the choice that the others find
        _one_fold(p, expression, labels, folds, -1, libraries)
    # Finding what is there takes no process: only folds that lack something are sent to one.
    places = {fold: [_place(p, expression, labels, folds, fold, library) for library in libraries] for fold in numbers}
    lacking = [fold for fold in numbers if not all(record.find(*place, __name__) for place in places[fold])]
    jobs = parallel(workers, return_as="generator_unordered")(
        delayed(_one_fold)(p, expression, labels, folds, fold, libraries) for fold in lacking
    )
    bar = tqdm(jobs, total=len(numbers), initial=len(numbers) - len(lacking), desc="gene tokens", unit="fold")
    folders = dict(bar)
    for fold in set(numbers) - set(lacking):
        folders[fold] = [parent / record.key(inputs, __name__) for parent, inputs in places[fold]]
    rows = [
        {"fold": fold, "library": library} | _summary(p, folder)
        for fold in numbers
        for library, folder in zip(libraries, folders[fold], strict=True)
    ]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["fold", "library", "tokens", "passed", "folder"])
    return table.sort_values(["library", "fold"], ignore_index=True)


def _one_fold(
    p: Params, expression: Expression, labels: pd.Series, folds: pd.Series, fold: int, libraries: Sequence[Library]
) -> tuple[int, list[Path]]:
    return fold, [_folder(p, expression, labels, folds, fold, library) for library in libraries]


def _summary(p: Params, folder: Path) -> dict:
    """A row of `all_folds`: tested and significant are those of the libraries that have gene sets."""
    sets = json.loads((folder / "sets.json").read_text())
    row = {"tokens": len(sets["genes"]), "passed": sets["passed"]}
    if (folder / "enrichment.csv").is_file():
        table = pd.read_csv(folder / "enrichment.csv")
        row |= {"tested": len(table), "significant": int((table["fdr"] < p.gene_set_fdr).sum())}
    return row | {"folder": str(folder)}


def stability(names: dict[int, Sequence[str]]) -> pd.DataFrame:
    """Jaccard index of the sets chosen in every two folds: (folds, folds) in [0, 1]; 1 where the choice is the same.

    names: fold -> its chosen sets.
    """
    chosen = {fold: set(sets) for fold, sets in names.items()}
    table = [[len(a & b) / max(len(a | b), 1) for b in chosen.values()] for a in chosen.values()]
    return pd.DataFrame(table, index=pd.Index(chosen, name="fold"), columns=pd.Index(chosen, name="fold"))


# -- the two kinds of tokens: torch is imported here, for finding a result does not need its seconds -----------------
def _make_latents(
    p: Params,
    expression: Expression,
    sets: dict[str, list[str]],
    passed: bool,
    fitted: list[str],
    covered: list[str],
    folder: Path,
) -> dict:
    from mmmil.genes import scaling
    from mmmil.genes.autoencoder import GeneSetAutoencoder

    symbols = union(sets)
    rows, fitted_rows = rows_of(expression, covered), rows_of(expression, fitted)
    scale = _gene_scale(p, expression, symbols, fitted_rows)
    model = GeneSetAutoencoder(p.ae_hidden, p.latent_dim, p.ae_epochs, p.ae_batch, p.seed, p.ae_loss)
    unscaled = Transform(sets, passed, *scale, model)
    with one_thread():
        level = unscaled.levels(expression.level, list(expression.genes["symbol"]))
        latents, losses, errors = scaling.encode_sets(level, symbols, sets, fitted_rows, rows, model)
    token_scale = scaling.token_scale(latents, np.flatnonzero(np.isin(rows, fitted_rows)))
    transform = replace(unscaled, token_mean=token_scale[0], token_sd=token_scale[1])
    losses.to_csv(folder / "losses.csv")
    errors.to_csv(folder / "errors.csv")
    return _write(folder, transform, expression, rows)


def _make_vector(
    p: Params, expression: Expression, statistic: pd.Series, fitted: list[str], covered: list[str], folder: Path
) -> dict:
    ranked = enrichment.rank(statistic)
    if len(ranked) < p.single_genes:
        raise GeneSetError(f"single_genes is {p.single_genes}, but only {len(ranked)} genes were tested; lower it")
    genes = ranked.index[np.argsort(-ranked.abs().to_numpy(), kind="stable")[: p.single_genes]].tolist()
    scale = _gene_scale(p, expression, genes, rows_of(expression, fitted))
    return _write(folder, Transform({SINGLE: genes}, True, *scale), expression, rows_of(expression, covered))


def _gene_scale(
    p: Params, expression: Expression, symbols: list[str], fitted_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool, float]:
    """Of a Transform: mean and deviation of some genes over the fitted rows, whether they are used, and the cut."""
    from mmmil.genes import scaling

    column = {symbol: i for i, symbol in enumerate(expression.genes["symbol"])}
    level = expression.level[:, [column[symbol] for symbol in symbols]]
    return *scaling.gene_scale(level, fitted_rows), p.gene_scaling == "zscore", p.gene_clip


def _write(folder: Path, transform: Transform, expression: Expression, rows: np.ndarray) -> dict:
    """Write what was fitted, and the tokens that it makes of some rows of the expression."""
    values = transform.apply(expression.level[rows], list(expression.genes["symbol"]))
    if not np.isfinite(values).all():
        raise GeneSetError("gene tokens are not finite: use gene_scaling: zscore")
    np.savez(folder / "tokens.npz", tokens=values.astype(np.float32))
    transform.save(folder)
    return {"tokens": len(transform.genes), "passed": transform.passed}
