"""``dtm.Executor``: what takes a ``concurrent.futures.Executor`` takes this.

Its calls are calls of dtm, so a task may submit in its turn and wait for what it has submitted,
to any depth, with one worker or many: a task that waits runs its own calls or leaves its worker
to others.  An executor of the standard library whose workers all wait stands still for ever.

Threads: any.  A call that is submitted while an event loop runs in the calling thread is
looked after by :mod:`dtm.integrations.pump`, for that loop sleeps outside of dtm.

What behaves differently from a process pool: ``cancel`` refuses a call that has left for another
worker, begun or not; lambdas and closures travel; a call runs as itself where it cannot.  Ctrl-C
ends a ``with`` block at once: its calls are dropped, where those of other executors are waited for.

Rejected: deriving from ``ProcessPoolExecutor``.  Nothing of that would be left but its queues.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import suppress
from functools import partial
from operator import index
from time import perf_counter
from types import TracebackType
from typing import Any, SupportsIndex
from weakref import WeakValueDictionary

from dtm.door import Function
from dtm.integrations.crew import Crew
from dtm.integrations.executor_future import Future
from dtm.integrations.flight import Flight, value_of
from dtm.task import Call

_known: WeakValueDictionary[str, Any] = WeakValueDictionary()


class Executor(futures.Executor):
    """An executor whose calls are run by the workers of the run.

    Args:
        max_workers: how many calls may run at once; None for as many as there are workers.
        initializer: called once in each process before the first call of this executor there.
        initargs: its arguments.
        mp_context, thread_name_prefix, max_tasks_per_child: accepted, as other executors have them.

    Raises:
        ValueError: a number is impossible.
        TypeError: the initializer cannot be called.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        mp_context: object = None,
        thread_name_prefix: str = "",
        max_tasks_per_child: int | None = None,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {initializer!r}")
        given = {"max_workers": max_workers, "max_tasks_per_child": max_tasks_per_child}
        for name, value in given.items():
            if value is not None and not (isinstance(value, SupportsIndex) and index(value) >= 1):
                raise ValueError(f"{name} must be greater than 0, a whole number, not {value!r}")
        del mp_context, thread_name_prefix
        self._set_up(os.urandom(8).hex(), (max_workers, initializer, tuple(initargs)))

    def _set_up(self, name: str, arguments: tuple[Any, ...]) -> None:
        self._name = name
        self._arguments = arguments
        most, initializer, initargs = arguments
        self._crew = Crew(name, most, initializer, initargs, futures.BrokenExecutor)
        self._over = False
        self._broken: BaseException | None = None
        self._futures: dict[Call, Future] = {}
        _known[name] = self

    def submit(self, fn: Function, /, *args: Any, **kwargs: Any) -> Future:
        """Begin a call, and return its future.

        Raises:
            RuntimeError: the executor was shut down.
            BrokenExecutor: its initializer has failed.
        """
        self._check_open()
        made = self._crew.door().make("apply_async", fn, (args,), kwargs, star=True)
        future = self._futures[made.call] = Future(made, self._crew.lanes, self._failed)
        made.call.listeners = [partial(self._forget, made.call)]
        self._crew.lanes.submit(made)
        if "asyncio" in sys.modules:
            from dtm.integrations.pump import look_after

            look_after(made.runner, lambda: [made.call] if made.call.missing else [])
        return future

    def map(
        self,
        fn: Function,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Return an iterator over ``fn(*items)`` in order; all is begun at once.

        Args:
            fn: called with one item of each iterable.
            iterables: read to their end at once, unless ``buffersize`` is given.
            timeout: seconds from now within which a result must be there.
            chunksize: how many items go together; 1 leaves it to dtm.
            buffersize: how many chunks may be under way or wait to be taken.

        Raises:
            RuntimeError: the executor was shut down.
            ValueError, TypeError: a size is impossible.
            TimeoutError: (of the iterator) a result was not there in time.
        """
        self._check_open()
        deadline = None if timeout is None else perf_counter() + timeout
        if buffersize is not None and not isinstance(buffersize, SupportsIndex):
            raise TypeError(f"buffersize must be a whole number or None, not {buffersize!r}")
        if buffersize is not None and index(buffersize) < 1:
            raise ValueError(f"buffersize must be at least 1, not {buffersize!r}")
        items: Iterable[Any] = zip(*iterables)
        if buffersize is None:
            items = list(items)
        keep = None if buffersize is None else index(buffersize) * chunksize
        flight = self._crew.flight(
            "Executor.map", fn, items, chunksize, ordered=True, star=True, keep=keep
        )
        return _results(flight, deadline)

    def _check_open(self) -> None:
        if self._broken is not None:
            raise futures.BrokenExecutor(str(self._broken)) from self._broken
        if self._over:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _forget(self, call: Call) -> None:
        """A call is over; called with the worker's lock held."""
        self._futures.pop(call, None)

    def _failed(self, failure: BaseException) -> None:
        if isinstance(failure, futures.BrokenExecutor):
            self._broken = failure

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Args:
            wait: whether to return only when all calls have ended.
            cancel_futures: whether to cancel the calls that have not begun.
        """
        self._over = True
        if cancel_futures:
            for future in list(self._futures.values()):
                future.cancel()
        if wait:
            try:
                self._crew.finish()
                for future in list(self._futures.values()):
                    with suppress(Exception):  # its own affair
                        future.exception()
            except KeyboardInterrupt:
                self._drop()
                raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt):  # who wants to stop does not want to wait
            self._drop()
        self.shutdown()

    def _drop(self) -> None:
        """Drop all calls under way."""
        self._crew.drop()
        for future in list(self._futures.values()):
            future.drop()

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._name, self._arguments)


def _results(flight: Flight, deadline: float | None) -> Iterator[Any]:
    try:
        while True:
            try:
                yield _next(flight, deadline)  # by no name: what is taken is the caller's alone
            except StopIteration:
                return
    finally:
        flight.drop()


def _next(flight: Flight, deadline: float | None) -> Any:
    left = None if deadline is None else max(0.0, deadline - perf_counter())
    try:
        found = flight.take(left)
    except TimeoutError as error:
        raise futures.TimeoutError(str(error)) from None
    return value_of(found)


def _arrived(name: str, arguments: tuple[Any, ...]) -> Executor:
    """Return the executor of this process that a pickled one stands for."""
    found: Executor | None = _known.get(name)
    if found is None:
        found = Executor.__new__(Executor)
        found._set_up(name, arguments)  # noqa: SLF001 - its other constructor
    return found
