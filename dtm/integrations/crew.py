"""What a pool and an executor have in common: how their calls are made, and which are under way.

Threads: any.

Rejected: one class that is pool and executor.  Their ``map`` differ in their arguments, and
in what they return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from dtm.door import Door, Function, Made, number_of_call, whole
from dtm.errors import CallCancelledError, InitializerError
from dtm.future import end_early, wait_or_withdraw
from dtm.guard import Guard
from dtm.integrations.flight import KEEP, Flight
from dtm.integrations.lanes import Lanes
from dtm.run import runtime
from dtm.run.initializing import Initializer
from dtm.task import Call


class Crew:
    """The calls of one pool or executor, as one process sees it.

    Args:
        name: the same for it in all processes.
        most: how many of its items may run at once; None for no bound.
        initializer, initargs: what is called before its first item in each process.
        error: the class of what is raised if that fails.
    """

    def __init__(
        self,
        name: str,
        most: int | None,
        initializer: Function | None,
        initargs: Iterable[Any],
        error: type[Exception] = InitializerError,
    ) -> None:
        start = None
        if initializer is not None:
            start = Initializer(initializer, tuple(initargs), name, error)
        self._guard = None if start is None else partial(Guard, start=start)
        self._plain = Door(guard=self._guard)
        self._netted = Door(guard=partial(Guard, net=True, start=start))
        self._most = most
        self._flights: set[Flight] = set()
        self._open: dict[Call, Made] = {}
        self.lanes = Lanes(most)

    def is_bounded(self) -> bool:
        """Whether fewer items may run at once than there are workers for."""
        run = runtime.running()
        most = self._most
        return most is not None and most < run.comm.size and not run.runner.context().depth

    def door(self, chunksize: int | None = None) -> Door:
        """Return dtm's functions for calls that end with what fails first."""
        if chunksize is None or chunksize == 1:
            return self._plain
        return Door(chunksize=chunksize, guard=self._guard)

    def submit(self, made: Made) -> None:
        """Submit a call, now or when there is room, and know of it until it is over."""
        self._open[made.call] = made
        made.call.listeners = [*(made.call.listeners or ()), partial(self._forget, made.call)]
        self.lanes.submit(made)

    def _forget(self, call: Call) -> None:
        """A call is over; called with the worker's lock held."""
        self._open.pop(call, None)

    def flight(
        self,
        kind: str,
        function: Function,
        iterable: Iterable[Any],
        chunksize: int | None,
        *,
        ordered: bool,
        star: bool = False,
        keep: int | None = KEEP,
        at_end: Callable[[], None] = lambda: None,
        at_batch: Callable[[], None] = lambda: None,
    ) -> Flight:
        """Send the items of an iterable on their way.

        Raises:
            ValueError: the size of a chunk is impossible.
        """
        chunksize = whole("chunksize", chunksize)
        run = runtime.running()
        task = run.runner.context()
        number = number_of_call(task)
        bounded = self.is_bounded()

        def make(items: list[Any], first: int) -> Made:
            batch = (number, first)
            made = self._netted.make(kind, function, items, {}, star=star, batch=batch, task=task)
            if bounded:
                made.call.chunk = len(items)  # runs as a whole: one lane, one worker
            return made

        length = None if chunksize is None or chunksize == 1 else chunksize
        batches = 2 * run.comm.size + 2
        if keep is not None:
            keep = max(keep, 2 * batches * (length or 1)) if keep >= KEEP else keep
        made: list[Flight] = []

        def over() -> None:
            self._flights.difference_update(made)
            at_end()

        flight = Flight(
            run.runner,
            make,
            iterable,
            self.lanes,
            batches,
            length,
            over,
            at_batch,
            ordered=ordered,
            keep=keep,
        )
        made.append(flight)
        self._flights.add(flight)
        if flight.over:
            self._flights.discard(flight)
        return flight

    def finish(self) -> None:
        """Wait until all calls have ended; an interrupt drops them."""
        try:
            while self._open or self._flights:
                for made in list(self._open.values()):
                    wait_or_withdraw(made.runner, made.call, None)
                    self._forget(made.call)
                for flight in list(self._flights):
                    flight.finish()
                    self._flights.discard(flight)
        except KeyboardInterrupt:
            self.drop()
            raise

    def drop(self) -> None:
        """Drop all calls under way."""
        for flight in list(self._flights):
            flight.drop()
        for made in list(self._open.values()):
            end_early(made.runner, made.call, CallCancelledError(f"{made.call.name} was dropped"))
        self._flights.clear()
        self._open.clear()
