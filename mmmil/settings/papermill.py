"""Values that papermill puts into a notebook: which of them come from the task's own file."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mmmil.settings import task_files
from mmmil.settings.task_files import ParameterError


def without_files(task: str, overlay: str, given: dict[str, Any], injected: Collection[str]) -> dict[str, Any]:
    """The given values less those that papermill has of the task's own file (-f), over which an overlay lies.

    Papermill passes on what a file says and not which file it was. Raises ParameterError where that is another one.
    """
    if "class_names" not in injected:  # only files of tasks have it
        return given
    if "task" not in injected:
        raise ParameterError(
            "the file given to papermill names no task, so it would be laid over the notebook's own; add the line "
            "`task: ` with the file's name in params/"
        )
    folder = task_files.root() / "params"
    if not (folder / f"{task}.yaml").is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ParameterError(
            f"papermill was given a file that says task: {task}, and there is no params/{task}.yaml; copy the file "
            f"there, where pages and trainings find it too (there are {there})"
        )
    files = task_files.of(task, overlay)
    of_file, laid_over = files[task], files.get(overlay, {})
    lacking = sorted(of_file.keys() - set(injected) - {"task", "overlay"})
    if lacking:
        raise ParameterError(
            f"the file given to papermill says task: {task} and is not params/{task}.yaml, which has "
            f"{', '.join(lacking)} besides; give that one, or put yours into params/ under a name of its own"
        )
    of_task = {name for name in given.keys() & set(injected) & of_file.keys() if given[name] == of_file[name]}
    under = sorted(name for name in of_task & laid_over.keys() if laid_over[name] != of_file[name])
    if (under and laid_over.keys() <= set(injected)) or (not overlay and "synthetic" in set(injected) - of_file.keys()):
        raise ParameterError(
            f"{', '.join(under) or 'synthetic'}: papermill had the file of an overlay and then that of the task; give "
            f"the task's first: -f params/{task}.yaml -f params/{overlay or 'demo'}.yaml"
        )
    return {name: value for name, value in given.items() if name not in of_task}
