"""What the pickler in C cannot do: dill's pickler, with the rules for code on top.

dill knows many types of the standard library (views of dictionaries, weak references, ...).
Its own ways with functions, classes and modules are not used: it copies all of ``__main__``,
keeps the main module of the time of its import, which is the wrong one under runpy, makes a
new class at every arrival, and writes the sender's variables over the receiver's.

dill warns in places that these rules no longer reach, so nothing has to
filter warnings, which could not be done for one thread alone.

Threads: any; a pickler belongs to one call.  Importing this module imports dill
(some 70 ms), so :mod:`dtm.wire.pickling` does so when all else has failed.

Rejected: ``dill.dumps(recurse=True)``: it guesses which globals a function reads,
copies them, and makes a new class of every class at every arrival.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pickle import PickleBuffer, _Pickler
from typing import Any

import dill  # type: ignore[import-untyped]

from dtm.wire import rebuilding
from dtm.wire.reductions import RefusedError, rules


def dumps(
    obj: Any, define: Callable[[type], bytes], out_of_band: Any = None, *, defining: bool = False
) -> bytes:
    """Return a pickle that ``pickle.loads`` reads; raises what the object raises.

    ``define`` makes the definitions of classes.
    """
    file = io.BytesIO()
    pickler = LastResort(file, protocol=5, buffer_callback=out_of_band)
    pickler.defining = defining
    pickler.define = define
    pickler.dump(obj)
    return file.getvalue()


class LastResort(dill.Pickler):  # type: ignore[misc]
    """Writes one stream; see :class:`dtm.wire.reductions.Stream`."""

    definitions = None
    defining = False
    define: Callable[[type], bytes]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cells: set[int] = set()
        self.stand_ins: dict[int, dict[str, Any]] = {}


def _save_by_rule(pickler: Any, obj: Any) -> None:
    reduced = rules[type(obj)](pickler, obj)
    if reduced is NotImplemented:
        if isinstance(obj, type) and not obj.__flags__ & rebuilding.HEAP_TYPE:
            dill.Pickler.dispatch[type](pickler, obj)
        elif callable(obj) and hasattr(obj, "__qualname__") and not hasattr(obj, "__self__"):
            pickler.save_global(obj)
        else:
            pickler.save_reduce(*obj.__reduce_ex__(5), obj=obj)
    elif isinstance(reduced, str):
        pickler.save_global(obj, reduced)
    else:
        pickler.save_reduce(*reduced, obj=obj)


def _save_dict(pickler: Any, names: dict[str, Any]) -> None:
    if "__name__" in names and rebuilding.is_module_dict(names):
        pickler.save_reduce(rebuilding.module_globals, (names["__name__"],), obj=names)
    else:
        _Pickler.save_dict(pickler, names)  # type: ignore[attr-defined]


def _save_buffer(pickler: Any, buffer: PickleBuffer) -> None:
    """Write a buffer; pickle's own way fails if two small ones share one object in Python."""
    callback = pickler._buffer_callback  # noqa: SLF001 - of the class that this one extends
    if callback is None or callback(buffer):
        with buffer.raw() as raw:
            pickler.save(bytes(raw) if raw.readonly else bytearray(raw))
    else:
        callback_done = pickler._buffer_callback  # noqa: SLF001 - as above
        pickler._buffer_callback = None  # noqa: SLF001 - it has been asked
        try:
            pickler.write(b"\x97")  # NEXT_BUFFER
            with buffer.raw() as raw:
                if raw.readonly:
                    pickler.write(b"\x98")  # READONLY_BUFFER
        finally:
            pickler._buffer_callback = callback_done  # noqa: SLF001 - as above


def _refuse_capsule(_pickler: Any, obj: Any) -> None:
    raise RefusedError(f"cannot pickle {type(obj).__qualname__!r} object; it is memory of C code")


class _Dispatch(dict[type, Any]):
    """Our rules by type, then dill's (which grow at run time); None: let the object reduce."""

    def get(self, kind: type, default: Any = None) -> Any:
        """Return what saves objects of exactly this type."""
        if kind in self:
            return self[kind]
        if rules[kind] is not None:
            return _save_by_rule
        if kind.__module__ in ("functools", "numpy") or kind in (range, slice):
            return None  # dill would copy what its own reduction leaves out of band
        return dill.Pickler.dispatch.get(kind, default)


def _capsules() -> dict[type, Any]:
    capsule = getattr(dill._dill, "PyCapsuleType", None)  # noqa: SLF001 - it has no other name
    return {capsule: _refuse_capsule} if capsule else {}


LastResort.dispatch = _Dispatch({**_capsules(), dict: _save_dict, PickleBuffer: _save_buffer})
