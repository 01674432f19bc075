"""Figures of scores carry what else tells the classes apart, where something does, and no other figure does."""

import ast
import re

import numpy as np
import pandas as pd
import pytest

from mmmil import params, plots
from mmmil.book import captions
from mmmil.evaluation import comparisons, summary
from mmmil.plots import style
from mmmil.training import runs
from tests.book_stubs import ROOT

NAMES = ["class is a file", "depth by class"]
LINE = f"{style.CONFOUNDED}: class is a file; depth by class"
MEASURES = re.compile(
    captions.SCORES.pattern + r"|sensitivity|\bcalled\b|net benefit|[Oo]bserved against", re.IGNORECASE
)


@pytest.fixture(autouse=True)
def whose():
    """Of no cohort again when a test is over."""
    yield plots.of_cohort
    plots.of_cohort(False)


def predictions():
    rng = np.random.default_rng(0)
    rows = [
        (
            name,
            0,
            i % 2,
            "val",
            f"P{i}",
            int(i % 4 < 2),
            float(np.clip(0.3 + 0.4 * (i % 4 < 2) + rng.normal(0, 0.2), 0, 1)),
        )
        for name in ("wsi", "go", "dual_go")
        for i in range(24)
    ]
    return pd.DataFrame(rows, columns=runs.PREDICTIONS)


def of_scores():
    p, table = params.load("lgg", "demo", n_folds=2), predictions()
    names, folds = ["wsi", "go", "dual_go"], pd.DataFrame({"low": [0.4], "high": [0.8], "auc": [0.6], "patients": [9]})
    compared = comparisons.compare(table, p, tables=["5"], draws=20)
    own = table[table["variant"] == "wsi"]
    return {
        "intervals": plots.intervals(summary.summarise(table, p, names), names),
        "curves": plots.curves(table, names),
        "confusion": plots.confusion(table, names, p.class_names),
        "differences": plots.differences(compared),
        "rows": plots.rows_of_estimates(folds.assign(head="h", row="r"), "auc", "head", "row", "ROC-AUC"),
        "reliability": plots.reliability(
            own["label"].to_numpy(), {"as trained": own["prob"].to_numpy()}, p.class_names
        ),
    }


def said(figure):
    return [text.get_text().strip().replace("\n", " ") for text in figure.texts]


def test_figures_of_scores_say_what_else_tells_the_classes_apart(whose):
    whose(True, [*NAMES, NAMES[0]])
    for name, figure in of_scores().items():
        assert LINE in said(figure) and style.MARK in said(figure), name
    whose(False)
    for name, figure in of_scores().items():
        assert not any(style.CONFOUNDED in text for text in said(figure)), name


def test_a_figure_of_no_scores_says_nothing_of_it(whose):
    whose(True, NAMES)
    figure = plots.matrices({"GO": pd.DataFrame(np.eye(2))}, "Jaccard index")
    assert said(figure) == [style.MARK]


def test_the_lines_of_a_figure_lie_below_each_other_and_within_its_width(whose):
    whose(True, [*NAMES, "the mean colour of the tiles", "values that were scaled class by class"])
    figure = of_scores()["rows"]
    boxes = {text.get_text(): text.get_window_extent() for text in figure.texts}
    (line,) = (box for text, box in boxes.items() if style.CONFOUNDED in text)
    assert line.x1 <= figure.bbox.x1 + 1 and line.y1 <= figure.bbox.y0 + 1
    assert "\n" in next(text for text in boxes if style.CONFOUNDED in text).strip(), "broken where it is too long"


def test_every_function_that_draws_scores_is_one_of_them():
    marked, drawn = set(), set()
    for path in sorted((ROOT / "mmmil" / "plots").glob("*.py")):
        source = path.read_text()
        for node in ast.parse(source).body:
            text = ast.get_source_segment(source, node) or ""
            if isinstance(node, ast.FunctionDef) and "finish(figure" in text:
                drawn |= {node.name} if MEASURES.search(text) else set()
                marked |= {node.name} if "scores=True" in text else set()
    assert {"intervals", "curves", "confusion", "differences", "null_audit", "balance", "all_variants"} <= marked
    assert drawn - {"removal_curves", "spread"} <= marked, "a figure of scores that finishes without scores=True"
