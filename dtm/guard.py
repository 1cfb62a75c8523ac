"""Wraps a user's function: an initializer once a process, a time limit, failures as results.

A :class:`Guard` travels in the place of the function.  It may have an initializer called once in
each process (:mod:`dtm.run.initializing`), fail an item that takes too long, and put a
:class:`Failed` in the place of the result of an item that raises (the *net*), so that the items
after it run all the same.

Invariant: strips run at the speed of ``map`` unless there is a time limit: a net costs nothing
for items that do not fall into it.

Threads: that which runs the item.

What can go wrong: an initializer that raises ends its call, past the net: no item has failed.

Rejected: a wrapper function around each item, which returns a pair.  It costs as much as a
small item, in the calls where nothing fails too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import starmap
from typing import Any

from dtm.run import runtime
from dtm.run.initializing import Initializer
from dtm.task import Body, Function
from dtm.time_limit import limited
from dtm.wire.failures import pack_failure, unpack_failure


class Failed:
    """Stands for the result of an item that failed; travels as exceptions do.

    Attributes:
        exception: what the item raised.
    """

    __slots__ = ("exception",)

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception

    def __reduce__(self) -> tuple[Callable[[bytes], Failed], tuple[bytes]]:
        run = runtime.current
        where = "this process" if run is None else run.worker.where
        return _arrived, (pack_failure(self.exception, None, where),)

    def __repr__(self) -> str:
        return f"<Failed {self.exception!r}>"


def _arrived(packed: bytes) -> Failed:
    return Failed(unpack_failure(packed))


class Guard(Body):
    """A function with what stands around it.

    Args:
        function: the user's function.
        net: whether an item that raises gives a :class:`Failed` instead.
        seconds: how long an item may take; None for as long as it likes.
        start: called once in each process before the first item.
    """

    __slots__ = ("__qualname__", "__weakref__", "_net", "_seconds", "_start")

    def __init__(
        self,
        function: Function,
        net: bool = False,
        seconds: float | None = None,
        start: Initializer | None = None,
    ) -> None:
        self.func = function
        self._net = net
        self._seconds = seconds
        self._start = start

    def __reduce__(self) -> tuple[Any, ...]:
        return Guard, (self.func, self._net, self._seconds, self._start)

    def prepare(self, runner: Any) -> None:
        """Call the initializer, if there is one that this process has not called."""
        if self._start is not None:
            self._start.prepare(runner)

    def results(self, items: Sequence[Any], star: bool) -> Iterable[Any]:
        """Return the result of each item, or its failure; the first raises without a net."""
        function = self.func
        if self._seconds is not None:
            function = partial(limited, self._seconds, function)
        if self._net:
            return _caught(function, items, star)
        return starmap(function, items) if star else map(function, items)


def _caught(function: Function, items: Sequence[Any], star: bool) -> list[Any]:
    found: list[Any] = []
    rest = iter(items)
    while len(found) < len(items):
        try:
            found.extend(starmap(function, rest) if star else map(function, rest))
        except BaseException as error:  # an item that exits is a failed item
            run = runtime.current
            runner = None if run is None else run.runner
            if runner and (runner.interrupted or runner.ended or error is runner.interruption):
                raise  # it ends the run, or main, or the stack of a task that the run leaves behind
            found.append(Failed(error))
        else:
            if len(found) < len(items):
                found.append(Failed(StopIteration("raised by the function itself")))
    return found
