"""Who may run: one run token a worker, handed from thread to thread.

At any moment one thread of a worker holds the *run token* and may run task
bodies.  Each thread that takes part has a :class:`Baton`, a lock it sleeps on
until the token is handed to it.  A thread that must wait hands the token on: to
a thread that has become ready, else to a spare one, else to a new one.

States of a baton: HOLDS (may run) -> PARKED (sleeps until its calls are
complete) -> READY (in the queue for the token) -> HOLDS; SPARE (sleeps, nothing to
do) -> HOLDS; FREE (a thread of the user's that runs without the token, because its
holder does not come by).

Threads: every method takes ``lock``, the worker's lock, for what it changes.

Rejected: a condition variable that all sleep on.  Each hand-over would wake them
all; with a lock a thread, it wakes one (26 to 60 microseconds).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock, Thread

BOUND = 3600.0
PATIENCE = 0.05


class Baton:
    """One thread's place in the order of running."""

    __slots__ = ("free", "holds", "parked", "sleep", "visitor")

    def __init__(self, *, holds: bool = False, visitor: bool = False) -> None:
        self.sleep = Lock()
        self.sleep.acquire()
        self.holds = holds
        self.visitor = visitor
        self.parked = False
        self.free = False


class Batons:
    """The run token of a worker and the threads that queue for it.

    Args:
        lock: the worker's lock.
        body: what a new spare thread runs.
        nudge: makes the holder look at ``ready`` if it sleeps for lack of work.

    Attributes:
        ready: threads that could go on if they had the token, first come first.
        visitors: threads of the user's that are inside of dtm.
    """

    def __init__(
        self, lock: Lock, body: Callable[[Baton], None], nudge: Callable[[], None]
    ) -> None:
        self.ready: deque[Baton] = deque()
        self.threads = 0
        self.visitors = 0
        self._spares: list[Baton] = []
        self._lock = lock
        self._body = body
        self._nudge = nudge

    def hand_on(self, baton: Baton) -> None:
        """Give the token away."""
        with self._lock:
            baton.holds = False
            if self.ready:
                heir = self.ready.popleft()
            elif self._spares:
                heir = self._spares.pop()
            else:
                self._start()
                return
            heir.holds = True
        heir.sleep.release()

    def _start(self) -> None:
        heir = Baton(holds=True)
        self.threads += 1
        name = f"dtm-spare-{self.threads}"
        Thread(target=self._body, args=(heir,), name=name, daemon=True).start()

    def make_ready(self, baton: Baton) -> None:
        """What a parked thread waits for has come."""
        with self._lock:
            if not baton.parked:
                return
            baton.parked = False
            if baton.free:
                baton.sleep.release()
                return
            self.ready.append(baton)
        self._nudge()

    def give_way(self, baton: Baton) -> None:
        """Let the threads that are ready go first; return with the token."""
        with self._lock:
            if not self.ready:
                return
            self.ready.append(baton)
        self.hand_on(baton)
        while not baton.sleep.acquire(timeout=PATIENCE):
            if self.quits(baton):
                return

    def quits(self, baton: Baton) -> bool:
        """Take a ready thread out of the queue if the holder of the token may be waiting for it.

        It may, outside of dtm, as soon as threads of the user's are in play.
        """
        with self._lock:
            if not (baton.visitor or self.visitors) or baton not in self.ready:
                return False
            self.ready.remove(baton)
            return True

    def become_spare(self, baton: Baton) -> None:
        """Hand the token on and sleep until there is something for this thread to run."""
        with self._lock:
            heir = self.ready.popleft() if self.ready else None
            if heir is None:
                return
            self._spares.append(baton)
            baton.holds = False
            heir.holds = True
        heir.sleep.release()
        self.sleep(baton)

    @staticmethod
    def sleep(baton: Baton) -> None:
        """Sleep until woken; the bound is for the debugger's sake, not for the logic's."""
        while not baton.sleep.acquire(timeout=BOUND):
            pass

    def enter(self, baton: Baton, patience: float) -> bool:
        """Queue for the token for at most ``patience`` seconds; whether it was got."""
        with self._lock:
            self.ready.append(baton)
        self._nudge()
        if baton.sleep.acquire(timeout=patience):
            return True
        with self._lock:
            if baton in self.ready:
                self.ready.remove(baton)
                return False
        self.sleep(baton)
        return True

    def release_all(self) -> None:
        """Wake everybody: the run is over."""
        with self._lock:
            sleepers = [*self.ready, *self._spares]
            self.ready.clear()
            self._spares.clear()
        for baton in sleepers:
            baton.sleep.release()
