"""What ``dtm.share`` returns: the name of an object, which travels as a few bytes.

A handle has a value or a key.  Where it was made it holds the object itself.  Elsewhere it has the
key, and asks the run for the object when its value is first needed.  All copies of a handle in
one process are one object, so "somebody here uses it" is "the handle lives".

The run is behind ``here.table`` (:mod:`dtm.run.handles`), None outside of one.

Whoever writes frames that are really sent collects the handles in them, and whoever keeps what
it has read those that came with it (``collecting_pickled``, ``collecting_loaded``): each thread
its own.

Threads: any.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from dtm.comm.base import Frame

T = TypeVar("T")

Key = tuple[int, int, bytes]
"""The owner's rank, a number, and what tells its process from all others."""


class Table(Protocol):
    """What a run does for the handles in its process."""

    def adopt(self, handle: Handle[Any]) -> Key:
        """Give a handle that was made here its key."""

    def arrived(self, key: Key, size: int) -> Handle[Any]:
        """Return the handle with this key."""

    def fetch(
        self, handle: Handle[Any], load: Callable[[Sequence[Frame]], Any] | None = None
    ) -> Any:
        """Return the value of a handle that was made elsewhere, once its frames have come."""


class _Here:
    table: Table | None = None


class _Passing(threading.local):
    out: list[Handle[Any]] | None = None
    into: list[Handle[Any]] | None = None


here = _Here()
_passing = _Passing()
_NOTHING: Any = object()


class Handle(Generic[T]):
    """An object that any worker can look at; made by :func:`dtm.share`."""

    __slots__ = ("__weakref__", "_value", "frames", "key", "lock", "size")

    def __init__(self, value: T = _NOTHING, key: Key | None = None, size: int = 0) -> None:
        self._value = value
        self.key = key
        self.size = size
        self.frames: Sequence[Frame] | None = None
        self.lock = threading.Lock()

    @property
    def value(self) -> T:
        """The object: itself on the worker that shared it, elsewhere a copy for all tasks there.

        The first look at it on a worker waits until it has come.  Arrays in a copy are read-only.

        Raises:
            RunStateError: the run is over, or this is no worker of it, and the object is elsewhere.
            SerializationError: it cannot be pickled, or not be loaded here.
        """
        if self._value is _NOTHING:
            table = here.table
            if table is None:
                from dtm.errors import RunStateError

                raise RunStateError(
                    f"{self!r} has no value here: what is shared lives as long as the run, on its "
                    "workers"
                )
            value = table.fetch(self)
            with self.lock:
                if self._value is _NOTHING:
                    self._value = value
        return self._value

    @property
    def is_here(self) -> bool:
        """Whether the object is in this process."""
        return self._value is not _NOTHING

    def __reduce__(self) -> Any:
        table = here.table
        if self.key is None:
            if table is None:
                return Handle, (self._value,)
            table.adopt(self)
        if _passing.out is not None:
            _passing.out.append(self)
        return _arrive, (self.key, self.size)

    def __copy__(self) -> Handle[T]:
        return self

    def __deepcopy__(self, _: object) -> Handle[T]:
        return self

    def __repr__(self) -> str:
        what = f"a {type(self._value).__name__}" if self.is_here else "an object"
        where = "" if self.key is None else f", shared by worker {self.key[0]}"
        return f"<dtm.Handle of {what}{where}>"


def _arrive(key: Key, size: int) -> Handle[Any]:
    table = here.table
    handle: Handle[Any] = Handle(key=key, size=size) if table is None else table.arrived(key, size)
    if _passing.into is not None:
        _passing.into.append(handle)
    return handle


def collecting_pickled(into: list[Handle[Any]], act: Callable[..., T], *args: Any) -> T:
    """Call a function, and add the handles that this thread pickles meanwhile to a list."""
    before, _passing.out = _passing.out, into
    try:
        return act(*args)
    finally:
        _passing.out = before


@contextmanager
def collecting_loaded() -> Iterator[list[Handle[Any]]]:
    """Collect the handles that this thread loads."""
    came: list[Handle[Any]] = []
    before, _passing.into = _passing.into, came
    try:
        yield came
    finally:
        _passing.into = before
