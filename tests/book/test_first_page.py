"""The first page in every state: demo alone, one task, real patients, with repeats, and nothing made yet."""

import pytest
import yaml

from mmmil import params
from mmmil.book import first_page, pages, sections
from tests import book_stubs

NAMES = ["04_multimodal_ablations"]


@pytest.fixture
def state(tmp_path, monkeypatch):
    """Makes a project of some tasks and gives what its first page says was found."""
    monkeypatch.chdir(book_stubs.ROOT)

    def made(*tasks: str, overlay: str = "demo", variants=("wsi", "dual_go")) -> str:
        book_stubs.project(tmp_path, tasks=tasks, names=NAMES, overlay=overlay)
        monkeypatch.chdir(tmp_path)
        for task in tasks:
            book_stubs.write_results(tmp_path, task, variants, overlay=overlay)
        (tmp_path / "book" / "generated").mkdir(parents=True, exist_ok=True)
        return first_page.found(pages.executed_tasks(), tmp_path / "book" / "generated")

    return made


def test_synthetic_cohorts_are_called_so_first(state):
    text = state("lgg", "nsclc")
    assert text.startswith(first_page.SYNTHETIC) and "Synthetic cohorts, no patients:" in text
    assert "[Real input](real.md)" in text
    assert text.count("| LGG") == text.count("| NSCLC") == 1 and "both less the better one alone" in text


def test_one_task_is_enough(state):
    text = state("brca", variants=("wsi", "go", "dual_go"))
    assert text.count("| BRCA") == 1 and "gene sets alone" in text and "found.png" in text


def test_of_real_patients_nothing_synthetic_is_shown(state, tmp_path):
    text = state("real_lgg", "real_lgg_sites", overlay="")
    book_stubs.write_results(tmp_path, "lgg")
    book_stubs.write_page(tmp_path, "lgg", NAMES[0])
    assert first_page.SYNTHETIC not in text and "Real patients: ROC-AUC" in text
    again = first_page.found(pages.executed_tasks(), tmp_path / "book" / "generated")
    assert again == text  # the demo beside them changes nothing
    first = params.load("real_lgg")
    assert text.count("<span") == 4 and f"| {first.title} | <span" in text  # the twin has the same patients
    assert params.load("real_lgg_sites").title in text.split("in other folds, repeats or settings: ")[1]


def test_repeats_stand_for_a_cohort_that_has_them(state):
    text = state("real_lgg", "real_lgg_repeats", overlay="")
    assert f"| {params.load('real_lgg_repeats').title} | <span" in text and text.count("<span") == 4


def test_where_nothing_of_the_kind_was_trained_it_says_how(state, tmp_path):
    assert "`make book`" in state("lgg", variants=("wsi",))
    assert "`make book`" in first_page.found({}, tmp_path)


def test_doors_lead_only_to_pages_that_are_there(state, tmp_path):
    state("lgg")
    toc = tmp_path / "_toc.yml"
    before = first_page.doors()
    assert before.count("grid-item-card") == 3 and "(ledger.md)" in before
    files = {entry["file"] for entry in pages.entries_of(yaml.safe_load(toc.read_text()))}
    linked = {page for _, _, links in first_page.DOORS for page, _ in links}
    assert {f"book/{name}" for name in ("01_dataset", "ledger", "api")} <= linked & files
    toc.write_text(toc.read_text().replace("file: book/ledger", "file: book/status"))
    assert "(ledger.md)" not in first_page.doors()


def test_claims_without_a_verdict_are_counted_and_folded(state, tmp_path):
    state("lgg", "nsclc")
    written = {path.stem: path.read_text() for path in sections.write()}
    text = written["verdicts"]
    judged, folded = text.split("```{dropdown}")
    assert "| C042 |" in judged and "not testable here" not in text
    assert len(folded.split("\n- ")) - 1 == int(folded.split()[0])
