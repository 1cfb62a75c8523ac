"""How many calls of a pool or executor are out at once, if its user has said so.

A call that finds no lane free waits in a queue of this process, and takes the lane of the one that
ends first.  What a *task* submits is never held back: the task that will wait for it is itself in
a lane, and would wait for ever.

Threads: any; a lock of its own, in which nothing is called.

Rejected: a semaphore.  Whoever submits would block, in the middle of a loop that is to submit
many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Lock

from dtm.door import Made
from dtm.task import Call


def when_over(made: Made, tell: Callable[[], None]) -> None:
    """Have a function called when a call that is not submitted yet is over, outside of locks."""
    call_later = made.runner.callbacks.call_later
    made.call.listeners = [*(made.call.listeners or ()), lambda: call_later(tell)]


class Lanes:
    """Lanes for the calls of one pool in one process.

    Args:
        most: how many may be out; None for no bound.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._out: set[Made] = set()
        self._queue: deque[Made] = deque()
        self._lock = Lock()

    def submit(self, made: Made) -> None:
        """Submit a call, now or when a lane is free."""
        if self._most is None or made.context.depth:
            made.runner.submit(made.call)
            return
        when_over(made, partial(self._leave, made))
        with self._lock:
            if len(self._out) >= self._most:
                self._queue.append(made)
                return
            self._out.add(made)
        made.runner.submit(made.call)

    def holds(self, call: Call) -> bool:
        """Whether a call waits in the queue."""
        with self._lock:
            return any(made.call is call for made in self._queue)

    def _leave(self, made: Made) -> None:
        """A call is over: its lane is free, or it wants none any more."""
        with self._lock:
            if made not in self._out:
                if made in self._queue:
                    self._queue.remove(made)
                return
            self._out.remove(made)
            while self._queue and not self._queue[0].call.missing:
                self._queue.popleft()
            if not self._queue:
                return
            following = self._queue.popleft()
            self._out.add(following)
        following.runner.submit(following.call)
