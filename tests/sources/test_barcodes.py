"""Barcodes and GDC sample sheets: which slide and which aliquot is a patient's, whatever the sheet looks like."""

import csv
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmil import params
from mmmil.cohort import build as cohorts
from mmmil.sources import barcodes
from mmmil.sources.barcodes import CohortError

FEW = settings(max_examples=60, deadline=None, derandomize=True)
HEAD = ["File ID", "File Name", "Data Category", "Data Type", "Project ID", "Case ID", "Sample ID", "Sample Type"]
DX, STAR = "DX1.u.svs", "rna_seq.augmented_star_gene_counts.tsv"


def row(i, name=None, kind=barcodes.SLIDE, sample="01Z", of="Primary Tumor"):
    patient = f"TCGA-AB-{i:04d}"
    name = name or f"{patient}-01Z-00-{DX}"
    return [f"id-{name}", name, "Biospecimen", kind, "TCGA-LGG", patient, f"{patient}-{sample}", of]


ROWS = [*(row(i) for i in range(3)), *(row(i, f"u{i}.{STAR}", barcodes.EXPRESSION, "01A") for i in range(3))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sheets")


def sheet(folder, rows=ROWS, head=HEAD, end="\n", name="sheet.tsv"):
    path = folder / name
    path.write_bytes((end.join("\t".join(cells) for cells in [head, *rows]) + end).encode())
    return path


def plain(path, sep="\t"):
    """A real file's rows, read by nothing but the csv module."""
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter=sep))


# -- barcodes ----------------------------------------------------------------------------------------------------
def test_site():
    assert barcodes.site_of("TCGA-44-2656") == barcodes.site_of("TCGA-44-2656-01A-02R-A278-07") == "44"
    for name in ("", "own1", "TCGA", "TCGA-44", "TCGA-44-26567", "TCGA-44-2656x", "CPTAC-44-2656"):
        assert barcodes.site_of(name) == ""


barcode = st.one_of(
    st.text(max_size=20),
    st.from_regex(r"TCGA-[A-Z0-9]{2}-000[0-3](-(01|02|11)[AB](-01R-A\d{3}-07)?)?", fullmatch=True),
)


@FEW
@given(names=st.lists(barcode, max_size=12, unique=True))
def test_any_columns(names):
    chosen, excluded = barcodes.primary_columns(names)
    assert len(chosen) + len(excluded) == len(names) and set(chosen.values()) <= set(names)
    assert all(barcodes.patient_of(column) == patient for patient, column in chosen.items())
    assert all(reason.startswith("expression: ") for _, reason in excluded)
    assert barcodes.primary_columns(names[::-1])[0] == chosen
    for name in names:
        site = barcodes.site_of(name)
        assert site == "" or name.startswith(f"TCGA-{site}-")


# -- sample sheets -----------------------------------------------------------------------------------------------
def chosen(path, kind="star"):
    files = barcodes.read_sample_sheets([path])
    slides, _ = barcodes.choose_slides(files)
    counts, _ = barcodes.choose_expression(files, kind)
    return slides["File ID"].to_dict(), counts["File ID"].to_dict()


@FEW
@given(
    order=st.permutations(range(8)), rows=st.permutations(ROWS), end=st.sampled_from(["\n", "\r\n"]), r=st.booleans()
)
def test_the_order_of_columns_and_rows_says_nothing(folder, order, rows, end, r):
    head = [HEAD[i].replace(" ", ".") if r else HEAD[i] for i in order]
    path = sheet(folder, [[cells[i] for i in order] for cells in rows], head, end)
    patients = [f"TCGA-AB-{i:04d}" for i in range(3)]
    assert chosen(path) == (
        {p: f"id-{p}-01Z-00-{DX}" for p in patients},
        {p: f"id-u{int(p[-1])}.{STAR}" for p in patients},
    )


@pytest.mark.parametrize("i", range(8))
def test_a_column_that_is_missing_or_there_twice(folder, i):
    twice = sheet(folder, [[*cells, cells[i]] for cells in ROWS], [*HEAD, HEAD[i]])
    if HEAD[i] != "Data Category":  # it is not read
        with pytest.raises(CohortError, match=f"line 1: the column '{HEAD[i]}' stands there twice"):
            barcodes.read_sample_sheets([twice])
    missing = sheet(folder, [cells[:i] + cells[i + 1 :] for cells in ROWS], HEAD[:i] + HEAD[i + 1 :])
    if HEAD[i] in barcodes.SHEET_COLUMNS:
        with pytest.raises(CohortError, match=rf"not a GDC sample sheet, it lacks the column\(s\) {HEAD[i]};"):
            barcodes.read_sample_sheets([missing])
    else:
        assert len(barcodes.read_sample_sheets([missing])) == 6


def test_an_empty_cell_is_named_with_its_line(folder):
    rows = [*ROWS[:2], [*ROWS[2][:5], " ", *ROWS[2][6:]]]
    with pytest.raises(CohortError, match=r"sheet\.tsv, line 4: 'Case ID' is empty"):
        barcodes.read_sample_sheets([sheet(folder, rows)])


def test_sheets_with_and_without_the_sample_type(folder):
    old = sheet(folder, [row(0, sample="11A", of="Solid Tissue Normal")])
    new = sheet(folder, [row(1, sample="11A")[:-1]], HEAD[:-1], name="new.tsv")
    _, excluded = barcodes.choose_slides(barcodes.read_sample_sheets([old, new]))
    assert [reason for _, reason in excluded] == [
        "slide: sample type Solid Tissue Normal, not a primary tumour",
        "slide: sample type code 11, not a primary tumour",
    ]


def test_a_file_in_two_sheets_is_counted_once(folder):
    both = [sheet(folder), sheet(folder, [ROWS[0], row(9)], name="again.tsv")]
    files, excluded = barcodes.used_files(barcodes.read_sample_sheets(both), [barcodes.SLIDE])
    assert len(files) == 4 and Counter(reason for _, reason in excluded) == {
        "file: stands in the sample sheets more than once": 1,
        "file: data type Gene Expression Quantification is not used": 3,
    }
    sheet(folder, [[*ROWS[0][:5], "TCGA-AB-0007", *ROWS[0][6:]]], name="again.tsv")
    with pytest.raises(CohortError, match=r"again\.tsv, line 2: file id-TCGA-AB-0000.* described differently"):
        barcodes.read_sample_sheets(both)


def test_dx10_is_not_dx1(folder):
    rows = [row(0, f"TCGA-AB-0000-01Z-00-{name}.u.svs") for name in ("DX10", "DXA", "DX1")]
    slides, excluded = barcodes.choose_slides(barcodes.read_sample_sheets([sheet(folder, rows)]))
    assert slides["File Name"].tolist() == ["TCGA-AB-0000-01Z-00-DX1.u.svs"]
    assert [reason for _, reason in excluded] == ["slide: diagnostic slide other than DX1"] * 2


name = st.sampled_from([DX, "DX2.u.svs", "TS1.u.svs", "BS1.u.svs", "x.svs"]).map("TCGA-AB-0000-01Z-00-{}".format)
any_row = st.builds(
    row,
    st.integers(0, 4),
    st.one_of(name, st.sampled_from([f"a.{STAR}", f"b.{STAR}.gz", "c.htseq.counts.gz", "é"])),
    st.sampled_from([barcodes.SLIDE, barcodes.EXPRESSION, "Masked Somatic Mutation"]),
    st.sampled_from(["01A", "01Z", "02A", "11A", "", "01A, 11A"]),
)


@FEW
@given(rows=st.lists(any_row, max_size=12))
def test_every_row_is_chosen_or_left_out_with_a_reason(folder, rows):
    rows = [[f"id{i}", *cells[1:]] for i, cells in enumerate(rows)]
    files = barcodes.read_sample_sheets([sheet(folder, rows)])
    used, excluded = barcodes.used_files(files, [barcodes.SLIDE, barcodes.EXPRESSION])
    slides, no_slide = barcodes.choose_slides(used)
    counts, no_counts = barcodes.choose_expression(used, "star")
    assert len(excluded) + len(slides) + len(no_slide) + len(counts) + len(no_counts) == len(rows)
    assert slides.index.is_unique and slides["File Name"].str.contains("-DX1.").all() and (slides["code"] == "01").all()
    assert counts.index.is_unique and (counts["code"] == "01").all()
    assert all(reason for _, reason in [*excluded, *no_slide, *no_counts])


@FEW
@given(
    data=st.binary(max_size=20),
    where=st.integers(0, 2000),
    cut=st.integers(0, 40),
)
def test_any_damage_is_an_error_or_a_sheet(folder, data, where, cut):
    path = sheet(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:where] + data + whole[where + cut :])
    try:
        slides, counts = chosen(path)
    except CohortError as error:
        assert "sheet.tsv" in str(error)
    else:
        assert len(slides) <= 3 + len(data) and len(counts) <= 3 + len(data)


# -- real sheets -------------------------------------------------------------------------------------------------
SLIDES = "gdc/gdc_sample_sheet.2024-04-28.LUAD_LUSC_slides.tsv"


@pytest.mark.real
def test_real_sheet_of_frozen_sections_is_an_empty_cohort(real_data):
    expected = Counter()
    for cells in plain(real_data / SLIDES):
        letters = cells["File Name"].split(".")[0].split("-")[5][:2]
        primary = cells["Sample ID"].split("-")[3].startswith("01")
        if primary:
            expected[f"slide: frozen section ({letters}), not a diagnostic slide (DX)"] += 1
        else:
            expected[f"slide: sample type {cells['Sample Type']}, not a primary tumour"] += 1
    assert expected.total() == 2167 and expected["slide: sample type Solid Tissue Normal, not a primary tumour"] == 591
    values = {"task": "t", "class_names": ["LUAD", "LUSC"], "inputs": "slides", "label_rule": "project"}
    files = {"data_dir": str(real_data), "sample_sheets": [SLIDES], "class_values": [["TCGA-LUAD"], ["TCGA-LUSC"]]}
    with pytest.raises(CohortError, match="no patient is left") as error:
        cohorts.build(params.check({**values, **files}))
    counted = [line.strip().split(" x ", 1) for line in str(error.value).splitlines() if " x " in line]
    assert {reason: int(n) for n, reason in counted} == expected


@pytest.mark.real
@pytest.mark.parametrize("sheet, dot", [("2020-02-13.LUSC_rna", " "), ("LUSC_htseq_551", ".")])
def test_real_sheets_of_rna_files(real_data, sheet, dot):
    path = real_data / f"gdc/gdc_sample_sheet.{sheet}.tsv"
    rows = plain(path)
    primary = [cells for cells in rows if cells[f"Sample{dot}ID"][13:15] == "01"]
    patients = {cells[f"Case{dot}ID"] for cells in primary}
    first = {}
    for cells in sorted(primary, key=lambda c: (c[f"Sample{dot}ID"][15], c[f"File{dot}Name"])):
        first.setdefault(cells[f"Case{dot}ID"], cells[f"File{dot}ID"])
    chosen, excluded = barcodes.choose_expression(barcodes.read_sample_sheets([path]), "htseq")
    assert chosen["File ID"].to_dict() == first
    assert Counter(reason for _, reason in excluded) == Counter(
        {
            "expression: sample type Solid Tissue Normal, not a primary tumour": len(rows) - len(primary),
            "expression: another sample or aliquot of the patient is used": len(primary) - len(patients),
        }
    )
    assert (len(rows), len(patients)) == {"2020-02-13.LUSC_rna": (149, 100), "LUSC_htseq_551": (551, 501)}[sheet]


@pytest.mark.real
def test_real_columns_of_matrices(real_data):
    for name, patients in (("LUAD", 27), ("LUSC", 35)):
        table = pd.read_csv(
            real_data / f"expression/{name}_paired_counts_ELELAB.tsv.gz", sep="\t", nrows=0, index_col=0
        )
        tumour = [column for column in table.columns if column[13:15] == "01"]
        chosen, excluded = barcodes.primary_columns(table.columns)
        assert len(chosen) == len({column[:12] for column in tumour}) == patients
        assert len(excluded) == len(table.columns) - patients
        assert {column[13:15] for column in chosen.values()} == {"01"}
