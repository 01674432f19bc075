"""The how-to pages' commands and code: the fenced blocks of a page, and a small copy of the project to run them in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from mmmil import params
from mmmil.cohort import build as cohorts
from mmmil.genes import expression
from mmmil.simulate import cohort as synthetic
from tests import book_stubs, small_notebooks

PAGES = sorted((book_stubs.ROOT / "book" / "howto").glob("*.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARIANTS = ["go", "dual_go", "baseline_genes"]
NOTEBOOKS = ["01_dataset", "06_gene_representation", "09_summary"]
IGNORED = ("data", "results", "logs", "executed", "generated", "_build", ".*", "__pycache__", "*.egg-info", "mathjax")
# Page and start of a block that is not run, with the reason.
NOT_RUN = {
    ("cohort", "make book"): "the whole batch takes minutes; tests/workflow/test_extending.py runs one of a new task",
    ("cluster", ".venv/bin/python workflow/run.py --tasks lgg nsclc"): "no cluster; `make test-slurm` has one",
    ("features", ".venv/bin/mmmil features"): "a ResNet50d on every tile; tests/training/test_road.py reads some back",
    ("features", "encoders:"): "a piece of a file, not a command",
    ("variant", "Variant("): "a row, which is read below and trained in tests/workflow/test_extending.py",
}
# What a page's data are given in place of the paper's sizes.
SMALLER = {
    "n_tiles: 64\n": "n_tiles: 4\ntile_px: 64\nn_folds: 2\n",
    "batch_size: 32 # features are small\n": "batch_size: 32\nn_folds: 2\nae_epochs: 2\n",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; reason: why it is not run, or ''."""

    page: str
    language: str
    code: str

    @property
    def reason(self) -> str:
        if self.language == "r" and shutil.which("Rscript") is None:
            return "no Rscript on this machine"
        starts = (why for (page, start), why in NOT_RUN.items() if page == self.page and self.code.startswith(start))
        return next(starts, "")


def blocks(path: Path) -> list[Block]:
    """The blocks of a page in their order."""
    return [Block(path.stem, language, code) for language, code in FENCE.findall(path.read_text())]


def project(folder: Path) -> Path:
    """A copy of the project whose demo is tiny, with this environment as its `.venv`."""
    copy = folder / "project"
    shutil.copytree(book_stubs.ROOT, copy, ignore=shutil.ignore_patterns(*IGNORED))
    (copy / ".venv").symlink_to(sys.prefix)
    demo = copy / "params" / "demo.yaml"
    kept = yaml.safe_load(demo.read_text()) | small_notebooks.TINY
    demo.write_text(yaml.safe_dump(kept | {"variants": VARIANTS, "notebooks": NOTEBOOKS}))
    return copy


def environment(copy: Path) -> dict[str, str]:
    """That of a shell in the copy, with a home folder of its own."""
    own = {"PYTHONPATH": str(copy), "HOME": str(copy / "home"), "JUPYTER_PREFER_ENV_PATH": "1"}
    return {**os.environ, **own, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def toc(copy: Path) -> dict:
    return yaml.safe_load((copy / "_toc.yml").read_text())


def settings(copy: Path) -> dict:
    """What the pages have written to params/mine.yaml."""
    return yaml.safe_load((copy / "params" / "mine.yaml").read_text())


def run(block: Block, copy: Path) -> str:
    """Run a block in the copy and return what it prints; what it does to the home folder stays in the copy."""
    code = block.code
    for whole, small in SMALLER.items():
        code = code.replace(whole, small)
    programs = {"bash": ["bash", "-euo", "pipefail"], "python": [".venv/bin/python"], "r": ["Rscript"]}
    script = copy / f"block.{block.language}"
    script.write_text(code)
    done = subprocess.run(
        [*programs[block.language], script.name],
        cwd=copy,
        env=environment(copy),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def own_files(copy: Path) -> None:
    """`data/mine` as the page on a cohort of one's own has it, of patients of the demo under other names."""
    p = params.load("lgg", "demo", **small_notebooks.TINY, data_dir=str(copy / "data/demo/lgg"))
    synthetic.make(p)
    patients = cohorts.build(p).patients
    # A slide that does not state its scale would need an `mpp_table`, one with little tissue gives too few tiles.
    planted = pd.read_csv(p.data / "truth" / "patients.csv", index_col="patient_id")
    plain = planted.index[planted["has_mpp"].astype(bool) & ~planted["little_tissue"].astype(bool)]
    patients = patients.loc[[patient for patient in patients.index if patient in plain]]
    names = {patient: f"P{i:02d}" for i, patient in enumerate(patients.index, 1)}
    mine = copy / "data" / "mine"
    (mine / "slides").mkdir(parents=True)
    for patient, name in names.items():
        shutil.copy(patients.loc[patient, "slide_path"], mine / "slides" / f"{name}.svs")
    e = expression.load(patients, p)
    counts = pd.DataFrame(e.counts.T, index=e.genes["symbol"], columns=[names[patient] for patient in e.patients])
    counts.to_csv(mine / "counts.csv")
    labels = patients["label"].rename(names).map({0: "responder", 1: "non-responder"})
    labels.rename_axis("patient_id").to_csv(mine / "labels.csv")
    shutil.copy(p.path(p.go_gmt), mine / "go.gmt")
