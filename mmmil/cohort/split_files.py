"""A split as files that CLAM reads, which say of which cohort they are."""

from __future__ import annotations

import pandas as pd

from mmmil import record, results
from mmmil.cohort.split import fold_patients
from mmmil.params import Params


def write(folds: pd.Series, patients: pd.DataFrame, p: Params) -> None:
    """CLAM-style `splits/splits_{k}.csv` (columns '', train, val, test) under the task's results, and `labels.csv`
    (cohort, case_id, slide_id, label).

    The splits name slides, as CLAM's do; patients where the cohort has no slides. `patients`: a cohort's table. CLAM
    looks the columns of `labels.csv` up by name, and so does not mind that of the cohort. It reads every column of a
    split as names of slides, by their type, so there the cohort stands in a file beside them, `cohort.txt`.
    """
    folder = p.results / "splits"
    patients = patients.loc[folds.index]
    names = patients["slide_id"].where(patients["slide_id"] != "", folds.index)
    record.write_atomically(folder / "cohort.txt", lambda path: path.write_text(f"{p.cohort}\n"))
    for fold in sorted(folds[folds >= 0].unique()):
        train, val = fold_patients(folds, fold)
        parts = {"train": train, "val": val, "test": folds.index[folds == -1]}
        table = pd.DataFrame({part: names[ids].reset_index(drop=True) for part, ids in parts.items()})
        record.write_atomically(folder / f"splits_{fold}.csv", table.to_csv)
    labels = pd.DataFrame({"case_id": folds.index, "slide_id": names, "label": patients["label"]})
    results.write(p, f"{folder.name}/labels", labels)
