"""Splits as CLAM reads them."""

import pandas as pd
import pytest

from mmmil import params
from mmmil.cohort import split_files
from mmmil.cohort.split import split

LABELS = pd.Series([0, 1] * 50, index=[f"P{i:03d}" for i in range(100)], name="label")


@pytest.mark.parametrize("synthetic", [True, False])
def test_splits_are_written_as_clam_reads_them(tmp_path, synthetic):
    folds = split(LABELS)
    slides = range(100, 200)  # CLAM reads all columns of a split as numbers, where slides are called by numbers
    patients = pd.DataFrame({"slide_id": [f"{i}" for i in slides], "label": LABELS}, index=LABELS.index)
    p = params.check(
        {"task": "t", "class_names": ["low", "high"], "results_dir": str(tmp_path / "results"), "synthetic": synthetic}
    )
    split_files.write(folds, patients, p)
    folder = tmp_path / "results" / "splits"
    names = ["cohort.txt", "labels.csv", *(f"splits_{k}.csv" for k in range(5))]
    assert sorted(path.name for path in folder.iterdir()) == names
    table = pd.read_csv(folder / "splits_2.csv", index_col=0)
    assert table.columns.tolist() == ["train", "val", "test"] and set(map(str, table.dtypes)) <= {"int64", "float64"}
    named = pd.Series(slides, index=LABELS.index)
    assert set(table["val"].dropna()) == set(named[folds.index[folds == 2]])
    assert table.notna().sum().tolist() == [64, 16, 20]
    labels = pd.read_csv(folder / "labels.csv")
    assert labels.columns.tolist() == ["cohort", "case_id", "slide_id", "label"]
    assert labels["label"].tolist() == LABELS.tolist()
    assert set(labels["cohort"]) == {(folder / "cohort.txt").read_text().strip()} == {p.cohort}
    assert ("synthetic" in p.cohort) == synthetic
