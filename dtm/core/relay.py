"""Relays results in large runs: they go to their owner by way of other workers.

In a run of fewer than ``MANY`` workers results go to their owner directly.  In a larger one
the owner would do nothing but receive (16,384 workers: 60,000 messages, 0.3 s of its
processor).  So they go up the 4-ary tree rooted at the owner, by half of the depth at
each hop (7, 4, 2, 1, 0), and each worker on the way collects what passes.

How long it waits for more follows from how long results of the call have been passing here:
``DELAY_SHARE`` of that time.  So a call is delayed by a few hundredths at most, whatever its
length, and the owner gets a number of messages that grows with the logarithm of it.

Failures go directly: they save work.

Threads: under the worker's lock.

Rejected: a fixed pause.  Half a millisecond floods the owner of a long call, five delay
a short one by a tenth.  Every level of the tree as a hop: with seven hops the
results alone made 24 messages a worker.
"""

from __future__ import annotations

from collections.abc import Iterator

from dtm.core.messages import Message, Relayed, Results, Segment
from dtm.core.topology import tree_parent

MANY = 512
DELAY_SHARE = 0.01
SHORTEST_SECONDS = 100e-6
LONGEST_SECONDS = 20e-3
FORGET_SECONDS = 1.0

Sends = list[tuple[int, Message]]


class _Passing:
    """Results for one owner that pass here."""

    __slots__ = ("began", "key", "last", "segments")

    def __init__(self, key: int, now: float) -> None:
        self.key = key
        self.began = now
        self.last = -1.0
        self.segments: list[Segment] = []

    def due(self) -> float:
        """Return when to send on what has come."""
        pause = DELAY_SHARE * (self.last - self.began)
        return self.last + min(LONGEST_SECONDS, max(SHORTEST_SECONDS, pause))


class Relay:
    """The results of others that pass through one worker.

    Attributes:
        many: how many workers make a run large.
        deadline: when to call ``send_on``; infinity if nothing waits.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.many = MANY
        self.deadline = float("inf")
        self._rank = rank
        self._size = size
        self._passing: dict[int, _Passing] = {}

    def route(self, owner: int, segments: tuple[Segment, ...]) -> Sends:
        """Return how results of this worker get to their owner."""
        if self._size < self.many or any(each.failure is not None for each in segments):
            return [(owner, Results(segments))]
        return [self._hop(owner, segments)]

    def _hop(self, owner: int, segments: tuple[Segment, ...]) -> tuple[int, Message]:
        to = hop(self._rank, owner, self._size)
        return to, (Results(segments) if to == owner else Relayed(owner, segments))

    def take(self, owner: int, segments: tuple[Segment, ...], now: float) -> Sends:
        """Take results of another worker; return what goes on at once."""
        passing = self._passing.get(owner)
        if passing is None or passing.key < segments[0].key:
            waiting = passing.segments if passing is not None else []
            passing = self._passing[owner] = _Passing(segments[0].key, now)
            passing.segments += waiting
        passing.segments += segments
        self.deadline = min(self.deadline, passing.due())
        return self.send_on(now)

    def __iter__(self) -> Iterator[tuple[int, list[Segment]]]:
        return ((owner, passing.segments) for owner, passing in self._passing.items())

    def send_on(self, now: float) -> Sends:
        """Return the results that have waited for long enough."""
        if now < self.deadline:
            return []
        sends: Sends = []
        self.deadline = float("inf")
        for owner, passing in list(self._passing.items()):
            if not passing.segments:
                if now - passing.last > FORGET_SECONDS:
                    del self._passing[owner]
            elif now >= passing.due():
                sends.append(self._hop(owner, tuple(passing.segments)))
                passing.segments.clear()
                passing.last = now
            else:
                self.deadline = min(self.deadline, passing.due())
        return sends


def hop(rank: int, owner: int, size: int) -> int:
    """Return the next worker on the way from ``rank`` to ``owner``: half of the way up the tree."""
    place = (rank - owner) % size
    path = [place]
    while place:
        place = tree_parent(place) or 0
        path.append(place)
    return (path[len(path) // 2] + owner) % size
