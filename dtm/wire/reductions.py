"""How code is taken apart: the rules by which functions, classes and modules travel.

A rule takes a pickler and an object and returns what ``__reduce__`` returns: the name of a
global, a tuple that begins with a function of :mod:`dtm.wire.rebuilding`, or
``NotImplemented``, which leaves the object to pickle.

* What the workers have by import goes by its name (:mod:`dtm.wire.imports`).
* All other functions and classes go by value.  A class keeps its identity, wherever it is
  made; so do cells which functions share, and functions that hold themselves.
* With a function go the globals that it reads, as they are at that moment, where the workers have
  no module to read them from (:mod:`dtm.wire.globals_read`).
* A module goes by name; one that cannot be imported, with what is in it.
* An exception goes without its constructor (:mod:`dtm.wire.exceptions`).
* What lives in one process (locks, files, sockets, generators) is refused, with what to do.

A class goes as its id and the pickle that makes it, its *definition*, made once; a function
as the digest of its code, the code and the rest.  Where the pickler keeps ``definitions``
apart, the stream has only the ids and digests.  Where the workers stand apart, the definition of
a class that is at home here is made anew for each call, and gets a *version* when it has changed:
a method may read a global, or be replaced.

Threads: any.  The caches only ever grow by entries that every thread would make alike.

Rejected: copying the globals that a function of a module reads: each worker has that module.
"""

from __future__ import annotations

import io
import marshal
import sys
from collections.abc import Callable
from enum import Enum
from functools import cached_property, lru_cache
from hashlib import blake2b
from importlib import import_module
from types import (
    AsyncGeneratorType,
    CellType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import Any, Protocol, TypeVar

from dtm.core.identity import WeakIdentity
from dtm.wire import rebuilding
from dtm.wire.exceptions import arguments_of, fill_exception, make_exception, state_of
from dtm.wire.globals_read import globals_read
from dtm.wire.imports import imports, is_held

Rule = Callable[[Any, Any], Any]
Cells = tuple[tuple[CellType, tuple[Any, ...]], ...]

_IN_THE_BODY = ("__module__", "__qualname__", "__slots__", "__orig_bases__")
_NOT_CARRIED = frozenset({*_IN_THE_BODY, "__dict__", "__weakref__", "_abc_impl"})
_ENUM_HOOKS = frozenset({"_missing_", "_generate_next_value_"})
_MOST_KINDS = 4096
_COPIED = 4096  # bytes of an array that is copied into the stream at once

_definitions: WeakIdentity[tuple[int, int, bytes]] = WeakIdentity()
_marshalled: WeakIdentity[tuple[bytes, bytes]] = WeakIdentity()


class Stream(Protocol):
    """What the rules need to know of the pickler.

    Attributes:
        definitions: takes the definitions that the stream refers to; None: they stand in it.
        defining: whether the stream is the definition of a class; classes that it
            mentions are then part of it, since they may mention it in turn.
        cells: the ids of the cells that are in the stream.
        stand_ins: for the globals of no module, the dict that takes their place.
    """

    definitions: dict[bytes, bytes] | None
    defining: bool
    cells: set[int]
    stand_ins: dict[int, dict[str, Any]]

    def define(self, cls: type) -> bytes:
        """Return a stream of its own that makes the class."""


class RefusedError(TypeError):
    """An object lives in one process, so there is no way to send it."""


# Functions.


def _function(stream: Stream, function: FunctionType) -> Any:
    if imports.have(function):
        return NotImplemented
    code, names, closure = function.__code__, function.__globals__, function.__closure__
    key, marshalled = _code_of(code)
    if stream.definitions is not None:
        stream.definitions.setdefault(key, marshalled)
        marshalled = None  # type: ignore[assignment]
    where: str | dict[str, Any]
    carried: dict[str, Any] = {}
    if rebuilding.is_module_dict(names) and not imports.lacks(names["__name__"]):
        where = names["__name__"]
    else:
        carried = globals_read(code, names)
        stand_in = {"__name__": names.get("__name__", "__main__")}
        where = stream.stand_ins.setdefault(id(names), stand_in)
    special = _special(function, code, names)
    if not (special or closure or carried or function.__dict__):
        return rebuilding.make_function, (key, marshalled, where)
    state = (special, function.__dict__, _new_cells(stream, closure or ()), carried)
    made = (key, marshalled, where, closure)
    return rebuilding.make_function, made, state, None, None, rebuilding.fill_function


def _code_of(code: CodeType) -> tuple[bytes, bytes]:
    known = _marshalled.get(code)
    if known is None:
        marshalled = marshal.dumps(code)
        known = blake2b(marshalled, digest_size=16).digest(), marshalled
        _marshalled.set(code, known)
    return known


def _special(function: FunctionType, code: CodeType, names: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that are not as the code alone makes them."""
    special: dict[str, Any] = {}
    if function.__defaults__:
        special["__defaults__"] = function.__defaults__
    if function.__kwdefaults__:
        special["__kwdefaults__"] = function.__kwdefaults__
    doc, constants = function.__doc__, code.co_consts
    if doc is not None and not (constants and constants[0] is doc):
        special["__doc__"] = doc
    if function.__name__ != code.co_name:
        special["__name__"] = function.__name__
    if function.__qualname__ != code.co_qualname:
        special["__qualname__"] = function.__qualname__
    if function.__module__ != names.get("__name__"):
        special["__module__"] = function.__module__
    annotations = _annotations(function)
    if annotations:
        special["__annotations__"] = annotations
    return special


def _annotations(function: FunctionType) -> dict[str, Any]:
    """Return the annotations that a reference can express: the rest must not bar the way."""
    try:
        annotations = function.__annotations__
    except Exception:  # noqa: BLE001 - Python 3.14 evaluates them here: a user's expressions
        return {}
    if not annotations:
        return annotations
    return {
        name: value
        for name, value in annotations.items()
        if isinstance(value, str) or (isinstance(value, type) and imports.have(value))
    }


def _new_cells(stream: Stream, closure: tuple[CellType, ...]) -> Cells:
    """Return the cells which are new to the stream, with their contents.

    The function is made with them empty and filled after it is known to the stream, for
    what is in them may be the function itself.
    """
    fresh = [cell for cell in closure if id(cell) not in stream.cells]
    stream.cells.update(map(id, fresh))
    return tuple((cell, _contents(cell)) for cell in fresh)


def _cell(stream: Stream, cell: CellType) -> Any:
    if id(cell) in stream.cells:
        return rebuilding.make_cell, ()
    stream.cells.add(id(cell))
    return rebuilding.make_cell, (), _contents(cell), None, None, rebuilding.fill_cell


def _contents(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _code(_: Stream, code: CodeType) -> Any:
    return rebuilding.load_code, _code_of(code)


def _method(_: Stream, method: MethodType) -> Any:
    found = getattr(method.__self__, getattr(method, "__name__", ""), None)
    if isinstance(found, MethodType) and found.__func__ is method.__func__:
        return NotImplemented
    return rebuilding.make_method, (method.__func__, method.__self__)


def _cached(_: Stream, cached: Any) -> Any:
    if imports.have(cached):
        return cached.__qualname__
    size = cached.cache_parameters()
    return rebuilding.make_cached, (cached.__wrapped__, size["maxsize"], size["typed"])


# Classes.


def _class(stream: Stream, cls: type) -> Any:
    if not cls.__flags__ & rebuilding.HEAP_TYPE:
        return NotImplemented
    if imports.have(cls):  # the name, whatever the metaclass has told copyreg
        return NotImplemented if type(cls) is type else cls.__qualname__
    if stream.defining:
        return _defined(cls)
    class_id = rebuilding.identify(cls)
    version, definition = _definition_of(stream, cls)
    key = rebuilding.class_key(class_id, version)
    if stream.definitions is None:
        return rebuilding.load_class, (key, definition)
    stream.definitions.setdefault(key, definition)
    return rebuilding.load_class, (key,)


def _definition_of(stream: Stream, cls: type) -> tuple[int, bytes]:
    """Return the version of a class, and the stream that makes it.

    It is pickled once, and anew where it may have changed: at the root of a run whose workers
    stand apart, for each call; elsewhere, if another version has come.
    """
    came = rebuilding.version_that_came(cls)
    stamp = imports.epoch if came is None else came
    known = _definitions.get(cls)
    if known is not None and known[0] == stamp:
        return known[1:]
    definition = stream.define(cls)
    version = known[1] if known is not None and known[2] == definition else stamp
    _definitions.set(cls, (stamp, version, definition))
    return version, definition


def _defined(cls: type) -> Any:
    own = vars(cls)
    body = {name: own[name] for name in _IN_THE_BODY if name in own}
    body["__qualname__"] = cls.__qualname__
    attributes = {name: value for name, value in own.items() if _is_carried(name, value)}
    state: Any = attributes
    fill: Callable[..., None] = rebuilding.fill_class
    if issubclass(cls, Enum):
        body |= {name: member.value for name, member in cls.__members__.items()}
        state, fill = _enum_state(cls, attributes), rebuilding.fill_enum
    bases, meta = cls.__bases__, _metaclass(cls)
    arguments = (rebuilding.identify(cls), meta, cls.__name__, bases, body, is_held(cls))
    return rebuilding.make_class, arguments, state, None, None, fill


def _metaclass(cls: type) -> type | int:
    """Return the metaclass, or which base has it: those in C often have no name to go by."""
    meta: Any = type(cls)
    if meta is type or meta.__flags__ & rebuilding.HEAP_TYPE:
        return meta  # type: ignore[no-any-return]
    return next((n for n, base in enumerate(cls.__bases__) if type(base) is meta), meta)


def _is_carried(name: str, value: Any) -> bool:
    if name in _NOT_CARRIED:
        return False
    made_with_the_class = isinstance(value, (MemberDescriptorType, GetSetDescriptorType))
    return not (made_with_the_class or type(value).__module__ == "_ctypes")


def _enum_state(
    cls: type[Enum], attributes: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    kept = {
        name: value
        for name, value in attributes.items()
        if name not in cls.__members__
        and name not in ("__new__", "__new_member__")
        and (name in _ENUM_HOOKS or not _is_sunder(name))
    }
    members = {
        member.name: {key: value for key, value in vars(member).items() if key[:1] != "_"}
        for member in cls.__members__.values()
    }
    return kept, members


def _is_sunder(name: str) -> bool:
    return name[:1] == name[-1:] == "_" and name[:2] != "__"


def _type_variable(_: Stream, variable: Any) -> Any:
    home = variable.__module__
    there = getattr(sys.modules.get(home), variable.__name__, None) is variable
    if there and not imports.lacks(home):
        return NotImplemented
    keywords = {"covariant": variable.__covariant__, "contravariant": variable.__contravariant__}
    if variable.__bound__ is not None:
        keywords["bound"] = variable.__bound__
    made = (TypeVar, variable.__name__, variable.__constraints__, keywords)
    return rebuilding.load_variable, (rebuilding.identify(variable), *made)


# Data.


def _array(_: Stream, array: Any) -> Any:
    """Take a small array of numbers apart as NumPy does, which takes three times as long.

    Its own way imports a module for each array, and asks the pickler where the buffer goes.
    """
    flags, dtype = array.flags, array.dtype
    if (
        not 0 < array.nbytes <= _COPIED
        or dtype.kind not in "biufc"
        or not (flags.c_contiguous and flags.writeable)
    ):
        return NotImplemented
    kind: Any = type(array)
    return _array_maker(kind), (bytearray(array), dtype, array.shape, "C")


@lru_cache
def _array_maker(kind: Any) -> Any:
    return kind(1).__reduce_ex__(5)[0]


# What is in classes.


def _property(_: Stream, prop: property) -> Any:
    return property, (prop.fget, prop.fset, prop.fdel, prop.__doc__)


def _wrapper(_: Stream, wrapper: Any) -> Any:
    return type(wrapper), (wrapper.__func__,)


def _cached_property(_: Stream, prop: cached_property[Any]) -> Any:
    return cached_property, (prop.func,), {"attrname": prop.attrname, "__doc__": prop.__doc__}


def _sentinel(_: Stream, obj: Any) -> Any:
    """Name what the module of its class holds: it is compared by ``is``."""
    names = vars(sys.modules[type(obj).__module__])
    return next((name for name, value in names.items() if value is obj), NotImplemented)


def _proxy(_: Stream, proxy: Any) -> Any:
    return rebuilding.make_proxy, (dict(proxy),)


# Modules, exceptions, files.


def _module(_: Stream, module: ModuleType) -> Any:
    name = module.__name__
    known = sys.modules.get(name) is module
    if known and (name == "__main__" or module.__spec__ is not None):
        return import_module, (name,)
    names = {key: value for key, value in vars(module).items() if key[:2] != "__"}
    return rebuilding.make_module, (name, module.__doc__), names


def _exception(_: Stream, exc: BaseException) -> Any:
    state = state_of(exc)
    made = (type(exc), arguments_of(exc))
    return make_exception, made, state or None, None, None, fill_exception if state else None


def _text_file(_: Stream, file: io.TextIOWrapper) -> Any:
    for name in ("stdin", "stdout", "stderr"):
        if file is getattr(sys, name) or file is getattr(sys, f"__{name}__"):
            return getattr, (sys, name)
    return _refuse(_, file)


def _refuse(_: Stream, obj: Any) -> Any:
    kind = type(obj)
    home = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    name = f"{home}{kind.__qualname__}"
    raise RefusedError(f"cannot pickle {name!r} object; {_advice(kind)}")


def _advice(kind: type) -> str:
    if kind in (GeneratorType, AsyncGeneratorType):
        return "return or pass a list of what it yields"
    if kind is CoroutineType:
        return "run it where it was made, and send what it returns"
    if issubclass(kind, io.IOBase):
        return "send the name of the file, and open it where it is read"
    return "it lives in the process that made it; make it in the task that needs it"


# The table.


def _refused() -> list[type]:
    from _thread import LockType, RLock

    files = [io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom]
    frames: list[type] = [FrameType, TracebackType, GeneratorType, AsyncGeneratorType]
    return [LockType, RLock, CoroutineType, *files, *frames]


_FIXED: dict[type, Rule | None] = {
    **dict.fromkeys(_refused(), _refuse),
    **dict.fromkeys((staticmethod, classmethod), _wrapper),
    FunctionType: _function,
    CellType: _cell,
    CodeType: _code,
    MethodType: _method,
    ModuleType: _module,
    MappingProxyType: _proxy,
    TypeVar: _type_variable,
    cached_property: _cached_property,
    io.TextIOWrapper: _text_file,
    property: _property,
    type: _class,
    type(lru_cache(lambda: None)): _cached,
}
_loose: WeakIdentity[tuple[Rule | None]] = WeakIdentity()


class Rules(dict[type, Any]):
    """The rule for objects of exactly a type, None for those that are left to pickle."""

    def __missing__(self, kind: type) -> Rule | None:
        """Find the rule for a type that is new here; keep no class alive for it."""
        known = _loose.get(kind)
        if known is not None:
            return known[0]
        rule = _found(kind)
        if not is_held(kind):
            _loose.set(kind, (rule,))
            return rule
        if len(self) > _MOST_KINDS:
            self.forget()
        self[kind] = rule
        return rule

    def forget(self) -> None:
        """Find all rules anew but those that are fixed."""
        self.clear()
        self.update(_FIXED)


rules = Rules(_FIXED)


def _found(kind: type) -> Rule | None:
    if issubclass(kind, type):
        return _class
    if issubclass(kind, BaseException) and _has_constructor(kind):
        return _exception
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return _array
    if kind.__module__ == "dataclasses" and kind.__name__[0] == "_":
        return _sentinel
    if kind.__module__ in ("_socket", "socket") and kind.__name__ == "socket":
        return _refuse
    return None


def _has_constructor(kind: type[BaseException]) -> bool:
    """Tell whether a class of exceptions has a constructor of its own, and pickles by default."""
    own: Any = kind
    plain = own.__reduce__ in _REDUCTIONS and own.__reduce_ex__ is object.__reduce_ex__
    return plain and isinstance(own.__init__, FunctionType) and "__setstate__" not in _own(own)


def _own(kind: type) -> set[str]:
    return {name for base in kind.__mro__ if base.__module__ != "builtins" for name in vars(base)}


_REDUCTIONS = (BaseException.__reduce__, OSError.__reduce__, ImportError.__reduce__)
