"""Tables that a run or a benchmark has written: each says of which cohort it is, and is read back as of this one.

A run's tables lie in `results/<overlay>/<task>/`, or `results/<task>/` without an overlay. The first column of each is
`cohort` (`Params.cohort`), so that a table that is copied elsewhere still says whose it is; nobody reads a table as
that of a cohort that it does not name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmil import params, record

if TYPE_CHECKING:
    import pandas as pd

COHORT = "cohort"  # the column
PREDICTIONS = "predictions.parquet"


class ResultsError(ValueError):
    """A table of results is not what it should be; names the file and what to do."""


def benchmark(name: str) -> Path:
    """The table of a benchmark, which its command writes."""
    return params.root() / "benchmarks" / "results" / f"{name}.csv"


def write(p: params.Params, name: str, table: pd.DataFrame) -> Path:
    """Write a table of a run for its readers, `<results>/<name>.csv`, with the column that says of which cohort it is.

    name: may lie in a folder; PREDICTIONS is written as parquet.
    """
    table = table.copy()
    table.insert(0, COHORT, p.cohort)
    if name == PREDICTIONS:
        return record.write_atomically(p.results / name, lambda t: table.to_parquet(t, index=False))
    return record.write_atomically(p.results / f"{name}.csv", lambda t: table.to_csv(t, index=False))


def of_no_cohort(table: pd.DataFrame) -> pd.DataFrame:
    """The table, marked as one that no patients were counted for: a notebook shows it without a cohort."""
    table.attrs[COHORT] = ""
    return table


def read_results(p: params.Params, name: str, columns: list[str]) -> pd.DataFrame | None:
    """A table that `write` has written, without its cohort, or None where there is none.

    Raises ResultsError if a column is missing, and for a table that is not of this cohort.
    """
    import pandas as pd

    path = p.results / f"{name}.csv"
    if not path.is_file():
        return None
    return _with(columns, pd.read_csv(path, dtype={"patient_id": str, "table": str}), path, p)


def read_predictions(p: params.Params, columns: list[str]) -> pd.DataFrame | None:
    """The predictions of a run, or None where there are none. Raises ResultsError likewise."""
    path = p.results / PREDICTIONS
    return _with(columns, record.read_parquet(path), path, p) if path.is_file() else None


def require_own(p: params.Params) -> None:
    """Raise ResultsError where the run's folder holds tables of another cohort, or that do not say of which they are.

    Asked before a run: what it does not write anew would stand among its own results.
    """
    import pandas as pd

    for path in sorted(p.results.glob("*.csv")):
        _require_cohort(pd.read_csv(path, usecols=lambda name: name == COHORT), path, p)


def read_benchmark(name: str, **reading: Any) -> pd.DataFrame | None:
    """`benchmarks/results/<name>.csv`, or None where it was not measured here; reading: options of pandas.read_csv."""
    import pandas as pd

    return pd.read_csv(benchmark(name), **reading) if benchmark(name).is_file() else None


def _with(columns: list[str], table: pd.DataFrame, path: Path, p: params.Params) -> pd.DataFrame:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ResultsError(f"{path} lacks the columns {', '.join(missing)}; remove it and run the step again")
    _require_cohort(table, path, p)
    return table.drop(columns=COHORT)


def _require_cohort(table: pd.DataFrame, path: Path, p: params.Params) -> None:
    others = (
        sorted(set(map(str, table[COHORT])) - {p.cohort}) if COHORT in table else ["a cohort that it does not name"]
    )
    if others:
        raise ResultsError(
            f"{path} is of {' and '.join(others)}, and {p.results} is the place of: {p.cohort}. Remove the tables "
            f"there (*.csv and {PREDICTIONS}), which are made again; if they were made with an overlay, move what is "
            f"left to results/<overlay>/{p.task}, where a run with this overlay finds again what was computed"
        )
