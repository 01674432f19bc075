"""Tables of results that a run has written, read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmmil import params

if TYPE_CHECKING:
    import pandas as pd


class ResultsError(ValueError):
    """A table of results is not what it should be; names the file and what to do."""


def read_results(task: str, name: str, columns: list[str]) -> pd.DataFrame | None:
    """`results/<task>/<name>.csv`, or None where there is none. Raises ResultsError if a column is missing."""
    import pandas as pd

    path = params.root() / "results" / task / f"{name}.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype={"patient_id": str, "table": str})
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ResultsError(f"{path} lacks the columns {', '.join(missing)}; remove it and run the step again")
    return table
