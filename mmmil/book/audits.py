"""What the page of audits includes: each cohort's audits and the calibration of its proposed model."""

from __future__ import annotations

from collections.abc import Mapping

from mmmil import params, results, variants
from mmmil.book.text import FAILED, beside_scores, markdown_table, nothing, shown_variant, title, wide_table
from mmmil.evaluation import audits, calibration, retrained
from mmmil.evaluation.summary import estimate
from mmmil.training.runs import PREDICTIONS


def part(tasks: Mapping[str, params.Params]) -> str:
    """Audits of every cohort, then calibration."""
    return f"{_audited(tasks)}\n{_calibrated(tasks)}"


def _audited(tasks: Mapping[str, params.Params]) -> str:
    rows = []
    for p in tasks.values():
        table = results.read_results(p, "audits", retrained.COLUMNS)
        if table is None:
            continue
        order = {audit: number for number, audit in enumerate(audits.SHOWN_AS)}
        for row in table.sort_values("audit", key=lambda c, o=order: c.map(o), kind="stable").itertuples():
            cells = [estimate(row.roc_auc, row.low, row.high)]
            cells += [estimate(row.over_unchanged, row.over_low, row.over_high, signed=True)]
            changed = f"{row.changed}: {row.note}" if isinstance(row.note, str) else row.changed  # an empty one is NaN
            rows.append([title(p), audits.SHOWN_AS[row.audit], changed, shown_variant(row.variant), *cells])
    if not rows:
        return nothing("table of audits (results/<run>/audits.csv)")
    caption = "ROC-AUC with one thing changed, mean over the folds, and its difference to the model as it is"
    head = ["cohort", "audit", "changed", "model", "ROC-AUC", "difference"]
    return wide_table(caption, head, rows, "audits") + beside_scores(tasks)


def _calibrated(tasks: Mapping[str, params.Params]) -> str:
    rows = []
    for p in tasks.values():
        predictions = results.read_predictions(p, PREDICTIONS)
        name = next(iter(variants.all_proposed(p)), "")
        if predictions is None or not name:
            continue
        table = calibration.table(predictions, p, [name])
        if table.empty:
            rows.append([title(p), shown_variant(name), FAILED, *["–"] * 4])
        for (_, way), row in table.iterrows():
            cells = [estimate(row[m], row[f"{m}_low"], row[f"{m}_high"]) for m in ("intercept", "slope", "brier")]
            cells += [estimate(row["brier_of_share"])]
            rows.append([title(p), shown_variant(name), way, *cells])
    if not rows:
        return nothing("record of predictions (results/<run>/predictions.parquet)")
    head = ["cohort", "model", "calibration", "intercept (0)", "slope (1)", "Brier score", "of the class shares alone"]
    caption = "Calibration in cross-validation, as trained and after recalibration on other folds"
    return markdown_table(caption, head, rows)
