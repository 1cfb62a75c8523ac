"""Looks after calls of dtm while an event loop runs in the thread that should run tasks.

An event loop sleeps outside of dtm.  Other workers take its calls meanwhile, but what cannot be
sent, or is not worth it, would stand ready for ever, and a task that has waited would not go on.
So as long as calls of this loop are under way a callback of the loop comes by and makes a
little progress, as a task does that polls: what takes long is left to other workers for a while.

An item that runs in the thread of the loop holds up the loop for so long; with one worker
there is no other way.

Threads: that of the loop.

Rejected: to run whatever stands ready at once.  A loop that serves others would stand still for
the length of an item although idle workers are about to take it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from dtm.future import Waits
from dtm.task import Call

LOOK_SECONDS = 5e-3
MOST_CALLS = 64

Calls = Callable[[], Sequence[Call]]


class Pump:
    """The calls of one event loop that are under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: list[tuple[Waits, Calls]] = []
        self._turning = False

    def watch(self, runner: Waits, calls: Calls) -> None:
        """Look after calls until ``calls`` returns none."""
        self._watched.append((runner, calls))
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._watched = [each for each in self._watched if not each[0].ended and each[1]()]
        if not self._watched:
            self._turning = False
            return
        runner = self._watched[0][0]
        under_way = [call for _, calls in self._watched[:MOST_CALLS] for call in calls()]
        before = sum(_ready_here(call) for call in under_way)
        self._run(runner, under_way)
        if before > sum(_ready_here(call) for call in under_way):
            self._loop.call_soon(self._turn)
        else:
            self._loop.call_later(LOOK_SECONDS, self._turn)

    def _run(self, runner: Waits, calls: Sequence[Call]) -> None:
        """Run a strip, perhaps of another task: it is not to find itself within this loop."""
        asyncio._set_running_loop(None)  # noqa: SLF001 - as loops do that run within others
        try:
            runner.step(calls)
        finally:
            asyncio._set_running_loop(self._loop)  # noqa: SLF001


def _ready_here(call: Call) -> int:
    return 0 if call.range is None else call.range.left


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
