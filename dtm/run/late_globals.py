"""Globals that ``main`` sets after the start, and tasks on other workers do not see.

Who is used to ``fork`` sets a global in ``main`` and reads it in a task.  The workers of dtm have
what the import of the program has left, so the task finds that there, without a word.  The root
says so, in one line for each name, when it first sends away a function that reads it.

Nothing is copied: :meth:`LateGlobals.remember` notes the identity of what the program's own modules
hold (those of libraries are none of it), numbers and texts by value.  A function is looked at
once: the bytecode of it and of the program's functions that it calls by name, to a bounded depth.
A name counts if that code reads it, and

* its value is another than at the start, or the name was not there; not if code that was looked
  at sets the name (a counter, a model that is loaded when first needed), nor if it is a class,
  which travels with its objects; or
* it is a ``dict``, a ``list`` or a ``set`` that now has other content, and the code does no more
  than look something up there.  What is handed on or changed may be a cache of the tasks.

What an initializer sets is set on all the workers, and does not count.  Silence proves nothing:
what is reached by attributes (``config.table``), or is changed deep inside, is not seen.

Threads: ``look`` is called with the worker's lock held; the rest in the main thread.

Rejected: to send such values along.  A program that has worked because a worker had its own would
compute something else; and which of a module's values belong together nobody but its author knows.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import _lru_cache_wrapper, partial
from opcode import opname
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from dtm.core.identity import WeakIdentity
from dtm.task import Body

MOST_FUNCTIONS = 64
MOST_ENTRIES = 64

_CONSTANTS = (int, float, complex, str, bytes, bool, type(None))
_LONGEST = 200  # characters of a text that is kept to compare it
_CONTAINERS = (dict, list, set)
_CHANGE = frozenset({
    "add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "reverse",
    "setdefault", "sort", "update", "difference_update", "intersection_update",
    "symmetric_difference_update",
})  # fmt: skip
_CALL = "__call__"
_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_KEYS = frozenset({
    "LOAD_CONST", "LOAD_DEREF", "LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK",
    "LOAD_SMALL_INT",
})  # fmt: skip
_BETWEEN = 3  # instructions that may stand between a container and the look-up of a key
_NB_SUBSCR = 26  # the argument by which BINARY_OP looks up a key, since 3.14


class Uses(NamedTuple):
    """What code does with the globals of its module."""

    reads: frozenset[str]
    sets: frozenset[str]
    hands_on: frozenset[str]  # of those it reads


_uses: WeakIdentity[Uses] = WeakIdentity()


def uses_of(code: CodeType) -> Uses:
    """Return what a piece of code does with globals, the functions within it included."""
    known = _uses.get(code)
    if known is None:
        known = _found(code)
        _uses.set(code, known)
    return known


def _found(code: CodeType) -> Uses:
    reads, sets, hands_on = set(), set(), set()
    steps = list(_steps(code))
    for at, (name, argument) in enumerate(steps):
        if name in _LOADS:
            read = code.co_names[argument >> 1 if name == "LOAD_GLOBAL" else argument]
            reads.add(read)
            if not _looks_up(code, steps[at + 1 : at + 2 + _BETWEEN]):
                hands_on.add(read)
        elif name in _STORES:
            sets.add(code.co_names[argument])
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = uses_of(constant)
            reads |= inner.reads
            sets |= inner.sets
            hands_on |= inner.hands_on
    return Uses(*map(frozenset, (reads, sets, hands_on)))


def _steps(code: CodeType) -> Iterator[tuple[str, int]]:
    """Iterate over the instructions and their arguments, without caches."""
    extended = 0
    raw = code.co_code
    for at in range(0, len(raw), 2):
        name = opname[raw[at]]
        argument = extended | raw[at + 1]
        if name == "EXTENDED_ARG":
            extended = argument << 8
            continue
        extended = 0
        if name != "CACHE":
            yield name, argument


def _looks_up(code: CodeType, steps: list[tuple[str, int]]) -> bool:
    """Whether what was loaded before these steps is only asked for something that it holds."""
    name, argument = steps[0]
    if name in ("CONTAINS_OP", "GET_ITER"):
        return True
    if name in ("LOAD_ATTR", "LOAD_METHOD"):
        shifted = argument >> 1 if name == "LOAD_ATTR" and sys.version_info >= (3, 12) else argument
        return code.co_names[shifted] not in _CHANGE
    if name not in _KEYS:
        return False
    for name, argument in steps[1:]:
        if name == "BINARY_SUBSCR" or (name == "BINARY_OP" and argument == _NB_SUBSCR):
            return True
        if name != "LOAD_ATTR":
            return False
    return False


def _mark(value: Any) -> Any:
    """Return what tells a value from another, without keeping it."""
    kind = type(value)
    if kind in _CONSTANTS and (kind not in (str, bytes) or len(value) <= _LONGEST):
        return kind, value
    return id(value)


def _content(value: Any) -> Any:
    """Return what tells the content of a container from another, None if it is no container."""
    kind = type(value)
    if kind not in _CONTAINERS:
        return None
    if len(value) > MOST_ENTRIES:
        return len(value)
    if kind is dict:
        return [(_mark(key), _mark(held)) for key, held in value.items()]
    if kind is set:
        return {_mark(held) for held in value}
    return [_mark(held) for held in value]


class LateGlobals:
    """What the program's modules held at the start, and which names were told since."""

    def __init__(self) -> None:
        self._left: dict[str, dict[str, tuple[Any, Any]]] | None = None
        self._looked: WeakIdentity[bool] = WeakIdentity()
        self._told: set[tuple[str, str]] = set()

    def remember(self) -> None:
        """Note what the modules of the program hold now."""
        self._looked = WeakIdentity()
        self._told.clear()
        self._left = {module.__name__: _marks(vars(module)) for module in _of_the_program()}

    def forget(self) -> None:
        """The run is over."""
        self._left = None

    @contextmanager
    def excused(self) -> Iterator[None]:
        """Let what is set meanwhile not count, for it is set on all the workers."""
        if self._left is None:
            yield
            return
        before = {name: _marks(vars(sys.modules[name])) for name in self._left}
        try:
            yield
        finally:
            for module, names in before.items():
                now = _marks(vars(sys.modules[module]))
                changed = {name: mark for name, mark in now.items() if names.get(name) != mark}
                self._left[module].update(changed)

    def look(self, function: Any) -> list[str]:
        """Return a line for each name that a function reads, was set late and is not told yet."""
        if self._left is None:
            return []
        bare = _bare(function)
        if bare is None or self._looked.get(bare.__code__):
            return []
        self._looked.set(bare.__code__, True)
        if not self._is_of_the_program(bare):
            return []
        reached = list(self._reached(bare))
        lines = []
        for each in reached:
            module = each.__globals__["__name__"]
            for name in sorted(uses_of(each.__code__).reads):
                if (module, name) in self._told or not self._is_late(module, name, reached):
                    continue
                self._told.add((module, name))
                lines.append(_line(bare, each, module, name))
        return lines

    def _is_of_the_program(self, function: FunctionType) -> bool:
        name = function.__globals__.get("__name__")
        module = sys.modules.get(name) if name in (self._left or {}) else None
        return module is not None and vars(module) is function.__globals__

    def _reached(self, function: FunctionType) -> Iterator[FunctionType]:
        """Iterate over a function and those of the program that it calls by name, or wraps."""
        found = [function]
        for each in found:
            yield each
            inside: list[Any] = [getattr(each, "__wrapped__", None)]
            inside += [_held(cell) for cell in each.__closure__ or ()]
            inside += [each.__globals__.get(name) for name in uses_of(each.__code__).reads]
            for held in inside:
                other = held.__wrapped__ if isinstance(held, _lru_cache_wrapper) else held
                if (
                    isinstance(other, FunctionType)
                    and len(found) < MOST_FUNCTIONS
                    and not any(other is known for known in found)
                    and self._is_of_the_program(other)
                ):
                    found.append(other)

    def _is_late(self, module: str, name: str, reached: list[FunctionType]) -> bool:
        names = vars(sys.modules[module])
        if name not in names or (name.startswith("__") and name.endswith("__")):
            return False
        value, left = names[name], (self._left or {})[module].get(name)
        of_module = [uses_of(each.__code__) for each in reached if each.__globals__ is names]
        if any(name in each.sets for each in of_module):
            return False
        if left is None or left[0] != _mark(value):
            return not isinstance(value, type)
        if left[1] is None or any(name in each.hands_on for each in of_module):
            return False
        return bool(left[1] != _content(value))


def _marks(names: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (_mark(value), _content(value)) for name, value in list(names.items())}


def _of_the_program() -> Iterator[ModuleType]:
    """Iterate over the modules that are neither of a library nor of dtm."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(kind) for kind in kinds}
    folders.add(os.path.dirname(os.path.dirname(__file__)))
    folders |= {os.path.realpath(folder) for folder in folders}
    inside = tuple(folder + os.sep for folder in folders)
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or module.__name__ != name:
            continue
        file = getattr(module, "__file__", None)
        if name == "__main__" or (isinstance(file, str) and not _is_of_a_library(file, inside)):
            yield module


def _is_of_a_library(file: str, inside: tuple[str, ...]) -> bool:
    if file.startswith(inside) or "site-packages" in file or "dist-packages" in file:
        return True
    return os.path.realpath(file).startswith(inside)


def _bare(function: Any) -> FunctionType | None:
    """Return the function in Python that a callable calls in the end, None if there is none."""
    for _ in range(MOST_FUNCTIONS):
        if isinstance(function, (partial, Body)):
            function = function.func
        elif isinstance(function, _lru_cache_wrapper):
            function = function.__wrapped__
        elif isinstance(function, MethodType):
            function = function.__func__
        elif isinstance(function, FunctionType):
            return function
        else:
            kinds = type(function).__mro__
            function = next((vars(each)[_CALL] for each in kinds if _CALL in vars(each)), None)
            if not isinstance(function, FunctionType):
                return None
    return None


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty one
        return None


def _line(function: FunctionType, reader: FunctionType, module: str, name: str) -> str:
    by = "" if reader is function else f" (in {reader.__qualname__})"
    return (
        f"dtm: {function.__qualname__} reads the global {name} of {module}{by}, which was set "
        "after dtm.start, so the other workers have what the import left: hand it over as a "
        f"keyword (dtm.map(..., {name.lower()}={name})), if it is large by dtm.share, or set it "
        "in an initializer (dtm.setOptions(initializer=...))\n"
    )


late_globals = LateGlobals()
"""Those of this process."""
