"""A 19th variant is one row, a fourth task one YAML and its lines in `_toc.yml`; what fails leaves the rest standing.

All in a copy of the project, by the command that `make book` runs.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from scipy import stats
from sklearn import metrics

from mmmil import variants
from mmmil.evaluation.metrics import METRICS
from mmmil.tables.frames import NAMES
from tests import book_stubs

ROWS = """        Variant("self_genes", "single genes, self-attention", "reduced", "genes", "self", ("11",)),
        Variant("broken", "WSI, a fusion that is none", "reduced", "", "imago", ("3",)),
"""
BREAKS = ('dual-attention", "reduced", "go", "dual"', 'dual-attention", "reduced", "go", "duel"')
TRIES = "        wall_time.require()\n"
DIES = '        if (t.variant, t.fold) == ("dual_go", 0):\n            __import__("signal").raise_signal(9)\n'
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
    # The model of page 07 fails, and one of page 03.
    "notebooks": ["03_backbone_pruning", "06_gene_representation", "07_attention_analysis", "09_summary"],
    "variants": ["wsi", "dual_go", "self_genes", "broken", "baseline_genes"],
    "weights": "random",
    **{"sim_patients": 24, "sim_slide_px": 512, "sim_genes": 600, "sim_sets": 20, "n_tiles": 4, "tile_px": 64},
    **{"n_folds": 2, "epochs": 2, "ae_epochs": 2, "ae_hidden": 16, "latent_dim": 24, "width": 24, "apoz_tiles": 16},
    **{"null_repeats": 1, "single_genes": 32},
}
PAGES = [f"book/executed/fourth/{name}" for name in TASK["notebooks"]]


def edit(path, *changes):
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy") / "project"
    ignored = ("data", "results", "logs", "executed", "generated", "_build", ".*", "__pycache__")
    shutil.copytree(book_stubs.ROOT, folder, ignore=shutil.ignore_patterns(*ignored))
    mark = "        # Not in the paper: what trivial models reach"
    edit(folder / "mmmil" / "variants.py", (mark, ROWS + mark), BREAKS)
    edit(folder / "mmmil" / "training" / "runs.py", (TRIES, DIES + TRIES))
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
    for page in (PAGES[1], PAGES[3]):
        assert "self-attention" in (folder / "_build/html" / f"{page}.html").read_text()
    assert "A fourth task" in (folder / "_build/html/book/09_summary.html").read_text()


def test_what_failed_is_told_and_the_other_rows_stand(built):
    folder, done = built
    assert done.returncode == 1  # the book is there, and whoever started it is told
    assert "6 trainings failed" in done.stderr and "fourth broken/0: " in done.stderr
    failures = pd.read_csv(folder / "results/fourth/failures.csv")
    assert failures["variant"].value_counts().to_dict() == {"broken": 3, "dual_go": 3}
    killed = (failures["variant"] == "dual_go") & (failures["fold"] == "0")  # its job went on without it
    assert failures.loc[killed, "error"].str.contains("2 processes died while").all() and killed.sum() == 1
    assert failures["log"].str.contains("Traceback").all()
    logs = [path.read_text() for path in (folder / "logs" / "fourth").glob("train_*.log")]
    assert sum(log.count("ended by signal 9") for log in logs) == 2
    page = (folder / "_build/html/book/executed/fourth/09_summary.html").read_text()
    link = re.search(r'<a[^>]+href="([^"#]+)#failed-trainings"[^>]*>failed</a>', page)
    target = (folder / "_build/html/book/executed/fourth" / link[1]).resolve()
    assert 'id="failed-trainings"' in target.read_text() and "broken/0" in target.read_text()
    assert re.search(
        r"failed-trainings[^>]*>(<[^>]+>)*failed", (folder / "_build/html/book/09_summary.html").read_text()
    )


def test_a_page_whose_model_failed_says_so_and_shows_the_rest(built):
    folder, _ = built
    page = {name: (folder / "_build/html" / f"{name}.html").read_text() for name in PAGES}
    assert "no proposed model: none was trained, or one failed" in page[PAGES[2]]
    assert "WSI, UIB-reduced + APoZ" in page[PAGES[0]]


def recomputed(predictions, variant, metric, split):
    """A metric's mean over folds and its Student interval; or its one value on the test set and, of shares, Wilson's
    interval: scikit-learn and SciPy alone.
    """
    compute = {
        "accuracy": lambda y, q: metrics.accuracy_score(y, q >= 0.5),
        "f1": lambda y, q: metrics.f1_score(y, q >= 0.5, zero_division=0),
        "sensitivity": lambda y, q: metrics.recall_score(y, q >= 0.5, zero_division=0),
        "specificity": lambda y, q: metrics.recall_score(y, q >= 0.5, pos_label=0, zero_division=0),
        "pr_auc": metrics.average_precision_score,
        "roc_auc": metrics.roc_auc_score,
    }[metric]
    own = predictions[(predictions["variant"] == variant) & (predictions["split"] == split)]
    values = np.array([compute(fold["label"], fold["prob"]) for _, fold in own.groupby("fold")])
    if split == "test":
        of = {"accuracy": own, "sensitivity": own[own["label"] == 1], "specificity": own[own["label"] == 0]}.get(metric)
        if of is None:
            return values.mean(), None
        right = ((of["prob"] >= 0.5) == (of["label"] == 1)).sum()
        return values.mean(), tuple(stats.binomtest(int(right), len(of)).proportion_ci(0.95, "wilson"))
    half = stats.t.ppf((1 + 0.95) / 2, len(values) - 1) * stats.sem(values)
    low, high = values.mean() - half, values.mean() + half
    return values.mean(), (max(low, 0), min(high, 1))


def test_twenty_random_cells_of_the_book_are_recomputed_from_the_predictions(built):
    folder, _ = built
    predictions = pd.read_parquet(folder / "results/fourth/predictions.parquet")
    page = (folder / "_build/html/book/executed/fourth/09_summary.html").read_text()
    names = {v.shown_as: v.name for v in variants.VARIANTS.values()} | {"single genes, self-attention": "self_genes"}
    cells = []
    tables = [t for t in BeautifulSoup(page, "html.parser").find_all("table") if "ROC-AUC" in t.get_text()]
    columns_of = {NAMES.get(metric, metric): metric for metric in METRICS}
    for table, split in zip(tables[:2], ("val", "test"), strict=True):
        columns = [columns_of[th.get_text(strip=True)] for th in table.find("thead").find_all("th")[1:]]
        for row in table.find("tbody").find_all("tr"):
            variant = names.get(row.find("th").get_text(strip=True))
            shown = [td.find("span", class_="n") for td in row.find_all("td")]  # none where it says "failed"
            cells += [(variant, metric, split, number) for metric, number in zip(columns, shown, strict=True) if number]
    assert len(cells) == 3 * 6 * 2
    for at in np.random.default_rng().choice(len(cells), 20, replace=False):
        variant, metric, split, number = cells[at]
        mean, *interval = map(float, number["data-n"].split())  # as they are sorted and downloaded
        assert number.get_text().startswith(f"{mean:.2f} ± ")  # and as they are read
        assert number["title"] == f"95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
        value, expected = recomputed(predictions, variant, metric, split)
        assert abs(mean - value) <= 0.0005 + 1e-9, cells[at]
        assert interval[0] <= mean <= interval[1] and interval[1] - interval[0] > 0.01, cells[at]
        if expected and split == "test":
            assert np.allclose(interval, expected, atol=0.0005 + 1e-9), cells[at]
        elif expected:  # of folds the wider of Student's and the score interval, end by end
            assert interval[0] <= expected[0] + 0.0005 + 1e-9 and interval[1] >= expected[1] - 0.0005 - 1e-9, cells[at]


PLANNED = """
import sys; sys.path.insert(0, "workflow")
import plan, run
steps = plan.load(["fourth"])
plan.take_inventory(steps)
call = run.command(["fourth"], "", 1, "local")
sys.exit(run.subprocess.run([*call, *sys.argv[1:], "--dry-run", "--quiet", "rules"], env=run.environment()).returncode)
"""


def planned(folder, *targets):
    """{rule: jobs} that Snakemake would run for some tables, after a look at all files."""
    call = [sys.executable, "-c", PLANNED, *(f"results/fourth/{name}" for name in targets)]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE))


def test_case_15_a_replaced_file_is_seen_and_its_side_alone_is_done_again(built):
    """The last test here: it changes the cohort's files."""
    folder, _ = built
    sides = {"tiles": ["tiles.csv"], "genes": ["genes.csv"]}
    assert [planned(folder, *tables) for tables in sides.values()] == [{}, {}]
    for replaced, kind in (("tiles", "slides/*.svs"), ("genes", "expression/*.tsv")):
        path = sorted((folder / "data/fourth").glob(kind))[3]
        content, stat = path.read_bytes(), path.stat()
        path.write_bytes(content.replace(b"0", b"1"))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        for side, tables in sides.items():
            assert planned(folder, *tables).get(side, "0") == str(int(side == replaced)), (side, kind)
        path.write_bytes(content)
        assert planned(folder, *sides[replaced]) == {}
