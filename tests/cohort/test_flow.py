"""The flow of a study: steps that add up, reasons counted, and a diagram in which no text meets another."""

import itertools

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mmmil import plots
from mmmil.cohort import flow

CLASSES = ["Luminal A", "Triple-negative breast cancer, a name that is too long for its box by far"]
LONG = "sample type Solid Tissue Normal of $a_b$ the kind that nobody would ever have thought of, not a primary tumour"


def study(n_reasons, inputs=("slide", "expression"), table=False, file=0, columns=False):
    """excluded, flow and the number of patients of a study with so many reasons at each step."""
    tally = flow.Tally()

    def step(name, unit, entered, left):
        reasons = [f"{name}: {LONG if i % 3 == 0 else 'short'} {i}" for i in range(n_reasons)]
        n = entered - left
        tally.step(name, unit, entered, left, [(f"P{i}", reasons[i % n_reasons]) for i in range(n)])

    if file:
        step("file", "files", 2600 + file, 2600)
    if "slide" in inputs and not table:
        step("slide", "files", 1600, 900)
    if "expression" in inputs and (not table or columns):
        step("expression", "columns" if columns else "files", 1000, 900)
    step("table" if table else "label", "patients", *((700, 700) if table else (900, 700)))
    step("incomplete", "patients", 700, 660)
    if "slide" in inputs:
        reasons = [(f"P{i}", f"{i % 7} valid tiles, fewer than n_tiles (64)") for i in range(20)]
        tally.step("tiles", "patients", 660, 640, reasons)
    return (*tally.tables(), 640 if "slide" in inputs else 660)


def drawn(excluded, steps, n, labelled=True):
    index = [f"P{i}" for i in range(n)]
    patients = pd.DataFrame({"label": [i % 2 if labelled else -1 for i in range(n)]}, index=index)
    folds = pd.Series([i // 2 % 6 - 1 if labelled else -1 for i in range(n)], index=index)
    return plots.flow(steps, excluded, patients, folds, CLASSES)


def texts(figure):
    return [text for text in figure.axes[0].texts if text.get_text()]


def test_a_step_that_does_not_add_up_is_refused():
    with pytest.raises(AssertionError, match="10 files - 1 left out is not 8"):
        flow.Tally().step("slide", "files", 10, 8, [("P1", "slide: a reason")])


def test_reasons_are_counted_most_first_without_a_patients_own_number():
    told = [
        "3 valid tiles, fewer than n_tiles (64)",
        "0 valid tiles, none at all",
        "5 valid tiles, fewer than n_tiles (64)",
    ]
    tables = flow.with_step(flow.Tally().tables(), "tiles", 9, pd.Series(dict(zip("abc", told, strict=True))))
    tables = flow.with_step(tables, "label", 6, pd.Series({"d": "label: grade is 'G4'"}))
    assert flow.reasons(tables[0], "tiles").to_dict() == {"fewer valid tiles than n_tiles (64)": 2, "no valid tile": 1}
    assert flow.reasons(tables[0], "label").to_dict() == {"grade is 'G4'": 1} and flow.reasons(tables[0], "file").empty
    assert tables[1].to_numpy().tolist() == [["tiles", "patients", 9, 3, 6], ["label", "patients", 6, 1, 5]]


@pytest.mark.parametrize("n_reasons", [1, 2, 5, 9, 10, 14])
@pytest.mark.parametrize(
    "kind",
    [
        {"file": 30},
        {"inputs": ("slide",)},
        {"inputs": ("expression",), "columns": True, "file": 3},
        {"table": True},
        {"table": True, "columns": True},
    ],
)
def test_no_text_meets_another_or_leaves_its_box(n_reasons, kind):
    figure = drawn(*study(n_reasons, **kind))
    assert abs(figure.get_figwidth() * figure.dpi - 900) < 10
    renderer = FigureCanvasAgg(figure).get_renderer()
    written = [text.get_window_extent(renderer) for text in texts(figure)]
    boxes = [patch.get_window_extent(renderer) for patch in figure.axes[0].patches]
    for one, other in itertools.combinations(written, 2):
        assert not one.overlaps(other)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for text in written:
        assert sum(b.x0 <= text.x0 and text.x1 <= b.x1 and b.y0 <= text.y0 and text.y1 <= b.y1 for b in boxes) == 1
    assert all(figure.bbox.contains(x, y) for box in boxes for x, y in box.corners())
    assert all(text.get_fontsize() >= 8 for text in texts(figure))


def test_the_numbers_of_the_diagram():
    excluded, steps, n = study(12)
    shown = " | ".join(text.get_text() for text in texts(drawn(excluded, steps, n)))
    for told in ("1,600 slide files", "700 slide files left out", "1,000 expression", "900 patients with a slide or"):
        assert told in shown
    for told in ("200 patients of neither class", "40 patients left out: a modality", "20 patients left out: too few"):
        assert told in shown
    for told in ("640 patients used", "320 Luminal A", "266 development", "54 held-out test", "and 4 more reasons"):
        assert told in shown


def test_a_study_of_slides_without_labels():
    tally = flow.Tally()
    tally.step("table", "patients", 1, 1, [])
    shown = [text.get_text() for text in texts(drawn(*tally.tables(), 1, labelled=False))]
    assert shown == ["1 patient in the own table", "1 patient used"]


def test_a_cohort_without_flow():
    assert [text.get_text() for text in texts(drawn(*flow.Tally().tables(), 2))][-1] == "1 held-out test"
