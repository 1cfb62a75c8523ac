"""Looks after calls of dtm while an event loop runs in the thread that should run tasks.

An event loop sleeps outside of dtm.  Other workers take its calls meanwhile, but what cannot be
sent, or is not worth it, would stand ready for ever.  So as long as calls of this loop are under
way a callback of the loop comes by: it runs a strip of one that stands ready here if there is no
other worker to take it, or if none has taken it for ``PATIENCE_SECONDS``.

An item that runs in the thread of the loop holds up the loop for so long; with one worker
there is no other way.

Threads: that of the loop.

Rejected: to run whatever stands ready at once.  A loop that serves others would stand still for the
length of an item although idle workers are about to take it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from weakref import WeakKeyDictionary

from dtm.future import Waits
from dtm.task import Call

PATIENCE_SECONDS = 0.02
LOOK_SECONDS = 0.01

Calls = Callable[[], Sequence[Call]]


class Pump:
    """The calls of one event loop that are under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: list[tuple[Waits, Calls]] = []
        self._since = 0.0
        self._turning = False

    def watch(self, runner: Waits, calls: Calls) -> None:
        """Look after calls until ``calls`` returns none."""
        self._watched.append((runner, calls))
        if not self._turning:
            self._turning = True
            self._since = perf_counter()
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        found = None
        left = []
        for runner, calls in self._watched:
            under_way = [] if runner.ended else calls()
            if under_way:
                left.append((runner, calls))
                found = found or _ready_here(runner, under_way)
        self._watched = left
        if not left:
            self._turning = False
            return
        now = perf_counter()
        if found is None:
            self._since = now
        elif found[0].scheduler.size == 1 or now - self._since >= PATIENCE_SECONDS:
            self._run(*found)
            self._loop.call_soon(self._turn)
            return
        self._loop.call_later(LOOK_SECONDS, self._turn)

    def _run(self, runner: Waits, call: Call) -> None:
        """Run a strip, perhaps of another task: it is not to find itself within this loop."""
        asyncio._set_running_loop(None)  # noqa: SLF001 - as loops do that run within others
        try:
            runner.step((call,))
        finally:
            asyncio._set_running_loop(self._loop)  # noqa: SLF001


def _ready_here(runner: Waits, calls: Sequence[Call]) -> tuple[Waits, Call] | None:
    for call in calls:
        if call.range is not None and call.range.left:
            return runner, call
    return None


_pumps: WeakKeyDictionary[asyncio.AbstractEventLoop, Pump] = WeakKeyDictionary()


def look_after(runner: Waits, calls: Calls) -> None:
    """Look after calls of the event loop that runs in this thread, if one does."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    pump = _pumps.get(loop)
    if pump is None:
        pump = _pumps[loop] = Pump(loop)
    pump.watch(runner, calls)
