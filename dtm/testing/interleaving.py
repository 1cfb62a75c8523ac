"""Interleavings of the production shell: whole runs of workers, in every order of their threads.

:class:`Interleavings` runs a program of dtm as 1 to 4 workers in one process: the production
``Run``, ``Worker``, ``Runner``, wire and managers, each worker a controlled process with its own
main thread, load-balancer thread and whatever else it starts, over a network in which the
schedule chooses when messages arrive, in virtual time::

    from dtm.testing import Interleavings

    def main():
        return dtm.map(square, range(8))

    program = Interleavings(main, [x * x for x in range(8)], workers=2)
    print(program.systematic(preemptions=2, most=2000))
    print(program.random(1000))

A schedule that deadlocks, makes no progress, or ends with another result than the expected
raises :class:`InterleavingError`, whose text has the seed, the stack of every thread and the last
switches; ``program.replay(seed)`` runs it again, step by step the same.

Threads: one; explorations cannot be nested.

Rejected: a model of the shell in a language for models.  What is wrong is wrong in the code.
"""

from __future__ import annotations

import gc
import importlib
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from dtm.comm.base import CommunicationManager
from dtm.comm.forked import Forkable, forkable
from dtm.errors import DtmError
from dtm.handle import Table, here
from dtm.options import Options
from dtm.run import runtime
from dtm.run.output import Output, redirected
from dtm.run.worker import Worker
from dtm.testing.actors import Process, Trouble
from dtm.testing.controller import Controller
from dtm.testing.held_locks import declared_classes, locks_checked, modules_of
from dtm.testing.primitives import nothing
from dtm.testing.schedules import Branch, Deviations, Priorities, Schedule, from_seed
from dtm.testing.substitution import substituted
from dtm.testing.virtual_mpi import VirtualMpiManager, exchanged, mpi_world
from dtm.testing.virtual_network import Links, joined
from dtm.testing.virtual_time import stage
from dtm.wire.pickling import idle_picklers
from dtm.wire.reductions import rules

SHELL = ("dtm.run", "dtm.wire", "dtm.lazy", "dtm.future", "dtm.comm.mpi.messages")
PACKAGES = ("dtm.run", "dtm.wire", "dtm.core", "dtm.comm.mpi", "dtm.lazy", "dtm.future")
MOST_FRONTIER = 50_000
COLLECT_EVERY = 100
DEEP = 50_000


class InterleavingError(DtmError, AssertionError):
    """A schedule was found in which a program goes wrong; the text says how to see it again.

    Attributes:
        seed: of the schedule.
    """

    def __init__(self, text: str, seed: str) -> None:
        super().__init__(text)
        self.seed = seed


@dataclass
class Outcome:
    """How one schedule ended.

    Attributes:
        value: what ``main`` returned.
        error: what it raised.
        seconds: virtual time until it did, without what early timeouts have skipped.
        ended: virtual time until all workers had ended, likewise.
        statuses: of the processes, by rank.
        printed: what stands on the root's standard output and standard error.
        points, switches: of the schedule.
        operations: of each rank's manager.
    """

    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0
    ended: float = 0.0
    statuses: list[int | None] = field(default_factory=list)
    printed: tuple[str, str] = ("", "")
    points: int = 0
    switches: int = 0
    operations: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Explored:
    """What was explored.

    Attributes:
        schedules: how many.
        exhausted: whether these were all that there are.
        points: of the longest.
    """

    schedules: int
    exhausted: bool
    points: int

    def __str__(self) -> str:
        share = "all" if self.exhausted else "some"
        return f"{share}: {self.schedules} schedules of up to {self.points} points"


Expected = Callable[[Outcome], object]


class Interleavings:
    """The schedules of one program.

    Args:
        main: what the root runs; it calls dtm's functions as any program does.
        expected: what it must return; an exception type that it must raise; or a function
            (made by :func:`check`) that is given the :class:`Outcome` and raises AssertionError.
        workers: how many.
        mpi: whether they are joined by the production manager of MPI.
        lines: modules whose lines are points, with all below them.
        modules: more modules whose locks, clocks and threads are controlled; that of ``main`` is.
        seed: of the run's random numbers, if it is seeded.
        death: a rank, and the number of the operation of its manager at which it dies.
        timeouts: whether waits may time out early.
        turns: whether it is no preemption to choose another thread where one has to wait.
        most_points, most_seconds: a run that needs more is a livelock.
    """

    def __init__(
        self,
        main: Callable[[], Any],
        expected: Any,
        *,
        workers: int = 2,
        mpi: bool = False,
        lines: Sequence[str] = SHELL,
        modules: Sequence[str] = (),
        seed: int | None = None,
        death: tuple[int, int] | None = None,
        timeouts: bool = True,
        turns: bool = False,
        most_points: int = 100_000,
        most_seconds: float = 60.0,
    ) -> None:
        self.main = main
        self.expected = expected
        self.workers = workers
        self.death = death
        self._mpi = mpi
        self._seed = seed
        self._lines = tuple(lines)
        self._modules = ("dtm", main.__module__, *modules)
        self._timeouts = timeouts
        self._turns = turns
        self._most_points = most_points
        self._most_seconds = most_seconds
        self._longest = 0
        self._tries = 0

    # Which schedules.

    def systematic(self, preemptions: int = 2, most: int = 1000) -> Explored:
        """Try the schedules with at most so many preemptions, fewest first.

        Of more than ``most``, a sample of those with the most preemptions is tried, the same
        each time.
        """
        levels = _Levels(preemptions, most)
        with self._stage():
            for choices in levels:
                schedule = Deviations(choices, timeouts=self._timeouts, turns=self._turns)
                self._try(schedule)
                levels.add(choices, schedule.branches)
        return Explored(levels.tried, levels.exhausted, self._longest)

    def random(self, schedules: int, first: int = 0, depth: int = 3) -> Explored:
        """Try random schedules, numbered from ``first`` on."""
        with self._stage():
            points = self._try(Deviations()).points
            for number in range(first, first + schedules):
                self._try(Priorities(number, points, depth))
        return Explored(schedules, exhausted=False, points=self._longest)

    def replay(self, seed: str) -> Outcome:
        """Run the schedule of a seed."""
        with self._stage():
            return self._try(from_seed(seed, timeouts=self._timeouts, turns=self._turns))

    # One schedule.

    @contextmanager
    def _stage(self) -> Iterator[None]:
        for package in PACKAGES:  # none may be imported while threads are controlled
            for name in modules_of(package):
                importlib.import_module(name)
        enabled = gc.isenabled()
        limit = sys.getrecursionlimit()
        with ExitStack() as undo:
            undo.callback(_forget_workers, here.table, set(redirected), set(forkable))
            undo.callback(sys.setrecursionlimit, limit)
            sys.setrecursionlimit(DEEP)
            gc.collect()
            gc.freeze()
            undo.callback(gc.unfreeze)
            gc.disable()
            if enabled:
                undo.callback(gc.enable)
            undo.enter_context(substituted(self._modules, {**exchanged(), **EXCHANGED}))
            undo.enter_context(locks_checked(declared_classes(PACKAGES), _fail))
            yield

    def _try(self, schedule: Schedule) -> Outcome:
        """Run one schedule and judge how it ended."""
        self._tries += 1
        if self._tries % COLLECT_EVERY == 0:
            gc.collect()
        try:
            outcome = self._run(schedule)
            self._judge(outcome)
        except (Trouble, AssertionError) as error:
            raise InterleavingError(
                f"{error}\n\nThe seed of this schedule is {schedule.seed!r}.", schedule.seed
            ) from (error if isinstance(error, AssertionError) else None)
        self._longest = max(self._longest, outcome.points)
        return outcome

    def _run(self, schedule: Schedule) -> Outcome:
        rules.forget()  # or a seed would mean another schedule in a process that has just begun
        idle_picklers.clear()
        controller = stage.controller = Controller(
            schedule,
            lines=self._lines,
            shared=((sys, "stdout"), (sys, "stderr"), (runtime, "current")),
            most_points=self._most_points,
            most_seconds=self._most_seconds,
        )
        processes = [self._process(controller, rank) for rank in range(self.workers)]
        links = Links(controller, processes, [self.death] if self.death else [])
        outcome = Outcome()
        with ExitStack() as undo:
            if self._mpi:
                undo.enter_context(mpi_world(links))
                makers: list[Callable[[], CommunicationManager]] = [
                    VirtualMpiManager
                ] * self.workers
            else:
                makers = [partial(_ready, each) for each in joined(links)]
            for rank, process in enumerate(processes):
                body = _Body(self, makers[rank], controller, outcome)
                controller.spawn(process, "main", body.lead if rank == 0 else body.follow)
            controller.run()
        outcome.ended = controller.clock - controller.skipped
        outcome.statuses = [process.status for process in processes]
        outcome.printed = processes[0].values[0].getvalue(), processes[0].values[1].getvalue()
        outcome.points, outcome.switches = controller.points, controller.switches
        outcome.operations = links.operations
        return outcome

    @staticmethod
    def _process(controller: Controller, rank: int) -> Process:
        process = controller.process(f"worker {rank}")
        process.values = [io.StringIO(), io.StringIO(), None]
        return process

    def options(self) -> Options:
        """Return the options of the run."""
        chosen = Options()
        if self._seed is not None:
            chosen.update({"seed": self._seed})
        return chosen

    def _judge(self, outcome: Outcome) -> None:
        expected = self.expected
        if isinstance(expected, Check):
            expected.holds(outcome)
            return
        if isinstance(expected, type) and issubclass(expected, BaseException):
            assert isinstance(outcome.error, expected), f"{outcome.error!r} is not {expected!r}"
            return
        if outcome.error is not None:
            raise AssertionError(f"main raised {outcome.error!r}") from outcome.error
        assert outcome.value == expected, f"main returned {outcome.value!r}, not {expected!r}"


@dataclass(frozen=True)
class Check:
    """A condition on how a schedule ends: ``holds`` raises AssertionError if it is wrong."""

    holds: Expected


@dataclass
class _Body:
    """What the main thread of a process does."""

    program: Interleavings
    join: Callable[[], CommunicationManager]
    controller: Controller
    outcome: Outcome

    def lead(self) -> None:
        outcome, controller = self.outcome, self.controller

        def main() -> Any:
            try:
                return self.program.main()
            finally:
                if not controller.over:
                    outcome.seconds = controller.clock - controller.skipped

        run = runtime.Run(self.join(), self.program.options(), implicit=False)
        runtime.current = run
        try:
            outcome.value = run.lead(main, (), {})
        except BaseException as error:  # what main raises is the outcome of the run
            if controller.over:
                raise
            outcome.error = error

    def follow(self) -> None:
        run = runtime.Run(self.join(), self.program.options(), implicit=False)
        runtime.current = run
        run.follow()


def _forget_workers(table: Table | None, outputs: set[Output], managers: set[Forkable]) -> None:
    """Undo what killed workers have left in this process: all of it would take part in forks."""
    here.table = table
    redirected.intersection_update(outputs)
    forkable.intersection_update(managers)


def _fail(what: str) -> None:
    stage.controller.fail(what)


_broken = Worker.broken


def _broken_unless_over(worker: Worker, error: BaseException) -> None:
    """Stand for ``Worker.broken``: what cuts a thread off at the end of a schedule is no error."""
    if stage.controller.over:
        raise error
    _broken(worker, error)


# What the process holds by import is the same in all workers here, and long to walk through.  Late
# globals keep what they find of code, so the first schedule of a process would be like no other.
EXCHANGED: dict[str, Any] = {
    "dtm.wire.imports:Imports.remember": nothing,
    "dtm.run.late_globals:LateGlobals.remember": nothing,
    "dtm.run.worker:Worker.broken": _broken_unless_over,
}


def _ready(manager: CommunicationManager) -> CommunicationManager:
    return manager


class _Levels:
    """The schedules to try, as deviations: those without preemptions first, then those with one.

    A schedule is the plain one but for some choices; it is found once, as a child of the
    schedule without the last of them.
    """

    def __init__(self, preemptions: int, most: int) -> None:
        self.tried = 0
        self.exhausted = True
        self._most = most
        self._levels: list[list[tuple[tuple[int, int], ...]]] = [[] for _ in range(preemptions + 1)]
        self._levels[0].append(())
        self._level = 0
        self._seen = [0] * (preemptions + 1)
        self._random = Random(preemptions)

    def __iter__(self) -> Iterator[tuple[tuple[int, int], ...]]:
        for number, level in enumerate(self._levels):
            self._level = number
            left = self._most - self.tried
            if len(level) > left:
                self.exhausted = False
                level[:] = self._random.sample(level, left)
            while level:
                if self.tried >= self._most:
                    self.exhausted = False
                    return
                self.tried += 1
                yield level.pop()

    def add(self, choices: tuple[tuple[int, int], ...], branches: Iterable[Branch]) -> None:
        """Take note of what could be chosen otherwise in a schedule that was tried."""
        for branch in branches:
            level = self._level + branch.costs
            if level >= len(self._levels):
                continue
            for choice in range(1, branch.others + 1):
                self._note(level, (*choices, (branch.number, choice)))

    def _note(self, level: int, choices: tuple[tuple[int, int], ...]) -> None:
        self._seen[level] += 1
        among = self._levels[level]
        if len(among) < MOST_FRONTIER:
            among.append(choices)
            return
        self.exhausted = False
        place = self._random.randrange(self._seen[level])
        if place < MOST_FRONTIER:
            among[place] = choices
