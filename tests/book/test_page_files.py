"""What a page shows beside its text is copied with it, found from it, and gone with its next version."""

import json
import re

import pytest

from mmmil import params
from mmmil.book import page_files, pages
from tests import book_stubs

NAME = "07_attention_analysis"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(book_stubs.ROOT)
    folder = book_stubs.project(tmp_path, tasks=("lgg",))
    monkeypatch.chdir(folder)
    return folder


def kept(project, name):
    folder = project / "results" / "demo" / "lgg" / "deep_zoom" / name
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "0_0.jpg").write_text(name)
    (folder / "run.json").write_text("{}")
    return folder


def published(project, run, folder):
    """The page of a notebook that shows a kept folder, and an asset of the book."""
    notebook = book_stubs.executed_notebook("lgg", NAME)
    shown = f'<script src="{pages.ASSETS}a.js"></script><p data-files="{page_files.mark(folder)}">'
    notebook["cells"][1]["outputs"][0] = {"output_type": "display_data", "data": {"text/html": shown}}
    draft = project / "draft.ipynb"
    draft.write_text(json.dumps(notebook))
    return pages.publish(draft, pages.page_of(run, NAME))


def html(page):
    return json.loads(page.read_text())["cells"][1]["outputs"][0]["data"]["text/html"]


@pytest.mark.parametrize("run", ["lgg", "demo/lgg"])
def test_files_lie_beside_the_page_of_every_run_and_the_book_finds_its_assets(project, run):
    page = published(project, run, kept(project, "abc"))
    assert str(page.parent) == f"book/executed/{run}"
    asset, files = re.fullmatch(r'<script src="(.+)"></script><p data-files="(.+)">', html(page)).groups()
    assert files == f"{NAME}/abc" and page_files.MARK not in page.read_text()
    assert [path.name for path in (project / page.parent / files).rglob("*.*")] == ["0_0.jpg"]
    assert (project / page.parent / asset).resolve() == project / "_static" / "a.js", "at the book's root"


def test_what_an_earlier_version_showed_goes_away(project):
    published(project, "demo/lgg", kept(project, "abc"))
    page = published(project, "demo/lgg", kept(project, "def"))
    assert [path.name for path in (project / page.with_suffix("")).iterdir()] == ["def"]


def test_the_book_takes_the_files_of_the_runs_that_it_shows_and_leaves_no_stale_ones(project):
    published(project, "demo/lgg", kept(project, "abc"))
    published(project, "lgg", kept(project, "def"))
    pages.write_toc(["demo/lgg"])
    taken = project / page_files.COPIED
    assert [path.relative_to(taken).as_posix() for path in taken.rglob("*.jpg")] == [
        f"book/executed/demo/lgg/{NAME}/abc/0/0_0.jpg"
    ]
    assert f"html_extra_path: [{page_files.COPIED}]" in (project / "_config.yml").read_text()
    page_files.gather([])
    assert taken.is_dir() and not list(taken.iterdir()), "Sphinx wants the folder, whether or not there is anything"


def test_files_that_are_gone_are_named(project):
    folder = kept(project, "abc")
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(page_files.FilesError, match=rf"{NAME}.ipynb shows files of .*abc, which is gone: execute"):
        published(project, "demo/lgg", folder)


def test_a_folder_of_any_name_can_be_marked(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("away") / "two words, <é>"
    folder.mkdir()
    (folder / "a.jpg").touch()
    text = page_files.publish(f'"{page_files.mark(folder)}"', project / "page.ipynb")
    assert text == '"page/two%20words%2C%20%3C%C3%A9%3E"' and (project / "page" / folder.name / "a.jpg").is_file()
    assert params.root() == project
