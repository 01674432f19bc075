"""A DataFrame as the book's table: one cell per estimate, full numbers behind the text, nothing taken for markup."""

import numpy as np
import pandas as pd
from bs4 import BeautifulSoup

from mmmil.tables import cells, frames
from mmmil.tables.estimates import estimate


def page(frame, caption="", kind=""):
    return BeautifulSoup(frames.table(frame, caption, kind), "html.parser")


def heads(table):
    return [cell.get_text() for cell in table.thead.find_all("th")]


SCORES = pd.DataFrame(
    {
        **{"roc_auc": [0.71234567, 0.8], "low": [0.6, 0.7], "high": [0.81, 0.9]},
        **{"over_model": [0.05, np.nan], "over_low": [0.01, np.nan], "over_high": [0.12, np.nan], "patients": [40, 41]},
    },
    pd.Index(["late fusion", "genes <all>"], name="model"),
)


def test_a_number_and_the_ends_of_its_interval_are_one_cell():
    table = page(SCORES, "LGG")
    assert heads(table) == ["model", "ROC-AUC", "over_model", "patients"]
    assert [cell.get_text() for cell in table.tbody.tr] == ["late fusion", "0.71 ± 0.11", "+0.050 ± 0.040", "40"]
    score = table.tbody.tr.find(class_="n")
    assert score["data-n"] == "0.71234567 0.6 0.81" and score["title"] == "95 % interval 0.600 to 0.810"
    assert table.tbody.find_all("tr")[1].find_all("td")[1].get_text() == "–"
    assert "±" in table.caption.find(class_="key").get_text()


def test_labels_and_heads_have_a_scope_and_texts_are_no_markup():
    table = page(SCORES)
    assert all(cell["scope"] == "col" for cell in table.thead.find_all("th"))
    assert [row.th["scope"] for row in table.tbody.find_all("tr")] == ["row", "row"]
    assert "genes <all>" in table.get_text() and table.find("all") is None
    link = cells.Html('<a href="status.html">failed</a>')
    assert page(pd.DataFrame({"a": [link]})).a["href"] == "status.html"


def test_an_index_that_says_nothing_is_left_out_and_every_level_of_another_shown():
    assert heads(page(pd.DataFrame({"a": [1], "b": [2]}))) == ["a", "b"]
    both = pd.MultiIndex.from_tuples([("x", 1), ("x", 2)], names=["kind", "fold"])
    table = page(pd.DataFrame({"n": [3, 4]}, both))
    assert heads(table) == ["kind", "fold", "n"]
    assert [[cell.get_text() for cell in row] for row in table.tbody.find_all("tr")] == [
        ["x", "1", "3"],
        ["x", "2", "4"],
    ]


def test_marks_are_words_for_those_who_do_not_see_them():
    table = page(pd.DataFrame({"a": [estimate(0.8, 0.7, 0.9).marked("best"), estimate(0.7, 0.6, 0.8)]}))
    (mark,) = table.find_all(class_="rank")
    assert mark["aria-label"] == "best of the column" and mark["role"] == "img"


def test_columns_of_numbers_have_the_digits_that_they_need():
    assert cells.floats([1.0, 2.0, np.nan]) == ["1", "2", "–"]
    assert cells.floats([0.12345, 1.2e-7]) == ["0.123", "1.2e-07"]
    assert cells.floats([12345.678, 1.0]) == ["12,345.7", "1.0"]
    table = page(pd.DataFrame({"p": [0.00001234567891]}))
    assert table.find(class_="n")["data-n"] == "1.234567891e-05"


def test_a_long_table_says_how_much_of_it_is_shown():
    table = page(pd.DataFrame({"n": range(frames.MOST_ROWS + 5)}))
    assert len(table.tbody.find_all("tr")) == frames.MOST_ROWS
    assert f"the first {frames.MOST_ROWS} of {frames.MOST_ROWS + 5} rows" in table.caption.get_text()


def test_what_a_text_calls_code_is_shown_as_code():
    shown = frames.table(pd.DataFrame({"meaning": ["by `tuning`; `a < b` too", "a lone ` stays"]}))
    assert "by <code>tuning</code>; <code>a &lt; b</code> too" in shown and "a lone ` stays" in shown


def test_an_interval_in_a_sentence_is_not_broken():
    assert cells.in_markdown("wsi +0.010 [-0.020, +0.040] | x") == (
        'wsi <span class="i">+0.010 [-0.020, +0.040]</span> \\| x'
    )


def test_a_table_without_rows_says_what_it_has_none_of_in_one_cell():
    frame = pd.DataFrame({"a": [], "b": []}, index=pd.MultiIndex.from_arrays([[], []], names=["library", "source"]))
    frame.attrs[frames.NOTE] = "synthetic"
    table = BeautifulSoup(frames.table(frame, "Sets"), "html.parser")
    told = [cell.get_text() for cell in table.find_all(["th", "td"])]
    assert told == ["no rows", "there are none of: library, source, a, b"]
    assert table.caption.get_text() == "Sets. synthetic"
