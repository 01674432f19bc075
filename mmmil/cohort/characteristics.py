"""What the task's own tables say of a patient beside the class: site, sex, age, and in glioma IDH and 1p/19q."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from mmmil.cohort.labels import PATIENT_COLUMNS
from mmmil.params import Params
from mmmil.sources import barcodes
from mmmil.sources.tables import MISSING, folded, read_table

# What is looked for, under these names in this order; case and blanks say nothing. Those of GDC's, BCR's and the
# TCGA-CDR's tables, TCGAbiolinks' subtypes and PORPOISE's matrices.
FIELDS = {
    "sex": ["gender", "sex", "sex_at_birth", "demographic.gender", "is_female"],
    "age": [
        *("age_at_index", "age_at_initial_pathologic_diagnosis", "age_at_diagnosis", "age..years.at.diagnosis."),
        *("demographic.age_at_index", "age"),
    ],
    "IDH": ["idh.status", "idh_status", "idh1_mut"],
    "1p/19q": ["x1p.19q.codeletion", "1p_19q_codeletion", "codel_1p19q", "1p19q_codeletion"],
}
SAME = {  # one spelling of what tables spell otherwise
    "sex": {"f": "female", "m": "male"},
    "IDH": {"wt": "wild type"},
    "1p/19q": {"codel": "co-deleted", "non-codel": "not co-deleted"},
}
# What 1 and 0 mean, of the columns whose name says it; in any other a bare number may stand for anything, and says
# nothing here. Who has no IDH1 mutation may have one of IDH2.
NUMBERS = {"is_female": {"1": "female", "0": "male"}, "idh1_mut": {"1": "mutant", "0": ""}}
# Tables that are read where they are there, beside those that a task names; names as in `clinical`.
FURTHER = ["labels/tcgabiolinks_lgg_gbm_subtype_grade.csv"]  # of TCGAbiolinks: IDH and 1p/19q of gliomas
IN_DAYS = {"age_at_diagnosis"}  # the GDC's; others give years under that name, which none of them passes
OLDEST = 120  # years; what is above is a code, or no age


def of(p: Params, patients: pd.DataFrame, further: Sequence[str] = FURTHER) -> pd.DataFrame:
    """Index as of `patients` (a cohort's table), columns site and those of FIELDS of which a table says something.

    Read are the task's `clinical` tables, of `further` those that are there (names as in `clinical`), and its zipped
    expression matrices, for PORPOISE's say more than genes. The first table that states a value has it. age is in years
    (float, NaN where none is stated), all others are text, '' where nothing is stated. A patient with rows that
    contradict each other in a table has the value of none.
    """
    found = pd.DataFrame("", index=patients.index, columns=list(FIELDS), dtype=object)
    paths = [p.path(name) for name in p.clinical]
    paths += further_files(p, further)
    paths += [p.path(name) for name in p.expression_matrix if name.endswith(".zip")]
    for path in paths:
        table = _read(path)
        for field in table:
            stated = table[field].reindex(patients.index, fill_value="")
            found[field] = found[field].where(found[field] != "", stated)
    found["age"] = pd.to_numeric(found["age"], errors="coerce")
    told = [c for c in found if (found[c].notna() if c == "age" else found[c] != "").any()]
    return pd.concat([patients["site"], found[told]], axis=1)


def further_files(p: Params, further: Sequence[str] = FURTHER) -> list[Path]:
    """Those of `further` that are there."""
    return [path for name in further if (path := p.path(name)).is_file()]


def _read(path: Path) -> pd.DataFrame:
    """Index patient, columns of FIELDS that a table has; text, '' where nothing or a contradiction is stated."""
    table = _columns_of(path)
    plain = {str(name).casefold().replace(" ", "_"): name for name in reversed(table.columns)}
    patient = next((plain[name] for name in map(str.casefold, [*PATIENT_COLUMNS, "case_id"]) if name in plain), None)
    if patient is None:
        return pd.DataFrame()
    ids = table[patient].map(lambda cell: _patient(cell, str(path)))
    fields = {}
    for field, names in FIELDS.items():
        name = next((name for name in names if name in plain), None)
        if name is not None:
            cells = table[plain[name]]
            values = _ages(cells, name) if field == "age" else cells.map(partial(_value, field, name))
            fields[field] = values.groupby(ids).agg(_one)
    return pd.DataFrame(fields)


def _columns_of(path: Path) -> pd.DataFrame:
    """The columns that may be read here, as text; a matrix has thousands of others, or patients for columns."""
    if path.suffix != ".zip":
        table = read_table(path, repeated=True)
        return table.loc[:, ~table.columns.duplicated()]
    wanted = {name.casefold() for names in [*FIELDS.values(), PATIENT_COLUMNS, ["case_id"]] for name in names}
    return pd.read_csv(path, dtype=str, keep_default_na=False, usecols=lambda name: name.casefold() in wanted)


def _patient(cell: str, where: str) -> str:
    read = barcodes.parse(cell, where)
    return read.patient if read else cell


def _value(field: str, name: str, cell: str) -> str:
    text = folded(cell)
    if text in MISSING:
        return ""
    number = pd.to_numeric(text, errors="coerce")
    if pd.isna(number):
        return SAME[field].get(text, text)
    return NUMBERS.get(name, {}).get(f"{number:g}", "")


def _ages(cells: pd.Series, name: str) -> pd.Series:
    """Ages in years as text; '' for what is no number or no age."""
    ages = pd.to_numeric(cells.map(folded), errors="coerce")
    if name in IN_DAYS and ages.max() > OLDEST:
        ages = ages / 365.25
    return ages.where(ages.between(0, OLDEST)).map(lambda age: "" if pd.isna(age) else str(age))


def _one(values: pd.Series) -> str:
    stated = set(values) - {""}
    return stated.pop() if len(stated) == 1 else ""
