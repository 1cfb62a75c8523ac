"""Which part of an object cannot travel, and why: for a person who has to mend it.

The search goes down from the object by its items, attributes and closure variables, and is
bounded in depth and in the number of parts tried: it must not take longer than the
failure is worth.

Threads: any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

_SEARCHED_CHILDREN = 100
_SEARCHED_DEPTH = 8


Failure = Callable[[Any], Exception | None]
"""Says why an object cannot be pickled, None if it can."""


def first_failure(items: Iterable[Any], base: int, failure: Failure) -> tuple[int, str] | None:
    """Return the index, counted from ``base``, and the reason of the first item that fails."""
    for index, item in enumerate(items, base):
        error = failure(item)
        if error is not None:
            where, cause = _locate(item, error, failure)
            return index, _reason(cause) + (f" (in {where})" if where else "")
    return None


def explain(obj: Any, error: Exception, failure: Failure) -> str:
    """Return the sentence that says what of an object cannot be pickled, and why."""
    where, cause = _locate(obj, error, failure)
    return f"cannot pickle {where or _kind(obj)}: {_reason(cause)}"


def _locate(obj: Any, error: Exception, failure: Failure) -> tuple[str, Exception]:
    """Return the path to the part of ``obj`` that cannot be pickled, and the error it gives."""
    path, tries = "", _SEARCHED_CHILDREN
    for _ in range(_SEARCHED_DEPTH):
        for step, part in _parts(obj):
            if tries == 0:
                return path.lstrip(), error
            tries -= 1
            inner = failure(part)
            if inner is not None:
                path, obj, error = path + step, part, inner
                break
        else:
            break
    return path.lstrip(), error


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
        return f"{type(error).__name__}: {error}".replace("RefusedError:", "TypeError:", 1)
    except Exception:  # noqa: BLE001 - a user's __str__
        return type(error).__name__
