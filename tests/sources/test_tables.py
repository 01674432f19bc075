"""Tables as they come: a right answer or an error that names the line, whatever the bytes are."""

import csv
import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmil.sources.tables import CohortError, read_table

FEW = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def read(folder, data, name="t.csv", **more):
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_table(folder / name, **more)


@pytest.mark.parametrize(
    "data, name",
    [
        (b"a,b\n1,x\n2,\n", "t.csv"),
        (b"\xef\xbb\xbfa,b\r\n1,x\r\n2,\r\n", "t.csv"),
        (b"a\tb\r1\tx\r2\t", "t.tsv"),
        (b"\n a , b \n\n1, x\n2,NA\n".replace(b"NA", b""), "t.csv"),
        (b'"a","b"\n"1","x"\n2,""\n', "t.csv"),
        (b",a,,b\n0,1,?,x\n1,2,?,\n", "t.csv"),  # R's and pandas' row numbers, and an emptied column
        (gzip.compress(b"a\tb\n1\tx\n2\t\n", mtime=0), "t.tsv.gz"),
        (b"sep=,\na,b\n1,x\n2,\n,\n,\n", "t.csv"),  # Excel's first line, and the empty rows at its end
        (b"#A name\tAnother\n#STRING\tSTRING\na\tb\n1\tx\n2\t\n", "t.txt"),  # cBioPortal's
        ("a\u200b,b\n1\u200b,x\n2,\u200b\n".encode(), "t.csv"),
    ],
)
def test_the_same_table_in_many_forms(folder, data, name):
    table = read(folder, data, name)
    assert table.columns.tolist() == ["a", "b"] and table.to_numpy().tolist() == [["1", "x"], ["2", ""]]


def test_cells_stay_text_and_keep_their_line(folder):
    table = read(folder, 'a,b\n\nNA,007\n"x, y",5" tall\n')
    assert table.to_numpy().tolist() == [["NA", "007"], ["x, y", '5" tall']] and table.index.tolist() == [3, 4]
    assert read(folder, "a,b\n").empty and read(folder, "a,b").columns.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "data, name, message",
    [
        (b"", "t.csv", r"t\.csv: the table is empty"),
        (b"\n\n,,\n", "t.csv", r"t\.csv: the table is empty"),
        (b"a,b\n1,2\n1,2,3\n", "t.csv", r"t\.csv, line 3: 3 cells where the header has 2"),
        (b"a,b\n\n1\n", "t.csv", r"line 3: 1 cells where the header has 2"),
        (b"a,b,a\n1,2,3\n", "t.csv", r"line 1: the column 'a' stands there twice; rename or delete"),
        (b"a,b\n1,x\x00\n", "t.csv", r"line 2: holds a NUL byte"),
        (b"a,b\n1,caf\xe9\n", "t.csv", r"line 2: byte 0xe9 is no UTF-8 text; .*save it as text in UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "t.csv", r"line 1: byte 0xff is no UTF-8 text"),
        (b'a,b\n1,"x\n2,y\n', "t.csv", r"line 2: not a table .*double quote"),
        (b'a,b\n1,"x\n2,y"\n3,z\n', "t.csv", r"line 2: .*a quoted cell goes on to line 3"),
        (b'a,b\n1,"x"y\n', "t.csv", r"line 2: not a table"),
        (b"a;b\n1;2\n", "t.csv", r"separated by ';', not by ','"),
        (b"a,b\n1,2\n", "t.tsv", r"separated by ',', not by '\\t'"),
        (b'"a";"b"\n"1";"2"\n', "t.csv", r"line 1: .*separated by ';', not by ','"),  # R's write.csv2
        (b'"a"\t"b"\n"1"\t"2"\n', "t.csv", r"line 1: .*separated by '\\t', not by ','"),
        (b"sep=;\na;b\n1;2\n", "t.csv", r"line 2: .*separated by ';', not by ','"),
        (b"a,b\n" + b"x" * 200_000 + b",1\n", "t.csv", r"line 2: .*field larger"),
        (gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-20], "t.csv.gz", r"t\.csv\.gz: cannot be read"),
        (b"no gzip", "t.csv.gz", r"t\.csv\.gz: cannot be read"),
    ],
)
def test_what_is_no_table_is_an_error_that_names_the_line(folder, data, name, message):
    with pytest.raises(CohortError, match=message):
        read(folder, data, name)


def test_a_file_that_is_not_there(folder):
    for name in ("none.csv", "x" * 300 + ".csv", ""):
        with pytest.raises(CohortError, match="the file is not there"):
            read_table(folder / name)


def test_a_repeated_column_can_be_allowed(folder):
    assert read(folder, "a,b,a\n1,2,3\n", repeated=True)["a"].to_numpy().tolist() == [["1", "3"]]


@FEW
@given(data=st.one_of(st.binary(max_size=200), st.text('ab,"\t\r\n;\0é\ufeff', max_size=60).map(str.encode)))
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt.gz"])
def test_any_bytes(folder, name, data):
    try:
        table = read(folder, data, name, repeated=True)
    except CohortError as error:
        assert name in str(error)
    else:
        assert all(isinstance(cell, str) for row in table.to_numpy() for cell in row) and "" not in table.columns


cell = st.text(st.characters(exclude_characters="\r\n\0\u200b\u2060\ufeff", exclude_categories=["Cs"]), max_size=8).map(
    str.strip
)


@FEW
@given(rows=st.lists(st.lists(cell, min_size=3, max_size=3), max_size=5), comma=st.booleans(), crlf=st.booleans())
def test_what_a_csv_writer_wrote_is_read_back(folder, rows, comma, crlf):
    text = io.StringIO()
    end = "\r\n" if crlf else "\n"
    csv.writer(text, delimiter="," if comma else "\t", lineterminator=end).writerows([["a", "b", "c"], *rows])
    table = read(folder, text.getvalue(), "t.csv" if comma else "t.tsv")
    assert table.to_numpy().tolist() == [cells for cells in rows if any(cells)]
