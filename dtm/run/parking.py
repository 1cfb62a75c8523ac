"""Where tasks sleep that wait: until a call is complete, the run token with others meanwhile.

A task that parks leaves a listener with each of the calls that it waits for.  Whichever is
complete first makes its thread ready, and it goes on when it is given the token.

It sleeps in naps.  Between them it sees whether its time is up or the run is being ended, and
a thread of the user's whether there is anything new that it could run itself, for nobody keeps
the token for it.

Threads: the one that waits; what it shares with those that wake it is changed under the
worker's lock.

Rejected: a timer that wakes who has a deadline.  Few have one, and a nap costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from dtm.core.scheduler import Counters
from dtm.run.token import HOLDS, PATIENCE, Baton, Batons
from dtm.task import Call

NAP_SECONDS = 1.0
IDLE_SECONDS = 0.5


def time_left(deadline: float | None) -> float:
    """Return how long a thread may rest before it looks again."""
    if deadline is None:
        return IDLE_SECONDS
    return max(0.0, min(IDLE_SECONDS, deadline - perf_counter()))


class Parking:
    """Where the tasks of one worker sleep.

    Args:
        batons: of the worker.
        lock: the worker's.
        counters: count those who park.
        fault: returns what ends the run before its time, if anything does.
    """

    def __init__(
        self,
        batons: Batons,
        lock: Any,
        counters: Counters,
        fault: Callable[[], BaseException | None],
    ) -> None:
        self._batons = batons
        self._lock = lock
        self._counters = counters
        self._fault = fault

    def park(self, calls: Sequence[Call], deadline: float | None, baton: Baton) -> None:
        """Sleep until one of the calls is complete, or until there is something to see to."""

        def ready() -> None:
            self._batons.make_ready(baton)

        with self._lock:
            if any(call.missing == 0 for call in calls):
                return
            for call in calls:
                call.listeners = [*(call.listeners or ()), ready]
            self._batons.recover(baton)
            held = baton.place is HOLDS
            baton.go("parks")
            self._counters.parked += 1
        if held:
            self._batons.hand_on()
            self._sleep(calls, deadline, baton, ready)
        elif not baton.sleep.acquire(timeout=PATIENCE) and not self._withdraw(calls, baton, ready):
            self._batons.sleep(baton)  # somebody is about to wake it

    def _sleep(
        self,
        calls: Sequence[Call],
        deadline: float | None,
        baton: Baton,
        ready: Callable[[], None],
    ) -> None:
        nap = NAP_SECONDS if deadline is None else time_left(deadline)
        while not baton.sleep.acquire(timeout=nap):
            late = deadline is not None and perf_counter() >= deadline
            if not baton.parked:
                if self._batons.quits(baton):
                    return
            elif (late or self._fault() is not None) and self._withdraw(calls, baton, ready):
                self._batons.enter(baton, PATIENCE)
                return

    def _withdraw(self, calls: Sequence[Call], baton: Baton, ready: Callable[[], None]) -> bool:
        """Wait no longer; whether the thread was not woken before it came to that."""
        with self._lock:
            if not baton.parked:
                return False
            baton.go("waits no longer")
            for call in calls:
                if call.listeners and ready in call.listeners:
                    call.listeners.remove(ready)
            return True
