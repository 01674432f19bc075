"""The parameters cells of a notebook session: which names they set, and which of these no longer count.

A kernel keeps every name that was ever set; a cell that was edited and run again has both its old names and its new
ones. IPython's list of executed cells says which is which.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

INJECTED = "# Parameters"  # papermill's first line of the cell that it puts in
LOCAL = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Session:
    """current: names that the parameters cells set as they were last run; outdated: names that count no more."""

    current: frozenset[str] = frozenset()
    outdated: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Cell:
    names: frozenset[str]
    is_own: bool  # a notebook's own parameters cell, or papermill's
    is_injected: bool

    @property
    def sets_parameters(self) -> bool:
        return self.is_own or self.is_injected


def read(sources: Iterable[str]) -> Session:
    """What the executed cells, in their order, say about the names of a session.

    A cell that sets `task` is the notebook's parameters cell, the last one as it stands now; papermill's may lie over
    it. A name counts unless who set it last was an earlier version of these. `overlay` belongs to the task: it counts
    where it was set with the task or after it.
    """
    cells = [_cell(source) for source in sources]
    last = {name: number for number, cell in enumerate(cells) for name in cell.names}
    own = max((number for number, cell in enumerate(cells) if cell.is_own), default=-1)
    injected = max((number for number, cell in enumerate(cells) if cell.is_injected), default=-1)
    if "task" in _names(cells, injected) and injected < own:
        injected = -1  # it gave the settings of another task
    old = {number for number, cell in enumerate(cells) if cell.sets_parameters} - {own, injected}
    outdated = {name for name, number in last.items() if number in old}
    if last.get("overlay", -1) < last.get("task", -1):
        outdated.add("overlay")
    return Session(_names(cells, own) | _names(cells, injected), frozenset(outdated))


def bound(statements: Sequence[ast.AST]) -> set[str]:
    """Names that statements set where they stand, not those inside functions, classes and comprehensions."""
    names: set[str] = set()
    waiting = list(statements)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, LOCAL):
            waiting += [inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif not isinstance(node, ast.Lambda):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            captured = getattr(node, "name", None) if isinstance(node, ast.MatchAs | ast.MatchStar) else None
            names |= {captured} if captured else set()
            waiting += ast.iter_child_nodes(node)
    return names


def _names(cells: Sequence[_Cell], number: int) -> frozenset[str]:
    return cells[number].names if number >= 0 else frozenset()


def _cell(source: str) -> _Cell:
    try:
        statements: list[ast.stmt] = ast.parse(source).body
    except (SyntaxError, ValueError):  # it was refused by Python, too, and set nothing
        statements = []
    before = statements[: next((i for i, node in enumerate(statements) if _asks(node)), len(statements))]
    is_injected = source.lstrip().startswith(INJECTED)
    is_own = "task" in bound(before) and not is_injected
    # What stands after the call in the same cell was set from the parameters and is none of them.
    return _Cell(frozenset(bound(before if is_own else statements)), is_own, is_injected)


def _asks(statement: ast.AST) -> bool:
    """Whether a statement calls `params.effective`."""
    called = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return any(getattr(f, "attr", getattr(f, "id", "")) == "effective" for f in called)
