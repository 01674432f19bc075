"""The parameters cell of a running kernel: changed and run again any number of times, misspelt, injected over."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell

from mmmil import params
from mmmil.params import ParameterError
from mmmil.settings import cells
from tests import book_stubs

ROOT = book_stubs.ROOT
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OWN = 'task = "lgg"\noverlay = "demo"\n'
EPOCHS = params.load("lgg", "demo").epochs
ASK = "from mmmil import params\np = params.effective(globals())\n"


@pytest.fixture
def shell(monkeypatch):
    """A function that runs a cell as a kernel does and returns the parameters then; errors are raised."""
    monkeypatch.setattr(params.Params, "require_files", lambda self: self)
    InteractiveShell.clear_instance()
    ipython = InteractiveShell.instance()

    def run(*texts):
        for text in texts:
            ipython.run_cell(text, store_history=True, silent=False).raise_error()
        return ipython.user_ns.get("p")

    run.names = ipython.user_ns
    yield run
    InteractiveShell.clear_instance()


def test_case_17_a_misspelt_name_is_an_error_every_time_until_it_is_corrected(shell):
    assert shell(OWN, ASK).epochs == EPOCHS
    shell(OWN + "epcohs = 20\n")
    for _ in range(2):
        with pytest.raises(ParameterError, match="unknown parameter 'epcohs'; did you mean 'epochs'"):
            shell(ASK)
    assert shell(OWN + "epochs = 20\n", ASK).epochs == 20
    assert "epcohs" not in shell.names


def test_case_17_a_misspelt_name_of_the_first_run_goes_away_too(shell):
    with pytest.raises(ParameterError, match="epcohs"):
        shell(OWN + "epcohs = 20\n", ASK)
    assert shell(OWN, ASK).epochs == EPOCHS


def test_a_line_taken_out_of_the_cell_goes_back_to_its_default(shell):
    assert shell(OWN + "epochs = 20\nseed = 3\n", ASK).epochs == 20
    p = shell(OWN + "seed = 3\n", ASK)
    assert (p.epochs, p.seed) == (EPOCHS, 3)
    assert shell('task = "lgg"\n', ASK).overlay == ""


def test_a_parameter_set_in_another_cell_counts_and_other_names_do_not_matter_later(shell):
    p = shell("seed = 5\n", OWN + "epochs = 20\n", "epochs = 21\nfolder = '/tmp'\ndel folder\n", ASK)
    assert (p.epochs, p.seed) == (21, 5)
    assert shell(OWN, "names = ['wsi']\ntable = 1\n", ASK).epochs == 21  # who set it last is no parameters cell


def test_a_misspelt_name_of_another_cell_says_how_to_be_rid_of_it(shell):
    with pytest.raises(ParameterError, match="stays there until: del epcohs"):
        shell(OWN, "epcohs = 20\n", ASK)
    assert shell("del epcohs\n", ASK).epochs == EPOCHS


def test_everything_in_one_cell_can_be_run_again(shell):
    one = OWN + "epochs = {}\n" + ASK + "names = [p.task]\nfor row in names: pass\n"
    assert [shell(one.format(n)).epochs for n in (2, 3)] == [2, 3]
    with pytest.raises(ParameterError, match="epcohs"):
        shell(one.format(4).replace("epochs", "epcohs"))


def test_papermills_task_lays_nothing_over_it_unless_it_says_so(shell):
    p = shell(OWN, "# Parameters\n" + 'task = "nsclc"\nepochs = 3\n', ASK)
    assert (p.task, p.overlay, p.epochs, p.synthetic) == ("nsclc", "", 3, False)
    # The notebook's own cell is run again after it: its task, and nothing of the other one's.
    p = shell(OWN, ASK)
    assert (p.task, p.overlay, p.epochs) == ("lgg", "demo", EPOCHS)


def test_papermills_overlay_and_single_values_count(shell):
    p = shell(OWN + "seed = 4\n", '# Parameters\ntask = "nsclc"\noverlay = "demo"\n', ASK)
    assert (p.task, p.overlay, p.seed) == ("nsclc", "demo", 4)


def test_papermills_single_values_lie_over_the_notebooks_own_task(shell):
    p = shell(OWN, "# Parameters\nepochs = 3\n", ASK)
    assert (p.task, p.overlay, p.epochs) == ("lgg", "demo", 3)
    assert shell(OWN + "seed = 2\n", ASK).epochs == 3  # its cell still stands there
    assert shell("# Parameters\nseed = 1\n", ASK).epochs == EPOCHS
    shell("# Parameters\nsede = 1\n")
    with pytest.raises(ParameterError, match="sede"):
        shell(ASK)


def test_a_parameters_name_taken_by_a_module_is_an_error(shell):
    with pytest.raises(ParameterError, match=r"variants: is a parameter, and here a module; import .* another name"):
        shell(OWN + 'variants = ["go"]\n', "from mmmil import variants\n", ASK)


def test_a_switch_is_no_parameter_and_has_to_be_set(shell):
    ask = 'from mmmil import params\np = params.effective(globals(), "train")\n'
    with pytest.raises(ParameterError, match="add the line train = False"):
        shell(OWN, ask)
    with pytest.raises(ParameterError, match="train` to True or False"):
        shell(OWN + 'train = "yes"\n', ask)
    assert shell(OWN + "train = True\n", ask).task == "lgg" and shell.names["train"] is True
    with pytest.raises(ParameterError, match="unknown parameter 'train'"):  # a notebook that trains nothing
        shell(ASK)
    assert shell('# Parameters\ntask = "nsclc"\n', ask).task == "nsclc" and shell.names["train"] is True


def test_case_17_a_file_given_to_papermill_is_that_files_task_and_nothing_laid_over_it(tmp_path):
    papermill, nbformat = pytest.importorskip("papermill"), pytest.importorskip("nbformat")
    own = nbformat.v4.new_code_cell(OWN, metadata={"tags": ["parameters"]})
    stub = "from mmmil import params\nparams.Params.require_files = lambda self: self\n"
    ask = stub + ASK + "print(p.overlay, p.seed)"
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[own, nbformat.v4.new_code_cell(ask)], metadata=metadata)
    nbformat.write(notebook, tmp_path / "in.ipynb")
    files = {name: params.read_yaml(name) for name in ("nsclc", "demo")}
    del files["nsclc"]["overlay"]  # as in a file of one's own
    for given, told in ((files["nsclc"] | {"seed": 7}, " 7"), (files["nsclc"] | files["demo"], "demo 0")):
        executed = papermill.execute_notebook(
            tmp_path / "in.ipynb", tmp_path / "out.ipynb", given, cwd=ROOT, progress_bar=False
        )
        assert executed.cells[-1].outputs[0].text.rstrip("\n") == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("task: mine\nclass_names: [a, b]\ndata_dir: nowhere\n", "there is no params/mine.yaml; copy the file there"),
        ("class_names: [a, b]\ndata_dir: nowhere\n", "names no task, so it would be laid over the notebook's own"),
        ("task: mine\ndata_dir: nowhere\n", "mine.yaml does not exist; there are "),
    ],
)
def test_case_18_a_file_from_elsewhere_is_never_the_demos(tmp_path, text, told):
    """papermill's own command on a notebook of the project, in the project's folder, as its pages tell it."""
    (tmp_path / "mine.yaml").write_text(text)
    call = [sys.executable, "workflow/execute.py", "notebooks/01_dataset.ipynb", tmp_path / "out.ipynb"]
    done = subprocess.run(
        [*call, "-f", tmp_path / "mine.yaml", "--no-progress-bar"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode and told in done.stderr.replace("\n", " ")
    assert "Synthetic cohort" not in (tmp_path / "out.ipynb").read_text()


def test_without_a_list_of_cells_a_script_is_read_as_it_is(monkeypatch):
    monkeypatch.setattr(params.Params, "require_files", lambda self: self)
    namespace = {"task": "lgg", "overlay": "demo", "epochs": 2, "params": params}
    assert params.effective(namespace).epochs == 2
    with pytest.raises(ParameterError, match="epcohs"):
        params.effective(namespace | {"epcohs": 2})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a, (b, *c) = x\nd: int = 1\ne += 1\nf[0] = g.h = 1", "abcde"),
        ("for a in x:\n    with y as b, z as (c, d):\n        e = 1\nelse:\n    f = 1", "abcdef"),
        ("import a.x, y as b\nfrom z import c, w as d", "abcd"),
        ("[a for a in x if (b := a)]\n{c: d for c, d in x}\nlambda e: (f := e)", "b"),
        ("def a(b):\n    c = 1\nclass d:\n    e = 1", "ad"),
        ("try:\n    a = 1\nexcept E as e:\n    b = 2\nfinally:\n    c = 3\nwhile (d := f()):\n    pass", "abcd"),
        ("match x:\n    case [a, *b]:\n        pass\n    case {1: c}:\n        pass", "abc"),
    ],
)
def test_the_names_that_code_sets(text, names):
    assert cells.bound(ast.parse(text).body) == set(names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_case_17_no_notebook_uses_a_parameters_name_for_something_else(path):
    kept = set(params.Params.model_fields) | {"train"}
    for cell in json.loads(path.read_text())["cells"]:
        text = re.sub(r"^\s*[%!].*$", "", "".join(cell["source"]), flags=re.MULTILINE)
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] == "code" and "parameters" not in tags:
            assert not cells.bound(ast.parse(text).body) & kept, cell["id"]
        elif cell["cell_type"] == "code":
            assert cells.bound(ast.parse(text).body) <= kept


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_that_reads_trainings_says_whether_it_makes_them(path):
    code = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    reads = bool(re.search(r"\bruns\b|mmmil\.interpretation", "\n".join(code)))
    assert ("train = False  # True: make here what is missing" in "\n".join(code)) == reads
    assert ("study.load(p, train=train)" in "\n".join(code)) == reads
    assert ('params.effective(globals(), "train")' in "\n".join(code)) == reads


def injected(*files, **values):
    """Papermill's cell for `-f` of some files of params/, then `-p` of single values."""
    given = {name: value for file in files for name, value in params.read_yaml(file).items()} | values
    return "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in given.items())]) + "\n"


def test_an_overlay_lies_over_a_file_given_to_papermill_however_it_is_named(shell):
    wanted = params.load("lgg", "demo")
    assert shell(OWN, injected("lgg", "demo"), ASK) == wanted
    assert shell(OWN, injected("lgg", overlay="demo"), ASK) == wanted
    assert shell(OWN, injected("lgg", "demo", epochs=3), ASK) == wanted.override(epochs=3)
    assert shell(OWN, injected("lgg", epochs=3), ASK) == params.load("lgg", epochs=3)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (injected("lgg").replace("task = 'lgg'\n", ""), "names no task, so it would be laid over the notebook's own"),
        (injected("lgg").replace("sample_sheets", "manifests"), r"not params/lgg.yaml, which has sample_sheets"),
        (injected("demo", "lgg"), "synthetic: .*give the task's first: -f params/lgg.yaml -f params/demo.yaml"),
        (injected("demo", "lgg", overlay="demo"), "data_dir: .*-f params/lgg.yaml -f params/demo.yaml"),
        (injected("lgg", task="elsewhere"), "there is no params/elsewhere.yaml; copy the file there"),
        (injected("lgg", overlay="nsclc"), "is a task's file .* cannot be laid over lgg"),
        (injected("demo", task="demo"), "params/demo.yaml is an overlay"),
    ],
)
def test_a_file_that_papermill_takes_for_another_is_an_error(shell, cell, told):
    with pytest.raises(ParameterError, match=told):
        shell(OWN, cell, ASK)


def test_a_misspelt_name_is_seen_in_a_cell_without_task_and_under_a_magic(shell):
    shell(OWN, ASK)
    with pytest.raises(ParameterError, match=r"'epcohs'; did you mean 'epochs'.*\n.*until: del epcohs"):
        shell("seed = 1\nepcohs = 20\n", ASK)
    with pytest.raises(ParameterError, match="'treshold'; did you mean 'threshold'"):
        shell("del epcohs", "treshold = 0.4\n", ASK)
    shell("del treshold", "seeds = [1, 2]\nvariant = 'go'\n", "k = 3\n", ASK)  # nothing that a parameter could be
    with pytest.raises(ParameterError, match="'epcohs'; did you mean 'epochs'"):
        shell("%%time\n" + OWN + "epcohs = 20\n", ASK)
    assert shell("%%capture\n" + OWN + "epochs = 2\n", ASK).epochs == 2
    assert shell("%%time\n" + OWN, ASK).epochs == EPOCHS


def test_an_overlay_in_a_cell_of_its_own_counts_wherever_it_stands(shell):
    assert shell('overlay = "demo"\n', 'task = "lgg"\n', ASK).overlay == "demo"


def test_functions_that_a_notebook_imports_are_no_parameters(shell):
    own = "from math import sqrt\nfrom functools import partial\nhalf = partial(sqrt)\n"
    assert shell(own, OWN, ASK).epochs == EPOCHS


def test_a_misspelt_switch_is_named(shell):
    ask = ASK.replace("globals()", 'globals(), "train"')
    with pytest.raises(ParameterError, match="True or False; correct trian"):
        shell(OWN + "trian = True\n", ask)
    with pytest.raises(ParameterError, match="'Train'; did you mean 'train'"):
        shell("del trian\n", OWN + "train = False\nTrain = True\n", ask)
    with pytest.raises(ParameterError, match="True or False; here it is 'True'"):  # papermill -r
        shell("del Train\n", "# Parameters\ntrain = 'True'\n", ask)
