"""A small copy of the project with stub results and stub executed notebooks, for the tests of pages and book."""

import base64
import functools
import json
import re
import shutil
from pathlib import Path

import pandas as pd

from mmmil import check, paper, params, results
from mmmil.book import pages
from mmmil.settings import paths
from mmmil.tables.estimates import estimate

ROOT = Path(__file__).resolve().parents[1]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAIAAAACUFjqAAAAEklEQVR4nGP4z8CAB+GTG8HSALfKY52fTcuYAAAAAElFTkSuQmCC"
assert base64.b64decode(PNG)[1:4] == b"PNG"


def executed_notebook(task: str, name: str, overlay: str = "demo", fails: bool = False) -> dict:
    """What papermill leaves of a notebook with a formula and a figure."""
    values = params.read_yaml(task) | (params.read_yaml(overlay) if overlay else {})
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["24 patients\n"]},
        {"output_type": "display_data", "data": {"image/png": PNG}, "metadata": {}},
    ]
    if fails:
        outputs.append({"output_type": "error", "ename": "ValueError", "evalue": "bad", "traceback": []})
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
            "papermill": {"exception": fails or None, "parameters": values, "duration": 1.5},
        },
        "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": f"# {name} of {task}\n\n$a^2 + b^2$"},
            {
                "cell_type": "code",
                "id": "b",
                "metadata": {},
                "execution_count": 1,
                "source": "plot()",
                "outputs": outputs,
            },
        ],
    }


def write_page(folder: Path, task: str, name: str, overlay: str = "demo", **options) -> Path:
    path = folder / pages.page_of(paths.run_of(task, overlay), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(executed_notebook(task, name, overlay, **options)))
    return path


def write_results(
    folder: Path, task: str, variants=("wsi", "dual_go"), inputs: str = "both", overlay: str = "demo"
) -> None:
    """Results of one run with 12 patients, in the columns that the stages write."""
    p = params.load(task, overlay, results_dir=str(folder / "results" / paths.run_of(task, overlay)))
    write = functools.partial(results.write, p)
    patients = [f"TCGA-AA-{i:04d}" for i in range(12)]
    cohort = {"patient_id": patients, "label": [0, 1] * 6, "site": ["AA", "BB", "CC"] * 4}
    write("cohort", pd.DataFrame(cohort | {"fold": [-1, -1, *range(5), *range(5)]}))
    if inputs != "genes":
        tiles = {"patient_id": patients, "slide_id": patients, "mpp": 0.5, "candidates": 64, "tested": 64}
        tiles |= {"valid": range(12, 24), "valid_estimate": range(12, 24), "used": 9, "bag": "bag.h5"}
        write("tiles", pd.DataFrame(tiles))
    genes = [("genes", -1, 1, None, None)]
    genes += [(lib, fold, max(fold + 1, 2), 60, fold + 1) for lib in ("go", "kegg") for fold in range(-1, 5)]
    write("genes", pd.DataFrame(genes, columns=["library", "fold", "tokens", "tested", "significant"]))
    rows = [
        (table, variant, metric, split, 0.75, 0.6, 0.9, 5)
        for variant in variants
        for table, split in (("5", "val"), ("S3", "test"))
        for metric in ("roc_auc", "pr_auc")
    ]
    rows += [("baseline", "baseline_genes", "roc_auc", "val", 0.7, float("nan"), float("nan"), 5)]
    columns = ["table", "variant", "metric", "split", "mean", "ci_low", "ci_high", "n_folds"]
    write("metrics", pd.DataFrame(rows, columns=columns))
    write("confounded", pd.DataFrame(columns=check.CONFOUNDED))


NUMBER = re.compile(r'<span class="n" data-n="([^"]*)"[^>]*>(.*?)</span>( <span class="rank[^>]*>.</span>)?')


def in_full(text: str) -> str:
    """A table of the book with its numbers as they stand behind the short texts: '0.750 [0.600, 0.900]'."""
    text = re.sub(r'<span class="i">([^<]*)</span>', r"\1", text)
    return NUMBER.sub(lambda m: estimate(*map(float, m[1].split()), signed=m[2].startswith("+")), text)


def project(folder: Path, tasks=("lgg", "nsclc"), names=None, overlay: str = "demo") -> Path:
    """The book's sources, parameters, stub results and stub pages of `tasks` in `folder`."""
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "params", folder / "params")
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("executed", "generated", "api"))
    for task in tasks:
        write_results(folder, task, overlay=overlay)
        for name in names or paper.SECTIONS:
            write_page(folder, task, name, overlay=overlay)
    return folder
