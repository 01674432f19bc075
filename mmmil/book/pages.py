"""The executed notebooks: whole ones become pages, failed ones never; the table of contents lists what is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mmmil import paper, params, record
from mmmil.book import api
from mmmil.settings import yaml_files


class PageError(ValueError):
    """A page is missing, or a notebook failed, or a table of results is not what it should be."""


def check_executed(path: Path | str) -> dict[str, Any]:
    """The executed notebook's content.

    Raises PageError where papermill recorded an exception, a cell failed or a code cell was not run.
    """
    path = Path(path)
    try:
        notebook = json.loads(path.read_text())
        cells = notebook["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise PageError(f"{path} is not a readable notebook: {error!r}") from None
    about = notebook.get("metadata", {}).get("papermill")
    if not about:
        raise PageError(f"{path} was not executed by papermill")
    if about.get("exception"):
        raise PageError(f"{path} failed: papermill recorded an exception")
    for number, cell in enumerate(cells, start=1):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "".join(data.get("text/plain", "")).startswith("<Figure") and "image/png" not in data:
                raise PageError(f"{path}: the figure of cell {number} was not drawn; unset MPLBACKEND and run it again")
            if output.get("output_type") == "error":
                raise PageError(f"{path} failed in cell {number}: {output.get('ename')}: {output.get('evalue')}")
        if cell["cell_type"] == "code" and "".join(cell["source"]).strip() and cell.get("execution_count") is None:
            raise PageError(f"{path}: cell {number} was not run")
    return notebook


def publish(draft: Path | str, page: Path | str) -> Path:
    """Move an executed notebook to its page, after `check_executed`.

    The cells of parameters are folded: the first holds the notebook's own defaults, not what was run.
    """
    notebook = check_executed(draft)
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "parameters" in tags or "injected-parameters" in tags:
            cell["metadata"]["tags"] = [*tags, "hide-input"]
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    record.write_atomically(Path(page), lambda path: path.write_text(text + "\n"))
    Path(draft).unlink()
    return Path(page)


def executed_pages() -> list[Path]:
    """Executed notebooks that `_toc.yml` names and that exist: relative to the project's folder, in its order."""
    named = [Path(f"{entry['file']}.ipynb") for entry in entries_of(read_toc()) if task_of(entry["file"])]
    return [path for path in named if (params.root() / path).is_file()]


def summary_tables() -> list[Path]:
    """Tables of results that exist for tasks with executed pages, relative to the project's folder."""
    tasks = {task_of(page.with_suffix("").as_posix()) for page in executed_pages()}
    names = [
        Path("results") / task / f"{name}.csv"
        for task in sorted(tasks)
        for name in ("tiles", "quality", "genes", "leakage", "metrics", "comparisons", "attention")
    ]
    return [path for path in names if (params.root() / path).is_file()]


def sections_of(p: params.Params) -> list[paper.Section]:
    """The sections executed for a task, in the paper's order: those that `notebooks` names, or all its inputs allow.

    Raises ParameterError for a notebook that the paper's map does not know.
    """
    unknown = [name for name in p.notebooks if name not in paper.SECTIONS]
    if unknown:
        raise params.ParameterError(
            f"notebooks: no such notebook: {', '.join(unknown)} (task {p.task}); there are {', '.join(paper.SECTIONS)}"
        )
    sections = paper.SECTIONS.values()
    return [s for s in sections if (s.notebook in p.notebooks if p.notebooks else p.inputs in s.needs)]


def executed_tasks() -> dict[str, params.Params]:
    """Tasks with executed pages, in the book's order, with the parameters these pages were made with."""
    tasks: dict[str, params.Params] = {}
    for page in executed_pages():
        task = task_of(page.with_suffix("").as_posix())
        if task not in tasks:
            metadata = check_executed(params.root() / page)["metadata"]["papermill"]
            tasks[task] = params.check(metadata["parameters"])
    return tasks


# -- the table of contents -----------------------------------------------------------------------------------
def write_toc(tasks: Iterable[str]) -> Path:
    """Write `_build/toc.yml`: `_toc.yml` without the pages that other tasks than these have not made.

    The pages of the API reference are written beside it.

    Raises PageError naming every page of these tasks that is missing, and every notebook that failed.
    """
    tasks, book = list(tasks), read_toc()
    have = {page.with_suffix("").as_posix() for page in executed_pages()}
    named = {entry["file"] for entry in entries_of(book)}
    wanted = {f"book/executed/{task}/{name}" for task in tasks for name in _notebooks(task)}
    faults = [f"  {page}: in no part of _toc.yml" for page in sorted(wanted - named)]
    faults += [f"  {page}.ipynb: not there" for page in sorted(wanted & named - have)]
    if faults:
        raise PageError("pages of this run are missing:\n" + "\n".join(faults))
    for page in sorted(have):
        check_executed(params.root() / f"{page}.ipynb")

    def keep(entries: list[dict]) -> list[dict]:
        kept = [entry for entry in entries if not task_of(entry["file"]) or entry["file"] in have]
        for entry in kept:
            if "sections" in entry:
                entry["sections"] = keep(entry["sections"])
                if not entry["sections"]:
                    del entry["sections"]
        return kept

    for part in book["parts"]:
        part["chapters"] = keep(part["chapters"])
    for entry in entries_of(book):
        if entry["file"] == api.INDEX:
            entry["sections"] = [{"file": page} for page in api.write()]
    text = yaml.safe_dump(book, sort_keys=False, allow_unicode=True)
    return record.write_atomically(params.root() / "_build" / "toc.yml", lambda path: path.write_text(text))


def _notebooks(task: str) -> list[str]:
    p = executed_tasks().get(task)
    return [section.notebook for section in sections_of(p or params.check({**params.read_yaml(task), "task": task}))]


def read_toc() -> dict[str, Any]:
    return yaml_files.read(params.root() / "_toc.yml")


def entries_of(node: Any) -> Iterable[dict]:
    if isinstance(node, list):
        for item in node:
            yield from entries_of(item)
    elif isinstance(node, dict):
        if "file" in node:
            yield node
        for item in node.values():
            yield from entries_of(item)


def task_of(file: str) -> str:
    match = re.fullmatch(r"book/executed/([^/]+)/[^/]+", file)
    return match.group(1) if match else ""
