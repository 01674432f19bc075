"""What changes when a setting that the paper leaves open is chosen otherwise, one at a time, on one cohort.

    python benchmarks/alternatives.py                                  the synthetic LGG cohort of the demo
    python benchmarks/alternatives.py --settings attention epochs      only these
    MMMIL_REAL_DATA=... python benchmarks/alternatives.py --task real_lgg --overlay "" --variants go

Every training is found again if it was made, so an interrupted run goes on where it was; the table is written after
each setting, and keeps the rows of other settings and cohorts. Writes benchmarks/results/alternatives.csv and .md; the
page on what the paper does not say shows them.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

from joblib import Parallel, delayed

from mmmil import params, record
from mmmil.evaluation import alternatives
from mmmil.evaluation.summary import estimate
from mmmil.simulate import cohort as synthetic


def default(task: str, overlay: str) -> params.Params:
    return params.load(task, overlay, results_dir="results/benchmarks/alternatives/{task}")


def tried(p: params.Params, setting: str, variants: list[str]) -> list[dict]:
    """Rows of one setting: each of its values for each variant that it can change."""
    rows = []
    for value in alternatives.TRIED[setting]:
        if value == getattr(p, setting):
            continue
        changes = {setting: value}
        for variant in variants:
            if setting not in alternatives.IMAGES_ONLY or variant not in ("go", "kegg"):
                rows.append(alternatives.compare(p, changes, variant, setting))
    return rows


def text(command: str) -> str:
    """The table in Markdown, with the command that made its latest rows."""
    lines = [
        "# Settings the paper leaves open, chosen otherwise",
        "",
        f"Made by `{command}`, {record.made_on('torch', 'numpy')}. "
        "ROC-AUC, mean over the validation folds, and its difference from the default's with a 95 % interval (paired "
        "bootstrap of the patients within folds). The row `seed` changes nothing else: what it moves is noise.",
        "",
        "| cohort | variant | setting | value | default | ROC-AUC of the default | difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in alternatives.read().itertuples():
        cohort = f"{row.cohort}, {'synthetic' if str(row.synthetic) == 'True' else 'real'}, {row.patients} patients"
        cells = [cohort, row.variant, f"`{row.setting}`", row.value, row.default_value, f"{row.default_roc_auc:.3f}"]
        lines.append("| " + " | ".join([*cells, estimate(row.difference, row.ci_low, row.ci_high)]) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="lgg")
    parser.add_argument("--overlay", default="demo")
    parser.add_argument("--variants", nargs="+", default=list(alternatives.VARIANTS))
    parser.add_argument("--settings", nargs="+", default=list(alternatives.TRIED), choices=list(alternatives.TRIED))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    start, p = time.monotonic(), default(given.task, given.overlay)
    if p.synthetic:
        synthetic.make(p, given.workers)
    for variant in given.variants:  # what all settings share is made once, before they part
        alternatives.predictions(p, variant)
    print(f"default: {time.monotonic() - start:.0f} s", flush=True)
    jobs = (delayed(tried)(p, setting, given.variants) for setting in given.settings)
    for rows in Parallel(n_jobs=given.workers, return_as="generator_unordered")(jobs):
        alternatives.add(rows)
        for row in rows:
            difference = estimate(row["difference"], row["ci_low"], row["ci_high"])
            print(
                f"{time.monotonic() - start:5.0f} s  {row['variant']} {row['setting']}={row['value']}: {difference}",
                flush=True,
            )
    command = f"python benchmarks/alternatives.py --task {given.task} --overlay '{given.overlay}'"
    written = record.write_atomically(alternatives.path().with_suffix(".md"), lambda t: t.write_text(text(command)))
    print(f"{written}; {(time.monotonic() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
