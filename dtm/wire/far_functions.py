"""Functions with much data, in a run on several hosts: the data goes once to each host.

What travels with the items is a stub, which has a handle of the function (:mod:`dtm.run.handles`).
A worker fetches the function before it first runs an item: from a worker of its own host, where
one has it, so that they share the memory; the hosts get it from each other, four from each.

The owner's handle lives as long as the call needs the function.  When it has died, all others drop
what they have; until then they keep it as they keep other functions.

What can go wrong: the function cannot be loaded.  Then the items go back to their owner, as they do
where a function is found unreadable on its arrival.

Threads: ``prepare`` by the thread that runs the items, without the worker's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from dtm.comm.base import Frame
from dtm.errors import DtmError, InvariantError
from dtm.handle import Handle, here
from dtm.task import Body
from dtm.wire.pickling import changeable, loads


class UnreadableFunctionError(DtmError):
    """A function that had to be fetched cannot be loaded here."""


class _Absent:
    """What has not come yet; it has the name for messages to people."""

    def __init__(self, name: str) -> None:
        self.__qualname__ = name

    def __call__(self, *_: Any) -> Any:
        message = f"{self.__qualname__} was called before it had come"
        raise InvariantError(message)


class FarFunction(Body):
    """Stands for a function until it is fetched.

    Args:
        handle: of the function.
        name: of the function.
    """

    __slots__ = ("_handle", "_name")

    def __init__(self, handle: Handle[Any], name: str) -> None:
        self._handle = handle
        self._name = name
        self.func = _Absent(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return FarFunction, (self._handle, self._name)

    def prepare(self, runner: Any) -> None:
        """Fetch the function unless it is here.

        Raises:
            UnreadableFunctionError: it cannot be loaded.
            RunStateError: the run is over.
        """
        if isinstance(self.func, _Absent):
            assert here.table is not None
            self.func = here.table.fetch(self._handle, partial(_loaded, runner))
        if isinstance(self.func, Body):
            self.func.prepare(runner)

    def results(self, items: Sequence[Any], star: bool) -> Iterable[Any]:
        """Return what the function gives for each of the items."""
        if isinstance(self.func, Body):
            return self.func.results(items, star)
        return super().results(items, star)


def _loaded(runner: Any, frames: Sequence[Frame]) -> Any:
    """Return a function whose data may be changed in place, as if it had come with the items."""
    try:
        return loads([frames[0], *map(changeable, frames[1:])])
    except BaseException as error:  # the objects' own methods may raise anything
        if runner.passes(error):
            raise
        # Without its traceback, whose frames would hold the data until the garbage collector comes.
        raise UnreadableFunctionError(repr(error)) from error.with_traceback(None)
