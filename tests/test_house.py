"""The house stands as README and pyproject.toml say: imports go down, and everything lies in its room."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mmmil"
WINGS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
INITS = sorted(PACKAGE.rglob("__init__.py"))


def test_imports_go_down_the_house():
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_few_files_lie_beside_the_wings():
    ground = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert len(ground) <= 10, ground


@pytest.mark.parametrize("folder", ["mmmil", "workflow"])
def test_no_module_has_the_name_of_one_of_the_standard_library(folder):
    modules = {path.stem for path in (ROOT / folder).rglob("*.py")} | (WINGS if folder == "mmmil" else set())
    assert modules and not (modules - {"__main__"}) & sys.stdlib_module_names


@pytest.mark.parametrize("init", INITS, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_init_holds_no_code(init):
    """The package's own holds its version and has loaded modules noted; that of plots lists what notebooks call."""
    text = init.read_text()
    if init.parent == PACKAGE:
        assert [type(node) for node in ast.parse(text).body] == [ast.Expr, ast.ImportFrom, ast.Assign]
        assert "__version__" in text and "import source_code as source_code" in text
    elif init.parent.name == "plots":
        assert {type(node) for node in ast.parse(text).body} == {ast.Expr, ast.ImportFrom}
    else:
        assert text == ""


def test_tests_mirror_the_wings():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders - WINGS <= {"benchmarks", "browser", "container", "slurm", "workflow"}
    beside = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    ground = {path.stem for path in PACKAGE.glob("*.py")}
    assert beside - ground <= {"cli", "house"}
