"""Tables on a narrow screen: columns that do not fit are folded, and nothing is lost by it."""

import csv

import numpy as np
import pandas as pd
import pytest

from mmmil.tables import frames
from tests.browser import chromium
from tests.browser.parts import page_with
from tests.browser.visit import SIZES, visit

pytestmark = chromium.marks(needs_book=False)
MODELS = ["images", "gene sets", "both"]
COLUMNS = ["model", "accuracy", "F1", "sensitivity", "specificity", "PR-AUC", "ROC-AUC", "note"]
METRICS = ["accuracy", "f1", "sensitivity", "specificity", "pr_auc", "roc_auc"]


def scores():
    """Six scores with intervals and a note for each of three models; the last model has the highest ones."""
    values = np.linspace(0.5, 0.9, 18).reshape(3, 6)
    ends = {"low": -0.1, "high": 0.05}
    columns = {}
    for j, metric in enumerate(METRICS):
        columns |= {metric: values[:, j]} | {f"{metric}_{name}": values[:, j] + by for name, by in ends.items()}
    return pd.DataFrame(columns | {"note": ["a", "", "c, d"]}, pd.Index(MODELS, name="model"))


FITS = "(() => { const box = document.querySelector('.table-box'); return box.scrollWidth <= box.clientWidth; })()"


def heads(page):
    return [head.strip() for head in page.locator("thead th:visible").all_inner_texts()]


def test_columns_that_do_not_fit_are_folded_and_the_label_and_roc_auc_stay(opened):
    page = opened(frames.table(scores()))
    shown = heads(page)
    assert shown[0] == "model" and "ROC-AUC" in shown and len(shown) < len(METRICS)
    assert page.evaluate(FITS)
    assert page.locator(".unfold:visible").count() == len(MODELS)


def test_what_fits_has_nothing_to_unfold(opened):
    page = opened(frames.table(scores()), "desktop")
    assert heads(page)[-1] == "note" and page.get_by_role("button", name="folded").count() == 0


def test_unfolding_by_keyboard_shows_what_is_folded_with_its_intervals(opened):
    page = opened(frames.table(scores()))
    shown = heads(page)
    button = page.get_by_role("button", name="folded columns of: gene sets")
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    folded = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert sorted([*folded, *shown]) == sorted(COLUMNS)
    accuracy, specificity = scores().loc["gene sets", ["accuracy", "specificity"]]
    assert folded["specificity"] == f"{specificity:.2f} ± 0.10" and folded["note"] == "–"
    page.get_by_role("button", name="show intervals").click()
    every = " ".join(page.locator("tbody").all_inner_texts())
    assert "±" not in every and f"{accuracy:.2f} [{accuracy - 0.1:.2f}, {accuracy + 0.05:.2f}]" in every
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "false" and page.locator("dl").count() == 0


def test_the_download_has_every_column_and_no_row_twice(opened, tmp_path):
    page = opened(frames.table(scores()))
    page.get_by_role("button", name="open the folded columns of every row").click()
    assert page.locator("dl:visible").count() == len(MODELS)
    with page.expect_download() as download:
        page.get_by_role("button", name="download as CSV").click()
    download.value.save_as(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(encoding="utf-8-sig", newline="") as file:
        head, *rows = csv.reader(file)
    assert head[:4] == ["model", "accuracy", "accuracy lower", "accuracy upper"] and head[-1] == "note"
    assert [row[0] for row in rows] == MODELS and [row[-1] for row in rows] == ["a", "", "c, d"]
    assert np.allclose(np.array(rows)[:, 1:-1].astype(float), scores().drop(columns="note").to_numpy())


def test_an_open_row_stays_with_its_row_when_the_table_is_sorted(opened):
    page = opened(frames.table(scores()))
    page.get_by_role("button", name="folded columns of: images").click()
    for _ in range(2):  # rising, falling
        page.locator("thead th", has_text="ROC-AUC").locator(".dt-column-order").click()
    rows = page.locator("tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows[:2]] == ["both", "gene"] and rows[2].startswith("images")
    assert "specificity" in rows[3]


@pytest.mark.parametrize("how", ["print", "no scripts"])
def test_on_paper_and_without_scripts_all_columns_are_there(opened, how):
    page = opened(frames.table(scores()), java_script_enabled=how == "print")
    if how == "print":
        page.locator(".unfold").first.click()
        page.emulate_media(media="print")
    assert len(heads(page)) == 8 and page.locator("tbody td:visible").count() == 3 * 7
    assert page.locator("button:visible, dl:visible").count() == 0


def test_a_table_in_a_folded_part_fits_when_the_part_is_opened(opened):
    page = opened(f"<details><summary>more</summary>{frames.table(scores())}</details>")
    page.locator("summary").click()
    page.locator(".unfold:visible").first.wait_for()
    assert page.evaluate(FITS)


def test_long_lines_of_code_and_prose_in_many_columns_fit(browser, tmp_path):
    code = f"<pre style='overflow: auto'>def f():\n    return g({', '.join(['argument'] * 30)}, '{'x' * 200}')</pre>"
    words = pd.DataFrame([["several words of prose that go on " * 2] * 7] * 2, columns=list("abcdefg"))
    page = page_with(code + frames.table(words), tmp_path)
    for size in SIZES:
        kinds = {kind for kind, _ in visit(browser, tmp_path, page.name, size).found}
        assert not kinds & {"code scrolls sideways", "table scrolls sideways", "cell runs over", "overflow", "console"}
