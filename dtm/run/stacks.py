"""The stacks of a worker's main thread, and which of them runs.

Every body of a task runs in the main thread.  A task that waits may have to leave the thread to
others before it has ended, so the thread has several *stacks*, each a greenlet, and switches
between them:

* the *first* stack is that on which the thread began; on the root ``main`` runs on it;
* *servers* run :meth:`dtm.run.runner.Runner.serve`: what stands ready, one range after the other.

A task that parks leaves its stack as it is, and a server takes over.  When a call is complete for
which a parked stack waits, the stack is ready; ready stacks go on before new work is begun, the
one that has been ready longest first.

    SPARE --chosen--> RUNS --parks--> PARKED --may go on--> READY --chosen--> RUNS
    RUNS --gives way--> READY,   RUNS --nothing to do--> SPARE

A *prompt* stack is one whose task waits until a time, or for the first of several calls: it has to
go on at once when that comes.  While there is one, only what is short enough runs
(:func:`dtm.core.wait_policy.may_begin`).

A new stack is begun by the *hub*, a greenlet that does nothing else.  A greenlet shares the C
stack of its thread and begins where its maker stands, so one that a deeply nested task made would
begin as deep; the hub stands at the bottom.

What can go wrong.  An exception ends a server (Ctrl-C, an error of dtm): the greenlet's parent,
which is the first stack, gets it wherever it is parked, so it comes out of ``main``.  A parked
stack may be woken that way while it is PARKED or READY; :meth:`Stacks.park` puts that right before
it goes on.
At the end of a run ``unwind`` raises ``GreenletExit`` in each stack that is left, once, so that
``finally`` blocks of abandoned tasks run.

Shared attributes:

    ===================  ==========================  ===========  ==============
    attribute            written by                  read by      under
    ===================  ==========================  ===========  ==============
    Stacks.ready         any thread                  any thread   worker's lock
    Stack.place          any thread                  any thread   worker's lock
    all others           main thread                 main thread  --
    ===================  ==========================  ===========  ==============

Rejected: a thread for each waiting task (dtm until 1.0).  What is bound to a thread (signal alarms,
sqlite connections, event loops) broke in tasks, a hand-over cost 26 to 60 microseconds where a
switch costs one, and the token that kept the threads apart was the hardest code of the package.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from time import perf_counter
from typing import Any, ClassVar

from greenlet import GreenletExit, getcurrent, greenlet

from dtm.core.scheduler import Counters
from dtm.core.wait_policy import STALE_SECONDS, UNKNOWN_SECONDS, UNTAKEN_SECONDS
from dtm.run.loops import put_running_loop, take_running_loop
from dtm.run.stack_chunks import call_with_room
from dtm.task import Call, Range


class Place(Enum):
    """What a stack does."""

    RUNS = "has the main thread"
    PARKED = "waits for calls"
    READY = "could go on"
    SPARE = "is a server that has nothing to do"

    __hash__ = object.__hash__  # an enumeration's own runs Python code at each look into a table


TRANSITIONS: dict[Place, dict[str, Place]] = {
    Place.SPARE: {"chosen": Place.RUNS},
    Place.RUNS: {
        "parks": Place.PARKED,
        "gives way": Place.READY,
        "nothing to do": Place.SPARE,
    },
    Place.PARKED: {"may go on": Place.READY, "is interrupted": Place.RUNS},
    Place.READY: {"chosen": Place.RUNS, "is interrupted": Place.RUNS},
}
RUNS = Place.RUNS  # for those who look often: a name of a module is found sooner
PARKED = Place.PARKED
READY = Place.READY
FOREVER = float("inf")


class Stack:
    """One stack of the main thread.

    Attributes:
        greenlet: the stack itself.
        place: what it does.
        resume: makes it ready; what it leaves with the calls that it waits for.
        until: (prompt) when it has to go on at the latest.
        slack: (prompt) seconds that anything else may take while it waits.
        stale: (prompt) when its wait began, less ``STALE_SECONDS``.
        awaits: (prompt) the calls that ``main`` waits for the first of, without a deadline.
        under_way: (prompt) the one of them that was seen to be under way.
        number: counts what servers have begun; 0 for the first stack and those that are spare.
        ran: seconds for which it has run what is on it.
        since: when it began to run last.
    """

    __slots__ = (
        "awaits", "greenlet", "number", "place", "ran", "resume", "since", "slack",
        "stale", "under_way", "until"
    )  # fmt: skip

    def __init__(self, body: greenlet) -> None:
        self.greenlet = body
        self.place = RUNS
        self.number = 0
        self.resume: Callable[[], None] = lambda: None
        self.until = self.slack = self.stale = FOREVER
        self.awaits: Sequence[Call] = ()
        self.under_way: Call | None = None
        self.ran = 0.0
        self.since = perf_counter()

    def go(self, event: str) -> None:
        """Change the place."""
        self.place = TRANSITIONS[self.place][event]

    def sees_one_under_way(self) -> bool:
        """Whether a call that is awaited here has been begun, or given away, and has not ended."""
        if self.under_way is None or not self.under_way.missing:
            self.under_way = next((call for call in self.awaits if _is_under_way(call)), None)
        return self.under_way is not None


def _is_under_way(call: Call) -> bool:
    work = call.range
    return call.missing > 0 and (work is None or work.lo >= work.hi)


class Stacks:
    """The stacks of one worker.

    Args:
        lock: the worker's lock.
        serve: what a server runs.
        nudge: wakes the main thread if it rests for lack of work.
        counters: count those that park.

    Attributes:
        current: the stack that runs.
        ready: stacks that could go on, the longest ready first.
        prompt: stacks that have to go on in time, the newest last.
    """

    SHARED: ClassVar = {"ready": "_lock"}

    def __init__(
        self, lock: Any, serve: Callable[[], None], nudge: Callable[[], None], counters: Counters
    ) -> None:
        self.ready: deque[Stack] = deque()
        self.prompt: list[Stack] = []
        self.current: Stack
        self._lock = lock
        self._serve = serve
        self._nudge = nudge
        self._counters = counters
        self._servers: list[Stack] = []
        self._spares: list[Stack] = []
        self._settling: list[Stack] = []
        self._begun = 0
        self._switched = 0.0
        self._first: Stack | None = None
        self._hub: greenlet

    def adopt(self) -> None:
        """Make the stack of the caller the first one; where it stands is the bottom of all."""
        self.current = self._first = self._new(getcurrent())
        self._hub = greenlet(self._begin_servers)
        self._hub.switch()

    def _new(self, body: greenlet) -> Stack:
        stack = Stack(body)

        def resume() -> None:
            with self._lock:
                if stack.place is not PARKED:
                    return
                stack.go("may go on")
                self.ready.append(stack)
            self._nudge()

        stack.resume = resume
        return stack

    def _begin_servers(self) -> None:
        """Begin a server each time that somebody switches to the hub."""
        first = getcurrent().parent
        assert first is not None
        first.switch()
        while True:
            stack = self._new(greenlet(self._serve_on, first))
            self._servers.append(stack)
            self.current = stack
            stack.greenlet.switch()

    def _serve_on(self) -> None:
        """(A server) serve; what interrupts its range ends it, and nobody waits for it then."""
        me = self.current
        try:
            call_with_room(self._serve)
        finally:
            if me in self._servers:
                self._servers.remove(me)
            me.number = 0
            for stack in self._settling:
                stack.resume()

    # Which stack runs.

    @contextmanager
    def promptly(
        self, calls: Sequence[Call], until: float, slack: float, *, strict: bool
    ) -> Iterator[None]:
        """Make the stack that runs a prompt one, for the time of a wait for one of the calls.

        With ``strict``, for ``main``, nothing is begun for having stood here for long if the wait
        has a deadline, and else not what ``untaken`` tells.
        """
        me = self.current
        me.until, me.slack = until, slack
        me.awaits = calls if strict and until == FOREVER else ()
        me.stale = -FOREVER if strict else perf_counter() - STALE_SECONDS
        self.prompt.append(me)
        try:
            yield
        finally:
            self.prompt.remove(me)
            me.awaits, me.under_way = (), None

    def left(self, now: float) -> float:
        """Return the seconds that something may take which is begun now."""
        left = FOREVER
        for stack in self.prompt:
            left = min(left, stack.slack, stack.until - now)
        return left

    def aside(self) -> list[Stack]:
        """Return the stacks that are parked or ready; any thread may ask."""
        known = [*self._servers, *([self._first] if self._first is not None else ())]
        return [stack for stack in known if stack.place in (PARKED, READY)]

    def until(self) -> float:
        """Return the time at which the first prompt stack has to go on."""
        return min((stack.until for stack in self.prompt), default=FOREVER)

    def untaken(self, work: Range, now: float) -> float:
        """Return when a range must have come at the latest to be begun though it may take long.

        While ``main`` waits for the first of several calls, a range of which nothing is known has
        to stand here for longer, since workers that have only just been started may take it; and
        for as long as it is taken to last if it is of ``main`` too and one of those calls is under
        way: that one may end at any time, and it does not need this one for it.
        """
        times = [stack.stale for stack in self.prompt if stack.until < FOREVER]
        call = work.call
        for stack in self.prompt:
            if stack.awaits and not (call.profile.mature or call.profile.ended):
                one = stack.awaits[0]
                of_main = call.owner == one.owner and call.parent is one.parent
                put_off = of_main and stack.sees_one_under_way()
                times.append(now - (UNKNOWN_SECONDS if put_off else STALE_SECONDS))
        return min(times, default=now - UNTAKEN_SECONDS)

    def may_go_on(self) -> Stack | None:
        """Return the stack that goes on next, None if none may.  Called with the lock held.

        While there are prompt stacks, it is one of them that is ready or whose time has come, or
        one that has run for no longer than there is time: it is taken to need as long again.  The
        slack of a wait without a deadline does not keep it back, for nobody else can go on with it,
        and it may be what the wait is for.
        """
        if not self.prompt:
            return self.ready[0] if self.ready else None
        now = perf_counter()
        for stack in self.prompt:
            if stack.place is READY or (stack.place is PARKED and stack.until <= now):
                return stack
        left = self.until() - now
        return next((stack for stack in self.ready if stack.ran <= left), None)

    def choose(self, stack: Stack | None) -> Stack | None:
        """Take a stack that is parked or ready, to switch to it.  Called with the lock held."""
        if stack is None:
            return None
        if stack.place is PARKED:
            stack.go("may go on")
        else:
            self.ready.remove(stack)
        stack.go("chosen")
        return stack

    def park(self, calls: Sequence[Call]) -> None:
        """Leave the thread to others until one of the calls is complete, or ``resume`` is called.

        Returns at once if one is complete.
        """
        me = self.current
        with self._lock:
            for call in calls:
                if call.missing == 0:
                    return
            for call in calls:
                call.listeners = [*(call.listeners or ()), me.resume]
            me.go("parks")
            self._counters.parked += 1
            successor = self.choose(self.may_go_on())
        try:
            self._switch(me, successor)
        finally:
            with self._lock:
                self._recover(me)
                for call in calls:
                    if call.listeners and me.resume in call.listeners:
                        call.listeners.remove(me.resume)

    def give_way(self) -> None:
        """Let the stacks that are ready go first."""
        me = self.current
        with self._lock:
            successor = self.choose(self.may_go_on())
            if successor is None:
                return
            me.go("gives way")
            self.ready.append(me)
        try:
            self._switch(me, successor)
        finally:
            with self._lock:
                self._recover(me)

    def begin(self) -> None:
        """(A server) begin with a range."""
        self._begun += 1
        self.current.number = self._begun

    def ended(self) -> None:
        """(A server) have done with a range, or with a part of it."""
        self.current.number = 0
        for stack in self._settling:
            stack.resume()

    def wait_for_later_ones(self) -> bool:
        """Wait for a server that has begun its range later than this stack; False if none has."""
        me = self.current
        if not any(server.number > me.number for server in self._servers):
            return False
        self._settling.append(me)
        try:
            self.park(())
        finally:
            self._settling.remove(me)
        return True

    def retire(self, successor: Stack) -> None:
        """(A server) let a stack go on that has been chosen; return when there is work again."""
        me = self.current
        with self._lock:
            me.go("nothing to do")
        self._spares.append(me)
        self._switch(me, successor)
        me.ran = 0.0

    def _switch(self, me: Stack, successor: Stack | None) -> None:
        """Go on with another stack, a server if it is None; return when this one is chosen."""
        self._switched = now = perf_counter()
        me.ran += now - me.since
        loop = take_running_loop()
        try:
            if successor is not None:
                successor.greenlet.switch()
            elif self._spares:
                successor = self._spares.pop()
                with self._lock:
                    successor.go("chosen")
                successor.greenlet.switch()
            else:
                self._hub.switch()
        finally:
            self.current = me
            me.since = self._switched
            if loop is not None:
                put_running_loop(loop)

    def _recover(self, me: Stack) -> None:
        """Make a stack run that an exception has woken.  Called with the lock held."""
        if me.place is not RUNS:
            if me.place is READY:
                self.ready.remove(me)
            me.go("is interrupted")

    # The end.

    def unwind(self) -> None:
        """(The first stack, at the end) end all others: their ``finally`` blocks run.

        An error that such a block raises is printed.
        """
        first = self.current
        loop = take_running_loop()
        for stack in list(self._servers):
            try:
                stack.greenlet.throw(GreenletExit)
            except Exception:  # noqa: BLE001 - users' code; there is nobody to raise it to
                traceback.print_exc()
            self.current = first
        self._servers.clear()
        self._spares.clear()
        put_running_loop(loop)
        self._hub.throw(GreenletExit)
