"""Waiting for calls, without blocking the worker.

A task that waits for a call does, in this order (:mod:`dtm.core.wait_policy`):

1. *runs its own children inline*: what is left here of the call it waits for,
   then the newest work of the deque if this task made it;
2. with nothing of its own here and nothing else either, *stays and looks for
   work as an idle worker does*: it asks victims and reads messages.  If its call
   completes it goes on at once; if parts of its own calls come back, it runs them
   inline;
3. with other work here, or when its stack is deep, *parks*: it leaves its stack as it is
   (:mod:`dtm.run.stacks`), and another stack of the main thread goes on.

Why this cannot deadlock.  Call a task buried if its frame lies below that of
another task on the same stack.

(a) On one stack each task is a child of the task below it, for only step 1 and
    the return of one's own parts put a body on top of a waiting one.
(b) So whatever a task waits for, be it a call of its own or the task that buries
    it, is a descendant of it in the tree of tasks.  (Waiting for the call of
    somebody else, through a global say, is outside of this argument, as a lock
    would be.)
(c) The tree is finite and has no cycle.  Take a deepest waiting task T.  None of
    its descendants waits, so each item that it lacks is running, or its results
    are on the way, or it stands ready in some deque.
(d) On each worker the main thread neither sleeps while the deque has work nor is buried by
    unrelated work: each stack is a chain of (a).  The stack that runs takes the newest work if
    it is free to, else it parks and a server takes it.  So what stands ready is run,
    unless the main thread is in a body, which ends.
(e) Results are sent when a range is exhausted, before a worker turns idle, before
    a stack parks, and by the load-balancer thread; so those of T arrive, and T
    becomes ready.  A ready stack goes on before any new work is begun.

Hence some waiting task always gets on until none is left.

Prompt waits (with a deadline, or for the first of several calls) run nothing on their own stack,
and while one is under way (d) holds only for what ``may_begin`` allows.  That does not last: a
deadline passes, and what has stood ready for long enough is allowed.

A thread of the user's (a pool inside a task, a window system) sleeps until its calls are complete.
If the main thread has not come by within ``PATIENCE_SECONDS``, being blocked outside of dtm or in a
long body, the thread runs its own children itself, for otherwise a task that joins such a thread
would never end.

Depth: each level of inline nesting takes some Python frames and those of the task itself; with
``MOST_FRAMES`` of them on its stack a waiting task parks although it has children, and they run on
another stack.  The recursion limit is raised by ``MOST_FRAMES`` while a run lasts, so a task has
the depth for itself that it has without dtm.  A lower bound costs switches: a search 400
levels deep, cut every 24, spent a fifth of its time on them when they were hand-overs of threads.

Rejected: running *any* work on top of a waiting task.  Where tasks wait only for their own
children that does not deadlock either, for what stands in the way of a task was begun
later than it.  But a task whose results are in may lie below hours of somebody else's
work, and the stack grows with the tasks that wait instead of with the depth of their tree.

Shared attributes: ``_foreign``, calls and the deque are changed, and read for decisions, under
the worker's lock; that a call is complete may be read without it, for it stays so.

Threads: any, but for ``wait_any`` and ``wait_promptly``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from threading import Event
from time import perf_counter
from typing import Any, ClassVar, Protocol
from weakref import WeakSet

from dtm.core.scheduler import Scheduler
from dtm.core.wait_policy import (
    STALE_SECONDS,
    UNTAKEN_SECONDS,
    Way,
    may_begin,
    own_work,
    way_to_wait,
)
from dtm.run.stacks import FOREVER, Stacks
from dtm.task import Call, Range, missing

MOST_NESTED = 100
MOST_FRAMES = 10 * MOST_NESTED
PATIENCE_SECONDS = 0.05
ALONE_SECONDS = 0.5
IDLE_SECONDS = 0.5
SLACK_SECONDS = 0.05
POLL_SLACK_SECONDS = 1e-3


def is_deep() -> bool:
    """Whether the stack of the caller is too deep for one more task on top.

    The interpreter counts its frames without making objects of them, as a walk would.  Nobody need
    ask for ``main``, which has nothing of dtm below it.
    """
    try:
        sys._getframe(MOST_FRAMES)  # noqa: SLF001 - there is no other way
    except ValueError:
        return False
    return True


class Runs(Protocol):
    """What a wait needs of the runner."""

    scheduler: Scheduler
    stacks: Stacks
    streams: Any
    thread: Any
    world: Any

    def check(self) -> None:
        """Raise what ends the run."""

    def context(self) -> Any:
        """Return the task of the calling thread."""

    def go_on(self) -> None:
        """Say that a body runs again."""

    def run(self, work: Range, deadline: float) -> None:
        """Run a range."""

    def look_for_work(
        self, timeout: float, calls: Sequence[Call], *, any_work: bool = True
    ) -> None:
        """Rest until something comes."""


class Waiting:
    """The waits of one worker's tasks.

    Args:
        runner: of the worker.
    """

    SHARED_READ_FREELY: ClassVar = {"_foreign": "_lock"}

    def __init__(self, runner: Runs) -> None:
        self._runner = runner
        self._scheduler = runner.scheduler
        self._lock = runner.world.lock
        self._stacks = runner.stacks
        self._rank = runner.scheduler.rank
        self._alone = runner.scheduler.size == 1
        self._foreign: WeakSet[Call] = WeakSet()

    def wait(self, calls: Sequence[Call], deadline: float | None, *, promptly: bool) -> bool:
        """Wait until one of the calls is complete, or until ``deadline``; whether one is."""
        runner = self._runner
        thread, streams = runner.thread, runner.streams
        context = runner.context()
        saved = streams.save() if streams is not None else None
        until = FOREVER if deadline is None else deadline
        try:
            if not thread.main:
                self.visit(calls, until)
            elif promptly or deadline is not None:
                self.wait_promptly(calls, until, SLACK_SECONDS if promptly else FOREVER)
            else:
                self.wait_any(calls)
            if self._foreign and thread.main:
                self._settle()
        finally:
            thread.context = context
            runner.go_on()
            if saved is not None:
                streams.restore(saved)
        return not all(map(missing, calls))

    def poll(self, calls: Sequence[Call]) -> None:
        """Make a little progress on behalf of a task that polls."""
        runner, thread = self._runner, self._runner.thread
        if thread.main:
            context = thread.context
            try:
                until = perf_counter() + POLL_SLACK_SECONDS
                self.wait_promptly(calls, until, POLL_SLACK_SECONDS, poll=True)
            finally:
                thread.context = context
                runner.go_on()
        if not self._alone:
            runner.world.service()
            runner.world.flush()

    def of_another_thread(self, call: Call) -> None:
        """Note a call that is not of the main thread.  Called with the lock held."""
        self._foreign.add(call)

    def _settle(self) -> None:
        """Let stacks that were begun later end before the task of this one goes on.

        That task may block, outside of dtm, until a thread of the user's has ended, and what that
        thread waits for may have come to lie on one of those stacks.  None of them waits for this
        one in turn, for it waits only for what was begun later still.
        """
        while True:
            with self._lock:
                under_way = any(call.missing for call in self._foreign)
                if not under_way:
                    self._foreign.clear()
            if not (under_way and self._stacks.wait_for_later_ones()):
                return
            self._runner.check()

    def wait_any(self, calls: Sequence[Call]) -> None:
        """(Main thread) wait until one of the calls is complete."""
        runner, stacks = self._runner, self._stacks
        context = runner.context()
        while all(map(missing, calls)):
            runner.check()
            with self._lock:
                newest = self._scheduler.deque.newest()
                idle = not (newest or stacks.ready or stacks.prompt)
                work = own_work(calls, context, self._rank, newest)
                if work is not None and stacks.prompt and not self._may_begin(work):
                    work = None
            way = way_to_wait(work, deep=work is not None and is_deep(), idle=idle)
            if way is Way.INLINE:
                assert work is not None
                runner.go_on()
                runner.run(work, FOREVER if len(calls) == 1 else 0.0)
            elif way is Way.LOOK:
                runner.look_for_work(IDLE_SECONDS, calls)
            else:
                runner.world.flush()
                stacks.park(calls)

    def wait_promptly(
        self, calls: Sequence[Call], deadline: float, slack: float, *, poll: bool = False
    ) -> None:
        """(Main thread) wait until one of the calls is complete, or until ``deadline``.

        Args:
            calls: what the task waits for.
            deadline: on the clock of ``perf_counter``.
            slack: seconds that anything else may take meanwhile.
            poll: whether to return as soon as there is nothing to do here.
        """
        runner, stacks = self._runner, self._stacks
        stacks.give_way()  # what could go on before this wait began might else never get a turn
        strict = not runner.context().depth
        with stacks.promptly(calls, deadline, slack, strict=strict):
            while all(map(missing, calls)):
                runner.check()
                now = perf_counter()
                if now >= deadline:
                    return
                if self.something_to_do():
                    runner.world.flush()
                    stacks.park(calls)
                elif poll:
                    return
                else:
                    rest = min(IDLE_SECONDS, stacks.until() - now)
                    if deadline == FOREVER:
                        rest = min(rest, UNTAKEN_SECONDS)
                    runner.look_for_work(rest, calls, any_work=False)
        if strict and deadline == FOREVER:
            for call in calls:
                call.profile.ended = call.profile.ended or not call.missing

    def something_to_do(self) -> bool:
        """(Main thread) whether a server would find anything, while a wait is prompt."""
        with self._lock:
            return self._stacks.may_go_on() is not None or self.next_work() is not None

    def next_work(self) -> Range | None:
        """Return the newest work here that may be begun now.  Called with the lock held."""
        deque = self._scheduler.deque
        if not self._stacks.prompt:
            return deque.newest()
        for work in reversed(list(deque)):
            if work.left and self._may_begin(work):
                return work
        return None

    def _may_begin(self, work: Range) -> bool:
        stacks = self._stacks
        now = perf_counter()
        if self._alone or may_begin(work, stacks.left(now), stacks.untaken(work, now)):
            return True
        # What is not worth sending is given to nobody.
        untaken = work.born <= now - STALE_SECONDS
        return untaken and not self._scheduler.granularity.pays(work, now)

    # Threads of the user's.

    def visit(self, calls: Sequence[Call], deadline: float) -> None:
        """(Any other thread) wait until one of the calls is complete, or until ``deadline``."""
        runner, thread = self._runner, self._runner.thread
        context = runner.context()
        began = perf_counter()
        alone = self._alone
        in_vain = alone or began - thread.alone_at < ALONE_SECONDS  # so it was a moment ago
        while all(map(missing, calls)):
            runner.check()
            now = perf_counter()
            if now >= deadline:
                return
            work = None
            in_vain = in_vain or now - began >= PATIENCE_SECONDS
            if in_vain or (context.depth and not is_deep()):
                with self._lock:
                    work = own_work(calls, context, self._rank, self._scheduler.deque.newest())
            if work is not None and (
                alone or may_begin(work, deadline - now, began - STALE_SECONDS)
            ):
                runner.run(work, deadline if len(calls) == 1 else 0.0)
                thread.alone_at = perf_counter()
            else:
                runner.world.flush()
                self._sleep(calls, min(PATIENCE_SECONDS, deadline - now))

    def _sleep(self, calls: Sequence[Call], timeout: float) -> None:
        """Sleep until one of the calls is complete, or for ``timeout`` seconds."""
        event = Event()
        with self._lock:
            for call in calls:
                if not call.missing:
                    return
                call.listeners = [*(call.listeners or ()), event.set]
        event.wait(timeout)
        with self._lock:
            for call in calls:
                if call.listeners and event.set in call.listeners:
                    call.listeners.remove(event.set)
