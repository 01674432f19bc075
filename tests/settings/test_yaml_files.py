"""YAML that would be read otherwise than it is written is an error with file, line and key; the rest is read."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mmmil import params
from mmmil.params import ParameterError
from mmmil.settings import yaml_files
from tests import book_stubs

BASE = """task: y
class_names: ["A", "B"]
inputs: genes
expression_kind: counts
label_rule: matrix
expression_matrix: ["a.tsv", "b.tsv"]
class_values: [["a.tsv"], ["b.tsv"]]
"""
LINE = BASE.count("\n") + 1  # of what a test adds


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes params/y.yaml of a project of its own."""
    (tmp_path / "params").mkdir()
    (tmp_path / "_toc.yml").write_text("root: README\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TCGA", str(tmp_path / "of {this} machine"))

    def write(text, encoding="utf-8", name="y"):
        (tmp_path / "params" / f"{name}.yaml").write_bytes(text.encode(encoding))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("inputs: both", "inputs: stands there twice, first in line 3"),
        ("seed: 010", "seed: YAML reads 010 as 8"),
        ("seed: 0o10", "seed: YAML reads 0o10 as text"),
        ("seed: 08", "seed: YAML reads 08 as text"),
        ("seed: 0x1F", "seed: YAML reads 0x1F as 31"),
        ("seed: 0b11", "seed: YAML reads 0b11 as 3"),
        ("epochs: 1:30", "epochs: YAML reads 1:30 as 90"),
        ("lr: 1:30.5", "lr: YAML reads 1:30.5 as 90.5"),
        ("epochs: 1_0", "epochs: YAML reads 1_0 as 10"),
        ("lr: 0.0_1", "lr: YAML reads 0.0_1 as"),
        ("notebooks: [007]", "notebooks: YAML reads 007 as 7"),
        ("\tseed: 1", "write spaces, not tabs"),
        ("title: 2024-13-01", "put dates in quotes"),
    ],
)
def test_case_9_what_would_be_read_otherwise_is_an_error_with_file_line_and_key(written, line, told):
    written(BASE + line + "\n")
    with pytest.raises(ParameterError) as error:
        params.load("y")
    assert "y.yaml" in str(error.value) and told in str(error.value)
    assert f"line {LINE}" in str(error.value) or "dates" in told


def test_every_line_at_fault_is_told_at_once(written):
    written(BASE + "seed: 010\nepochs: 1:30\nseed: 2\n")
    with pytest.raises(ParameterError) as error:
        params.load("y")
    told = str(error.value).splitlines()
    assert [line.split(", line ")[1].split(":")[0] for line in told] == ["8", "9", "10"]


def test_case_9_another_encoding_is_named_with_its_line_and_windows_files_are_fine(written):
    written(BASE + 'title: "Größe"\n', "cp1252")
    with pytest.raises(ParameterError, match=rf"y\.yaml, line {LINE}: byte 0xf6 is no UTF-8 text"):
        params.load("y")
    written("\ufeff" + (BASE + 'title: "Größe"\nseed: 3\n').replace("\n", "\r\n"))
    assert params.load("y").title == "Größe" and params.load("y").seed == 3


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            'data_dir: "data/{cohort}"',
            "data_dir: Value error, nothing is known as {cohort}; there are {task}, {run}, {real}",
        ),
        ('results_dir: "results/{task"', "results_dir: Value error, 'results/{task' has a brace that stands alone"),
        ('results_dir: "results/{task!r}"', "nothing is known as {task}"),
        ('mpp_table: "{0}.csv"', "mpp_table: Value error, nothing is known as {0}"),
        ("coords_dir: $NOWHERE/x", "coords_dir: Value error, the environment variable NOWHERE is not set"),
        ('clinical: ["a", "cost$.tsv"]', "clinical: Value error, 'cost$.tsv' has a $"),
        ("data_dir: ~nobody_of_this_name/x", "there is no such home folder"),
        ('weights_dir: "D:\\tcga"', "weights_dir: Value error, 'D:\\tcga' holds a line break, a tab"),
        ("mpp_table: None", "mpp_table: Value error, 'None' is no path; write \"\" for none"),
        ("gene_table: null", 'gene_table: Input should be a valid string (given: None; write "" for none)'),
        ("epochs: null", "epochs: Input should be a valid integer (given: None; leave the line out"),
        ("title: 2024-01-01", "title: Input should be a valid string (given: datetime.date(2024, 1, 1); put it in"),
        ("title: 7", "title: Input should be a valid string (given: 7; put it in quotes"),
        ("gdc_projects: [NO]", "gdc_projects.0: Input should be a valid string (given: False; YAML reads NO"),
        ("epochs: 1e1", "write 1.0e-4 with point and sign"),
        ('epochs: "10"', "write it without quotes"),
        ("variants: \"['go']\"", "variants: [a, b]` in YAML, and given to papermill by -y"),
    ],
)
def test_case_9_a_value_that_became_something_else_is_named_with_its_file_and_remedy(written, lines, told):
    written(BASE + lines + "\n")
    with pytest.raises(ParameterError) as error:
        params.load("y")
    assert told in str(error.value) and "in params/y.yaml" in str(error.value)


def test_case_9_home_and_variables_are_filled_in_wherever_a_path_is_given(written, monkeypatch):
    folder = written(BASE + "weights_dir: ~/weights\ncoords_dir: '$TCGA/coords'\nmpp_table: '{task}_$$1.csv'\n")
    monkeypatch.setenv("HOME", "/of/somebody")
    p = params.load("y", data_dir="${TCGA}/{task}", results_dir="~/results/{task}")
    assert p.data == folder / "of {this} machine" / "y" and str(p.results) == "/of/somebody/results/y"
    assert p.weights_folder == "/of/somebody/weights" and p.path(p.mpp_table) == p.data / "y_$1.csv"
    assert p.path(p.coords_dir) == folder / "of {this} machine" / "coords"
    assert p.path("params/x.csv") == folder / "params" / "x.csv"
    # What names a result is what was written, not where it lies on this machine.
    assert p.stage("tiles")["coords_dir"] == "$TCGA/coords"


def test_weights_lie_where_the_batch_looks_for_them(written):
    written(BASE)
    p = params.load("y", weights_dir="weights", data_dir="elsewhere")
    assert p.weights_folder == str(p.path(p.weights_dir)) == str(p.data / "weights")
    assert params.load("y").weights_folder == ""


def test_a_cohort_of_matrices_alone_is_told_to_say_that_it_has_genes_only(written):
    written(BASE.replace("inputs: genes\n", ""))
    with pytest.raises(ParameterError, match="only expression_matrix is named: set inputs: genes"):
        params.load("y")


def test_a_file_that_says_it_is_another_task_or_lays_one_over_itself_is_refused(written):
    written(BASE.replace("task: y", "task: other"))
    with pytest.raises(ParameterError, match="task: other is another file's name; write y"):
        params.load("y")
    written(BASE + "overlay: demo\n")
    with pytest.raises(ParameterError, match="overlay: demo names another file"):
        params.load("y")
    written(BASE.removeprefix("task: y\n"))
    assert params.load("y").task == "y"


def test_every_setting_that_names_a_file_is_known_as_one():
    from mmmil import schema

    tells = ("_dir", "_table", "_gmt", "_matrix", "sheets", "manifests", "clinical")
    assert {name for name in params.Params.model_fields if name.endswith(tells)} == set(schema.PATHS)


def test_the_projects_own_yaml_files_are_read_by_the_one_reader():
    root = book_stubs.ROOT
    for path in [*(root / "params").glob("*.yaml"), *(root / "book").glob("*.yml"), root / "_toc.yml"]:
        assert yaml_files.read(path) == yaml.safe_load(path.read_text()), path
    for path in (root / "mmmil").rglob("*.py"):
        assert "safe_load" not in path.read_text() or path.name == "yaml_files.py", path


def test_a_claim_given_twice_in_the_ledger_is_an_error(tmp_path, monkeypatch):
    from mmmil.ledger import claims

    folder = book_stubs.project(tmp_path, tasks=())
    monkeypatch.chdir(folder)
    path = folder / "book" / "claims.yml"
    path.write_text(path.read_text().replace("id: C001,", "id: C001, id: C001,", 1))
    with pytest.raises(claims.LedgerError, match=r"claims\.yml, line \d+: id: stands there twice"):
        claims.load()


@given(st.from_regex(r"[-+]?[0-9][0-9_:.xob]{0,6}", fullmatch=True))
def test_a_plain_number_is_read_as_python_reads_its_digits_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "number.yaml"
    path.write_text(f"n: {text}\nquoted: '{text}'\n")
    try:
        values = yaml_files.read(path)
    except yaml_files.YamlError:
        return
    assert values["quoted"] == text
    assert values["n"] == text or (float(values["n"]) == float(text) and "_" not in text and not text.startswith("0x"))
