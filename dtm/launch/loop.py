"""The loop of a launcher and of an agent: descriptors, deadlines, signals, one thread.

What is registered is called back when its descriptor is ready, a timer when its
time has come, a signal's handler in the loop, never in the middle of something.
Nothing that is called back may block.

Rejected: ``asyncio``.  It costs each start 60 ms of imports, most of a short run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from time import monotonic
from typing import Any

Act = Callable[[], object]
_LOOK = 0.01


class Loop:
    """Calls back what is ready until it is told to stop."""

    def __init__(self) -> None:
        self._selector = DefaultSelector()
        self._acts: dict[int, dict[int, Act]] = {}
        self._timers: list[tuple[float, int, Act]] = []
        self._serial = count()
        self._running = False
        self._handlers: dict[int, Any] = {}
        self._told: tuple[int, int] | None = None

    def read(self, descriptor: int, act: Act | None) -> None:
        """Call back while the descriptor is readable; None ends that."""
        self._register(descriptor, EVENT_READ, act)

    def write(self, descriptor: int, act: Act | None) -> None:
        """Call back while the descriptor is writable; None ends that."""
        self._register(descriptor, EVENT_WRITE, act)

    def later(self, seconds: float, act: Act) -> None:
        """Call back once, in so many seconds."""
        heappush(self._timers, (monotonic() + seconds, next(self._serial), act))

    def every(self, seconds: float, act: Act) -> None:
        """Call back again and again."""

        def again() -> None:
            self.later(seconds, again)
            act()

        self.later(seconds, again)

    def signals(self, numbers: Iterable[int], act: Callable[[int], object]) -> None:
        """Call back with the number when one of these signals comes.  In the main thread."""
        readable, writable = os.pipe()
        os.set_blocking(readable, False)
        os.set_blocking(writable, False)
        self._told = readable, writable

        def note(number: int, _frame: object) -> None:
            with suppress(OSError):  # full: as many have come already
                os.write(writable, bytes([number]))

        def tell() -> None:
            for number in os.read(readable, 64):
                act(number)

        for number in numbers:
            self._handlers[number] = signal.signal(number, note)
        self.read(readable, tell)

    def run(self) -> None:
        """Call back what is ready, until ``stop``."""
        self._running = True
        while self._running:
            for key, events in self._selector.select(self._patience()):
                for event in (EVENT_READ, EVENT_WRITE):
                    act = self._acts.get(key.fd, {}).get(event) if events & event else None
                    if act is not None and self._running:
                        act()
            self._ring()

    def run_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Run until something is so, for so many seconds at most; return whether it is."""
        deadline = monotonic() + seconds
        looking = not done()

        def look() -> None:
            if not looking:  # a look that was left over
                return
            if done() or monotonic() >= deadline:
                self.stop()
            else:
                self.later(_LOOK, look)

        if looking:
            self.later(0.0, look)
            self.run()
            looking = False
        return done()

    def stop(self) -> None:
        """Make ``run`` return."""
        self._running = False

    def close(self) -> None:
        """Give the signals back, and let go of all."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for descriptor in self._told or ():
            os.close(descriptor)
        self._selector.close()

    def _register(self, descriptor: int, event: int, act: Act | None) -> None:
        before = self._acts.get(descriptor, {})
        acts = {kind: known for kind, known in before.items() if kind != event}
        if act is not None:
            acts[event] = act
        events = sum(acts)
        if not before and acts:
            self._selector.register(descriptor, events)
        elif before and not acts:
            self._selector.unregister(descriptor)
        elif before.keys() != acts.keys():
            self._selector.modify(descriptor, events)
        if acts:
            self._acts[descriptor] = acts
        else:
            self._acts.pop(descriptor, None)

    def _patience(self) -> float | None:
        return max(0.0, self._timers[0][0] - monotonic()) if self._timers else None

    def _ring(self) -> None:
        now = monotonic()
        while self._running and self._timers and self._timers[0][0] <= now:
            heappop(self._timers)[2]()
