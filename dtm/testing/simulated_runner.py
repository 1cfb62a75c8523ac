"""How tasks run in virtual time: what `Runner` does with threads and stacks of the interpreter.

A :class:`Frame` is one range that a simulated worker runs, what a frame of the interpreter's stack
is to a real one.  A list of frames is a stack, the task that runs or waits on top of those that
wait for it; a worker has one that runs, and those that are ready or parked.

States of a worker, which follow each other by ``TRANSITIONS``: COMPUTING (the end of a task
is an event) and then back to ``advance``; RESTING (until a message or the deadline of a
request); GONE (dead, or the run is over).

Threads: one.

Rejected: a generator for each task.  The laws have to look into what is half done.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, Protocol, TypeVar

from dtm.core.messages import Segment
from dtm.core.scheduler import Effect, Scheduler
from dtm.core.wait_policy import Way, own_work, way_to_wait
from dtm.run.runner import FLUSH_SECONDS, POLL_SECONDS
from dtm.run.waiting import MOST_NESTED
from dtm.run.worker import TICK_SECONDS
from dtm.task import Call, Range
from dtm.testing.act_invariants import ActChecker
from dtm.testing.cores import Cores
from dtm.testing.mail import Mail
from dtm.testing.network import Network
from dtm.testing.programs import Calls, Caught, Step, read_step

NEVER = float("inf")


class State(Enum):
    """What a worker does."""

    COMPUTING = "computing"
    RESTING = "resting"
    GONE = "gone"


TRANSITIONS: dict[State, dict[str, State]] = {
    State.RESTING: {"task takes time": State.COMPUTING, "leaves": State.GONE},
    State.COMPUTING: {"task is over": State.RESTING, "leaves": State.GONE},
    State.GONE: {},
}


class Frame:
    """A range that runs, strip by strip, or ``main``, which has none.

    Attributes:
        position, hi: what of the strip has not been begun.
        lo: where the strip began.
        steps: the rest of the task that runs, if it is not a leaf; ``taken`` are over.
        waiting: the call that this task waits for; ``pending`` are those after it.
        catches: whether this task goes on if one of these raises.
        values: of the segment under construction, which began at ``start``.
    """

    __slots__ = (
        "began", "catches", "failure", "hi", "length", "lo", "parks", "pending", "position",
        "raised", "shipped", "start", "steps", "taken", "task", "values", "waiting", "work",
    )  # fmt: skip

    def __init__(self, work: Range | None, now: float) -> None:
        self.work = work
        self.lo = self.hi = self.position = self.start = work.lo if work else 0
        self.length = 0
        self.began = self.shipped = now
        self.parks = 0
        self.failure: BaseException | None = None
        self.raised: BaseException | None = None
        self.steps: Iterator[Step] | None = None
        self.taken = 0
        self.task: Any = None
        self.catches = False
        self.waiting: Call | None = None
        self.pending: deque[Call] = deque()
        self.values: list[Any] = []


Worker = TypeVar("Worker", contravariant=True)  # noqa: PLC0105 - what it is, not what it can


class Surroundings(Protocol[Worker]):
    """What a worker asks of the world that it is in.

    Attributes:
        costly: whether what is no task may cost more than the processor time of messages.
        sleeps: whether it makes a difference that a worker sleeps.
        sleeping: whether the bodies of tasks sleep.
    """

    network: Network
    costly: bool
    sleeps: bool
    sleeping: bool
    function: Callable[[object], None]
    failure: BaseException | None
    returned: float

    @property
    def watched(self) -> bool:
        """Whether somebody looks on after every event."""

    def alarm(self, when: float, worker: Worker, kind: str) -> None:
        """Have an alarm go off."""

    def post(self, sender: Worker, to: int, mail: Mail) -> None:
        """Send a message."""

    def delay(self) -> float:
        """Return how long a thread waits for the interpreter."""

    def called(self, call: Call) -> None:
        """Note a call that a task has made."""

    def collected(self, call: Call) -> None:
        """Check the results that a task has waited for."""

    def main_returned(self, worker: Worker) -> None:
        """End the run."""

    def ended(self, worker: Worker, reason: str | None) -> None:
        """Note that the run is over for a worker."""


class SimulatedRunner(metaclass=ABCMeta):
    """What runs the tasks of one worker of a simulated run."""

    def __init__(
        self,
        world: Surroundings[Any],
        scheduler: Scheduler,
        speed: float,
        cores: Cores | None = None,
    ) -> None:
        # No more than 30 attributes: then all workers share the keys of their dictionaries.
        self.world = world
        self.cores = cores
        self.due = 0.0
        self.rank = scheduler.rank
        self.scheduler = scheduler
        self.speed = speed
        self.state = State.RESTING
        self.clock = 0.0
        self.end = 0.0
        self.busy = 0.0
        self.lasting = 0.0
        self.first: float | None = None
        self.frozen = 0.0
        self.slowness = 1.0
        self.sending = world.network.sending
        self.receiving = world.network.receiving
        self.inbox: deque[tuple[int, Mail]] = deque()
        self.outbox: dict[int, list[Segment]] = {}
        self.outbox_since = 0.0
        self.stack: list[Frame] = []
        self.ready: deque[list[Frame]] = deque()
        self.parked: list[list[Frame]] = []
        self.timer = NEVER
        self.deadline = NEVER
        self.polled = 0.0
        self.act_checker = ActChecker(scheduler) if world.watched else None

    def _go(self, event: str) -> None:
        self.state = TRANSITIONS[self.state][event]

    @abstractmethod
    def perform(self, effects: Sequence[Effect]) -> None:
        """Carry out effects."""

    @abstractmethod
    def service(self) -> None:
        """Read what has come and answer it."""

    @abstractmethod
    def service_by(self, when: float) -> None:
        """Have the load-balancer thread look at the inbox at this time, if not before."""

    @abstractmethod
    def ship(self, owner: int, segment: Segment) -> None:
        """Send results soon."""

    @abstractmethod
    def flush(self) -> None:
        """Send all results now."""

    def delay(self) -> float:
        """Return how long the load-balancer thread waits for the interpreter."""
        return self.world.delay() * self.slowness

    # Running.

    def compute(self, seconds: float) -> None:
        """Let a task take time."""
        seconds /= self.speed
        if self.first is None:
            self.first = self.clock
        self.lasting = seconds
        self.busy += max(0.0, min(seconds, (self.world.returned - self.clock) / self.slowness))
        seconds *= self.slowness
        self._go("task takes time")
        if self.cores is not None and not self.world.sleeping:
            seconds /= self.cores.begin(self, self.clock)
        self.end = self.due = self.clock + seconds
        self.world.alarm(self.end, self, "end")
        if self.outbox and seconds > TICK_SECONDS:
            self.service_by(self.clock + TICK_SECONDS)
        if self.inbox:
            self.service_by(self.clock + self.delay())
        if self.clock >= self.timer:
            self.service_by(self.clock + self.delay())

    def ends(self, when: float) -> None:
        """The task that takes time ends at this time, if nothing delays it."""
        if self.state is State.COMPUTING:
            self.end = self.due = when
            self.world.alarm(when, self, "end")

    def spend(self, seconds: float) -> None:
        """Let the processor do something that is no task."""
        if self.cores is None:
            self.clock += seconds
        else:
            self.clock = self.cores.serve(self, self.clock, seconds)

    def _computed(self, now: float) -> None:
        if self.state is not State.COMPUTING or now < self.due:
            return
        if now < self.end:
            self.ends(self.end)
            return
        self.task_over(now)

    def task_over(self, now: float) -> None:
        """The task that takes time has come to its end."""
        self.clock = max(self.clock, now)
        if self.cores is not None:
            self.cores.over(self, now)
        self._go("task is over")
        self.advance()

    def returned(self, when: float) -> None:
        """``main`` has returned: what a task takes from then on does not count."""
        if self.state is State.COMPUTING:
            share = 1.0 if self.cores is None else self.cores.share()
            left = (self.end - when) / self.slowness * share
            self.busy -= max(0.0, min(self.lasting, left))

    # Faults.

    def freeze(self, now: float, until: float) -> None:
        """Stand still; what is being done, a task or an answer, takes longer by as much."""
        lost = until - max(now, self.frozen)
        if lost > 0.0:
            self.frozen = until
            self.end += lost
            if self.clock > now:
                self.clock += lost

    def slow(self, now: float, times: float) -> None:
        """Be so many times slower from now on, in the task that runs and in all that follows."""
        self.slowness *= times
        self.sending *= times
        self.receiving *= times
        if self.state is State.COMPUTING:
            self.end = now + (self.end - now) * times

    def leave(self) -> None:
        """Do nothing any more."""
        if self.state is not State.GONE:
            if self.cores is not None:
                self.cores.over(self, self.clock)
            self._go("leaves")

    def advance(self) -> None:
        """Go on until a task takes time or there is nothing to do."""
        on = True
        while on and self.state is State.RESTING:
            if not self.stack:
                on = self._serve()
                continue
            frame = self.stack[-1]
            if frame.waiting is not None:
                on = self._await(frame, frame.waiting)
            elif frame.steps is not None:
                on = self._step(frame)
            else:
                on = self._strip(frame)

    def _serve(self) -> bool:
        """Find something for an empty stack; what has become ready goes first."""
        if self.ready:
            self.stack = self.ready.popleft()
            return True
        work = self.scheduler.deque.newest()
        if work is None:
            return self._look_for_work()
        self.scheduler.balancer.running = True
        self.stack.append(Frame(work, self.clock))
        return True

    def _look_for_work(self) -> bool:
        """Ask for work; go on if something has come meanwhile."""
        self.flush()
        self.scheduler.balancer.running = False
        if self.act_checker is not None:
            self.act_checker.out_of_work()
        self.perform(self.scheduler.out_of_work(self.clock))
        if self.ready:
            return True
        if self.inbox or self.clock >= self.timer:
            self.service()
            return True
        deadline = self.scheduler.balancer.deadline
        if deadline != self.deadline:
            self.deadline = deadline
            if deadline != NEVER:
                self.world.alarm(deadline, self, "deadline")
        return False

    def _strip(self, frame: Frame) -> bool:
        """Begin the next task of the strip, or end the strip and claim another."""
        work = frame.work
        if work is None:
            self.stack.pop()
            self.world.main_returned(self)
            return False
        if frame.position < frame.hi:
            return self._begin(frame, work.call)
        if frame.hi > frame.lo and self._end_strip(frame, work.call):
            return True
        if frame.failure is None:
            frame.length = self.scheduler.granularity.strip_length(work, frame.length)
            lo, hi = work.claim(frame.length)
            if lo < hi:
                if self.act_checker is not None:
                    self.act_checker.begins(work.call, lo, hi)
                if lo != frame.start + len(frame.values):
                    self._segment(frame, work.call)
                    frame.start = lo
                frame.lo = frame.position = lo
                frame.hi = hi
                frame.parks = self.scheduler.counters.parked
                return True
        self._segment(frame, work.call)
        self.stack.pop()
        return True

    def _begin(self, frame: Frame, call: Call) -> bool:
        items = call.items
        place = frame.position - call.base
        item = items[place]
        if type(item) is not float:
            frame.position += 1
            frame.task = item
            frame.steps = item.steps()
            return True
        seconds = 0.0
        stop = frame.hi - call.base
        while place < stop and type(item) is float:
            seconds += item
            frame.values.append(item)
            place += 1
            item = items[place] if place < stop else None
        frame.position = place + call.base
        self.compute(seconds)
        return False

    def _step(self, frame: Frame) -> bool:
        """Take the next step of a task that is not a leaf."""
        assert frame.steps is not None
        step = next(frame.steps, None)
        frame.taken += 1
        if step is not None:
            step = read_step(step, frame.taken - 1, frame.task or "main")
        if step is None:
            frame.steps = None
            if frame.work is not None:
                frame.values.append(frame.task)
        elif isinstance(step, float):
            self.compute(step)
            return False
        elif isinstance(step, BaseException):
            self._fail(frame, step)
        elif step:
            parts = [(task,) for task in step] if isinstance(step, Calls) else [step]
            frame.catches = isinstance(step, Caught)
            frame.pending.extend(self._call(frame, part) for part in parts)
            frame.waiting = frame.pending.popleft()
        return True

    def _fail(self, frame: Frame, failure: BaseException) -> None:
        frame.steps = None
        if frame.work is None:
            self.world.failure = failure
            return
        frame.failure = failure
        frame.position = frame.hi = frame.lo

    def _call(self, frame: Frame, items: Any) -> Call:
        scheduler = self.scheduler
        depth = frame.work.call.depth + 1 if frame.work else 0
        function = self.world.function
        profile = scheduler.granularity.profile(function, depth)
        call = Call(
            function, items, len(items), self.rank, profile, "map",
            depth=depth, chunk=scheduler.granularity.chunk, parent=frame,
        )  # fmt: skip
        self.world.called(call)
        self.perform(scheduler.submit(call, self.clock))
        return call

    def _end_strip(self, frame: Frame, call: Call) -> bool:
        """Account for a strip; whether another task took over."""
        scheduler = self.scheduler
        count, now = frame.hi - frame.lo, self.clock
        frame.lo = frame.hi
        if frame.failure is None and frame.parks == scheduler.counters.parked:
            call.profile.learn(count, now - frame.began)
        if call.owner != self.rank and now - frame.shipped > FLUSH_SECONDS:
            self._segment(frame, call)
            self.flush()
            frame.shipped = now
        frame.began = now
        if now - self.polled <= POLL_SECONDS:
            return False
        self.polled = now
        self.service()
        frame.began = self.clock
        if self.ready:
            self.ready.append(self.stack)
            self.stack = self.ready.popleft()
            return True
        return self.state is State.GONE

    def _segment(self, frame: Frame, call: Call) -> None:
        """Hand in a segment that is finished, and the failure that ended it."""
        start, values, failure = frame.start, frame.values, frame.failure
        count = len(values)
        frame.values, frame.start = [], start + count
        if not count and failure is None:
            return
        self.scheduler.counters.items += count
        if call.owner != self.rank:
            if failure is not None:
                call.limit = min(call.limit, start + count)
            self.ship(call.owner, Segment(call.key, start, values, failure))
            return
        complete = bool(count) and call.account(start, values)
        if failure is not None:
            complete |= call.fail(start + count, failure)
        if complete and (call.listeners or call.key):
            self.perform(self.scheduler.completed(call))

    # Waiting.

    def _await(self, frame: Frame, call: Call) -> bool:
        if call.missing == 0:
            self.scheduler.balancer.running = True
            frame.waiting = frame.pending.popleft() if frame.pending else None
            self.world.collected(call)
            if call.failure is not None and not frame.catches:
                frame.raised = frame.raised or call.failure[1]
            if frame.waiting is None and frame.raised is not None:
                self._fail(frame, frame.raised)
            return True
        newest = self.scheduler.deque.newest()
        own = own_work((call,), frame, self.rank, newest)
        idle = newest is None and not self.ready
        way = way_to_wait(own, deep=len(self.stack) > MOST_NESTED, idle=idle)
        if way is Way.INLINE:
            assert own is not None
            self.scheduler.balancer.running = True
            self.stack.append(Frame(own, self.clock))
            return True
        return self._look_for_work() if way is Way.LOOK else self._park(call)

    def _park(self, call: Call) -> bool:
        """Put this stack aside until the call is complete."""
        self.flush()
        stack, self.stack = self.stack, []
        self.parked.append(stack)

        def resume() -> None:
            self.parked.remove(stack)
            self.ready.append(stack)

        call.listeners = [*(call.listeners or ()), resume]
        self.scheduler.counters.parked += 1
        return True
