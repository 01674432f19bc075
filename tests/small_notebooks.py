"""Notebooks run from their own folder on a tiny synthetic cohort, with nothing made before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import book_stubs

TINY = {
    **{"sim_patients": 32, "sim_slide_px": 512, "sim_genes": 600, "sim_sets": 20, "n_tiles": 4, "apoz_tiles": 16},
    **{"n_folds": 2, "epochs": 2, "ae_epochs": 2, "ae_hidden": 16, "latent_dim": 24, "width": 24, "single_genes": 32},
}


def execute(source: Path, folder: Path, **changes: Any) -> Path:
    """The executed copy of a notebook; data and results lie in `folder`, and what is missing is made."""
    import papermill

    places = {"data_dir": str(folder / "data"), "results_dir": str(folder / "results")}
    train = {"train": True} if "train = False" in source.read_text() else {}
    executed = folder / source.name
    papermill.execute_notebook(
        source,
        executed,
        TINY | places | train | changes,
        kernel_name="python3",
        cwd=book_stubs.ROOT / "notebooks",
        progress_bar=False,
    )
    return executed
