"""A mapping from objects by identity that keeps none of them alive.

What users hand over (functions, classes, callables of their own) is known by what it is,
never by ``==`` or ``hash``: an array compares element by element, an estimator has no
hash before it is fitted, and two callables that are equal may compute different things.

An entry goes when its object does, so the number that ``id`` gives can be used again.

Threads: any; each operation is one step of a dictionary.

Rejected: ``WeakKeyDictionary``, which asks the objects for ``==`` and ``hash``.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar
from weakref import ref

Value = TypeVar("Value")


class WeakIdentity(Generic[Value]):
    """Values by the identity of weakly held objects."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[int, tuple[ref[Any], Value]] = {}

    def get(self, obj: object) -> Value | None:
        """Return the value of an object, None if it has none."""
        entry = self._entries.get(id(obj))
        return entry[1] if entry is not None and entry[0]() is obj else None

    def set(self, obj: Any, value: Value) -> None:
        """Give an object a value.

        Raises:
            TypeError: the object cannot be held weakly.
        """
        entries, key = self._entries, id(obj)

        def gone(dead: ref[Any]) -> None:
            entry = entries.get(key)
            if entry is not None and entry[0] is dead:
                entries.pop(key, None)

        entries[key] = (ref(obj, gone), value)

    def drop(self, obj: object) -> None:
        """Take the value of an object away, if it has one."""
        self._entries.pop(id(obj), None)

    def __len__(self) -> int:
        return len(self._entries)
