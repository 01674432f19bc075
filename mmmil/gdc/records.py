"""The GDC's records of files and cases as a sample sheet, a manifest and a clinical table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pandas as pd

from mmmil.sources import diagnoses
from mmmil.sources.manifests import MANIFEST_COLUMNS, GDCError, listed, row_faults
from mmmil.sources.tables import MISSING, distinct, folded

FILE_FIELDS = [
    *("file_id", "file_name", "md5sum", "file_size", "state", "access", "data_category", "data_type"),
    *("cases.submitter_id", "cases.project.project_id", "cases.samples.submitter_id"),
    # Newer releases state these two and may drop the first; the GDC answers with those that it has.
    *("cases.samples.sample_type", "cases.samples.tumor_descriptor", "cases.samples.tissue_type"),
    # Frozen before FFPE, and which of two aliquots of one sample: mmmil.sources.barcodes reads both.
    *("cases.samples.preservation_method", "cases.samples.portions.analytes.aliquots.submitter_id"),
]
CASE_FIELDS = [
    *("case_id", "submitter_id", "project.project_id", "demographic.age_at_index"),
    *("demographic.gender", "demographic.sex_at_birth"),  # sex_at_birth took gender's place in 2025
    *("diagnoses.tumor_grade", "diagnoses.diagnosis_is_primary_disease", "diagnoses.classification_of_tumor"),
    *(
        f"follow_ups.molecular_tests.{name}"
        for name in ("gene_symbol", "laboratory_test", "molecular_analysis_method", "test_result")
    ),
]
# A receptor is named by its gene (so the GDC's dictionary has it) or by the test.
RECEPTORS = {
    "er_status": {"ESR1", "ESTROGEN RECEPTOR"},
    "pr_status": {"PGR", "PROGESTERONE RECEPTOR"},
    "her2_status": {"ERBB2", "HER2/NEU", "HER2"},
}
NOT_STATED = {*MISSING, "not performed", "test value reported"}


def _stated(values: Iterable[object]) -> str:
    """The values that say something, 'a / b' where they differ, '--' where there is none."""
    texts = distinct(str(value) for value in values if value is not None)
    return " / ".join(text for text in texts if folded(text) not in NOT_STATED) or "--"


def _parts(record: dict, name: str) -> list[dict]:
    """A record's sub-records; none where the GDC leaves the field out or has null."""
    value = record.get(name) or []
    return [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, dict)]


def file_tables(hits: list[dict], kind: str, url: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """GDC sample sheet and manifest, one row per record of /files; `kind`: the data type that was asked for.

    Raises GDCError where a field is missing, is not what was asked for or cannot be a file's.
    """
    sheet, manifest, faults = [], [], []
    name_counts = Counter(str(hit.get("file_name")) for hit in hits)
    for hit in hits:
        cases = _parts(hit, "cases")
        samples = [sample for case in cases for sample in _parts(case, "samples")]
        kinds = [s.get("sample_type") or f"{s.get('tumor_descriptor')} {s.get('tissue_type')}" for s in samples]
        row = {
            "File ID": hit["file_id"],
            "File Name": hit.get("file_name"),
            "Data Category": hit.get("data_category"),
            "Data Type": hit.get("data_type"),
            "Project ID": _joined(part.get("project_id") for case in cases for part in _parts(case, "project")),
            "Case ID": _joined(case.get("submitter_id") for case in cases),
            "Sample ID": _joined(sample.get("submitter_id") for sample in samples),
            "Sample Type": _joined(kinds),
        }
        fields = zip(MANIFEST_COLUMNS, ("file_id", "file_name", "md5sum", "file_size", "state"), strict=True)
        file = {name: "" if hit.get(field) is None else str(hit[field]) for name, field in fields}
        file["state"] = file["state"] or "released"
        wrong = [f"{name} is missing" for name, value in row.items() if not value] + row_faults(file)
        row["Preservation Method"] = _joined(sample.get("preservation_method") for sample in samples)
        row["Aliquot ID"] = _joined(aliquot for sample in samples for aliquot in _aliquots(sample))
        for field, expected in (("access", "open"), ("data_type", kind)):
            wrong += [f"{field} is {hit.get(field)!r}, not {expected!r}"] if hit.get(field) != expected else []
        wrong += ["another file has its file_name"] if name_counts[str(hit.get("file_name"))] > 1 else []
        faults += [f"file {hit['file_id']}: {', '.join(wrong)}"] if wrong else []
        sheet.append(row)
        manifest.append(file)
    if faults:
        raise GDCError(
            f"{url}: the answer cannot be used:\n{listed(faults)}\nrun `query` again; if it stays, report it"
        )
    return pd.DataFrame(sheet), pd.DataFrame(manifest, columns=MANIFEST_COLUMNS).astype({"size": "int64"})


def _joined(values: Iterable[object]) -> str:
    """As in the GDC's sample sheets: 'a, b' where a file is of several."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value))


def _aliquots(sample: dict) -> list[str]:
    """Barcodes of a sample's aliquots; in a file's record those that the file is of."""
    analytes = [analyte for portion in _parts(sample, "portions") for analyte in _parts(portion, "analytes")]
    return [str(part.get("submitter_id") or "") for analyte in analytes for part in _parts(analyte, "aliquots")]


def clinical_row(case: dict) -> dict[str, str]:
    """One row of the clinical table: of the diagnoses those that `diagnoses.of_primary` lets decide, contradictions
    as 'a / b'.

    Receptors by immunohistochemistry, or by a test whose method is not stated; FISH is not looked at, as in the
    tables that label_rule 'ihc' reads otherwise.
    """
    stated = _parts(case, "diagnoses")
    deciding = diagnoses.of_primary((d.get(diagnoses.PRIMARY_FLAG), d.get(diagnoses.CLASSIFICATION)) for d in stated)
    primary = [diagnosis for diagnosis, decides in zip(stated, deciding, strict=True) if decides]
    people = _parts(case, "demographic")
    tests = [test for follow_up in _parts(case, "follow_ups") for test in _parts(follow_up, "molecular_tests")]
    tests = [t for t in tests if _stated([t.get("molecular_analysis_method")]).upper() in ("IHC", "--")]
    row = {
        "case_submitter_id": _stated([case.get("submitter_id")]),
        "project_id": _stated(part.get("project_id") for part in _parts(case, "project")),
        "age_at_index": _stated(person.get("age_at_index") for person in people),
        "gender": _stated(person.get("gender") or person.get("sex_at_birth") for person in people),
        "tumor_grade": _stated(diagnosis.get("tumor_grade") for diagnosis in primary),
    }
    for field, names in RECEPTORS.items():
        of_receptor = [t for t in tests if names & {str(t.get(k)).upper() for k in ("gene_symbol", "laboratory_test")}]
        row[field] = _stated(test.get("test_result") for test in of_receptor)
    return row
