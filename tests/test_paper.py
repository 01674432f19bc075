"""The map of the paper against what it maps: notebooks, pages, the reading order, variants and tables."""

import itertools
import re
from pathlib import Path

import pytest

from mmmil import paper, params, variants
from mmmil.book import pages, sections
from mmmil.params import ParameterError
from mmmil.schema import STAGES, Cohort


@pytest.fixture(scope="module")
def toc():
    return [entry["file"] for entry in pages.entries_of(pages.read_toc())]


def test_every_section_has_its_notebook_its_page_and_what_the_page_includes():
    for folder, suffix in (("notebooks", ".ipynb"), ("book", ".md")):
        files = sorted(path.stem for path in (params.root() / folder).glob(f"[0-9]*{suffix}"))
        assert files == list(paper.SECTIONS)
    assert set(sections.PARTS) == {section.number for section in paper.SECTIONS.values()}


def test_the_reading_order_is_the_maps(toc):
    assert [Path(page).name for page in toc if re.fullmatch(r"book/\d\d_\w+", page)] == list(paper.SECTIONS)
    executed = {}
    for page in toc:
        if task := pages.task_of(page):
            executed.setdefault(task, []).append(Path(page).name)
    assert set(paper.TASKS) <= set(executed)
    for task, names in executed.items():  # of real input, too
        assert names == [section.notebook for section in pages.sections_of(params.load(task))]


def test_an_executed_page_stands_under_its_section():
    for entry in pages.entries_of(pages.read_toc()):
        if re.fullmatch(r"book/\d\d_\w+", entry["file"]):
            under = [Path(child["file"]).name for child in pages.entries_of(entry["sections"])]
            assert under == [Path(entry["file"]).name] * len(paper.TASKS)


def test_a_section_names_stages_steps_tables_and_models_that_exist():
    steps = {"patients", "tiles", "quality", "genes", "leakage", "attention", "audits", "record"}
    for section in paper.SECTIONS.values():
        assert set(section.stages) <= set(STAGES) and set(section.reads) <= steps
        assert set(section.reads_models_of) <= set(paper.TABLES) and set(section.needs) <= set(paper.INPUTS)
        for inputs, model in section.needs.items():
            assert not model or model in variants.variants(params.load("lgg", "demo", inputs=inputs))
    assert set(paper.INPUTS) == set(paper.PROPOSED) == set(Cohort.model_fields["inputs"].annotation.__args__)


def test_the_tables_of_scores_are_the_variants_and_are_shown_once():
    scores = [table.number for section in paper.SECTIONS.values() for table in section.scores]
    assert scores == [str(number) for number in range(3, 12)]
    assert {table for v in variants.VARIANTS.values() for table in v.tables} == {"2", *scores}
    for table in paper.TABLES.values():
        assert table.section in {section.number for section in paper.SECTIONS.values()}
        assert set(table.proposed) <= set(itertools.chain.from_iterable(paper.PROPOSED.values()))


@pytest.mark.parametrize(("value", "number"), [("3", "3"), ("Table 11", "11"), ("S1", "3"), ("S9", "11")])
def test_supplement_tables_repeat_three_to_eleven(value, number):
    table = paper.table_of(value)
    assert table == paper.TABLES[number] and paper.table_of(table.supplement) == table


def test_what_is_no_table_of_the_paper_is_none():
    assert paper.table_of("baseline") is None and paper.table_of("S10") is None


def test_the_proposed_models_follow_the_inputs_and_what_is_trained():
    def proposed(**changes):
        return variants.proposed(params.load("lgg", "demo", **changes))

    assert proposed() == ["dual_go", "dual_kegg"] and proposed(kegg_gmt="") == ["dual_go"]
    assert proposed(inputs="genes") == ["go", "kegg"] and proposed(inputs="slides") == ["wsi"]
    assert proposed(variants=["go", "wsi"]) == []
    assert variants.all_proposed(params.load("lgg", "demo", variants=["wsi", "go", "clam"])) == ["go", "wsi"]


def test_a_tasks_sections_are_those_named_or_all_that_its_inputs_allow():
    def names(**changes):
        return [section.number for section in pages.sections_of(params.load("lgg", "demo", **changes))]

    assert names() == ["00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10"]
    assert names(inputs="genes") == ["01", "02", "04", "06", "07", "08", "09", "10"]
    assert names(inputs="slides") == ["01", "02", "03", "04", "08", "09", "10"]
    assert names(notebooks=["09_summary", "01_dataset"]) == ["01", "09"]
    with pytest.raises(ParameterError, match=r"no such notebook: 11_none \(task lgg\); there are 00_method"):
        names(notebooks=["11_none"])
