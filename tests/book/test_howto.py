"""The how-to pages: every command and every piece of code on them runs, in a copy of the project and on small data."""

import ast
import json
import subprocess
import sys

import pandas as pd
import pytest

from mmmil import variants
from mmmil.book import pages
from tests import book_stubs, howto_pages, small_features

RUN = {path.stem: howto_pages.blocks(path) for path in howto_pages.PAGES}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return howto_pages.project(tmp_path_factory.mktemp("howto"))


@pytest.fixture(scope="module")
def trained(copy):
    """The copy with the demo's models of the pages that read them."""
    trainings = [f"{name}/{fold}" for name in ("dual_go", "go", "baseline_genes") for fold in (0, 1, "final")]
    calls = [["train", *(part for t in trainings for part in ("--training", t))], ["record"]]
    call = [sys.executable, "-c", PREPARED.format([[*c, "--task", "lgg", "--overlay", "demo"] for c in calls])]
    done = subprocess.run(call, cwd=copy, capture_output=True, text=True, env=howto_pages.environment(copy))
    assert done.returncode == 0, done.stderr[-3000:]
    return copy


# One process: the imports of torch are most of such a call.
PREPARED = """
from mmmil import params, study
from mmmil.__main__ import app
study.write(study.load(params.load("lgg", "demo")))
for call in {}:
    app(call, standalone_mode=False)
"""


def all_of(page: str, copy) -> list[str]:
    """Run the blocks of a page that can be run; what each printed."""
    return [howto_pages.run(block, copy) for block in RUN[page] if not block.reason]


def test_every_page_stands_in_the_book_and_the_readme_names_it():
    listed = [entry["file"] for entry in pages.entries_of(pages.read_toc())]
    readme = (book_stubs.ROOT / "README.md").read_text()
    for page in RUN:
        assert f"book/howto/{page}" in listed and f"(book/howto/{page}.md)" in readme


def test_what_is_not_run_has_a_reason_and_is_little():
    left_out = [block for blocks in RUN.values() for block in blocks if block.reason]
    assert len(left_out) <= len(howto_pages.NOT_RUN) + 1  # R's
    for (page, start), _ in howto_pages.NOT_RUN.items():
        assert [block for block in RUN[page] if block.code.startswith(start)], (page, start)
    assert {block.language for blocks in RUN.values() for block in blocks} <= {"bash", "python", "yaml", "r"}


def test_an_own_cohort_is_checked_run_and_has_its_place_in_the_book(copy):
    howto_pages.own_files(copy)
    printed = all_of("cohort", copy)
    assert "0 patients without a slide" in printed[0]
    executed = pages.check_executed(copy / "out.ipynb")
    text = json.dumps(executed)
    assert "Real data** (My cohort)" in text and "Synthetic cohort" not in text
    assert executed["metadata"]["papermill"]["parameters"]["task"] == "mine"
    toc = [entry["file"] for entry in pages.entries_of(howto_pages.toc(copy))]
    assert [f"book/executed/mine/{name}" for name in howto_pages.settings(copy)["notebooks"]] == toc[-4:]


def test_features_are_checked_and_counted_in_place_of_tiles(copy):
    mine = copy / "data" / "mine"
    assert (mine / "cohort.csv").is_file(), "the page on an own cohort comes first"
    names = list(pd.read_csv(mine / "cohort.csv")["patient_id"])
    small_features.folder(mine / "features", names, width=16)
    pd.read_csv(mine / "cohort.csv")[["patient_id", "label"]].to_csv(mine / "cohort.csv", index=False)
    printed = all_of("features", copy)
    assert "with places" in printed[0] and "instances" in printed[1]
    text = json.dumps(pages.check_executed(copy / "out.ipynb"))
    assert "width of an instance" in text and "Real data" in text


def test_a_cluster_has_its_account_and_says_what_would_run(copy):
    printed = all_of("cluster", copy)
    assert "train" in printed[1] and "genes" in printed[1]
    (profile,) = (copy / ".snakemake" / "profiles").glob("*/config.yaml")
    assert "slurm_account: my_account" in profile.read_text()


def test_a_model_is_kept_and_applied_to_a_table(trained):
    all_of("apply", trained)
    predictions = pd.read_csv(trained / "predicted" / "predictions.csv")
    assert len(predictions) == len(pd.read_csv(trained / "new.csv")) and predictions["prob"].between(0, 1).all()
    assert (trained / "predicted" / "reports").is_dir()


def test_a_variant_of_ones_own_stands_beside_the_papers(trained):
    (printed,) = all_of("variant", trained)
    assert (
        "gated mean of both" in printed
        and "dual-attention" in printed
        and "..." not in printed
        and "failed" not in printed
    )
    (row,) = [block.code for block in RUN["variant"] if block.code.startswith("Variant(")]
    values = [ast.literal_eval(argument) for argument in ast.parse(row.strip(), mode="eval").body.args]
    own = variants.Variant(*values)
    assert own.name not in variants.VARIANTS and own.tables == ("11",)


def test_the_record_is_read(trained):
    printed = all_of("record", trained)
    assert "dual_go" in printed[0] and "baseline_genes" in printed[0]
    assert printed[1].count(" s {") == 3 and "AnnData object" in printed[2] and (trained / "lgg.h5ad").is_file()
