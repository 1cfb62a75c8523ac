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
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any

import greenlet

from dtm.testing.actors import Actor, Killed, Process, Trouble, UncontrolledError
from dtm.testing.choices import Choices, longest_ago
from dtm.testing.schedules import SPIN, Schedule
from dtm.testing.stacks import stack_of, suspended_stacks, where

HANG_SECONDS = 60.0
UNWIND_SECONDS = 5.0
SHOWN_SWITCHES = 40
UNCONTROLLED = (
    "a thread that is not controlled takes part in an exploration: it was started by a module "
    "whose names are not exchanged; name that module in Interleavings(modules=…)"
)


class _Lines(dict[int, Any]):
    """Whether the lines of a function are points, by the identity of its code.

    A code object as a key would be hashed and compared by all that it holds.
    """

    def __init__(self, modules: Sequence[str], local: Callable[..., Any]) -> None:
        super().__init__()
        self._known: list[CodeType] = []  # so that no identity is used again
        self._exact = frozenset(modules)
        self._below = tuple(f"{name}." for name in modules)
        self._local = local

    def look_up(self, frame: FrameType) -> Any:
        name = frame.f_globals.get("__name__", "")
        traced = name in self._exact or name.startswith(self._below)
        self._known.append(frame.f_code)
        found = self[id(frame.f_code)] = self._local if traced else None
        return found


class Controller(Choices):
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
        super().__init__(schedule, most_seconds)
        self.switches = 0
        self.trouble: str | None = None
        self._left: list[Actor] = []
        self._shared = tuple(shared)
        self._most_points = most_points
        self._done = allocate_lock()
        self._done.acquire()
        self._trace: deque[str] = deque(maxlen=SHOWN_SWITCHES)
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
                self.finish()
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
                following = self.turn()
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
            following = self.turn()
            if following is not None:
                self._switch(me, following)
        raise Killed

    # Points.

    def _call(self, frame: FrameType, _event: str, _: Any) -> Any:
        lines = self._lines
        assert lines is not None
        try:
            return lines[id(frame.f_code)]
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
        if get_ident() != me.ident:
            raise UncontrolledError(UNCONTROLLED)
        if self.over:
            raise Killed
        self.points += 1
        if self.points > self._most_points:
            self.fail(f"livelock: no end after {self._most_points} points")
        if me.signals:
            self._handle(me)
        me.streak += 1
        if me.streak > SPIN:
            self.give_way()
            return
        if self._deviations is not None:
            following = self.deviate(me, self._deviations, everywhere)
        else:
            following = self.weigh(me)
        if following is not None:
            self._switch(me, following)

    def give_way(self) -> None:
        """Let another thread go on, if one can: whoever has waited longest."""
        me = self.current
        if self.over:
            raise Killed
        me.streak = 0
        if self._priorities is not None:
            me.priority = self._priorities.lowest()
            following = self.highest()
        else:
            self.deliver_all()
            others = [each for each in self.actors if each.runnable and each is not me]
            following = min(others, key=longest_ago, default=None)
        if following is not None and following is not me:
            self._switch(me, following)

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
        following = self.turn()
        if following is None:
            raise Killed
        if following is not me:
            self._switch(me, following)
        if me.signals:
            self._handle(me)
        return not me.timed_out

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

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        if seconds > 0.0:
            deadline = self.clock + seconds
            while self.clock < deadline and self.block(None, deadline):
                pass
        else:
            self.now()
            self.give_way()

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
        first = self.turn()
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

    def finish(self) -> None:
        """See :meth:`Choices.finish`."""
        self.over = True
        self._done.release()

    def fail(self, what: str) -> None:
        """See :meth:`Choices.fail`."""
        self._report(what)
        if not self.over:
            self.finish()
        raise Killed

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
            with suppress(BaseException):  # whatever it says, its run is over
                each.throw(Killed)
