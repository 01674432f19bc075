"""Who is in the study: an own table, GDC files and matrices; every exclusion counted, every contradiction an error."""

import csv
import gzip
import io
import os
import zipfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmmil import paper, params, results, study
from mmmil.cohort import build as cohorts
from mmmil.cohort.build import CohortError
from mmmil.simulate import cohort as synthetic
from mmmil.sources import aliquots, sample_sheets

N = 8  # patients per class


def check(tmp_path, **more):
    base = {"task": "t", "class_names": ["low", "high"], "data_dir": str(tmp_path), "n_folds": 3}
    return params.check({**base, "results_dir": str(tmp_path / "results"), **more})


# -- own table ---------------------------------------------------------------------------------------------------
@pytest.fixture
def own(tmp_path):
    """Writes an own table with files; `own(change)` lets the test change the table first."""
    (tmp_path / "s").mkdir()
    rows = []
    for i in range(2 * N):
        for name in (f"{i}.svs", f"{i}.tsv"):
            (tmp_path / "s" / name).write_text("x")
        rows.append((f"TCGA-{'AB' if i % 2 else 'CD'}-{i:04d}", str(i % 2), f"slide{i}", f"s/{i}.svs", f"s/{i}.tsv"))
    columns = ["patient_id", "label", "slide_id", "slide_path", "expression_path"]

    def write(change=lambda table: table, **more):
        table = change(pd.DataFrame(rows, columns=columns))
        table.to_csv(tmp_path / "cohort.csv", index=False)
        return check(tmp_path, cohort_table="cohort.csv", **more)

    return write


def test_own_table(own, tmp_path):
    made = cohorts.build(own())
    assert len(made) == 2 * N and made.patients.index.is_monotonic_increasing and made.excluded.empty
    first = made.patients.loc["TCGA-CD-0000"]
    assert first["label"] == 0 and first["site"] == "CD" and first["slide_id"] == "slide0"
    assert first["slide_path"] == str((tmp_path / "s/0.svs").resolve())
    assert made.labels.value_counts().to_dict() == {0: N, 1: N} and made.class_names == ["low", "high"]


def test_an_own_table_that_says_whose_it_is_is_read_as_one_that_does_not(own):
    p = own()
    table, folder = pd.read_csv(p.path(p.cohort_table), dtype=str), str(p.data)
    table[["slide_path", "expression_path"]] = folder + "/" + table[["slide_path", "expression_path"]]
    path = results.write(p.override(synthetic=True), "applied/cohort", table)
    assert set(pd.read_csv(path)["cohort"]) == {"synthetic cohort t"}
    made = cohorts.build(p.override(data_dir=str(path.parent), cohort_table=path.name))
    pd.testing.assert_frame_equal(made.patients, cohorts.build(p).patients)


def test_labels_by_class_name_or_value(own):
    by_name = cohorts.build(own(lambda t: t.assign(label=t["label"].map({"0": "low", "1": "high"}))))
    by_value = cohorts.build(
        own(lambda t: t.assign(label=t["label"].map({"0": "G2", "1": "G3"})), class_values=[["G2"], ["G3", "G4"]])
    )
    assert by_name.labels.tolist() == by_value.labels.tolist() == cohorts.build(own()).labels.tolist()


def test_columns_of_the_other_modality_may_be_absent(own):
    genes = cohorts.build(own(lambda t: t[["patient_id", "label", "expression_path"]], inputs="genes"))
    assert (genes.patients["slide_path"] == "").all()
    slides = cohorts.build(own(lambda t: t[["patient_id", "label", "slide_path"]], inputs="slides"))
    assert slides.patients["slide_id"].iloc[0] == "1" and (slides.patients["expression_path"] == "").all()


EXCLUDE = {"incomplete": "exclude"}


def set_cell(column, value, row=3):
    def change(table):
        table.loc[row, column] = value
        return table

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (set_cell("label", "2"), r"line 5, patient TCGA-AB-0003: label '2' is none of 0, 1, low, high"),
        (set_cell("label", ""), r"patient TCGA-AB-0003: label ''"),
        (set_cell("patient_id", "TCGA-CD-0000"), r"line 5, patient TCGA-CD-0000: patient_id .* more than once"),
        (set_cell("patient_id", " "), r"line 5, patient \?: patient_id is empty"),
        (set_cell("slide_path", "s/none.svs"), r"TCGA-AB-0003: slide_path: .*none\.svs is not there"),
        (set_cell("expression_path", "s/none.tsv"), r"TCGA-AB-0003: expression_path: .*none\.tsv is not there"),
        (set_cell("slide_path", "s"), r"TCGA-AB-0003: slide_path: .*s is a folder; name the file in it"),
        (set_cell("slide_path", ""), r"TCGA-AB-0003: slide_path: has no slide; .*incomplete: exclude"),
        (set_cell("expression_path", ""), r"TCGA-AB-0003: expression_path: has no expression"),
        (set_cell("slide_path", "s/0.svs"), r"slide_path 's/0\.svs' belongs to more than one patient"),
        (set_cell("slide_id", "slide0"), r"slide_id 'slide0' belongs to more than one patient; give each"),
        (set_cell("slide_id", "SLIDE0"), r"slide_id 'SLIDE0' belongs to more than one patient"),
        (set_cell("slide_id", "x" * 201), r"cannot be a folder's name; .* keep below 200 bytes"),
        (lambda t: t.drop(columns="label"), r"the column 'label' is missing"),
        (lambda t: t.drop(columns="slide_path"), r"the column 'slide_path' is missing"),
        (lambda t: t.rename(columns={"slide_id": "slideid"}), r"'slideid' is unknown; rename it to 'slide_id'"),
        (
            lambda t: t.drop(columns="slide_id", errors="ignore").assign(slide="x"),
            r"'slide' is unknown; rename it to 'sl",
        ),
        (lambda t: t.rename(columns={"patient_id": "Patient"}), r"'Patient' is unknown; rename it to 'patient_id'"),
        (set_cell("expression_path", "./s/0.tsv"), r"expression_path '\./s/0\.tsv' belongs to more than one patient"),
        (set_cell("slide_id", "../x"), r"line 5, patient TCGA-AB-0003: slide_id '\.\./x' cannot be a folder's name"),
        (set_cell("slide_path", "x" * 300), r"TCGA-AB-0003: slide_path: .*xxx is not there"),
        (lambda t: t.assign(label2=0).rename(columns={"label2": "label"}), r"line 1: the column 'label' stands there"),
        (set_cell("patient_id", "nan"), r"line 5, patient \?: patient_id is empty"),
        (
            set_cell("slide_path", "s\\3.svs"),
            r"line 5, .*: slide_path 's\\3\.svs' is a path of Windows; write it with /",
        ),
        (set_cell("slide_path", "C:\\s\\3.svs"), r"slide_path 'C:\\s\\3\.svs' is a path of Windows"),
        (set_cell("slide_path", "file:///s/3.svs"), r"slide_path 'file:///s/3\.svs' is an address; download the file"),
        (set_cell("expression_path", "s3://b/3.tsv"), r"expression_path 's3://b/3\.tsv' is an address"),
        (
            set_cell("slide_path", "s/tcga-ab-0005-01Z-00-DX1.X.svs"),
            r"patient TCGA-AB-0003: slide_path 's/tcga-.*' is of TCGA-AB-0005 by its name",
        ),
        (lambda t: t.assign(expression_path="s/0.tsv"), r"or name a matrix of all in expression_matrix"),
        (lambda t: t.iloc[:5], r"3 patients of low and 2 of high, but 3 folds"),
        (lambda t: t.iloc[:0], r"no patient is left"),
    ],
)
def test_error_in_an_own_table(own, change, message):
    with pytest.raises(CohortError, match=message) as error:
        cohorts.build(own(change))
    if "folds" not in message:
        assert "cohort.csv" in str(error.value)


def test_every_fault_is_named_at_once(own):
    def change(table):
        return set_cell("label", "9", 4)(set_cell("label", "8")(table))

    with pytest.raises(CohortError, match=r"(?s)label '8'.*label '9'"):
        cohorts.build(own(change))


def test_empty_file(own, tmp_path):
    p = own()
    (tmp_path / "s/3.svs").write_text("")
    with pytest.raises(CohortError, match=r"3\.svs is empty"):
        cohorts.build(p)


def test_incomplete_patients_can_be_excluded_and_are_counted(own):
    made = cohorts.build(own(set_cell("slide_path", ""), incomplete="exclude"))
    assert len(made) == 2 * N - 1
    assert made.excluded.to_numpy().tolist() == [["TCGA-AB-0003", "incomplete: no slide", "incomplete"]]
    neither = cohorts.build(own(lambda t: set_cell("expression_path", "")(set_cell("slide_path", "")(t)), **EXCLUDE))
    assert neither.excluded["reason"].tolist() == ["incomplete: no slide, no expression"]


@pytest.mark.parametrize("nothing", ["NA", "nan", "None", "#N/A"])
def test_what_r_and_pandas_write_for_nothing_is_nothing(own, nothing):
    def change(table):
        table.loc[3:4, ["slide_path", "slide_id"]] = nothing
        sites = [nothing if i % 2 else f"{i:03d}" for i in range(len(table))]
        return table.assign(label=table["label"] + ".0", site=sites)

    made = cohorts.build(own(change, **EXCLUDE))
    assert made.excluded["reason"].tolist() == ["incomplete: no slide"] * 2
    assert made.labels.tolist() == [1] * (N - 1) + [0] * (N - 1)  # AB, then CD
    assert set(made.patients["site"][: N - 1]) == {"AB"}  # the barcode's


def test_a_site_of_the_table_and_of_a_barcode_are_one(own):
    def change(table):
        ids = [f"TCGA-05-{i:04d}" for i in range(len(table))]
        return table.assign(patient_id=ids, site=["5" if i % 2 else "" for i in range(len(table))])

    assert set(cohorts.build(own(change)).patients["site"]) == {"05"}


def test_own_table_beside_a_label_rule(own):
    with pytest.raises(CohortError, match="set label_rule: table"):
        cohorts.build(own(label_rule="grade", class_values=[["G2"], ["G3"]]))


def test_missing_table(tmp_path):
    with pytest.raises(CohortError, match="is not there"):
        cohorts.build(check(tmp_path, cohort_table="none.csv"))


def test_slides_without_labels_can_only_be_tiled(own):
    made = cohorts.build(own(lambda t: t[["patient_id", "slide_path"]].iloc[:1], inputs="slides"))
    assert made.labels.tolist() == [-1]
    with pytest.raises(CohortError, match="can only be tiled"):
        cohorts.split(made.labels)


def test_own_table_with_a_matrix(own, tmp_path):
    names = [f"TCGA-{'AB' if i % 2 else 'CD'}-{i:04d}-01A-11R-1234-07" for i in range(2 * N - 1)]
    (tmp_path / "m.tsv").write_text("\t".join(["gene", *names, "TCGA-ZZ-9999-11A-11R-1234-07"]) + "\n")
    more = {"expression_matrix": ["m.tsv"], "expression_kind": "counts", "incomplete": "exclude"}
    made = cohorts.build(own(lambda t: t.drop(columns="expression_path"), **more))
    left_out = [f"TCGA-AB-{2 * N - 1:04d}", "incomplete: no expression", "incomplete"]
    stranger = ["TCGA-ZZ-9999", "expression: the patient is not in the own table", "expression"]
    assert made.excluded.to_numpy().tolist() == [stranger, left_out]
    counted(made, {"expression": (2 * N, 2 * N - 1), "table": (2 * N, 2 * N), "incomplete": (2 * N, 2 * N - 1)})
    assert set(made.patients["expression_path"]) == {str((tmp_path / "m.tsv").resolve())}


@pytest.mark.parametrize("suffix", [".bam", "_counts"])
def test_a_matrix_of_nobody_in_the_table(own, tmp_path, suffix):
    (tmp_path / "m.tsv").write_text("\t".join(["gene", *(f"P{i}{suffix}" for i in range(2 * N))]) + "\n")
    more = {"expression_matrix": ["m.tsv"], "expression_kind": "counts", "incomplete": "exclude"}
    with pytest.raises(
        CohortError, match=rf"m\.tsv: holds no patient of cohort\.csv, which has 'P0', but 'P0{suffix}'"
    ):
        cohorts.build(own(lambda t: t.assign(patient_id=[f"P{i}" for i in range(2 * N)]), **more))


def test_columns_that_are_perhaps_of_patients_are_told(own, tmp_path):
    names = [f"P{i}" if i < N else f"P{i}_T" for i in range(2 * N)]
    (tmp_path / "m.tsv").write_text("\t".join(["gene", *names]) + "\n")
    more = {"expression_matrix": ["m.tsv"], "expression_kind": "counts", "incomplete": "exclude"}
    made = cohorts.build(own(lambda t: t.assign(patient_id=[f"P{i}" for i in range(2 * N)]), **more))
    assert [note.text for note in made.notes] == [
        "8 patients of the table have no column, and columns have longer names, as 'P10_T' for P10"
    ]


def counted(made, steps):
    """The flow adds up, agrees with the excluded ones, and is {step: (entered, left)}."""
    flow = made.flow
    assert (flow["entered"] - flow["excluded"] == flow["left"]).all() and flow["step"].is_unique
    assert Counter(made.excluded["step"]) == {s: n for s, n in zip(flow["step"], flow["excluded"], strict=True) if n}
    assert {row.step: (row.entered, row.left) for row in flow.itertuples()} == steps
    assert flow["left"].iloc[-1] == len(made)


def test_flow_of_an_own_table(own):
    made = cohorts.build(own(set_cell("slide_path", ""), **EXCLUDE))
    counted(made, {"table": (2 * N, 2 * N), "incomplete": (2 * N, 2 * N - 1)})
    few = pd.Series({i: f"{n} valid tiles, fewer than n_tiles (9)" for n, i in enumerate(made.patients.index[:2])})
    less = study.without(made, few)
    counted(less, {"table": (16, 16), "incomplete": (16, 15), "tiles": (15, 13)})
    assert (
        less.excluded["reason"].tolist() == ["incomplete: no slide", *few] and few.index[0] not in less.patients.index
    )
    counted(study.without(made, few[:0]), {"table": (16, 16), "incomplete": (16, 15), "tiles": (15, 15)})


FUZZ = {"max_examples": 60, "deadline": None, "derandomize": True}
FIXTURE = settings(**FUZZ, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the files stay as they are


@FIXTURE
@given(order=st.permutations(range(5)), rows=st.permutations(range(2 * N)), crlf=st.booleans(), bom=st.booleans())
def test_the_order_of_columns_and_rows_says_nothing(own, tmp_path, order, rows, crlf, bom):
    p = own()
    table = pd.read_csv(tmp_path / "cohort.csv", dtype=str).iloc[rows, order]
    text = table.to_csv(index=False, lineterminator="\r\n" if crlf else "\n")
    (tmp_path / "cohort.csv").write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    pd.testing.assert_frame_equal(cohorts.build(p).patients, cohorts.build(own()).patients)


@FIXTURE
@given(data=st.binary(max_size=12), where=st.integers(0, 800), cut=st.integers(0, 60))
def test_any_damage_is_an_error_or_a_cohort(own, tmp_path, data, where, cut):
    p = own()
    whole = (tmp_path / "cohort.csv").read_bytes()
    (tmp_path / "cohort.csv").write_bytes(whole[:where] + data + whole[where + cut :])
    try:
        made = cohorts.build(p)
    except CohortError as error:
        assert "cohort.csv" in str(error)
    else:
        assert made.labels.isin([0, 1]).all() and made.patients.index.is_unique
        assert made.patients[["slide_path", "expression_path"]].map(os.path.isfile).all(axis=None)
        assert not made.patients["slide_id"].duplicated().any()


# -- GDC ---------------------------------------------------------------------------------------------------------
def sheet_row(patient, name, kind, sample="01A", of="Primary Tumor", project="TCGA-LGG"):
    category = {"Slide Image": "Biospecimen"}.get(kind, "Transcriptome Profiling")
    return (f"id-{name}", name, category, kind, project, patient, f"{patient}-{sample}", of)


@pytest.fixture
def download(tmp_path):
    """Writes a GDC-like download; `download(rows, clinical)` adds rows to the sheet and columns to the table."""
    patients = [f"TCGA-AB-{i:04d}" for i in range(2 * N)]
    rows = []
    for i, patient in enumerate(patients):
        project = "TCGA-LUSC" if i % 2 else "TCGA-LUAD"
        slide, counts = f"{patient}-01Z-00-DX1.X{i}.svs", f"u{i}.rna_seq.augmented_star_gene_counts.tsv"
        rows.append(sheet_row(patient, slide, sample_sheets.SLIDE, "01Z", project=project))
        rows.append(sheet_row(patient, counts, sample_sheets.EXPRESSION, project=project))
    columns = [
        "File ID",
        "File Name",
        "Data Category",
        "Data Type",
        "Project ID",
        "Case ID",
        "Sample ID",
        "Sample Type",
    ]

    def write(more=(), clinical=None, fetched=True, **values):
        sheet = pd.DataFrame([*rows, *more], columns=columns)
        sheet.to_csv(tmp_path / "sheet.tsv", sep="\t", index=False)
        if fetched:
            for row in sheet.itertuples():
                path = tmp_path / {sample_sheets.SLIDE: "slides"}.get(row[4], "expression") / row[2]
                path.parent.mkdir(exist_ok=True)
                path.write_text("x")
        table = {"case_submitter_id": patients, "tumor_grade": ["G3" if i % 2 else "G2" for i in range(2 * N)]}
        pd.DataFrame(table | (clinical or {})).to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
        base = {"label_rule": "grade", "class_values": [["G2"], ["G3"]]}
        files = {"sample_sheets": ["sheet.tsv"], "clinical": ["clinical.tsv"]}
        return check(tmp_path, **files, **{**base, **values})

    return write


def reasons(made):
    return made.excluded["reason"].value_counts().to_dict()


def test_gdc_files(download, tmp_path):
    made = cohorts.build(download())
    assert len(made) == 2 * N and made.excluded.empty
    row = made.patients.loc["TCGA-AB-0003"]
    assert row["label"] == 1 and row["site"] == "AB" and row["slide_id"] == "TCGA-AB-0003-01Z-00-DX1.X3"
    assert row["expression_path"] == str((tmp_path / "expression/u3.rna_seq.augmented_star_gene_counts.tsv").resolve())


def test_gdc_rules_leave_out_and_count(download):
    a, b = "TCGA-AB-0000", "TCGA-AB-0001"
    star = "augmented_star_gene_counts.tsv"
    more = [
        sheet_row(a, f"{a}-01Z-00-DX2.Y.svs", sample_sheets.SLIDE, "01Z"),
        sheet_row(a, f"{a}-01Z-00-DX1.Y.svs", sample_sheets.SLIDE, "01Z"),
        sheet_row(a, f"{a}-01A-01-TS1.Y.svs", sample_sheets.SLIDE),
        sheet_row(a, f"{a}-11A-01-BS1.Y.svs", sample_sheets.SLIDE, "11A", "Solid Tissue Normal"),
        sheet_row(b, f"a.{star}", sample_sheets.EXPRESSION, "01B"),
        sheet_row(b, f"zz.{star}", sample_sheets.EXPRESSION, "01A"),
        sheet_row(b, f"n.{star}", sample_sheets.EXPRESSION, "11A", "Solid Tissue Normal"),
        sheet_row(b, "f.FPKM.txt.gz", sample_sheets.EXPRESSION),
        sheet_row(b, "m.maf.gz", "Masked Somatic Mutation"),
    ]
    made = cohorts.build(download(more))
    assert len(made) == 2 * N
    assert made.patients.loc[a, "slide_id"].endswith("DX1.X0")  # first by name
    assert "/u1." in made.patients.loc[b, "expression_path"]  # vial A before B, then by name
    assert reasons(made) == {
        "slide: diagnostic slide other than DX1": 1,
        "slide: another DX1 of the patient is used": 1,
        "slide: frozen section (TS), not a diagnostic slide (DX)": 1,
        "slide: sample type Solid Tissue Normal, not a primary tumour": 1,
        "expression: vial B (often FFPE), the patient's vial A is used": 1,
        aliquots.UNTOLD: 1,
        "expression: sample type Solid Tissue Normal, not a primary tumour": 1,
        "expression: not a file of star counts": 1,
        "file: data type Masked Somatic Mutation is not used": 1,
    }
    counted(
        made,
        {
            "file": (4 * N + 9, 4 * N + 8),
            "slide": (2 * N + 4, 2 * N),
            "expression": (2 * N + 4, 2 * N),
            "label": (2 * N, 2 * N),
            "incomplete": (2 * N, 2 * N),
        },
    )


def test_flow_of_one_modality(download):
    made = cohorts.build(download(inputs="genes"))
    steps = {
        "file": (4 * N, 2 * N),
        "expression": (2 * N, 2 * N),
        "label": (2 * N, 2 * N),
        "incomplete": (2 * N, 2 * N),
    }
    counted(made, steps)
    assert reasons(made) == {"file: data type Slide Image is not used": 2 * N}


def test_unknown_grades_are_counted(download):
    grades = ["G4", "[Discrepancy]", "[Not Available]", "", *["G3" if i % 2 else "G2" for i in range(4, 2 * N)]]
    made = cohorts.build(download(clinical={"tumor_grade": grades}))
    assert len(made) == 2 * N - 4
    assert reasons(made) == {f"label: grade is '{g}'": 1 for g in ("G4", "[Discrepancy]", "[Not Available]", "empty")}


def test_repeated_clinical_rows(download, tmp_path):
    p = download()
    table = pd.read_csv(tmp_path / "clinical.tsv", sep="\t")
    more = pd.DataFrame({"case_submitter_id": ["TCGA-AB-0000", "TCGA-AB-0001"], "tumor_grade": ["G3", "'--"]})
    pd.concat([table, more]).to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
    assert reasons(cohorts.build(p)) == {"label: grade is 'G2 / G3'": 1}


def test_labels_by_project(download):
    made = cohorts.build(download(label_rule="project", class_values=[["TCGA-LUAD"], ["TCGA-LUSC"]]))
    assert made.labels.tolist() == [i % 2 for i in range(2 * N)]


def test_labels_by_receptors(download):
    receptors = [("Positive", "Negative", "Negative"), ("Negative", "Negative", "Negative")] * N
    receptors[:5] = [
        ("Negative", "Positive", "Negative"),
        ("Positive", "Positive", "Positive"),
        ("Negative", "Negative", "Equivocal"),
        ("Negative", "Indeterminate", "Negative"),
        ("Indeterminate", "Positive", "negative"),
    ]
    er, pr, her2 = zip(*receptors, strict=True)
    columns = {"er_status": er, "pr_status": pr, "her2_status": her2}
    classes = [["Luminal A"], ["TNBC"]]
    made = cohorts.build(download(clinical=columns, label_rule="ihc", class_values=classes))
    assert made.labels["TCGA-AB-0000"] == made.labels["TCGA-AB-0004"] == 0 and made.labels["TCGA-AB-0005"] == 1
    assert reasons(made) == {
        "label: ihc is 'HER2 positive'": 1,
        "label: ihc is 'HER2 equivocal'": 1,
        "label: ihc is 'ER negative, PR indeterminate'": 1,
    }


def test_folders_of_gdc_client(download, tmp_path):
    p = download()
    name = "u3.rna_seq.augmented_star_gene_counts.tsv"
    nested = tmp_path / "expression" / f"id-{name}"
    nested.mkdir()
    (tmp_path / "expression" / name).rename(nested / name)
    assert cohorts.build(p).patients.loc["TCGA-AB-0003", "expression_path"] == str((nested / name).resolve())


def test_patient_without_one_modality(download, tmp_path):
    sheets = [
        sheet_row("TCGA-AB-9999", "TCGA-AB-9999-01Z-00-DX1.Y.svs", sample_sheets.SLIDE, "01Z", project="TCGA-LUAD")
    ]
    rule = {"label_rule": "project", "class_values": [["TCGA-LUAD"], ["TCGA-LUSC"]]}
    with pytest.raises(CohortError, match="patient TCGA-AB-9999: expression_path: has no expression"):
        cohorts.build(download(sheets, **rule))
    made = cohorts.build(download(sheets, **rule, incomplete="exclude"))
    assert reasons(made) == {"incomplete: no expression": 1} and len(made) == 2 * N
    more = 2 * N + 1
    files = {"file": (4 * N + 1, 4 * N + 1), "slide": (more, more), "expression": (2 * N, 2 * N)}
    counted(made, {**files, "label": (more, more), "incomplete": (more, 2 * N)})


def test_who_lacks_a_modality_is_told_why(download, tmp_path):
    """Slides that somebody has renamed, and a clinical table of other names."""
    p = download()
    sheet = (tmp_path / "sheet.tsv").read_text()
    (tmp_path / "sheet.tsv").write_text(sheet.replace("TCGA-AB-0003-01Z-00-DX1.X3.svs", "3.svs"))
    with pytest.raises(
        CohortError, match=r"AB-0003: slide_path: has no slide \(its file name is no TCGA slide barcode\);"
    ):
        cohorts.build(p)
    numbers = {"case_submitter_id": [f"{i:04d}" for i in range(2 * N)]}
    with pytest.raises(CohortError, match=r"(?s)no patient is left.*16 of 16 patients have no file .*, as 0000"):
        cohorts.build(download(clinical=numbers))


def test_labels_by_pam50_or_receptors(download):
    calls = ["LumA" if i % 2 else "Basal" for i in range(2 * N)]
    calls[0] = "LumA"
    negative = ["Positive" if i % 2 else "Negative" for i in range(2 * N)]
    columns = {"pam50": calls, **dict.fromkeys(["er_status", "pr_status", "her2_status"], negative)}
    rule = {"clinical": columns, "label_rule": "pam50_or_ihc", "class_values": [["Luminal A"], ["TNBC"]]}
    made = cohorts.build(download(**rule))
    assert made.labels["TCGA-AB-0001"] == 0 and made.labels["TCGA-AB-0002"] == 1
    assert reasons(made) == {"label: pam50_or_ihc is 'claimed by both: PAM50 LumA and IHC TNBC'": 1}
    assert cohorts.build(download(**rule | {"label_rule": "ihc_before_pam50"})).labels["TCGA-AB-0000"] == 1
    assert cohorts.build(download(**rule | {"label_rule": "pam50_before_ihc"})).labels["TCGA-AB-0000"] == 0


@pytest.mark.parametrize("suffix", [".partial", ".part"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_download_that_was_broken_off(download, tmp_path, suffix, nested):
    p = download()
    name = "u3.rna_seq.augmented_star_gene_counts.tsv"
    folder = tmp_path / "expression" / f"id-{name}" if nested else tmp_path / "expression"
    folder.mkdir(exist_ok=True)
    (tmp_path / "expression" / name).rename(folder / (name + suffix))
    with pytest.raises(CohortError, match=rf"patient TCGA-AB-0003: .*only there as .*{suffix}: download not finished"):
        cohorts.build(p)


def manifest(tmp_path, sizes, name="manifest.txt"):
    rows = [(f"0000{i:04d}-0000-4000-8000-000000000000", n, "0" * 32, str(s), "released") for i, (n, s) in sizes]
    text = "\n".join("\t".join(row) for row in [("id", "filename", "md5", "size", "state"), *rows])
    (tmp_path / name).write_text(text + "\n")
    return {"manifests": [name]}


def test_files_of_another_size_than_the_manifest_states(download, tmp_path):
    download()
    sizes = {path.name: 1 for folder in ("slides", "expression") for path in (tmp_path / folder).iterdir()}
    slide, counts = "TCGA-AB-0003-01Z-00-DX1.X3.svs", "u4.rna_seq.augmented_star_gene_counts.tsv"
    assert len(cohorts.build(download(**manifest(tmp_path, enumerate(sizes.items()))))) == 2 * N
    p = download(**manifest(tmp_path, enumerate({slide: 5678, counts: 1, "other.svs": 9}.items())))
    (tmp_path / "slides" / slide).write_text("x" * 1234)
    with pytest.raises(CohortError, match=r"TCGA-AB-0003: .*truncated: 1,234 of 5,678 bytes; download it again"):
        cohorts.build(p)
    (tmp_path / "slides" / slide).write_text("x" * 6000)
    with pytest.raises(CohortError, match=r"TCGA-AB-0003: .*6,000 bytes where the manifest states 5,678"):
        cohorts.build(p)
    (tmp_path / "slides" / slide).write_text("x" * 5678)
    assert len(cohorts.build(p)) == 2 * N


def test_a_file_that_is_left_out_may_have_any_size(download, tmp_path):
    grades = ["G4", *["G3" if i % 2 else "G2" for i in range(1, 2 * N)]]
    slide = "TCGA-AB-0000-01Z-00-DX1.X0.svs"
    p = download(clinical={"tumor_grade": grades}, **manifest(tmp_path, enumerate({slide: 5678}.items())))
    assert len(cohorts.build(p)) == 2 * N - 1


def test_files_that_were_not_downloaded(download):
    with pytest.raises(CohortError, match=r"DX1\.X0\.svs is not there; download it"):
        cohorts.build(download(fetched=False))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"sample_sheets": []}, "name a cohort_table, or the GDC's sample_sheets"),
        ({"label_rule": "table"}, "label_rule 'table' needs a cohort_table"),
        ({"clinical": []}, "name it in `clinical`"),
        ({"clinical": ["sheet.tsv"]}, "needs one of the columns case_submitter_id"),
        ({"label_rule": "ihc"}, "needs one of the columns er_status"),
        ({"sample_sheets": ["clinical.tsv"]}, "not a GDC sample sheet, it lacks"),
        ({"class_values": [["G2"], ["G2", "G3"]]}, "G2 cannot mean both classes"),
        ({"class_values": [["G8"], ["G9"]]}, r"(?s)no patient is left.*8 x label: grade is 'G2'"),
        ({"n_folds": N}, "8 folds and a test set need 9 of each"),
    ],
)
def test_error_in_gdc_parameters(download, values, message):
    p = download().override(**values)
    with pytest.raises(CohortError, match=message):
        cohorts.build(p)


# -- matrices ----------------------------------------------------------------------------------------------------
def test_label_by_matrix(tmp_path):
    for name, site in (("a.tsv", "AA"), ("b.tsv", "BB")):
        columns = [f"TCGA-{site}-{i:04d}-01A-11R-1111-07" for i in range(N)]
        columns += [f"TCGA-{site}-0000-01A-11R-2222-07", f"TCGA-{site}-0001-11A-11R-1111-07"]
        (tmp_path / name).write_text("\t".join(["gene", *columns]) + "\n")
    both = {"expression_matrix": ["a.tsv", "b.tsv"], "expression_kind": "counts", "inputs": "genes"}
    p = check(tmp_path, **both, label_rule="matrix", class_values=[["b.tsv"], ["a.tsv"]])
    made = cohorts.build(p)
    assert made.labels["TCGA-AA-0000"] == 1 and made.labels["TCGA-BB-0000"] == 0 and len(made) == 2 * N
    assert reasons(made) == {
        "expression: sample type 11, not a primary tumour": 2,
        "expression: another aliquot of the sample is used": 2,
    }
    counted(made, {"expression": (2 * N + 4, 2 * N), "label": (2 * N, 2 * N), "incomplete": (2 * N, 2 * N)})
    with pytest.raises(CohortError, match="class_values must name every file"):
        cohorts.build(p.override(class_values=[["a.tsv"], ["c.tsv"]]))
    (tmp_path / "b.tsv").write_text((tmp_path / "a.tsv").read_text())
    with pytest.raises(CohortError, match=r"patient TCGA-AA-0000: is in .*a\.tsv, too"):
        cohorts.build(p)


MATRICES = {"expression_matrix": ["a.tsv", "b.tsv"], "expression_kind": "counts", "inputs": "genes"}
BY_MATRIX = {**MATRICES, "label_rule": "matrix", "class_values": [["a.tsv"], ["b.tsv"]]}


def matrices(tmp_path, spelled=str, more=(), site="44"):
    """Two matrices of N patients each, whose names went through `spelled`: tumour and normal tissue, some twice."""
    for name, start in (("a.tsv", 1000), ("b.tsv", 2000)):
        columns = [f"TCGA-{site}-{start + i}-01A-11R-1858-07" for i in range(N)]
        columns += [column.replace("01A", "11A") for column in columns]
        columns += [column.replace("1858", "A278") for column in columns[:4]]
        (tmp_path / name).write_text("\t".join(["gene", *more, *map(spelled, columns)]) + "\nG\t1\n")


@pytest.mark.parametrize("mark", ["-", ".", "_", " "])
@pytest.mark.parametrize("case", [str, str.lower])
def test_case_1_matrices_whose_header_went_through_r(tmp_path, mark, case):
    matrices(tmp_path, lambda name: case(name).replace("-", mark))
    made = cohorts.build(check(tmp_path, **BY_MATRIX))
    assert made.labels.to_dict() == {
        f"TCGA-44-{start + i}": start // 1000 - 1 for start in (1000, 2000) for i in range(N)
    }
    assert set(made.patients["site"]) == {"44"}
    assert reasons(made) == {
        "expression: sample type 11, not a primary tumour": 2 * N,
        "expression: another aliquot of the sample is used": 8,
    }


def test_case_4_an_annotation_in_a_matrix_is_no_patient(tmp_path):
    matrices(tmp_path, more=["Length"])
    with pytest.raises(CohortError, match=r"a\.tsv: the column 'Length' is no TCGA barcode.*delete the column"):
        cohorts.build(check(tmp_path, **BY_MATRIX))


def test_a_cohort_of_matrices_alone_is_told_to_say_so(tmp_path):
    matrices(tmp_path)
    with pytest.raises(params.ParameterError, match="only expression_matrix is named: set inputs: genes"):
        check(tmp_path, **{**BY_MATRIX, "inputs": "both"})


@pytest.mark.real
def test_case_1_real_matrices_with_rs_names(real_data, tmp_path):
    p = params.load("real_nsclc").require_files()
    for name, source in zip(("a.tsv", "b.tsv"), p.expression_matrix, strict=True):
        with gzip.open(p.path(source), "rt") as file:
            (tmp_path / name).write_text(file.readline().replace("-", ".").lower() + file.readline())
    as_they_are, with_dots = cohorts.build(p), cohorts.build(check(tmp_path, **BY_MATRIX))
    columns = ["label", "site"]
    pd.testing.assert_frame_equal(with_dots.patients[columns], as_they_are.patients[columns])
    assert reasons(with_dots) == reasons(as_they_are)


# -- names that nearly match -------------------------------------------------------------------------------------
def test_an_own_table_and_a_matrix_may_spell_barcodes_differently(own, tmp_path):
    names = [f"tcga.{'ab' if i % 2 else 'cd'}.{i:04d}.01a" for i in range(2 * N)]
    (tmp_path / "m.tsv").write_text("\t".join(["gene", *names]) + "\n")
    more = {"expression_matrix": ["m.tsv"], "expression_kind": "counts"}
    made = cohorts.build(own(lambda t: t.assign(patient_id=t["patient_id"].str.replace("-", "_") + " "), **more))
    assert len(made) == 2 * N and made.excluded.empty and made.patients.index[0] == "TCGA-AB-0001"


@pytest.mark.parametrize("spell", [str.lower, lambda i: i.replace("P0", "P"), lambda i: i.replace("P", "P-")])
def test_own_names_that_differ_in_spelling_only_are_an_error_that_names_both(own, tmp_path, spell):
    ids = [f"P{i:02d}" for i in range(2 * N)]
    (tmp_path / "m.tsv").write_text("\t".join(["gene", *map(spell, ids)]) + "\n")
    p = own(
        lambda t: t.assign(patient_id=ids), expression_matrix=["m.tsv"], expression_kind="counts", incomplete="exclude"
    )
    with pytest.raises(
        CohortError, match=rf"cohort\.csv, patient P03: is '{spell('P03')}' in .*m\.tsv; write both alike"
    ):
        cohorts.build(p)


def test_own_names_in_two_spellings_or_of_normal_tissue(own):
    with pytest.raises(CohortError, match=r"'P1' and 'p01' differ in their spelling only"):
        cohorts.build(own(lambda t: set_cell("patient_id", "p01")(set_cell("patient_id", "P1", 1)(t))))
    assert len(cohorts.build(own(set_cell("patient_id", "tcga.ab.0003.01A")))) == 2 * N
    with pytest.raises(CohortError, match=r"patient TCGA-CD-0000: patient_id .* more than once"):
        cohorts.build(own(set_cell("patient_id", "tcga.cd.0000.01A")))
    with pytest.raises(CohortError, match=r"line 5, .*'TCGA-AB-0003-11A' is sample type 11, not a primary tumour"):
        cohorts.build(own(set_cell("patient_id", "TCGA-AB-0003-11A")))
    with pytest.raises(CohortError, match=r"cohort\.csv, line 5, patient_id: 'TCGA-AB-OOO3' is nearly a TCGA barcode"):
        cohorts.build(own(set_cell("patient_id", "TCGA-AB-OOO3")))


def test_clinical_names_that_differ_in_spelling_only(tmp_path):
    (tmp_path / "m.tsv").write_text("\t".join(["gene", *(f"P{i}" for i in range(2 * N))]) + "\n")
    rows = "".join(f"p{i:02d}\tG{2 + i % 2}\n" for i in range(2 * N))
    (tmp_path / "c.tsv").write_text("patient\ttumor_grade\n" + rows)
    rule = {"label_rule": "grade", "clinical": ["c.tsv"], "class_values": [["G2"], ["G3"]]}
    p = check(tmp_path, **{**MATRICES, "expression_matrix": ["m.tsv"]}, **rule)
    with pytest.raises(
        CohortError, match=r"c\.tsv, patient p03: is 'P3' in the matrices or sample sheets; write both alike"
    ):
        cohorts.build(p)


def test_sites_in_two_spellings_are_one_site(own):
    made = cohorts.build(own(lambda t: t.assign(site=["MSK", "msk ", "Msk"] + ["other"] * (2 * N - 3))))
    assert set(made.patients["site"]) == {"MSK", "other"}


def test_labels_without_case_and_class_values_that_nobody_has(own, download):
    made = cohorts.build(
        own(lambda t: t.assign(label=t["label"].map({"0": "g2", "1": " G3 "})), class_values=[["G2"], ["G3"]])
    )
    assert made.labels.value_counts().to_dict() == {0: N, 1: N}
    grades = {"tumor_grade": ["g3" if i % 2 else "G2 " for i in range(2 * N)]}
    assert len(cohorts.build(download(clinical=grades))) == 2 * N
    with pytest.raises(
        CohortError, match=r"(?s)low: no patient has 'Grade 2'; .*'G2' \(8\).*the nearest is 'G2'; correct"
    ):
        cohorts.build(download(class_values=[["Grade 2"], ["G3"]]))
    notes = cohorts.build(download(class_values=[["G2"], ["G3", "G4"]])).notes
    assert [(note.check, "'G4'" in note.text) for note in notes] == [("class value that nobody has", True)]
    grades["tumor_grade"][0] = "G 2"
    notes = cohorts.build(download(clinical=grades)).notes
    assert [note.check for note in notes] == ["class value nearly met"] and "'G 2'" in notes[0].text


def test_a_patient_in_two_projects_is_of_none(download):
    name = "TCGA-AB-0000-01Z-00-DX1.Y.svs"
    more = [sheet_row("TCGA-AB-0000", name, sample_sheets.SLIDE, "01Z", project="TCGA-LUSC")]
    made = cohorts.build(download(more, label_rule="project", class_values=[["TCGA-LUAD"], ["TCGA-LUSC"]]))
    assert reasons(made)["label: project is 'TCGA-LUAD / TCGA-LUSC'"] == 1


# -- links -------------------------------------------------------------------------------------------------------
def as_links(folder, names):
    """The files moved into a content store beside, under names that say nothing, and links in their place."""
    store = folder / ".store"
    store.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        (folder / name).rename(store / f"{i:08x}")
        (folder / name).symlink_to(store / f"{i:08x}")


def test_case_10_a_link_keeps_its_name_in_an_own_table(own, tmp_path):
    p = own(lambda t: t.drop(columns="slide_id"))
    as_links(tmp_path, [f"s/{i}.svs" for i in range(2 * N)])
    made = cohorts.build(p)
    assert made.patients.loc["TCGA-AB-0003", ["slide_id", "slide_path"]].tolist() == ["3", str(tmp_path / "s/3.svs")]
    (tmp_path / "s/3.svs").unlink()
    (tmp_path / "s/3.svs").symlink_to(tmp_path / "s/0.svs")
    with pytest.raises(CohortError, match=r"slide_path 's/3\.svs' belongs to more than one patient"):
        cohorts.build(p)
    (tmp_path / "s/3.svs").unlink()
    (tmp_path / "s/3.svs").symlink_to(tmp_path / ".store/gone")
    with pytest.raises(CohortError, match=r"3\.svs is a link to .*gone, which is not there"):
        cohorts.build(p)


def test_case_10_a_link_keeps_its_name_among_gdc_files(download, tmp_path):
    p = download(manifests=["m.txt"])
    names = [f"TCGA-AB-{i:04d}-01Z-00-DX1.X{i}.svs" for i in range(2 * N)]
    as_links(tmp_path, [f"slides/{name}" for name in names])
    manifest(tmp_path, [(i, (name, 3 if i == 3 else 1)) for i, name in enumerate(names)], "m.txt")
    with pytest.raises(CohortError, match=r"patient TCGA-AB-0003: slide_path: .*X3\.svs is truncated: 1 of 3 bytes"):
        cohorts.build(p)
    manifest(tmp_path, [(i, (name, 1)) for i, name in enumerate(names)], "m.txt")
    assert cohorts.build(p).patients["slide_id"].tolist() == [Path(name).stem for name in names]


# -- split -------------------------------------------------------------------------------------------------------
LABELS = pd.Series([0] * 60 + [1] * 40, index=[f"P{i:03d}" for i in range(100)])


def test_split_is_disjoint_stratified_and_complete():
    folds = cohorts.split(LABELS)
    assert (folds == -1).sum() == 20 and set(folds) == {-1, 0, 1, 2, 3, 4}
    for fold in range(5):
        train, held = cohorts.fold_patients(folds, fold)
        assert len(held) == 16 and len(train) == 64 and not set(train) & set(held)
        assert not (folds[train] == -1).any()
        assert abs(LABELS[held].mean() - 0.4) < 0.05 and abs(LABELS[train].mean() - 0.4) < 0.02
    assert LABELS[folds == -1].mean() == 0.4
    train, test = cohorts.fold_patients(folds, -1)
    assert len(train) == 80 and len(test) == 20 and not set(train) & set(test)
    with pytest.raises(CohortError, match="no fold 5"):
        cohorts.fold_patients(folds, 5)


def test_a_repeat_deals_the_same_patients_anew_and_leaves_the_test_set():
    labels = pd.Series([0, 0, 1] * 30, [f"P{i:02d}" for i in range(90)])
    sites = pd.Series([f"S{i % 15}" for i in range(90)], labels.index)
    for groups in (None, sites):
        folds = cohorts.split(labels, 0.2, 4, 3, groups)
        dealt = [cohorts.again(folds, labels, repeat, 4, 3, groups) for repeat in (1, 2)]
        for repeat, other in enumerate(dealt, 1):
            assert ((other < 0) == (folds < 0)).all() and set(other[other >= 0]) == set(
                range(4 * repeat, 4 * repeat + 4)
            )
            assert other.index.equals(folds.index)
            for k in range(4):
                assert set(labels[other == 4 * repeat + k]) == {0, 1}
            if groups is not None:
                assert (other[other >= 0].groupby(groups).agg(set).str.len() == 1).all()
            else:
                shares = labels[other >= 0].groupby(other[other >= 0]).mean()
                assert shares.max() - shares.min() < 0.1
        assert not (dealt[0] % 4 == folds)[folds >= 0].all() and not (dealt[0] + 4 == dealt[1])[folds >= 0].all()
        shuffled = cohorts.again(folds[::-1], labels, 1, 4, 3, groups)
        assert shuffled[folds.index].equals(dealt[0])


def test_split_depends_on_the_seed_and_not_on_the_order():
    folds = cohorts.split(LABELS, seed=3)
    shuffled = LABELS.sample(frac=1, random_state=0)
    assert cohorts.split(shuffled, seed=3).index.tolist() == shuffled.index.tolist()
    assert cohorts.split(shuffled, seed=3)[folds.index].equals(folds)
    assert not cohorts.split(LABELS, seed=4).equals(folds)


def test_split_of_repeated_patients_or_too_few():
    with pytest.raises(CohortError, match="per patient"):
        cohorts.split(pd.concat([LABELS, LABELS[:1]]))
    with pytest.raises(CohortError, match="lower n_folds"):
        cohorts.split(LABELS[50:64])


SITES = pd.Series([f"S{i % 13}" for i in range(100)], index=LABELS.index)


def test_sites_are_never_divided_between_folds():
    folds = cohorts.split(LABELS, groups=SITES)
    assert set(folds) == {-1, 0, 1, 2, 3, 4} and folds.groupby(SITES).nunique().max() == 1
    assert 10 <= (folds == -1).sum() <= 30
    assert all(LABELS[folds == fold].nunique() == 2 for fold in range(-1, 5))
    shuffled = LABELS.sample(frac=1, random_state=0)
    assert cohorts.split(shuffled, groups=SITES)[folds.index].equals(folds)
    assert cohorts.split(LABELS, groups=SITES[::-1]).equals(folds)


def test_sites_that_cannot_be_dealt_out():
    with pytest.raises(CohortError, match=r"P007: site: is not known"):
        cohorts.split(LABELS, groups=SITES.mask(SITES.index == "P007", ""))
    by_class = pd.Series(["A", "B"], index=[0, 1])[LABELS].set_axis(LABELS.index)
    with pytest.raises(CohortError, match=r"2 sites are too few for a test set of 0.2 .*fold_groups: none"):
        cohorts.split(LABELS, groups=by_class)
    five = pd.Series([f"S{i % 5}" for i in range(100)], index=LABELS.index)  # one is the test set
    with pytest.raises(CohortError, match="4 sites are too few for 5 folds; lower n_folds, or set fold_groups: none"):
        cohorts.split(LABELS, groups=five)


def test_fold_groups_of_the_parameters_reach_the_split(own):
    more = {"n_folds": 2, "test_fraction": 0.4}
    patients = cohorts.build(own(**more)).patients
    assert patients["site"].ne("").all()
    patients = patients.assign(site=[f"S{i % 7}" for i in range(len(patients))])
    assert cohorts.folds_of(patients, own(**more)).groupby(patients["site"]).nunique().max() > 1
    assert cohorts.folds_of(patients, own(fold_groups="site", **more)).groupby(patients["site"]).nunique().max() == 1
    with pytest.raises(CohortError, match="fold_groups: none"):  # each class has one site of its own here
        cohorts.build(own(fold_groups="site", **more))


def test_a_split_is_found_again(tmp_path, monkeypatch, code_replaced):
    patients = pd.DataFrame({"label": [0, 1] * 20}, index=[f"P{i:02d}" for i in range(40)])
    p = check(tmp_path, results_dir=str(tmp_path / "results"))
    made = cohorts.folds_of(patients, p)
    assert made.equals(cohorts.split(patients["label"], p.test_fraction, p.n_folds, p.seed))
    monkeypatch.setattr(cohorts, "split", None)
    assert cohorts.folds_of(patients, p).equals(made)


# -- beside the paper --------------------------------------------------------------------------------------------
def test_patients_beside_the_papers(own, monkeypatch):
    p = own()
    made = cohorts.build(p)
    assert cohorts.beside_paper(made, p) is None, "classes that the paper does not have"
    monkeypatch.setattr(paper, "PATIENTS", {("low", "high"): (10, 5)})
    assert cohorts.beside_paper(made, p).to_dict("list") == {
        "class": ["low", "high"],
        "in the paper": [10, 5],
        "found": [N, N],
        "difference": [N - 10, N - 5],
    }
    assert cohorts.beside_paper(made, own(synthetic=True)) is None


# -- a study on a synthetic cohort -------------------------------------------------------------------------------
def test_flow_of_a_synthetic_study(tmp_path):
    small = {"sim_patients": 24, "sim_slide_px": 512, "sim_genes": 500, "n_tiles": 9, "tile_px": 32}
    p = params.load("lgg", "demo", data_dir=str(tmp_path / "data"), results_dir=str(tmp_path / "results"), **small)
    synthetic.make(p, 1)
    s = study.load(p)
    # Beside 24 patients: 6 frozen sections, 4 normal slides and aliquots, 3 second slides, 2 second vials, and 3
    # patients with a slide alone, of whom one has no grade.
    slides, aliquots = 24 + 6 + 4 + 3 + 3, 24 + 4 + 2
    files = {"file": (slides + aliquots,) * 2, "slide": (slides, 24 + 3), "expression": (aliquots, 24)}
    counted(s.cohort, {**files, "label": (27, 26), "incomplete": (26, 24), "tiles": (24, len(s.cohort))})
    assert cohorts.beside_paper(s.cohort, p) is None and tuple(p.class_names) in paper.PATIENTS
    study.write(s)
    written = results.read_results(p, "flow", [])
    assert written.to_dict("list") == s.cohort.flow.to_dict("list")
    assert len(pd.read_csv(tmp_path / "results/excluded.csv")) == written["excluded"].sum()


# -- real files --------------------------------------------------------------------------------------------------
def plain(path, sep="\t"):
    """A real file's rows, read by nothing but the csv module."""
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter=sep))


@pytest.fixture
def lusc(real_data, tmp_path):
    """Parameters on the real sheet of 551 files, each there with as many bytes as its manifest states."""
    names = {cells["File.Name"] for cells in plain(real_data / "gdc/gdc_sample_sheet.LUSC_htseq_551.tsv")}
    stated = plain(real_data / "gdc/MANIFEST.LUSC_htseq_551.txt")
    sizes = {cells["filename"].rpartition("/")[2]: int(cells["size"]) for cells in stated}
    (tmp_path / "expression").mkdir()
    for name in names:
        (tmp_path / "expression" / name).touch()
        os.truncate(tmp_path / "expression" / name, sizes[name])
    return {
        "sample_sheets": [str(real_data / "gdc/gdc_sample_sheet.LUSC_htseq_551.tsv")],
        "manifests": [str(real_data / "gdc/MANIFEST.LUSC_htseq_551.txt")],
        "expression_kind": "htseq",
        "inputs": "genes",
    }


def by_site(real_data, tmp_path):
    """A made-up label for the patients of the real sheet, since no real table has two classes of them."""
    patients = {cells["Case.ID"] for cells in plain(real_data / "gdc/gdc_sample_sheet.LUSC_htseq_551.tsv")}
    rows = "".join(f"{patient}\t{patient[5] < '5'}\n" for patient in sorted(patients))
    (tmp_path / "made_up.tsv").write_text("patient\ttumor_grade\n" + rows)
    return {"clinical": ["made_up.tsv"], "label_rule": "grade", "class_values": [["True"], ["False"]]}


@pytest.mark.real
def test_real_sheet_and_manifest(real_data, tmp_path, lusc):
    made = cohorts.build(check(tmp_path, **lusc, **by_site(real_data, tmp_path)))
    counted(made, {"file": (551, 551), "expression": (551, 501), "label": (501, 501), "incomplete": (501, 501)})
    assert made.labels.to_dict() == {patient: int(patient[5] >= "5") for patient in made.patients.index}
    path = Path(made.patients["expression_path"].iloc[7])
    size = path.stat().st_size
    os.truncate(path, size - 1000)
    with pytest.raises(CohortError, match=f"truncated: {size - 1000:,} of {size:,} bytes; download it again"):
        cohorts.build(check(tmp_path, **lusc, **by_site(real_data, tmp_path)))


@pytest.mark.real
def test_real_export_without_grades_is_an_empty_cohort(real_data, tmp_path, lusc):
    rule = {"clinical": [str(real_data / "gdc/clinical.LUSC.tsv")], "label_rule": "grade"}
    with pytest.raises(CohortError, match="no patient is left") as error:
        cohorts.build(check(tmp_path, **lusc, **rule, class_values=[["G2"], ["G3"]]))
    told = [line.strip().split(" x ", 1) for line in str(error.value).splitlines() if " x label: " in line]
    sheet = plain(real_data / "gdc/gdc_sample_sheet.LUSC_htseq_551.tsv")
    patients = {cells["Case.ID"] for cells in sheet if cells["Sample.ID"][13:15] == "01"}
    known = patients & {line.split("\t")[1] for line in (real_data / "gdc/clinical.LUSC.tsv").read_text().splitlines()}
    assert {reason: int(n) for n, reason in told} == {
        "label: grade is 'not reported'": len(known),
        "label: grade is 'not in the clinical tables'": len(patients - known),
    }


@pytest.mark.real
def test_real_z_scores_and_grades(real_data):
    with zipfile.ZipFile(real_data / "labels/porpoise_mutsig_tcga_gbmlgg_all_clean.csv.zip") as archive:
        text = io.TextIOWrapper(archive.open(archive.namelist()[0]), newline="")
        cases = {cells["case_id"] for cells in csv.DictReader(text)}
    rows = plain(real_data / "labels/tcga_cdr_4cohorts_grade.tsv")
    grades = {cells["bcr_patient_barcode"]: cells["histological_grade"] for cells in rows}
    known = Counter(grades.get(case, "not in the clinical tables") for case in cases)
    made = cohorts.build(params.load("real_lgg", inputs="genes").require_files())
    assert [(made.labels == c).sum() for c in (0, 1)] == [known.pop("G2"), known.pop("G3")] == [229, 249]
    assert reasons(made) == {f"label: grade is '{grade}'": n for grade, n in known.items()}
    counted(made, {"expression": (len(cases),) * 2, "label": (len(cases), 478), "incomplete": (478, 478)})


@pytest.mark.real
def test_real_counts(real_data):
    made = cohorts.build(params.load("real_nsclc").require_files())
    assert [(made.labels == c).sum() for c in (0, 1)] == [25, 35] and (made.patients["site"] != "").all()
    counted(made, {"expression": (129, 60), "label": (60, 60), "incomplete": (60, 60)})
    assert reasons(made)["expression: FFPE, and the patient has no frozen aliquot"] == 2


@pytest.mark.real
def test_real_slide(real_data):
    made = cohorts.build(params.load("real_slide").require_files())
    assert made.labels.tolist() == [-1] and made.patients["slide_id"].tolist() == ["CMU-1-Small-Region"]
    counted(made, {"table": (1, 1), "incomplete": (1, 1)})


@pytest.mark.real
def test_real_lung_labels_as_an_own_table(real_data, tmp_path):
    rows = plain(real_data / "labels/slideflow_lung_labels.csv", ",")
    table = pd.DataFrame(
        {
            "patient_id": [cells["patient"] for cells in rows],
            "label": [cells["subtype"] for cells in rows],
            "site": [cells["site"] for cells in rows],
            "slide_path": [f"{cells['slide']}.svs" for cells in rows],
        }
    )
    for name in table["slide_path"]:
        (tmp_path / name).write_text("x")
    table.to_csv(tmp_path / "lung.csv", index=False)
    classes = {"class_names": ["LUAD", "LUSC"], "class_values": [["adenocarcinoma"], ["squamous"]]}
    p = check(tmp_path, cohort_table="lung.csv", inputs="slides", **classes)
    made = cohorts.build(p)
    assert [(made.labels == c).sum() for c in (0, 1)] == [467, 474]
    assert made.patients["slide_id"].to_dict() == {cells["patient"]: cells["slide"] for cells in rows}
    assert cohorts.beside_paper(made, p)["difference"].tolist() == [2, -2]
    counted(made, {"table": (941, 941), "incomplete": (941, 941)})


@pytest.mark.real
def test_real_breast_cancer_labels(real_data, tmp_path):
    source = real_data / "labels/xena_BRCA_clinicalMatrix.tsv"
    rows = [cells for cells in plain(source) if cells["sampleID"].endswith("-01")]
    head = ["File ID", "File Name", "Data Category", "Data Type", "Project ID", "Case ID", "Sample ID", "Sample Type"]
    star = ".rna_seq.augmented_star_gene_counts.tsv"
    sheet = [sheet_row(cells["_PATIENT"], cells["_PATIENT"] + star, sample_sheets.EXPRESSION) for cells in rows]
    pd.DataFrame(sheet, columns=head).to_csv(tmp_path / "sheet.tsv", sep="\t", index=False)
    (tmp_path / "expression").mkdir()
    for row in sheet:
        (tmp_path / "expression" / row[1]).write_text("x")
    rule = {"label_rule": "pam50_or_ihc", "class_values": [["Luminal A"], ["TNBC"]], "clinical": [str(source)]}
    made = cohorts.build(check(tmp_path, **rule, sample_sheets=["sheet.tsv"], inputs="genes"))
    assert [(made.labels == c).sum() for c in (0, 1)] == [421 - 2, 116 - 2]
    assert reasons(made)["label: pam50_or_ihc is 'claimed by both: PAM50 LumA and IHC TNBC'"] == 2
    counted(
        made, {"file": (1101,) * 2, "expression": (1101,) * 2, "label": (1101, 419 + 114), "incomplete": (533, 533)}
    )
