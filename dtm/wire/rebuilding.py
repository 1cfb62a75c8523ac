"""Making functions and classes out of their parts: what a by-value pickle calls on load.

A stream written by :mod:`dtm.wire.byvalue` names the functions of this module, so they
are the format: both ends must have them, and they need no dill.  A worker which
only receives a lambda never pays for importing it.

The noun here is *identity*.  A class that no module holds (made inside a function)
gets an id in the process where it first leaves.  Each process keeps one table from
ids to classes, weak both ways, so a class that went out and came home is the class
it was, and one that arrives a hundred times is made once.

Invariants: an id stands for at most one live class of a process; a class in
``_complete`` has all its attributes.  A class that is known is never filled again:
the first definition to arrive holds, like that of a module.

Everything is made in two steps, the empty thing and what goes into it, since a
function may hold its class, the class its function, and either itself.

Threads: any.  The tables change under ``_lock``, which is held while the
definition of a class is loaded, so that no thread sees a class half made.

Rejected: handing over the class with every object, as dill does.  ``isinstance``
and ``except`` fail at the caller on a class which looks the same and is not.
"""

from __future__ import annotations

import os
import pickle
import sys
from importlib import import_module
from threading import RLock
from types import CellType, CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

_lock = RLock()
_ids: WeakKeyDictionary[type, bytes] = WeakKeyDictionary()
_classes: WeakValueDictionary[bytes, type] = WeakValueDictionary()
_complete: WeakSet[type] = WeakSet()


def identify(cls: type) -> bytes:
    """Return the id of a class made in a function; give it one if it has none."""
    with _lock:
        known = _ids.get(cls)
        if known is not None:
            return known
        class_id = os.urandom(16)
        _ids[cls] = class_id
        _classes[class_id] = cls
        _complete.add(cls)
        return class_id


def load_class(class_id: bytes, definition: bytes) -> type:
    """Return the class of this id; only if there is none, make it from its definition."""
    with _lock:
        known = _classes.get(class_id)
        if known is not None and known in _complete:
            return known
        loaded: type = pickle.loads(definition)
        return loaded


def make_class(
    class_id: bytes, meta: type, name: str, bases: tuple[type, ...], body: dict[str, Any]
) -> type:
    """Return the class of this id, made with no more than ``body`` if it is new here."""
    with _lock:
        known = _classes.get(class_id)
        if known is not None:
            return known
        namespace: Any = meta.__prepare__(name, bases)
        for key, value in body.items():
            namespace[key] = value
        made: type = meta(name, bases, namespace)
        _ids[made] = class_id
        _classes[class_id] = made
        return made


def fill_class(cls: type, attributes: dict[str, Any]) -> None:
    """Give a class just made its attributes; leave one that has them alone."""
    with _lock:
        if cls in _complete:
            return
        for name, value in attributes.items():
            type.__setattr__(cls, name, value)
        _complete.add(cls)


def fill_enum(cls: type, state: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> None:
    """Give an Enum its methods, and its members what their constructor had set."""
    attributes, members = state
    with _lock:
        if cls in _complete:
            return
        for name, extra in members.items():
            vars(getattr(cls, name)).update(extra)
        fill_class(cls, attributes)


def is_module_dict(names: dict[str, Any]) -> bool:
    """Tell whether these are the names of a module, which ``module_globals`` gives back."""
    name = names.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return module is not None and getattr(module, "__dict__", None) is names


def module_globals(name: str) -> dict[str, Any]:
    """Return the names of a module; of ``__main__`` those of the program running now."""
    module = sys.modules.get(name)
    return vars(import_module(name) if module is None else module)


def make_function(
    code: CodeType, names: dict[str, Any], name: str, closure: tuple[CellType, ...] | None
) -> FunctionType:
    """Return a function whose cells are still empty."""
    return FunctionType(code, names, name, None, closure)


def fill_function(
    function: FunctionType,
    state: tuple[
        dict[str, Any], dict[str, Any], tuple[tuple[CellType, tuple[Any, ...]], ...], dict[str, Any]
    ],
) -> None:
    """Give a function its attributes, its cells their contents, its globals what it reads."""
    special, attributes, cells, names = state
    for name, value in special.items():
        setattr(function, name, value)
    vars(function).update(attributes)
    for cell, contents in cells:
        fill_cell(cell, contents)
    function.__globals__.update(names)


def make_cell() -> CellType:
    """Return an empty cell (a stream can name this function, but not the type)."""
    return CellType()


def fill_cell(cell: CellType, contents: tuple[Any, ...]) -> None:
    """Put the one value of ``contents`` into a cell; an empty tuple is an empty cell."""
    if contents:
        cell.cell_contents = contents[0]
