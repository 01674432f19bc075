"""What five times five folds and three seeds say on real patients, and what models say that were tuned in every fold:
each beside logistic regressions, joint against alone, and how large a difference so many patients could have shown.

    make real REAL_TASKS="real_lgg_repeats real_nsclc_zscores_repeats"       (an hour of CPU each)
    python benchmarks/real_repeats.py repeats
    make real REAL_TASKS="real_lgg_tuned real_nsclc_zscores_tuned"           (half an hour of CPU each)
    python benchmarks/real_repeats.py tuned

Computes nothing but tables from the record of these runs, with the settings, code and files of today; a task without
`results/<task>/predictions.parquet` is left out. Writes benchmarks/results/real_repeats.md, or real_tuned.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from mmmil import params, record, study, variants
from mmmil.evaluation import comparisons, power, repeats, summary
from mmmil.params import Params
from mmmil.results import read_predictions
from mmmil.training import runs

TITLES = {"repeats": "Real patients, repeated", "tuned": "Real patients, tuned in every fold"}
METHODS = {"bootstrap": "pooled bootstrap", "corrected_t": "corrected t"}


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def shown(name: str) -> str:
    return variants.variant(name).shown_as


def recorded(p: Params) -> pd.DataFrame | None:
    """A task's predictions, None where there are none; ends where they are of other settings, code or files than those
    of today, which the page would state beside them.
    """
    if read_predictions(p, runs.PREDICTIONS) is None:
        return None
    try:
        return runs.predictions(study.load(p, train=False))
    except runs.NotTrainedError as error:
        sys.exit(f"error: {error}")


def require_whole(predictions: pd.DataFrame, p: Params) -> None:
    """End where a model lacks folds or seeds of the task: its mean would be of something else than the page says."""
    wanted = [p.repeats * p.n_folds, p.model_seeds]
    val = predictions[predictions["split"] == "val"].groupby("variant")[["fold", "seed"]].nunique()
    for name in variants.variants(p):
        there = val.loc[name].tolist() if name in val.index else [0, 0]
        if there != wanted:
            sys.exit(
                f"{p.results / 'predictions.parquet'}: {name} has {there[0]} folds and {there[1]} seeds, not "
                f"{wanted[0]} and {wanted[1]}: run make real REAL_TASKS={p.task}"
            )


def of_models(predictions: pd.DataFrame, p: Params) -> list[str]:
    """Mean ROC-AUC over folds, repeats and seeds, its interval, and what its scatter is due to."""
    scores = summary.summarise(predictions, p, variants.variants(p))
    scores = scores.query("metric == 'roc_auc' and split == 'val'").drop_duplicates("variant").set_index("variant")
    parts = repeats.variance(predictions, p).set_index("variant")
    lines = [row("model", "ROC-AUC", "SD of patients", "SD of folds", "SD of seeds"), row(*["---"] * 5)]
    for name in variants.variants(p):
        one, scatter = scores.loc[name], parts.loc[shown(name)]
        interval = f"{one['mean']:.3f} [{one['ci_low']:.3f}, {one['ci_high']:.3f}]"
        parts_of = (scatter[part] for part in ("patients", "folds", "seeds"))
        lines.append(row(shown(name), interval, *("–" if pd.isna(sd) else f"{sd:.4f}" for sd in parts_of)))
    return [*lines, ""]


def of_pairs(predictions: pd.DataFrame, p: Params) -> list[str]:
    """The difference of every pair on the validation folds, and the least that so many patients would have shown."""
    table = comparisons.compare(predictions, p)
    table = table[(table["split"] == "val") & (table["metric"] == "roc_auc") & table["method"].isin(METHODS)]
    least = power.detectable(predictions, p).query("split == 'val'").drop_duplicates(["a", "b"])
    least = least.set_index(["a", "b"])["detectable"]
    head = ["a", "b", *(f"a less b, {told}" for told in METHODS.values()), "p", "seen at 80 % power from", "patients"]
    lines = [row(*head), row(*["---"] * len(head))]
    for (a, b), pair in table.drop_duplicates(["a", "b", "method"]).groupby(["a", "b"], sort=False):
        of_method = pair.set_index("method")
        cells = [
            f"{r['difference']:+.3f} [{r['ci_low']:+.3f}, {r['ci_high']:+.3f}]"
            for r in (of_method.loc[method] for method in METHODS)
        ]
        drawn = of_method.loc["bootstrap"]
        lines.append(row(shown(a), shown(b), *cells, f"{drawn['p']:.3g}", f"{least[a, b]:.3f}", int(drawn["n"])))
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=TITLES)
    which, lines = parser.parse_args().which, []
    tasks = [f"real_lgg_{which}", f"real_nsclc_zscores_{which}"]
    for task in tasks:
        p = params.load(task)
        predictions = recorded(p)
        if predictions is None:
            print(f"{task}: no record; left out", file=sys.stderr)
            continue
        require_whole(predictions, p)
        patients = predictions.groupby("split")["patient_id"].nunique()
        chosen = f", or what each training chose among these and {p.tuning - 1} other candidates on inner folds"
        lines += [
            f"## {p.title}",
            "",
            f"Task `{task}`: {patients['val']} patients in {p.repeats} x {p.n_folds} folds, {p.model_seeds} "
            f"seed{'s' * (p.model_seeds > 1)}; {patients['test']} test patients are not among them. "
            f"{p.epochs} epochs, learning rate {p.lr:g}{chosen if p.tuning else ''}.",
            "",
            *of_models(predictions, p),
            *of_pairs(predictions, p),
        ]
    if not lines:
        sys.exit(f'no record of {", ".join(tasks)}: run make real REAL_TASKS="{" ".join(tasks)}"')
    made_on = record.made_on("torch", "scikit-learn", "gseapy", "numpy")
    head = [
        f"# {TITLES[which]}",
        "",
        f"Made by `python benchmarks/real_repeats.py {which}`, {made_on}.",
        "",
        "Features in the place of pixels and z-scores in the place of counts (page *Real input*): no reproduction of "
        "the paper's tables. Validation folds of the development patients. SD: of one cross-validation with one seed, "
        "by what it is due to, where there is more than one. The bootstrap draws patients, each with all the "
        "predictions that repeats and seeds made of them; the corrected t-test is over folds that share training "
        "patients. p is the bootstrap's, of one comparison, not adjusted. The models of images read features: nothing "
        "is reduced or pruned in them here. **Genes of the lung are confounded:** the tables of its two cancers were "
        "standardised each by itself, so a model that tells these classes apart may know the table.",
        "",
    ]
    path = Path(__file__).parent / "results" / f"real_{which}.md"
    record.write_atomically(path, lambda temporary: temporary.write_text("\n".join([*head, *lines]).rstrip() + "\n"))
    print(path)


if __name__ == "__main__":
    main()
