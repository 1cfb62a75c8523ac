"""Lazy maps: ``imap`` and ``imap_unordered`` over iterables that may never end.

A window of consecutive *batches* is kept in flight: each batch is a call of its
own over some items pulled from the iterable.  Batches grow until one takes about
``BATCH_SECONDS``, so that cheap items do not pay for a call each; the window is
as many batches as keep every worker busy, and nothing more is pulled until the
consumer has taken what is there.  Memory is bounded by the window, whatever the
length of the iterable.

Threads: one lazy map belongs to the thread that iterates over it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
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
    """

    def __init__(
        self,
        runner: Runs,
        submit: Submit,
        items: Iterable[Any],
        batches: int,
        most: int | None,
        largest: int,
    ) -> None:
        self._runner = runner
        self._submit = submit
        self._items = iter(items)
        self._batches = batches
        self._most = most
        self._largest = largest
        self._flying: deque[Call] = deque()
        self._length = 1
        self._pulled = 0

    def _fill(self) -> None:
        while len(self._flying) < self._batches:
            length = self._length
            if self._most is not None:
                room = self._most - sum(call.size for call in self._flying)
                length = min(length, room)
            batch = list(islice(self._items, length)) if length > 0 else []
            if not batch:
                return
            call = self._submit(batch, self._pulled)
            self._pulled += len(batch)
            self._flying.append(call)
            self._grow(call)

    def _grow(self, call: Call) -> None:
        profile = call.profile
        if profile.mature:
            wanted = int(BATCH_SECONDS / (profile.seconds + 1e-9)) or 1
            self._length = min(self._length * 2, wanted, self._largest)

    def in_order(self) -> Iterator[Any]:
        """Iterate over the results in the order of the items."""
        try:
            self._fill()
            while self._flying:
                call = self._flying[0]
                self._runner.wait(call)
                self._flying.popleft()
                yield from self._results(call)
                self._fill()
        finally:
            self._drop()

    def as_completed(self) -> Iterator[Any]:
        """Iterate over the results as they come."""
        try:
            self._fill()
            while self._flying:
                self._runner.wait_any(self._flying)
                ended = [call for call in self._flying if call.complete]
                self._flying = deque(call for call in self._flying if not call.complete)
                for call in ended:
                    yield from self._results(call)
                self._fill()
        finally:
            self._drop()

    @staticmethod
    def _results(call: Call) -> list[Any]:
        if call.failure is not None:
            raise call.failure[1]
        return call.values()

    def _drop(self) -> None:
        while self._flying:
            self._runner.abandon(self._flying.popleft())
