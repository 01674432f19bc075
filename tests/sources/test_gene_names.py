"""The gene table: which names its columns may have, what is matched with what, one clear error per fault."""

import csv
import gzip

import numpy as np
import pandas as pd
import pytest

from mmmil.sources.gene_names import ExpressionError, gene_lengths, read_gene_table, with_symbols

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
