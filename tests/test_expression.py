"""Expression files and the cohort's matrix: every format, every stated rule, one clear error per fault."""

import gzip

import numpy as np
import pandas as pd
import pytest

from mmmil import expression, params
from mmmil.expression import ExpressionError
from mmmil.expression_files import HTSEQ_ROWS, STAR_COLUMNS, STAR_ROWS, matrix_columns

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
    assert made.dropped == {"_PAR_Y copies": 1, "repeated symbols": 1}


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
    made = expression.assemble(pd.Series({"P": str(path)}), "htseq")
    assert made.level_unit == "log2(CPM+1)" and made.genes["symbol"].iloc[0] == "ENSG00000000003"
    assert made.counts.tolist() == [[10, 0, 5, 50, 7]]
    np.testing.assert_allclose(made.level[0], np.log2(np.array([10, 0, 5, 50, 7]) / 72 * 1e6 + 1), rtol=1e-6)


def test_truncated_htseq(tmp_path):
    path = tmp_path / "a.htseq.counts"
    path.write_text(htseq_text(rows=()))
    with pytest.raises(ExpressionError, match="__no_feature"):
        expression.read_htseq(path)


# -- matrices ----------------------------------------------------------------------------------------------------
def test_symbol_and_entrez_names(matrix):
    table = {"gene": ["A|1", "?|2", "B|3", "B|4", "ENSG1|5"], "P1": [5, 9, 1, 6, 1], "P2": [5, 9, 20, 6, 1]}
    path = str(matrix(table))
    made = expression.assemble(pd.Series({"P2": path, "P1": path}), "counts")
    assert made.genes["symbol"].tolist() == ["A", "B", "ENSG1"] and made.genes.index[1] == "B|3"
    assert made.patients == ["P2", "P1"] and made.counts.tolist() == [[5, 20, 1], [5, 1, 1]]
    assert made.dropped == {"no symbol": 1, "repeated symbols": 1}
    np.testing.assert_allclose(made.level[1], np.log2(np.array([5, 1, 1]) / 22 * 1e6 + 1), rtol=1e-6)


def test_highest_total_is_over_the_cohort_only(matrix):
    path = str(matrix({"gene": ["A", "A"], "P1": [1, 2], "P2": [1000, 0]}))
    made = expression.assemble(pd.Series({"P1": path}), "counts")
    assert made.counts.tolist() == [[2]] and made.dropped == {"repeated gene names": 1}


def test_zscores_keep_the_first_of_a_symbol(matrix):
    path = str(matrix({"gene": ["A|1", "A|2"], "P1": [-1.0, 2.0]}))
    made = expression.assemble(pd.Series({"P1": path}), "zscore")
    assert made.level.tolist() == [[-1.0]] and made.counts is None and made.level_unit == "z-score"


def test_matrices_are_joined_on_common_genes(matrix):
    one = str(matrix({"gene": ["A", "B", "C"], "P1": [1, 2, 3]}, "1.tsv"))
    two = str(matrix({"gene": ["C", "A"], "P2": [4, 5]}, "2.tsv"))
    made = expression.assemble(pd.Series({"P1": one, "P2": two}), "counts")
    assert made.genes.index.tolist() == ["A", "C"] and made.counts.tolist() == [[1, 3], [5, 4]]
    assert made.dropped == {"genes not in every matrix": 1}
    np.testing.assert_allclose(made.level[0], np.log2(np.array([1, 3]) / 4 * 1e6 + 1), rtol=1e-6)


def test_matrices_without_common_genes(matrix):
    paths = {
        "P1": str(matrix({"gene": ["A"], "P1": [1]}, "1.tsv")),
        "P2": str(matrix({"gene": ["B"], "P2": [1]}, "2.tsv")),
    }
    with pytest.raises(ExpressionError, match="no gene in common"):
        expression.assemble(pd.Series(paths), "counts")


@pytest.mark.parametrize(
    "kind, values, message",
    [
        ("counts", [1, 2.5], "RSEM"),
        ("counts", [1, -2], "negative"),
        ("counts", [1, None], "missing or infinite"),
        ("counts", [1, "many"], "not a number"),
        ("counts", [1, 2**40], "too large"),
        ("zscore", [0.5, None], "missing or infinite"),
        ("log2tpm", [0.5, "inf"], "missing or infinite"),
        ("log2tpm", [3.0, 5000.0], "cannot be log2 TPM"),
    ],
)
def test_bad_cell(matrix, kind, values, message):
    path = matrix({"gene": ["A", "B"], "P1": [1, 1], "P2": values})
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
        expression.assemble(pd.Series({"P1": path, "P2": path}), "counts")


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


# -- real files --------------------------------------------------------------------------------------------------
@pytest.mark.real
def test_the_gdcs_own_star_file(real_data):
    path = real_data / "gdc/gdc_fixture.rna_seq.augmented_star_gene_counts.tsv.gz"
    table = expression.read_star(path)
    assert len(table) == 96 and table["symbol"].iloc[0] == "TSPAN6" and table["count"].iloc[0] == 429
    np.testing.assert_allclose(table["tpm"].iloc[0], 92548.0775, rtol=1e-6)


@pytest.mark.real
def test_real_rsem_counts_are_refused(real_data):
    path = real_data / "expression/LGG20_rsem_raw_counts_TCGAWorkflowData.tsv.gz"
    assert len(matrix_columns(path)) == 20
    with pytest.raises(ExpressionError, match=r"RSEM"):
        expression.read_matrix(path, "counts")


def test_a_header_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "m.tsv"
    path.write_bytes(b"gene\tA\xff\xfe\n")
    with pytest.raises(ExpressionError, match=r"m\.tsv: line 1 is no text in UTF-8"):
        matrix_columns(path)
