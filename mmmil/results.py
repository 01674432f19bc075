"""Tables that a run or a benchmark has written, read back for pages, notebooks and ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmil import params, record

if TYPE_CHECKING:
    import pandas as pd

if TYPE_CHECKING:
    import pandas as pd


class ResultsError(ValueError):
    """A table of results is not what it should be; names the file and what to do."""


def folder(task: str) -> Path:
    return params.root() / "results" / task


def benchmark(name: str) -> Path:
    """The table of a benchmark, which its command writes."""
    return params.root() / "benchmarks" / "results" / f"{name}.csv"


def read_results(task: str, name: str, columns: list[str]) -> pd.DataFrame | None:
    """`results/<task>/<name>.csv`, or None where there is none. Raises ResultsError if a column is missing."""
    import pandas as pd

    path = folder(task) / f"{name}.csv"
    if not path.is_file():
        return None
    return _with(columns, pd.read_csv(path, dtype={"patient_id": str, "table": str}), path)


def read_predictions(results: Path, columns: list[str]) -> pd.DataFrame | None:
    """predictions.parquet of a folder of results, or None where there is none. Raises ResultsError likewise."""
    path = results / "predictions.parquet"
    return _with(columns, record.read_parquet(path), path) if path.is_file() else None


def read_benchmark(name: str, **reading: Any) -> pd.DataFrame | None:
    """`benchmarks/results/<name>.csv`, or None where it was not measured here; reading: options of pandas.read_csv."""
    import pandas as pd

    return pd.read_csv(benchmark(name), **reading) if benchmark(name).is_file() else None


def _with(columns: list[str], table: pd.DataFrame, path: Path) -> pd.DataFrame:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ResultsError(f"{path} lacks the columns {', '.join(missing)}; remove it and run the step again")
    return table
