"""Which code decides a result, and the two ways to keep a result under the key of code that did not make it."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmmil import record, source_code

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "mmmil").rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def keeps(path):
    return "record.cached(" in path.read_text() and path.name != "record.py"


KEEPING = [name_of(path) for path in FILES if keeps(path)]


def test_comments_and_docstrings_are_not_code():
    plain = source_code.code_digest("def f():\n    return 1\n")
    assert source_code.code_digest('def f():\n    """Say."""\n    return 1  # why\n') == plain
    assert source_code.code_digest("def f():\n    return 2\n") != plain


def test_imports_inside_functions_count_and_those_for_type_checkers_do_not():
    text = """
from typing import TYPE_CHECKING
import numpy
from mmmil.training import fit
if TYPE_CHECKING:
    from mmmil.genes import tokens
else:
    from mmmil.genes import scaling
def f():
    import mmmil.models.clam
    from mmmil.models.mcat import MCAT
"""
    found = ["mmmil.training.fit", "mmmil.genes.scaling", "mmmil.models.clam", "mmmil.models.mcat"]
    assert source_code.imported(text) == found


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A file of notes of its own, and a process that has read none yet."""
    monkeypatch.setattr(source_code.importlib.util, "cache_from_source", lambda _: str(tmp_path / "notes.pyc"))
    begin_anew()
    yield tmp_path / "notes.json"
    monkeypatch.undo()
    begin_anew()


def begin_anew():
    source_code._notes.cache_clear()
    source_code._read_source.cache_clear()


def test_what_was_read_of_a_file_is_found_again_by_the_next_process(notes, monkeypatch):
    before = source_code.digest("mmmil.training.runs"), source_code.modules("mmmil.training.runs")
    begin_anew()
    monkeypatch.setattr(source_code, "code_digest", lambda text: pytest.fail("parsed once more"))
    assert (source_code.digest("mmmil.training.runs"), source_code.modules("mmmil.training.runs")) == before
    assert [path.name for path in notes.parent.iterdir()] == [notes.name]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"read": {}}',
        '{"by": 1, "read": {}}',
        '{"by": "BY", "read": {"a": 1}}',
        '{"by": "BY", "read": []}',
    ],
)
def test_notes_that_are_damaged_or_of_another_reader_are_read_anew(notes, monkeypatch, text):
    before = source_code.digest("mmmil.training.runs")
    notes.write_text(text.replace("BY", json.loads(notes.read_text())["by"]))
    begin_anew()
    assert source_code.digest("mmmil.training.runs") == before
    assert len(json.loads(notes.read_text())["read"]) > 20


def test_where_notes_cannot_be_written_everything_is_read(notes, monkeypatch):
    notes.parent.joinpath("notes").write_text("a file where a folder would have to be")
    monkeypatch.setattr(
        source_code.importlib.util, "cache_from_source", lambda _: str(notes.parent / "notes" / "n.pyc")
    )
    begin_anew()
    assert "mmmil.training.fit" in source_code.modules("mmmil.training.runs")


def test_a_module_that_comes_later_is_found_by_an_import_that_was_read_before(notes, monkeypatch, tmp_path):
    """An import names a module or something in it, and which is told by the files, not by the text."""
    (tmp_path / "wing").mkdir()
    for name, text in {"__init__": "", "a": f"from {source_code.PACKAGE}.wing import b\n"}.items():
        (tmp_path / "wing" / f"{name}.py").write_text(text)
    monkeypatch.setattr(source_code, "ROOT", tmp_path)
    wing = f"{source_code.PACKAGE}.wing"
    assert source_code.modules(f"{wing}.a") == [wing, f"{wing}.a"]
    (tmp_path / "wing" / "b.py").write_text("")
    begin_anew()
    assert source_code.modules(f"{wing}.a") == [f"{wing}.a", f"{wing}.b"]


def test_there_are_modules_that_keep_results():
    assert {"mmmil.slides.tiling", "mmmil.genes.tokens", "mmmil.training.runs"} <= set(KEEPING)


def test_a_key_holds_every_module_that_the_computation_imports():
    """Held against what Python itself has loaded, where a module is imported and nothing else of the package is."""
    computing = [*KEEPING, "mmmil.training.train", "mmmil.simulate.cohort"]
    script = f"""
import importlib, json, sys
loaded = {{}}
for module in {computing!r}:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mmmil"]:
        del sys.modules[name]
    importlib.import_module(module)
    loaded[module] = [name for name in sys.modules if name.startswith("mmmil.")]
print(json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    wings = {name_of(path.parent) for path in FILES if path.name == "__init__.py" and not path.read_text()}
    for module, names in json.loads(done.stdout).items():
        there = set(names) - source_code.GROUND - wings
        assert module in there and there <= set(source_code.modules(module)), module


def test_what_the_ground_says_enters_keys_as_values():
    """No module of the ground imports one that computes, so that leaving it out leaves nothing else out."""
    for module in source_code.GROUND:
        text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert set(source_code.imported(text)) <= source_code.GROUND


@pytest.fixture
def copied(tmp_path):
    """A copy of the package whose files a test may edit."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mmmil", tmp_path / "mmmil", ignore=ignored)
    for name in ("params", "_toc.yml"):
        source = ROOT / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path)

    def run(script, fails=False):
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert bool(done.returncode) is fails, done.stderr
        return done.stderr if fails else done.stdout.strip()

    return tmp_path, run


def test_a_change_of_code_anywhere_behind_a_result_is_another_key(copied):
    folder, run = copied
    script = "from mmmil import source_code; print(source_code.digest('mmmil.training.train'))"
    before = run(script)
    layers = folder / "mmmil/models/attention.py"
    text = layers.read_text()
    layers.write_text(text + "\n# a comment\n")
    assert run(script) == before
    layers.write_text(text + "\nLIMIT = 3\n")
    changed = run(script)
    assert changed != before
    (folder / "mmmil/models/new.py").write_text("LIMIT = 4\n")  # a module that nobody has entered in a list
    layers.write_text(text + "\nLIMIT = 3\ndef later():\n    from mmmil.models.new import LIMIT\n")
    imported = run(script)
    (folder / "mmmil/models/new.py").write_text("LIMIT = 5\n")
    assert len({before, changed, imported, run(script)}) == 4


EDITING = """
import pathlib
from mmmil import record
from mmmil.cohort import split
from mmmil.sources import tables
def keep(n, make=lambda folder: (folder / "x").write_text("x") and None):
    record.cached(pathlib.Path("kept"), {"n": n}, make, split.__name__)
file = pathlib.Path(tables.__file__)
text = file.read_text()
"""


def test_editing_a_module_that_a_kernel_has_loaded_keeps_nothing(copied):
    folder, run = copied
    edits = 'keep(1)\nfile.write_text(text + "# a comment")\nkeep(2)\nfile.write_text(text + "LIMIT = 3")\n'
    refused = run(EDITING + edits + "keep(3)", fails=True).splitlines()[-1]
    assert "mmmil.sources.tables was edited" in refused and "restart the kernel" in refused
    assert len(list((folder / "kept").iterdir())) == 2
    run(EDITING + "keep(3)")  # the kernel was started again
    assert len(list((folder / "kept").iterdir())) == 3


def test_a_module_that_was_edited_and_loaded_again_leaves_old_code_behind(copied):
    """`importlib.reload` gives the module's new code to whoever asks it, not to those that have imported from it."""
    folder, run = copied
    script = (
        EDITING
        + """
import importlib
from mmmil.sources import tables
file = pathlib.Path(tables.__file__)
file.write_text(file.read_text() + "LIMIT = 3")
importlib.reload(tables)
keep(1)
"""
    )
    assert "CohortError was replaced" in run(script, fails=True)
    assert not (folder / "kept").exists()


def test_code_that_is_edited_while_a_result_is_made_keeps_nothing(copied):
    folder, run = copied
    script = EDITING + 'keep(1, lambda folder: file.write_text(text + "LIMIT = 3") and None)'
    assert "was edited" in run(script, fails=True)
    assert list((folder / "kept").iterdir()) == []


REPLACED = {
    "class": ("fusion.MultimodalMIL = Mine", "mmmil.models.fusion.MultimodalMIL"),
    "name that was not there": ("build.MultimodalMIL = Mine", "mmmil.training.build.MultimodalMIL"),
    "name in a wing": ("training.MultimodalMIL = Mine", "mmmil.training.MultimodalMIL"),
    "module": ("training.fit = Mine", "mmmil.training.fit"),
    "function": ("fit.predict = Mine", "mmmil.training.fit.predict"),
    "method": ("fusion.MultimodalMIL.forward = lambda *_: 0", "mmmil.models.fusion.MultimodalMIL.forward"),
    "new method": ("fusion.Encoder.__call__ = lambda *_: 0", "mmmil.models.fusion.Encoder.__call__"),
    "number": ("clam.BAG_WEIGHT = 0.1", "mmmil.models.clam.BAG_WEIGHT"),
    "table": ("backbone.FROZEN['other'] = 0", "mmmil.models.backbone.FROZEN"),
    "library": ("fit.np = Mine", "mmmil.training.fit.np"),
    "maker": ("runs.variant = Mine", "mmmil.training.runs.variant"),
    "study": ("study.Study.bags = Mine", "mmmil.study.Study.bags"),
}


def test_replacing_an_object_of_the_package_keeps_nothing(tmp_path):
    script = f"""
import pathlib
from mmmil import record, source_code, study, training
from mmmil.models import backbone, clam, fusion
from mmmil.training import build, fit, runs, train
class Mine: pass

make = lambda folder: (folder / "x").write_text("x") and None
make.__module__ = runs.__name__
keep = lambda n: record.cached(pathlib.Path("kept"), {{"n": n}}, make, train.__name__)
keep(0)
for n, replacing in enumerate({[replacing for replacing, _ in REPLACED.values()]!r}):
    assert len(list(pathlib.Path("kept").iterdir())) == 1
    owner = eval(replacing.partition(" = ")[0].rpartition("[" if "[" in replacing else ".")[0])
    before = dict(owner) if isinstance(owner, dict) else dict(vars(owner))
    exec(replacing)
    try:
        keep(n + 1)
    except source_code.ChangedCodeError as error:
        print(error)
    if isinstance(owner, dict):
        owner.clear() or owner.update(before)
    else:
        for name in [name for name in vars(owner) if name not in before]:
            delattr(owner, name)
        for name, value in before.items():
            if vars(owner)[name] is not value:
                setattr(owner, name, value)
    keep(0)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused = done.stdout.splitlines()
    assert len(refused) == len(REPLACED)
    for sentence, (_, named) in zip(refused, REPLACED.values(), strict=True):
        assert sentence.startswith(f"{named} was replaced") and "register a class" in sentence
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_result_that_is_there_is_not_handed_out_for_replaced_code(tmp_path, monkeypatch):
    from mmmil.training import fit

    def make(folder):
        (folder / "x").write_text("x")

    record.cached(tmp_path, {}, make, fit.__name__)
    monkeypatch.setattr(fit, "predict", None)
    with pytest.raises(source_code.ChangedCodeError, match=r"fit\.predict was replaced"):
        record.cached(tmp_path, {}, make, fit.__name__)


def test_no_list_of_modules_is_kept_by_hand():
    """Keys come from imports: nothing in the package or the workflow names modules to hash."""
    for path in [*FILES, ROOT / "workflow" / "Snakefile", *(ROOT / "workflow").glob("*.py")]:
        assert "source_digest" not in path.read_text(), path


# -- code of a notebook ------------------------------------------------------------------------------------------
def cells(tmp_path, *texts):
    """Digest of the class Mine of each cell, run in turn as by a kernel: their source is in `linecache`."""
    script = f"""
import linecache
from mmmil import source_code
for number, text in enumerate({texts!r}):
    name = f"<cell {{number}}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"))
    print(source_code.own_digest(Mine))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


MINE = """
import torch
SHARE = 2
def half(x):
    return x / SHARE
class Mine(torch.nn.Module):
    def forward(self, tiles=None, genes=None, mask=None):
        return half(tiles)
"""


def test_the_code_of_a_cell_is_its_class_and_all_that_it_names(tmp_path):
    same = [MINE, MINE.replace("    def forward", '    """Say."""\n    def forward'), MINE + "\nother = 3\n"]
    changed = [MINE.replace("half(tiles)", "half(genes)"), MINE.replace("SHARE = 2", "SHARE = 3")]
    changed += [MINE.replace("x / SHARE", "x * SHARE"), MINE.replace("torch.nn.Module", "torch.nn.Identity")]
    digests = cells(tmp_path, *same, *changed)
    assert len(digests) == 7 and len(set(digests[:3])) == 1 and len(set(digests)) == 5


def test_a_file_of_the_readers_own_that_a_cell_imports_is_part_of_its_code(tmp_path):
    beside = tmp_path / "mine.py"
    digests = []
    for imported, used in (("from mine import half", "half"), ("import mine", "mine.half")):
        text = f"{imported}\nclass Mine:\n    def forward(self, tiles, genes, mask):\n        return {used}(tiles)\n"
        for body in ("x / 2", "x / 2  # a comment", "x / 3"):
            beside.write_text(f"def half(x):\n    return {body}\n")
            digests += cells(tmp_path, text)
    assert digests[0] == digests[1] != digests[2] and digests[3] == digests[4] != digests[5]


def test_a_class_that_was_changed_after_its_definition_is_refused():
    class Mine:
        def forward(self):
            return 1

        def other(self):
            return 2

    before = source_code.own_digest(Mine)
    Mine.forward = lambda self: 3
    with pytest.raises(source_code.ChangedCodeError, match="Mine was changed after it had been defined"):
        source_code.own_digest(Mine)
    assert before


def test_a_class_without_a_source_is_refused():
    space = {"__name__": "nowhere"}
    exec("class Mine:\n    def forward(self): pass", space)
    with pytest.raises(source_code.ChangedCodeError, match="cannot be read"):
        source_code.own_digest(space["Mine"])


def test_the_syntax_tree_of_every_module_is_read():
    for path in FILES:
        ast.parse(path.read_text())
    assert json.dumps(source_code.modules("mmmil.book"))
