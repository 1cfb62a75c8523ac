"""A worker in virtual time: the production scheduler, driven as `Worker` and `Runner` drive it.

Task bodies take virtual time instead of running, so this stands in for the real
runner.  How a task waits is decided by the same code (:mod:`dtm.core.wait_policy`).  What that
takes is written again: tasks that have become ready go before new work; results leave when
a range is exhausted, before a worker turns idle and before a task parks.  What the real
runner does with threads is done here with *stacks*: a stack is what one thread would hold.

States of a worker, which follow each other by ``TRANSITIONS``: COMPUTING (the end of a task
is an event) and then back to ``advance``; RESTING (until a message or the deadline of a
request); GONE (dead, or the run is over).

A worker that computes reads its inbox only ``delay()`` after a message came, for
that is how long the load-balancer thread waits for the interpreter.  What it does
then takes time from the task that runs.

Threads: one.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any

from dtm.core.messages import Message, Segment, Stopped
from dtm.core.scheduler import Effect, End, Print, Resume, Scheduler, Send, WakeAt
from dtm.core.wait_policy import Way, own_work, way_to_wait
from dtm.run.runner import FLUSH_SECONDS, POLL_SECONDS
from dtm.run.waiting import MOST_NESTED
from dtm.run.worker import MOST_SEGMENTS, RESULTS_SECONDS, TICK_SECONDS
from dtm.task import Call
from dtm.testing.act_invariants import Conduct, addressed
from dtm.testing.frame import Frame
from dtm.testing.mail import Mail
from dtm.testing.programs import Calls, Caught, read_step
from dtm.testing.surroundings import Surroundings

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


class Simulated:
    """One worker of a simulated run."""

    def __init__(self, world: Surroundings[Simulated], scheduler: Scheduler, speed: float) -> None:
        self.world = world
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
        self.cpu = world.network.cpu
        self.inbox: deque[tuple[int, Mail]] = deque()
        self.outbox: dict[int, list[Segment]] = {}
        self.outbox_since = 0.0
        self.stack: list[Frame] = []
        self.ready: deque[list[Frame]] = deque()
        self.parked: list[list[Frame]] = []
        self.timer = NEVER
        self.service_at = NEVER
        self.deadline = NEVER
        self.polled = 0.0
        self.heard: dict[int, int] = {}
        self.conduct = Conduct(scheduler) if world.watched else None

    def _go(self, event: str) -> None:
        self.state = TRANSITIONS[self.state][event]

    # Effects.

    def perform(self, effects: list[Effect]) -> None:
        """Carry out effects."""
        for effect in effects:
            if type(effect) is Send:
                self.send(effect.to, effect.message)
            elif type(effect) is Resume:
                listeners, effect.call.listeners = effect.call.listeners, None
                for listener in listeners or ():
                    listener()
            elif type(effect) is WakeAt:
                if effect.when != self.timer:
                    self.timer = effect.when
                    self.world.alarm(effect.when, self, "timer")
            elif type(effect) is End:
                self.world.ended(self, effect.reason)
            else:
                assert type(effect) is Print

    def send(self, to: int, message: Message) -> None:
        """Send a message: it leaves when the processor has done its part."""
        if type(message) is Stopped:
            self.flush()
        load = self.scheduler.load(self.clock)
        addressed(self.rank, self.scheduler.size, to, message)
        if self.conduct is not None:
            self.conduct.says(to, load, message)
        self.clock += self.cpu
        self.world.post(self, to, Mail(load, message, self.rank))

    # Messages in.

    def arrived(self, now: float) -> None:
        """A message has come into the inbox."""
        if self.state is State.RESTING:
            self.wake(now)
        elif self.state is State.COMPUTING and self.service_at == NEVER:
            self._service_at(now + self._delay())

    def _delay(self) -> float:
        return self.world.delay() * self.slowness

    def _service_at(self, when: float) -> None:
        if when < self.service_at:
            self.service_at = when
            self.world.alarm(when, self, "service")

    def alarm(self, now: float, kind: str) -> None:
        """Take note that an alarm goes off; alarms that are out of date do nothing."""
        if kind == "end":
            self._computed(now)
        elif kind == "service":
            if now == self.service_at and self.state is State.COMPUTING:
                self._interrupt(now)
        elif kind == "timer":
            if now == self.timer:
                if self.state is State.COMPUTING:
                    self._service_at(now + self._delay())
                else:
                    self.wake(now)
        elif now == self.deadline:
            self.deadline = NEVER
            if self.state is State.RESTING:
                self.wake(now)

    def wake(self, now: float) -> None:
        """End a rest."""
        self.clock = max(self.clock, now)
        self.service()
        if self.state is State.RESTING:
            self.polled = self.clock
            self.advance()

    def _interrupt(self, now: float) -> None:
        """The load-balancer thread has got the interpreter while a task runs."""
        clock = self.clock = max(self.clock, now)
        self.service()
        self.end += self.clock - clock

    def service(self) -> None:
        """Read what has come and answer it; share work; send what has gathered."""
        scheduler = self.scheduler
        self.service_at = NEVER
        if self.clock >= self.timer:
            self.timer = NEVER
        while self.inbox:
            source, mail = self.inbox.popleft()
            self.clock += self.cpu
            self._read(source, mail)
        self.perform(scheduler.share(self.clock))
        if self.outbox and self.clock - self.outbox_since > RESULTS_SECONDS:
            self.flush()

    def _read(self, source: int, mail: Mail) -> None:
        message, conduct = mail.open(self.scheduler), self.conduct
        if conduct is not None:
            if not mail.echo or source not in self.scheduler.balancer.reports:
                self.heard[source] = mail.load.sequence
            conduct.hears(source, mail.load, message)
        self.perform(self.scheduler.handle(source, mail.load, message, self.clock))
        if conduct is not None:
            conduct.heard(message)

    # Results out.

    def ship(self, owner: int, segment: Segment) -> None:
        """Send results soon: with others, or before this worker turns idle."""
        if not self.outbox:
            self.outbox_since = self.clock
        gathered = self.outbox.setdefault(owner, [])
        gathered.append(segment)
        if len(gathered) >= MOST_SEGMENTS:
            self.flush()

    def flush(self) -> None:
        """Send all results now."""
        outbox, self.outbox = self.outbox, {}
        for owner, segments in outbox.items():
            self.perform(self.scheduler.deliver(owner, tuple(segments)))

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
        self.end = self.clock + seconds
        self.world.alarm(self.end, self, "end")
        if self.outbox and seconds > TICK_SECONDS:
            self._service_at(self.clock + TICK_SECONDS)
        if self.inbox:
            self._service_at(self.clock + self._delay())
        if self.clock >= self.timer:
            self._service_at(self.clock + self._delay())

    def _computed(self, now: float) -> None:
        if self.state is not State.COMPUTING:
            return
        if now < self.end:
            self.world.alarm(self.end, self, "end")
            return
        self.task_over(now)

    def task_over(self, now: float) -> None:
        """The task that takes time has come to its end."""
        self.clock = max(self.clock, now)
        self._go("task is over")
        self.advance()

    def returned(self, when: float) -> None:
        """``main`` has returned: what a task takes from then on does not count."""
        if self.state is State.COMPUTING:
            self.busy -= max(0.0, min(self.lasting, (self.end - when) / self.slowness))

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
        self.cpu *= times
        if self.state is State.COMPUTING:
            self.end = now + (self.end - now) * times

    def leave(self) -> None:
        """Do nothing any more."""
        if self.state is not State.GONE:
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
            return self._starve()
        self.scheduler.balancer.running = True
        self.stack.append(Frame(work, self.clock))
        return True

    def _starve(self) -> bool:
        """Ask for work; go on if something has come meanwhile."""
        self.flush()
        self.scheduler.balancer.running = False
        if self.conduct is not None:
            self.conduct.hungry()
        self.perform(self.scheduler.hungry(self.clock))
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
                if self.conduct is not None:
                    self.conduct.begins(work.call, lo, hi)
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
        return self._starve() if way is Way.LOOK else self._park(call)

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
