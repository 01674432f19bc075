"""The start page's table of what there is of a task."""

import json
import re

import pytest

from mmmil import params
from mmmil.book import made
from tests import book_stubs

START = book_stubs.ROOT / "notebooks" / "index.ipynb"


@pytest.fixture
def p(tmp_path, monkeypatch):
    book_stubs.project(tmp_path, tasks=("lgg",), names=["01_dataset", "09_summary"])
    monkeypatch.chdir(tmp_path)
    return params.load("lgg", "demo")


def test_what_is_there_and_what_makes_the_rest(p):
    table = made.table(p)
    assert list(table.index) == ["input files", "patients", "trainings", "pages", "book"]
    assert re.fullmatch(r"\d+ missing, as .*", table["there"]["input files"])
    assert table["made by"]["input files"] == "any notebook"
    assert table["there"]["patients"] == "12" and table["there"]["book"] == "none"
    assert re.fullmatch(r"0 of \d+", table["there"]["trainings"]) and table["there"]["pages"].startswith("2 of ")
    assert table["made by"]["pages"] == "make book TASKS=lgg OVERLAY=demo"


def test_a_task_of_ones_own_is_told_where_its_files_come_from(p):
    (params.root() / "params" / "mine.yaml").write_text(
        'task: mine\nclass_names: ["a", "b"]\ndata_dir: data/mine\ncohort_table: cohort.csv\n'
    )
    table = made.table(params.load("mine"))
    assert table["made by"]["input files"].startswith("you") and table["there"]["patients"] == "none"


def test_the_start_page_leads_to_files_that_are_there():
    cells = json.loads(START.read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {f"{path.name}" for path in START.parent.glob("[0-9]*.ipynb")} <= set(links)
    missing = [link for link in set(links) if not (START.parent / link).is_file()]
    assert missing in ([], ["00_method.ipynb"])
    assert [door for door in ("## Read", "## Run on your cohort", "## Change the model") if door in text] == re.findall(
        r"^## .*$", text, re.MULTILINE
    )
