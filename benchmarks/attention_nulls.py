"""Tests over attention where there is nothing to find, and where it is known what there is to find.

    python benchmarks/attention_nulls.py              20 null cohorts and 5 planted ones: half an hour on two cores
    python benchmarks/attention_nulls.py --seeds 4 --planted 1

Null cohorts (`sim_null`) have no difference between the classes, so a test at level α may call α of the sets
significant. Every gene set's p is taken from the record of one proposed model (dual attention, GO sets) and its nulls.
Planted cohorts have 15 % of the sets planted, and here all sets are tokens, so that attention could miss the planted
ones. Each cohort's table is kept under results/benchmarks/attention_nulls/ and found again; a run that was cut goes on.
Writes benchmarks/results/attention_nulls.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.metrics import roc_auc_score

from mmmil import attention_nulls, experiments, gene_attention, params, record, simulate, study

SMALL = {
    **{"sim_patients": 60, "sim_slide_px": 512, "sim_genes": 600, "sim_sets": 20, "sim_image_share": 0.9},
    **{"test_fraction": 0.4, "n_folds": 2, "n_tiles": 4, "tile_px": 64, "apoz_tiles": 32, "ae_epochs": 5},
    **{"ae_hidden": 32, "latent_dim": 24, "width": 48, "variants": ["dual_go"], "null_models": 5, "null_draws": 199},
}
# Every set is a token: none has an adjusted p below this, so that all are taken by rank.
ALL_SETS = {"gene_set_fdr": 1e-300, "fallback_sets": 1000}
TESTS = {"p": "Mann-Whitney U", **{f"p_{null}": shown for null, shown in attention_nulls.SHOWN_AS.items()}}
HERE = params.root() / "results" / "benchmarks" / "attention_nulls"


def cohort(kind: str, seed: int) -> pd.DataFrame:
    """A row per source and gene set of one cohort, found again or made now: its p under every null."""
    effect = {"sim_null": True, "epochs": 6} if kind == "null" else {"sim_effect": 1.5, "epochs": 20}
    place = HERE / f"{kind}_{seed}"
    p = params.load(
        "nsclc", "demo", **SMALL | ALL_SETS | effect,
        seed=seed, data_dir=str(place / "data"), results_dir=str(place / "results"),
    )  # fmt: skip
    kept = HERE / f"{kind}_{seed}_{record.digest([p.stage(*params.STAGES), _code()])}.csv"
    if kept.is_file():
        return pd.read_csv(kept)
    simulate.make(p, 1)
    s = study.load(p)
    attention, tables = gene_attention.analyse(s, "dual_go")
    tables = attention_nulls.against(s, "dual_go")
    truth = gene_attention.planted_sets(p, "go")
    found = pd.concat([t.assign(source=source, planted=truth[t.index]) for source, t in tables.items()])
    found["mean"] = [attention.over_sets(row.source)[name].mean() for name, row in found.iterrows()]
    found["auc"] = roc_auc_score(attention.labels, attention.prob)
    found["seed"] = seed
    record.write_atomically(kept, lambda path: found.to_csv(path, index_label="set"))
    shutil.rmtree(place)  # slides and models of a cohort that is looked at once
    return found.rename_axis("set").reset_index()


def _code() -> str:
    modules = [*attention_nulls.CODE, *experiments.CODE, "simulate", "simulate_genes", "simulate_slides", "genesets"]
    return record.source_digest(*(f"mmmil.{module}" for module in modules))


def rates(found: pd.DataFrame) -> list[str]:
    """Share of the sets called significant, mean over cohorts and its standard error: the cohort is the unit."""
    lines = ["| attention | test | p ≤ 0.05 | p ≤ 0.01 | smallest p |", "| --- | --- | --- | --- | --- |"]
    for source, own in found.groupby("source", sort=False):
        for column, shown in TESTS.items():
            cells = []
            for level in (0.05, 0.01):
                share = (own[column] <= level).groupby(own["seed"]).mean()
                cells.append(f"{share.mean():.3f} ± {share.std() / len(share) ** 0.5:.3f}")
            lines.append(
                f"| {gene_attention.SHOWN_AS[source]} | {shown} | {' | '.join(cells)} | {own[column].min():.4f} |"
            )
    lines += ["", "| attention | rule | cohorts with any set at 0.05 | at 0.01 |", "| --- | --- | --- | --- |"]
    for source, own in found.groupby("source", sort=False):
        rules = {"adjusted p (BH)": ["fdr"], "the paper's: adjusted p and permutation p": ["fdr", "p_labels"]}
        for null in ("trained", "untrained", "size"):
            rules[f"the paper's, and {attention_nulls.SHOWN_AS[null]}"] = ["fdr", "p_labels", f"p_{null}"]
        for shown, columns in rules.items():
            worst = own[columns].max(axis=1)
            cells = [f"{int((worst <= level).groupby(own['seed']).any().sum())}" for level in (0.05, 0.01)]
            lines.append(f"| {gene_attention.SHOWN_AS[source]} | {shown} | {' | '.join(cells)} |")
    return lines


def planted(found: pd.DataFrame) -> list[str]:
    """AUROC of attention for planted sets, beside that of the prediction, and what survives the nulls, by cohort."""
    head = [
        "seed",
        "ROC-AUC of the prediction",
        "attention",
        "sets (planted)",
        "AUROC of abs. effect",
        "AUROC of mean weight",
    ]
    head += ["adjusted p < 0.01 (planted)", *(f"and {null}" for null in attention_nulls.SHOWN_AS)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for (seed, source), own in found.groupby(["seed", "source"], sort=False):
        truth, differ = own["planted"].astype(bool), own["fdr"] < 0.01
        cells = [seed, f"{own['auc'].iloc[0]:.3f}", gene_attention.SHOWN_AS[source], f"{len(own)} ({truth.sum()})"]
        cells += [f"{roc_auc_score(truth, own[c].abs()):.3f}" for c in ("effect", "mean")]
        survive = [differ, *(differ & (own[f"p_{null}"] < 0.01) for null in attention_nulls.SHOWN_AS)]
        cells += [f"{mask.sum()} ({(mask & truth).sum()})" for mask in survive]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--planted", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    tables = {}
    for kind, n in (("planted", given.planted), ("null", given.seeds)):
        jobs = Parallel(n_jobs=given.workers, return_as="generator")(delayed(cohort)(kind, seed) for seed in range(n))
        made = []
        for seed, table in enumerate(jobs):
            made.append(table)
            print(f"{kind} {seed + 1}/{n}", file=sys.stderr, flush=True)
        tables[kind] = pd.concat(made, ignore_index=True)
    test = round(SMALL["test_fraction"] * SMALL["sim_patients"])
    versions = ", ".join(f"{k} {v}" for k, v in record.versions("torch", "scipy", "numpy").items())
    auc = tables["null"].groupby("seed")["auc"].first()
    lines = [
        "# Attention over gene sets: false positives, and planted truth",
        "",
        f"Made by `python benchmarks/attention_nulls.py`, {datetime.date.today()}, commit `{record.commit()}`, "
        f"{platform.machine()}, {os.cpu_count()} cores, no GPU, Python {platform.python_version()}, {versions}. Model: "
        f"`dual_go` on synthetic cohorts of {SMALL['sim_patients']} patients, about {test} of them the test set; all "
        f"{SMALL['sim_sets']} GO-like sets are tokens; {SMALL['null_models']} models trained on permuted labels, "
        f"{SMALL['null_draws']} untrained ones, {SMALL['null_draws']} draws of random genes.",
        "",
        f"## {given.seeds} null cohorts",
        "",
        "No difference between the classes anywhere. Share of sets with a p at or below the level, mean over cohorts ± "
        f"standard error; the sets of a cohort go together. Prediction: ROC-AUC {auc.mean():.3f} ± "
        f"{auc.std() / np.sqrt(len(auc)):.3f}.",
        "",
        *rates(tables["null"]),
        "",
        f"## {given.planted} planted cohorts",
        "",
        "Numbers in brackets count the planted sets. A set survives a null where its p is below 0.01, too.",
        "",
        *planted(tables["planted"]),
    ]
    path = params.root() / "benchmarks" / "results" / "attention_nulls.md"
    record.write_atomically(path, lambda temporary: temporary.write_text("\n".join([*lines, ""])))
    print(path)


if __name__ == "__main__":
    main()
