"""The executed notebooks: whole ones become pages, failed ones never; the table of contents lists what is there."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mmmil import paper, params, record, variants
from mmmil.book import alternative_texts, api, page_files
from mmmil.settings import yaml_files

EXECUTED = "book/executed"
SYNTHETIC = " (synthetic)"  # after the title of a page of a synthetic cohort
FAILED_LINK = "../../status.html#failed-trainings"  # of `summary.FAILED`, from a page of a task
ASSETS = "../../../_static/"  # book/_static, likewise
DEEPER = re.compile(rf"(.*/)?{EXECUTED}/[^/]+/[^/]+/[^/]+")


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
    """Move an executed notebook to its page, after `check_executed`, with the files that it shows (`page_files`).

    The cells of parameters are folded: the first holds the notebook's own defaults, not what was run. Figures get their
    alternative texts.
    """
    notebook = check_executed(draft)
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "parameters" in tags or "injected-parameters" in tags:
            cell["metadata"]["tags"] = [*tags, "hide-input"]
    alternative_texts.put(notebook)
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    if DEEPER.fullmatch(Path(page).as_posix()):  # a run with an overlay lies one folder deeper
        text = text.replace(FAILED_LINK, f"../{FAILED_LINK}").replace(ASSETS, f"../{ASSETS}")
    text = page_files.publish(text, Path(page))
    record.write_atomically(Path(page), lambda path: path.write_text(text + "\n"))
    Path(draft).unlink()
    return Path(page)


# -- which run of a task the book shows --------------------------------------------------------------------
def page_of(run: str, notebook: str) -> str:
    """Where a run's executed notebook lies, relative to the project's folder."""
    return f"{EXECUTED}/{run}/{notebook}.ipynb"


def runs_of(task: str) -> list[str]:
    """The runs of a task that have executed pages: without an overlay first, then by the overlay's name."""
    folder = params.root() / EXECUTED
    runs = [task, *sorted(path.relative_to(folder).as_posix() for path in folder.glob(f"*/{task}"))]
    return [run for run in runs if any((folder / run).glob("*.ipynb"))]


def shown(runs: Iterable[str] = ()) -> dict[str, str]:
    """Task of `_toc.yml` -> its one run that the book shows, in the book's order; tasks without pages are left out.

    runs: those that the book is made for, which come first. A task of which none is among them is shown as it was run
    without an overlay, and only where it was not, as it was run with one.
    """
    wanted = {run.rpartition("/")[2]: run for run in runs}
    named = dict.fromkeys(task_of(entry["file"]) for entry in entries_of(read_toc()))
    there = {task: runs_of(task) for task in named if task}
    return {task: wanted.get(task, made[0] if made else "") for task, made in there.items() if made or task in wanted}


def shown_of(tasks: Mapping[str, params.Params]) -> dict[str, str]:
    """The same of tasks with their parameters."""
    return {task: p.run for task, p in tasks.items()}


def not_shown(tasks: Mapping[str, params.Params]) -> list[str]:
    """Runs of these tasks that have executed pages, too, and no place in this book."""
    return [run for task, p in tasks.items() for run in runs_of(task) if run != p.run]


def entry_of(page: str) -> str:
    """The entry of `_toc.yml` that stands for an executed notebook, whichever run of its task made it."""
    path = Path(page)
    return f"{EXECUTED}/{path.parent.name}/{path.stem}"


def _place(file: str, runs: Mapping[str, str]) -> str:
    """Where the page of an entry of `_toc.yml` lies, without its suffix: '' of a task that is not shown."""
    run = runs.get(task_of(file), "")
    return page_of(run, Path(file).name).removesuffix(".ipynb") if run else ""


def executed_pages(runs: Mapping[str, str]) -> list[Path]:
    """Executed notebooks that `_toc.yml` has a place for: relative to the project's folder, in its order.

    runs: task -> the run that is shown, as `shown` tells it.
    """
    places = [_place(entry["file"], runs) for entry in entries_of(read_toc())]
    return [Path(f"{place}.ipynb") for place in places if place and (params.root() / f"{place}.ipynb").is_file()]


def summary_tables(runs: Mapping[str, str]) -> list[Path]:
    """Tables of results that exist for tasks with executed pages, relative to the project's folder."""
    have = {page.parent.relative_to(EXECUTED).as_posix() for page in executed_pages(runs)}
    names = [
        Path("results") / run / f"{name}.csv"
        for run in sorted(have)
        for name in (
            "tiles",
            "quality",
            "genes",
            "leakage",
            "metrics",
            "comparisons",
            "confounded",
            "attention",
            "audits",
        )
    ]
    return [path for path in names if (params.root() / path).is_file()]


def sections_of(p: params.Params) -> list[paper.Section]:
    """The sections executed for a task, in the paper's order: those that `notebooks` names, or all its inputs allow.

    Raises ParameterError for a notebook that the paper's map does not know.
    """
    unknown = [name for name in p.notebooks if name not in paper.SECTIONS]
    if unknown:
        near = difflib.get_close_matches(unknown[0], paper.SECTIONS, n=1)
        meant = f"did you mean '{near[0]}'? " if near else ""
        raise params.ParameterError(
            f"notebooks: no such notebook: {', '.join(unknown)} (task {p.task}); {meant}there are "
            f"{', '.join(paper.SECTIONS)}"
        )
    sections = paper.SECTIONS.values()
    return [s for s in sections if (s.notebook in p.notebooks if p.notebooks else p.inputs in s.needs)]


def require_possible(p: params.Params) -> None:
    """What a task's notebooks cannot do without, told now rather than after all the training.

    Raises ParameterError as `sections_of` does, for a notebook that the task's inputs do not allow, and for one whose
    model is none of the task's variants.
    """
    for section in sections_of(p):
        if p.inputs not in section.needs:
            raise params.ParameterError(
                f"notebooks: {section.notebook} (task {p.task}) cannot be made with inputs: {p.inputs}; "
                "leave the notebook out of `notebooks`"
            )
        model = section.needs[p.inputs]
        if model and model not in variants.variants(p):
            raise params.ParameterError(
                f"notebooks: {section.notebook} (task {p.task}) needs the variant {model}: "
                "train it, or leave the notebook out of `notebooks`"
            )


def executed_tasks(runs: Iterable[str] = ()) -> dict[str, params.Params]:
    """Tasks with executed pages, in the book's order, with the parameters these pages were made with.

    runs: see `shown`. Raises PageError for a page of another run than that of its folder, made before runs lay apart.
    """
    tasks: dict[str, params.Params] = {}
    for page in executed_pages(shown(runs)):
        run = page.parent.relative_to(EXECUTED).as_posix()
        task = run.rpartition("/")[2]
        if task not in tasks:
            metadata = check_executed(params.root() / page)["metadata"]["papermill"]
            p = params.check(metadata["parameters"])
            if p.run != run:
                raise PageError(
                    f"{page} was made by the run {p.run}, whose pages lie in {EXECUTED}/{p.run} now: remove "
                    f"{page.parent}, and make them again"
                )
            tasks[task] = p
    return tasks


# -- the table of contents -----------------------------------------------------------------------------------
def write_toc(runs: Iterable[str]) -> Path:
    """Write `_build/toc.yml`: `_toc.yml` with the pages of the runs that are shown (`shown`), less those not made.

    The pages of the API reference are written beside it, and what pages show beside their text is gathered.

    Raises PageError naming every page of these runs that is missing, and every notebook that failed.
    """
    runs, book = list(runs), read_toc()
    tasks, places = executed_tasks(runs), shown(runs)
    have = {page.with_suffix("").as_posix() for page in executed_pages(places)}
    named = {_place(entry["file"], places) for entry in entries_of(book)} - {""}
    of_runs = [(run, tasks.get(run.rpartition("/")[2])) for run in runs]
    wanted = {page_of(run, name).removesuffix(".ipynb") for run, p in of_runs for name in _notebooks(run, p)}
    faults = [f"  {page}: in no part of _toc.yml" for page in sorted(wanted - named)]
    faults += [f"  {page}.ipynb: not there" for page in sorted(wanted & named - have)]
    if faults:
        raise PageError("pages of this run are missing:\n" + "\n".join(faults))
    for page in sorted(have):
        check_executed(params.root() / f"{page}.ipynb")

    def keep(entries: list[dict]) -> list[dict]:
        kept = [entry for entry in entries if not task_of(entry["file"]) or _place(entry["file"], places) in have]
        for entry in kept:
            if task := task_of(entry["file"]):
                entry["file"] = _place(entry["file"], places)
                if "title" in entry:  # else it is the page's own
                    entry["title"] += SYNTHETIC * tasks[task].synthetic
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
    page_files.gather(executed_pages(places))
    text = yaml.safe_dump(book, sort_keys=False, allow_unicode=True)
    return record.write_atomically(params.root() / "_build" / "toc.yml", lambda path: path.write_text(text))


def _notebooks(run: str, p: params.Params | None) -> list[str]:
    overlay, _, task = run.rpartition("/")
    return [section.notebook for section in sections_of(p or params.load(task, overlay))]


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
    """The task of an entry of `_toc.yml`, '' where it is no executed notebook."""
    match = re.fullmatch(rf"{EXECUTED}/([^/]+)/[^/]+", file)
    return match.group(1) if match else ""
