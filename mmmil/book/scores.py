"""Tables of models on the section pages: a row per model, a column per cohort and metric, the best of each marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mmmil import params, results
from mmmil.book.text import FAILED, METRICS, SPLITS, beside_scores, markdown_table, shown_variant
from mmmil.evaluation import best
from mmmil.evaluation import summary as summaries
from mmmil.evaluation.repeated import Repeated
from mmmil.training.runs import PREDICTIONS

if TYPE_CHECKING:
    import pandas as pd

SIDE_BY_SIDE = 3  # cohorts whose metrics have room in one table


def tables(metrics: Mapping[str, pd.DataFrame], names: Mapping[str, str], split: str, caption: str,
           tasks: Mapping[str, params.Params]) -> str:  # fmt: skip
    """The table of some models, or one per metric where there are many cohorts; beneath each what confounds a cohort.

    metrics: per task a summary, or rows of one (columns summaries.SUMMARY); names: heads of the cohorts' columns.
    """
    groups = [list(METRICS)] if len(metrics) <= SIDE_BY_SIDE else [[metric] for metric in METRICS]
    made = [metrics_table(metrics, names, split, caption, tasks, group) for group in groups]
    return "".join(table + beside_scores(tasks) + "\n" for table in made if table)


def metrics_table(
    metrics: Mapping[str, pd.DataFrame],
    names: Mapping[str, str],
    split: str,
    caption: str,
    tasks: Mapping[str, params.Params] | None = None,
    shown: Sequence[str] = tuple(METRICS),
) -> str:
    """One such table with the metrics `shown`; empty where there is no such result.

    tasks: whose predictions are read for the tests of the marks; of a task without predictions the intervals decide.
    """
    of_split = {t: frame[(frame["split"] == split) & frame["metric"].isin(shown)] for t, frame in metrics.items()}
    models = dict.fromkeys(name for frame in of_split.values() for name in frame["variant"])
    if not models:
        return ""
    columns, rules = {}, {}
    for task, frame in of_split.items():
        tested = paired(tasks[task], split) if tasks and task in tasks else None
        rules[best.rule(tested)] = len(models) > 1
        there = set(frame["metric"])
        for metric in shown:
            if metric in there:
                head = f"{names[task]}, {METRICS[metric]}"
                columns[head] = summaries.marked(frame, models, metric, split, tested, FAILED)
    rows = [[shown_variant(name), *cells] for name, *cells in zip(models, *columns.values(), strict=True)]
    told = "; ".join([f"{caption}; {SPLITS.get(split, split)}", *(rule for rule, needed in rules.items() if needed)])
    return markdown_table(told, ["model", *columns], rows)


_read: dict[tuple[str, str, int], Repeated | None] = {}  # pages ask for the same models again and again


def paired(p: params.Params, split: str) -> Repeated | None:
    """The recorded predictions of a run's models of which no training failed; None where there is no record."""
    path = p.results / results.PREDICTIONS
    if not path.is_file():
        return None
    key = str(path), split, path.stat().st_mtime_ns
    if key not in _read:
        predictions, summary = results.read_predictions(p, PREDICTIONS), summaries.read(p)
        if predictions is None or summary is None:
            return None
        names = summaries.complete(summary, dict.fromkeys(summary["variant"]), split)
        _read[key] = best.arranged(predictions, p, split, names)
    return _read[key]
