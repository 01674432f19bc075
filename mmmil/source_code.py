"""Which code decides a result, and whether it is the code that runs.

A result's key holds the code of the module that computes it and of all that this imports of the package, read from the
imports themselves, those inside functions included and those for type checkers alone left out. The modules of GROUND
are left out as well: what they say enters a key as values (settings, rows of the variant table).

A result may only be kept under that key where the code in the files is the code in memory. `require_as_loaded` refuses
where a file was edited after it had been loaded, and where an object of the package was replaced.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import linecache
import sys
import sysconfig
import textwrap
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

from mmmil.processes.notes import Notes

ROOT = Path(__file__).parent
PACKAGE = ROOT.name
# Whole wings, and modules: what they say enters keys as values.
_SAYING = ("processes", "settings", "tables")
_WINGS = sorted(f"{wing}.{path.stem}" for wing in _SAYING for path in (ROOT / wing).glob("[!_]*.py"))
_GROUND = (*_WINGS, "schema", "params", "paper", "variants", "results", "record", "source_code")
GROUND = frozenset(f"{PACKAGE}.{name}" for name in _GROUND)


class ChangedCodeError(RuntimeError):
    """The code in memory is not the code of the files, so that its result has no key; says what differs."""


# -- the modules behind a result ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Source:
    """Hash of a module's code without comments and docstrings, and what of the package it imports: for each import the
    modules that it may mean, of which the first that there is counts.
    """

    code: str
    imports: tuple[tuple[str, ...], ...]


def modules(*names: str) -> list[str]:
    """The modules that decide what `names` compute, sorted: they and all that they import, directly or not.

    names: modules of the package (`mmmil.training.train`) or whole wings (`mmmil.slides`).
    """
    reached: set[str] = set()
    waiting = [module for name in names for module in _of_wing(name)]
    while waiting:
        module = waiting.pop()
        if module not in reached | GROUND:
            reached.add(module)
            waiting += _there(_source(module).imports)
    _notes().write()
    return sorted(reached)


def digest(*names: str) -> str:
    """Hash of the code of `modules(*names)`; comments and docstrings count for nothing."""
    codes = [(module, _source(module).code) for module in modules(*names)]
    return hashlib.sha256(repr(codes).encode()).hexdigest()[:16]


def imported(text: str, module: str = "") -> list[str]:
    """The modules of the package that a piece of code imports when it runs; module: its own name."""
    return _there(_imported(ast.parse(text), module))


def _there(imports: Iterable[tuple[str, ...]]) -> list[str]:
    found = (next((name for name in names if _file(name)), "") for names in imports)
    return [name for name in dict.fromkeys(found) if name]


def _file(module: str) -> Path | None:
    """The file of a module or of a wing's `__init__`, found without importing anything; None where there is none."""
    head, *parts = module.split(".")
    path = ROOT.joinpath(*parts)
    files = [path.with_suffix(".py"), path / "__init__.py"] if head == PACKAGE and parts else []
    return next((file for file in files if file.is_file()), None)


def _of_wing(name: str) -> list[str]:
    file = _file(name)
    if file is None:
        raise ValueError(f"{name} is no module of {PACKAGE}")
    if file.name != "__init__.py":
        return [name]
    return [name, *(f"{name}.{path.stem}" for path in sorted(file.parent.glob("*.py")) if path != file)]


def _source(module: str) -> _Source:
    path = _file(module)
    assert path is not None, module
    stat = path.stat()
    return _read_source(module, path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _read_source(module: str, path: Path, size: int, mtime_ns: int) -> _Source:
    text = path.read_text()
    name = f"{module}.__init__" if path.name == "__init__.py" else module
    key = _hash(name, text)
    if key not in (notes := _notes()):
        notes[key] = (code_digest(text), list(dict.fromkeys(_imported(ast.parse(text), name))))
    code, imports = notes[key]
    return _Source(code, tuple(map(tuple, imports)))


def _imported(node: ast.AST, module: str) -> Iterator[tuple[str, ...]]:
    if isinstance(node, ast.ImportFrom):
        name = "." * node.level + (node.module or "")
        source = importlib.util.resolve_name(name, module.rpartition(".")[0]) if node.level else name
        if source.partition(".")[0] == PACKAGE:
            yield from ((f"{source}.{alias.name}", source) for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from ((alias.name,) for alias in node.names if alias.name.partition(".")[0] == PACKAGE)
    else:
        checked = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in node.orelse if isinstance(node, ast.If) and checked else ast.iter_child_nodes(node):
            yield from _imported(child, module)


def _hash(*texts: str) -> str:
    return hashlib.sha256(repr(texts).encode()).hexdigest()[:32]


@functools.cache
def _notes() -> Notes:
    """(code, imports) of texts by their hash: parsing takes a second, in each of a batch's hundred processes.

    Only where this module and Python are the same; the file lies where Python keeps what it has compiled.
    """
    try:
        file = Path(importlib.util.cache_from_source(__file__)).with_suffix(".json")
    except NotImplementedError:  # a Python that keeps nothing
        file = None
    return Notes(file, _hash(sys.version, Path(__file__).read_text()))


def code_digest(text: str) -> str:
    """Hash of a piece of code without its comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            body[:] = body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


# -- the code in memory ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Loaded:
    """What a module was when it was loaded: its text, its names, the contents of its tables, its classes' members."""

    text: str
    names: dict[str, Any]
    tables: dict[str, Any]
    members: dict[str, dict[str, Any]]


_loaded: dict[str, _Loaded] = {}
MEMBERS = (types.FunctionType, property, classmethod, staticmethod, functools.cached_property)


def _note(module: types.ModuleType, text: str) -> None:
    names = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    _loaded[module.__name__] = _Loaded(
        text,
        names,
        {name: _content(value) for name, value in names.items() if name.isupper()},
        {name: _members(value) for name, value in names.items() if _is_own_class(value, module.__name__)},
    )


def _content(value: Any) -> Any:
    """Identities of what a table holds, by which a change in place shows; None for what is no table."""
    if isinstance(value, dict):
        return {key: id(held) for key, held in value.items()}
    return [id(held) for held in value] if isinstance(value, list) else None


def _members(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if isinstance(value, MEMBERS)}


def _is_own_class(value: Any, module: str) -> bool:
    return isinstance(value, type) and value.__module__ == module


class _Loader(SourceFileLoader):
    """Loads a module of the package as ever, and notes what it was when it was loaded."""

    def exec_module(self, module: types.ModuleType) -> None:
        text = Path(self.path).read_text()
        super().exec_module(module)
        _note(module, text)


class _Finder:
    """Finds modules of the package as ever, and has them loaded by `_Loader`."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if not fullname.startswith(f"{PACKAGE}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


# Importing the package imports this module before any other, so that none is loaded unnoticed.
sys.meta_path.insert(0, _Finder())


def require_as_loaded(name: str, maker: str = "") -> None:
    """Raise ChangedCodeError where the code that computes a result is not, in memory, what it is in its files.

    name: the module that computes; maker: the one that calls it, where that is another. Replaced objects are looked
    for in the maker and in a study, too, which hands out the patients, tiles and genes that are computed with.
    """
    deciding = modules(name)
    for module in deciding:
        was, path = _loaded.get(module), _file(module)
        now = path.read_text() if path is not None else ""
        if was is not None and now != was.text and code_digest(now) != code_digest(was.text):
            raise ChangedCodeError(
                f"{module} was edited after this process had loaded it, so what it computes is not what the file says "
                "and is not kept: restart the kernel (or the job)"
            )
    beside = modules(f"{PACKAGE}.study", *[maker] * maker.startswith(f"{PACKAGE}."))
    wings = {module.rpartition(".")[0] for module in deciding + beside}
    for module in [*deciding, *beside, *sorted(wings)]:
        if module in _loaded and (replaced := _replaced(module)):
            raise ChangedCodeError(
                f"{module}.{replaced} was replaced in this process, so what it computes is not the package's and is "
                f"not kept: restart the kernel, or register a class under a name of its own ({PACKAGE}.models.registry)"
            )


def _outdated(value: Any, module: str) -> bool:
    """Whether a name that `module` imports is of another module that was loaded again since then."""
    if not isinstance(value, type | types.FunctionType) or "." in value.__qualname__:
        return False
    source = value.__module__
    return source != module and source in _loaded and vars(sys.modules[source]).get(value.__name__) is not value


def _replaced(module: str) -> str:
    """The first name of a module that is no longer what it was, or that was put into it; '' where there is none."""
    was, now = _loaded[module], vars(sys.modules[module])
    for name in {**was.names, **now}:
        value, expected = now.get(name), was.names.get(name, sys.modules.get(f"{module}.{name}"))
        if not name.startswith("__") and (value is not expected or _outdated(value, module)):
            return name
    for name, content in was.tables.items():
        if _content(now[name]) != content:
            return name
    for name, members in was.members.items():
        there = _members(now[name])
        for member in {**members, **there}:
            if there.get(member) is not members.get(member):
                return f"{name}.{member}"
    return ""


# -- code of a notebook ------------------------------------------------------------------------------------------
def own_digest(*things: Any) -> str:
    """Hash of classes and functions that are no part of the package, and of all that they name beside them.

    What they name in their own notebook, or in files that are no installed library, counts in turn: classes and
    functions by their source, modules by their file, plain values by what they are; of the package, the code of the
    modules named. Raises ChangedCodeError where there is no source.
    """
    parts: dict[str, Any] = {}
    for thing in things:
        _collect(thing, parts)
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()[:16]


PLAIN = (int, float, complex, str, bytes, bool, type(None), tuple, list, dict, set, frozenset)


def _collect(thing: Any, parts: dict[str, Any]) -> None:
    name = f"{thing.__module__}.{thing.__qualname__}"
    if name in parts:
        return
    if thing.__module__.partition(".")[0] == PACKAGE:
        parts[name] = digest(*_of_module(thing.__module__))
        return
    tree = _tree(thing)
    parts[name] = code_digest(ast.unparse(tree))
    for used, value in _named(thing, tree):
        if isinstance(value, types.ModuleType):
            if value.__name__.startswith(f"{PACKAGE}."):
                parts[value.__name__] = digest(*_of_module(value.__name__))
            elif file := _own_file(value.__name__):
                parts[value.__name__] = code_digest(Path(file).read_text())
        elif isinstance(value, PLAIN):
            parts[f"{thing.__module__}.{used}"] = repr(value)
        elif isinstance(value, type | types.FunctionType) and (
            value.__module__ == thing.__module__
            or value.__module__.partition(".")[0] == PACKAGE
            or _own_file(value.__module__)
        ):
            _collect(value, parts)


def _own_file(module: str) -> str:
    """The file of a loaded module that is no part of Python nor of an installed library; '' for any other."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    installed = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return "" if file.startswith(tuple(installed)) else file


def _of_module(module: str) -> list[str]:
    return [] if module in GROUND else [module]


def _functions(thing: Any) -> list[types.FunctionType]:
    import inspect  # its hundredth of a second only where a notebook's code is read

    members = [thing] if isinstance(thing, types.FunctionType) else list(vars(thing).values())
    inner: list[Any] = [getattr(member, "fget", None) or getattr(member, "__func__", member) for member in members]
    bare = [inspect.unwrap(member) for member in inner]
    return [function for function in bare if isinstance(function, types.FunctionType)]


def _tree(thing: Any) -> ast.AST:
    """The definition of a class or function, from the file or the notebook cell that its code was compiled from.

    Not by `inspect.getsource`, which finds no class of a notebook.
    """
    codes = [function.__code__ for function in _functions(thing)]
    codes = [code for code in codes if code.co_filename != "<string>"]  # a dataclass writes some of its own
    text = "".join(linecache.getlines(codes[0].co_filename)) if codes else ""
    for node in ast.walk(ast.parse(textwrap.dedent(text))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == thing.__name__:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            last, file = node.end_lineno or first, codes[0].co_filename
            inside = [code.co_filename == file and first <= code.co_firstlineno <= last for code in codes]
            if all(inside):
                return node
            if any(inside):
                raise ChangedCodeError(
                    f"{thing.__qualname__} was changed after it had been defined, so that its source is not what runs: "
                    "define it anew, with all that it does"
                )
    raise ChangedCodeError(
        f"the source of {thing.__qualname__} cannot be read, so that no result of it can be told from another's: "
        "define it, with a method of its own, in a notebook cell or in a file"
    )


def _named(thing: Any, tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """Names that a definition reads, with what they stand for in its module or around it."""
    import inspect

    known: dict[str, Any] = {}
    for function in _functions(thing):
        known |= function.__globals__
        known |= inspect.getclosurevars(function).nonlocals
    used: Iterable[str] = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return ((name, known[name]) for name in sorted(used) if name in known and not name.startswith("__"))
