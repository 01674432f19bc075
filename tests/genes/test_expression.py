"""Expression files and the cohort's matrix: every format, every stated rule, one clear error per fault."""

import csv
import gzip
import io
import zipfile
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from mmmil import params
from mmmil.genes import expression
from mmmil.genes.expression import ExpressionError
from mmmil.sources.expression import HTSEQ_ROWS, STAR_COLUMNS, STAR_ROWS, matrix_columns

N_ROWS, HTSEQ_ENDS = sorted(STAR_ROWS), sorted(HTSEQ_ROWS)
GENES = [
    ("ENSG00000000003.15", "TSPAN6", 10, 1.5),
    ("ENSG00000000005.6", "TNMD", 0, 0.0),
    ("ENSG00000000419.13", "TWICE", 5, 3.0),
    ("ENSG00000000457.14", "TWICE", 50, 7.0),
    ("ENSG00000002586.20_PAR_Y", "CD99", 0, 0.0),
    ("ENSG00000002586.20", "CD99", 7, 31.0),
]


def star_text(genes=GENES, rows=N_ROWS):
    lines = ["# gene-model: GENCODE v36", "\t".join(STAR_COLUMNS)]
    lines += [f"{name}\t\t\t100\t100\t100\t\t\t" for name in rows]
    lines += [f"{i}\t{symbol}\tprotein_coding\t{n}\t{n}\t0\t{tpm}\t{tpm}\t{tpm}" for i, symbol, n, tpm in genes]
    return "\n".join(lines) + "\n"


@pytest.fixture
def star(tmp_path):
    def write(name="a.augmented_star_gene_counts.tsv", text=None):
        path = tmp_path / name
        path.write_text(star_text() if text is None else text)
        return path

    return write


@pytest.fixture
def matrix(tmp_path):
    def write(table, name="m.tsv"):
        path = tmp_path / name
        pd.DataFrame(table).set_index("gene").to_csv(path, sep="\t")
        return path

    return write


# -- STAR --------------------------------------------------------------------------------------------------------
def test_star_counts_and_tpm(star):
    table = expression.read_star(star())
    assert table["gene_id"].tolist() == [g[0] for g in GENES]
    assert table["count"].dtype == np.int32 and table["count"].tolist() == [10, 0, 5, 50, 0, 7]
    np.testing.assert_allclose(table["tpm"], [1.5, 0, 3, 7, 0, 31])


def test_star_compressed_is_the_same(star, tmp_path):
    path = tmp_path / "b.augmented_star_gene_counts.tsv.gz"
    path.write_bytes(gzip.compress(star_text().encode()))
    pd.testing.assert_frame_equal(expression.read_star(path), expression.read_star(star()))


def test_assembled_star_matrix(star):
    second = [(i, s, n + 1, tpm + 1) for i, s, n, tpm in GENES]
    paths = pd.Series({"P1": str(star()), "P2": str(star("b.tsv", star_text(second)))})
    made = expression.assemble(paths, "star")
    assert made.patients == ["P1", "P2"] and made.kind == "counts" and made.level_unit == "log2(TPM+1)"
    assert made.genes.index.tolist() == ["ENSG00000000003", "ENSG00000000005", "ENSG00000000457", "ENSG00000002586"]
    assert made.genes["symbol"].tolist() == ["TSPAN6", "TNMD", "TWICE", "CD99"]
    assert made.counts.dtype == np.int32 and made.counts[1].tolist() == [11, 1, 51, 8]
    assert made.level.dtype == np.float32
    np.testing.assert_allclose(made.level[0], np.log2(np.array([1.5, 0, 7, 31]) + 1), rtol=1e-6)
    assert made.dropped == {"summary rows": 4, "_PAR_Y copies": 1, "repeated symbols": 1}


@pytest.mark.parametrize(
    "cut, message",
    [
        (star_text()[:-3], "truncated"),
        (star_text()[:-30] + "\n", "not whole"),
        (star_text(rows=N_ROWS[:3]), "N_unmapped"),
        (star_text([]), "holds no gene"),
        (star_text([*GENES, GENES[0]]), "stands there twice"),
        (star_text().replace("tpm_unstranded", "tpm"), "has the columns"),
        (star_text([("ENSG1.1", "A", 1.5, 1.0)]), "count '1.5'"),
        (star_text([("ENSG1.1", "A", -1, 1.0)]), "count '-1"),
        (star_text([("ENSG1.1", "A", "", 1.0)]), "count"),
        (star_text([("ENSG1.1", "A", 1, "x")]), "not whole"),
        ("", "truncated"),
    ],
)
def test_damaged_star_file(star, cut, message):
    path = star(text=cut)
    with pytest.raises(ExpressionError, match=message) as error:
        expression.read_star(path)
    assert str(path) in str(error.value)


def test_truncated_gzip(tmp_path):
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(star_text().encode())[:-20])
    with pytest.raises(ExpressionError, match="truncated or damaged"):
        expression.read_star(path)


def test_missing_file(tmp_path):
    with pytest.raises(ExpressionError, match="is not there"):
        expression.read_star(tmp_path / "none.tsv")


def test_file_cut_between_lines_differs_from_the_others(star):
    paths = {f"P{i}": str(star(f"{i}.tsv")) for i in range(3)}
    paths["P1"] = str(star("1.tsv", star_text(GENES[:4])))
    with pytest.raises(ExpressionError, match=r"1\.tsv: has 4 genes, the cohort's other files 6"):
        expression.assemble(pd.Series(paths), "star")


def test_every_bad_file_is_named(star):
    paths = {"P0": str(star()), "P1": str(star("1.tsv", "x")), "P2": str(star("2.tsv", star_text([GENES[0]] * 2)))}
    with pytest.raises(ExpressionError, match=r"(?s)1\.tsv.*2\.tsv"):
        expression.assemble(pd.Series(paths), "star")


def test_other_gencode_release(star):
    other = [("ENSG00000009999.1", "OTHER", 1, 1.0), *GENES[1:]]
    with pytest.raises(ExpressionError, match="one GENCODE release"):
        expression.assemble(pd.Series({"P0": str(star()), "P1": str(star("1.tsv", star_text(other)))}), "star")


# -- HTSeq -------------------------------------------------------------------------------------------------------
def htseq_text(rows=HTSEQ_ENDS):
    return "".join(f"{i}\t{n}\n" for i, _, n, _ in GENES) + "".join(f"{name}\t9\n" for name in rows)


def test_htseq(tmp_path):
    path = tmp_path / "a.htseq.counts.gz"
    path.write_bytes(gzip.compress(htseq_text().encode()))
    made = expression.assemble(pd.Series({"P": str(path)}), "htseq", counts_level="cpm")
    assert made.level_unit == "log2(CPM+1)" and made.genes["symbol"].iloc[0] == "ENSG00000000003"
    assert made.counts.tolist() == [[10, 0, 5, 50, 7]]
    np.testing.assert_allclose(made.level[0], np.log2(np.array([10, 0, 5, 50, 7]) / 72 * 1e6 + 1), rtol=1e-6)


def test_truncated_htseq(tmp_path):
    path = tmp_path / "a.htseq.counts"
    path.write_text(htseq_text(rows=()))
    with pytest.raises(ExpressionError, match="__no_feature"):
        expression.read_htseq(path)


def htseq_file(tmp_path, counts=(10, 0, 5, 50, 0, 7), name="a.htseq.counts"):
    path = tmp_path / name
    ids = [gene[0] for gene in GENES[:4]] + ["ENSGR0000002586.12", GENES[5][0]]
    rows = [f"{i}\t{n}\n" for i, n in zip(ids, counts, strict=True)] + [f"{name}\t9\n" for name in HTSEQ_ENDS]
    path.write_text("".join(rows))
    return path


@pytest.fixture
def table(tmp_path):
    def write(lines, name="genes.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


# ENSG00000000005 (TNMD) is not in it, nor is the pseudogene on Y; versions differ from the files' on purpose.
LENGTHS = [
    "gene_id,gene_name,length",
    *("ENSG00000000003.1,TSPAN6,2000", "ENSG00000000419.1,TWICE,1000", "ENSG00000000457.1,TWICE,500"),
    "ENSG00000002586.1,CD99,100",
]


def test_htseq_with_symbols_and_tpm(tmp_path, table):
    paths = pd.Series({"P1": str(htseq_file(tmp_path)), "P2": str(htseq_file(tmp_path, (2, 9, 1, 1, 0, 1), "b"))})
    made = expression.assemble(paths, "htseq", gene_table=table(LENGTHS))
    assert made.level_unit == "log2(TPM+1)" and made.kind == "counts"
    assert made.genes["symbol"].tolist() == ["TSPAN6", "TWICE", "CD99"]
    assert made.counts.tolist() == [[10, 50, 7], [2, 1, 1]]  # TWICE: the row with the higher total
    others = {"_PAR_Y copies": 1, "not in the gene table": 1, "repeated symbols": 1}
    assert made.dropped == {"summary rows": 5, **others}
    rates = np.array([[10 / 2000, 50 / 500, 7 / 100], [2 / 2000, 1 / 500, 1 / 100]])
    million = (rates.sum(axis=1) + np.array([5, 1]) / 1000)[:, None]  # the other TWICE counts, TNMD has no length
    np.testing.assert_allclose(made.level, np.log2(rates / million * 1e6 + 1), rtol=1e-6)


def test_symbols_alone_with_cpm(tmp_path, table):
    lines = [line.rpartition(",")[0] for line in LENGTHS]
    paths = pd.Series({"P": str(htseq_file(tmp_path, (10, 3, 5, 50, 0, 7)))})
    made = expression.assemble(paths, "htseq", gene_table=table(lines), counts_level="cpm")
    assert made.genes["symbol"].tolist() == ["TSPAN6", "TWICE", "CD99"] and made.level_unit == "log2(CPM+1)"
    np.testing.assert_allclose(made.level[0], np.log2(np.array([10, 50, 7]) / 75 * 1e6 + 1), rtol=1e-6)


def test_counts_without_lengths_are_refused_before_a_file_is_read(tmp_path, table, matrix):
    lines = [line.rpartition(",")[0] for line in LENGTHS]
    remedy = "name a gene_table with the column length, or set counts_level: cpm"
    for kind in ("htseq", "counts"):
        with pytest.raises(ExpressionError, match=rf"none\.txt: states no TPM and no gene lengths.*{remedy}"):
            expression.assemble(pd.Series({"P": "none.txt"}), kind)
        with pytest.raises(ExpressionError, match=rf"genes\.csv has no length.*{remedy}"):
            expression.assemble(pd.Series({"P": "none.txt"}), kind, gene_table=table(lines))
    p = values(tmp_path, expression_kind="htseq")
    with pytest.raises(ExpressionError, match=remedy):
        expression.load(pd.DataFrame({"expression_path": ["none.txt"]}, index=["P"]), p)
    # what brings its own level needs no lengths
    made = expression.assemble(pd.Series({"P": str(matrix({"gene": ["A"], "P": [-1.5]}))}), "zscore")
    assert made.level.tolist() == [[-1.5]]


def test_a_gene_table_of_other_genes(tmp_path, table):
    path = table(["gene_id,symbol,length", "ENSMUSG00000000001,Gnai3,3262"])
    with pytest.raises(ExpressionError, match=r"no gene is in .*genes\.csv; name genes alike"):
        expression.assemble(pd.Series({"P": str(htseq_file(tmp_path))}), "htseq", gene_table=path)


def test_a_patient_without_counts_of_the_tables_genes(tmp_path, table):
    path = str(htseq_file(tmp_path, (0, 9, 0, 0, 0, 0)))  # all of them of TNMD
    with pytest.raises(ExpressionError, match="patient P: every count is 0"):
        expression.assemble(pd.Series({"P": path}), "htseq", gene_table=table(LENGTHS))


def test_star_files_bring_their_own_symbols_and_tpm(star, table):
    paths = pd.Series({"P": str(star())})
    plain = expression.assemble(paths, "star")
    other = expression.assemble(paths, "star", gene_table=table(LENGTHS), counts_level="cpm", round_counts=True)
    pd.testing.assert_frame_equal(plain.genes, other.genes)
    np.testing.assert_array_equal(plain.level, other.level)


# -- matrices ----------------------------------------------------------------------------------------------------
def test_symbol_and_entrez_names(matrix):
    table = {"gene": ["A|1", "?|2", "B|3", "B|4", "ENSG1|5"], "P1": [5, 9, 1, 6, 1], "P2": [5, 9, 20, 6, 1]}
    path = str(matrix(table))
    made = expression.assemble(pd.Series({"P2": path, "P1": path}), "counts", counts_level="cpm")
    assert made.genes["symbol"].tolist() == ["A", "B", "ENSG1"] and made.genes.index[1] == "B|3"
    assert made.patients == ["P2", "P1"] and made.counts.tolist() == [[5, 20, 1], [5, 1, 1]]
    assert made.dropped == {"no symbol": 1, "repeated symbols": 1}
    np.testing.assert_allclose(made.level[1], np.log2(np.array([5, 1, 1]) / 22 * 1e6 + 1), rtol=1e-6)


def test_highest_total_is_over_the_cohort_only(matrix):
    path = str(matrix({"gene": ["A", "A"], "P1": [1, 2], "P2": [1000, 0]}))
    made = expression.assemble(pd.Series({"P1": path}), "counts", counts_level="cpm")
    assert made.counts.tolist() == [[2]] and made.dropped == {"repeated gene names": 1}


def test_zscores_keep_the_first_of_a_symbol(matrix):
    path = str(matrix({"gene": ["A|1", "A|2"], "P1": [-1.0, 2.0]}))
    made = expression.assemble(pd.Series({"P1": path}), "zscore")
    assert made.level.tolist() == [[-1.0]] and made.counts is None and made.level_unit == "z-score"


def test_matrices_are_joined_on_common_genes(matrix):
    one = str(matrix({"gene": ["A", "B", "C"], "P1": [1, 2, 3]}, "1.tsv"))
    two = str(matrix({"gene": ["C", "A"], "P2": [4, 5]}, "2.tsv"))
    made = expression.assemble(pd.Series({"P1": one, "P2": two}), "counts", counts_level="cpm")
    assert made.genes.index.tolist() == ["A", "C"] and made.counts.tolist() == [[1, 3], [5, 4]]
    assert made.dropped == {"genes not in every matrix": 1}
    np.testing.assert_allclose(made.level[0], np.log2(np.array([1, 3]) / 4 * 1e6 + 1), rtol=1e-6)


def test_matrices_without_common_genes(matrix):
    paths = {
        "P1": str(matrix({"gene": ["A"], "P1": [1]}, "1.tsv")),
        "P2": str(matrix({"gene": ["B"], "P2": [1]}, "2.tsv")),
    }
    with pytest.raises(ExpressionError, match="no gene in common"):
        expression.assemble(pd.Series(paths), "counts", counts_level="cpm")


@pytest.mark.parametrize(
    "kind, values, message",
    [
        ("counts", [100, 2.5], "RSEM's expected counts set round_counts: true"),
        ("counts", [1, 2.5], "so these are TPM or their logarithms.*expression_kind: log2tpm"),
        ("counts", [999_999, 0.5], "columns add up to 1e6, so these are TPM"),
        ("counts", [1, -2], "is negative, so it is no count; correct the cell"),
        ("counts", [0.7, -0.4], "z-scores or log ratios, not counts; set expression_kind: zscore"),
        ("counts", [1, None], "missing or infinite; fill the cell or delete the gene"),
        ("counts", [1, "many"], "not a number"),
        ("counts", [1, 2**40], "too large"),
        ("zscore", [0.5, None], "missing or infinite"),
        ("log2tpm", [0.5, "inf"], "missing or infinite"),
        ("log2tpm", [3.0, 5000.0], "cannot be log2 TPM"),
    ],
)
def test_bad_cell(matrix, kind, values, message):
    first = [999_999, 1] if values[0] == 999_999 else [1, 1]
    path = matrix({"gene": ["A", "B"], "P1": first, "P2": values})
    with pytest.raises(ExpressionError, match=message) as error:
        expression.read_matrix(path, kind)
    assert str(path) in str(error.value) and "gene B, column P2" in str(error.value)


def test_log2tpm_as_given(matrix):
    path = str(matrix({"gene": ["ENSG00000000003.15", "B"], "P1": [1.5, -9.9]}))
    made = expression.assemble(pd.Series({"P1": path}), "log2tpm")
    assert made.kind == "log2tpm" and made.level_unit == "log2 TPM as given" and made.counts is None
    assert made.genes.index.tolist() == ["ENSG00000000003", "B"]


def test_a_library_of_zeros(matrix):
    path = str(matrix({"gene": ["A", "B"], "P1": [1, 2], "P2": [0, 0]}))
    with pytest.raises(ExpressionError, match="patient P2: every count is 0"):
        expression.assemble(pd.Series({"P1": path, "P2": path}), "counts", counts_level="cpm")


def test_repeated_and_absent_columns(tmp_path, matrix):
    path = tmp_path / "m.csv"
    path.write_text("gene,P1,P1\nA,1,2\n")
    with pytest.raises(ExpressionError, match="column P1 stands there twice"):
        matrix_columns(path)
    with pytest.raises(ExpressionError, match="no column P9"):
        expression.read_matrix(matrix({"gene": ["A"], "P1": [1]}), "counts", ["P9"])


def test_table_by_slide(tmp_path):
    path = tmp_path / "porpoise.csv"
    path.write_text("case_id,slide_id,A_rnaseq,B_rnaseq,A_mut\nP1,s1,0.5,1,0\nP1,s2,0.5,1,1\nP2,s3,-1,2,0\n")
    assert matrix_columns(path) == ["P1", "P2"]
    made = expression.assemble(pd.Series({"P2": str(path), "P1": str(path)}), "zscore")
    assert made.genes.index.tolist() == ["A", "B"] and made.level.tolist() == [[-1, 2], [0.5, 1]]
    with pytest.raises(ExpressionError, match="z-scores, not counts"):
        expression.read_matrix(path, "counts")
    path.write_text("case_id,slide_id,A_rnaseq\nP1,s1,0.5\nP1,s2,0.6\n")
    with pytest.raises(ExpressionError, match="case P1 differ"):
        expression.read_matrix(path, "zscore")


def test_tpm_of_a_matrix_named_by_symbol(matrix, table):
    lengths = table(["gene_id\tsymbol\texon_length", "ENSG1\tA\t1000", "ENSG2\tA\t4000", "ENSG3\tB\t500"], "g.tsv")
    path = str(matrix({"gene": ["A|1", "B|2", "C|3", "?|4", "ENSG3.7"], "P": [8, 3, 7, 2, 1]}))
    made = expression.assemble(pd.Series({"P": path}), "counts", gene_table=lengths)
    assert made.genes["symbol"].to_dict() == {"A|1": "A", "B|2": "B"} and made.counts.tolist() == [[8, 3]]
    assert made.dropped == {"not in the gene table": 2, "repeated symbols": 1}  # C and ?; ENSG3 is B too
    rates = np.array([8 / 4000, 3 / 500])  # of the genes called A the longest
    np.testing.assert_allclose(made.level[0], np.log2(rates / (rates.sum() + 1 / 500) * 1e6 + 1), rtol=1e-6)


@pytest.mark.parametrize("kind, values", [("log2tpm", [1.0, 2.0, 3.0]), ("counts", [10, 20, 30])])
def test_symbols_of_a_matrix_of_ensembl_ids(matrix, table, kind, values):
    symbols = table(["gene_id,symbol", "ENSG00000000003.15,TSPAN6", "ENSG00000000419.13,"])
    names = ["ENSG00000000003.2", "ENSG00000000419.1", "ENSG00000000005.6"]
    paths = pd.Series({"P": str(matrix({"gene": names, "P": values}))})
    made = expression.assemble(paths, kind, gene_table=symbols, counts_level="cpm")
    assert made.genes["symbol"].to_dict() == {"ENSG00000000003": "TSPAN6"}
    assert made.dropped == {"not in the gene table": 1, "no symbol": 1}
    without = expression.assemble(paths, kind, counts_level="cpm")
    assert without.genes["symbol"].tolist() == ["ENSG00000000003", "ENSG00000000419", "ENSG00000000005"]


def test_rows_that_are_one_gene_without_their_version(matrix):
    names = ["ENSG00000000003.1", "ENSG00000000003.2", "ENSG00000002586.20_PAR_Y", "ENSGR0000124333.10", "B"]
    path = str(matrix({"gene": names, "P": [3, 40, 5, 6, 7]}))
    made = expression.assemble(pd.Series({"P": path}), "counts", counts_level="cpm")
    assert made.genes.index.tolist() == ["ENSG00000000003", "B"] and made.counts.tolist() == [[40, 7]]
    assert made.dropped == {"_PAR_Y copies": 2, "repeated gene names": 1}


def test_expected_counts_are_rounded_when_asked(matrix):
    path = str(matrix({"gene": ["A", "B", "C"], "P1": [100.5, 2.0, 7.49], "P2": [101.5, 3, 0], "P3": [0.1, 0.1, 0.1]}))
    paths = pd.Series({"P1": path, "P2": path})
    made = expression.assemble(paths, "counts", counts_level="cpm", round_counts=True)
    assert made.counts.dtype == np.int32 and made.counts.tolist() == [[100, 2, 7], [102, 3, 0]]  # half to even
    assert made.dropped == {"cells rounded to whole numbers": 3}  # of the patients in use; P3 is none
    np.testing.assert_allclose(made.level[0], np.log2(np.array([100, 2, 7]) / 109 * 1e6 + 1), rtol=1e-6)
    with pytest.raises(ExpressionError, match=r"A, column P1: 100\.5 is not a whole number \(50\.0% of all cells\)"):
        expression.assemble(paths, "counts", counts_level="cpm")


@pytest.mark.parametrize(
    "values, message",
    [
        ([30.5, -0.5], "is negative"),
        ([30.5, None], "missing or infinite"),
        ([3.5, 9.5], "no cell is above 32, so these are TPM or their logarithms"),
        ([999_999.5, 0.5], "columns add up to 1e6"),
        ([2.0**31 - 0.6, 1], "too large"),
    ],
)
def test_rounding_makes_no_counts_of_anything_else(matrix, values, message):
    path = str(matrix({"gene": ["A", "B"], "P": values}))
    with pytest.raises(ExpressionError, match=message) as error:
        expression.assemble(pd.Series({"P": path}), "counts", counts_level="cpm", round_counts=True)
    assert path in str(error.value)


@pytest.mark.parametrize("ending", [".tsv", ".tsv.gz"])
def test_a_header_without_the_gene_column(tmp_path, ending):
    """As R's write.table makes it: read by position, P1's values would pass for P2's."""
    text = b"P1\tP2\tP3\nA\t1\t2\t3\nB\t4\t5\t6\n"
    path = tmp_path / f"m{ending}"
    path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    for read in (matrix_columns, lambda path: expression.read_matrix(path, "counts")):
        with pytest.raises(
            ExpressionError, match=r"m\.tsv.*line 2 has 4 cells, the header 3; put 'gene' before"
        ) as error:
            read(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("#1.2\t\t\t\n2\t2\t\t\nNAME\tDescription\tP1\tP2\nA\t.\t1\t2\n", "is a GCT file; delete its first two lines"),
        ("Hybridization REF\tP1\tP2\ngene_id\tnormalized_count\tnormalized_count\nA\t1\t2\n", "as a second header"),
        (
            "id\tTP53\tEGFR\tMYC\nP1\t1\t2\t3\n",
            "TP53, EGFR and more are columns; give genes in rows, samples in columns",
        ),
        ("id\tENSG00000000003.1\tENSG00000000005\tENSG00000000419\nP1\t1\t2\t3\n", "and more are columns; give genes"),
        ("id\tAAA\tBBB\nTCGA-44-2656-01A\t1\t2\n", "line 2 is of the sample TCGA-44-2656-01A; give genes in rows"),
        ("A\t5\t0\t0\nB\t5\t1\t2\n", "the column 0 stands there twice; put the line of the samples' names above"),
    ],
)
def test_a_matrix_that_lies_otherwise(tmp_path, text, message):
    path = tmp_path / "m.tsv"
    path.write_text(text)
    with pytest.raises(ExpressionError, match=rf"m\.tsv: .*{message}"):
        matrix_columns(path)


def test_first_lines_that_are_a_matrix(tmp_path):
    path = tmp_path / "m.tsv"
    for line in ("A\t1\tInf\tNaN", "A\tna\tNA\tnan", "TP53\t1\t2\t3", "TCGA1\t1\t2\t3"):
        path.write_text(f"gene\tMYC\tP2\tEGFR\n{line}\n")
        assert matrix_columns(path) == ["MYC", "P2", "EGFR"]


@pytest.mark.parametrize("text", ["P1\tP2\n1\t2\n3\t4\n1\t0\n", "P1,P2\n-0.5,2\n1e-3,4\n"])
def test_a_matrix_without_gene_names(tmp_path, text):
    path = tmp_path / "m.txt"
    path.write_text(text)
    with pytest.raises(
        ExpressionError, match=r"the first column holds numbers only.*put a column of gene symbols"
    ) as error:
        expression.read_matrix(path, "counts")
    assert str(path) in str(error.value)


def test_entrez_ids_are_names(tmp_path):
    (tmp_path / "m.csv").write_text("entrez,P1\n10357,3\n155060,4\n")
    assert expression.read_matrix(tmp_path / "m.csv", "counts").index.tolist() == ["10357", "155060"]


def test_a_header_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "m.tsv"
    path.write_bytes(b"gene\tA\xff\xfe\n")
    with pytest.raises(ExpressionError, match=r"m\.tsv: line 1 is no text in UTF-8"):
        matrix_columns(path)


# -- load --------------------------------------------------------------------------------------------------------
def values(tmp_path, **more):
    base = {"task": "t", "class_names": ["a", "b"], "data_dir": str(tmp_path), "results_dir": str(tmp_path / "results")}
    return params.check({**base, "inputs": "genes", **more})


def test_load_is_found_again_and_made_anew_when_a_file_changes(star, tmp_path):
    patients = pd.DataFrame({"expression_path": [str(star()), str(star("b.tsv"))]}, index=["P1", "P2"])
    p = values(tmp_path)
    first = expression.load(patients, p)
    again = expression.load(patients, p)
    direct = expression.assemble(patients["expression_path"], "star")
    for made in (first, again):
        np.testing.assert_array_equal(made.counts, direct.counts)
        np.testing.assert_array_equal(made.level, direct.level)
        pd.testing.assert_frame_equal(made.genes, direct.genes)
        assert (made.kind, made.level_unit, made.dropped) == ("counts", "log2(TPM+1)", direct.dropped)
    assert first.fingerprint == again.fingerprint and len(list((p.results / "expression").iterdir())) == 1
    star("b.tsv", star_text([(i, s, n + 1, tpm) for i, s, n, tpm in GENES]))
    changed = expression.load(patients, p)
    assert changed.fingerprint != first.fingerprint and changed.counts[1, 0] == 11


def test_slides_only_cohort_has_no_expression(tmp_path):
    with pytest.raises(ExpressionError, match="no expression to load"):
        expression.load(pd.DataFrame({"expression_path": [""]}), values(tmp_path, inputs="slides"))


def test_the_key_depends_on_what_this_kind_is_read_with(star, matrix, table, tmp_path):
    def key(p, path):
        return expression.load(pd.DataFrame({"expression_path": [str(path)]}, index=["P"]), p).fingerprint

    genes, one = str(table(LENGTHS)), star()
    star_keys = {
        key(values(tmp_path, **more), one)
        for more in ({}, {"counts_level": "cpm"}, {"gene_table": genes}, {"round_counts": True})
    }
    assert len(star_keys) == 1
    path = matrix({"gene": ["CD99", "TSPAN6"], "P": [30, 40]})
    p = values(tmp_path, expression_kind="counts", expression_matrix=[str(path)], gene_table=genes)
    settings = ({}, {"counts_level": "cpm"}, {"round_counts": True}, {"counts_level": "cpm", "gene_table": ""})
    keys = [key(p.override(**more), path) for more in settings]
    assert len(set(keys)) == 4
    table([*LENGTHS[:-1], "ENSG00000002586.1,CD99,200"])
    assert key(p, path) not in keys
    scores = matrix({"gene": ["A"], "P": [0.5]}, "z.tsv")
    p = values(tmp_path, expression_kind="zscore", expression_matrix=[str(scores)])
    assert key(p, scores) == key(p.override(counts_level="cpm", round_counts=True), scores)


def test_load_hands_the_parameters_on(matrix, table, tmp_path):
    path = matrix({"gene": ["CD99", "TSPAN6"], "P": [30.2, 40]})
    patients = pd.DataFrame({"expression_path": [str(path)]}, index=["P"])
    p = values(tmp_path, expression_kind="counts", expression_matrix=[str(path)])
    with pytest.raises(ExpressionError, match="set counts_level: cpm"):
        expression.load(patients, p)
    with pytest.raises(ExpressionError, match="set round_counts: true"):
        expression.load(patients, p.override(counts_level="cpm"))
    table(LENGTHS)
    made = expression.load(patients, p.override(gene_table="genes.csv", round_counts=True))  # found in data_dir
    assert made.level_unit == "log2(TPM+1)" and made.dropped == {"cells rounded to whole numbers": 1}
    np.testing.assert_allclose(made.level[0], np.log2(np.array([0.3, 0.02]) / 0.32 * 1e6 + 1), rtol=1e-6)


# -- real files --------------------------------------------------------------------------------------------------
@pytest.mark.real
def test_the_gdcs_own_star_file(real_data):
    path = real_data / "gdc/gdc_fixture.rna_seq.augmented_star_gene_counts.tsv.gz"
    table = expression.read_star(path)
    assert len(table) == 96 and table["symbol"].iloc[0] == "TSPAN6" and table["count"].iloc[0] == 429
    np.testing.assert_allclose(table["tpm"].iloc[0], 92548.0775, rtol=1e-6)


LGG20 = "expression/LGG20_rsem_raw_counts_TCGAWorkflowData.tsv.gz"
GENCODE = "reference/gencode_v36_gene_annotation_from_star_counts.csv"


@pytest.fixture
def lgg20(real_data):
    path = real_data / LGG20
    return pd.Series({name[:12]: str(path) for name in matrix_columns(path)})


@pytest.mark.real
def test_real_rsem_counts_are_refused(lgg20):
    assert len(lgg20) == 20
    with pytest.raises(ExpressionError, match=r"9\.5% of all cells.*set round_counts: true"):
        expression.assemble(lgg20, "counts", counts_level="cpm")


@pytest.mark.real
def test_real_rsem_counts_rounded(lgg20):
    with gzip.open(lgg20.iloc[0], "rt", newline="") as handle:
        header, *rows = csv.reader(handle, delimiter="\t")
    cells, chosen = {}, {}  # of each name, then of each symbol, the row with the highest total
    for name, *texts in rows:
        values = [float(text) for text in texts]
        if name not in cells or sum(map(round, values)) > sum(map(round, cells[name])):
            cells[name] = values
    for name, values in cells.items():
        symbol, total = name.split("|")[0], sum(map(round, values))
        if total > chosen.get(symbol, ("", -1))[1]:
            chosen[symbol] = (name, total)
    del chosen["?"]
    unnamed = sum(name.startswith("?|") for name in cells)
    expected_drops = {
        "cells rounded to whole numbers": sum(not float(text).is_integer() for row in rows for text in row[1:]),
        "repeated gene names": len(rows) - len(cells),
        "no symbol": unnamed,
        "repeated symbols": len(cells) - unnamed - len(chosen),
    }
    assert min(expected_drops.values()) > 0  # every rule is at work

    made = expression.assemble(lgg20, "counts", counts_level="cpm", round_counts=True)
    assert made.level_unit == "log2(CPM+1)" and made.patients == [name[:12] for name in header[1:]]
    assert made.dropped == expected_drops
    assert set(zip(made.genes["symbol"], made.genes.index, strict=True)) == {(s, n) for s, (n, _) in chosen.items()}
    expected = [[round(value) for value in cells[name]] for name in made.genes.index]
    np.testing.assert_array_equal(made.counts.T, expected)
    million = sum(round(values[3]) for values in cells.values()) / 1e6
    np.testing.assert_allclose(made.level[3], np.log2(np.array(expected)[:, 3] / million + 1), rtol=1e-5)


@pytest.mark.real
def test_gencode_names_the_genes_of_an_htseq_file(real_data, tmp_path):
    with (real_data / GENCODE).open(newline="") as handle:
        genes = [row for row in csv.DictReader(handle) if "_PAR_Y" not in row["gene_id"]]
    rows = [f"{gene['gene_id'].split('.')[0]}.99\t{1 + i % 7}\n" for i, gene in enumerate(genes)]
    path = tmp_path / "a.htseq.counts"
    path.write_text("".join(rows) + "ENSG00000999999.1\t5\n" + "".join(f"{name}\t9\n" for name in HTSEQ_ENDS))
    with pytest.raises(ExpressionError, match=r"from_star_counts\.csv has no length"):
        expression.assemble(pd.Series({"P": str(path)}), "htseq", gene_table=real_data / GENCODE)
    made = expression.assemble(pd.Series({"P": str(path)}), "htseq", gene_table=real_data / GENCODE, counts_level="cpm")
    times = Counter(gene["gene_name"] for gene in genes)
    assert set(made.genes["symbol"]) == set(times) and made.genes["symbol"].is_unique
    repeated = {"repeated symbols": len(genes) - len(times)}
    assert made.dropped == {"summary rows": 5, "not in the gene table": 1, **repeated}
    known = {gene["gene_id"].split(".")[0]: gene["gene_name"] for gene in genes}
    assert all(known[i] == symbol for i, symbol in made.genes["symbol"].items())


# -- what programs and people make of a matrix -------------------------------------------------------------------
TABLE = "gene\tP1\tP2\nA\t1\t2\nB\t4\t5\n"
FEATURECOUNTS = '# Program:featureCounts v2.0.3; Command:"featureCounts" "-T" "8,2" "-o" "m.tsv"\n'


def zipped(text, name="m.tsv"):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, text)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.tsv", gzip.compress(TABLE.encode(), mtime=0)),
        ("m.tsv.gz", TABLE.encode()),  # as a browser leaves it
        ("m.tsv.gz", gzip.compress(TABLE.encode(), mtime=0)),
        ("m.tsv", zipped(TABLE)),
        ("m.tsv", (FEATURECOUNTS + TABLE).encode()),
        ("m.csv", ("# made by hand, twice\n" + TABLE.replace("\t", ",")).encode()),
        ("m.csv", ("#" + TABLE.replace("\t", ",")).encode()),
        ("m.tsv", ("\ufeff#" + TABLE.replace("\n", "\r\n")).encode()),
    ],
)
def test_a_table_is_told_by_its_content_and_starts_at_its_header(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert matrix_columns(tmp_path / name) == ["P1", "P2"]
    assert expression.read_matrix(tmp_path / name, "counts").to_dict("list") == {"P1": [1, 4], "P2": [2, 5]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped("", "[Content_Types].xml"), "is a spreadsheet; save its sheet as text"),
        (("#1.2\n2\t2\n" + TABLE).encode(), "is a GCT file; delete its first two lines and the column Description"),
        (TABLE.replace("\n", "\r").encode(), "lines end with CR alone"),
        (TABLE.replace("\n", "\t\n").replace("P2\t", "P2").encode(), "delete the empty cell that ends the rows"),
        (TABLE.replace("\t", ";").encode(), r"its first line, 'gene;P1;P2', names no samples separated by tabs or"),
        (b"gene\tA\tB\nTCGA-44-1000-01A\t1\t2\n", "line 2 is of the sample TCGA-44-1000-01A; give genes in rows"),
    ],
)
def test_what_is_no_table_of_genes_and_samples_is_told_at_its_header(tmp_path, data, message):
    (tmp_path / "m.tsv").write_bytes(data)
    with pytest.raises(ExpressionError, match=rf"m\.tsv: .*{message}"):
        matrix_columns(tmp_path / "m.tsv")


def test_a_quote_that_swallows_rows_is_named(tmp_path):
    (tmp_path / "m.tsv").write_text('gene\tP1\n"A\t1\nB\t2\n"C\t3\nD\t4\n')
    with pytest.raises(ExpressionError, match=r"gene 'A.*: the quote is not closed on its line"):
        expression.read_matrix(tmp_path / "m.tsv", "counts")


def test_a_cut_matrix_names_how_much_is_missing(tmp_path):
    (tmp_path / "m.tsv").write_text("gene\tP1\tP2\tP3\nA\t1\t2\t3\nB\t4")
    with pytest.raises(ExpressionError, match=r"\(2 cells of 1 genes are so\), or download the file again"):
        expression.read_matrix(tmp_path / "m.tsv", "counts")


def test_a_star_file_that_a_program_marked_as_utf8_is_the_same(star):
    assert expression.read_star(star("b.tsv", "\ufeff" + star_text())).equals(expression.read_star(star()))


@pytest.mark.parametrize(
    ("names", "symbols"),
    [
        (["ENSG00000000003.15|TSPAN6", "ENSG00000000005|TNMD|protein_coding"], ["TSPAN6", "TNMD"]),
        (["TSPAN6|7105", "?|100130426"], ["TSPAN6"]),
        (["TSPAN6|ENSG00000000003", "TNMD|ENSG00000000005"], ["TSPAN6", "TNMD"]),
        (["ENST00000456328|ENSG00000223972", "A"], ["ENST00000456328", "A"]),
        (["7105.0", "64102.0"], ["7105", "64102"]),
    ],
)
def test_the_symbol_of_names_of_several_parts_and_entrez_ids_as_floats(matrix, names, symbols):
    path = matrix({"gene": names, "P1": [1, 3], "P2": [2, 9]})
    made = expression.assemble(pd.Series({"P1": str(path), "P2": str(path)}), "counts", counts_level="cpm")
    assert made.genes["symbol"].tolist() == symbols


def test_par_y_copies_named_with_a_symbol_go(matrix):
    path = matrix({"gene": ["ENSG00000002586.20|CD99", "ENSG00000002586.20_PAR_Y|CD99"], "P1": [1, 3], "P2": [2, 9]})
    made = expression.assemble(pd.Series({"P1": str(path), "P2": str(path)}), "counts", counts_level="cpm")
    assert made.counts.tolist() == [[1], [2]] and made.dropped == {"_PAR_Y copies": 1}
