"""Lazy maps: ``imap`` and ``imap_unordered`` over iterables that may never end.

A window of consecutive *batches* is kept in flight: each batch is a call of its
own over some items pulled from the iterable.  Batches grow until one takes about
``BATCH_SECONDS``, so that cheap items do not pay for a call each; the window is
as many batches as keep every worker busy, and nothing more is pulled until the
consumer has taken what is there.  Memory is bounded by the window, whatever the
length of the iterable.

An error of the iterable is raised where the built-in ``map`` would raise it: after the results of
all items that came before it.

Threads: one lazy map belongs to the thread that iterates over it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from time import perf_counter
from typing import Any, Protocol

from dtm.task import Call

BATCH_SECONDS = 1e-3
MOST_ITEMS = 8192

Submit = Callable[[list[Any], int], Call]


class Runs(Protocol):
    """What a lazy map needs of the runner."""

    def wait(self, call: Call, deadline: float | None = None) -> bool:
        """Wait until a call is complete."""

    def wait_any(self, calls: Sequence[Call], deadline: float | None = None) -> bool:
        """Wait until one of the calls is complete."""

    def abandon(self, call: Call) -> None:
        """Drop what is left of a call."""


class Window:
    """The batches of one lazy map that are in flight.

    Args:
        runner: waits for calls.
        submit: makes a call of some items, given also the index of the first.
        items: pulled from as batches are taken.
        batches: how many to keep in flight.
        most: how many items may be in flight; None for no other bound.
        largest: the largest batch.
        results: returns the results of a call that has ended, or raises.
    """

    def __init__(
        self,
        runner: Runs,
        submit: Submit,
        items: Iterable[Any],
        batches: int,
        most: int | None,
        largest: int,
        results: Callable[[Call], list[Any]],
    ) -> None:
        self._runner = runner
        self._submit = submit
        self._items = iter(items)
        self._batches = batches
        self._most = most
        self._largest = largest
        self.results = results
        self._flying: deque[Call] = deque()
        self._length = 1
        self._pulled = 0
        self._broken: BaseException | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is in flight."""
        return not self._flying

    def fill(self) -> None:
        """Pull items and submit batches until the window is full.

        Raises:
            BaseException: what the iterable raised, once nothing is in flight any more.
        """
        while self._broken is None and len(self._flying) < self._batches:
            length = self._length
            if self._most is not None:
                room = self._most - sum(call.size for call in self._flying)
                length = min(length, room)
            batch = self._pull(length)
            if not batch:
                break
            call = self._submit(batch, self._pulled)
            self._pulled += len(batch)
            self._flying.append(call)
            self._grow(call)
        if self._broken is not None and not self._flying:
            raise self._broken

    def _pull(self, length: int) -> list[Any]:
        batch: list[Any] = []
        if length > 0:
            try:
                batch.extend(islice(self._items, length))  # keeps what came before an error
            except BaseException as error:  # noqa: BLE001 - raised later, in its place
                self._broken = error
        return batch

    def _grow(self, call: Call) -> None:
        profile = call.profile
        if profile.mature:
            wanted = int(BATCH_SECONDS / (profile.seconds + 1e-9)) or 1
            self._length = min(self._length * 2, wanted, self._largest)

    def first(self, deadline: float | None) -> list[Call]:
        """Wait for the oldest batch and take it out; nothing if it is not there in time."""
        if not self._runner.wait(self._flying[0], deadline):
            return []
        return [self._flying.popleft()]

    def ended(self, deadline: float | None) -> list[Call]:
        """Wait until a batch has ended and take out all that have; nothing if none is in time."""
        self._runner.wait_any(self._flying, deadline)
        ended: list[Call] = []
        flying: deque[Call] = deque()
        for call in self._flying:  # once, for a call may be completed at any moment
            (flying if call.missing else ended).append(call)
        self._flying = flying
        return ended

    def drop(self) -> None:
        """Abandon what is in flight."""
        while self._flying:
            self._runner.abandon(self._flying.popleft())


class LazyResults(Iterator[Any]):
    """The results of a lazy map, to iterate over.

    Args:
        window: the batches.
        ordered: whether the results come in the order of the items.
    """

    def __init__(self, window: Window, *, ordered: bool) -> None:
        self._window = window
        self._take = window.first if ordered else window.ended
        self._results: Iterator[Any] = iter(())
        self._calls: deque[Call] = deque()
        self._open = True

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Args:
            timeout: seconds to wait for it; None waits as long as it takes.

        Raises:
            StopIteration: there are no more.
            TimeoutError: it has not come in time; the iteration can go on.
            BaseException: what an item or the iterable has raised; the iteration is over.
        """
        deadline = None if timeout is None else perf_counter() + timeout
        for result in self._results:
            return result
        if not self._open:
            raise StopIteration
        try:
            found = self._next_batch(deadline)
        except BaseException:  # Ctrl-C too: the window is not to go on
            self.close()
            raise
        if not found:
            raise TimeoutError(f"the next result has not come within {timeout} seconds")
        return next(self._results)

    def _next_batch(self, deadline: float | None) -> bool:
        """Take the results of the next batch; whether they have come in time."""
        while True:
            while self._calls:
                call = self._calls.popleft()
                self._results = iter(self._window.results(call))
                return True
            self._window.fill()
            if self._window.empty:
                raise StopIteration
            self._calls.extend(self._take(deadline))
            if not self._calls:
                return False

    def close(self) -> None:
        """End the iteration; what is in flight is dropped."""
        self._open = False
        self._results = iter(())
        self._calls.clear()
        self._window.drop()

    def __del__(self) -> None:
        if self._open:
            self.close()
