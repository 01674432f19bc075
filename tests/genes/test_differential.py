"""Differential expression: the same numbers as pydeseq2 and scipy, and clear refusals."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmmil.genes import deseq2
from mmmil.genes.differential import COLUMNS, DegError, differential_expression, expressed, welch

LABELS = np.array([0] * 6 + [1] * 8)
GENES = [f"ENSG{i:011d}" for i in range(120)]


@pytest.fixture(scope="module")
def counts():
    draw = np.random.default_rng(0)
    mean = draw.uniform(30, 500, len(GENES)) * np.where(np.arange(len(GENES)) < 10, 4, 1) ** LABELS[:, None]
    counts = draw.negative_binomial(5, 5 / (5 + mean))
    counts[:, -20:] = draw.poisson(1, (len(LABELS), 20))  # never reach ten counts in six patients
    return counts


@pytest.fixture(scope="module")
def table(counts):
    return differential_expression(counts, LABELS, GENES)


def test_equals_pydeseq2_on_the_same_genes(counts, table):
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats

    names = [f"patient {i}" for i in range(len(LABELS))]
    plain = DeseqDataSet(
        counts=pd.DataFrame(counts[:, :100], index=names, columns=GENES[:100]),
        metadata=pd.DataFrame({"condition": np.where(LABELS == 1, "B", "A")}, index=names),
        design="~condition",
        n_cpus=1,
        quiet=True,
    )
    plain.deseq2()
    test = DeseqStats(plain, contrast=["condition", "B", "A"], n_cpus=1, quiet=True)
    test.summary()
    pd.testing.assert_frame_equal(table, test.results_df[COLUMNS], check_names=False, rtol=1e-10)


def test_filtered_genes_are_absent(counts, table):
    assert table.index.name == "gene_id"
    assert table.index.tolist() == GENES[:100]
    assert expressed(np.array([[10, 9], [10, 10], [0, 10], [0, 0]]), [0, 0, 1, 1]).tolist() == [True, True]
    assert expressed(np.array([[10, 9], [9, 10], [0, 0], [0, 0]]), [0, 0, 1, 1]).tolist() == [False, False]


def test_positive_is_higher_in_class_1(counts, table):
    assert (table["stat"].iloc[:10] > 0).all()
    assert (table["log2FoldChange"].iloc[:10] > 0.5).all()
    turned = differential_expression(counts, 1 - LABELS, GENES)
    assert (turned.loc[table.index[:10], "stat"] < 0).all()


def test_no_gene_without_zeros(counts):
    counts = counts.copy()
    counts[np.arange(len(GENES)) % len(LABELS), np.arange(len(GENES))] = 0
    table = differential_expression(counts, LABELS, GENES)
    assert np.isfinite(table["stat"]).all()


def test_size_factors_do_not_hang_on_the_few_genes_without_a_zero(counts):
    """The only gene without a zero is four times as high in class 1: taken for depth, it would turn all others."""
    counts = counts[:, :100].copy()
    for gene in range(1, 100):
        counts[gene % len(LABELS), gene] = 0
    table = differential_expression(counts, LABELS, GENES[:100])
    assert table["log2FoldChange"].iloc[0] > 1 and abs(table["log2FoldChange"].iloc[10:].median()) < 0.5


def test_every_patient_without_reads_in_the_tested_genes_is_named(counts):
    names = [f"TCGA-{i:02d}" for i in range(len(LABELS))]
    counts = counts.copy()
    counts[[2, 5]] = 0
    counts[2, -1] = 3  # in a gene that is filtered out
    with pytest.raises(DegError, match=r"1 patients have no counts at all \(patient TCGA-05\)"):
        differential_expression(counts, LABELS, GENES, patients=names)
    counts[5, -1] = 3
    with pytest.raises(
        DegError, match=r"2 patients have no counts in the 100 genes .* \(patient TCGA-02, patient TCGA-05\)"
    ):
        differential_expression(counts, LABELS, GENES, patients=names)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_deseq2_cannot_fit_is_one_error():
    counts = (np.random.default_rng(1).random((14, 120)) < 0.5).astype(int)
    with pytest.raises(
        DegError, match=r"DESeq2 cannot be fitted to 120 genes .*libraries have \d+ \(row \d+\) to \d+ reads"
    ):
        differential_expression(counts, LABELS, GENES, min_count=0)


def test_prints_nothing(counts, capfd):
    differential_expression(counts, LABELS, GENES)
    assert capfd.readouterr().out == ""


def test_whole_numbers_of_another_type_are_counts(counts, table):
    assert differential_expression(counts.astype(float), LABELS, GENES).equals(table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, y, g: (c - 100, y, g), "negative values, which look like z-scores"),
        (lambda c, y, g: ((c - c.mean(axis=0)) / c.std(axis=0), y, g), "negative values, which look like z-scores"),
        (lambda c, y, g: (np.log2(c + 1), y, g), "not whole numbers"),
        (lambda c, y, g: (np.where(c == c[0, 0], np.inf, c), y, g), "missing or infinite values"),
        (lambda c, y, g: (np.where(c == c[0, 0], np.nan, c), y, g), f"missing or infinite values .*{GENES[0]}"),
        (lambda c, y, g: (c, np.zeros_like(y), g), "14 patients of class 0 and 0 of class 1"),
        (lambda c, y, g: (c, (np.arange(14) == 3).astype(int), g), "needs two of each"),
        (lambda c, y, g: (c, y + 1, g), r"labels must be 0 or 1, found \[2\]"),
        (lambda c, y, g: (c, np.where(y == 1, np.nan, y), g), "found missing ones"),
        (lambda c, y, g: (c, np.ones_like(y), g), "0 patients of class 0 and 14 of class 1"),
        (lambda c, y, g: (c, y, [g[1], *g[1:]]), f"1 occur twice \\({GENES[1]}\\)"),
        (lambda c, y, g: (c, y[:-1], g), "does not fit 13 labels x 120 gene ids"),
        (lambda c, y, g: (c.T, y, g), "rows are patients, columns genes"),
        (lambda c, y, g: (c.astype(str), y, g), "look for text"),
        (lambda c, y, g: (np.minimum(c, 9), y, g), "only 0 of 120 genes"),
        (lambda c, y, g: (c * (np.arange(14) != 2)[:, None], y, g), "1 patients have no counts at all .row 2."),
    ],
)
def test_refused_before_anything_is_fitted(counts, change, message, monkeypatch):
    monkeypatch.setattr(deseq2, "wald", lambda *_: pytest.fail("pydeseq2 was reached"))
    with pytest.raises(DegError, match=message):
        differential_expression(*change(counts, LABELS, GENES))


def test_a_refusal_does_not_wait_for_the_import_of_pydeseq2():
    code = (
        "import sys, numpy as np; from mmmil.genes import differential as deg\n"
        "try: deg.differential_expression(np.full((4, 3), np.nan), [0, 0, 1, 1], ['a', 'b', 'c'])\n"
        "except deg.DegError: sys.exit('pydeseq2' in sys.modules)\n"
        "sys.exit('not refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_welch_equals_scipy():
    level = np.random.default_rng(1).normal(size=(14, 120)).astype(np.float32)
    level[:, 7] = 3.0
    table = welch(level, LABELS, GENES)
    assert GENES[7] not in table.index and len(table) == 119
    for gene in (0, 50, 119):
        one, zero = level[LABELS == 1, gene].astype(float), level[LABELS == 0, gene].astype(float)
        test = stats.ttest_ind(one, zero, equal_var=False)
        row = table.loc[GENES[gene]]
        assert row["stat"] == pytest.approx(test.statistic, rel=1e-12)
        assert row["pvalue"] == pytest.approx(test.pvalue, rel=1e-12)
        assert row["log2FoldChange"] == pytest.approx(one.mean() - zero.mean())
        assert row["stat"] == pytest.approx(row["log2FoldChange"] / row["lfcSE"])
        assert row["baseMean"] == pytest.approx(level[:, gene].mean())
    assert table["padj"].to_numpy() == pytest.approx(stats.false_discovery_control(table["pvalue"]))


def test_welch_refuses_missing_values():
    level = np.random.default_rng(1).normal(size=(14, 120))
    level[3, 5] = np.nan
    with pytest.raises(DegError, match=GENES[5]):
        welch(level, LABELS, GENES)
