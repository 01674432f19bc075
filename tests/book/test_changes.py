"""“Change this”: every suggestion of a notebook's last cell is a setting that can be changed, and the notebook runs.

The runs are marked `changes` (`make test-changes`); what can be told without a run is told always.
"""

import json

import pytest

from mmmil import paper, params
from mmmil.book import pages
from mmmil.schema import STAGES, UNHASHED
from tests import notebook_changes, small_notebooks

CHANGES = notebook_changes.all_of_them()
NAMED = [f"{path.stem}-{'-'.join(f'{k}={v}' for k, v in change.items())}" for path, change in CHANGES]


@pytest.mark.parametrize("path", notebook_changes.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_ends_with_two_or_three_things_to_change(path):
    text = notebook_changes.cell_of(path)
    assert text.startswith(notebook_changes.HEADING + "\n")
    items = notebook_changes.items_of(text)
    assert 2 <= len(items) <= 3
    for item in items:
        assert notebook_changes.settings_of(item), f"no `setting = value` in: {item}"
        assert notebook_changes.TIME.search(item), f"how long does it take? {item}"
    trains = "train = False" in json.dumps(json.loads(path.read_text()))
    assert ("`train = True`" in text) == trains
    assert "key of its own" in text and "nothing is overwritten" in text


@pytest.mark.parametrize(("path", "change"), CHANGES, ids=NAMED)
def test_a_suggestion_is_a_setting_of_that_page_and_changes_it(path, change):
    demo = params.load("lgg", "demo")
    assert demo.override(**change) != demo
    section = paper.SECTIONS[path.stem]
    shown = {name for stage in section.stages for name in STAGES[stage].model_fields} | UNHASHED
    for name, value in change.items():
        assert getattr(demo, name) != value, f"{name} has this value already"
        assert name in shown, f"{name} is no setting that {path.stem} depends on"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("changes")


@pytest.mark.changes
@pytest.mark.parametrize(("path", "change"), CHANGES, ids=NAMED)
def test_the_notebook_runs_with_the_change(path, change, folder):
    assert pages.check_executed(small_notebooks.execute(path, folder, **change))


@pytest.mark.changes
@pytest.mark.parametrize("path", notebook_changes.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_makes_all_that_it_needs(path, tmp_path):
    executed = small_notebooks.execute(path, tmp_path)
    assert pages.check_executed(executed)
    assert "making the synthetic cohort" in executed.read_text()
