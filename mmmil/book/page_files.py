"""Files that an executed page shows beside its own text: they lie in a folder called as it, and go with it.

A notebook says where a kept result lies; publishing the notebook copies that beside the page, so that a page stands
when results are removed, and what an earlier version of it showed goes away.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

from mmmil import params

MARK = "kept-files:"  # before the place of a result in a notebook's HTML
NAMED = re.compile(rf"{MARK}([\w/.%~-]+)")
COPIED = "_build/pages"  # html_extra_path of _config.yml: what lies here is copied into the book as it is


class FilesError(ValueError):
    """Files that a page shows are not there."""


def mark(folder: Path) -> str:
    """What stands for the folder of a kept result in a notebook's HTML, until it is published."""
    root = params.root()
    return MARK + quote((folder.relative_to(root) if folder.is_relative_to(root) else folder).as_posix())


def publish(text: str, page: Path) -> str:
    """Copy the kept results that a notebook's text names beside the page; the text with their new places.

    Raises FilesError where one is gone.
    """
    beside = page.with_suffix("")
    shutil.rmtree(beside, ignore_errors=True)
    for named in sorted(set(NAMED.findall(text))):
        folder = params.root() / unquote(named)
        if not folder.is_dir():
            raise FilesError(f"{page.name} shows files of {folder}, which is gone: execute the notebook again")
        shutil.copytree(folder, beside / folder.name, ignore=shutil.ignore_patterns("*.json"))
    return NAMED.sub(lambda match: quote(f"{beside.name}/{Path(unquote(match[1])).name}"), text)


def gather(pages: Iterable[Path]) -> Path:
    """Copy what lies beside some pages (relative to the project's folder) to where the book takes it from.

    What other pages left there is removed.
    """
    folder = params.root() / COPIED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for page in pages:
        beside = page.with_suffix("")
        if (params.root() / beside).is_dir():
            shutil.copytree(params.root() / beside, folder / beside)
    return folder
