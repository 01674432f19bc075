"""What exists of a task already: the start page's table, read from the files alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mmmil import params, results
from mmmil.book import pages
from mmmil.params import Params
from mmmil.training import receipts

BOOK = Path("_build/html/index.html")


def table(p: Params) -> pd.DataFrame:
    """Input, tables, trainings, pages and book of a task: what there is of each, and what makes the rest.

    Index step; columns there, made_by. Trainings are those of the batch; a notebook that trains keeps its own beside
    them and counts them when they are asked for.
    """
    batch = f"make book TASKS={p.task} OVERLAY={p.overlay}"
    missing = p.missing_files()
    here = "all files" if not missing else f"{len(missing)} missing, as {missing[0][1].name}"
    wanted = receipts.trainings(p)
    trained = sum(receipts.receipt(p, training).is_file() for training in wanted)
    sections = pages.sections_of(p)
    executed = sum((params.root() / pages.page_of(p.run, section.notebook)).is_file() for section in sections)
    book = params.root() / BOOK
    rows = [
        ("input files", here, "any notebook" if p.synthetic else "you: see “Run on your cohort”"),
        ("patients", _rows(p, "cohort"), batch),
        ("trainings", f"{trained} of {len(wanted)}", f"{batch}, or a notebook with train = True"),
        ("pages", f"{executed} of {len(sections)}", batch),
        ("book", BOOK.as_posix() if book.is_file() else "none", batch),
    ]
    return pd.DataFrame(rows, columns=["step", "there", "made by"]).set_index("step")


def _rows(p: Params, name: str) -> str:
    found = results.read_results(p, name, ["patient_id"])
    return "none" if found is None else str(len(found))
