"""Making functions and classes out of their parts: what a by-value pickle calls on load.

A stream written by :mod:`dtm.wire.pickling` names the functions of this module, so they
are the format: both ends must have them, and they need no dill.

The noun here is *identity*.  A class that no worker has by import gets an id in the process
where it first leaves.  Each process keeps one table from ids to classes, weak both ways, so
a class that went out and came home is the class it was, and one that arrives a hundred
times is made once.  Code objects are known by the digest of their content.

A *definition* is the pickle that makes a class, or the bytes of a code object.  It stands
in the stream itself, or came before and is *held* (:mod:`dtm.wire.definitions`).

Invariants: an id stands for at most one live class of a process; a class that has a version has
all its attributes.  At home, where it got its id, a class is never filled again.  Elsewhere it is
filled again only by a definition of a later version; without versions the first definition to
arrive holds, like that of a module.

Everything is made in two steps, the empty thing and what goes into it, since a
function may hold its class, the class its function, and either itself.  A class is made
without its metaclass's Python code and without ``__init_subclass__``: these ran where the class
was made, with keywords that are not known here, and what they did to the class is part of it.

Threads: any.  The tables change under ``_lock``, which is held while the
definition of a class is loaded, so that no thread sees a class half made.

Rejected: handing over the class with every object, as dill does.  ``isinstance``
and ``except`` fail at the caller on a class which looks the same and is not.
"""

from __future__ import annotations

import marshal
import os
import pickle
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import EnumMeta
from functools import lru_cache
from importlib import import_module
from threading import RLock, get_ident
from types import CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any
from weakref import WeakValueDictionary

from dtm.core.identity import WeakIdentity

AT_HOME = 1 << 62
ID_BYTES = 16
HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made at run time, not compiled in
MOST_CODES = 4096

_lock = RLock()
_ids: WeakIdentity[bytes] = WeakIdentity()
_things: WeakValueDictionary[bytes, Any] = WeakValueDictionary()
_versions: WeakIdentity[int] = WeakIdentity()
_loading = 0  # the version of the definition that is being loaded; under the lock
_installed: WeakIdentity[bool] = WeakIdentity()
_codes: dict[bytes, CodeType] = {}
held: dict[bytes, bytes] = {}
"""Definitions that came before what refers to them, by key."""
_kept: dict[bytes, type] = {}


def identify(thing: Any) -> bytes:
    """Return the id of a class (or type variable) made at run time; give it one if it has none."""
    known = _ids.get(thing)
    if known is not None:
        return known
    with _lock:
        known = _ids.get(thing)
        if known is None:
            known = os.urandom(ID_BYTES)
            _versions.set(thing, AT_HOME)
            _things[known] = thing
            _ids.set(thing, known)
        return known


def version_that_came(cls: type) -> int | None:
    """Return the version of a class that came from elsewhere, None if it is at home here."""
    version = _versions.get(cls)
    return None if version is None or version == AT_HOME else version


def class_key(class_id: bytes, version: int) -> bytes:
    """Return the key of the definition of a class."""
    return class_id + version.to_bytes(8, "big") if version else class_id


def load_class(key: bytes, definition: bytes | None = None) -> type:
    """Return the class of this key; if there is none, or an older one, use its definition."""
    global _loading  # noqa: PLW0603 - definitions are nested, as their loads are
    version = int.from_bytes(key[ID_BYTES:], "big")
    with _lock:
        known = _things.get(key[:ID_BYTES])
        if known is not None and _version_of(known) >= version:
            return known  # type: ignore[no-any-return]
        outer, _loading = _loading, version
        try:
            loaded: type = pickle.loads(_definition(key, definition))
        finally:
            _loading = outer
        if definition is None:  # or it would be made again for each message
            _kept[key] = loaded
        return loaded


def _version_of(cls: type) -> int:
    """Return the version of a class here, -1 while it has no attributes yet."""
    version = _versions.get(cls)
    return -1 if version is None else version


def let_go(key: bytes) -> None:
    """Hold a definition no longer; a class that is in use stays."""
    held.pop(key, None)
    _kept.pop(key, None)


def _definition(key: bytes, definition: bytes | None) -> bytes:
    if definition is None:
        definition = held.get(key)
        if definition is None:
            raise pickle.UnpicklingError("it refers to a definition that has not come here")
    return definition


def make_class(
    class_id: bytes,
    meta: type | int,
    name: str,
    bases: tuple[type, ...],
    body: dict[str, Any],
    is_held: bool = False,
) -> type:
    """Return the class of this id, made with no more than ``body`` if it is new here.

    ``meta`` is the metaclass, or the place of the base that has it too.  ``is_held`` says that
    a module held the class where it comes from; here the module gets it too.
    """
    with _lock:
        known = _things.get(class_id)
        if known is not None:
            return known  # type: ignore[no-any-return]
        if isinstance(meta, int):
            meta = type(bases[meta])
        if issubclass(meta, EnumMeta):
            namespace: Any = meta.__prepare__(name, bases)
            for key, value in body.items():
                namespace[key] = value
            made: type = meta(name, bases, namespace)
        else:
            with _without_hooks(bases):
                made = _native(meta).__new__(meta, name, bases, dict(body))
        _things[class_id] = made
        _ids.set(made, class_id)
        if is_held:
            _install(made)
        return made


def _native(meta: type) -> Any:
    """Return the metaclass whose ``__new__`` makes the class and does nothing of a user's."""
    if issubclass(meta, ABCMeta):
        return ABCMeta
    return next(kind for kind in meta.__mro__ if not kind.__flags__ & HEAP_TYPE)


@contextmanager
def _without_hooks(bases: tuple[type, ...]) -> Iterator[None]:
    """Keep the ``__init_subclass__`` of these classes from running in this thread."""
    me = get_ident()
    hooked = {
        id(kind): (kind, vars(kind)["__init_subclass__"])
        for base in bases
        for kind in base.__mro__
        if "__init_subclass__" in vars(kind) and kind.__module__ != "typing"
    }

    def unhooked(original: Any) -> Any:
        def hook(cls: type, /, **keywords: Any) -> Any:
            if get_ident() != me:
                return original.__get__(None, cls)(**keywords)
            return None

        return classmethod(hook)

    changed = []
    try:
        for kind, original in hooked.values():
            if kind.__flags__ & HEAP_TYPE:
                type.__setattr__(kind, "__init_subclass__", unhooked(original))
                changed.append((kind, original))
        yield
    finally:
        for kind, original in changed:
            type.__setattr__(kind, "__init_subclass__", original)


def _install(cls: type) -> None:
    """Put a class into its module, as it was where it comes from, unless another is there."""
    module = sys.modules.get(cls.__module__)
    if module is None or "." in cls.__qualname__:
        return
    there = vars(module).get(cls.__qualname__)
    if there is None or _installed.get(there):
        _installed.set(cls, True)
        setattr(module, cls.__qualname__, cls)


def fill_class(cls: type, attributes: dict[str, Any]) -> None:
    """Give a class its attributes, unless it has these or later ones."""
    with _lock:
        if _version_of(cls) >= _loading:
            return
        put = _native(type(cls)).__setattr__
        for name, value in attributes.items():
            put(cls, name, value)
        _versions.set(cls, _loading)


def fill_enum(cls: type, state: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> None:
    """Give an Enum its methods, and its members what their constructor had set."""
    attributes, members = state
    with _lock:
        if _version_of(cls) >= _loading:
            return
        for name, extra in members.items():
            vars(getattr(cls, name)).update(extra)
        for name, value in attributes.items():
            type.__setattr__(cls, name, value)
        _versions.set(cls, _loading)


def load_variable(
    variable_id: bytes, kind: Callable[..., Any], name: str, args: Any, keywords: Any
) -> Any:
    """Return the type variable of this id, made if it is new here."""
    with _lock:
        known = _things.get(variable_id)
        if known is None:
            known = kind(name, *args, **keywords)
            _things[variable_id] = known
            _ids.set(known, variable_id)
        return known


def load_code(key: bytes, marshalled: bytes | None = None) -> CodeType:
    """Return the code object with this digest."""
    code = _codes.get(key)
    if code is None:
        code = marshal.loads(_definition(key, marshalled))  # noqa: S302 - as trusted as pickle
        if len(_codes) >= MOST_CODES:
            _codes.clear()
        _codes[key] = code
    return code


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
    key: bytes,
    marshalled: bytes | None,
    names: str | dict[str, Any],
    closure: tuple[CellType, ...] | None = None,
    defaults: tuple[Any, ...] | None = None,
) -> FunctionType:
    """Return a function of this code, whose cells are still empty."""
    code = _codes.get(key) or load_code(key, marshalled)
    if isinstance(names, str):
        names = module_globals(names)
    return FunctionType(code, names, None, defaults, closure)


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
    if attributes:
        vars(function).update(attributes)
    for cell, contents in cells:
        fill_cell(cell, contents)
    if names:
        function.__globals__.update(names)


def make_cell() -> CellType:
    """Return an empty cell (a stream can name this function, but not the type)."""
    return CellType()


def fill_cell(cell: CellType, contents: tuple[Any, ...]) -> None:
    """Put the one value of ``contents`` into a cell; an empty tuple is an empty cell."""
    if contents:
        cell.cell_contents = contents[0]


def make_method(function: Any, owner: Any) -> MethodType:
    """Return a bound method of a function that its owner does not hold under its name."""
    return MethodType(function, owner)


def make_cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    """Return a function with an empty ``lru_cache`` of its own."""
    return lru_cache(maxsize, typed)(function)


def make_module(name: str, doc: str | None) -> ModuleType:
    """Return a module that is not to be imported, still empty."""
    return ModuleType(name, doc)


def make_proxy(mapping: dict[str, Any]) -> Any:
    """Return a read-only view of a dictionary."""
    return MappingProxyType(mapping)
