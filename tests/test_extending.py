"""A 19th variant is one row, a fourth task one YAML and its lines in `_toc.yml`; what fails leaves the rest standing.

All in a copy of the project, by the command that `make book` runs.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import book_stubs
import pandas as pd
import pytest
import yaml

ROWS = """        Variant("self_genes", "single genes, self-attention", "reduced", "genes", "self", ("11",)),
        Variant("broken", "WSI, an encoder that is none", "resnet9", "", "image", ("3",)),
"""
TASK = {
    "task": "fourth",
    "title": "A fourth task",
    "class_names": ["A", "B"],
    "synthetic": True,
    "overlay": "",
    "data_dir": "data/{task}",
    "label_rule": "grade",
    "class_values": [["G2"], ["G3"]],
    "sample_sheets": ["gdc_sample_sheet.tsv"],
    "clinical": ["clinical.tsv"],
    "mpp_table": "mpp.csv",
    "incomplete": "exclude",
    "notebooks": ["06_gene_representation", "09_summary"],
    "variants": ["wsi", "self_genes", "broken", "baseline_genes"],
    "weights": "random",
    **{"sim_patients": 24, "sim_slide_px": 512, "sim_genes": 600, "sim_sets": 20, "n_tiles": 4, "tile_px": 64},
    **{"n_folds": 2, "epochs": 2, "ae_epochs": 2, "ae_hidden": 16, "latent_dim": 24, "width": 24, "apoz_tiles": 16},
    **{"null_repeats": 1, "single_genes": 32},
}
PAGES = [f"book/executed/fourth/{name}" for name in TASK["notebooks"]]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy") / "project"
    ignored = ("data", "results", "logs", "executed", "generated", "_build", ".*", "__pycache__")
    shutil.copytree(book_stubs.ROOT, folder, ignore=shutil.ignore_patterns(*ignored))
    experiments = folder / "mmmil" / "experiments.py"
    text, mark = experiments.read_text(), "        # Not in the paper: what trivial models reach"
    assert mark in text
    experiments.write_text(text.replace(mark, ROWS + mark))
    (folder / "params" / "fourth.yaml").write_text(yaml.safe_dump(TASK))
    toc = yaml.safe_load((folder / "_toc.yml").read_text())
    for part in toc["parts"]:
        for chapter in part["chapters"]:
            own = [{"file": page} for page in PAGES if Path(page).name == Path(chapter["file"]).name]
            chapter.get("sections", []).extend(own)
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    call = [sys.executable, "workflow/run.py", "--tasks", "fourth", "--overlay", "", "--cores", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (folder / "_build/html/index.html").is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done


def test_the_new_variant_and_the_new_task_are_in_the_book(built):
    folder, _ = built
    predictions = pd.read_parquet(folder / "results/fourth/predictions.parquet")
    assert set(predictions["variant"]) == {"wsi", "self_genes", "baseline_genes"}
    assert predictions.groupby("variant")["fold"].nunique().eq(3).all()
    for page in PAGES:
        assert "self-attention" in (folder / "_build/html" / f"{page}.html").read_text()
    assert "A fourth task" in (folder / "_build/html/book/09_summary.html").read_text()


def test_what_failed_is_told_and_the_other_rows_stand(built):
    folder, done = built
    assert done.returncode == 1  # the book is there, and whoever started it is told
    assert "3 trainings failed" in done.stderr and "fourth broken/0: " in done.stderr
    failures = pd.read_csv(folder / "results/fourth/failures.csv")
    assert failures["variant"].tolist() == ["broken"] * 3 and failures["log"].str.contains("Traceback").all()
    page = (folder / "_build/html/book/executed/fourth/09_summary.html").read_text()
    link = re.search(r'<a[^>]+href="([^"#]+)#failed-trainings"[^>]*>failed</a>', page)
    target = (folder / "_build/html/book/executed/fourth" / link[1]).resolve()
    assert 'id="failed-trainings"' in target.read_text() and "broken/0" in target.read_text()
    assert re.search(
        r"failed-trainings[^>]*>(<[^>]+>)*failed", (folder / "_build/html/book/09_summary.html").read_text()
    )
