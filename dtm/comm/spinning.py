"""Whether a thread may look for the next message again and again, for a moment, before it sleeps.

To sleep and be woken takes 80 to 150 µs there and back between two workers, to look 24 to 55.  But
a look has to yield, or the sender may be waiting for the very core on which this thread looks; and
where anything else wants that core, a yield lasts as long as the system lets that run, which is
milliseconds.  So nobody looks where workers outnumber cores, and nobody for ``CROWDED_SECONDS``
after a yield that lasted: to be woken takes 50 µs there.

Threads: one at a time, under whatever the manager has its waits ordered by.

Rejected: to look without a yield (144 µs a round trip instead of 39, since the system likes to put
the two that talk to each other on one core); to ask the system how busy it is, which is an average
over a minute.
"""

from __future__ import annotations

import os
from time import monotonic

LOOK_SECONDS = 100e-6
LONG_YIELD_SECONDS = 200e-6
CROWDED_SECONDS = 1.0
CORES = os.cpu_count() or 1


class Spinning:
    """Remembers when a yield of this process lasted too long."""

    __slots__ = ("_crowded_until",)

    def __init__(self) -> None:
        self._crowded_until = 0.0

    def pays(self, workers_here: int, now: float) -> bool:
        """Whether to look again, with so many workers on this machine."""
        return workers_here <= CORES and now >= self._crowded_until

    def give_way(self) -> float:
        """Let others have the core, if they want it; return the time."""
        began = monotonic()
        os.sched_yield()
        now = monotonic()
        if now - began > LONG_YIELD_SECONDS:
            self._crowded_until = now + CROWDED_SECONDS
        return now
