"""Threads under control: one runs at a time, and a schedule says which, and when it stops.

The threads are real.  Each sleeps at its *gate*, a lock of its own, until the one that runs opens
it and goes to sleep at its own.  A switch can happen at *points*: operations of locks, waits,
sends and receives, and lines of the modules that are traced.  Time is virtual: it passes a
little with each look at the clock, and jumps to the next timeout when nobody can go on.

Threads belong to *processes*, which share nothing but the network.  What the interpreter has once
(the standard streams, the run of dtm) is exchanged when the processor goes from one to the other.
Since steps of different processes commute, a preemption within a process is only for threads of
the same one, except where it communicates.

Invariants: exactly one controlled thread is not at its gate; ``current`` is that thread; the
same schedule with the same code gives the same run, so nothing here depends on real time, on
addresses or on the order of sets.

What can go wrong: nobody can go on and no timeout is pending (deadlock); the run makes too many
steps or takes too much virtual time (livelock); a thread waits for something that is not
controlled (a hang, found by real time).  Each is a ``Trouble`` that names it; the threads that are
left are unwound by :class:`Killed` and joined.

Threads: all that are controlled, one at a time; ``run`` belongs to who explores.

Rejected: greenlets instead of threads.  They switch ten times faster, but what is explored uses
greenlets itself, and what is bound to a thread would not be seen.
"""

from __future__ import annotations

import sys
import traceback
from _thread import allocate_lock, get_ident, start_new_thread
from collections import deque
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import Any

import greenlet

from dtm.testing.actors import Actor, Killed, Link, Process, Trouble
from dtm.testing.schedules import SPIN, Deviations, Priorities, Schedule
from dtm.testing.stacks import stack_of, suspended_stacks, where

FOREVER = float("inf")
TICK_SECONDS = 1e-6
JUMP_SECONDS = 2.0
HANG_SECONDS = 60.0
UNWIND_SECONDS = 5.0
SHOWN_SWITCHES = 40


class _Lines(dict[CodeType, Any]):
    """Whether the lines of a function are points, by its code."""

    def __init__(self, modules: Sequence[str], local: Callable[..., Any]) -> None:
        super().__init__()
        self._exact = frozenset(modules)
        self._below = tuple(f"{name}." for name in modules)
        self._local = local

    def look_up(self, frame: FrameType) -> Any:
        name = frame.f_globals.get("__name__", "")
        traced = name in self._exact or name.startswith(self._below)
        found = self[frame.f_code] = self._local if traced else None
        return found


class Controller:
    """Runs the threads of one schedule.

    Args:
        schedule: who goes on at each point.
        lines: modules whose lines are points, with all below them.
        shared: attributes of objects that each process has for itself, as (object, name).
        most_points: more than so many are a livelock.
        most_seconds: so is more virtual time than this, without the timeouts that came early.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        lines: Sequence[str] = (),
        shared: Sequence[tuple[Any, str]] = (),
        most_points: int = 100_000,
        most_seconds: float = 60.0,
    ) -> None:
        self.schedule = schedule
        self.clock = 0.0
        self.skipped = 0.0
        self.points = 0
        self.switches = 0
        self.over = False
        self.trouble: str | None = None
        self.actors: list[Actor] = []
        self.links: list[Link] = []
        self.current: Actor
        self.changed = True
        self._left: list[Actor] = []
        self._shared = tuple(shared)
        self._most_points = most_points
        self._most_seconds = most_seconds
        self._earliest = FOREVER
        self._done = allocate_lock()
        self._done.acquire()
        self._trace: deque[str] = deque(maxlen=SHOWN_SWITCHES)
        self._priorities = schedule if isinstance(schedule, Priorities) else None
        self._deviations = schedule if isinstance(schedule, Deviations) else None
        self._lines = _Lines(lines, self._line) if lines else None

    # Threads, processes and links.

    def process(self, name: str) -> Process:
        """Return a new process, with the interpreter's globals as they are now."""
        return Process(name, [getattr(thing, attribute) for thing, attribute in self._shared])

    def spawn(
        self, process: Process, name: str, body: Callable[[], Any], thread: Any = None
    ) -> Actor:
        """Start a thread; it runs when it is chosen."""
        actor = Actor(process, name, thread)
        if self._priorities is not None:
            actor.priority = self._priorities.draw()
        self._left.append(actor)
        if process.status is None:
            self.actors.append(actor)
            process.actors.append(actor)
            if process.main is None:
                process.main = actor
        self.changed = True
        start_new_thread(self._body, (actor, body))
        return actor

    def link(self, name: str) -> Link:
        """Return a new link."""
        link = Link(name)
        if self._priorities is not None:
            link.priority = self._priorities.draw()
        self.links.append(link)
        return link

    def happen(self, link: Link, what: Callable[[], None]) -> None:
        """Let something happen: now, or when the schedule says.  The caller communicates next."""
        link.pending.append(what)
        self.changed = True
        plain = self._deviations
        if plain is not None and not (len(link.pending) > 1 or plain.choose(1, costs=True)):
            link.pending.popleft()()

    def _body(self, actor: Actor, body: Callable[[], Any]) -> None:
        actor.ident = get_ident()
        stacks: set[greenlet.greenlet] = set()
        greenlet.settrace(lambda _, pair: stacks.update(pair))
        actor.gate.acquire()
        actor.at_gate = False
        try:
            if not self.over:
                if self._lines is not None:
                    sys.settrace(self._call)
                body()
        except (Killed, SystemExit):
            pass
        except BaseException as error:  # noqa: BLE001 - the top of a thread: it fails the schedule
            if not self.over:  # else it has been cut off in the middle of something
                self._report(f"{actor!r} died of {type(error).__name__}: {error}", error)
                self._finish()
        finally:
            sys.settrace(None)
            greenlet.settrace(None)
            _unwind_greenlets(stacks)
            self._end(actor)
            actor.finished.release()

    def _end(self, actor: Actor) -> None:
        try:
            if not self.over:
                self._retire(actor)
                self.wake(actor.joiners)
                if actor is actor.process.main and actor.process.status is None:
                    self.exit(actor.process, 0)
                following = self._turn()
                if following is not None:
                    self._hand_over(actor, following)
        except Killed:
            pass

    def _retire(self, actor: Actor) -> None:
        actor.runnable = False
        actor.deadline = None
        if actor in self.actors:
            self.actors.remove(actor)
            actor.process.actors.remove(actor)

    def exit(self, process: Process, status: int) -> None:
        """End a process on the spot: its threads do not go on, nor does anything unwind."""
        if process.status is not None:
            return
        process.status = status
        for actor in list(process.actors):
            self._retire(actor)
        for act in process.at_exit:
            act()

    def leave(self, status: int) -> None:
        """End the process of the running thread, which does not return."""
        me = self.current
        if not self.over:
            self.exit(me.process, status)
            following = self._turn()
            if following is not None:
                self._switch(me, following)
        raise Killed

    # Points.

    def _call(self, frame: FrameType, _event: str, _: Any) -> Any:
        lines = self._lines
        assert lines is not None
        try:
            return lines[frame.f_code]
        except KeyError:
            return lines.look_up(frame)

    def _line(self, _frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.point()
        return self._line

    def point(self, *, everywhere: bool = False) -> None:
        """Let the schedule say whether the running thread goes on.

        ``everywhere`` tells that this thread communicates, so other processes may go first.
        """
        me = self.current
        if self.over:
            raise Killed
        self.points += 1
        if self.points > self._most_points:
            self._fail(f"livelock: no end after {self._most_points} points")
        if me.signals:
            self._handle(me)
        me.streak += 1
        if me.streak > SPIN:
            self.give_way()
            return
        if self._deviations is not None:
            following = self._deviate(me, self._deviations, everywhere)
        else:
            following = self._weigh(me)
        if following is not None:
            self._switch(me, following)

    def _deviate(self, me: Actor, schedule: Deviations, everywhere: bool) -> Actor | None:
        pool = self.actors if everywhere else me.process.actors
        soon = self.clock + JUMP_SECONDS if schedule.timeouts else 0.0
        others: list[Any] = [
            each
            for each in pool
            if each is not me
            and (each.runnable or (each.deadline is not None and each.deadline < soon))
        ]
        if everywhere:
            others += [link for link in self.links if link.pending]
        if not others:
            return None
        choice = schedule.choose(len(others), costs=True)
        if not choice:
            return None
        return self._chosen(others[choice - 1])

    def _chosen(self, other: Any) -> Actor | None:
        if isinstance(other, Link):
            other.pending.popleft()()
            return None
        if not other.runnable:
            self._time_out_early(other)
        found: Actor = other
        return found

    def _time_out_early(self, actor: Actor) -> None:
        assert actor.deadline is not None
        if actor.deadline > self.clock:
            self.skipped += actor.deadline - self.clock
            self.clock = actor.deadline
        self._time_out(actor)
        self._time_out_due()

    def _weigh(self, me: Actor) -> Actor | None:
        schedule = self._priorities
        assert schedule is not None
        if self.points >= schedule.next_change:
            self.changed = True
            if schedule.change():
                soon = self.clock + JUMP_SECONDS
                napping = [a for a in self.actors if a.deadline is not None and a.deadline < soon]
                if napping:
                    self._time_out_early(schedule.pick(napping))
            else:
                me.priority = schedule.lowest()
        if not self.changed:
            return None
        self.changed = False
        following = self._highest()
        return None if following is me else following

    def _highest(self) -> Actor | None:
        """Return the runnable thread of the highest priority; let happen what comes before it."""
        while True:
            best: Any = None
            for each in self.actors:
                if each.runnable and (best is None or each.priority > best.priority):
                    best = each
            for link in self.links:
                if link.pending and (best is None or link.priority > best.priority):
                    best = link
            if not isinstance(best, Link):
                found: Actor | None = best
                return found
            best.pending.popleft()()

    def give_way(self) -> None:
        """Let another thread go on, if one can: whoever has waited longest."""
        me = self.current
        if self.over:
            raise Killed
        me.streak = 0
        if self._priorities is not None:
            me.priority = self._priorities.lowest()
            following = self._highest()
        else:
            self.deliver_all()
            others = [each for each in self.actors if each.runnable and each is not me]
            following = min(others, key=_last, default=None)
        if following is not None and following is not me:
            self._switch(me, following)

    def deliver_all(self) -> None:
        """Let happen what has been held back."""
        for link in self.links:
            while link.pending:
                link.pending.popleft()()

    # Waiting.

    def block(self, waiters: list[Actor] | None, deadline: float | None = None) -> bool:
        """Wait until ``wake(waiters)`` or until ``deadline``; whether it was not the latter."""
        me = self.current
        if self.over:
            raise Killed
        if me.signals:
            self._handle(me)
        me.runnable = False
        me.timed_out = False
        me.deadline = deadline
        me.streak = 0
        if deadline is not None and deadline < self._earliest:
            self._earliest = deadline
        if waiters is not None:
            me.waiters = waiters
            waiters.append(me)
        following = self._turn()
        if following is None:
            raise Killed
        if following is not me:
            self._switch(me, following)
        if me.signals:
            self._handle(me)
        return not me.timed_out

    def _turn(self) -> Actor | None:
        """Choose who goes on when the running thread cannot; None if the run is over."""
        while not self.over:
            if self._priorities is not None:
                found = self._highest()
                if found is not None:
                    return found
            else:
                enabled = [each for each in self.actors if each.runnable]
                if enabled:
                    enabled.sort(key=_last)
                    assert self._deviations is not None
                    return self._deviations.turn(enabled)
                if any(link.pending for link in self.links):
                    self.deliver_all()
                    continue
            if not self.actors:
                self._finish()
                return None
            self._pass_time()
        return None

    def wake(self, waiters: list[Actor]) -> None:
        """Make all runnable that wait."""
        if waiters:
            for each in waiters:
                each.runnable = True
                each.deadline = None
                each.waiters = None
            waiters.clear()
            self.changed = True

    def signal(self, actor: Actor, number: int) -> None:
        """Have a thread handle a signal before it does anything else."""
        actor.signals.append(number)
        actor.deadline = None
        if actor.waiters is not None:
            actor.waiters.remove(actor)
            actor.waiters = None
        if not actor.runnable and actor in self.actors:
            actor.runnable = True
            self.changed = True

    def _handle(self, me: Actor) -> None:
        while me.signals:
            number = me.signals.pop(0)
            handler = me.process.handlers[number]
            handler(number, sys._getframe(2))  # noqa: SLF001 - what a handler is given

    # Time.

    def now(self) -> float:
        """Return the virtual time; a look at it takes a microsecond."""
        self.clock += TICK_SECONDS
        if self.clock >= self._earliest:
            self._time_out_due()
        return self.clock

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        if seconds > 0.0:
            deadline = self.clock + seconds
            while self.clock < deadline and self.block(None, deadline):
                pass
        else:
            self.now()
            self.give_way()

    def _pass_time(self) -> None:
        deadlines = [each.deadline for each in self.actors if each.deadline is not None]
        if not deadlines:
            self._fail("deadlock: no thread can go on, and none waits for a time")
        self.clock = max(self.clock, min(deadlines))
        if self.clock - self.skipped > self._most_seconds:
            self._fail(f"livelock: no end after {self._most_seconds:g} s of virtual time")
        self._time_out_due()

    def _time_out_due(self) -> None:
        for each in self.actors:
            if each.deadline is not None and each.deadline <= self.clock:
                self._time_out(each)
        left = [each.deadline for each in self.actors if each.deadline is not None]
        self._earliest = min(left, default=FOREVER)

    def _time_out(self, actor: Actor) -> None:
        if actor.waiters is not None:
            actor.waiters.remove(actor)
            actor.waiters = None
        actor.deadline = None
        actor.timed_out = True
        actor.runnable = True
        self.changed = True

    # Switching.

    def _switch(self, me: Actor, to: Actor) -> None:
        me.at_gate = True
        self._hand_over(me, to)
        me.gate.acquire()
        me.at_gate = False
        if self.over:
            raise Killed

    def _hand_over(self, me: Actor, to: Actor) -> None:
        self.switches += 1
        to.last = self.switches
        self._trace.append(f"{self.clock * 1e6:12.0f} µs  {me!r} at {where()} -> {to!r}")
        self._exchange(me.process, to.process)
        self.current = to
        to.gate.release()

    def _exchange(self, old: Process, new: Process) -> None:
        if old is not new:
            old.values = [getattr(thing, name) for thing, name in self._shared]
            self._install(new)

    def _install(self, process: Process) -> None:
        for (thing, name), value in zip(self._shared, process.values, strict=True):
            setattr(thing, name, value)

    # The run as a whole.

    def run(self) -> None:
        """Run all threads to their ends.

        Raises:
            Trouble: something went wrong.
        """
        saved = [getattr(thing, name) for thing, name in self._shared]
        first = self._turn()
        try:
            if first is not None:
                self.current = first
                self._install(first.process)
                first.gate.release()
                if not self._done.acquire(timeout=HANG_SECONDS):
                    self.over = True
                    self._report("hang: a thread waits for something that is not controlled")
            self._unwind()
        finally:
            for (thing, name), value in zip(self._shared, saved, strict=True):
                setattr(thing, name, value)
        if self.trouble is not None:
            raise Trouble(self.trouble)

    def _unwind(self) -> None:
        """End the threads that are left, one by one."""
        self.over = True
        running = self.current
        self._left.sort(key=lambda actor: actor is not running)
        for actor in self._left:
            if actor.at_gate:
                self.current = actor
                actor.gate.release()
            if not actor.finished.acquire(timeout=UNWIND_SECONDS):
                self._report(f"hang: {actor!r} does not end")
                return

    def _finish(self) -> None:
        self.over = True
        self._done.release()

    def _fail(self, what: str) -> None:
        self._report(what)
        if not self.over:
            self._finish()
        raise Killed

    def fail(self, what: str) -> None:
        """End the run because of something that is wrong."""
        self._fail(what)

    def _report(self, what: str, error: BaseException | None = None) -> None:
        if self.trouble is None:
            if error is not None:
                what += "\n" + "".join(traceback.format_exception(error))
            stacks = [f"{actor!r}:\n{stack_of(actor.ident)}" for actor in self._left if actor.ident]
            lines = [what, "", "the last switches:", *self._trace, "", "the threads:", *stacks]
            self.trouble = "\n".join([*lines, *suspended_stacks()])


def _unwind_greenlets(known: set[greenlet.greenlet]) -> None:
    """End the greenlets that a thread leaves behind: nobody else could, and they would stay."""
    for each in known:
        if not each.dead and each is not greenlet.getcurrent():
            try:
                each.throw(Killed)
            except BaseException:  # noqa: BLE001, S112 - whatever it says, its run is over
                continue


def _last(actor: Actor) -> int:
    return actor.last
