"""Label rules: which class a patient's clinical table says (Experimental Setup, Dataset)."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mmmil.params import Params
from mmmil.sources import barcodes, diagnoses
from mmmil.sources.barcodes import Barcode
from mmmil.sources.findings import Finding
from mmmil.sources.tables import MISSING, CohortError, distinct, fail, folded, read_table, repeated_column

# Of several names the first wins whose column says anything: the GDC's export (old and new), BCR's and the TCGA-CDR's
# tables, Xena's matrices, TCGAbiolinks' subtypes, cBioPortal's files and downloads. `_` stands for a blank as well.
PATIENT_COLUMNS = [
    *(
        "case_submitter_id",
        "cases.submitter_id",
        "bcr_patient_barcode",
        "_PATIENT",
        "submitter_id",
        "patient",
        "patient_id",
    ),
]
# A table with a row per sample names it here: normal tissue and metastases must not decide a patient's label.
SAMPLE_COLUMNS = [
    *("sampleID", "sample_submitter_id", "samples.submitter_id", "submitter_id.samples", "bcr_sample_barcode"),
    *("sample_id", "sample"),
]
OTHER_SAMPLE = "only sample type "
NOBODY_HAS = "class value that nobody has"
NOT_IN = "not in the "  # the clinical tables, or the sample sheets
DIAGNOSIS_FIELDS = {"grade"}  # said of each diagnosis of a case, not of the case
COLUMNS = {
    "grade": [
        *("tumor_grade", "diagnoses.tumor_grade", "tumor_grade.diagnoses", "neoplasm_histologic_grade"),
        *("histological_grade", "Grade"),
    ],
    "project": ["project_id", "project.project_id", "cases.project.project_id", "project_id.project"],
    "PAM50": ["PAM50Call_RNAseq", "PAM50_mRNA_nature2012", "BRCA_Subtype_PAM50", "pam50"],
    "ER": ["er_status", "er_status_by_ihc", "breast_carcinoma_estrogen_receptor_status", "ER_Status_nature2012"],
    "PR": ["pr_status", "pr_status_by_ihc", "breast_carcinoma_progesterone_receptor_status", "PR_Status_nature2012"],
    "HER2": [
        *("her2_status", "her2_status_by_ihc", "lab_proc_her2_neu_immunohistochemistry_receptor_status"),
        *("HER2_Final_Status_nature2012", "ihc_her2"),
    ],
}
RECEPTORS = ["ER", "PR", "HER2"]
BY_EITHER = (
    ["PAM50", *RECEPTORS],
    "'Luminal A' is the PAM50 call LumA, 'TNBC' is ER, PR and HER2 all negative by immunohistochemistry",
)
# What each rule reads, and its words on a page.
RULES = {
    "grade": (["grade"], "The label is the tumour grade"),
    "project": (["project"], "The label is the GDC project"),
    "ihc": (
        RECEPTORS,
        "By immunohistochemistry 'Luminal A' is ER or PR positive and HER2 negative, 'TNBC' is all three negative",
    ),
    "pam50": (["PAM50"], "The label is the PAM50 call"),
    "pam50_or_ihc": BY_EITHER,
    "pam50_before_ihc": BY_EITHER,
    "ihc_before_pam50": BY_EITHER,
}
STATUS = {"pos": "Positive", "+": "Positive", "neg": "Negative"}  # '-' says nothing elsewhere
# What becomes of a patient whom both assays claim: the value, and its words on a page.
CONTESTED = {
    "pam50_or_ihc": ("claimed by both: PAM50 LumA and IHC TNBC", "is left out and counted"),
    "pam50_before_ihc": ("Luminal A", "is Luminal A"),
    "ihc_before_pam50": ("TNBC", "is TNBC"),
}
# In the GDC's joined exports the ids of cases, diagnoses and treatments are all columns submitter_id.
NOT_A_CASE = re.compile(r"_(demographic|diagnosis|treatment|exposure|family_history|follow_up)[_\d]*$")


def classes(p: Params) -> dict[str, int]:
    """{value of the label rule: class}; `class_of` looks a value up in it."""
    meant: dict[str, int] = {}
    of_folded: dict[str, int] = {}
    for i, values in enumerate(p.class_values):
        for value in values:
            key = value if p.label_rule == "matrix" else folded(value)  # there the values are files' names
            if of_folded.setdefault(key, i) != i:
                raise CohortError(f"class_values: {value} cannot mean both classes; name it once")
            meant[value] = i
    return meant


def class_of(value: str, meant: Mapping[str, int]) -> int | None:
    """The class that a value means, None for neither; case and blanks around say nothing."""
    return meant.get(value, {folded(name): i for name, i in meant.items()}.get(folded(value)))


def value_findings(p: Params, values: Mapping[str, str]) -> list[Finding]:
    """Class values that nobody has, and values of neither class that are spelled nearly as one of class_values.

    values: {patient: what the label rule reads}. Raises CohortError where nobody has any value of the one class.
    """
    if p.label_rule == "matrix":
        return []
    meant = classes(p)
    there = Counter(value for value in values.values() if not is_missing(value))
    others = [value for value in there if class_of(value, meant) is None]
    listed = ", ".join(f"'{value}' ({n})" for value, n in there.most_common(10)) or "nothing"
    found: list[Finding] = []
    nobody: dict[str, Finding] = {}
    for value in meant:
        if not any(class_of(other, {value: 0}) == 0 for other in there):
            near = difflib.get_close_matches(folded(value), [folded(other) for other in others], n=1, cutoff=0.4)
            hint = "".join(f", the nearest is '{other}'" for other in others if folded(other) in near)
            text = f"no patient has '{value}'; label_rule '{p.label_rule}' reads {listed}{hint}"
            nobody[value] = Finding(NOBODY_HAS, text, "correct class_values if it is a slip")
    empty = [i for i, wanted in enumerate(p.class_values) if all(value in nobody for value in wanted)]
    if len(empty) == 1 and others:  # of both, nobody is left, and that is told with all the reasons
        name, wanted = p.class_names[empty[0]], p.class_values[empty[0]]
        fail([f"class_values, {name}: {nobody[value].text}; {nobody[value].remedy}" for value in wanted])
    found += nobody.values()
    near_misses = barcodes.nearly_the_same(others, meant)
    if p.label_rule == "grade":
        near_misses += [(o, value) for o in others for value in meant if _level(o) and _level(o) == _level(value)]
    for value, spelling in dict.fromkeys(near_misses):
        text = f"{there[value]:,} patients have '{value}', which is neither class; class_values has '{spelling}'"
        found.append(Finding("class value nearly met", text, f"add '{value}' to class_values if it is the same"))
    return found


def _level(grade: str) -> str:
    """A grade's number, however it is written ('G2', 'Grade II', 'WHO grade 2'); '' for other words."""
    match = re.fullmatch(r"(?:who )?(?:grade|gr\.?|g)?[ -]?([1-4]|iv|i{1,3})(?:\.0)?", folded(grade))
    return {"i": "1", "ii": "2", "iii": "3", "iv": "4"}.get(match[1], match[1]) if match else ""


def described(p: Params) -> str:
    """The label rule of these parameters in plain sentences: which column, which values, what of conflicts."""
    if p.label_rule == "table":
        return f"The label is the column `label` of {p.cohort_table or 'the own table'}: 0 or 1, or a class's name."
    pairs = zip(p.class_values, p.class_names, strict=True)
    named = [(" or ".join(f"`{value}`" for value in values), name) for values, name in pairs]
    means = "" if p.class_values == [[name] for name in p.class_names] else "; ".join(f"{v} is {n}" for v, n in named)
    means = f": {means}" if means else ""
    if p.label_rule == "matrix":
        return f"The label is the expression matrix that holds the patient{means}; a patient in both is an error."
    fields, words = RULES[p.label_rule]
    if p.label_rule == "project" and p.sample_sheets and (p.has_slides or not p.expression_matrix):
        return f"{words} in the sample sheets{means}. Who is in neither class is left out and counted."
    names = ", ".join(f"`{COLUMNS[field][0]}`" for field in fields)
    column, them = (f"column {names}", "it") if len(fields) == 1 else (f"columns {names}", "them")
    tables = ", ".join(p.clinical) or "the clinical tables"
    both = f"A patient whom both claim {CONTESTED[p.label_rule][1]}. " if p.label_rule in CONTESTED else ""
    diagnosis = ", and of the primary diagnosis" if DIAGNOSIS_FIELDS & set(fields) else ""
    return (
        f"{words}{means} ({column} of {tables}, or what other tables call {them}; rows of primary tumours only"
        f"{diagnosis}). {both}"
        "Who is in neither class, or has contradictory rows, is left out and counted."
    )


def clinical_values(rule: str, paths: list[Path]) -> dict[str, str]:
    """{patient: value that a rule of RULES reads} from clinical tables, which may hold different patients and columns.

    Who is of neither class has the reason for a value; rows that contradict each other give 'a / b'. Raises
    CohortError for a table without the columns and for tables that contradict each other (what is missing in one may
    stand in another).
    """
    fields = RULES[rule][0]
    known: dict[str, dict[str, str]] = {}
    present, faults = set(), []
    for path in paths:
        table = _of_patients(path, rule, fields)
        present.update(table.columns)
        for patient, row in table.iterrows():
            values = known.setdefault(patient, {})
            for field, value in row.items():
                before = values.get(field, "")
                if is_missing(before):
                    values[field] = value or before
                elif not is_missing(value) and folded(value) != folded(before):
                    both = f"{field} is '{value}' here and '{before}' in another table"
                    faults.append(f"{path}: patient {patient}: {both}; correct one, or name one table in `clinical`")
    for field in fields:
        if field not in present:
            raise _lacking(", ".join(map(str, paths)), rule, COLUMNS[field])
    fail(faults)
    return {patient: _value(rule, values) for patient, values in known.items()}


def is_missing(value: str) -> bool:
    """Whether a cell says that nothing is known of the patient's tumour."""
    return folded(value) in MISSING or value.startswith((OTHER_SAMPLE, NOT_IN)) or value == diagnoses.NO_PRIMARY


def _lacking(where: str | Path, rule: str, wanted: list[str]) -> CohortError:
    return CohortError(
        f"{where}: label_rule '{rule}' needs one of the columns {', '.join(wanted)}; "
        "rename the column, or name another table in `clinical`"
    )


def _of_patients(path: Path, rule: str, fields: list[str]) -> pd.DataFrame:
    """One row per patient of a clinical table, and those of the fields that it has."""
    table = read_table(path, repeated=True)
    id_columns = _columns(path, table, PATIENT_COLUMNS)
    if not id_columns:
        raise _lacking(path, rule, PATIENT_COLUMNS)
    # BCR's tables name their columns on three lines; the second repeats the names, the third has their numbers.
    heads = pd.concat([column.str.casefold() == str(column.name).casefold() for column in id_columns], axis=1).any(
        axis=1
    )
    heads |= id_columns[0].str.startswith("CDE_ID:")
    table, id_columns = table[~heads], [column[~heads] for column in id_columns]
    patients = _barcodes(path, table, id_columns)
    unnamed = patients.map(str) == ""
    if unnamed.any():
        line, names = patients.index[unnamed][0], ", ".join(column.name for column in id_columns)
        raise CohortError(f"{path}, line {line}: the patient ({names}) is empty; fill it in or delete the line")
    patient = patients.map(lambda read: read.patient if isinstance(read, Barcode) else read)
    columns = {field: _column(path, table, COLUMNS[field]) for field in fields}
    columns = {field: column for field, column in columns.items() if column is not None}
    if not columns:
        raise _lacking(path, rule, [name for field in fields for name in COLUMNS[field]])
    codes = _sample_codes(path, table, patients)
    rows = pd.DataFrame(columns)
    for field in set(RECEPTORS) & set(columns):
        rows[field] = rows[field].map(lambda status: STATUS.get(folded(status), status))
    primary = codes.isin(["", barcodes.PRIMARY])
    of_others = ~_of_primary(path, table, patient)
    for field in DIAGNOSIS_FIELDS & set(columns):
        rows.loc[of_others, field] = diagnoses.NO_PRIMARY
    merged = rows[primary].groupby(patient[primary]).agg(_merge)
    other_codes = codes[~primary & ~patient.isin(merged.index)].groupby(patient).min()
    without_primary = pd.DataFrame(dict.fromkeys(columns, OTHER_SAMPLE + other_codes), index=other_codes.index)
    return pd.concat([merged, without_primary])


def _barcodes(path: Path, table: pd.DataFrame, columns: list[pd.Series]) -> pd.Series:
    """What each row says in the first of some columns that can be read: a barcode, else the name as it stands, or ''.

    Tables with several such columns leave one of them empty here and there, or damaged (R took the end of A1NA for a
    missing value). Raises CohortError for a row in which none can be read, and where two name different patients.
    """
    read, faults = [], []
    for line in table.index:
        cells = {column.name: column[line] for column in columns if not is_missing(column[line])}
        there: list[Barcode] = []
        unreadable = []
        for name, cell in cells.items():
            try:
                barcode = barcodes.parse(cell, f"{path}, line {line}, {name}")
                there += [barcode] if barcode else []
            except CohortError as error:
                unreadable.append(str(error))
        if len({barcode.patient for barcode in there}) > 1:
            faults.append(f"{path}, line {line}: names {' and '.join(map(str, there))}; correct or delete the line")
        faults += unreadable[:1] if not there else []
        read.append(there[0] if there else next(iter(cells.values()), ""))
    fail(faults)
    return pd.Series(read, index=table.index, dtype=object)


def _sample_codes(path: Path, table: pd.DataFrame, patients: pd.Series) -> pd.Series:
    """The code of each row's sample, '' where none is stated; CohortError for a sample of another patient."""
    columns = _columns(path, table, SAMPLE_COLUMNS)
    samples = _barcodes(path, table, columns) if columns else patients
    faults = [
        f"{path}, line {line}: the sample {sample} is not of the patient {patient.patient}; correct the line"
        for line, patient, sample in zip(table.index, patients, samples, strict=True)
        if isinstance(patient, Barcode) and isinstance(sample, Barcode) and patient.patient != sample.patient
    ]
    fail(faults)
    return samples.map(lambda sample: sample.code if isinstance(sample, Barcode) else "")


def _of_primary(path: Path, table: pd.DataFrame, patient: pd.Series) -> pd.Series:
    """Whether each row is of the diagnosis that decides its patient's label."""
    stated = [
        _column(path, table, [name, f"diagnoses.{name}"]) for name in (diagnoses.PRIMARY_FLAG, diagnoses.CLASSIFICATION)
    ]
    flags, kinds = (pd.Series("", index=table.index) if column is None else column for column in stated)
    deciding = pd.Series(False, index=table.index)
    for lines in patient.groupby(patient).groups.values():
        deciding[lines] = diagnoses.of_primary(zip(flags[lines], kinds[lines], strict=True))
    return deciding


def _columns(path: Path, table: pd.DataFrame, names: list[str]) -> list[pd.Series]:
    """The columns of some names that a table has, whatever their case, in the order of the names."""
    there = []
    plain = table.columns.str.casefold().str.replace(" ", "_")  # cBioPortal's page writes `Patient ID`
    for name in names:
        matches = [table.iloc[:, i] for i in (plain == name.casefold()).nonzero()[0]]
        if name == "submitter_id" and len(matches) > 1:
            matches = [c for c in matches if not c.map(is_missing).all() and not c.map(NOT_A_CASE.search).any()]
        if len(matches) > 1:
            raise repeated_column(path, name)
        there += matches
    return there


def _column(path: Path, table: pd.DataFrame, names: list[str]) -> pd.Series | None:
    """The first of some columns that says anything; else the first that is there."""
    there = _columns(path, table, names)
    return next((column for column in there if not column.map(is_missing).all()), there[0] if there else None)


def _merge(values: pd.Series) -> str:
    """One value per patient: exports repeat a patient per treatment or sample; contradictions stay visible."""
    known = distinct(value for value in values if not is_missing(value))
    if known:
        return " / ".join(known)
    unknown = set(values) - {diagnoses.NO_PRIMARY}  # the primary's own, where there is one
    return max(unknown or {diagnoses.NO_PRIMARY}) or "empty"


def _value(rule: str, values: dict[str, str]) -> str:
    first, *_ = cells = [values.get(field) or "empty" for field in RULES[rule][0]]
    if rule == "ihc":
        return _subtype(*cells)
    return _either(first, *cells[1:], of_both=CONTESTED[rule][0]) if rule in CONTESTED else first


def _subtype(er: str, pr: str, her2: str) -> str:
    er, pr, her2 = er.lower(), pr.lower(), her2.lower()
    if her2 != "negative":
        return "HER2 positive" if her2 == "positive" else f"HER2 {her2}"
    if "positive" in (er, pr):
        return "Luminal A"
    if er == pr == "negative":
        return "TNBC"
    return f"ER {er}, PR {pr}"


def _either(pam50: str, *receptors: str, of_both: str) -> str:
    statuses = {value.lower() for value in receptors}
    luminal = re.sub(r"[^a-z]", "", pam50.lower()) in ("luma", "luminala")
    negative = statuses == {"negative"}
    if luminal and negative:
        return of_both
    if luminal or negative:
        return "Luminal A" if luminal else "TNBC"
    call = "no PAM50 call" if is_missing(pam50) else f"PAM50 {pam50}"
    return f"{call}, IHC {'not triple-negative' if 'positive' in statuses else 'incomplete'}"
