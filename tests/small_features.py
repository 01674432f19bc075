"""Folders of features for tests: a few instances a file, which say whose they are."""

from pathlib import Path

import numpy as np
import pandas as pd

from mmmil import params
from mmmil.sources import feature_files


def bag(seed: int, n: int = 5, width: int = 4) -> np.ndarray:
    """Features (n, width) float32 of a seed."""
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def folder(path: Path, names: list[str], suffix: str = ".h5", width: int = 4) -> Path:
    """A file for each name, of 1 + i % 7 instances."""
    path.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        values = bag(i, 1 + i % 7, width)
        if suffix == ".h5":
            feature_files.write(path / f"{name}.h5", values, np.full((len(values), 2), i), encoder="uni")
        else:
            np.save(path / f"{name}{suffix}", values)
    return path


def table(path: Path, rows: dict[str, dict[str, str]]) -> None:
    """An own table of patients, the classes in turn; rows: patient -> further columns."""
    labels = {patient: {"label": i % 2} | more for i, (patient, more) in enumerate(rows.items())}
    pd.DataFrame.from_dict(labels, orient="index").rename_axis("patient_id").fillna("").to_csv(path)


def parameters(folder: Path, **values) -> params.Params:
    """Of a task on features alone, with an own table; data and results lie under the folder."""
    places = {"data_dir": str(folder), "results_dir": str(folder / "results")}
    base = {"task": "t", "class_names": ["a", "b"], "n_folds": 2, "inputs": "slides", "features_dir": "uni"}
    return params.check(base | places | {"cohort_table": "cohort.csv"} | values)
