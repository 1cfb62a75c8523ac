"""Pickling what plain pickle cannot: code by value, on top of dill.

The noun is :class:`ByValuePickler`, a ``dill.Pickler`` with its own rules where
dill's would surprise a program that runs on many workers:

* What a module (``__main__`` too) holds under its name goes by reference, since
  every worker runs the same program.  dill copies all of ``__main__``, and keeps
  the main module of the time of its import, which is the wrong one under runpy.
* A class of a function keeps its identity (:mod:`dtm.wire.rebuilding`); so do cells
  which functions share, and functions that hold themselves.
* A module goes by name.  dill would write the sender's variables of a user's module
  over the receiver's.
* What lives in one process (locks, files, sockets, capsules) is refused.  dill's
  copies of a held lock never open, and a file copied in mode "w" is emptied.

All else (properties, mapping proxies, dataclass fields, weak references, ...) is
dill's.  It warns in places that these rules no longer reach, so nothing has to
filter warnings, which could not be done for one thread alone.

Threads: any; a pickler belongs to one call.  Importing this module imports dill
(some 70 ms), so :mod:`dtm.wire.pickling` does so when pickle has failed.

Rejected: ``dill.dumps(recurse=True)``: it guesses which globals a function reads,
copies them, and makes a new class of every class at every arrival.
"""

from __future__ import annotations

import io
import marshal
import sys
from collections.abc import Callable
from enum import Enum
from functools import cached_property, partial
from importlib import import_module
from pickle import POP, PickleBuffer, PicklingError, _Pickler
from types import (
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any
from weakref import WeakKeyDictionary

import dill  # type: ignore[import-untyped]

from dtm.wire import rebuilding

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made at run time, not compiled in
_IN_THE_BODY = ("__module__", "__qualname__", "__slots__", "__orig_bases__")
_NOT_CARRIED = frozenset({*_IN_THE_BODY, "__dict__", "__weakref__", "_abc_impl"})
_SPECIAL = ("__defaults__", "__kwdefaults__", "__doc__", "__qualname__", "__module__")
_ENUM_HOOKS = frozenset({"_missing_", "_generate_next_value_"})

_definitions: WeakKeyDictionary[type, bytes] = WeakKeyDictionary()


def dumps(obj: Any, out_of_band: Callable[[PickleBuffer], Any] | None = None) -> bytes:
    """Return a pickle that ``pickle.loads`` reads; raises what the object raises."""
    file = io.BytesIO()
    dump(obj, file, out_of_band)
    return file.getvalue()


def dump(obj: Any, file: Any, out_of_band: Callable[[PickleBuffer], Any] | None = None) -> None:
    """Write such a pickle to ``file``, of which only ``write`` is used."""
    ByValuePickler(file, protocol=5, buffer_callback=out_of_band).dump(obj)


def is_importable(obj: Any) -> bool:
    """Tell whether a module holds ``obj`` under its name, so that a reference is enough."""
    found: Any = sys.modules.get(getattr(obj, "__module__", None) or "")
    if found is None:
        return False
    try:
        for part in obj.__qualname__.split("."):
            found = getattr(found, part)
    except AttributeError:
        return False
    return found is obj


class ByValuePickler(dill.Pickler):  # type: ignore[misc]
    """Writes one stream.

    Attributes:
        defining: whether the stream is the definition of a class; classes that it
            mentions are then part of it, since they may mention it in turn.
        stand_ins: for the globals of no module, the dict that takes their place.
    """

    def __init__(self, *args: Any, defining: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.defining = defining
        self.stand_ins: dict[int, dict[str, Any]] = {}


def _save_function(pickler: ByValuePickler, function: FunctionType) -> None:
    if is_importable(function):
        pickler.save_global(function)
        return
    code, names = function.__code__, function.__globals__
    carried: dict[str, Any] = {}
    if not rebuilding.is_module_dict(names):
        carried = {name: names[name] for name in _names_read(code) if name in names}
        stand_in = {"__name__": names.get("__name__", "__main__")}
        names = pickler.stand_ins.setdefault(id(names), stand_in)
    state = (
        {name: getattr(function, name) for name in _SPECIAL}
        | {"__annotations__": _annotations(function)},
        vars(function),
        _declare_cells(pickler, function.__closure__ or ()),
        carried,
    )
    arguments = (code, names, function.__name__, function.__closure__)
    pickler.save_reduce(
        rebuilding.make_function,
        arguments,
        state,
        state_setter=rebuilding.fill_function,
        obj=function,
    )


def _declare_cells(
    pickler: ByValuePickler, closure: tuple[CellType, ...]
) -> tuple[tuple[CellType, tuple[Any, ...]], ...]:
    """Write the cells which are new to the stream, empty; return them with their contents."""
    fresh = [cell for cell in closure if id(cell) not in pickler.memo]
    for cell in fresh:
        pickler.save_reduce(rebuilding.make_cell, (), obj=cell)
        pickler.write(POP)
    return tuple((cell, _contents(cell)) for cell in fresh)


def _save_cell(pickler: ByValuePickler, cell: CellType) -> None:
    make, fill = rebuilding.make_cell, rebuilding.fill_cell
    pickler.save_reduce(make, (), _contents(cell), state_setter=fill, obj=cell)


def _contents(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _annotations(function: FunctionType) -> dict[str, Any]:
    """Return the annotations that a reference can express: the rest must not bar the way."""
    try:
        annotations = function.__annotations__
    except Exception:  # noqa: BLE001 - Python 3.14 evaluates them here: a user's expressions
        return {}
    return {
        name: value
        for name, value in annotations.items()
        if isinstance(value, str) or (isinstance(value, type) and is_importable(value))
    }


def _names_read(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_read(constant)
    return names


def _save_dict(pickler: ByValuePickler, names: dict[str, Any]) -> None:
    if "__name__" in names and rebuilding.is_module_dict(names):
        pickler.save_reduce(rebuilding.module_globals, (names["__name__"],), obj=names)
    else:
        _Pickler.save_dict(pickler, names)  # type: ignore[attr-defined]


def _save_module(pickler: ByValuePickler, module: ModuleType) -> None:
    if sys.modules.get(module.__name__) is not module:
        message = f"cannot pickle module {module.__name__!r}: it cannot be imported"
        raise PicklingError(message)
    pickler.save_reduce(import_module, (module.__name__,), obj=module)


def _save_code(pickler: ByValuePickler, code: CodeType) -> None:
    pickler.save_reduce(marshal.loads, (marshal.dumps(code),), obj=code)


def _save_class(pickler: ByValuePickler, cls: type) -> None:
    if is_importable(cls) or cls in (type(None), type(...), type(NotImplemented)):
        _Pickler.save_type(pickler, cls)  # type: ignore[attr-defined]
    elif not cls.__flags__ & _HEAP_TYPE:
        dill.Pickler.dispatch[type](pickler, cls)
    elif pickler.defining:
        _define_class(pickler, cls)
    else:
        arguments = (rebuilding.identify(cls), _definition(cls))
        pickler.save_reduce(rebuilding.load_class, arguments, obj=cls)


def _definition(cls: type) -> bytes:
    """Return the stream that makes the class, pickled once: later changes do not travel."""
    known = _definitions.get(cls)
    if known is None:
        file = io.BytesIO()
        ByValuePickler(file, protocol=5, defining=True).dump(cls)
        known = _definitions.setdefault(cls, file.getvalue())
    return known


def _define_class(pickler: ByValuePickler, cls: type) -> None:
    own = vars(cls)
    body = {name: own[name] for name in _IN_THE_BODY if name in own}
    body["__qualname__"] = cls.__qualname__
    attributes = {name: value for name, value in own.items() if _is_carried(name, value)}
    state: Any = attributes
    fill: Callable[..., None] = rebuilding.fill_class
    if issubclass(cls, Enum):
        body |= {name: member.value for name, member in cls.__members__.items()}
        state, fill = _enum_state(cls, attributes), rebuilding.fill_enum
    arguments = (rebuilding.identify(cls), type(cls), cls.__name__, cls.__bases__, body)
    pickler.save_reduce(rebuilding.make_class, arguments, state, state_setter=fill, obj=cls)


def _is_carried(name: str, value: Any) -> bool:
    if name in _NOT_CARRIED:
        return False
    return not isinstance(value, (MemberDescriptorType, GetSetDescriptorType))


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


def _save_cached_property(pickler: ByValuePickler, prop: cached_property[Any]) -> None:
    state = {"attrname": prop.attrname, "__doc__": prop.__doc__}
    pickler.save_reduce(cached_property, (prop.func,), state, obj=prop)


def _save_text_file(pickler: ByValuePickler, file: io.TextIOWrapper) -> None:
    for name in ("stdin", "stdout", "stderr"):
        if file is getattr(sys, name) or file is getattr(sys, f"__{name}__"):
            pickler.save_reduce(getattr, (sys, name), obj=file)
            return
    _refuse(pickler, file)


def _refuse(_pickler: ByValuePickler, obj: Any) -> None:
    message = f"cannot pickle {type(obj).__module__}.{type(obj).__qualname__!s} object"
    raise TypeError(message)


class _Dispatch(dict[type, Any]):
    """Our rules by type, then dill's (which grow at run time); None: let the object reduce."""

    def get(self, kind: type, default: Any = None) -> Any:
        """Return what saves objects of exactly this type."""
        if kind in self:
            return self[kind]
        if issubclass(kind, type):
            return _save_class
        if (kind.__module__, kind.__name__) == ("numpy", "ndarray"):
            return None  # dill would copy what its own reduction leaves out of band
        return dill.Pickler.dispatch.get(kind, default)


def _refused_types() -> dict[type, Any]:
    from _thread import LockType, RLock

    process_bound = [io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom]
    capsule = getattr(dill._dill, "PyCapsuleType", None)  # noqa: SLF001 - it has no other name
    kinds = [LockType, RLock, *process_bound, *([capsule] if capsule else [])]
    return dict.fromkeys(kinds, _refuse)


ByValuePickler.dispatch = _Dispatch(
    {
        **_refused_types(),
        **dict.fromkeys((partial, range, slice, MethodType), None),
        FunctionType: _save_function,
        CellType: _save_cell,
        dict: _save_dict,
        ModuleType: _save_module,
        CodeType: _save_code,
        type: _save_class,
        cached_property: _save_cached_property,
        io.TextIOWrapper: _save_text_file,
    }
)
