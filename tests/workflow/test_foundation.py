"""What a fresh clone stands on: the environment's files, clean notebooks, no path of a machine, one run at a time."""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from mmmil import paper
from tests import book_stubs

ROOT = book_stubs.ROOT
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PRESCRIBED = "histolab openslide-python pydeseq2 gseapy torch timm jupyter-book papermill snakemake nystrom-attention"
TEXT = {".py", ".md", ".yml", ".yaml", ".toml", ".ipynb", ".cff", ".bib", ".cfg", ""}


@pytest.fixture(scope="module")
def launcher():
    spec = importlib.util.spec_from_file_location("run", ROOT / "workflow" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_conda_gives_python_pip_and_uv_and_no_other_version():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["dependencies"] == ["python=3.12", "pip", "uv"]


def test_the_lock_names_every_package_with_hashes_and_no_address():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock and "--index" not in lock
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)
    assert set(PRESCRIBED.split()) <= set(pins)
    assert len(re.findall(r"^\S+==[^\n]*\\\n    --hash=sha256:", lock, re.MULTILINE)) == len(pins) > 150
    assert re.search(r"^jupyter-book==1\.", lock, re.MULTILINE)
    assert not (ROOT / "uv.lock").exists() and not (ROOT / ".python-version").exists()


def test_the_book_is_jupyter_book_one_and_executes_nothing():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off" and config["only_build_toc_files"]
    assert {".venv/**", "**/.snakemake/**", "_build"} <= set(config["exclude_patterns"])
    assert config["copyright"] and not config["launch_buttons"]["thebe"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stripped_and_only_call_the_package(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert {"task", "overlay"} <= set(re.findall(r"^(\w+) *=", "".join(tagged[0]["source"]), re.MULTILINE))
    own = [cell for cell in code if "own-aggregator" in cell["metadata"].get("tags", [])]
    assert len(own) == (path.stem == "00_method")  # the one place for a class: a reader's own model
    for cell in code:
        defined = re.findall(r"^([ \t]*)(def|class|async def)\s", "".join(cell["source"]), re.MULTILINE)
        assert [kind for indent, kind in defined if not indent] == ["class"] * (cell in own)
        assert cell in own or not defined
    for cell in notebook["cells"]:  # three executed copies of one label would collide
        if cell["cell_type"] == "markdown":
            assert not re.search(r"^\([\w-]+\)=|:name:|:label:", "".join(cell["source"]), re.MULTILINE)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_name_that_a_notebook_takes_from_the_package_is_there(path):
    """Also those in branches that the demo never enters: what moved is found without running the notebook."""
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells))
    named = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "mmmil":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = importlib.util.find_spec(node.module).submodule_search_locations and (
                    importlib.util.find_spec(whole) is not None
                )
                found = importlib.import_module(whole) if is_module else None
                named[alias.asname or alias.name] = found or getattr(importlib.import_module(node.module), alias.name)
    assert named
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and inspect.ismodule(named.get(node.value.id))
        ):
            assert hasattr(named[node.value.id], node.attr), f"{node.value.id}.{node.attr}"
        if isinstance(node, ast.Call):
            called = (
                node.func.value.id
                if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
                else ""
            )
            function = getattr(named[called], node.func.attr) if inspect.ismodule(named.get(called)) else None
            if (
                function
                and not any(isinstance(a, ast.Starred) for a in node.args)
                and all(k.arg for k in node.keywords)
            ):
                inspect.signature(function).bind(*node.args, **{k.arg: k for k in node.keywords})


def test_nothing_that_a_tool_left_is_in_the_repository():
    """What .gitignore names is not tracked all the same, and what is large is one of the book's own scripts."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    large = [name for name in tracked if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 500_000]
    assert listed.stdout == "" and large == ["book/_static/mathjax/tex-mml-chtml.js"]


def test_no_path_of_a_machine_in_the_repository():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    homes = re.compile(r"/(?:home|Users|root|work|tmp)/\w|[A-Z]:\\\\Users")
    shared = "../" + "shared"
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix not in TEXT or name.startswith("book/_static") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        assert not homes.search(text), f"{name}: {homes.search(text).group()}"
        assert shared not in text or name == "mmmil/settings/task_files.py", name


def test_make_targets_and_test_command():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("book", "test", "test-slurm", "real", "lab", "clean", "lock", "lint"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert re.search(rf"^TASKS +\?= {' '.join(paper.TASKS)}$", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_hooks_fetch_nothing():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]


def test_one_run_at_a_time(launcher, tmp_path):
    with launcher.alone(tmp_path), pytest.raises(launcher.RunError, match=f"process {os.getpid()}"):
        launcher.alone(tmp_path).__enter__()
    with launcher.alone(tmp_path):
        pass


def test_a_job_that_outlived_its_run_is_waited_for(launcher, tmp_path):
    environment = {**launcher.environment(), launcher.RUN: str(tmp_path)}
    job = subprocess.Popen(
        [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"],
        env=environment,
        stdout=subprocess.PIPE,
    )
    job.stdout.read(1)
    with pytest.raises(launcher.RunError, match=f"still work.*{job.pid}"):
        launcher.alone(tmp_path, patience=0.2, step=0.1).__enter__()
    job.kill()
    job.wait()
    with launcher.alone(tmp_path, patience=5, step=0.1):
        pass


def test_a_wrong_parameter_stops_before_any_work(launcher, capsys):
    assert launcher.main(["--tasks", "no_such_task"]) == 2
    assert "no_such_task.yaml does not exist" in capsys.readouterr().err


def test_results_of_before_runs_lay_apart_stop_a_run_before_any_work(launcher, capsys, monkeypatch, tmp_path):
    load = launcher.plan.params.load
    p = load("lgg", "demo", results_dir=str(tmp_path))
    (tmp_path / "metrics.csv").write_text("variant,mean\nwsi,0.7\n")
    monkeypatch.setattr(launcher.plan, "load", lambda *_: {"lgg": launcher.plan.Steps(p)})
    monkeypatch.setattr(launcher, "alone", lambda *_: pytest.fail("it went on"))
    assert launcher.main(["--tasks", "lgg"]) == 2
    told = capsys.readouterr().err
    assert "metrics.csv is of a cohort that it does not name" in told and "results/<overlay>/lgg" in told


def test_a_run_says_what_it_makes_and_where_to_look(launcher):
    steps = launcher.plan.load(["lgg"], "demo")
    trainings = len(launcher.receipts.trainings(steps["lgg"].p))
    told = launcher.announced(steps)
    assert told.startswith(f"11 pages on {trainings} trainings (demo/lgg)") and "logs/<run>/" in told


def test_options_that_only_tell_start_no_work(launcher):
    told = ["-n", "-np", "--dry-run", "--dryrun", "--unlock", "--touch", "-t", "--summary", "--dag", "--lint", "-l"]
    assert all(launcher.LISTS.match(option) for option in told)
    assert not any(launcher.LISTS.match(option) for option in ["-p", "--forceall", "--jobs", "-j", "results/lgg/x.csv"])


@pytest.mark.parametrize("shards", [1, 3])
def test_the_workflow_plans_every_step_of_a_task(launcher, shards):
    lots = launcher.plan.load(["lgg"], "demo")["lgg"].lots
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--cores", "1", "--nolock"),
            *("--forceall", "--dry-run", "--quiet", "rules", "--config", "tasks=lgg", "overlay=demo"),
            f"shards={shards}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE))
    assert counts["cohort"] == counts["tiles"] == counts["genes"] == counts["record"] == counts["book"] == "1"
    steps = 2 + int(counts["features"])  # of tiles, quality and each encoder's features a job per shard
    assert int(counts.get("shard", 0)) == (0 if shards == 1 else shards * steps)
    assert int(counts["notebook"]) == 11 and int(counts["train"]) == len(lots)


@pytest.mark.parametrize("text", [None, "", '{"results/lgg/tiles.csv": "ab', "[]"])
def test_what_an_interrupted_run_left_of_its_notes_is_no_error(launcher, tmp_path, monkeypatch, text):
    monkeypatch.setattr(launcher, "TILED", tmp_path / "tiled.json")
    if text is not None:
        (tmp_path / "tiled.json").write_text(text)
    assert launcher.tiled() == {}


INTERRUPTED = """
import signal, sys; sys.path.insert(0, "workflow")
import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what is started with `&`
tidies = "import signal, time; from pathlib import Path\\ntry: Path(r'{0}/up').touch(); signal.pause()\\n"
tidies += "except KeyboardInterrupt: time.sleep(1); Path(r'{0}/tidied').touch()"
run.snakemake([sys.executable, "-c", tidies], run.environment())
"""


def test_an_interrupted_run_waits_until_snakemake_has_cancelled_its_jobs(tmp_path):
    call = [sys.executable, "-c", INTERRUPTED.format(tmp_path)]
    run = subprocess.Popen(call, cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not (tmp_path / "up").exists():
            assert run.poll() is None, run.stderr.read().decode()
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait() != 0 and (tmp_path / "tidied").exists()
    finally:
        run.kill()
