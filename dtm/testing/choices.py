"""What can happen next in a schedule, when, and which of it does.

Either a thread goes on that can, or a link lets something happen that is due, or time passes until
the first wait reaches its timeout.

Time is virtual: it passes a little with each look at the clock, and jumps to the next timeout when
nobody can go on.  A schedule may also have a timeout come early; how much time that has
skipped is counted, so that a run can be said to have taken too long all the same.

Threads: the controlled one that runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from dtm.testing.actors import Actor, Link
from dtm.testing.schedules import Deviations, Priorities, Schedule

FOREVER = float("inf")
TICK_SECONDS = 1e-6
JUMP_SECONDS = 2.0


class Choices(ABC):
    """The threads, links and timeouts of a run, and the schedule that chooses among them.

    Attributes:
        clock: the virtual time.
        skipped: seconds that early timeouts have skipped.
        over: whether the run has come to its end.
        current: the thread that runs.
        changed: whether there is something new to choose from.
    """

    def __init__(self, schedule: Schedule, most_seconds: float) -> None:
        self.schedule = schedule
        self.clock = 0.0
        self.skipped = 0.0
        self.points = 0
        self.over = False
        self.actors: list[Actor] = []
        self.links: list[Link] = []
        self.current: Actor
        self.changed = True
        self._most_seconds = most_seconds
        self._earliest = FOREVER
        self._priorities = schedule if isinstance(schedule, Priorities) else None
        self._deviations = schedule if isinstance(schedule, Deviations) else None

    @abstractmethod
    def fail(self, what: str) -> None:
        """End the run because of something that is wrong; does not return."""

    @abstractmethod
    def finish(self) -> None:
        """End the run: nothing is left that could happen."""

    # What happens by itself.

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

    def deliver_all(self) -> None:
        """Let happen what has been held back."""
        for link in self.links:
            while link.pending:
                link.pending.popleft()()

    # Who goes on.

    def deviate(self, me: Actor, schedule: Deviations, everywhere: bool) -> Actor | None:
        """Return who takes the processor from the running thread, None if nobody does."""
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

    def weigh(self, me: Actor) -> Actor | None:
        """Return who has a higher priority than the running thread now, None if nobody has."""
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
        following = self.highest()
        return None if following is me else following

    def highest(self) -> Actor | None:
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

    def turn(self) -> Actor | None:
        """Choose who goes on when the running thread cannot; None if the run is over."""
        while not self.over:
            if self._priorities is not None:
                found = self.highest()
                if found is not None:
                    return found
            else:
                enabled = [each for each in self.actors if each.runnable]
                if enabled:
                    enabled.sort(key=longest_ago)
                    assert self._deviations is not None
                    return self._deviations.turn(enabled)
                if any(link.pending for link in self.links):
                    self.deliver_all()
                    continue
            if not self.actors:
                self.finish()
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

    # Time.

    def now(self) -> float:
        """Return the virtual time; a look at it takes a microsecond."""
        self.clock += TICK_SECONDS
        if self.clock >= self._earliest:
            self._time_out_due()
        return self.clock

    def _pass_time(self) -> None:
        deadlines = [each.deadline for each in self.actors if each.deadline is not None]
        if not deadlines:
            self.fail("deadlock: no thread can go on, and none waits for a time")
        self.clock = max(self.clock, min(deadlines))
        if self.clock - self.skipped > self._most_seconds:
            self.fail(f"livelock: no end after {self._most_seconds:g} s of virtual time")
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


def longest_ago(actor: Actor) -> int:
    """Return at which switch a thread last ran, to sort by."""
    return actor.last
