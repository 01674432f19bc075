"""Tests over attention where there is nothing to find, and where it is known what there is to find.

    python benchmarks/attention_nulls.py              20 null studies and 3 planted cohorts: ten minutes on two cores
    python benchmarks/attention_nulls.py --seeds 4 --planted 1

Null: one cohort without signal (`sim_null`), whose labels, split, initial weights and batches are drawn anew for every
seed; dual attention over gene sets and tiles, of frozen features, which makes a training take a second. A test at
level α may call α of the sets significant. Planted: cohorts in which 15 % of the sets differ, and the proposed model.
All sets are tokens here, so that attention could miss the planted ones. A null that can give no p at a level, being
too small, "cannot decide" there: nothing is counted. What a seed gave is kept under
results/benchmarks/attention_nulls/ and found again, so a run that was cut goes on. Writes
benchmarks/results/attention_nulls.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.metrics import roc_auc_score

from mmmil import params, record, source_code, study
from mmmil.cohort import build as cohorts
from mmmil.interpretation import gene_sets, nulls
from mmmil.simulate import cohort as synthetic
from mmmil.simulate import truth as planted_truth

SMALL = {
    **{"sim_patients": 60, "sim_slide_px": 512, "sim_genes": 600, "sim_sets": 20, "sim_image_share": 0.9},
    **{"test_fraction": 0.4, "n_folds": 2, "n_tiles": 4, "tile_px": 64, "apoz_tiles": 32, "ae_epochs": 5},
    **{"ae_hidden": 32, "latent_dim": 24, "width": 48, "null_models": 5, "null_draws": 199},
}
MODEL = {"null": "resnet50d_go", "planted": "dual_go"}
# Every set is a token: none has an adjusted p below this, so that all are taken by rank.
ALL_SETS = {"gene_set_fdr": 1e-300, "fallback_sets": 1000}
TESTS = {"p": "Mann-Whitney U", **{f"p_{null}": title for null, title in nulls.SHOWN_AS.items()}}
HERE = params.root() / "results" / "benchmarks" / "attention_nulls"


def settings(kind: str, seed: int) -> params.Params:
    """Parameters of the null cohort, or of one planted cohort."""
    place = HERE / (kind if kind == "null" else f"{kind}_{seed}")
    changed = {"sim_null": True, "epochs": 6} if kind == "null" else {"sim_effect": 1.5, "epochs": 20}
    changed |= {"variants": [MODEL[kind]], "data_dir": str(place / "data"), "results_dir": str(place / "results")}
    return params.load("nsclc", "demo", **SMALL | ALL_SETS | changed | {"seed": 0 if kind == "null" else seed})


def null_study(seed: int) -> study.Study:
    """The null cohort with labels and split of this seed; its labels tell nothing, so any others do as well."""
    loaded = study.load(settings("null", seed))
    p = loaded.p.override(seed=seed)
    patients = loaded.cohort.patients.copy()
    patients["label"] = np.random.default_rng(seed).permutation(patients["label"].to_numpy())
    cohort = dataclasses.replace(loaded.cohort, patients=patients)
    return study.Study(p, cohort, cohorts.folds_of(patients, p), loaded.tiles)


def tested(kind: str, seed: int) -> pd.DataFrame:
    """A row per source and gene set of one seed, found again or made now: its p under every null."""
    p = settings(kind, seed)
    file = HERE / f"{kind}_{seed}_{record.digest([p.stage(*params.STAGES), _code()])}.csv"
    if file.is_file():
        return pd.read_csv(file)
    if kind == "planted":
        synthetic.make(p, 1)
    s = null_study(seed) if kind == "null" else study.load(p)
    attention, _ = gene_sets.analyse(s, MODEL[kind])
    tables = nulls.against(s, MODEL[kind])
    truth = planted_truth.planted_sets(p, "go")
    sets = pd.concat([t.assign(source=source, planted=truth[t.index]) for source, t in tables.items()])
    sets["mean"] = [attention.over_sets(row.source)[name].mean() for name, row in sets.iterrows()]
    sets["auc"] = roc_auc_score(attention.labels, attention.prob)
    sets["seed"] = seed
    record.write_atomically(file, lambda path: sets.to_csv(path, index_label="set"))
    if kind == "planted":
        shutil.rmtree(p.results.parent)  # slides and models of a cohort that is looked at once
    return sets.rename_axis("set").reset_index()


def _code() -> str:
    return source_code.digest("mmmil.interpretation", "mmmil.simulate")


def rates(tests: pd.DataFrame) -> list[str]:
    """Share of the sets called significant, mean over seeds and its standard error: the seed is the unit."""
    lines = ["| attention | test | p ≤ 0.05 | p ≤ 0.01 | smallest p found | least p possible |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for source, rows in tests.groupby("source", sort=False):
        for column, test in TESTS.items():
            cells, least = [], least_p(rows, column)
            for level in (0.05, 0.01):
                share = (rows[column] <= level).groupby(rows["seed"]).mean()
                share_text = f"{share.mean():.3f} ± {share.std() / len(share) ** 0.5:.3f}"
                cells.append(share_text if least <= level else "cannot decide")
            cells += [f"{rows[column].min():.4f}", f"{least:.4f}" if least else "–"]
            lines.append(f"| {gene_sets.SHOWN_AS[source]} | {test} | {' | '.join(cells)} |")
    lines += ["", "| attention | rule | seeds with any set at 0.05 | at 0.01 |", "| --- | --- | --- | --- |"]
    for source, rows in tests.groupby("source", sort=False):
        rules = {"adjusted p (BH)": ["fdr"], "the paper's: adjusted p and permutation p": ["fdr", "p_labels"]}
        for null in ("trained", "untrained", "size"):
            rules[f"the paper's, and {nulls.SHOWN_AS[null]}"] = ["fdr", "p_labels", f"p_{null}"]
        for rule, columns in rules.items():
            worst = rows[columns].max(axis=1)
            least = max(least_p(rows, column) for column in columns)
            cells = [
                f"{int((worst <= level).groupby(rows['seed']).any().sum())}" if least <= level else "cannot decide"
                for level in (0.05, 0.01)
            ]
            lines.append(f"| {gene_sets.SHOWN_AS[source]} | {rule} | {' | '.join(cells)} |")
    return lines


def least_p(rows: pd.DataFrame, column: str) -> float:
    """The least p that a null of this size can give; 0 for tests that are no null."""
    return rows[column.replace("p_", "least_")].max() if column.startswith("p_") else 0.0


def planted(tests: pd.DataFrame) -> list[str]:
    """AUROC of attention for planted sets, beside that of the prediction, and what survives the nulls, by cohort."""
    head = [
        "seed",
        "ROC-AUC of the prediction",
        "attention",
        "sets (planted)",
        "AUROC of abs. effect",
        "AUROC of mean weight",
    ]
    head += ["adjusted p < 0.01 (planted)", *(f"and {null}" for null in nulls.SHOWN_AS)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for (seed, source), rows in tests.groupby(["seed", "source"], sort=False):
        truth, differ = rows["planted"].astype(bool), rows["fdr"] < 0.01
        cells = [seed, f"{rows['auc'].iloc[0]:.3f}", gene_sets.SHOWN_AS[source], f"{len(rows)} ({truth.sum()})"]
        cells += [f"{roc_auc_score(truth, rows[c].abs()):.3f}" for c in ("effect", "mean")]
        survive = [differ, *(differ & (rows[f"p_{null}"] < 0.01) for null in nulls.SHOWN_AS)]
        least = [0.0, *(least_p(rows, f"p_{null}") for null in nulls.SHOWN_AS)]
        cells += [
            f"{mask.sum()} ({(mask & truth).sum()})" if p < 0.01 else "cannot decide"
            for mask, p in zip(survive, least, strict=True)
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--planted", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    tables = {}
    synthetic.make(settings("null", 0), given.workers)
    study.load(settings("null", 0), given.workers)  # tiles, which every seed finds
    for kind, n in (("null", given.seeds), ("planted", given.planted)):
        jobs = Parallel(n_jobs=given.workers, return_as="generator")(delayed(tested)(kind, seed) for seed in range(n))
        seed_tables = []
        for seed, table in enumerate(jobs):
            seed_tables.append(table)
            print(f"{kind} {seed + 1}/{n}", file=sys.stderr, flush=True)
        tables[kind] = pd.concat(seed_tables, ignore_index=True)
    test = round(SMALL["test_fraction"] * SMALL["sim_patients"])
    auc = tables["null"].groupby("seed")["auc"].first()
    lines = [
        "# Attention over gene sets: false positives, and planted truth",
        "",
        f"Made by `python benchmarks/attention_nulls.py`, {record.made_on('torch', 'scipy', 'numpy')}. "
        f"Synthetic cohorts of {SMALL['sim_patients']} patients, about {test} of them the test set; all "
        f"{SMALL['sim_sets']} GO-like sets are tokens; {SMALL['null_models']} models trained on permuted labels, "
        f"{SMALL['null_draws']} untrained ones, {SMALL['null_draws']} draws of random genes. The least p that a null "
        "can give is 1 / (1 + its size); the null of permuted trainings is pooled over the sets and barely decides at "
        f"0.01, where none of its {SMALL['null_models'] * SMALL['sim_sets']} effects may reach that of the set.",
        "",
        f"## No signal, {given.seeds} seeds",
        "",
        f"Variant `{MODEL['null']}` on one cohort without any difference between the classes; labels, split and "
        "weights are drawn anew for every seed. Share of sets with a p at or below the level, mean over seeds ± "
        "standard error; the sets of a seed go together. "
        f"Prediction: ROC-AUC {auc.mean():.3f} ± {auc.std() / np.sqrt(len(auc)):.3f}.",
        "",
        *rates(tables["null"]),
        "",
        f"## Planted sets, {given.planted} cohorts",
        "",
        f"Variant `{MODEL['planted']}`. Numbers in brackets count the planted sets. A set survives a null where its p "
        "is below 0.01, too.",
        "",
        *planted(tables["planted"]),
    ]
    path = params.root() / "benchmarks" / "results" / "attention_nulls.md"
    record.write_atomically(path, lambda temporary: temporary.write_text("\n".join([*lines, ""])))
    print(path)


if __name__ == "__main__":
    main()
