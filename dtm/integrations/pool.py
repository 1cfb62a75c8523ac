"""``dtm.Pool``: what takes a ``multiprocessing.Pool`` takes this.

A pool owns no processes: its calls are calls of dtm, run by the workers of the run.  So it costs
nothing to make, tasks may use it too, and it may be pickled: where it arrives it means the same
workers.  A number of ``processes`` below that of the workers bounds how many of its items run at
once.

Threads: any.

What behaves differently from ``multiprocessing``: ``map`` raises as soon as the smallest failing
index is known, and items behind it that have not begun are dropped.

Rejected: deriving it from ``multiprocessing.pool.Pool``.  Nothing of that would be left but its
threads and queues.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dtm.door import Function, Made, arguments_of, items_of, whole
from dtm.integrations.crew import Crew
from dtm.integrations.lanes import when_over
from dtm.integrations.pool_results import Callback, FlightResult, PoolIterator, PoolResult
from dtm.run import runtime

if TYPE_CHECKING:
    from typing import Self


_known: WeakValueDictionary[str, Any] = WeakValueDictionary()


class Pool:
    """A pool of workers with the interface of ``multiprocessing.pool.Pool``.

    Args:
        processes: how many items may run at once; None for as many as there are workers.
        initializer: called once in each process before the first item of this pool there.
        initargs: its arguments.
        maxtasksperchild: accepted; a worker lives as long as the run.
        context: accepted.

    Raises:
        ValueError: a number is impossible.
        TypeError: the initializer cannot be called.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Function | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {initializer!r}")
        del context
        arguments = (
            whole("processes", processes),
            initializer,
            tuple(initargs),
            whole("maxtasksperchild", maxtasksperchild),
        )
        self._set_up(os.urandom(8).hex(), arguments)

    def _set_up(self, name: str, arguments: tuple[Any, ...]) -> None:
        self._name = name
        self._arguments = arguments
        processes, initializer, initargs, _ = arguments
        self._crew = Crew(name, processes, initializer, initargs)
        self._state = "running"
        _known[name] = self

    # What there is.

    @property
    def size(self) -> int:
        """How many items run at once: ``processes``, else the number of workers."""
        return self._arguments[0] or runtime.running().comm.size

    _processes = size

    def is_master(self) -> bool:
        """Say yes: the workers of dtm do not come by here."""
        return True

    def is_worker(self) -> bool:
        """Say no, for the same reason."""
        return False

    def wait(self) -> None:
        """Return at once: where this is called, there is nothing to wait for."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._name, self._arguments)

    def __repr__(self) -> str:
        return f"<dtm.Pool {self._state}, size {self.size}>"

    # Calls that wait.

    def map(
        self,
        func: Function,
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
    ) -> list[Any]:
        """Return the results of ``func`` on the items; ``callback`` is called with each."""
        self._check_running()
        if self._crew.is_bounded():
            values = self.map_async(func, iterable, chunksize).get()
        else:
            values = self._crew.door(chunksize).map(func, iterable)
        if callback is not None:
            for value in values:
                callback(value)
        return values

    def starmap(
        self, func: Function, iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """Return the results of ``func(*item)`` for the items."""
        self._check_running()
        if self._crew.is_bounded():
            return self.starmap_async(func, iterable, chunksize).get()
        return self._crew.door(chunksize).starmap(func, iterable)

    def apply(
        self, func: Function, args: Sequence[Any] = (), kwds: dict[str, Any] | None = None
    ) -> Any:
        """Return ``func(*args, **kwds)``, perhaps run by another worker."""
        return self.apply_async(func, args, kwds).get()

    # Calls that do not.

    def map_async(
        self,
        func: Function,
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> PoolResult | FlightResult:
        """Begin a map; the callbacks are called with its result or its exception."""
        items, _ = items_of("Pool.map_async", (iterable,))
        return self._begin("map", func, items, chunksize, (callback, error_callback), star=False)

    def starmap_async(
        self,
        func: Function,
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> PoolResult | FlightResult:
        """Begin a starmap; the callbacks are called with its result or its exception."""
        items = arguments_of("Pool.starmap_async", iterable)
        return self._begin("starmap", func, items, chunksize, (callback, error_callback), star=True)

    def apply_async(
        self,
        func: Function,
        args: Sequence[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> PoolResult:
        """Begin a call; the callbacks are called with its result or its exception."""
        self._check_running()
        made = self._crew.door().make(
            "apply_async", func, (tuple(args),), dict(kwds or {}), star=True
        )
        return self._sent(made, (callback, error_callback), single=True)

    def imap(self, func: Function, iterable: Iterable[Any], chunksize: int = 1) -> PoolIterator:
        """Return an iterator over the results in order."""
        return self._lazy("imap", func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Function, iterable: Iterable[Any], chunksize: int = 1
    ) -> PoolIterator:
        """Return an iterator over the results as they come."""
        return self._lazy("imap_unordered", func, iterable, chunksize, ordered=False)

    # The end.

    def close(self) -> None:
        """Take no more calls; those under way go on."""
        if self._state == "running":
            self._state = "closed"

    def terminate(self) -> None:
        """Take no more calls, and drop those under way."""
        self._state = "terminated"
        self._crew.drop()

    def join(self) -> None:
        """Wait until all calls of the pool have ended.

        Raises:
            ValueError: the pool was not closed before.
        """
        if self._state == "running":
            raise ValueError(
                "the pool is still running: close() or terminate() comes before join()"
            )
        self._crew.finish()

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    # Within.

    def _check_running(self) -> None:
        if self._state != "running":
            raise ValueError(f"the pool takes no more calls: it is {self._state}")

    def _begin(
        self,
        kind: str,
        func: Function,
        items: Sequence[Any],
        chunksize: int | None,
        callbacks: tuple[Callback | None, Callback | None],
        *,
        star: bool,
    ) -> PoolResult | FlightResult:
        self._check_running()
        if self._crew.is_bounded():
            later = FlightResult(f"Pool.{kind}", *callbacks)
            later.follow(
                self._crew.flight(
                    kind, func, items, chunksize, ordered=True, star=star, at_end=later.over
                )
            )
            return later
        made = self._crew.door(chunksize).make(f"{kind}_async", func, items, {}, star=star)
        return self._sent(made, callbacks, single=False)

    def _sent(
        self, made: Made, callbacks: tuple[Callback | None, Callback | None], *, single: bool
    ) -> PoolResult:
        result = PoolResult(made, *callbacks, single=single)
        if made.call.size:
            if any(callbacks):
                when_over(made, result.over)
            self._crew.submit(made)
        else:
            result.over()
        return result

    def _lazy(
        self,
        kind: str,
        func: Function,
        iterable: Iterable[Any],
        chunksize: int,
        *,
        ordered: bool,
    ) -> PoolIterator:
        self._check_running()
        return PoolIterator(self._crew.flight(kind, func, iterable, chunksize, ordered=ordered))


def _arrived(name: str, arguments: tuple[Any, ...]) -> Pool:
    """Return the pool of this process that a pickled one stands for."""
    found = _known.get(name)
    if found is None:
        found = Pool.__new__(Pool)
        found._set_up(name, arguments)  # noqa: SLF001 - its other constructor
    return found
