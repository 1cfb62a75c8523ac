"""Objects to frames and back.

The first frame is a pickle of protocol 5.  The frames behind it are the memory of
large buffers (64 KiB and more: arrays, mostly), not copied; smaller ones are part
of the pickle, since a frame of its own costs more than copying them.

Plain pickle, in C, is always tried first and is the whole cost of what it can do.
What it refuses goes by value (:mod:`dtm.wire.byvalue`, slower by a factor of ten to
fifty): lambdas, closures, what is defined inside functions.  Both write streams
that ``loads`` reads alike, so a reader need not know which one it was.

Invariants: ``loads(dumps(x))`` has the type of ``x``, with the very class of it,
also when the class was made inside a function and the object went round through
other workers.  A large buffer that was writable is writable at its arrival.  The
frames share memory with the object: who changes an array while its frames are on
their way out sends a mixture.

Threads: any.

Rejected: dill for everything (a hundred times slower on small things), and a flag
that says which reader to use (one reader will do).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from pickle import PickleBuffer
from typing import Any, Final

from dtm.comm.base import Frame
from dtm.errors import SerializationError

LARGE: Final = 1 << 16
"""Buffers of this many bytes or more travel as frames of their own."""

_SEARCHED_CHILDREN = 100
_SEARCHED_DEPTH = 8

_c_dumps = pickle.dumps
_c_loads = pickle.loads


def dumps(obj: Any) -> list[Frame]:
    """Return the frames of an object.

    Raises:
        SerializationError: it cannot be pickled; the message says what of it, and why.
    """
    frames: list[Frame] = []

    def keep_in_band(buffer: PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        frames.append(raw)
        return False

    try:
        return [_c_dumps(obj, 5, buffer_callback=keep_in_band), *frames]
    except Exception:  # noqa: BLE001 - the object's own methods may raise anything
        frames.clear()
    return [_dumps_by_value(obj, keep_in_band), *frames]


def dumps_flat(obj: Any) -> bytes:
    """Return an object as one piece of bytes, to be kept or compared; raises as ``dumps``."""
    try:
        return _c_dumps(obj, 5)
    except Exception:  # noqa: BLE001 - the object's own methods may raise anything
        return _dumps_by_value(obj, None)


def loads(frames: Sequence[Frame]) -> Any:
    """Return the object of these frames; raises what its class raises on being loaded."""
    if len(frames) == 1:
        return _c_loads(frames[0])
    return _c_loads(frames[0], buffers=[_writable(frame) for frame in frames[1:]])


def _writable(frame: Frame) -> Frame:
    # pickle itself makes those read-only again that were so at the sender.
    return bytearray(frame) if memoryview(frame).readonly else frame


def _dumps_by_value(obj: Any, keep_in_band: Any) -> bytes:
    try:
        return _byvalue_dumps(obj, keep_in_band)
    except Exception as error:
        where, cause = _locate(obj, error)
        message = f"cannot pickle {where or _kind(obj)}: {_reason(cause)}"
        raise SerializationError(message) from error


def _byvalue_dumps(obj: Any, keep_in_band: Any = None) -> bytes:
    from dtm.wire import byvalue

    return byvalue.dumps(obj, keep_in_band)


def culprit(items: Iterable[Any], base: int = 0) -> tuple[int, str] | None:
    """Return the index and the reason of the first item that cannot be pickled, if any.

    ``base`` is the index of the first item.  The reason reads like
    ``"TypeError: cannot pickle '_thread.lock' object (in .state['lock'])"``.
    """
    for index, item in enumerate(items, base):
        error = _failure(item)
        if error is not None:
            where, cause = _locate(item, error)
            return index, _reason(cause) + (f" (in {where})" if where else "")
    return None


def _failure(obj: Any) -> Exception | None:
    """Return why an object cannot be pickled, None if it can."""
    try:
        _c_dumps(obj, 5, buffer_callback=_out_of_band)
    except Exception:  # noqa: BLE001 - the object's own methods may raise anything
        try:
            _byvalue_dumps(obj, _out_of_band)
        except Exception as error:  # noqa: BLE001 - as above
            return error
    return None


def _out_of_band(_buffer: PickleBuffer) -> bool:
    return False


def _locate(obj: Any, error: Exception) -> tuple[str, Exception]:
    """Return the path to the part of ``obj`` that cannot be pickled, and the error it gives.

    Bounded in depth, and in the number of parts that are tried: it is help for a
    person, and must not take longer than the failure is worth.
    """
    path, tries = "", _SEARCHED_CHILDREN
    for _ in range(_SEARCHED_DEPTH):
        for step, part in _parts(obj):
            if tries == 0:
                return path, error
            tries -= 1
            inner = _failure(part)
            if inner is not None:
                path, obj, error = path + step, part, inner
                break
        else:
            return path, error
    return path, error


def _parts(obj: Any) -> list[tuple[str, Any]]:
    kind = type(obj)
    parts: list[tuple[str, Any]]
    if kind in (list, tuple):
        parts = [(f"[{index}]", part) for index, part in enumerate(obj[:_SEARCHED_CHILDREN])]
    elif kind is dict:
        keys = list(obj)[:_SEARCHED_CHILDREN]
        parts = [(f"[{_short(key)}]", obj[key]) for key in keys]
    else:
        attributes = getattr(obj, "__dict__", None)
        parts = []
        if type(attributes) is dict and not isinstance(obj, type):
            parts += [(f".{name}", part) for name, part in attributes.items()]
        code, cells = getattr(obj, "__code__", None), getattr(obj, "__closure__", None)
        for name, cell in zip(getattr(code, "co_freevars", ()), cells or (), strict=False):
            parts.append((f" variable {name}", getattr(cell, "cell_contents", None)))
    return parts[:_SEARCHED_CHILDREN]


def _kind(obj: Any) -> str:
    return f"a {type(obj).__module__}.{type(obj).__qualname__}"


def _short(obj: Any) -> str:
    try:
        text = repr(obj)
    except Exception:  # noqa: BLE001 - a user's __repr__
        return _kind(obj)
    return text if len(text) <= 60 else text[:57] + "..."


def _reason(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a user's __str__
        return type(error).__name__
