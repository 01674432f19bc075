"""Label rules: which class a clinical table says, of whom it says nothing, and what a page tells of the rule."""

import csv
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmil import params
from mmmil.cohort import labels as label_rules
from mmmil.cohort.labels import clinical_values
from mmmil.gdc.records import clinical_row
from mmmil.simulate import patients as synthetic_patients
from mmmil.sources.tables import CohortError

FEW = settings(max_examples=60, deadline=None, derandomize=True)
ER, PR, HER2 = "er_status", "pr_status", "her2_status"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clinical")


def clinical(folder, head, *rows, name="clinical.tsv"):
    path = folder / name
    path.write_text("\n".join("\t".join(cells) for cells in [head, *rows]) + "\n")
    return path


def breast(folder, *rows):
    """One row per patient p0, p1 ...: PAM50, ER, PR, HER2."""
    head = ["case_submitter_id", "PAM50Call_RNAseq", ER, PR, HER2]
    return [clinical(folder, head, *((f"p{i}", *cells) for i, cells in enumerate(rows)))]


NEGATIVE = ("Negative",) * 3


def test_pam50_is_the_call(folder):
    paths = breast(folder, ("LumA", *NEGATIVE), ("Basal", *NEGATIVE), ("", *NEGATIVE))
    assert clinical_values("pam50", paths) == {"p0": "LumA", "p1": "Basal", "p2": "empty"}


@pytest.mark.parametrize("column", label_rules.COLUMNS["PAM50"])
def test_names_of_the_pam50_column(folder, column):
    path = clinical(folder, ["patient", column], ("p0", "LumB"))
    assert clinical_values("pam50", [path]) == {"p0": "LumB"}


def test_luminal_a_by_pam50_and_triple_negative_by_ihc(folder):
    paths = breast(
        folder,
        ("LumA", "Positive", "Positive", "Negative"),
        ("LumA", "", "", ""),
        ("Basal", "Negative", "negative", "Negative"),
        ("", *NEGATIVE),
        ("Basal", "Negative", "Negative", "Equivocal"),
        ("LumB", "Positive", "", ""),
        ("", "", "", ""),
        ("Luminal A", "Positive", "Positive", "Positive"),  # as the 2012 paper spells it
    )
    assert list(clinical_values("pam50_or_ihc", paths).values()) == [
        *("Luminal A", "Luminal A", "TNBC", "TNBC"),
        "PAM50 Basal, IHC incomplete",
        "PAM50 LumB, IHC not triple-negative",
        "no PAM50 call, IHC incomplete",
        "Luminal A",
    ]


@pytest.mark.parametrize(
    "by, value",
    [
        ("pam50_or_ihc", "claimed by both: PAM50 LumA and IHC TNBC"),
        ("ihc_before_pam50", "TNBC"),
        ("pam50_before_ihc", "Luminal A"),
    ],
)
def test_a_patient_whom_both_rules_claim(folder, by, value):
    paths = breast(folder, ("LumA", *NEGATIVE))
    assert clinical_values(by, paths) == {"p0": value}


def test_rows_of_other_samples_do_not_decide(folder):
    head = ["sampleID", "_PATIENT", "PAM50Call_RNAseq"]
    rows = [("TCGA-AA-0001", "01", "LumA"), ("TCGA-AA-0001", "11", "Normal"), ("TCGA-AA-0002", "06", "LumB")]
    for order in (rows, rows[::-1]):
        path = clinical(folder, head, *((f"{patient}-{code}", patient, call) for patient, code, call in order))
        assert clinical_values("pam50", [path]) == {"TCGA-AA-0001": "LumA", "TCGA-AA-0002": "only sample type 06"}
        more = clinical(folder, ["patient", "pam50"], ("TCGA-AA-0002", "Basal"), name="more.tsv")
        for paths in ([path, more], [more, path]):
            assert clinical_values("pam50", paths) == {"TCGA-AA-0001": "LumA", "TCGA-AA-0002": "Basal"}


def test_two_primary_samples_that_differ_are_no_class(folder):
    rows = [("TCGA-AA-0001-01A", "TCGA-AA-0001", "LumB"), ("TCGA-AA-0001-01B", "TCGA-AA-0001", "LumA")]
    path = clinical(folder, ["sampleID", "_PATIENT", "PAM50Call_RNAseq"], *rows)
    assert clinical_values("pam50", [path]) == {"TCGA-AA-0001": "LumA / LumB"}


def test_tables_complete_each_other(folder):
    receptors = clinical(folder, ["case_submitter_id", ER, PR, HER2], ("p0", *NEGATIVE), ("p1", *NEGATIVE))
    calls = clinical(folder, ["patient", "BRCA_Subtype_PAM50"], ("p1", "LumA"), ("p2", "LumA"), name="calls.tsv")
    assert clinical_values("pam50_or_ihc", [receptors, calls]) == {
        "p0": "TNBC",
        "p1": "claimed by both: PAM50 LumA and IHC TNBC",
        "p2": "Luminal A",
    }
    with pytest.raises(CohortError, match=r"clinical\.tsv: label_rule .* needs one of the columns PAM50Call"):
        clinical_values("pam50_or_ihc", [receptors])


def test_tables_that_contradict_each_other(folder):
    head = ["case_submitter_id", "tumor_grade"]
    one = clinical(folder, head, ("p0", "G2"), ("p1", "G3"), ("p2", "not reported"), ("p3", "G2"))
    two = clinical(folder, head, ("p0", "G3"), ("p1", "'--"), ("p2", "G3"), ("p3", "G3"), name="two.tsv")
    with pytest.raises(
        CohortError, match=r"(?s)two\.tsv: patient p0: grade is 'G3' here and 'G2' in.*patient p3"
    ) as error:
        clinical_values("grade", [one, two])
    assert "p1" not in str(error.value) and "p2" not in str(error.value)
    clinical(folder, head, ("p0", ""), ("p2", "G3"), ("p4", "G2"), name="two.tsv")
    for order in ([one, two], [two, one]):
        assert clinical_values("grade", order) == {"p0": "G2", "p1": "G3", "p2": "G3", "p3": "G2", "p4": "G2"}


def test_the_gdcs_joined_export_has_many_submitter_ids(folder):
    head = ["submitter_id", "case_submitter_id", "tumor_grade", "submitter_id", "submitter_id", "submitter_id"]
    rows = [(f"p{i}", "--", "G2", f"p{i}_diagnosis", "--", f"p{i}_treatment_1") for i in range(3)]
    assert clinical_values("grade", [clinical(folder, head, *rows)]) == dict.fromkeys(["p0", "p1", "p2"], "G2")
    assert clinical_values("grade", [clinical(folder, head[::-1], *(cells[::-1] for cells in rows))])["p1"] == "G2"
    with pytest.raises(CohortError, match="the column 'submitter_id' stands there twice"):
        clinical_values("grade", [clinical(folder, ["submitter_id", "submitter_id", "tumor_grade"], ("a", "b", "G2"))])
    with pytest.raises(CohortError, match="the column 'tumor_grade' stands there twice"):
        clinical_values("grade", [clinical(folder, ["patient", "tumor_grade", "tumor_grade"], ("a", "G2", "G2"))])


# -- which diagnosis decides -------------------------------------------------------------------------------------
# Of each case (diagnosis_is_primary_disease, classification_of_tumor, grade) of its diagnoses, and what decides.
CASES = {
    "1001": ([("true", "primary", "G2")], "G2"),
    "1002": ([("true", "primary", "G2"), ("false", "recurrence", "G3")], "G2"),
    "1003": ([("true", "primary", "'--"), ("false", "recurrence", "G3")], None),
    "1004": ([("true", "primary", "Not Reported"), ("false", "Prior primary", "G2")], None),
    "1005": ([("true", "primary", "G3"), ("false", "metastasis", "GX")], "G3"),
    "1006": ([("false", "recurrence", "G3")], None),
    "1007": ([("", "not reported", "G2")], "G2"),  # releases before 2024
    "1008": ([("", "", "G2"), ("", "", "g2 ")], "G2"),
    "1009": ([("", "primary", "G2"), ("", "recurrence", "G3")], "G2"),
    "1010": ([("", "primary", "G2"), ("", "not reported", "G3")], "G2"),
    "1011": ([("true", "recurrence", "G3")], None),
    "1012": ([("true", "primary", "G2"), ("true", "primary", "G3")], "G2 / G3"),
    "1013": ([("", "not reported", "G2"), ("false", "Synchronous primary", "G3")], "G2"),
}
DIAGNOSIS = ["diagnosis_is_primary_disease", "classification_of_tumor", "tumor_grade"]


@pytest.mark.parametrize("dotted", ["", "diagnoses."])
def test_case_7_the_primary_diagnosis_decides_on_both_roads(folder, dotted):
    case_column = "cases.submitter_id" if dotted else "case_submitter_id"
    head = [case_column, *(dotted + name for name in DIAGNOSIS), "treatments.treatment_type"]
    rows = [
        (f"TCGA-DU-{case}", *cells, treatment)
        for case, (diagnoses, _) in CASES.items()
        for cells in diagnoses
        for treatment in ("Surgery, NOS", "Radiation, NOS")
    ]
    expected = {f"TCGA-DU-{case}": grade for case, (_, grade) in CASES.items()}

    def known(path):
        values = clinical_values("grade", [path])
        return {patient: None if label_rules.is_missing(value) else value for patient, value in values.items()}

    assert known(clinical(folder, head, *rows)) == known(clinical(folder, head, *rows[::-1])) == expected
    records = [
        {
            "submitter_id": f"TCGA-DU-{case}",
            "project": {"project_id": "TCGA-LGG"},
            "diagnoses": [{name: cell or None for name, cell in zip(DIAGNOSIS, d, strict=True)} for d in diagnoses],
        }
        for case, (diagnoses, _) in CASES.items()
    ]
    queried = [clinical_row(record) for record in records]
    table = clinical(folder, list(queried[0]), *(row.values() for row in queried), name="queried.tsv")
    assert known(table) == expected


def test_a_case_of_which_only_the_recurrence_is_there_says_so(folder):
    path = clinical(folder, ["patient", *DIAGNOSIS], ("p0", "false", "recurrence", "G3"))
    assert clinical_values("grade", [path]) == {"p0": "no primary diagnosis"}
    more = clinical(folder, ["patient", "Grade"], ("p0", "G2"), name="more.tsv")
    assert clinical_values("grade", [path, more]) == {"p0": "G2"}


# -- names and values that nearly match --------------------------------------------------------------------------
def test_barcodes_of_a_clinical_table_in_any_spelling(folder):
    head = ["case_submitter_id", "bcr_patient_barcode", "tumor_grade"]
    rows = [
        ("", "tcga.aa.0001", "G2"),
        ("TCGA_AA_0002 ", "", "G3"),
        ("TCGA-AA-000", "TCGA-AA-0003", "G2"),
        ("p4", "", "G2"),
    ]
    assert clinical_values("grade", [clinical(folder, head, *rows)]) == {
        "TCGA-AA-0001": "G2",
        "TCGA-AA-0002": "G3",
        "TCGA-AA-0003": "G2",  # one of two columns is damaged
        "p4": "G2",
    }
    with pytest.raises(CohortError, match=r"clinical\.tsv, line 2, case_submitter_id: 'TCGA-AA-OO01' is nearly a TCGA"):
        clinical_values("grade", [clinical(folder, head, ("TCGA-AA-OO01", "", "G2"))])
    with pytest.raises(CohortError, match=r"line 2: names TCGA-AA-0001 and TCGA-AA-0002; correct or delete the line"):
        clinical_values("grade", [clinical(folder, head, ("TCGA-AA-0001", "TCGA-AA-0002", "G2"))])
    with pytest.raises(CohortError, match=r"line 2: the sample TCGA-AA-0002-01 is not of the patient TCGA-AA-0001"):
        path = clinical(folder, ["sampleID", "_PATIENT", "Grade"], ("TCGA-AA-0002-01", "TCGA-AA-0001", "G2"))
        clinical_values("grade", [path])


def test_values_and_columns_that_differ_in_case_only(folder):
    one = clinical(
        folder, ["Patient", "TUMOR_GRADE", "SampleID"], ("p0", "g2", ""), ("p0", "G2 ", ""), ("p1", "G3", "")
    )
    two = clinical(folder, ["patient", "Grade"], ("p0", "g2"), ("p1", "g3"), name="two.tsv")
    assert clinical_values("grade", [one, two]) == {"p0": "G2", "p1": "G3"}
    rows = [("TCGA-AA-0001-11", "TCGA-AA-0001", "G3"), ("TCGA-AA-0001-01", "TCGA-AA-0001", "G2")]
    path = clinical(folder, ["SAMPLEID", "_patient", "Grade"], *rows)
    assert clinical_values("grade", [path]) == {"TCGA-AA-0001": "G2"}


def test_class_values_that_cannot_be_told_apart():
    with pytest.raises(CohortError, match="class_values: g2 cannot mean both classes"):
        label_rules.classes(
            params.check(
                {"task": "t", "class_names": ["a", "b"], "label_rule": "grade", "class_values": [["G2"], ["g2"]]}
            )
        )


# Tables of the field whose columns are not under one plain header, and what they say.
CBIOPORTAL = [["#Patient Identifier", "Sample Identifier", "Grade"], ["#STRING", "STRING", "STRING"], ["#1", "1", "1"]]
OF_THE_FIELD = {
    "cBioPortal": [
        *CBIOPORTAL,
        ["PATIENT_ID", "SAMPLE_ID", "GRADE"],
        ["TCGA-AB-0001", "TCGA-AB-0001-06", "G3"],
        ["TCGA-AB-0001", "TCGA-AB-0001-01", "G2"],
    ],
    "cBioPortal's page": [["Patient ID", "Neoplasm Histologic Grade"], ["TCGA-AB-0001", "G2"]],
    "biotab": [
        ["bcr_patient_uuid", "bcr_patient_barcode", "patient_id", "tumor_grade"],
        ["bcr_patient_uuid", "bcr_patient_barcode", "patient_id", "neoplasm_histologic_grade"],
        ["CDE_ID:", "CDE_ID:2003301", "CDE_ID:", "CDE_ID:2785839"],
        ["A", "TCGA-AB-0001", "0001", "G2"],
    ],
    "Xena": [["sample", "submitter_id", "tumor_grade.diagnoses"], ["TCGA-AB-0001-01A", "TCGA-AB-0001", "G2"]],
    "Xena, 2019": [
        ["submitter_id.samples", "submitter_id", "neoplasm_histologic_grade"],
        ["TCGA-AB-0001-11A", "TCGA-AB-0001", "G3"],
        ["TCGA-AB-0001-01A", "TCGA-AB-0001", "G2"],
    ],
    "gaps": [["patient", "Grade"], *(["TCGA-AB-0001", cell] for cell in ("G2", "-", "NULL", "#N/A", "[Completed]"))],
}


@pytest.mark.parametrize("name", OF_THE_FIELD)
def test_tables_of_the_field(folder, name):
    head, *rows = OF_THE_FIELD[name]
    assert clinical_values("grade", [clinical(folder, head, *rows)]) == {"TCGA-AB-0001": "G2"}


def test_short_words_for_receptors_are_the_same_status(folder):
    paths = breast(
        folder, ("LumA", "Neg", "neg", "Negative"), ("Basal", "+", "Pos", "Neg"), ("Basal", "-", "Neg", "Neg")
    )
    assert list(clinical_values("pam50_or_ihc", paths).values()) == [
        "claimed by both: PAM50 LumA and IHC TNBC",
        "PAM50 Basal, IHC not triple-negative",
        "PAM50 Basal, IHC incomplete",
    ]
    assert clinical_values("ihc", paths)["p1"] == "Luminal A"


def test_a_grade_in_other_words_is_nearly_met():
    p = params.check({"task": "t", "class_names": ["a", "b"], "label_rule": "grade", "class_values": [["G2"], ["G3"]]})
    values = ["G2", "G3", "Grade II", "WHO grade 3", "III", "2.0", "G2;G3", "High Grade", "G1"]
    notes = label_rules.value_findings(p, dict(enumerate(values)))
    assert [note.text.split("'")[1::2] for note in notes] == [
        *(["Grade II", "G2"], ["WHO grade 3", "G3"], ["III", "G3"], ["2.0", "G2"])
    ]


def test_a_row_without_patient(folder):
    with pytest.raises(CohortError, match=r"clinical\.tsv, line 3: the patient \(patient\) is empty"):
        clinical_values("grade", [clinical(folder, ["patient", "tumor_grade"], ("a", "G2"), ("", "G2"))])


cell = st.sampled_from(["", "--", "Positive", "Negative", "negative", "Equivocal", "LumA", "Basal", "G2", "'--", "é"])


@FEW
@given(
    rows=st.lists(st.tuples(st.sampled_from(["p0", "p1", "p2"]), *[cell] * 5), min_size=1, max_size=6),
    order=st.permutations(range(6)),
    rule=st.sampled_from(sorted(label_rules.RULES)),
)
def test_the_order_of_columns_and_rows_says_nothing(folder, rows, order, rule):
    head = ["case_submitter_id", "PAM50Call_RNAseq", ER, PR, HER2, "tumor_grade"]
    if rule == "project":
        head[5] = "project_id"
    values = clinical_values(rule, [clinical(folder, head, *rows)])
    shuffled = clinical(folder, [head[i] for i in order], *([cells[i] for i in order] for cells in rows[::-1]))
    assert clinical_values(rule, [shuffled]) == values and set(values) == {cells[0] for cells in rows}


@FEW
@given(data=st.binary(max_size=20), where=st.integers(0, 120), cut=st.integers(0, 40))
def test_any_damage_is_an_error_or_values(folder, data, where, cut):
    path = clinical(folder, ["patient", "tumor_grade"], *((f"p{i}", "G2") for i in range(9)))
    whole = path.read_bytes()
    path.write_bytes(whole[:where] + data + whole[where + cut :])
    try:
        values = clinical_values("grade", [path])
    except CohortError as error:
        assert "clinical.tsv" in str(error)
    else:
        assert all(isinstance(value, str) and value for value in values.values())


@pytest.mark.parametrize(
    "rule, values", [("pam50", [["LumA"], ["Basal"]]), ("pam50_or_ihc", [["Luminal A"], ["TNBC"]])]
)
def test_a_synthetic_table_holds_what_the_rule_reads(folder, rule, values):
    p = params.load("brca", "demo", label_rule=rule, class_values=values)
    patients = synthetic_patients.patients(p)
    synthetic_patients.clinical(p, patients).to_csv(folder / "made.tsv", sep="\t", index=False)
    found = clinical_values(rule, [folder / "made.tsv"])
    assert [label_rules.classes(p)[found[patient]] for patient in patients["patient_id"]] == patients["label"].tolist()


# -- what a page tells -------------------------------------------------------------------------------------------
def rule(label_rule, **more):
    base = {"task": "t", "class_names": ["Luminal A", "TNBC"], "class_values": [["Luminal A"], ["TNBC"]]}
    return label_rules.described(params.check({**base, "label_rule": label_rule, **more}))


def test_every_rule_is_told():
    grade = rule("grade", class_names=["low", "high"], class_values=[["G2"], ["G3", "G4"]], clinical=["clinical.tsv"])
    assert grade.startswith("The label is the tumour grade: `G2` is low; `G3` or `G4` is high (column `tumor_grade` of")
    assert "is left out and counted" in grade
    assert "`PAM50Call_RNAseq`" in rule("pam50") and "`er_status`" in rule("ihc")
    assert "in the sample sheets" in rule("project", sample_sheets=["s.tsv"]) and "`project_id`" in rule("project")
    assert "the column `label` of mine.csv" in rule("table", cohort_table="mine.csv")
    matrix = {"expression_matrix": ["a.tsv", "b.tsv"], "expression_kind": "counts", "inputs": "genes"}
    assert "`a.tsv` is Luminal A" in rule("matrix", class_values=[["a.tsv"], ["b.tsv"]], **matrix)


def test_conflicts_are_told():
    assert "A patient whom both claim is left out and counted." in rule("pam50_or_ihc")
    assert "whom both claim is TNBC." in rule("ihc_before_pam50")
    assert "whom both claim is Luminal A." in rule("pam50_before_ihc")


# -- real tables -------------------------------------------------------------------------------------------------
def plain(path, sep):
    """A real file's cells, read by nothing but the csv module; names that are there twice get a number."""
    with path.open(newline="") as handle:
        head, *rows = list(csv.reader(handle, delimiter=sep))
    head = [name if name not in head[:i] else f"{name}.{i}" for i, name in enumerate(head)]
    return [dict(zip(head, cells, strict=True)) for cells in rows]


@pytest.mark.real
def test_real_breast_cancer(real_data):
    path = real_data / "labels/xena_BRCA_clinicalMatrix.tsv"
    rows = [cells for cells in plain(path, "\t") if cells["sampleID"].endswith("-01")]
    names = [
        "breast_carcinoma_estrogen_receptor_status",
        "breast_carcinoma_progesterone_receptor_status",
        "lab_proc_her2_neu_immunohistochemistry_receptor_status",
    ]
    negative = {cells["_PATIENT"] for cells in rows if all(cells[name] == "Negative" for name in names)}
    positive = {
        cells["_PATIENT"]
        for cells in rows
        if "Positive" in (cells[names[0]], cells[names[1]]) and cells[names[2]] == "Negative"
    }
    luminal = {cells["_PATIENT"] for cells in rows if cells["PAM50Call_RNAseq"] == "LumA"}
    assert (len(rows), len(negative), len(luminal), len(negative & luminal)) == (1101, 116, 421, 2)

    def found(rule, value):
        values = clinical_values(rule, [path])
        assert len(values) == 1101 and "TCGA-E9-A1NA" in values  # R cut one of its columns down to TCGA-E9-A1
        return {patient for patient in values if values[patient] == value}

    assert found("ihc", "TNBC") == negative and found("ihc", "Luminal A") == positive
    assert found("pam50", "LumA") == luminal
    assert found("pam50_or_ihc", "TNBC") == negative - luminal
    assert found("pam50_or_ihc", "Luminal A") == luminal - negative
    assert found("pam50_or_ihc", "claimed by both: PAM50 LumA and IHC TNBC") == negative & luminal
    assert found("ihc_before_pam50", "TNBC") == negative and found("pam50_before_ihc", "Luminal A") == luminal


@pytest.mark.real
def test_real_grades(real_data):
    cdr, subtypes = (
        real_data / "labels" / name
        for name in ("tcga_cdr_4cohorts_grade.tsv", "tcgabiolinks_lgg_gbm_subtype_grade.csv")
    )
    rows = {cells["bcr_patient_barcode"]: cells for cells in plain(cdr, "\t")}
    found = clinical_values("grade", [cdr])
    assert found == {patient: cells["histological_grade"] for patient, cells in rows.items()}
    glioma = Counter(found[patient] for patient in rows if rows[patient]["type"] == "LGG")
    assert glioma == {"G2": 249, "G3": 265, "[Discrepancy]": 1}
    assert {found[patient] for patient in rows if rows[patient]["type"] != "LGG"} == {"[Not Available]"}
    others = clinical_values("grade", [subtypes])
    expected = Counter(cells["Grade"] or "empty" for cells in plain(subtypes, ","))
    assert Counter(others.values()) == expected and (expected["G2"], expected["G3"]) == (216, 241)
    shared = [patient for patient in rows if others.get(patient) in ("G2", "G3")]
    assert len(shared) == 457 and sum(found[patient] == others[patient] for patient in shared) == 456
    with pytest.raises(CohortError, match=r"TCGA-DU-7019: grade is 'G3' here and '\[Discrepancy\]' in another table"):
        clinical_values("grade", [cdr, subtypes])


@pytest.mark.real
def test_real_export_of_the_gdc(real_data):
    path = real_data / "gdc/clinical.LUSC.tsv"
    rows = plain(path, "\t")
    assert {cells["case_submitter_id"] for cells in rows} == {"--"}  # the case's id is the first of five submitter_id
    assert clinical_values("grade", [path]) == {cells["submitter_id"]: cells["tumor_grade"] for cells in rows}
    projects = clinical_values("project", [path])
    assert projects == {cells["submitter_id"]: cells["project_id"] for cells in rows} and len(projects) == 135
