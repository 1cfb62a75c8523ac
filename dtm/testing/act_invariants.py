"""What one worker may say and begin, judged at the moment when it does.

Most laws look at how things stand after an event.  These look at acts, for afterwards it cannot be
seen any more who had been told what: see *Messages go to others*, *Cancelled means
cancelled*, *Soon silent*, *Reports tell the truth* and *Stop means stop* in
:mod:`dtm.testing.invariants`.

Threads: one.

Rejected: to look for the same in what the scheduler remembers.  A scheduler that forgets a
cancellation would be judged by its own memory.
"""

from __future__ import annotations

from dtm.core.balancer import Mode
from dtm.core.messages import (
    Cancel,
    Load,
    Message,
    Refusal,
    Relayed,
    Results,
    StealRequest,
    Stop,
    Stopped,
)
from dtm.core.scheduler import Scheduler
from dtm.task import Call
from dtm.testing.laws import Law

NEVER = float("inf")
MOST_REFUSALS = 2
WHEN_STOPPING = (Stop, Stopped, Results, Relayed, Cancel)


class ActChecker:
    """Checks what a simulated worker sends and starts against what it has been told.

    Attributes:
        cancelled: (owner, key) -> the limit that it has been told.
    """

    __slots__ = ("_refusals", "_scheduler", "cancelled")

    def __init__(self, scheduler: Scheduler) -> None:
        self.cancelled: dict[tuple[int, int], int] = {}
        self._scheduler = scheduler
        self._refusals = 0

    def out_of_work(self) -> None:
        """It has nothing to run: a search begins, if none is under way."""
        if self._scheduler.balancer.mode is Mode.WORKING:
            self._refusals = 0

    def hears(self, source: int, load: Load, message: Message) -> None:
        """It is about to take in a message."""
        if type(message) is Cancel:
            name = (message.owner, message.key)
            self.cancelled[name] = min(message.limit, self.cancelled.get(name, message.limit))
        elif type(message) is Refusal:
            self._refusals += self._scheduler.balancer.asked.get(source) == message.serial

    def heard(self, message: Message) -> None:
        """It has taken in a message."""
        if type(message) is Stop:
            self.told_to_stop()

    def told_to_stop(self) -> None:
        """It has been told to stop: nothing that was ready is left."""
        left = [work for work in self._scheduler.deque if work.lo < work.hi]
        if left:
            raise Law.STOP.broken(f"worker {self._scheduler.rank} keeps {left}")

    def says(self, to: int, load: Load, message: Message) -> None:
        """It sends a message."""
        scheduler = self._scheduler
        who = f"worker {scheduler.rank}"
        if scheduler.stopping and not isinstance(message, WHEN_STOPPING):
            raise Law.STOP.broken(f"{who} has been told to and sends {message!r}")
        if load.idle is (scheduler.balancer.mode is Mode.WORKING):
            raise Law.TRUE_REPORTS.broken(f"{who} is {scheduler.balancer.mode.value}, says {load}")
        if load.seconds > 0.0 and not any(work.left for work in scheduler.deque):
            raise Law.TRUE_REPORTS.broken(f"{who} has nothing ready and says {load}")
        if type(message) is StealRequest and not message.stays:
            self._asks(to)

    def _asks(self, victim: int) -> None:
        if self._refusals < MOST_REFUSALS:
            return
        known = self._scheduler.balancer.reports.get(victim)
        if known is None or known[0].seconds <= 0.0:
            who = f"worker {self._scheduler.rank}"
            raise Law.SOON_SILENT.broken(f"{who} asks {victim}, after {self._refusals} refusals")

    def begins(self, call: Call, lo: int, hi: int) -> None:
        """It begins with items of a call."""
        who = f"worker {self._scheduler.rank}"
        limit = self.cancelled.get((call.owner, call.key), NEVER)
        if hi > limit:
            raise Law.CANCELLED.broken(f"{who} begins [{lo}, {hi}) of {call!r}, limit {limit}")
        if self._scheduler.stopping and call.owner != self._scheduler.rank:
            raise Law.STOP.broken(f"{who} has been told to and begins [{lo}, {hi}) of {call!r}")


def addressed(rank: int, size: int, to: int, message: Message) -> None:
    """Require what every real manager requires of a receiver."""
    if to == rank or not 0 <= to < size:
        raise Law.TO_OTHERS.broken(f"worker {rank} of {size} sends {message!r} to {to}")
