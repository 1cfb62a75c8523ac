"""Running task bodies, and waiting without blocking the worker.

A task that waits for a call does, in this order:

1. *runs its own children inline*: what is left here of the call it waits for,
   then the newest work of the deque if this task made it;
2. with nothing of its own here and nothing else either, *stays and looks for
   work as an idle worker does*: it asks victims and reads messages.  If its call
   completes it goes on at once; if parts of its own calls come back, it runs them
   inline;
3. with other work here, or when the stack of this thread is deep, *parks*: it
   hands the run token to another thread, which goes on with any ready work, and
   sleeps until its call is complete.

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
(d) On each worker a thread holds the token, and it neither sleeps while the deque
    has work nor is it buried by unrelated work: its stack is a chain of (a).  It
    takes the newest work if it is free to, else it parks and the heir takes it.
    So what stands ready is run, unless the holder runs a body, which ends.
(e) Results are sent when a range is exhausted, before a worker turns idle, before
    a thread parks, and by the load-balancer thread; so those of T arrive, and T
    becomes ready.  A ready thread gets the token before any new work.

Hence some waiting task always gets on until none is left.

Rejected: running *any* work on top of a waiting task.  Where tasks wait only for their own
children that does not deadlock either, for what stands in the way of a task was begun
later than it.  But a task whose results are in may lie below hours of somebody else's
work, and the stack grows with the tasks that wait instead of with the depth of their tree.

Depth: each level of inline nesting takes seven Python frames and those of the task
itself; with ``MOST_FRAMES`` of them on its stack a waiting task parks although it has
children, and they run on a fresh stack.  A chain of 5,000 nested calls takes some 50
threads, not 40,000 frames of one.  The recursion limit is raised by ``MOST_FRAMES``
while a run lasts, so a task has the depth for itself that it has without dtm.  A
lower bound costs hand-overs: a search 400 levels deep, cut every 24, spent a fifth
of its time on them.

A thread of the user's (a pool inside a task, a window system) queues for the
token like a ready task.  If the holder does not come by within ``PATIENCE``
seconds, being blocked outside of dtm or in a long body, the thread runs its own
children without the token, for otherwise a task that joins such a thread would
never end.

Threads: as described; everything shared is changed under the worker's lock.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from dtm.core.messages import Segment
from dtm.core.scheduler import Effect, Scheduler
from dtm.core.wait_policy import Way, own_work, way_to_wait
from dtm.run.context import Context
from dtm.run.parking import IDLE_SECONDS, NAP_SECONDS, Parking, time_left
from dtm.run.stack import call_with_room
from dtm.run.token import FREE, HOLDS, PATIENCE, Baton, Batons
from dtm.task import Call, Range

if TYPE_CHECKING:
    from dtm.run.seeding import Streams

MOST_NESTED = 100
MOST_FRAMES = 10 * MOST_NESTED
POLL_SECONDS = 1e-3
FLUSH_SECONDS = 1.0
STREAM_SECONDS = 1e-3
FOREVER = float("inf")


class World(Protocol):
    """What the runner needs of the worker that it belongs to."""

    lock: Any

    def perform(self, effects: Sequence[Effect]) -> None:
        """Carry out effects."""

    def service(self) -> None:
        """Read messages and answer them."""

    def rest(self, timeout: float) -> None:
        """Sleep until a message comes, for at most so many seconds."""

    def nudge(self) -> None:
        """End a rest."""

    def busy(self) -> None:
        """The holder of the token, which has rested, goes on with a task."""

    def ship(self, owner: int, segment: Segment) -> None:
        """Send results to the owner of their call, soon."""

    def flush(self) -> None:
        """Send all results now."""

    def broken(self, error: BaseException) -> None:
        """End the run for an error of dtm itself."""

    def located(self, call: Call, index: int, exception: BaseException) -> None:
        """Note on an exception where it happened."""


def _is_deep() -> bool:
    """Whether the stack of the calling thread is too deep for one more task on top.

    The interpreter counts its frames without making objects of them, as a walk would.
    """
    try:
        sys._getframe(MOST_FRAMES)  # noqa: SLF001 - there is no other way
    except ValueError:
        return False
    return True


class _Thread(threading.local):
    context: Context | None = None
    baton: Baton | None = None


class Runner:
    """Runs the task bodies of one worker.

    Attributes:
        polled: when a running task last looked at the inbox.
        resting: whether the holder of the token sleeps for lack of work.
        interrupted: whether the run is being ended by a signal; exceptions then pass
            through task bodies.
        fault: what ends the run before its time, raised by every wait.
    """

    def __init__(self, scheduler: Scheduler, world: World, streams: Streams | None) -> None:
        self.scheduler = scheduler
        self.world = world
        self.streams = streams
        self.polled = 0.0
        self.resting = False
        self.interrupted = False
        self.fault: BaseException | None = None
        self.ended = False
        self.callbacks: deque[Callable[[], None]] = deque()
        self._lock = world.lock
        self._rank = scheduler.rank
        self._alone = scheduler.size == 1
        self._thread = _Thread()
        self.batons = Batons(world.lock, self._spare, self._nudge)
        self._parking = Parking(self.batons, world.lock, scheduler.counters, lambda: self.fault)

    # Threads and contexts.

    def adopt(self) -> None:
        """Make the calling thread the first holder of the token."""
        self._thread.baton = Baton(HOLDS)

    def context(self) -> Context:
        """Return the task of the calling thread; a thread of the user's gets one of its own."""
        found = self._thread.context
        if found is None:
            path = None if self.streams is None else ()
            found = self._thread.context = Context(0, path)
        return found

    def _baton(self) -> Baton:
        baton = self._thread.baton
        if baton is None:
            baton = self._thread.baton = Baton(FREE, visitor=True)
        return baton

    def _nudge(self) -> None:
        if self.resting:
            self.world.nudge()

    def _spare(self, baton: Baton) -> None:
        self._thread.baton = baton
        try:
            call_with_room(self.serve)
        except BaseException as error:  # noqa: BLE001 - the top of a thread: tell the root
            if not self.ended:
                self.world.broken(error)

    def serve(self) -> None:
        """Run whatever is ready, or look for it, until the run is over."""
        baton = self._baton()
        thread = self._thread
        while not self.ended:
            if baton.place is not HOLDS and not self.batons.enter(baton, NAP_SECONDS):
                continue
            if self.batons.ready:
                self.batons.become_spare(baton)
                continue
            with self._lock:
                work = self.scheduler.deque.newest()
            thread.context = None
            if work is not None:
                self._go_on()
                self.run(work)
            else:
                self._starve(IDLE_SECONDS)

    def end(self) -> None:
        """Let the threads of this worker end."""
        self.ended = True
        self.batons.release_all()

    # Running.

    def submit(self, call: Call) -> None:
        """Make a new call ready."""
        if self.ended:
            from dtm.errors import RunStateError

            raise RunStateError("the run is over; nothing more can be submitted")
        with self._lock:
            effects = self.scheduler.submit(call, perf_counter())
            if effects:
                self.world.perform(effects)
        if self.resting:
            self.world.nudge()

    def run(self, work: Range, deadline: float = FOREVER) -> None:
        """Run a range to its end, strip by strip, or until the first strip after ``deadline``."""
        call = work.call
        thread = self._thread
        outer = thread.context
        thread.context = context = Context(call.depth + 1, call.path)
        try:
            self._strips(work, call, context, deadline)
        finally:
            thread.context = outer

    def _strips(self, work: Range, call: Call, context: Context, deadline: float) -> None:
        lock, profile, counters = self._lock, call.profile, self.scheduler.counters
        strip_length = self.scheduler.granularity.strip_length
        own = call.owner == self._rank
        values: list[Any] = []
        call.sample = values
        start, length, failure = work.lo, 0, None
        began = shipped = perf_counter()
        while failure is None:
            length = strip_length(work, length) if call.size > 1 else 1
            with lock:
                lo, hi = work.claim(length)
            if lo == hi:
                break
            before = len(values)
            if lo != start + before:
                self._segment(call, start, values)
                call.sample = values = []
                start, before = lo, 0
            parks = counters.parked
            failure = self._strip(call, context, lo, hi, values)
            now = perf_counter()
            if failure is None and parks == counters.parked:
                profile.learn(hi - lo, now - began)
            if not own and now - shipped > (STREAM_SECONDS if call.streaming else FLUSH_SECONDS):
                self._segment(call, start, values)
                self.world.flush()
                values, start, shipped = [], start + len(values), now
            if now - self.polled > POLL_SECONDS:
                self.checkpoint()
                now = perf_counter()
            if now >= deadline or work.lo >= work.hi:
                break
            began = now
        self._segment(call, start, values, failure)

    def _strip(
        self, call: Call, context: Context, lo: int, hi: int, values: list[Any]
    ) -> BaseException | None:
        """Run some items, appending to ``values``; return what stopped them, if anything did."""
        due = len(values) + hi - lo
        try:
            if call.path is None:
                values.extend(call.strip(lo, hi))
            else:
                values.extend(self._seeded(call, context, lo, hi))
            if len(values) == due:
                return None
            failure: BaseException = StopIteration("raised by the function itself")
        except BaseException as exception:
            if self.interrupted:
                raise
            failure = exception
        self.world.located(call, hi - (due - len(values)), failure)
        return failure

    def _seeded(self, call: Call, context: Context, lo: int, hi: int) -> Any:
        streams = self.streams
        path = call.path
        assert streams is not None
        assert path is not None
        saved = streams.save()
        items = call.items[lo - call.base : hi - call.base]
        try:
            for index, item in enumerate(items, lo):
                context.path = (*path, index)
                context.calls = 0
                streams.enter(context.path)
                try:
                    value = call.function(*item) if call.star else call.function(item)
                except StopIteration:
                    return
                yield value
        finally:
            streams.restore(saved)

    def _segment(
        self, call: Call, start: int, values: list[Any], failure: BaseException | None = None
    ) -> None:
        """Hand in a segment that is finished, and the failure that ended it."""
        count = len(values)
        if not count and failure is None:
            return
        self.scheduler.counters.items += count
        if call.owner != self._rank:
            if failure is not None:
                call.limit = min(call.limit, start + count)
            self.world.ship(call.owner, Segment(call.key, start, values, failure, call.name))
            return
        with self._lock:
            complete = bool(count) and call.account(start, values)
            if failure is not None:
                complete |= call.fail(start + count, failure)
            if not complete or not (call.listeners or call.key):
                return
            self.world.perform(self.scheduler.completed(call))
        self.call_back()

    def call_back(self) -> None:
        """Call what users want called when a call ends: outside of the lock, errors on stderr."""
        while self.callbacks:
            callback = self.callbacks.popleft()
            try:
                callback()
            except Exception:  # noqa: BLE001 - users' code; there is nobody to raise it to
                import traceback

                traceback.print_exc()

    def checkpoint(self) -> None:
        """Between strips: read messages, share work, let ready threads go first."""
        self.polled = perf_counter()
        if not self._alone:
            self.world.service()
        baton = self._thread.baton
        if self.batons.ready and baton is not None and baton.place is HOLDS:
            self.batons.give_way(baton)

    # Waiting.

    def wait(self, call: Call, deadline: float | None = None) -> bool:
        """Wait until a call is complete, or until ``deadline``; whether it is complete."""
        if self.streams is not None:
            return self.wait_any((call,), deadline)
        thread = self._thread
        work = call.range
        if (
            deadline is None
            and work is not None
            and work.lo < work.hi
            and not _is_deep()
            and thread.baton is not None
            and thread.baton.place is HOLDS
        ):
            self.run(work)
        return call.missing == 0 or self.wait_any((call,), deadline)

    def wait_any(self, calls: Sequence[Call], deadline: float | None = None) -> bool:
        """Wait until one of the calls is complete, or until ``deadline``; whether one is.

        Raises the error that ends the run, if the run is being ended.
        """
        baton = self._baton()
        context = self._thread.context
        outermost = context is None or context.depth == 0
        visiting = baton.visitor and outermost
        if visiting:
            self.batons.visit()
        if baton.place is not HOLDS and (outermost or not baton.visitor):
            self.batons.enter(baton, PATIENCE)
        saved = self.streams.save() if self.streams is not None else None
        try:
            return self._wait(calls, deadline, baton)
        finally:
            self._go_on()
            if saved is not None and self.streams is not None:
                self.streams.restore(saved)
            if visiting:
                self.batons.leave(baton)

    def _wait(self, calls: Sequence[Call], deadline: float | None, baton: Baton) -> bool:
        thread = self._thread
        context = thread.context
        while all(call.missing for call in calls):
            if self.fault is not None:
                raise self.fault
            if deadline is not None and perf_counter() >= deadline:
                return False
            with self._lock:
                newest, ready = self.scheduler.deque.newest(), self.batons.ready
                idle = newest is None and not ready and baton.place is HOLDS
            work = own_work(calls, context, self._rank, newest)
            way = way_to_wait(work, deep=work is not None and _is_deep(), idle=idle)
            if way is Way.INLINE:
                assert work is not None
                self._go_on()
                until = FOREVER if deadline is None else deadline
                self.run(work, until if len(calls) == 1 else 0.0)
            elif way is Way.LOOK:
                self._starve(time_left(deadline), calls)
            else:
                self.world.flush()
                self._parking.park(calls, deadline, baton)
        return True

    def _go_on(self) -> None:
        self.scheduler.balancer.running = True
        self.world.busy()

    def abandon(self, call: Call) -> None:
        """Drop what is left of a call."""
        with self._lock:
            if not (call.complete or self.ended):
                self.world.perform(self.scheduler.abandon(call))

    def step(self, call: Call) -> None:
        """Make a little progress on behalf of a task that polls: run one strip, read messages."""
        thread = self._thread
        if thread.baton is not None and thread.baton.place is HOLDS:
            with self._lock:
                newest = self.scheduler.deque.newest()
            work = own_work((call,), thread.context, self._rank, newest)
            if work is not None and not _is_deep():
                self.run(work, perf_counter())
        self.checkpoint()
        if not self._alone:
            self.world.flush()

    def _starve(self, timeout: float, calls: Sequence[Call] = ()) -> None:
        """There is nothing to run here: ask for work and rest until something comes."""
        world = self.world
        world.flush()
        balancer = self.scheduler.balancer
        with self._lock:
            balancer.running = False
            world.perform(self.scheduler.hungry(perf_counter()))
            self.resting = True
            # The load-balancer thread may have brought something since this was looked at.
            nothing = self.scheduler.deque.newest() is None and all(c.missing for c in calls)
        try:
            if nothing and not (self.batons.ready or self.ended):
                world.rest(timeout)
        finally:
            self.resting = False
            self.polled = perf_counter()
        world.service()
