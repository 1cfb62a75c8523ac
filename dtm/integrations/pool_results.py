"""What the methods of a pool return: results and iterators as those of ``multiprocessing.pool``.

Threads: any may use a result or an iterator; threads that share an iterator get different results.

Rejected: to derive them from the classes of ``multiprocessing.pool``.  Those wait on an event, and
a worker that waits so does nothing else.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from threading import RLock
from time import perf_counter
from typing import Any

from dtm.door import Made
from dtm.errors import CallCancelledError, ResultNotReadyError
from dtm.future import AsyncResult
from dtm.guard import Failed
from dtm.integrations.flight import Flight, value_of
from dtm.run import runtime
from dtm.run.callbacks import called

PATIENCE_SECONDS = 1.0


class PoolTimeoutError(multiprocessing.TimeoutError, TimeoutError):
    """A result did not come in time: both of the errors that callers expect."""


class _Nobody:
    """Stands for the task that made a call: what a pool begins is not waited for by ``waitAll``."""

    pending = None


Callback = Callable[[Any], object]


class Told:
    """The callbacks of a result: called once, by whoever comes first; the next waits for that.

    It waits for a bounded time only, for a callback may wait for what waits for it.
    """

    __slots__ = ("_callback", "_error_callback", "_lock", "_over")

    def __init__(self, callback: Callback | None, error_callback: Callback | None) -> None:
        self._callback = callback
        self._error_callback = error_callback
        self._lock = RLock()
        self._over = callback is None and error_callback is None

    def tell(self, value: Callable[[], Any]) -> None:
        """Call the one that fits: ``value`` returns the result, or raises."""
        if self._over or not self._lock.acquire(timeout=PATIENCE_SECONDS):
            return
        try:
            if not self._over:
                self._over = True
                self._call(value)
        finally:
            self._lock.release()

    def _call(self, value: Callable[[], Any]) -> None:
        try:
            result = value()
        except Exception as error:  # noqa: BLE001 - handed to whom it concerns
            if self._error_callback is not None:
                called(self._error_callback, error)
        else:
            if self._callback is not None:
                called(self._callback, result)


class PoolResult(AsyncResult):
    """The result of a call of a pool, which is told to callbacks before anybody gets it."""

    __slots__ = ("_told",)

    def __init__(
        self,
        made: Made,
        callback: Callback | None,
        error_callback: Callback | None,
        *,
        single: bool,
    ) -> None:
        super().__init__(made.runner, made.call, _Nobody, single)
        self._told = Told(callback, error_callback)

    def over(self) -> None:
        """The call has ended."""
        self._told.tell(self._value)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended, or for ``timeout`` seconds."""
        super().wait(timeout)
        if not self._call.missing:
            self.over()

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result and return it, or raise what the function raised.

        Raises:
            PoolTimeoutError: the time is up.
        """
        self.wait(timeout)
        if self._call.missing:
            raise PoolTimeoutError(f"{self._call.name} has not ended within {timeout} seconds")
        return self._value()


class FlightResult:
    """The result of a map whose pool bounds how many items run at once."""

    def __init__(
        self, name: str, callback: Callback | None, error_callback: Callback | None
    ) -> None:
        self._name = name
        self._told = Told(callback, error_callback)
        self._found: list[Any] | None = None
        self._collects = False
        self._lock = RLock()
        self._flight: Flight | None = None

    def follow(self, flight: Flight) -> None:
        """Say what this is the result of."""
        self._flight = flight

    def over(self) -> None:
        """The last item has been run."""
        flight = self._flight
        if flight is None:  # it is just being made
            return
        with self._lock:
            if not self._collects:  # taking the last outcome comes by here again
                self._collects = True
                self._found = _all_of(flight)
        if self._found is not None:
            self._told.tell(self._value)

    def _value(self) -> list[Any]:
        found = self._found or []
        failed = next((each for each in found if type(each) is Failed), None)
        if failed is not None:
            raise failed.exception
        return found

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the map has ended, or for ``timeout`` seconds."""
        deadline = None if timeout is None else perf_counter() + timeout
        if self._flight is not None and self._flight.finish(deadline):
            self.over()

    def ready(self) -> bool:
        """Whether the map has ended; makes a little progress."""
        flight = self._flight
        if flight is not None and self._found is None:
            if flight.calls():
                runtime.running().runner.step(flight.calls())
            if flight.over:
                self.over()
        return self._found is not None

    def successful(self) -> bool:
        """Whether the map has ended without an exception."""
        if self._found is None:
            raise ResultNotReadyError(f"{self._name} has not ended; ask ready() first")
        return not any(type(each) is Failed for each in self._found)

    def get(self, timeout: float | None = None) -> list[Any]:
        """Wait for the results and return them, or raise what the function raised.

        Raises:
            PoolTimeoutError: the time is up.
        """
        self.wait(timeout)
        if self._found is None:
            raise PoolTimeoutError(f"{self._name} has not ended within {timeout} seconds")
        return self._value()


def _all_of(flight: Flight) -> list[Any]:
    found: list[Any] = []
    try:
        while True:
            found.append(flight.take())
    except StopIteration:
        return found
    except CallCancelledError as error:
        return [*found, Failed(error)]


class PoolIterator(Iterator[Any]):
    """The results of ``imap`` or ``imap_unordered``; goes on after an item that failed."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight

    def __next__(self) -> Any:
        """Return the next result, or raise what its item raised."""
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result, waiting for at most ``timeout`` seconds.

        Raises:
            PoolTimeoutError: the time is up; the next call waits for the same result.
        """
        try:
            found = self._flight.take(timeout)
        except TimeoutError as error:
            raise PoolTimeoutError(str(error)) from None
        return value_of(found)
