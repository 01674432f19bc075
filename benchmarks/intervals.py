"""How often the book's intervals hold the truth, and how often its tests find a difference where there is none.

    python benchmarks/intervals.py                  all: minutes on two cores
    python benchmarks/intervals.py --repeats 100

Cohorts of the paper's sizes, 80 % in five folds and the rest held out, are drawn from two Gaussian classes. Logistic
regressions are refitted on every fold, and on all folds for the test set, as the book's models are: one reads ten
features, another ten that correlate with them. What a fitted linear score w x + b reaches in the population is known
exactly (its ROC-AUC is Phi(w mu / sqrt(2 w' Sigma w)), its PR-AUC an integral), so that coverage can be counted for two
truths: that of these very models (what new patients would show), and the mean over trainings (what new training
patients would show as well). One model's intervals are counted up to the ceiling, beside the t interval over folds and
the percentile bootstrap that they go beyond. Writes benchmarks/results/intervals.md.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from mmmil import record
from mmmil.evaluation import bootstrap, intervals, metrics, paired_tests
from mmmil.evaluation.metrics import METRICS

FOLDS, FEATURES, CORRELATION = 5, 10, 0.5
# Distance between the classes in the features that model a reads, and in those that b reads; LGG's size.
DIFFERENCES = {
    "no difference, AUC about 0.77": (1.1, 1.1),
    "a difference, AUC about 0.84 and 0.77": (1.45, 1.1),
    "no difference, AUC about 0.97": (2.7, 2.7),
}
# (class 0, class 1) of the development patients, and of the test patients.
Sizes = tuple[tuple[int, int], tuple[int, int]]
LGG: Sizes = ((187, 187), (47, 47))
ONE_MODEL: dict[str, Sizes] = {
    "NSCLC: 753 patients in the folds, 188 held out": ((372, 381), (93, 95)),
    "BRCA: 408 patients in the folds, 102 held out, a fifth of class 1": ((322, 86), (80, 22)),
    "a small cohort: 148 patients in the folds, 37 held out": ((75, 73), (19, 18)),
}
AUCS = (0.75, 0.95, 0.98)  # that the best linear score reaches; a fitted one a little less
SIGMA = np.kron([[1, CORRELATION], [CORRELATION, 1]], np.eye(FEATURES))
COLUMNS = {"a": slice(0, FEATURES), "b": slice(FEATURES, 2 * FEATURES)}


def truth(model: LogisticRegression, which: slice, mu: np.ndarray, share: float) -> dict[str, float]:
    """The six metrics of a fitted model in a population of which a share is of class 1, at the threshold of 0.5."""
    w, b = model.coef_[0], model.intercept_[0]
    scale = np.sqrt(w @ SIGMA[which, which] @ w)
    d, b = w @ mu[which] / scale, b / scale
    cut = np.linspace(-8, 8 + abs(d), 4001)
    tpr, fpr = stats.norm.sf(cut - d), stats.norm.sf(cut)
    precision = share * tpr / (share * tpr + (1 - share) * fpr)
    hit, wrong = stats.norm.cdf(b + d), stats.norm.cdf(b)
    return {
        "accuracy": share * hit + (1 - share) * (1 - wrong),
        "f1": 2 * share * hit / (share * hit + (1 - share) * wrong + share),
        "sensitivity": hit,
        "specificity": 1 - wrong,
        "pr_auc": -np.trapezoid(precision, tpr),
        "roc_auc": stats.norm.cdf(d / np.sqrt(2)),
    }


class Cohort(NamedTuple):
    """label, fold (n,), -1 for test patients; probability (n,) of each model; its truth by fold, a metric's mean."""

    label: np.ndarray
    fold: np.ndarray
    prob: dict[str, np.ndarray]
    true: dict[str, pd.DataFrame]


def cohort(seed: int, sizes: Sizes, distances: tuple[float, ...]) -> Cohort:
    """One cohort with its fitted models, one for each distance."""
    rng = np.random.default_rng([seed, *(int(1000 * d) for d in distances)])
    mu = np.repeat(np.array((*distances, *distances)[:2]) / np.sqrt(FEATURES), FEATURES)
    label = np.concatenate([np.repeat([0, 1], n) for n in sizes])
    noise = rng.multivariate_normal(np.zeros(2 * FEATURES), SIGMA, len(label), method="cholesky")
    x = noise + label[:, None] * mu
    fold, n = np.full(len(label), -1), sum(sizes[0])
    for k, (_, held) in enumerate(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x[:n], label[:n])):
        fold[held] = k
    prob, true = {}, {}
    for name in list(COLUMNS)[: len(distances)]:
        which, prob[name], of_fold = COLUMNS[name], np.empty(len(label)), {}
        for k in range(-1, FOLDS):
            train = (fold >= 0) & (fold != k)
            model = LogisticRegression().fit(x[train][:, which], label[train])
            prob[name][fold == k] = model.predict_proba(x[fold == k][:, which])[:, 1]
            of_fold[k] = truth(model, which, mu, label[fold == k].mean())
        true[name] = pd.DataFrame.from_dict(of_fold, orient="index")
    return Cohort(label, fold, prob, true)


def of_split(drawn: Cohort, split: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], dict[str, pd.Series]]:
    """label, fold, probabilities and mean truth of the development or the test patients."""
    here = drawn.fold >= 0 if split == "val" else drawn.fold == -1
    folds = range(FOLDS) if split == "val" else [-1]
    prob = {name: p[here] for name, p in drawn.prob.items()}
    return drawn.label[here], drawn.fold[here], prob, {name: t.loc[folds].mean() for name, t in drawn.true.items()}


def by_fold(label: np.ndarray, prob: np.ndarray, fold: np.ndarray) -> pd.DataFrame:
    one = [fold == k for k in np.unique(fold)]
    rows = [metrics.weighted_scores(label[k], prob[k], np.ones((1, k.sum()))) for k in one]
    return pd.DataFrame([{metric: values[0] for metric, values in row.items()} for row in rows])


def two_models(seed: int, distances: tuple[float, float], draws: int) -> list[tuple]:
    """(metric, split, what, estimate, low, high, p, truth of these models) of every interval on one cohort."""
    drawn, rows = cohort(seed, LGG, distances), []
    for split in ("val", "test"):
        label, fold, prob, true = of_split(drawn, split)
        each = {name: by_fold(label, p, fold) for name, p in prob.items()}
        own = {name: intervals.of_model(label, p, fold) for name, p in prob.items()}
        draw = bootstrap.drawn_scores(label, prob, fold, draws=draws, seed=seed)
        for metric in ("roc_auc", "pr_auc"):
            a, b = own["a"].loc[metric], own["b"].loc[metric]
            rows.append((metric, split, "a", *a, np.nan, true["a"][metric]))
            tests = {}
            if split == "val":
                values = each["a"][metric], each["b"][metric]
                tests["paired t"] = paired_tests.widened(paired_tests.paired_t(*values), a, b)
                tests["corrected t"] = paired_tests.widened(paired_tests.corrected_t(*values, 1 / FOLDS), a, b)
            if metric == "roc_auc":
                tests["DeLong"] = paired_tests.delong(label, prob["a"], prob["b"], folds=fold)
            tested = bootstrap.paired_difference(draw["a"][metric], draw["b"][metric], 0.95, len(label))
            tests["bootstrap"] = paired_tests.widened(tested, a, b)
            for test, (value, low, high, p, _) in tests.items():
                truth_here = true["a"][metric] - true["b"][metric]
                rows.append((metric, split, f"a − b: {test}", value, low, high, p, truth_here))
        value, low, high, p, _ = paired_tests.mcnemar(label, prob["a"], prob["b"])
        rows.append(("accuracy", split, "a − b: McNemar", value, low, high, p, np.nan))
    return rows


def one_model(seed: int, sizes: Sizes, auc: float, draws: int) -> list[tuple]:
    """(split, interval, metric, low, high, truth of these models) of one model on one cohort."""
    drawn, rows = cohort(seed, sizes, (np.sqrt(2) * stats.norm.ppf(auc),)), []
    for split in ("val", "test"):
        label, fold, prob, true = of_split(drawn, split)
        own = intervals.of_model(label, prob["a"], fold)
        if split == "val":
            each = by_fold(label, prob["a"], fold)
            before = {metric: metrics.mean_interval(each[metric])[1:] for metric in METRICS}
        else:
            draw = bootstrap.drawn_scores(label, prob, draws=draws, seed=seed)["a"][1:]
            before = {metric: bootstrap.percentile_interval(draw[metric], 0.95) for metric in METRICS}
        for metric in METRICS:
            value = own.loc[metric, "mean"]
            ends = [value if np.isnan(end) else end for end in before[metric]]  # t without any scatter
            rows.append((split, "t alone" if split == "val" else "bootstrap", metric, *ends, true["a"][metric]))
            rows.append((split, "the book's", metric, *own.loc[metric, ["low", "high"]], true["a"][metric]))
    return rows


def table_of_two(cohorts: list[list[tuple]], is_null: bool) -> list[str]:
    columns = ["metric", "split", "interval", "estimate", "low", "high", "p", "truth"]
    found = pd.DataFrame([row for rows in cohorts for row in rows], columns=columns)
    lines = ["| metric | split | interval | mean estimate | truth | covers the truth of these models |"]
    lines[0] += " covers the mean over trainings | p < 0.05 |"
    lines.append("| --- " * 8 + "|")
    for (metric, split, interval), rows in found.groupby(["metric", "split", "interval"], sort=False):
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


def table_of_one(cohorts: dict[float, list[list[tuple]]]) -> list[str]:
    """Coverage of the truth of these models, and the mean width, of every metric."""
    lines = ["| AUC | split | interval | " + " | ".join(METRICS) + " | ROC-AUC: width 0 |"]
    lines.append("| --- " * (4 + len(METRICS)) + "|")
    for auc, repeats in cohorts.items():
        columns = ["split", "interval", "metric", "low", "high", "truth"]
        found = pd.DataFrame([row for rows in repeats for row in rows], columns=columns)
        found["held"] = (found["low"] <= found["truth"]) & (found["truth"] <= found["high"])
        found["width"] = found["high"] - found["low"]
        for (split, interval), rows in found.groupby(["split", "interval"], sort=False):
            means = rows.groupby("metric")[["held", "width"]].mean()
            empty = (rows.loc[rows["metric"] == "roc_auc", "width"] < 1e-9).mean()
            cells = [f"{means.loc[m, 'held']:.3f} ({means.loc[m, 'width']:.3f})" for m in METRICS]
            lines.append("| " + " | ".join([f"{auc:g}", split, interval, *cells, f"{empty:.3f}"]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    start, lines, seeds = time.process_time(), [], range(given.repeats)
    clock = time.monotonic()
    parallel = Parallel(n_jobs=given.workers)
    for name, sizes in ONE_MODEL.items():
        one = {auc: parallel(delayed(one_model)(seed, sizes, auc, given.draws) for seed in seeds) for auc in AUCS}
        lines += [f"## One model, {name}", "", *table_of_one(one), ""]
        print("\n".join(lines), flush=True)
    for name, distances in DIFFERENCES.items():
        two = parallel(delayed(two_models)(seed, distances, given.draws) for seed in seeds)
        lines += [f"## Two models, {name}", "", *table_of_two(two, distances[0] == distances[1]), ""]
        print("\n".join(lines), flush=True)
    error = 1.96 * np.sqrt(0.95 * 0.05 / given.repeats)
    spent = time.process_time() - start if given.workers == 1 else time.monotonic() - clock
    head = [
        "# Coverage of the intervals, and errors of the tests, on simulated cohorts",
        "",
        f"Made by `python benchmarks/intervals.py --repeats {given.repeats} --draws {given.draws}`, "
        f"{record.made_on('scipy', 'scikit-learn', 'numpy')}; "
        f"{spent / 60:.0f} minutes with {given.workers} processes.",
        "",
        f"{FOLDS} folds (val) and held-out patients (test), {given.repeats} cohorts a row. An interval of 95 % should "
        "cover in 0.950 of them, and where there is no difference p < 0.05 should come in 0.050; "
        f"{given.repeats} cohorts leave ± {error:.3f} to chance. The truth of these models is that of the very models "
        "fitted on a cohort; the mean over trainings is one number, what such a model reaches on average.",
        "",
        "One model: coverage of the truth of these models and, in brackets, the mean width. The book's interval is the "
        "score interval, over folds the wider of it and Student's t (`mmmil/evaluation/intervals.py`); in the last "
        "column, how often the interval is a point. AUC is that of the best linear score, which the fitted ones do not "
        "quite reach.",
        "",
        f"Two models: {sum(LGG[0])} patients in the folds and {sum(LGG[1])} held out. Where there is a difference, the "
        "last column is the power.",
        "",
    ]
    path = Path(__file__).parent / "results" / "intervals.md"
    record.write_atomically(path, lambda temporary: temporary.write_text("\n".join([*head, *lines])))
    print(path)


if __name__ == "__main__":
    main()
