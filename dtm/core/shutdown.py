"""The end of a run: Stop goes down the spread tree, Stopped comes up.

    RUNNING  --told to stop--> STOPPING
    STOPPING --an heir has stopped--> STOPPING
    STOPPING --told once more--> STOPPING
    STOPPING --all heirs have stopped--> STOPPED

A worker's *heirs* are those to whom it passes Stop on: its children in the spread tree,
and for a child that never joined, the children of that.  It says Stopped when the
last of them has, with the counters of its whole subtree.  So the end takes two messages
a worker, and whoever has stopped sends nothing more.

What can go wrong: an heir dies, or its parent cannot reach it, though the root can.  The root
waits for nobody who is gone.  Where ways may be cut it tells, after a while, each worker
that it has not heard of once more, by itself; who is told so waits for nobody, and answers
the root (:meth:`Shutdown.hurry`).

Threads: under the worker's lock.

Rejected: telling everybody from the root.  It would send and receive P messages at the
moment when its user waits for the prompt.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from dtm.core.messages import Message, Stop, Stopped
from dtm.core.topology import tree_children

Sends = list[tuple[int, Message]]
Counts = dict[str, float]


class Stage(Enum):
    """How far the end of the run has come here."""

    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


TRANSITIONS: dict[Stage, dict[str, Stage]] = {
    Stage.RUNNING: {"told to stop": Stage.STOPPING},
    Stage.STOPPING: {
        "an heir has stopped": Stage.STOPPING,
        "told once more": Stage.STOPPING,
        "all heirs have stopped": Stage.STOPPED,
    },
    Stage.STOPPED: {},
}


class Shutdown:
    """One worker's part in the end of the run.

    Attributes:
        stage: how far it has come.
        counters: those of the workers below that have stopped, by rank.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.stage = Stage.RUNNING
        self.counters: dict[int, Counts] = {}
        self._rank = rank
        self._size = size
        self._stopper = rank
        self._awaited: set[int] = set()
        self._last = Stopped({})

    def _go(self, event: str) -> None:
        self.stage = TRANSITIONS[self.stage][event]

    def told(self, source: int, message: Stop) -> Sends:
        """Stop has come from ``source``: return to whom it goes on."""
        if self.stage is Stage.STOPPED:  # but whoever was told of it may not be heard
            return [] if source == self._stopper else [(source, self._last)]
        self._go("told to stop" if self.stage is Stage.RUNNING else "told once more")
        self._stopper = source
        absent = message.absent
        heirs = [] if absent is None else self._heirs(self._rank, absent)
        self._awaited = set(heirs)
        late = absent or () if source == self._rank else ()
        return [*((heir, message) for heir in heirs), *((rank, Stop(None)) for rank in late)]

    def stopped(self, source: int, message: Stopped) -> Sends:
        """An heir has stopped, and all below it."""
        if self.stage is Stage.STOPPED:  # the root wanted no more waiting for it
            return [] if self._stopper == self._rank else [(self._stopper, message)]
        self._go("an heir has stopped")
        self.counters.update(message.counters)
        self._awaited.difference_update(message.counters, (source,))
        return []

    def hurry(self, absent: Collection[int]) -> Sends:
        """(Root) tell all who have not been heard of that they should answer here."""
        self._go("told once more")
        heard = {self._rank, *self.counters, *absent}
        self._awaited = set(range(self._size)) - heard
        return [(rank, Stop(None)) for rank in sorted(self._awaited)]

    def excuse(self, absent: Collection[int]) -> None:
        """Wait no more for those who are gone."""
        self._awaited.difference_update(absent)

    def finish(self, own: Counts) -> Sends | None:
        """Return what is to be said when all heirs have stopped; None if there is nothing."""
        if self._awaited or self.stage is Stage.STOPPED:
            return None
        self._go("all heirs have stopped")
        if self._stopper == self._rank:
            return []
        self._last = Stopped({**self.counters, self._rank: own})
        return [(self._stopper, self._last)]

    def _heirs(self, rank: int, absent: Collection[int]) -> list[int]:
        heirs = []
        for child in tree_children(rank, self._size):
            heirs += self._heirs(child, absent) if child in absent else [child]
        return heirs
