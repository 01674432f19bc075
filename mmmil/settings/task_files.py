"""The files of params/: where the project is, what a task's file and an overlay hold, and that each is what it says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmmil.settings import yaml_files


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type, impossible beside another one, or names a missing file."""


def root() -> Path:
    """The project's folder: the nearest one upwards that holds `params/` and `_toc.yml`."""
    start = Path.cwd()
    for folder in (start, *start.parents, Path(__file__).resolve().parents[2]):
        if (folder / "params").is_dir() and (folder / "_toc.yml").is_file():
            return folder
    raise ParameterError(f"no project folder (with params/ and _toc.yml) at or above {start}; change into it first")


def real_data() -> Path:
    """Folder of the real data that some parameter files read; set MMMIL_REAL_DATA to move it."""
    return Path(os.environ.get("MMMIL_REAL_DATA", "../shared/data")).expanduser()


def read_yaml(name: str) -> dict[str, Any]:
    """The flat mapping in `params/<name>.yaml`.

    Raises ParameterError where it cannot be read, or says that it is another task's file, or lays one over itself:
    papermill would go by what it says, and all others by its name.
    """
    path = root() / "params" / f"{name}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in path.parent.glob("*.yaml"))
        there = f"there are {', '.join(names)}; a task and an overlay each have a file of their name in params/"
        if path.with_suffix(".yml").is_file():
            there = f"rename {name}.yml"
        raise ParameterError(f"{path} does not exist; {there}")
    try:
        values = yaml_files.read(path)
    except yaml_files.YamlError as error:
        raise ParameterError(str(error)) from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path} must hold one flat mapping `name: value`, one per line")
    if str(values.get("task", name)) != name:
        raise ParameterError(f"{path}: task: {values['task']} is another file's name; write {name}, or rename the file")
    if values.get("overlay", "") not in ("", name):
        raise ParameterError(
            f"{path}: overlay: {values['overlay']} names another file, which a file cannot lay over itself; write "
            f'"" here, and give the overlay beside the task (OVERLAY=, --overlay, or a second -f), or write {name} if '
            "this file is an overlay itself"
        )
    return values


def of(task: str, overlay: str) -> dict[str, dict[str, Any]]:
    """What the files of a task and of the overlay, if there is one, hold: name -> mapping."""
    files = {name: read_yaml(name) for name in [task, overlay][: 1 + bool(overlay)]}
    if files[task].get("overlay"):
        raise ParameterError(f"params/{task}.yaml is an overlay (it says overlay: {task}); name a task to lay it over")
    if overlay and "task" in files[overlay]:
        raise ParameterError(
            f"params/{overlay}.yaml is a task's file (it says task: {overlay}) and cannot be laid over {task}; "
            'name an overlay, or "" for none'
        )
    return files
