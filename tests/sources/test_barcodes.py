"""Barcodes and GDC sample sheets: which slide and which aliquot is a patient's, whatever the sheet looks like."""

import csv
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmil import params
from mmmil.cohort import build as cohorts
from mmmil.sources import aliquots, barcodes, sample_sheets
from mmmil.sources.tables import CohortError

FEW = settings(max_examples=60, deadline=None, derandomize=True)
FIXED = "expression: FFPE, the patient's frozen aliquot is used"
FIXED_ONLY = "expression: FFPE, and the patient has no frozen aliquot"
HEAD = ["File ID", "File Name", "Data Category", "Data Type", "Project ID", "Case ID", "Sample ID", "Sample Type"]
DX, STAR = "DX1.u.svs", "rna_seq.augmented_star_gene_counts.tsv"


def row(i, name=None, kind=sample_sheets.SLIDE, sample="01Z", of="Primary Tumor"):
    patient = f"TCGA-AB-{i:04d}"
    name = name or f"{patient}-01Z-00-{DX}"
    return [f"id-{name}", name, "Biospecimen", kind, "TCGA-LGG", patient, f"{patient}-{sample}", of]


ROWS = [*(row(i) for i in range(3)), *(row(i, f"u{i}.{STAR}", sample_sheets.EXPRESSION, "01A") for i in range(3))]


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
    try:
        chosen, excluded = aliquots.primary_columns(names)
    except CohortError as error:  # mixed with barcodes, without a name, or twice but for the spelling
        assert "the matrix: the column" in str(error) or "the matrix, column: " in str(error)
        return
    assert len(chosen) + len(excluded) == len(names) and set(chosen.values()) <= set(names)
    assert all(barcodes.identifier(column) == patient for patient, column in chosen.items())
    assert all(reason.startswith("expression: ") for _, reason in excluded)
    assert aliquots.primary_columns(names[::-1])[0] == chosen
    for name in names:
        site = barcodes.site_of(name)
        assert site == "" or name.startswith(f"TCGA-{site}-")


# What a name went through: another case, other separators, blanks around, a number behind it.
spelling = st.tuples(
    st.sampled_from([str, str.lower, str.title]),
    st.sampled_from(["-", ".", "_", " ", " - ", "\u2010", "\u2013", "\u2212", "--", "", "/"]),
    st.sampled_from(["", " ", "\t", "\u00a0", "\u200b", "\ufeff", "X.", "'", "s_"]),
    st.sampled_from(["", " ", "\u00a0", "\r"]),
    st.sampled_from(["", ".1", "_1", ".12", ".x", ".y", ".x.1", "-1", ".01", "."]),
)
tcga = st.from_regex(
    r"TCGA-(44|AB|0G|E2)-([0-9]{4}|A[A-Z0-9]{3})(-(01|02|11)([AB](-[0-9]{2}R(-(A[0-9]{2}[A-Z0-9]|[0-9]{4})(-07)?)?)?)?)?",
    fullmatch=True,
)


READ = ("-", ".", "_", " ", " - ", "\u2010", "\u2013", "\u2212")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(name=tcga, spelled=spelling)
def test_case_1_any_spelling_of_a_barcode_is_the_same_patient_and_sample_or_an_error(name, spelled):
    case, mark, before, after, suffix = spelled
    text = before + case(name).replace("-", mark) + suffix + after
    sample = name[13:16]
    try:
        read = barcodes.parse(text)
    except CohortError as error:
        assert text in str(error) and "to the form TCGA-44-1000" in str(error)
        surely = suffix in ("", ".x", ".y") or (suffix in (".1", "_1") and mark == "-")
        assert not (mark in READ and surely and before in ("", " ", "\t", "\u00a0", "\u200b", "\ufeff")), "not read"
    else:
        assert read is not None and read.patient == name[:12]
        # behind a patient alone, ".01" is the sample and ".12" may be, where the separators are the same
        assert f"{read.code}{read.vial}" == sample or (not sample and suffix in (".01", ".12", "-1"))
        assert not sample or name.startswith(str(read)) or suffix in (".01", ".12")


@FEW
@given(name=tcga, where=st.integers(0, 11), digit=st.sampled_from("OI"))
def test_a_slip_of_one_character_is_an_error(name, where, digit):
    for slip in (name[:where] + name[where + 1 :], name[:8] + "1" + digit + name[10:]):
        with pytest.raises(CohortError, match="is nearly a TCGA barcode"):
            barcodes.identifier(slip)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "TCGA44-1000",
            "TCGA-44-100",
            "TCGA-44-1000-1A",
            "TCGA-44-1O00",
            "TCGA-44-I000",
            "TCGA-O6-1000",
            "TCGA-44-100O",
        ),
        *("TCGA-44-1000-O1A", "TCGA-44-10000", "TCGA-4-1000", "TCGA-44-1000-01AB", "TCGA-44-1000-", "TCGA", "tcga_44"),
        *(
            "TGCA-44-1000",
            "TCG-44-1000",
            "TCGGA-44-1000",
            "\u0422CGA-44-1000",
            "X.TCGA.44.1000",
            "LUAD_TCGA-44-1000-01A",
        ),
        *("TCGA-44-1000.11", "TCGA-44-1000-01A.bam", "TCGA441000", "TCGA-44-1000-1", "TCGA-44--1000", '"TCGA-44-1000"'),
        "TCGA-E9-A1",  # of Xena's table of breast cancer, where R took the end of A1NA for a missing value
    ],
)
def test_what_nearly_is_a_barcode_is_an_error_on_every_road(text, folder):
    for read in (barcodes.parse, barcodes.identifier, lambda t: aliquots.primary_columns([t, "TCGA-44-2000"], "m.tsv")):
        with pytest.raises(CohortError, match="is nearly a TCGA barcode but cannot be read as one; correct it"):
            read(text)
    with pytest.raises(CohortError, match=r"m\.tsv, column: "):
        aliquots.primary_columns([text], "m.tsv")
    cells = row(0)
    cells[5] = text.replace('"', "'")
    with pytest.raises(CohortError, match=r"sheet\.tsv, line 2, 'Case ID': .* is nearly a TCGA barcode"):
        sample_sheets.read_sample_sheets([sheet(folder, [cells])])


@pytest.mark.parametrize(
    "text", ["own1", " P01 ", "CPTAC-44-2656", "C3L-00001", "GTEX-1117F-0226", "1", "nottcga", "É-1"]
)
def test_names_of_other_cohorts_stay_as_they_are(text):
    assert barcodes.parse(text) is None and barcodes.identifier(text) == text.strip()
    assert aliquots.primary_columns([text]) == ({text.strip(): text}, [])


@pytest.mark.parametrize(
    "annotation", ["Length", "Entrez_Gene_Id", "Chr", "gene_name", "Hugo_Symbol", "Unnamed: 0", "", " "]
)
def test_case_4_a_stranger_among_patients_is_an_error_that_names_the_column(annotation):
    for samples in (["TCGA-44-1000-01A", "TCGA-44-1001-01A"], ["own1", "own2"]):
        with pytest.raises(CohortError, match=rf"m\.tsv: the column '{annotation}' .*delete the column"):
            aliquots.primary_columns([annotation, *samples], "m.tsv")
    with pytest.raises(CohortError, match="the column 'GTEX-1117F' is no TCGA barcode, as the samples' names are"):
        aliquots.primary_columns(["TCGA-44-1000-01A", "GTEX-1117F"])


@pytest.mark.parametrize(
    "annotation",
    [
        *("Gene start (bp)", "Gene.stable.ID.version", "Chromosome/scaffold name", "HGNC symbol", "ensembl_gene_id"),
        *("NCBI gene (formerly Entrezgene) ID", "Gene % GC content", "logFC", "logCPM", "AveExpr", "adj.P.Val"),
        *("seqnames", "entrezgene_id", "GeneSymbol", "gene_ids", "rownames", "P.Value", "Approved symbol"),
    ],
)
def test_columns_of_other_tools_that_tell_of_genes_are_no_patients(annotation):
    with pytest.raises(CohortError, match="is no patient but tells of genes; delete the column, or make it the first"):
        aliquots.primary_columns([annotation, "own1", "own2"])


@pytest.mark.parametrize("pair", [("P1", "P1.1"), ("P1.x", "P1.y"), ("P1_x", "P1_y"), ("P1", "P1...7"), ("P1", "P1.x")])
def test_a_name_that_a_merge_has_numbered_is_no_other_patient(pair):
    for names in (pair, pair[::-1]):
        with pytest.raises(CohortError, match=r"is another of 'P1.*', as merging tables writes it"):
            aliquots.primary_columns([*names, "P2"], "m.tsv")


def test_names_that_are_numbered_or_sound_like_genes_are_patients():
    names = ["P.1", "P.2", "S-1", "S-2.5", "Gene1", "Genova-3", "A_x", "Startup1", "total1", "id7"]
    assert list(aliquots.primary_columns(names)[0]) == names


def test_tximports_list_as_one_table_is_an_error():
    columns = [f"{kind}.P{i}" for kind in ("abundance", "counts", "length") for i in range(3)]
    with pytest.raises(CohortError, match="holds tximport's abundance, counts and length side by side"):
        aliquots.primary_columns(columns)


@pytest.mark.parametrize(
    "name, patient",
    [
        ("TCGA-44-2656-01Z-00-DX1.X.svs", "TCGA-44-2656"),
        ("tcga_44_2656.tsv", "TCGA-44-2656"),
        ("P1-TCGA-44-2656.svs", ""),
        ("TCGA-44-26567.svs", ""),
        ("x.svs", ""),
    ],
)
def test_the_patient_of_a_files_name(name, patient):
    assert barcodes.named_patient(name) == patient


@pytest.mark.parametrize("pair", [("P1", "p1"), ("P01", "P1"), ("P-1", "P1"), ("P1 ", "P1"), ("X7", "7"), ("7.0", "7")])
def test_a_patients_name_in_two_spellings_is_an_error(pair):
    with pytest.raises(CohortError, match=f"the columns '{pair[0]}' and '{pair[1]}' differ in their spelling only"):
        aliquots.primary_columns([*pair, "P2"])
    assert barcodes.nearly_the_same([pair[0]], [pair[1], "P2"]) == [pair]
    assert barcodes.nearly_the_same(["1-11", "P10"], ["11-1", "P1"]) == []


def test_a_tcga_patient_in_two_spellings_is_one_patient():
    columns = ["TCGA-44-1000-01A-11R-1858-07", "tcga.44.1000.01b.11r.a277.07", "TCGA_44_1001_01A", "TCGA_44_1001_01A.1"]
    chosen, excluded = aliquots.primary_columns(columns)
    assert chosen == {"TCGA-44-1000": columns[0], "TCGA-44-1001": columns[2]}
    assert excluded == [
        ("TCGA-44-1000", FIXED),
        ("TCGA-44-1001", aliquots.UNTOLD),
    ]


# -- one rule for aliquots ---------------------------------------------------------------------------------------
NEW = ["Tissue Type", "Tumor Descriptor", "Specimen Type", "Preservation Method", "Aliquot ID"]


def new_sheet(folder, given, told=True):
    """A sheet of 2024 and later: the aliquots' files, whose names say nothing of their order."""
    rows = []
    for i, (aliquot, preservation) in enumerate(given):
        normal = aliquot[13] == "1"
        kind = ["Normal", "Not Applicable"] if normal else ["Tumor", "Primary"]
        more = [*kind, "Solid Tissue", preservation] + [aliquot] * told
        name = f"{len(given) - i}.{STAR}"
        rows.append([f"id{i}", name, "x", sample_sheets.EXPRESSION, "TCGA-LUAD", aliquot[:12], aliquot[:16], *more])
    return sheet(folder, rows, [*HEAD[:-1], *NEW[: 4 + told]], name="new.tsv")


aliquot = st.from_regex(r"TCGA-44-100[01]-(01A|01B|01C|11A)-[0-3]1[RTH]-(1858|A277|A278)-07", fullmatch=True)


@FEW
@given(names=st.lists(aliquot, min_size=1, max_size=8, unique=True))
def test_case_2_matrix_and_sample_sheet_choose_the_same_aliquot(folder, names):
    columns, left_out = aliquots.primary_columns(names)
    rows = sample_sheets.read_sample_sheets([new_sheet(folder, [(name, "Unknown") for name in names])])
    files, not_used = sample_sheets.choose_expression(rows, "star")
    assert files["aliquot"].to_dict() == columns
    primary = [(i, why) for i, why in left_out if "sample type" not in why]
    assert sorted(primary) == sorted((i, why) for i, why in not_used if "sample type" not in why)
    assert len(left_out) == len(not_used)


def test_case_2_frozen_before_ffpe_vial_a_first_then_the_gdac_rule(folder):
    names = [
        f"TCGA-44-1001-{rest}" for rest in ("01A-11R-1774-07", "01A-11R-A278-07", "01B-02R-A277-07", "01A-11T-B000-07")
    ]
    chosen, excluded = aliquots.primary_columns(names)
    assert chosen == {"TCGA-44-1001": names[1]}
    assert Counter(why for _, why in excluded) == {
        "expression: another aliquot of the sample is used": 2,
        FIXED: 1,
    }
    # The sheet says that vial A is the fixed one, and of another patient that there is no frozen one.
    other = "TCGA-44-1002-01B-11R-A277-07"
    path = new_sheet(folder, [(names[0], "FFPE"), (names[2], "OCT"), (other, "FFPE")])
    files, excluded = sample_sheets.choose_expression(sample_sheets.read_sample_sheets([path]), "star")
    assert files["aliquot"].to_dict() == {"TCGA-44-1001": names[2]}  # stated as frozen, whatever its plate
    assert excluded == [("TCGA-44-1001", FIXED), ("TCGA-44-1002", FIXED_ONLY)]
    used = {patient: sample_sheets.row_aliquot(cells, patient) for patient, cells in files.iterrows()}
    assert aliquots.aliquot_findings(used, excluded, "new.tsv") == []
    # A vial B of which nothing is stated is used where there is no vial A, with a doubt.
    used, excluded = aliquots.one_aliquot_each(aliquots.column_aliquots(["TCGA-56-7823-01B-11R-2247-07"]))
    assert [(note.check, note.place) for note in aliquots.aliquot_findings(used, excluded, "matrix")] == [
        ("FFPE perhaps", "TCGA-56-7823")
    ]


def test_files_of_one_sample_that_the_sheet_cannot_tell_apart(folder):
    path = new_sheet(
        folder, [("TCGA-44-1001-01A-11R-1774-07", "OCT"), ("TCGA-44-1001-01A-11R-A278-07", "OCT")], told=False
    )
    files, excluded = sample_sheets.choose_expression(sample_sheets.read_sample_sheets([path]), "star")
    assert files["File Name"].tolist() == [f"1.{STAR}"] and excluded == [("TCGA-44-1001", aliquots.UNTOLD)]
    used = {patient: sample_sheets.row_aliquot(cells, patient) for patient, cells in files.iterrows()}
    (note,) = aliquots.aliquot_findings(used, excluded, "new.tsv")
    assert note.place == "TCGA-44-1001" and "no aliquot barcode tells them apart" in note.text


# -- sheets of every year ----------------------------------------------------------------------------------------
def both(path, kind="star"):
    used, left_out = sample_sheets.used_files(
        sample_sheets.read_sample_sheets([path]), [sample_sheets.SLIDE, sample_sheets.EXPRESSION]
    )
    slides, no_slide = sample_sheets.choose_slides(used)
    counts, no_counts = sample_sheets.choose_expression(used, kind)
    return (
        slides["File Name"].to_dict(),
        counts["File Name"].to_dict(),
        [why for _, why in left_out + no_slide + no_counts],
    )


def test_case_8_a_list_of_one_patient_is_that_patient(folder):
    cells = row(0, f"u.{STAR}", sample_sheets.EXPRESSION, "01A")
    cells[5:] = [f"{cells[5]}, {cells[5].lower()} ", f"{cells[6]},{cells[6]}", "Primary Tumor, Primary Tumor"]
    assert both(sheet(folder, [cells])) == ({}, {"TCGA-AB-0000": f"u.{STAR}"}, [])


def test_case_8_a_pair_is_left_out_and_says_why(folder):
    slide, counts = row(0), row(1, f"u.{STAR}", sample_sheets.EXPRESSION, "01A")
    slide[5:] = [
        "TCGA-AB-0000, TCGA-AB-0000",
        "TCGA-AB-0000-01Z, TCGA-AB-0000-11A",
        "Primary Tumor, Solid Tissue Normal",
    ]
    counts[5:7] = ["TCGA-AB-0001, TCGA-AB-0002", "TCGA-AB-0001-01A, TCGA-AB-0002-01A"]
    assert both(sheet(folder, [slide, counts])) == (
        {},
        {},
        ["slide: of several samples", "expression: of several patients"],
    )


def test_case_8_a_patient_without_dx1_keeps_the_lowest_slide(folder):
    rows = [row(0, f"TCGA-AB-0000-01Z-00-DX{n}.u.svs") for n in (10, 3, 2)]
    slides, _, left_out = both(sheet(folder, rows))
    assert slides == {"TCGA-AB-0000": "TCGA-AB-0000-01Z-00-DX2.u.svs"}
    assert (
        left_out == ["slide: diagnostic slide other than DX1, the patient has no DX1 and the lowest number is used"] * 2
    )


def test_case_8_lower_case_and_other_separators_are_read(folder):
    slide, counts = row(0, "tcga_ab_0000_01z_00_dx1.u.svs"), row(1, f"u.{STAR}", sample_sheets.EXPRESSION, "01A")
    for cells in (slide, counts):
        cells[5], cells[6] = cells[5].lower(), cells[6].lower().replace("-", ".")
    slides, files, left_out = both(sheet(folder, [slide, counts], [name.lower() for name in HEAD]))
    assert list(slides) == ["TCGA-AB-0000"] and list(files) == ["TCGA-AB-0001"] and not left_out


def test_case_8_utf_16_is_named(folder):
    path = folder / "utf16.tsv"
    path.write_text("\t".join(HEAD) + "\n", encoding="utf-16")
    with pytest.raises(CohortError, match=r"utf16\.tsv, line 1: .*UTF-16, as Excel's 'Unicode Text' is; .*UTF-8"):
        sample_sheets.read_sample_sheets([path])


@pytest.mark.parametrize(
    "column, value, why",
    [
        (1, "TCGA-AB-0009-01Z-00-DX1.u.svs", "its File Name is of another patient than its Case ID"),
        (1, "TCGA-AB-0000-11A-00-DX1.u.svs", "its File Name is of another sample than its Sample ID"),
        (6, "TCGA-AB-0009-01Z", "its Sample ID is of another patient than its Case ID"),
        (7, "Solid Tissue Normal", "its sample type Solid Tissue Normal is not that of its Sample ID (code 01)"),
    ],
)
def test_a_row_that_contradicts_itself_is_nobodys(folder, column, value, why):
    cells = row(0)
    cells[column] = value
    assert both(sheet(folder, [cells])) == ({}, {}, [f"slide: {why}"])


# -- sample sheets -----------------------------------------------------------------------------------------------
def chosen(path, kind="star"):
    files = sample_sheets.read_sample_sheets([path])
    slides, _ = sample_sheets.choose_slides(files)
    counts, _ = sample_sheets.choose_expression(files, kind)
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
            sample_sheets.read_sample_sheets([twice])
    missing = sheet(folder, [cells[:i] + cells[i + 1 :] for cells in ROWS], HEAD[:i] + HEAD[i + 1 :])
    if HEAD[i] in sample_sheets.SHEET_COLUMNS:
        with pytest.raises(CohortError, match=rf"not a GDC sample sheet, it lacks the column\(s\) {HEAD[i]};"):
            sample_sheets.read_sample_sheets([missing])
    else:
        assert len(sample_sheets.read_sample_sheets([missing])) == 6


def test_an_empty_cell_is_named_with_its_line(folder):
    rows = [*ROWS[:2], [*ROWS[2][:5], " ", *ROWS[2][6:]]]
    with pytest.raises(CohortError, match=r"sheet\.tsv, line 4: 'Case ID' is empty"):
        sample_sheets.read_sample_sheets([sheet(folder, rows)])


def test_sheets_with_and_without_the_sample_type(folder):
    old = sheet(folder, [row(0, sample="11A", of="Solid Tissue Normal")])
    new = sheet(folder, [row(1, sample="11A")[:-1]], HEAD[:-1], name="new.tsv")
    _, excluded = sample_sheets.choose_slides(sample_sheets.read_sample_sheets([old, new]))
    assert [reason for _, reason in excluded] == [
        "slide: sample type Solid Tissue Normal, not a primary tumour",
        "slide: sample type code 11, not a primary tumour",
    ]


def test_a_file_in_two_sheets_is_counted_once(folder):
    both = [sheet(folder), sheet(folder, [ROWS[0], row(9)], name="again.tsv")]
    files, excluded = sample_sheets.used_files(sample_sheets.read_sample_sheets(both), [sample_sheets.SLIDE])
    assert len(files) == 4 and Counter(reason for _, reason in excluded) == {
        "file: stands in the sample sheets more than once": 1,
        "file: data type Gene Expression Quantification is not used": 3,
    }
    sheet(folder, [[*ROWS[0][:5], "TCGA-AB-0007", *ROWS[0][6:]]], name="again.tsv")
    with pytest.raises(CohortError, match=r"again\.tsv, line 2: file id-TCGA-AB-0000.* described differently"):
        sample_sheets.read_sample_sheets(both)


def test_dx10_is_not_dx1(folder):
    rows = [row(0, f"TCGA-AB-0000-01Z-00-{name}.u.svs") for name in ("DX10", "DXA", "DX1")]
    slides, excluded = sample_sheets.choose_slides(sample_sheets.read_sample_sheets([sheet(folder, rows)]))
    assert slides["File Name"].tolist() == ["TCGA-AB-0000-01Z-00-DX1.u.svs"]
    assert [reason for _, reason in excluded] == ["slide: diagnostic slide other than DX1"] * 2


name = st.sampled_from([DX, "DX2.u.svs", "TS1.u.svs", "BS1.u.svs", "x.svs"]).map("TCGA-AB-0000-01Z-00-{}".format)
any_row = st.builds(
    row,
    st.integers(0, 4),
    st.one_of(name, st.sampled_from([f"a.{STAR}", f"b.{STAR}.gz", "c.htseq.counts.gz", "é"])),
    st.sampled_from([sample_sheets.SLIDE, sample_sheets.EXPRESSION, "Masked Somatic Mutation"]),
    st.sampled_from(["01A", "01Z", "02A", "11A", "01A, TCGA-AB-0000-11A"]),
)


@FEW
@given(rows=st.lists(any_row, max_size=12))
def test_every_row_is_chosen_or_left_out_with_a_reason(folder, rows):
    rows = [[f"id{i}", *cells[1:]] for i, cells in enumerate(rows)]
    files = sample_sheets.read_sample_sheets([sheet(folder, rows)])
    used, excluded = sample_sheets.used_files(files, [sample_sheets.SLIDE, sample_sheets.EXPRESSION])
    slides, no_slide = sample_sheets.choose_slides(used)
    counts, no_counts = sample_sheets.choose_expression(used, "star")
    assert len(excluded) + len(slides) + len(no_slide) + len(counts) + len(no_counts) == len(rows)
    assert slides.index.is_unique and slides["File Name"].str.contains("-DX[12].").all()
    assert (slides["code"] == "01").all()
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
    untold = Counter()
    for cells in sorted(primary, key=lambda c: (c[f"Sample{dot}ID"][15], c[f"File{dot}Name"])):
        if cells[f"Case{dot}ID"] in first:
            untold[cells[f"Sample{dot}ID"][15]] += 1
        first.setdefault(cells[f"Case{dot}ID"], cells[f"File{dot}ID"])
    chosen, excluded = sample_sheets.choose_expression(sample_sheets.read_sample_sheets([path]), "htseq")
    assert chosen["File ID"].to_dict() == first
    assert Counter(reason for _, reason in excluded) == Counter(
        {
            "expression: sample type Solid Tissue Normal, not a primary tumour": len(rows) - len(primary),
            aliquots.UNTOLD: untold["A"],
        }
    )
    assert (len(rows), len(patients)) == {"2020-02-13.LUSC_rna": (149, 100), "LUSC_htseq_551": (551, 501)}[sheet]


@pytest.mark.real
def test_real_columns_of_matrices(real_data):
    for name, patients in (("LUAD", 25), ("LUSC", 35)):
        table = pd.read_csv(
            real_data / f"expression/{name}_paired_counts_ELELAB.tsv.gz", sep="\t", nrows=0, index_col=0
        )
        tumour = [column for column in table.columns if column[13:15] == "01"]
        chosen, excluded = aliquots.primary_columns(table.columns)
        fixed = {"LUAD": {"TCGA-44-2662", "TCGA-44-2665"}, "LUSC": set()}[name]
        assert set(chosen) == {column[:12] for column in tumour} - fixed and len(chosen) == patients
        assert len(excluded) == len(table.columns) - patients
        # Frozen only: none of plate A277; a vial B where a patient has nothing else.
        has_a = {column[:12] for column in tumour if column[15] == "A"}
        assert {column[15] for patient, column in chosen.items() if patient in has_a} == {"A"}
        assert not any("-A277-" in column for column in chosen.values())
        assert {patient for patient, why in excluded if why == FIXED_ONLY} == fixed
        doubtful = set(chosen) - has_a
        assert doubtful == ({"TCGA-56-7823"} if name == "LUSC" else set())
        used = {aliquot.patient: aliquot for aliquot in aliquots.column_aliquots(chosen.values())}
        assert {note.place for note in aliquots.aliquot_findings(used, [], name)} == doubtful
        assert {column[13:15] for column in chosen.values()} == {"01"}
