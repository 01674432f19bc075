"""The parameters cells of a notebook session: which names they set, and which of these no longer count.

A kernel keeps every name that was ever set; a cell that was edited and run again has both its old names and its new
ones. IPython's list of executed cells says which is which.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType, UnionType
from typing import Any

from mmmil.settings.task_files import ParameterError

INJECTED = "# Parameters"  # papermill's first line of the cell that it puts in
RUN_BY = ("time", "capture")  # magics that run the cell beneath them in the notebook's own names
NEARLY = 0.8  # likeness of names, 1 if equal: epcohs and epochs have 0.83
IPYTHONS = ("In", "Out", "exit", "quit", "get_ipython", "open")
LOCAL = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Session:
    """current: names that the parameters cells set as they were last run; outdated: names that count no more;
    injected: those of papermill's cell that count; beside: what a cell without `task` gives a plain value together with
    a parameter, or a number under nearly the name of one.
    """

    current: frozenset[str] = frozenset()
    outdated: frozenset[str] = frozenset()
    injected: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Cell:
    names: frozenset[str]
    is_own: bool  # a notebook's own parameters cell, or papermill's
    is_injected: bool
    is_plain: bool  # nothing but assignments of plain values
    numbers: frozenset[str]  # set to a number

    @property
    def sets_parameters(self) -> bool:
        return self.is_own or self.is_injected


def read(sources: Iterable[str], known: Collection[str] = ()) -> Session:
    """What the executed cells, in their order, say about the names of a session.

    A cell that sets `task` is the notebook's parameters cell, the last one as it stands now; papermill's may lie over
    it. A name counts unless who set it last was an earlier version of these. An `overlay` that was set with a task
    belongs to that one, and does not count for a task that was set later. known: the names of parameters.
    """
    cells = [_cell(source) for source in sources]
    last = {name: number for number, cell in enumerate(cells) for name in cell.names}
    own = max((number for number, cell in enumerate(cells) if cell.is_own), default=-1)
    injected = max((number for number, cell in enumerate(cells) if cell.is_injected), default=-1)
    if "task" in _names(cells, injected) and injected < own:
        injected = -1  # it gave the settings of another task
    old = {number for number, cell in enumerate(cells) if cell.sets_parameters} - {own, injected}
    outdated = {name for name, number in last.items() if number in old}
    if "overlay" in last and last["overlay"] < last.get("task", -1) and "task" in cells[last["overlay"]].names:
        outdated.add("overlay")
    plain = {number for number, cell in enumerate(cells) if cell.is_plain and _means(cell, known)}
    beside = {name for name, number in last.items() if number in plain} - outdated
    given = _names(cells, injected)
    return Session(_names(cells, own) | given, frozenset(outdated), given, frozenset(beside))


def is_set(name: str, value: Any, known: Collection[str]) -> bool:
    """Whether a name of a notebook was set to something: it is no module, function or class, and not IPython's.

    known: the names of parameters. Raises ParameterError for a parameter's name that something else has taken, for what
    it was set to is lost.
    """
    if name.startswith("_") or name in IPYTHONS:
        return False
    taken = isinstance(value, ModuleType) or callable(value)
    if taken and name in known:
        raise ParameterError(
            f"{name}: is a parameter, and here a {type(value).__name__}; import or define it under another name"
        )
    return not taken


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


def _means(cell: _Cell, known: Collection[str]) -> bool:
    """Whether a cell of plain values is meant to set parameters."""
    nearly = any(difflib.get_close_matches(name, known, n=1, cutoff=NEARLY) for name in cell.numbers)
    return bool(nearly or cell.names & set(known))


def _statements(source: str) -> list[ast.stmt]:
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):  # it was refused by Python, too, and set nothing
        return []
    match statements:
        case [
            ast.Expr(
                ast.Call(ast.Attribute(attr="run_cell_magic"), [ast.Constant(str(magic)), _, ast.Constant(str(body))])
            )
        ]:
            return _statements(body) if magic in RUN_BY else []
    return statements


def _cell(source: str) -> _Cell:
    statements = _statements(source)
    before = statements[: next((i for i, node in enumerate(statements) if _asks(node)), len(statements))]
    is_injected = source.lstrip().startswith(INJECTED)
    is_own = "task" in bound(before) and not is_injected
    # What stands after the call in the same cell was set from the parameters and is none of them.
    plain = [isinstance(node, ast.Assign | ast.AnnAssign) and _is_plain(node.value) for node in statements]
    numbers = [node for node in statements if isinstance(node, ast.Assign) and _is_plain(node.value, int | float)]
    names = bound(before if is_own else statements)
    return _Cell(frozenset(names), is_own, is_injected, all(plain), frozenset(bound(numbers)))


def _is_plain(value: ast.expr | None, kind: type | UnionType = object) -> bool:
    try:
        return value is not None and isinstance(ast.literal_eval(value), kind)
    except ValueError:
        return False


def _asks(statement: ast.AST) -> bool:
    """Whether a statement calls `params.effective`."""
    called = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return any(getattr(f, "attr", getattr(f, "id", "")) == "effective" for f in called)
