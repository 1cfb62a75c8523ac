"""What stands around a function while its items run: a start, a time limit, a net.

A :class:`Guard` travels in the place of the function.  It may call an initializer once in each
process, fail an item that takes too long, and put a :class:`Failed` in the place of the result
of an item that raises, so that the items after it run all the same.

Invariant: strips run at the speed of ``map`` unless there is a time limit: a net costs nothing
for items that do not fall into it.

Threads: that which runs the item.  An initializer that two items of one process want at once
is called by the first, and the other waits for it.

What can go wrong: an initializer that raises fails each item that needs it, and is called
again for the next.

Rejected: a wrapper function around each item, which returns a pair.  It costs as much as a
small item, in the calls where nothing fails too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import starmap
from typing import Any

from dtm.run import runtime
from dtm.task import Body, Function


class Failed:
    """Stands for the result of an item that failed; travels as exceptions do.

    Attributes:
        exception: what the item raised.
    """

    __slots__ = ("exception",)

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception

    def __reduce__(self) -> tuple[Callable[[bytes], Failed], tuple[bytes]]:
        from dtm.wire.failures import pack_failure

        run = runtime.current
        where = "this process" if run is None else run.worker.where
        return _arrived, (pack_failure(self.exception, None, where),)

    def __repr__(self) -> str:
        return f"<Failed {self.exception!r}>"


def _arrived(packed: bytes) -> Failed:
    from dtm.wire.failures import unpack_failure

    return Failed(unpack_failure(packed))


class Start:
    """An initializer, and the name under which each process remembers that it has called it.

    Args:
        name: the same on all the workers, and for this initializer alone.
        function: the initializer.
        arguments: what it is called with.
    """

    __slots__ = ("_arguments", "_function", "_name")

    _lock = threading.RLock()
    _done: set[str] = set()  # noqa: RUF012 - that of the process is meant

    def __init__(self, name: str, function: Function, arguments: Sequence[Any]) -> None:
        self._name = name
        self._function = function
        self._arguments = tuple(arguments)

    def __call__(self) -> None:
        """Call the initializer unless this process has called it."""
        if self._name in self._done:
            return
        with self._lock:
            if self._name not in self._done:
                self._function(*self._arguments)
                self._done.add(self._name)


class Guard(Body):
    """A function with what stands around it.

    Args:
        function: the user's function.
        net: whether an item that raises gives a :class:`Failed` instead.
        seconds: how long an item may take; None for as long as it likes.
        start: called before the first item in each process.
    """

    __slots__ = ("__qualname__", "__weakref__", "_net", "_seconds", "_start")

    def __init__(
        self,
        function: Function,
        net: bool = False,
        seconds: float | None = None,
        start: Start | None = None,
    ) -> None:
        self.func = function
        self._net = net
        self._seconds = seconds
        self._start = start

    def __reduce__(self) -> tuple[Any, ...]:
        return Guard, (self.func, self._net, self._seconds, self._start)

    def results(self, items: Sequence[Any], star: bool) -> Iterable[Any]:
        """Return the result of each item, or its failure; the first raises without a net."""
        function = self.func
        if self._seconds is not None:
            from dtm.time_limit import limited

            function = partial(limited, self._seconds, function)
        if self._start is not None:
            function = partial(_started, self._start, function)
        if self._net:
            return _caught(function, items, star)
        return starmap(function, items) if star else map(function, items)


def _started(start: Start, function: Function, /, *args: Any) -> Any:
    start()
    return function(*args)


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
