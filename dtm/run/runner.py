"""Running the bodies of tasks, strip by strip, in the worker's main thread.

A *server* (:meth:`Runner.serve`) runs whatever stands ready; a task that waits runs its own work
on its own stack (:mod:`dtm.run.waiting`).  Both run *ranges* by :meth:`Runner.run`: a strip of
items at a time, as one segment of results.  Between strips the runner looks at the inbox, and lets
stacks go on that have waited long enough.

Each range runs in a context of its own (:mod:`contextvars`), a copy of the one that the run
began with: what a task sets there reaches neither the task that waits below it nor the next range,
just as if it ran on another worker.

A child that a task forks is no worker.  When the body of the task returns in it, the child ends.

Shared attributes:

    ==========================  ============  ============  ==========================
    attribute                   written by    read by       under
    ==========================  ============  ============  ==========================
    resting                     main thread   any thread    worker's lock to set it
    due                         any thread    main thread   atomic; the main thread takes it
    interruption, guard         main thread   main thread   --
    ended, interrupted, fault   any thread    any thread    written once, False to True
    polled                      any thread    any thread    a wrong one is right again soon
    rests                       main thread   any thread    written whole (a tuple)
    ==========================  ============  ============  ==========================

Threads: bodies run in the main thread, and in threads of the user's that wait in vain
(:meth:`dtm.run.waiting.Waiting.visit`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextvars import copy_context
from threading import get_ident
from time import perf_counter
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from dtm.core.messages import Segment
from dtm.core.scheduler import Scheduler
from dtm.errors import RunStateError
from dtm.run.callbacks import Callbacks
from dtm.run.context import CallingThread, Context
from dtm.run.loops import put_running_loop, take_running_loop
from dtm.run.stacks import FOREVER, Stacks
from dtm.run.waiting import IDLE_SECONDS, Waiting, is_deep
from dtm.run.world import World
from dtm.task import Body, Call, Range, missing
from dtm.wire.far_functions import UnreadableFunctionError
from dtm.wire.pickling import calling_out

if TYPE_CHECKING:
    from dtm.run.seeding import Streams

FLUSH_SECONDS = 1.0
POLL_SECONDS = 1e-3
STREAM_SECONDS = 1e-3


class Runner:
    """Runs the task bodies of one worker.

    Attributes:
        polled: when a running task last looked at the inbox.
        submitted: when a call was made last.
        resting: whether the main thread sleeps for lack of work.
        rests: seconds that it has slept so, and since when it does, infinity if it does not.
        interrupted: whether the run is being ended by a signal; exceptions then pass
            through task bodies.
        fault: what ends the run before its time, raised by every wait.
        due: what the next wait raises, once.
        interruption: what interrupts ``main`` of a run that goes on; it passes through bodies.
        guard: called when the main thread makes a call or begins to wait, if there is one.
        interrupt_items: interrupts what runs of a call, given its owner and key, if that can be.
        ended: whether the run is over for this worker.
        forked: whether this is a child that a task has forked.
        callbacks: what users want called when calls end.
        thread: what the calling thread runs.
    """

    stacks_class = Stacks

    def __init__(self, scheduler: Scheduler, world: World, streams: Streams | None) -> None:
        self.scheduler = scheduler
        self.world = world
        self.streams = streams
        self.polled = self.submitted = 0.0
        self.resting = False
        self.rests = 0.0, FOREVER
        self.interrupted = False
        self.fault: BaseException | None = None
        self.due: BaseException | None = None
        self.interruption: BaseException | None = None
        self.guard: Callable[[], None] | None = None
        self.interrupt_items: Callable[[int, int], None] | None = None
        self.ended = False
        self.forked = False
        self.callbacks = Callbacks(world.lock)
        self.thread = CallingThread()
        self._lock = world.lock
        self._rank = scheduler.rank
        self._alone = scheduler.size == 1
        self._base = copy_context()
        self.stacks = self.stacks_class(world.lock, self.serve, self._nudge, scheduler.counters)
        self._waiting = Waiting(self)

    # Threads and contexts.

    def adopt(self) -> None:
        """Make the calling thread the one that runs tasks."""
        self.thread.main = True
        self.stacks.adopt()

    def context(self) -> Context:
        """Return the task of the calling thread; a thread of the user's gets one of its own."""
        found = self.thread.context
        if found is None:
            path = None if self.streams is None else ()
            found = self.thread.context = Context(0, path)
        return found

    def _nudge(self) -> None:
        if self.resting:
            self.world.nudge()

    def check(self) -> None:
        """Raise what ends the run, if it is being ended."""
        if self.fault is not None:
            raise self.fault
        if self.due is not None:
            self.interruption, self.due = self.due, None
            raise self.interruption
        if self.ended:
            raise RunStateError("the run is over")

    def renew_base(self) -> None:
        """Let tasks begin with the context variables of now."""
        self._base = copy_context()

    def serve(self) -> None:
        """Run whatever is ready, or look for it, until the run is over."""
        stacks, thread = self.stacks, self.thread
        while not self.ended:
            if self.fault is not None or self.due is not None:
                self.check()
            thread.context = None
            with self._lock:
                successor = stacks.choose(stacks.may_go_on())
                work = self._waiting.next_work() if successor is None else None
                if successor is None and work is None and stacks.prompt:
                    successor = stacks.choose(stacks.prompt[-1])
            if successor is not None:
                stacks.retire(successor)
            elif work is not None:
                self.go_on()
                now = perf_counter()
                stacks.begin()
                try:
                    self.run(work, now + stacks.left(now))
                except BaseException as exception:
                    if exception is not self.interruption or self._rank == 0:
                        raise  # out of main, whose stack gets what ends another
                stacks.ended()
            else:
                self.look_for_work(IDLE_SECONDS)

    def end(self) -> None:
        """Let every wait come to its end."""
        self.ended = True
        self.callbacks.end()

    # Running.

    def submit(self, call: Call, *, waits: bool = False) -> None:
        """Make a new call ready; ``waits`` if its caller does nothing else until it is complete."""
        if self.ended:
            raise RunStateError("the run is over; nothing more can be submitted")
        self._refuse_from_within()
        if self.guard is not None:
            self.guard()
        with self._lock:
            if not self.thread.main:
                self._waiting.of_another_thread(call)
            self.submitted = now = perf_counter()
            self.scheduler.granularity.main_thread_away = False  # for here it is
            kept = waits and call.size == 1 and self._runs_it_now()
            effects = self.scheduler.submit(call, now, kept=kept)
            if effects:
                self.world.perform(effects)
                self.submitted = perf_counter()  # to send may take long
        if self.resting:
            self.world.nudge()

    @staticmethod
    def _refuse_from_within() -> None:
        """Raise if dtm itself has called the code that calls it: its state is in the middle."""
        if calling_out and get_ident() in calling_out:
            raise RunStateError("an object cannot call dtm while it is pickled or loaded")

    def run(self, work: Range, deadline: float = FOREVER) -> None:
        """Run a range to its end, strip by strip, or until the first strip after ``deadline``."""
        call = work.call
        thread = self.thread
        outer = thread.context
        thread.context = context = Context(call.depth + 1, call.path)
        loop = take_running_loop()
        try:
            if isinstance(call.function, Body) and not self._prepare(call.function, work):
                return
            if call.size == 1 and call.path is None:
                self._base.copy().run(self._single, work, call)
            else:
                self._base.copy().run(self._strips, work, call, context, deadline)
        finally:
            thread.context = outer
            if loop is not None:
                put_running_loop(loop)

    def _prepare(self, body: Body, work: Range) -> bool:
        """Have the wrapper of a function prepare this process; whether the range may run."""
        try:
            body.prepare(self)
        except BaseException as exception:  # an initializer, which may raise anything
            if self.passes(exception):
                raise
            # No variable of a caller has it: it would keep all that its traceback sees alive.
            self._fail_unprepared(work, exception)
            return False
        return True

    def _fail_unprepared(self, work: Range, failure: BaseException) -> None:
        call = work.call
        unreadable = isinstance(failure, UnreadableFunctionError)
        with self._lock:
            lo, hi = work.claim(work.hi - work.lo if unreadable else 1)
        if lo == hi:
            return
        if unreadable:
            self.world.give_back(call, lo, hi, failure)
            return
        self.world.located(call, lo, failure)
        self._segment(call, lo, [], 0.0, failure)

    def in_base(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the context of which each range gets a copy."""
        return self._base.run(function, *args)

    def _single(self, work: Range, call: Call) -> None:
        """Run the item of a call of one item, without what strips need."""
        with self._lock:
            if work.lo >= work.hi or work.lo >= call.limit:
                return
            work.lo = work.hi
        values: list[Any] = []
        failure = None
        parks = self.scheduler.counters.parked
        began = perf_counter()
        try:
            item = call.items[0]
            values.append(call.function(*item) if call.star else call.function(item))
        except BaseException as exception:  # the body of a task may raise anything
            if self.passes(exception):
                raise
            failure = exception
            self.world.located(call, call.base, exception)
        if self.forked:
            self._leave_fork(failure)
        now = perf_counter()
        spent = 0.0
        if failure is None and parks == self.scheduler.counters.parked:
            spent = now - began
            call.profile.learn(1, spent)
        self._segment(call, call.base, values, spent, failure, len(values))
        self._hand_on(failure)
        if now - self.polled > POLL_SECONDS:
            self.checkpoint()

    def _strips(self, work: Range, call: Call, context: Context, deadline: float) -> None:
        lock, profile, counters = self._lock, call.profile, self.scheduler.counters
        strip_length = self.scheduler.granularity.strip_length
        own = call.owner == self._rank
        values: list[Any] = []
        call.sample = values
        start, length, ran, failure, spent = work.lo, 0, 0, None, 0.0
        began = shipped = perf_counter()
        while failure is None:
            length = strip_length(work, length) if call.size > 1 else 1
            with lock:
                counters.items += ran
                lo, hi = work.claim(length)
            ran = 0
            if lo == hi:
                break
            before = len(values)
            if lo != start + before:
                self._segment(call, start, values, spent)
                call.sample = values = []
                start, before, spent = lo, 0, 0.0
            parks = counters.parked
            failure = self._strip(call, context, lo, hi, values)
            ran = len(values) - before
            if self.forked:
                self._leave_fork(failure)
            now = perf_counter()
            if failure is None and parks == counters.parked:
                profile.learn(hi - lo, now - began)
                spent += now - began
            if not own and now - shipped > (STREAM_SECONDS if call.streaming else FLUSH_SECONDS):
                self._segment(call, start, values, spent)
                self.world.flush()
                values, start, shipped, spent = [], start + len(values), now, 0.0
            if now - self.polled > POLL_SECONDS:
                self._poll()
                if self._others_first():
                    # Nobody knows when this stack goes on: what it has done is handed in.
                    self._segment(call, start, values, spent)
                    self.world.flush()
                    values, start, spent = [], start + len(values), 0.0
                    self._give_way()
                    shipped = perf_counter()
                now = perf_counter()
            if now >= deadline or work.lo >= work.hi:
                break
            began = now
        self._segment(call, start, values, spent, failure, ran)
        self._hand_on(failure)

    def _strip(
        self, call: Call, context: Context, lo: int, hi: int, values: list[Any]
    ) -> BaseException | None:
        """Run some items, appending to ``values``; return what stopped them, if anything did."""
        due = len(values) + hi - lo
        try:
            if call.path is None:
                values.extend(call.strip(lo, hi))
            else:
                assert self.streams is not None
                values.extend(self.streams.results(call, context, lo, hi))
            if len(values) == due:
                return None
            failure: BaseException = StopIteration("raised by the function itself")
        except BaseException as exception:  # the body of a task may raise anything
            if self.passes(exception):
                raise
            failure = exception
        self.world.located(call, hi - (due - len(values)), failure)
        return failure

    def passes(self, exception: BaseException) -> bool:
        """Whether an exception ends the run, or a stack: then it is no failure of the item."""
        return self.interrupted or (self.ended and isinstance(exception, GreenletExit))

    def _hand_on(self, failure: BaseException | None) -> None:
        """Raise the interrupt of ``main`` again if an item has failed by it: the stack ends too."""
        if failure is not None and failure is self.interruption:
            raise failure

    def _segment(
        self,
        call: Call,
        start: int,
        values: list[Any],
        spent: float,
        failure: BaseException | None = None,
        ran: int = 0,
    ) -> None:
        """Hand in a segment that is finished, and the failure that ended it.

        ``ran`` counts the items that have run and are in no counter yet.
        """
        count = len(values)
        if not (count or ran) and failure is None:
            return
        with self._lock:
            self.scheduler.counters.items += ran
            if not count and failure is None:
                return
            if call.owner != self._rank:
                if failure is not None:
                    call.limit = min(call.limit, start + count)
                segment = Segment(call.key, start, values, failure, call.name, spent)
                self.world.ship(call.owner, segment)
                return
            complete = bool(count) and call.account(start, values)
            if failure is not None:
                complete |= call.fail(start + count, failure)
            if complete:
                self.scheduler.deque.newest()  # lets go of the range, and with it of the items
            if not complete or not (call.listeners or call.key):
                return
            self.world.perform(self.scheduler.completed(call))

    def _leave_fork(self, failure: BaseException | None) -> None:
        """End a child that a task has forked and that returns from its body as if it were one."""
        status = 0 if failure is None else 1
        if isinstance(failure, SystemExit) and (failure.code is None or type(failure.code) is int):
            status = failure.code or 0
        elif failure is not None:
            sys.excepthook(type(failure), failure, failure.__traceback__)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)

    def checkpoint(self) -> None:
        """Between items: read messages, share work, let stacks go on that are ready."""
        self._poll()
        if self._others_first():
            self.world.flush()
            self._give_way()

    def _poll(self) -> None:
        self.polled = perf_counter()
        if not self._alone:
            self.world.service()

    def _others_first(self) -> bool:
        """Whether a stack is ready that is to go on before anything else."""
        with self._lock:
            return self.thread.main and self.stacks.may_go_on() is not None

    def _give_way(self) -> None:
        context = self.thread.context
        self.stacks.give_way()
        self.thread.context = context

    # Waiting.

    def wait(self, call: Call, deadline: float | None = None) -> bool:
        """Wait until a call is complete, or until ``deadline``; whether it is complete."""
        work = call.range
        if self.guard is not None:
            self.guard()
        if deadline is None and work is not None and work.lo < work.hi and self._runs_it_now():
            self.run(work)
            if call.missing == 0:
                return True
        return self.wait_any((call,), deadline)

    def _runs_it_now(self) -> bool:
        """Whether who waits for a call begins it on its own stack."""
        thread = self.thread
        return (
            thread.main
            and not self.stacks.prompt
            and self.streams is None
            and not (thread.context is not None and thread.context.depth and is_deep())
        )

    def wait_any(
        self, calls: Sequence[Call], deadline: float | None = None, *, promptly: bool = False
    ) -> bool:
        """Wait until one of the calls is complete, or until ``deadline``; whether one is.

        With ``promptly`` it returns soon after the first of them is, without a deadline too: what
        takes long is left to others meanwhile.

        Raises:
            BaseException: what ends the run, if it is being ended.
        """
        self._refuse_from_within()
        if self.guard is not None:
            self.guard()
        return self._waiting.wait(calls, deadline, promptly=promptly)

    def step(self, calls: Sequence[Call]) -> None:
        """Make a little progress on behalf of a task that polls."""
        self._waiting.poll(calls)

    def go_on(self) -> None:
        """A body of a task runs again, or ``main``."""
        self.scheduler.balancer.running = True
        self.world.busy()

    def abandon(self, call: Call) -> None:
        """Drop what is left of a call; what runs of it too, if an interrupt is the reason."""
        running = self.interruption is not None and sys.exception() is self.interruption
        with self._lock:
            if (running or not call.complete) and not self.ended:
                self.world.perform(self.scheduler.abandon(call, running=running))

    def ring(self, bell: Call) -> None:
        """Complete a call that is never run, but waited for: this wakes those who wait."""
        with self._lock:
            if bell.missing:
                bell.account(0, [None])
                self.world.perform(self.scheduler.completed(bell))
        self._nudge()

    def listen(self, call: Call, listener: Callable[[], None]) -> bool:
        """Have a function called when a call is complete, with the worker's lock held.

        Returns False, and does nothing, if the call is complete.
        """
        with self._lock:
            if not call.missing:
                return False
            call.listeners = [*(call.listeners or ()), listener]
            return True

    def look_for_work(
        self, timeout: float, calls: Sequence[Call] = (), *, any_work: bool = True
    ) -> None:
        """There is nothing to run here: ask for work and rest until something comes.

        Args:
            timeout: seconds to rest at most.
            calls: what the task waits for that rests.
            any_work: whether to run what comes.  If not, work is asked for only where others wait
                for it here.
        """
        world = self.world
        world.flush()
        world.idle()
        balancer = self.scheduler.balancer
        with self._lock:
            balancer.running = not any_work
            # Who asks for work while there is some would be thought idle when that is taken away.
            empty = self.scheduler.deque.newest() is None
            if empty and (any_work or balancer.waiting):
                world.perform(self.scheduler.out_of_work(perf_counter()))
            self.resting = True
            # The load-balancer thread may have brought something since this was looked at.
            nothing = all(map(missing, calls)) and not (
                (any_work and not empty) or self.stacks.may_go_on() is not None or self.ended
            )
        rested, began = self.rests[0], perf_counter()
        self.rests = rested, began
        try:
            if nothing:
                world.rest(timeout)
        finally:
            self.resting = False
            self.polled = perf_counter()
            self.rests = rested + self.polled - began, FOREVER
        world.service()
