"""What a look at a cohort finds: doubtful choices, rows and files that match nothing, each with its file and remedy."""

import pytest

from mmmil import params, study
from mmmil.cohort import build as cohorts
from mmmil.cohort import findings
from mmmil.sources import sample_sheets
from mmmil.sources.findings import table

N = 4
FIRST = "TCGA-AB-0000-01Z-00-DX1.x.svs"
STAR = "rna_seq.augmented_star_gene_counts.tsv"
HEAD = ["File ID", "File Name", "Data Type", "Project ID", "Case ID", "Sample ID", "Preservation Method"]


@pytest.fixture
def download(tmp_path):
    """A download of 2 N patients, without anything to find; `download(rows, **parameters)` adds rows to its sheet."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "expression").mkdir()
    rows, grades = [], ["case_submitter_id\ttumor_grade"]
    for i in range(2 * N):
        patient = f"TCGA-AB-{i:04d}"
        slide, counts = f"{patient}-01Z-00-DX1.x.svs", f"u{i}.{STAR}"
        rows.append((f"s{i}", slide, sample_sheets.SLIDE, "TCGA-LGG", patient, f"{patient}-01Z", "FFPE"))
        rows.append((f"e{i}", counts, sample_sheets.EXPRESSION, "TCGA-LGG", patient, f"{patient}-01A", "OCT"))
        (tmp_path / "slides" / slide).write_text("x")
        (tmp_path / "expression" / counts).write_text("x")
        grades.append(f"{patient}\tG{2 + i % 2}")
    base = {"task": "t", "class_names": ["low", "high"], "data_dir": str(tmp_path), "n_folds": 2, "label_rule": "grade"}
    base |= {
        "results_dir": str(tmp_path / "results"),
        "sample_sheets": ["sheet.tsv"],
        "clinical": ["clinical.tsv"],
        "class_values": [["G2"], ["G3"]],
    }

    def write(change=lambda rows: rows, clinical=(), **more):
        lines = ["\t".join(cells) for cells in [HEAD, *change(rows)]]
        (tmp_path / "sheet.tsv").write_text("\n".join(lines) + "\n")
        (tmp_path / "clinical.tsv").write_text("\n".join([*grades, *clinical]) + "\n")
        return params.check({**base, **more})

    return write


def found(p):
    return {note.check: note for note in findings.find(cohorts.build(p), p)}


def test_a_cohort_without_doubts_has_no_finding(download):
    p = download()
    assert findings.find(cohorts.build(p), p) == [] and table([]).empty


def test_a_patient_with_a_vial_b_alone_is_used_and_told_and_left_out_where_it_is_ffpe(download):
    p = download(lambda rows: [*rows[:-1], (*rows[-1][:5], "TCGA-AB-0007-01B", "Unknown")])
    note = found(p)["FFPE perhaps"]
    assert note.place == "TCGA-AB-0007" and note.file == "sheet.tsv" and note.remedy
    assert len(cohorts.build(p)) == 2 * N
    p = download(lambda rows: [*rows[:-1], (*rows[-1][:5], "TCGA-AB-0007-01B", "FFPE")], incomplete="exclude")
    made = cohorts.build(p)
    assert len(made) == 2 * N - 1 and made.excluded["reason"].tolist() == [
        "expression: FFPE, and the patient has no frozen aliquot",
        "incomplete: no expression",
    ]


def test_rows_and_files_that_match_nothing_are_counted(download, tmp_path):
    rows = [("0000", "other.svs", "5"), *((f"000{i + 1}", f"u{i}.{STAR}", "1") for i in range(2 * N))]
    lines = ["id\tfilename\tmd5\tsize\tstate", *(f"{i}\t{n}\t{'0' * 32}\t{s}\treleased" for i, n, s in rows)]
    (tmp_path / "m.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "expression/stranger.tsv").write_text("x")
    for name in ("logs/a.parcel", "annotations.txt", f"u9.{STAR}.part", ".DS_Store"):
        (tmp_path / "expression" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "expression" / name).write_text("x")
    notes = found(download(manifests=["m.txt"], clinical=["TCGA-AB-0100\tG2", "TCGA-AB-0101\tG3"]))
    texts = {check: note.text for check, note in notes.items()}
    assert texts == {
        "clinical rows without a patient": "2 of 10 patients have no file in the cohort, as TCGA-AB-0100",
        "manifest rows not used": "1 of 9 files are not used by the cohort, as other.svs",
        "files without a stated size": f"8 of 16 files of the cohort are in no manifest, as {FIRST}",
        "files that no table names": "1 files lie there that no table names, as expression/stranger.tsv",
    }


def test_a_name_in_the_manifest_with_other_capitals_or_two_sizes_is_an_error(download, tmp_path):
    for name, size in (("m.txt", 1), ("n.txt", 2)):
        row = f"0001\tU0.{STAR}\t{'0' * 32}\t{size}\treleased"
        (tmp_path / name).write_text(f"id\tfilename\tmd5\tsize\tstate\n{row}\n")
    with pytest.raises(cohorts.CohortError, match=r"u0\..* is U0\..* in the manifest; rename the file"):
        cohorts.build(download(manifests=["m.txt"]))
    with pytest.raises(cohorts.CohortError, match=r"n\.txt: U0\..* has 2 bytes, by another manifest 1; name the newer"):
        cohorts.build(download(manifests=["m.txt", "n.txt"]))


def test_a_patient_without_dx1_is_told(download, tmp_path):
    def later(rows):
        return [(i, name.replace("0003-01Z-00-DX1", "0003-01Z-00-DX2"), *more) for i, name, *more in rows]

    (tmp_path / "slides/TCGA-AB-0003-01Z-00-DX1.x.svs").rename(tmp_path / "slides/TCGA-AB-0003-01Z-00-DX2.x.svs")
    assert "TCGA-AB-0003 (DX2)" in found(download(later))["no DX1"].text


def test_notes_stay_with_a_cohort_that_loses_patients(download):
    cohort = cohorts.build(download(clinical=["TCGA-AB-0100\tG2"]))
    less = study.without(cohort, cohort.labels[:1].map(lambda _: "0 valid tiles, none at all"))
    assert less.notes == cohort.notes and len(cohort.notes) == 1


def test_an_own_table_of_other_than_diagnostic_slides_is_told_and_their_parts_are_no_strangers(download, tmp_path):
    download()
    lines = ["patient_id,label,slide_path"]
    for i in range(2 * N):
        name = f"TCGA-AB-{i:04d}-01A-01-TS1" if i < 2 else f"TCGA-AB-{i:04d}-01Z-00-DX2"
        (tmp_path / "slides" / name).mkdir()
        for path in (f"slides/{name}.mrxs", f"slides/{name}/Slidedat.ini", f"slides/{name}/Data0000.dat"):
            (tmp_path / path).write_text(path)
        lines.append(f"TCGA-AB-{i:04d},{i % 2},slides/{name}.mrxs")
    for path in (tmp_path / "slides").glob("*.svs"):
        path.unlink()
    for name in ("Thumbs.db", "desktop.ini", "gdc_manifest.2024-04-26.txt", "a.geojson"):
        (tmp_path / "slides" / name).write_text("x")
    (tmp_path / "expression/gdc_manifest.txt").write_text("x")
    (tmp_path / "cohort.csv").write_text("\n".join(lines))
    base = {"task": "t", "class_names": ["low", "high"], "data_dir": str(tmp_path), "n_folds": 2, "inputs": "slides"}
    notes = found(params.check({**base, "cohort_table": "cohort.csv"}))
    assert list(notes) == ["no diagnostic slide"] and "TCGA-AB-0000 (01, TS), TCGA-AB-0001 (01, TS) are" in (
        notes["no diagnostic slide"].text
    )


def test_a_matrix_of_uuids_is_told(tmp_path):
    for name in "ab":
        columns = [f"{name * 8}-0000-4000-8000-{i:012d}" for i in range(N)]
        (tmp_path / f"{name}.tsv").write_text("\t".join(["gene", *columns]) + "\n")
    files = ["a.tsv", "b.tsv"]
    matrices = {"expression_matrix": files, "expression_kind": "counts", "class_values": [[name] for name in files]}
    base = {"task": "t", "class_names": ["low", "high"], "data_dir": str(tmp_path), "n_folds": 2, "inputs": "genes"}
    assert list(found(params.check({**base, **matrices, "label_rule": "matrix"}))) == [
        "UUIDs as patients",
        findings.CLASS_OF_FILE,
    ]
