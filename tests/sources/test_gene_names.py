"""The gene table: which names its columns may have, what is matched with what, one clear error per fault."""

import csv
import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmil.sources.gene_names import (
    ExpressionError,
    clean,
    gap,
    gene_lengths,
    is_date,
    is_spike_in,
    is_summary_row,
    is_unnamed,
    read_gene_table,
    with_symbols,
)

TEXT = "gene_id,symbol,length\nENSG1.3,A,1000\nENSG2.1,B,250.5\nENSG1.3_PAR_Y,A,7\nENSGR0000003.1,C,7\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="genes.csv"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


@pytest.mark.parametrize("name, change", [("g.csv", ","), ("g.csv.gz", ","), ("g.tsv", "\t"), ("g.txt.gz", "\t")])
def test_csv_and_tsv(write, name, change):
    table = read_gene_table(write(TEXT.replace(",", change), name))
    assert table.index.tolist() == ["ENSG1", "ENSG2"] and table["symbol"].tolist() == ["A", "B"]
    assert table["length"].tolist() == [1000.0, 250.5]


def test_the_gdcs_own_names_of_columns(write):
    text = "gene_id\tgene_name\tstart\tfull_length\texon_length\nENSG00000000003.13\tTSPAN6\t1\t12883\t4535\n"
    table = read_gene_table(write(text, "gencode.gene.info.v22.tsv"))
    assert table.to_dict("index") == {"ENSG00000000003": {"symbol": "TSPAN6", "length": 4535.0}}  # introns are no part


@pytest.mark.parametrize("columns, kept", [("gene_id,gene_name", ["symbol"]), ("length,gene_id", ["length"])])
def test_one_of_symbol_and_length_is_enough(write, columns, kept):
    assert list(read_gene_table(write(f"{columns}\n5,5\n"))) == kept


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "empty; it needs one header line"),
        ("gene_id,symbol\n", "holds no gene; give one line per gene"),
        ("gene_id,symbol\nENSG1.3_PAR_Y,A\n", "holds no gene"),
        ("gene,symbol\nENSG1,A\n", "has the columns gene, symbol; a gene_table needs gene_id"),
        ("gene_id,gene_type\nENSG1,lncRNA\n", r"needs gene_id, and symbol \(or gene_name\) or length"),
        (TEXT + "ENSG2.9,B,9\n", "line 6: gene_id ENSG2 stands there twice; keep one line per gene"),
        (TEXT + ",D,9\n", "line 6: gene_id is empty; fill it or delete the line"),
        (TEXT + "ENSG5,D,many\n", "line 6: length 'many' of gene ENSG5 is no number of bp; correct it"),
        (TEXT + "ENSG5,D,0\n", "length '0' of gene ENSG5"),
        (TEXT + "ENSG5,D,-3\n", "length '-3' of gene ENSG5"),
        (TEXT + "ENSG5,D,inf\n", "length 'inf' of gene ENSG5"),
        (TEXT + "ENSG5,D,\n", "length '' of gene ENSG5"),
        (TEXT + "ENSG5,D\n", "line 6: 2 cells where the header has 3"),
    ],
)
def test_faults_are_named(write, text, message):
    path = write(text)
    with pytest.raises(ExpressionError, match=message) as error:
        read_gene_table(path)
    assert str(path) in str(error.value)


def test_a_missing_table(tmp_path):
    with pytest.raises(ExpressionError, match=r"gene_table: .*none\.csv: the file is not there"):
        read_gene_table(tmp_path / "none.csv")


def genes_of(*names):
    return pd.DataFrame({"gene_id": names, "symbol": [name.split("|")[0] for name in names]})


def test_symbols(write):
    table = read_gene_table(write("gene_id,symbol\nENSG1,A\nENSG2,\n"))
    named, missing = with_symbols(genes_of("ENSG1", "ENSG2", "ENSG3", "X|5", "ENSG1|7"), table)
    assert named["symbol"].tolist() == ["A", "", "ENSG3", "X", "A"]
    assert missing.tolist() == [False, False, True, False, False]  # X is named by symbol, so it needs no table


def test_lengths_by_id_then_by_the_longest_of_the_symbol(write):
    table = read_gene_table(write("gene_id,symbol,length\nENSG1,A,10\nENSG2,A,30\nENSG3,A,20\nENSG4,,5\n"))
    genes = genes_of("ENSG1", "A", "A|1", "B", "?|3").assign(symbol=["A", "A", "A", "B", ""])
    np.testing.assert_array_equal(gene_lengths(genes, table), [10, 30, 30, np.nan, np.nan])
    np.testing.assert_array_equal(gene_lengths(genes, table[["length"]]), [10, np.nan, np.nan, np.nan, np.nan])


@pytest.mark.real
def test_gencode_v36(real_data):
    path = real_data / "reference/gencode_v36_gene_annotation_from_star_counts.csv"
    with path.open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if not row["gene_id"].endswith("_PAR_Y")]
    table = read_gene_table(path)
    assert list(table) == ["symbol"] and len(table) == 60_660 - 44
    assert table["symbol"].to_dict() == {row["gene_id"].split(".")[0]: row["gene_name"] for row in rows}


# -- names that are no gene's ------------------------------------------------------------------------------------
SUMMARY = [
    *("__no_feature", "__ambiguous", "__too_low_aQual", "__not_aligned", "__alignment_not_unique", "X__no_feature"),
    *(
        "N_unmapped",
        "N_multimapping",
        "N_noFeature",
        "N_ambiguous",
        "no_feature",
        "ambiguous",
        "_ambiguous",
        "_lowaqual",
    ),
    *("Assigned", "Unassigned_Unmapped", "Unassigned_NoFeatures", "Total", "Grand Total", "total_counts", "Sum"),
    *("library_size", "num_processed", "n_pseudoaligned", "N_tot", "mapped reads", "*"),
]
# Symbols, old symbols and aliases that look like one of those
REAL = [
    *("MARCH1", "MARC2", "SEPT2", "SEP15", "DEC1", "MAR1", "OCT4", "OCT-1", "APR-1", "DEC-205", "NOV", "JUN", "MAY1"),
    *("ERCC1", "ERCC6L", "SUMO1", "TOTAL1", "N4BP1", "NUMB", "Y_RNA", "5S_rRNA", "7SK", "RP11-34P13.7", "MT-ND1"),
    *("ASSIGN1", "MEAN1", "10357", "A1BG|1", "?|100130426", "AVERAGE2", "X5", "HLA-A", "1-8U", "Sepp1", "Marchf1"),
]


def rows(rule, names):
    return [name for name, hit in zip(names, rule(pd.Series(names, dtype=object)), strict=True) if hit]


@given(
    st.sampled_from(SUMMARY), st.sampled_from([str, str.lower, str.upper, str.title]), st.sampled_from(["", "|7", "|x"])
)
def test_a_summary_row_is_one_in_any_case(name, case, entrez):
    assert rows(is_summary_row, [case(name) + entrez])


MONTHS = {"en": "Mar Apr Sep Oct Dec May", "de": "Mrz Mär Okt Dez Mai", "fr": "mars avr sept déc août"}


@given(
    st.integers(1, 31),
    st.sampled_from([month for months in MONTHS.values() for month in months.split()]),
    st.sampled_from(
        ["{d}-{m}", "{d:02d}-{m}", "{d}. {m}", "{d}.{m}", "{d}-{m}-01", "{m}-{d:02d}", "{d} {m} 2001", "X{d}.{m}"]
    ),
    st.sampled_from([str, str.lower, str.upper]),
)
def test_a_month_is_a_date_in_every_language_and_order(day, month, form, case):
    assert rows(is_date, [case(form.format(d=day, m=month))])


@given(st.dates(), st.sampled_from(["%Y-%m-%d", "%Y-%m-%d 00:00:00", "%d.%m.%Y", "%m/%d/%y", "%d/%m/%Y"]))
def test_a_whole_date_is_one(day, form):
    day = day.replace(year=2000 + day.year % 100)
    assert rows(is_date, [day.strftime(form)])


def test_symbols_that_look_like_dates_or_sums_are_genes():
    for rule in (is_summary_row, is_spike_in, is_date, is_unnamed):
        assert rows(rule, REAL) == []
    assert rows(is_spike_in, ["ERCC-00002", "ercc-00171"]) == ["ERCC-00002", "ercc-00171"]


def test_days_as_numbers_count_where_genes_have_symbols():
    assert rows(is_date, ["TP53", "36951", "KRT5", "2.31E+13"]) == ["36951", "2.31E+13"]
    assert rows(is_date, ["36951", "36952", "7157"]) == []  # Entrez ids


@pytest.mark.real
@pytest.mark.parametrize("case", [str, str.lower, str.title])
def test_no_rule_drops_a_symbol_of_gencode_or_of_the_gene_sets(real_data, case):
    from mmmil.genes.enrichment import read_gmt

    table = pd.read_csv(
        real_data / "reference/gencode_v36_gene_annotation_from_star_counts.csv", dtype=str, keep_default_na=False
    )
    names = {*table["gene_name"], *table["gene_id"]}
    names = names.union(*(set(genes) for path in (real_data / "gmt").iterdir() for genes in read_gmt(path).values()))
    assert len(names) > 120_000
    names = [case(name) for name in names]
    for rule in (is_summary_row, is_spike_in, is_date, is_unnamed):
        assert rows(rule, names) == []


@given(
    st.sampled_from(["TP53", "ENSG00000141510.18", "HLA-DRB1", "SNORD3A", "5S_rRNA"]),
    st.sampled_from(["", " ", "\t", "\u00a0"]),
    st.sampled_from(["", "'", '"']),
)
def test_blanks_and_quotes_are_no_part_of_a_name(name, blank, quote):
    assert clean(f"{blank}{quote}{blank}{name}{blank}{quote}{blank}") == name


def test_an_ensembl_id_in_small_letters():
    assert clean("ensg00000141510.18_par_y") == "ENSG00000141510.18_PAR_Y" and clean("ensa") == "ensa"


def test_how_two_sources_name_genes():
    ensembl = [f"ENSG{i:011d}" for i in range(5)]
    sides = ("the sets", "the data")
    assert gap(["TP53", "KRT5"], ensembl, *sides).startswith(
        "the sets hold gene symbols (TP53, KRT5), the data Ensembl ids (ENSG00000000000, "
    )
    assert gap(["Trp53", "Krt5"], ["TRP53", "KRT5"], *sides).startswith(
        "2 names are the same but for capitals (Trp53 in the sets, TRP53 in the data)"
    )
    assert gap(["A", "B"], ["B", "C"], *sides) == "the sets alone hold gene symbols such as A, the data alone C"
