"""What this worker owns: calls of its tasks of which a part is on another worker.

A call gets its key when a part of it first leaves.  Until its results are
complete the ledger keeps the call, and the call keeps the items that are still out, so that
whatever a lost worker held can be run again.  Results are accepted once per
item; what comes later, or for a call that is over, is dropped and counted.

Threads: under the worker's lock.

Rejected: recording which worker holds which part.  Parts are split and passed
on without asking the owner, so the record would cost a message per theft.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from dtm.core.messages import Segment
from dtm.task import Call

MOST_LET_GO = 1 << 17  # items of longer lists are small, and copying the list would take longer


class Ledger:
    """Owned calls by key.

    Attributes:
        dropped: results that came for items or calls that were complete.
    """

    __slots__ = ("_calls", "_last", "dropped")

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._last = 0
        self.dropped = 0

    def register(self, call: Call) -> None:
        """Give a call its key, if it has none."""
        if not call.key:
            self._last += 1
            call.key = self._last
            self._calls[call.key] = call
            if isinstance(call.items, (list, tuple)) and len(call.items) <= MOST_LET_GO:
                call.items = list(call.items)  # of its own, to take items out of

    def find(self, key: int) -> Call | None:
        """Return an owned call that is not over, or None."""
        return self._calls.get(key)

    def settle(self, segment: Segment) -> Call | None:
        """Take in results; return their call if they completed it."""
        call = self._calls.get(segment.key)
        if call is None:
            self.dropped += len(segment.values)
            return None
        complete = False
        if segment.values:
            accepted = call.deliver(segment.lo, segment.values)
            if accepted is None:
                self.dropped += len(segment.values)
            else:
                _let_go(call, segment.lo, len(segment.values))
                if segment.seconds and not call.profile.mature:
                    call.profile.learn(len(segment.values), segment.seconds)
            complete = bool(accepted)
        if segment.failure is not None:
            complete |= call.fail(segment.lo + len(segment.values), segment.failure)
        return call if complete else None

    def close(self, call: Call) -> None:
        """Forget a call that is over, and let go of what it was made of.

        The call and its range refer to each other, and what is in a cycle stays until the
        garbage collector comes, which counts objects, not bytes.
        """
        self._calls.pop(call.key, None)
        call.range = None
        if call.failure is None:  # else some may have to run again
            call.items = ()

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls.values())

    def __len__(self) -> int:
        return len(self._calls)


def _let_go(call: Call, lo: int, count: int) -> None:
    """Drop items whose results are in: they may be large, and the rest of the call long."""
    if isinstance(call.items, list) and len(call.items) <= MOST_LET_GO:
        first = lo - call.base
        call.items[first : first + count] = repeat(None, count)
