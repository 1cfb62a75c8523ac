"""The cores of a simulated host that has more workers than cores.

Two sorts of things need a core.  A *body* that computes shares the cores with the other bodies of
its host: of ``n`` on ``c`` cores each runs at ``c / n`` of its speed, as under a fair operating
system with slices shorter than a body.  What dtm does by itself (messages, pickling) is short and
goes first, as operating systems favour who has slept: each core does one such thing after the
other, in the order in which they are asked for, and where no core is free of bodies, all bodies
are late by their part of it.  A body that sleeps needs no core.

Rejected: slices, one by one.  They would be as many events again as there are milliseconds, and
what they add (who comes late by part of a slice) is noise that no figure here depends on.

Threads: one.
"""

from __future__ import annotations

from heapq import heapreplace
from typing import Protocol


class Body(Protocol):
    """A worker whose task computes."""

    end: float

    def ends(self, when: float) -> None:
        """Take note that the body ends at another time, because others came or went."""


class Cores:
    """The cores of one host.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = [0.0] * count
        self._bodies: dict[Body, None] = {}

    def serve(self, worker: Body, now: float, seconds: float) -> float:
        """Do something short from now on; return when it is done."""
        start = max(now, self._free[0])
        heapreplace(self._free, start + seconds)
        bodies = self._bodies
        if len(bodies) >= self._count and worker not in bodies:
            late = seconds / len(bodies)
            for body in bodies:
                body.end += late
        return start + seconds

    def share(self) -> float:
        """Return the speed of a body among those that are there."""
        return min(1.0, self._count / len(self._bodies)) if self._bodies else 1.0

    def begin(self, worker: Body, now: float) -> float:
        """A body begins: all others are slower.  Return its speed."""
        return self._change(worker, now, comes=True)

    def over(self, worker: Body, now: float) -> None:
        """A body has come to its end: all others are faster."""
        if worker in self._bodies:
            self._change(worker, now, comes=False)

    def _change(self, worker: Body, now: float, *, comes: bool) -> float:
        before = self.share()
        if comes:
            self._bodies[worker] = None
        else:
            del self._bodies[worker]
        after = self.share()
        if after != before:
            for body in self._bodies:
                if body is not worker and body.end > now:
                    body.ends(now + (body.end - now) * before / after)
        return after
