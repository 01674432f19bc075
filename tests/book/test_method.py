"""The sizes of the model on the section page: read from the settings and the table of gene tokens."""

import pytest

from mmmil import params
from mmmil.book import method
from tests import book_stubs


@pytest.fixture
def p(tmp_path, monkeypatch):
    book_stubs.project(tmp_path, tasks=("lgg",), names=["09_summary"])
    monkeypatch.chdir(tmp_path)
    return params.load("lgg", "demo")


def test_a_row_for_each_task_with_the_sets_of_its_folds(p):
    (row,) = [line for line in method.sizes({"lgg": p}).splitlines() if "LGG" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [p.title, f"9 of {p.tile_px} px", "96", "2–5", "96", "96"]


def test_features_stand_in_the_place_of_pixels(p):
    features = p.override(features_dir="hipt", n_tiles=0)
    assert "| features of all | as brought |" in method.sizes({"lgg": features})


def test_without_gene_tokens_it_says_so(p):
    (p.results / "genes.csv").unlink()
    assert "There is no table of gene tokens" in method.sizes({"lgg": p})
    assert "There is no table of gene tokens" in method.sizes({})
