"""Who may run: one run token a worker, handed from thread to thread.

At any moment one thread of a worker holds the *run token* and may run task
bodies.  Each thread that takes part has a :class:`Baton`, a lock it sleeps on
until the token is handed to it.  A thread that must wait hands the token on: to
a thread that has become ready, else to a spare one, else to a new one.

Where a thread stands is the ``place`` of its baton, and ``TRANSITIONS`` says how that
changes: in HOLDS and in FREE the thread runs, in the others it sleeps.

    HOLDS --parks--> PARKED --what it waits for has come--> READY --is given the token--> HOLDS

FREE is a thread of the user's, outside of dtm or in a task that it runs without the token,
because the holder does not come by; WAITING is the same thread asleep for its results.  A
thread with spare time is SPARE.

What can go wrong: an exception out of a signal's handler cuts the sleep of the main thread short,
and it goes on from PARKED or READY.  Before it is anywhere else, ``recover`` makes it FREE.

Invariants: at most one baton is in HOLDS, and none only while its token is being handed on;
``ready`` holds the batons in READY, and ``_spares`` those in SPARE, no others.

Threads: whatever changes a place holds ``lock``, the worker's lock.  A thread may look at
its own without: only others wake it, and nobody else takes the token from it.

Rejected: a condition variable that all sleep on.  Each hand-over would wake them
all; with a lock a thread, it wakes one (26 to 60 microseconds).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from threading import Lock, Thread

BOUND = 3600.0
PATIENCE = 0.05


class Place(Enum):
    """Where a thread stands in the order of running."""

    HOLDS = "may run"
    PARKED = "sleeps until its calls are complete"
    READY = "queues for the token"
    SPARE = "has nothing to do"
    FREE = "runs without the token, or outside of dtm"
    WAITING = "sleeps until its calls are complete, and wants no token then"


TRANSITIONS: dict[Place, dict[str, Place]] = {
    Place.SPARE: {"given the token": Place.HOLDS, "run over": Place.FREE},
    Place.HOLDS: {
        "nothing to do": Place.SPARE,
        "parks": Place.PARKED,
        "gives way": Place.READY,
        "leaves dtm": Place.FREE,
    },
    Place.PARKED: {
        "results in": Place.READY,
        "waits no longer": Place.FREE,
        "is interrupted": Place.FREE,
    },
    Place.READY: {
        "given the token": Place.HOLDS,
        "queued in vain": Place.FREE,
        "is interrupted": Place.FREE,
        "run over": Place.FREE,
    },
    Place.FREE: {"queues": Place.READY, "parks": Place.WAITING},
    Place.WAITING: {
        "results in": Place.FREE,
        "waits no longer": Place.FREE,
        "is interrupted": Place.FREE,
    },
}

HOLDS = Place.HOLDS  # for those who look often: a name of a module is found sooner
READY = Place.READY
FREE = Place.FREE


class Baton:
    """One thread's place in the order of running.

    Attributes:
        place: where the thread stands.
        visitor: whether the thread is the user's.
        sleep: what the thread sleeps on; released to wake it.
    """

    __slots__ = ("place", "sleep", "visitor")

    def __init__(self, place: Place, *, visitor: bool = False) -> None:
        self.sleep = Lock()
        self.sleep.acquire()
        self.place = place
        self.visitor = visitor

    def go(self, event: str) -> None:
        """Change the place."""
        self.place = TRANSITIONS[self.place][event]

    @property
    def parked(self) -> bool:
        """Whether the thread waits for its calls still."""
        return self.place is Place.PARKED or self.place is Place.WAITING


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

    def hand_on(self) -> None:
        """Give the token, which the calling thread has had, to whoever is next."""
        with self._lock:
            if self.ready:
                heir = self.ready.popleft()
            elif self._spares:
                heir = self._spares.pop()
            else:
                self._start()
                return
            heir.go("given the token")
        heir.sleep.release()

    def _start(self) -> None:
        heir = Baton(HOLDS)
        self.threads += 1
        name = f"dtm-spare-{self.threads}"
        Thread(target=self._body, args=(heir,), name=name, daemon=True).start()

    def make_ready(self, baton: Baton) -> None:
        """What a parked thread waits for has come."""
        with self._lock:
            if not baton.parked:
                return
            baton.go("results in")
            if baton.place is FREE:
                baton.sleep.release()
                return
            self.ready.append(baton)
        self._nudge()

    def give_way(self, baton: Baton) -> None:
        """Let the threads that are ready go first; return with the token."""
        with self._lock:
            if not self.ready:
                return
            self.recover(baton)
            baton.go("gives way")
            self.ready.append(baton)
        self.hand_on()
        while not baton.sleep.acquire(timeout=PATIENCE):
            if self.quits(baton):
                return

    def quits(self, baton: Baton) -> bool:
        """Take a ready thread out of the queue if the holder of the token may be waiting for it.

        It may, outside of dtm, as soon as threads of the user's are in play.
        """
        with self._lock:
            if not (baton.visitor or self.visitors):
                return False
            return self._drop_out(baton)

    def _drop_out(self, baton: Baton) -> bool:
        """Take a thread out of the queue; whether it was still there."""
        if baton.place is not READY:
            return False
        self.ready.remove(baton)
        baton.go("queued in vain")
        return True

    def become_spare(self, baton: Baton) -> None:
        """Hand the token on and sleep until there is something for this thread to run."""
        with self._lock:
            heir = self.ready.popleft() if self.ready else None
            if heir is None:
                return
            baton.go("nothing to do")
            self._spares.append(baton)
            heir.go("given the token")
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
            self.recover(baton)
            baton.go("queues")
            self.ready.append(baton)
        self._nudge()
        if not baton.sleep.acquire(timeout=patience):
            with self._lock:
                if self._drop_out(baton):
                    return False
            self.sleep(baton)
        return baton.place is HOLDS

    def recover(self, baton: Baton) -> None:
        """Make good a sleep that ended with an exception.  Called with the lock held."""
        if baton.place is READY:
            self.ready.remove(baton)
        if baton.place is READY or baton.parked:
            baton.go("is interrupted")
        baton.sleep.acquire(blocking=False)  # it may have been woken all the same

    def visit(self) -> None:
        """A thread of the user's comes in."""
        with self._lock:
            self.visitors += 1

    def leave(self, baton: Baton) -> None:
        """A thread of the user's goes, without the token."""
        with self._lock:
            self.visitors -= 1
            held = baton.place is HOLDS
            if held:
                baton.go("leaves dtm")
        if held:
            self.hand_on()

    def release_all(self) -> None:
        """Wake everybody: the run is over."""
        with self._lock:
            sleepers = [*self.ready, *self._spares]
            self.ready.clear()
            self._spares.clear()
            for baton in sleepers:
                baton.go("run over")
        for baton in sleepers:
            baton.sleep.release()
