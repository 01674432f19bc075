"""How often the book's intervals hold the truth, and how often its tests find a difference where there is none.

    python benchmarks/intervals.py                  all: minutes on two cores
    python benchmarks/intervals.py --repeats 200

Cohorts of the size of the paper's LGG, 374 patients in five folds and 94 held out, are drawn from two Gaussian
classes. Two logistic regressions are refitted on every fold, and on all 374 for the test set, as the book's models
are: one reads ten features, the other ten others that correlate with them. The AUC of a fitted linear score w is known
exactly, Phi(w mu / sqrt(2 w' Sigma w)), and its average precision by integration, so that coverage can be counted for
two truths: that of these very models (what new patients would show), and the mean over trainings (what new training
patients would show as well). Writes benchmarks/results/intervals.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from mmmil import record
from mmmil.evaluation import bootstrap, metrics, paired_tests

DEVELOPMENT, TEST, FOLDS, FEATURES, CORRELATION = 374, 94, 5, 10, 0.5
# Distance between the classes in the features that model a reads, and in those that b reads.
SETTINGS = {
    "no difference, AUC about 0.77": (1.1, 1.1),
    "a difference, AUC about 0.84 and 0.77": (1.45, 1.1),
    "no difference, AUC about 0.97": (2.7, 2.7),
}
SIGMA = np.kron([[1, CORRELATION], [CORRELATION, 1]], np.eye(FEATURES))
COLUMNS = {"a": slice(0, FEATURES), "b": slice(FEATURES, 2 * FEATURES)}


def truth(w: np.ndarray, which: slice, mu: np.ndarray) -> dict[str, float]:
    """ROC-AUC and average precision (classes of equal size) of the score w x in the population."""
    d = w @ mu[which] / np.sqrt(w @ SIGMA[which, which] @ w)
    cut = np.linspace(-8, 8 + abs(d), 4001)
    tpr, fpr = stats.norm.sf(cut - d), stats.norm.sf(cut)
    precision = tpr / (tpr + fpr)
    return {"roc_auc": stats.norm.cdf(d / np.sqrt(2)), "pr_auc": -np.trapezoid(precision, tpr)}


def one_cohort(seed: int, distances: tuple[float, float], draws: int) -> list[tuple]:
    """(metric, split, what, estimate, low, high, p, truth of these models) of every interval on one cohort."""
    rng = np.random.default_rng([seed, *(int(1000 * d) for d in distances)])
    mu = np.repeat(np.array(distances) / np.sqrt(FEATURES), FEATURES)
    label = np.r_[np.arange(DEVELOPMENT) % 2, np.arange(TEST) % 2]
    x = rng.multivariate_normal(np.zeros(2 * FEATURES), SIGMA, len(label), method="cholesky") + label[:, None] * mu
    fold = np.full(len(label), -1)
    for k, (_, held) in enumerate(StratifiedKFold(FOLDS).split(x[:DEVELOPMENT], label[:DEVELOPMENT])):
        fold[held] = k
    prob, true = {n: np.empty(len(label)) for n in COLUMNS}, {n: {} for n in COLUMNS}
    for name, which in COLUMNS.items():
        for k in range(-1, FOLDS):
            model = LogisticRegression().fit(x[(fold >= 0) & (fold != k)][:, which], label[(fold >= 0) & (fold != k)])
            prob[name][fold == k] = model.predict_proba(x[fold == k][:, which])[:, 1]
            true[name][k] = truth(model.coef_[0], which, mu)
    rows = []
    for split, in_split in (("val", fold >= 0), ("test", fold == -1)):
        models = range(FOLDS) if split == "val" else [-1]
        for metric in ("roc_auc", "pr_auc"):
            mean = {n: np.mean([true[n][k][metric] for k in models]) for n in COLUMNS}
            each = {
                n: [metrics.weighted_scores(label[fold == k], prob[n][fold == k], np.ones((1, (fold == k).sum())))
                    for k in models]
                for n in COLUMNS
            }  # fmt: skip
            each = {n: np.array([scores[metric][0] for scores in each[n]]) for n in COLUMNS}
            if split == "val":
                value, low, high = metrics.mean_interval(each["a"])
            else:
                low, high = bootstrap.bootstrap_interval(
                    label[in_split], prob["a"][in_split], 0.5, 0.95, draws, seed
                ).loc[metric]
                value = each["a"][0]
            name = "a: t over folds" if split == "val" else "a: bootstrap"
            rows.append((metric, split, name, value, low, high, np.nan, mean["a"]))
            both = label[in_split], prob["a"][in_split], prob["b"][in_split]
            tests = {}
            if split == "val":
                tests["paired t"] = paired_tests.paired_t(each["a"], each["b"])
                tests["corrected t"] = paired_tests.corrected_t(each["a"], each["b"], 1 / FOLDS)
            if metric == "roc_auc":
                tests["DeLong"] = paired_tests.delong(*both, folds=fold[in_split])
            tests["bootstrap"] = bootstrap.paired_bootstrap(*both, fold[in_split], metric, draws=draws, seed=seed)
            for test, (value, low, high, p, _) in tests.items():
                rows.append((metric, split, f"a − b: {test}", value, low, high, p, mean["a"] - mean["b"]))
        value, low, high, p, _ = paired_tests.mcnemar(label[in_split], prob["a"][in_split], prob["b"][in_split])
        rows.append(("accuracy", split, "a − b: McNemar", value, low, high, p, np.nan))
    return rows


def table(cohorts: list[list[tuple]], is_null: bool) -> list[str]:
    columns = ["metric", "split", "interval", "estimate", "low", "high", "p", "truth"]
    intervals = pd.DataFrame([row for rows in cohorts for row in rows], columns=columns)
    lines = ["| metric | split | interval | mean estimate | truth | covers the truth of these models |"]
    lines[0] += " covers the mean over trainings | p < 0.05 |"
    lines.append("| --- " * 8 + "|")
    for (metric, split, interval), rows in intervals.groupby(["metric", "split", "interval"], sort=False):
        expected = rows["truth"].mean()
        if metric == "accuracy" and is_null:
            expected = 0.0  # by symmetry
        covers = [
            "" if np.isnan(np.max(value)) else f"{((rows['low'] <= value) & (value <= rows['high'])).mean():.3f}"
            for value in (rows["truth"], expected)
        ]
        significant = "" if rows["p"].isna().all() else f"{(rows['p'] < 0.05).mean():.3f}"
        cells = [metric, split, interval, f"{rows['estimate'].mean():.3f}"]
        cells += ["" if np.isnan(expected) else f"{expected:.3f}", *covers, significant]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    start, lines = time.monotonic(), []
    for name, distances in SETTINGS.items():
        jobs = (delayed(one_cohort)(seed, distances, given.draws) for seed in range(given.repeats))
        cohorts = Parallel(n_jobs=given.workers)(jobs)
        lines += [f"## {name[0].upper()}{name[1:]}", "", *table(cohorts, distances[0] == distances[1]), ""]
        print("\n".join(lines), flush=True)
    error = 1.96 * np.sqrt(0.95 * 0.05 / given.repeats)
    versions = record.versions("scipy", "scikit-learn", "numpy")
    head = [
        "# Coverage of the intervals, and errors of the tests, on simulated cohorts",
        "",
        f"Made by `python benchmarks/intervals.py --repeats {given.repeats} --draws {given.draws}`, "
        f"{datetime.date.today()}, commit `{record.commit()}`, {platform.machine()}, Python "
        f"{platform.python_version()}, " + ", ".join(f"{n} {v}" for n, v in versions.items()) + "; "
        f"{(time.monotonic() - start) / 60:.0f} minutes with {given.workers} processes.",
        "",
        f"{DEVELOPMENT} patients in {FOLDS} folds (val) and {TEST} held out (test), {given.repeats} cohorts a table. "
        "An interval of 95 % should cover in 0.950 of them, and where there is no difference p < 0.05 should come in "
        f"0.050; {given.repeats} cohorts leave ± {error:.3f} to chance. The truth of these models is that of the very "
        "models fitted on a cohort; the mean over trainings is one number, what such a model reaches on average. "
        "Where there is a difference, the last column is the power.",
        "",
    ]
    path = Path(__file__).parent / "results" / "intervals.md"
    record.write_atomically(path, lambda temporary: temporary.write_text("\n".join([*head, *lines])))
    print(path)


if __name__ == "__main__":
    main()
