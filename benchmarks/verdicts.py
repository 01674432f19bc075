"""The chance of each verdict of the ledger, if a claim is true and if it is false, at the paper's sizes.

    python benchmarks/verdicts.py                  all claims: minutes on two cores
    python benchmarks/verdicts.py --cohorts 50

Every simulated cohort is judged by the ledger's own queries and rules (`mmmil.ledger.chances`). Claims of one kind,
with as many differences, the same margin and the same patients share a simulation. The bootstrap has 200 draws here and
1,000 in the ledger, for time: the ends of its 95 % interval then scatter more. Writes benchmarks/results/verdicts.csv
and .md; the ledger's page shows them, and a test holds the first cohorts against the rules' present code.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict

os.environ.setdefault("OMP_NUM_THREADS", "1")

from joblib import Parallel, delayed

from mmmil import paper, record, results
from mmmil.ledger import chances, claims

BLOCK = 5  # simulated cohorts per job


def text(table, command: str, minutes: float, workers: int) -> str:
    """The table in Markdown, with the command that made it."""
    lines = [
        "# The chance of each verdict",
        "",
        f"Made by `{command}`, {record.made_on('numpy', 'scipy')}; {minutes:.0f} minutes with {workers} processes.",
        "",
        "Gaussian scores of the paper's patients, in five folds (val) and held out (test); the best model of a claim "
        f"has the ROC-AUC of the abstract ({', '.join(f'{t} {auc:g}' for t, auc in paper.ROC_AUC.items())}). "
        "pairs: models by letters, the first of each pair claimed to come out ahead, or both alike. value: every "
        "difference in ROC-AUC that the claim names is so large, and the other metrics follow; of a metric its value; "
        "of a contrast and a balance the gap of sensitivity and specificity; of a spread the log of the ratio of two "
        "deviations; of attention the rank-biserial effect. n cohorts each: a share has a standard error of at most "
        "0.5 / sqrt(n).",
        "",
        "| rule | pairs | metrics | split | tolerance | task | truth | value | reproduced | undecided | not reproduced "
        "| n |",
        "| --- " * 12 + "|",
    ]
    for row in table.itertuples(index=False):
        cells = [*row[:7], f"{row[7]:+.3f}", *(f"{share:.2f}" for share in row[8:11]), row[11]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=200)
    parser.add_argument("--metric-cohorts", type=int, default=60, help="of claims about one value, which take longest")
    parser.add_argument("--draws", type=int, default=chances.DRAWS)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    start, asked = time.monotonic(), chances.cases(claims.load())
    of_one = {case: claim for case, claim in asked.items() if case.query == "metric"}
    others = {case: claim for case, claim in asked.items() if case.query != "metric"}
    jobs = [
        delayed(chances.simulate)(these, range(first, min(first + BLOCK, cohorts)), given.draws)
        for these, cohorts in ((others, given.cohorts), (of_one, given.metric_cohorts))
        for first in range(0, cohorts, BLOCK)
    ]
    verdicts: dict = defaultdict(str)
    for number, part in enumerate(Parallel(n_jobs=given.workers, return_as="generator")(jobs), start=1):
        for key, letters in part.items():  # in the order of the jobs, so that the first cohorts stand first
            verdicts[key] += letters
        print(f"{time.monotonic() - start:5.0f} s  {number} of {len(jobs)}", flush=True)
    table = chances.table(verdicts)
    path = results.benchmark(chances.FILE)
    record.write_atomically(path, lambda temporary: table.to_csv(temporary, index=False))
    command = f"python benchmarks/verdicts.py --cohorts {given.cohorts} --metric-cohorts {given.metric_cohorts}"
    made = text(table, command, (time.monotonic() - start) / 60, given.workers)
    print(record.write_atomically(path.with_suffix(".md"), lambda temporary: temporary.write_text(made)))


if __name__ == "__main__":
    main()
