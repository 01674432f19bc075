"""Who is in the study: an own table, GDC files and matrices; every exclusion counted, every contradiction an error."""

import pandas as pd
import pytest

from mmmil import cohort, label_rules, params, tcga
from mmmil.cohort import CohortError

N = 8  # patients per class


def check(tmp_path, **more):
    base = {"task": "t", "class_names": ["low", "high"], "data_dir": str(tmp_path), "n_folds": 3}
    return params.check({**base, **more})


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
    made = cohort.build(own())
    assert len(made) == 2 * N and made.patients.index.is_monotonic_increasing and made.excluded.empty
    first = made.patients.loc["TCGA-CD-0000"]
    assert first["label"] == 0 and first["site"] == "CD" and first["slide_id"] == "slide0"
    assert first["slide_path"] == str((tmp_path / "s/0.svs").resolve())
    assert made.labels.value_counts().to_dict() == {0: N, 1: N} and made.class_names == ["low", "high"]


def test_labels_by_class_name_or_value(own):
    by_name = cohort.build(own(lambda t: t.assign(label=t["label"].map({"0": "low", "1": "high"}))))
    by_value = cohort.build(
        own(lambda t: t.assign(label=t["label"].map({"0": "G2", "1": "G3"})), class_values=[["G2"], ["G3", "G4"]])
    )
    assert by_name.labels.tolist() == by_value.labels.tolist() == cohort.build(own()).labels.tolist()


def test_columns_of_the_other_modality_may_be_absent(own):
    genes = cohort.build(own(lambda t: t[["patient_id", "label", "expression_path"]], inputs="genes"))
    assert (genes.patients["slide_path"] == "").all()
    slides = cohort.build(own(lambda t: t[["patient_id", "label", "slide_path"]], inputs="slides"))
    assert slides.patients["slide_id"].iloc[0] == "1" and (slides.patients["expression_path"] == "").all()


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
        (set_cell("slide_path", ""), r"TCGA-AB-0003: slide_path: has no slide; .*incomplete: exclude"),
        (set_cell("expression_path", ""), r"TCGA-AB-0003: expression_path: has no expression"),
        (set_cell("slide_path", "s/0.svs"), r"slide_path 's/0\.svs' belongs to more than one patient"),
        (set_cell("slide_id", "slide0"), r"slide_id 'slide0' belongs to more than one patient"),
        (lambda t: t.drop(columns="label"), r"the column 'label' is missing"),
        (lambda t: t.drop(columns="slide_path"), r"the column 'slide_path' is missing"),
        (lambda t: t.rename(columns={"slide_id": "slideid"}), r"'slideid' is unknown; rename it to 'slide_id'"),
        (lambda t: t.iloc[:5], r"3 patients of low and 2 of high, but 3 folds"),
        (lambda t: t.iloc[:0], r"no patient is left"),
    ],
)
def test_error_in_an_own_table(own, change, message):
    with pytest.raises(CohortError, match=message) as error:
        cohort.build(own(change))
    if "folds" not in message:
        assert "cohort.csv" in str(error.value)


def test_every_fault_is_named_at_once(own):
    def change(table):
        return set_cell("label", "9", 4)(set_cell("label", "8")(table))

    with pytest.raises(CohortError, match=r"(?s)label '8'.*label '9'"):
        cohort.build(own(change))


def test_empty_file(own, tmp_path):
    p = own()
    (tmp_path / "s/3.svs").write_text("")
    with pytest.raises(CohortError, match=r"3\.svs is empty"):
        cohort.build(p)


def test_incomplete_patients_can_be_excluded_and_are_counted(own):
    made = cohort.build(own(set_cell("slide_path", ""), incomplete="exclude"))
    assert len(made) == 2 * N - 1
    assert made.excluded.to_numpy().tolist() == [["TCGA-AB-0003", "incomplete: no slide"]]


def test_own_table_beside_a_label_rule(own):
    with pytest.raises(CohortError, match="set label_rule: table"):
        cohort.build(own(label_rule="grade", class_values=[["G2"], ["G3"]]))


def test_missing_table(tmp_path):
    with pytest.raises(CohortError, match="is not there"):
        cohort.build(check(tmp_path, cohort_table="none.csv"))


def test_slides_without_labels_can_only_be_tiled(own):
    made = cohort.build(own(lambda t: t[["patient_id", "slide_path"]].iloc[:1], inputs="slides"))
    assert made.labels.tolist() == [-1]
    with pytest.raises(CohortError, match="can only be tiled"):
        cohort.split(made.labels)


def test_own_table_with_a_matrix(own, tmp_path):
    names = [f"TCGA-{'AB' if i % 2 else 'CD'}-{i:04d}-01A-11R-1234-07" for i in range(2 * N - 1)]
    (tmp_path / "m.tsv").write_text("\t".join(["gene", *names, "TCGA-ZZ-9999-11A-11R-1234-07"]) + "\n")
    more = {"expression_matrix": ["m.tsv"], "expression_kind": "counts", "incomplete": "exclude"}
    made = cohort.build(own(lambda t: t.drop(columns="expression_path"), **more))
    assert made.excluded.to_numpy().tolist() == [[f"TCGA-AB-{2 * N - 1:04d}", "incomplete: no expression"]]
    assert set(made.patients["expression_path"]) == {str((tmp_path / "m.tsv").resolve())}


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
        rows.append(sheet_row(patient, slide, tcga.SLIDE, "01Z", project=project))
        rows.append(sheet_row(patient, counts, tcga.EXPRESSION, project=project))
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
                path = tmp_path / {tcga.SLIDE: "slides"}.get(row[4], "expression") / row[2]
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
    made = cohort.build(download())
    assert len(made) == 2 * N and made.excluded.empty
    row = made.patients.loc["TCGA-AB-0003"]
    assert row["label"] == 1 and row["site"] == "AB" and row["slide_id"] == "TCGA-AB-0003-01Z-00-DX1.X3"
    assert row["expression_path"] == str((tmp_path / "expression/u3.rna_seq.augmented_star_gene_counts.tsv").resolve())


def test_gdc_rules_leave_out_and_count(download):
    a, b = "TCGA-AB-0000", "TCGA-AB-0001"
    star = "augmented_star_gene_counts.tsv"
    more = [
        sheet_row(a, f"{a}-01Z-00-DX2.Y.svs", tcga.SLIDE, "01Z"),
        sheet_row(a, f"{a}-01Z-00-DX1.Y.svs", tcga.SLIDE, "01Z"),
        sheet_row(a, f"{a}-01A-01-TS1.Y.svs", tcga.SLIDE),
        sheet_row(a, f"{a}-11A-01-BS1.Y.svs", tcga.SLIDE, "11A", "Solid Tissue Normal"),
        sheet_row(b, f"a.{star}", tcga.EXPRESSION, "01B"),
        sheet_row(b, f"zz.{star}", tcga.EXPRESSION, "01A"),
        sheet_row(b, f"n.{star}", tcga.EXPRESSION, "11A", "Solid Tissue Normal"),
        sheet_row(b, "f.FPKM.txt.gz", tcga.EXPRESSION),
        sheet_row(b, "m.maf.gz", "Masked Somatic Mutation"),
    ]
    made = cohort.build(download(more))
    assert len(made) == 2 * N
    assert made.patients.loc[a, "slide_id"].endswith("DX1.X0")  # first by name
    assert "/u1." in made.patients.loc[b, "expression_path"]  # vial A before B, then by name
    assert reasons(made) == {
        "slide: diagnostic slide other than DX1": 1,
        "slide: another DX1 of the patient is used": 1,
        "slide: frozen section (TS), not a diagnostic slide (DX)": 1,
        "slide: sample type Solid Tissue Normal, not a primary tumour": 1,
        "expression: another sample or aliquot of the patient is used": 2,
        "expression: sample type Solid Tissue Normal, not a primary tumour": 1,
        "expression: not a file of star counts": 1,
        "file: data type Masked Somatic Mutation is not used": 1,
    }


def test_unknown_grades_are_counted(download):
    grades = ["G4", "[Discrepancy]", "[Not Available]", "", *["G3" if i % 2 else "G2" for i in range(4, 2 * N)]]
    made = cohort.build(download(clinical={"tumor_grade": grades}))
    assert len(made) == 2 * N - 4
    assert reasons(made) == {f"label: grade is '{g}'": 1 for g in ("G4", "[Discrepancy]", "[Not Available]", "empty")}


def test_repeated_clinical_rows(download, tmp_path):
    p = download()
    table = pd.read_csv(tmp_path / "clinical.tsv", sep="\t")
    more = pd.DataFrame({"case_submitter_id": ["TCGA-AB-0000", "TCGA-AB-0001"], "tumor_grade": ["G3", "'--"]})
    pd.concat([table, more]).to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
    assert reasons(cohort.build(p)) == {"label: grade is 'G2 / G3'": 1}


def test_labels_by_project(download):
    made = cohort.build(download(label_rule="project", class_values=[["TCGA-LUAD"], ["TCGA-LUSC"]]))
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
    made = cohort.build(download(clinical=columns, label_rule="ihc", class_values=classes))
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
    assert cohort.build(p).patients.loc["TCGA-AB-0003", "expression_path"] == str((nested / name).resolve())


def test_patient_without_one_modality(download, tmp_path):
    sheets = [sheet_row("TCGA-AB-9999", "TCGA-AB-9999-01Z-00-DX1.Y.svs", tcga.SLIDE, "01Z", project="TCGA-LUAD")]
    rule = {"label_rule": "project", "class_values": [["TCGA-LUAD"], ["TCGA-LUSC"]]}
    with pytest.raises(CohortError, match="patient TCGA-AB-9999: expression_path: has no expression"):
        cohort.build(download(sheets, **rule))
    made = cohort.build(download(sheets, **rule, incomplete="exclude"))
    assert reasons(made) == {"incomplete: no expression": 1} and len(made) == 2 * N


def test_files_that_were_not_downloaded(download):
    with pytest.raises(CohortError, match=r"DX1\.X0\.svs is not there; download it"):
        cohort.build(download(fetched=False))


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
        cohort.build(p)


# -- matrices ----------------------------------------------------------------------------------------------------
def test_label_by_matrix(tmp_path):
    for name, site in (("a.tsv", "AA"), ("b.tsv", "BB")):
        columns = [f"TCGA-{site}-{i:04d}-01A-11R-1111-07" for i in range(N)]
        columns += [f"TCGA-{site}-0000-01A-11R-2222-07", f"TCGA-{site}-0001-11A-11R-1111-07"]
        (tmp_path / name).write_text("\t".join(["gene", *columns]) + "\n")
    both = {"expression_matrix": ["a.tsv", "b.tsv"], "expression_kind": "counts", "inputs": "genes"}
    p = check(tmp_path, **both, label_rule="matrix", class_values=[["b.tsv"], ["a.tsv"]])
    made = cohort.build(p)
    assert made.labels["TCGA-AA-0000"] == 1 and made.labels["TCGA-BB-0000"] == 0 and len(made) == 2 * N
    assert reasons(made) == {
        "expression: sample type 11, not a primary tumour (01)": 2,
        "expression: another aliquot of the patient is used": 2,
    }
    with pytest.raises(CohortError, match="class_values must name every file"):
        cohort.build(p.override(class_values=[["a.tsv"], ["c.tsv"]]))
    (tmp_path / "b.tsv").write_text((tmp_path / "a.tsv").read_text())
    with pytest.raises(CohortError, match=r"patient TCGA-AA-0000: is in .*a\.tsv, too"):
        cohort.build(p)


def test_the_last_aliquot_barcode_is_used():
    names = ["TCGA-44-2656-01A-02R-A278-07", "TCGA-44-2656-01B-06R-A277-07", "TCGA-44-2656-01A-02R-0946-07", "own1"]
    chosen, excluded = tcga.primary_columns(names)
    assert chosen == {"TCGA-44-2656": "TCGA-44-2656-01B-06R-A277-07", "own1": "own1"} and len(excluded) == 2


# -- split -------------------------------------------------------------------------------------------------------
LABELS = pd.Series([0] * 60 + [1] * 40, index=[f"P{i:03d}" for i in range(100)])


def test_split_is_disjoint_stratified_and_complete():
    folds = cohort.split(LABELS)
    assert (folds == -1).sum() == 20 and set(folds) == {-1, 0, 1, 2, 3, 4}
    for fold in range(5):
        train, held = cohort.fold_patients(folds, fold)
        assert len(held) == 16 and len(train) == 64 and not set(train) & set(held)
        assert not (folds[train] == -1).any()
        assert abs(LABELS[held].mean() - 0.4) < 0.05 and abs(LABELS[train].mean() - 0.4) < 0.02
    assert LABELS[folds == -1].mean() == 0.4
    train, test = cohort.fold_patients(folds, -1)
    assert len(train) == 80 and len(test) == 20 and not set(train) & set(test)
    with pytest.raises(CohortError, match="no fold 5"):
        cohort.fold_patients(folds, 5)


def test_split_depends_on_the_seed_and_not_on_the_order():
    folds = cohort.split(LABELS, seed=3)
    shuffled = LABELS.sample(frac=1, random_state=0)
    assert cohort.split(shuffled, seed=3).index.tolist() == shuffled.index.tolist()
    assert cohort.split(shuffled, seed=3)[folds.index].equals(folds)
    assert not cohort.split(LABELS, seed=4).equals(folds)


def test_split_of_repeated_patients_or_too_few():
    with pytest.raises(CohortError, match="per patient"):
        cohort.split(pd.concat([LABELS, LABELS[:1]]))
    with pytest.raises(CohortError, match="lower n_folds"):
        cohort.split(LABELS[50:64])


def test_splits_are_written_as_clam_reads_them(tmp_path):
    folds = cohort.split(LABELS)
    patients = pd.DataFrame({"slide_id": [f"s-{i}" for i in LABELS.index], "label": LABELS}, index=LABELS.index)
    cohort.write_splits(folds, tmp_path, patients)
    assert len(list(tmp_path.iterdir())) == 6
    table = pd.read_csv(tmp_path / "splits_2.csv", index_col=0)
    assert table.columns.tolist() == ["train", "val", "test"]
    assert set(table["val"].dropna()) == {f"s-{i}" for i in folds.index[folds == 2]}
    assert table.notna().sum().tolist() == [64, 16, 20]
    labels = pd.read_csv(tmp_path / "labels.csv")
    assert labels.columns.tolist() == ["case_id", "slide_id", "label"] and labels["label"].tolist() == LABELS.tolist()


# -- real files --------------------------------------------------------------------------------------------------
@pytest.mark.real
def test_real_sheet_of_frozen_sections_is_an_empty_cohort(real_data):
    p = params.check(
        {
            "task": "t",
            "class_names": ["LUAD", "LUSC"],
            "data_dir": str(real_data),
            "inputs": "slides",
            "sample_sheets": ["gdc/gdc_sample_sheet.2024-04-28.LUAD_LUSC_slides.tsv"],
            "label_rule": "project",
            "class_values": [["TCGA-LUAD"], ["TCGA-LUSC"]],
        }
    )
    with pytest.raises(CohortError, match="no patient is left") as error:
        cohort.build(p)
    counted = [int(line.split(" x ")[0]) for line in str(error.value).splitlines() if " x slide: " in line]
    assert sum(counted) == 2167
    assert "591 x slide: sample type Solid Tissue Normal" in str(error.value)


@pytest.mark.real
def test_real_sheets_of_rna_files(real_data):
    for name, patients in (("2020-02-13.LUSC_rna", 100), ("LUSC_htseq_551", 501)):
        sheet = tcga.read_sample_sheets([real_data / f"gdc/gdc_sample_sheet.{name}.tsv"])
        rows, excluded = tcga.choose_expression(sheet, "htseq")
        assert len(rows) == patients and len(rows) + len(excluded) == len(sheet)


@pytest.mark.real
@pytest.mark.parametrize("task, sizes", [("real_nsclc", [27, 35]), ("real_lgg", [229, 249])])
def test_real_cohorts(real_data, task, sizes):
    made = cohort.build(params.load(task).require_files())
    assert [(made.labels == c).sum() for c in (0, 1)] == sizes
    assert (made.patients["site"] != "").all()


@pytest.mark.real
def test_real_slide(real_data):
    made = cohort.build(params.load("real_slide").require_files())
    assert made.labels.tolist() == [-1] and made.patients["slide_id"].tolist() == ["CMU-1-Small-Region"]


@pytest.mark.real
def test_real_receptors(real_data):
    values = label_rules.clinical_values("ihc", [real_data / "labels/xena_BRCA_clinicalMatrix.tsv"])
    found = pd.Series(values).value_counts()
    assert found["TNBC"] == 116 and found["Luminal A"] == 445
