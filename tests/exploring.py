"""Every order of events: exhaustive exploration of small worlds.

Time is taken out: every clock stands still at 0, and all that time decides is a *choice*:

* ``deliver``: which link delivers its oldest message, which is read at once;
* ``end``: which task ends, soon; ``end late``: after so long that its worker looks at its inbox,
  goes on with what has become ready, and sends results that have gathered;
* ``give up``: which worker waits no longer for answers to its requests;
* ``timer``: whose timer goes off; ``look``: which load-balancer thread looks about while a
  task runs, and sends results that have waited.

What a generator decides in a run, and how old a load report is when a victim is chosen, is
decided by :class:`Dice`, and every fall of them is explored too.  So whatever is set may go off at
any time, before or after all others: more orders than any real clock shows.  Estimates of durations
do not change, so all is worth sending.  Where the states are too many, a world is *bounded*
(:class:`Bounds`): some sorts of choices are left out.

Two ways to the same state are explored once.  What makes two states the same is their
fingerprint (:mod:`tests.state_digest`): every attribute of balancers, schedulers, workers, their
stacks and calls, and every message under way with its load report, save those listed there as
constant, as history (counters) or as times.  Serial numbers of requests are renamed in their
order, and what the next search for work clears is left out while none is on.

*No state without progress*: from each state the end of the run can be reached, when all
workers have stopped.  Every law of :mod:`dtm.testing.invariants` holds in all.

A state is reached by running the choices that lead to it again, for a world cannot be
copied cheaply (generators, closures).

Threads: one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from dtm.core.balancer import Balancer, Mode, Sends
from dtm.core.granularity import Granularity, Profile
from dtm.errors import InvariantError
from dtm.task import Range
from dtm.testing import end_invariants, invariants
from dtm.testing.laws import Law
from dtm.testing.mail import Mail
from dtm.testing.network import Network
from dtm.testing.programs import Inner
from dtm.testing.simulated_runner import NEVER, Frame, State
from dtm.testing.simulated_worker import Simulated
from dtm.testing.world import Phase, World
from tests.state_digest import Digest

LONG_AGO = -1.0


class Choice(NamedTuple):
    """What happens next, and how the dice fall meanwhile; those not named fall on 0."""

    kind: str
    first: int
    second: int = 0
    falls: tuple[int, ...] = ()


Path = tuple[Choice, ...]


@dataclass
class Explored:
    """How large a world was.

    Attributes:
        states: how many there are.
        ends: how many of them are ends of the run.
        parked: in how many of them a task is parked.
    """

    states: int = 0
    ends: int = 0
    parked: int = 0


@dataclass(frozen=True)
class Bounds:
    """What is not explored of a world.

    Attributes:
        left_out: the kinds of choices that are never taken.
        dice: whether the dice fall every way; else always on 0.
        until_stopped: whether the run is followed so far; else until ``main`` returns.
        deals: whether maps are dealt.
    """

    left_out: frozenset[str] = frozenset()
    dice: bool = True
    until_stopped: bool = True
    deals: bool = True


EVERYTHING = Bounds()


class Dice(Random):
    """Chance as a choice: falls as it is told to, and remembers what else was possible.

    Attributes:
        falls: how they have fallen since ``load``, each as (fall, sides).
        fixed: whether they always fall on 0.
    """

    fixed = False

    def load(self, planned: tuple[int, ...]) -> None:
        """Have the next falls be those ``planned``, and 0 from there on."""
        self._planned = planned
        self.falls: list[tuple[int, int]] = []

    def fall(self, sides: int) -> int:
        """Return a number below ``sides``."""
        if self.fixed:
            return 0
        place = len(self.falls)
        chosen = self._planned[place] if place < len(self._planned) else 0
        self.falls.append((chosen, sides))
        return chosen

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """Fall on one of a range."""
        among = range(start) if stop is None else range(start, stop, step)
        return among[self.fall(len(among))]

    def choice(self, seq: Any) -> Any:
        """Fall on one of a sequence."""
        return seq[self.fall(len(seq))]


class Doubtful(Balancer):
    """A balancer for which each report may have grown old when it looks at it."""

    dice: Dice
    deals: bool

    def deal(self, work: Range, now: float) -> Sends:
        return super().deal(work, now) if self.deals else []

    def _choose(self, now: float) -> int | None:
        for other in self.neighbours:
            known = self.reports.get(other)
            if known and self._seconds(other, now) and self.dice.fall(2):
                self.reports[other] = (known[0]._replace(seconds=0.0), now)
        return super()._choose(now)

    def _is_idle(self, other: int, now: float) -> bool:
        return super()._is_idle(other, now) and not self.dice.fall(2)


class Known(Profile):
    """An estimate that does not change."""

    __slots__ = ()

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.assume(seconds)

    def learn(self, items: int, seconds: float) -> None:
        """Nothing takes time here, so there is nothing to learn."""


class Untimed(World):
    """A world in which the explorer decides what happens next.

    Args:
        program: what ``main`` does.
        size: how many workers.
        known: the estimate for a task.
        settled: whether ``main`` begins only when the other workers are silent.
        near: whether all workers are neighbours of each other, not only of the root.
        bounds: what is not explored.
    """

    def __init__(
        self,
        program: Inner,
        size: int,
        known: float,
        *,
        settled: bool = True,
        near: bool = False,
        bounds: Bounds = EVERYTHING,
    ) -> None:
        self.dice = dice = Dice()
        dice.fixed = not bounds.dice
        self.bounds = bounds
        self._left_out = bounds.left_out
        dice.load(())

        def doubtful(rank: int, size: int, _: Random, granularity: Granularity) -> Doubtful:
            balancer = Doubtful(rank, size, dice, granularity)
            balancer.dice = dice
            balancer.deals = bounds.deals
            if near:
                balancer.neighbours = tuple(other for other in range(size) if other != rank)
            return balancer

        super().__init__(
            program, [1.0] * size, network=Network(cpu=0.0), minimum=0.0, balancer=doubtful,
            watch=lambda *_: None,
        )  # fmt: skip
        self.links: dict[tuple[int, int], list[tuple[int, Mail]]] = {}
        profile = Known(known)
        for worker in self.workers:
            granularity: Any = worker.scheduler.granularity
            granularity.profile = lambda *_: profile
        self._settled = settled
        self._number = 0

    def alarm(self, when: float, worker: Simulated, kind: str) -> None:
        """Alarms go off when they are chosen to."""

    def delay(self) -> float:
        """Return nothing: no time passes."""
        return 0.0

    def post(self, sender: Simulated, to: int, mail: Mail) -> None:
        """Put a message at the end of its link."""
        self._number += 1
        self.in_flight[self._number] = (sender.rank, to, mail)
        self.links.setdefault((sender.rank, to), []).append((self._number, mail))

    def begin(self) -> None:
        """Let ``main`` begin, when the other workers are silent if the world is ``settled``."""
        for worker in self.workers[1:]:
            worker.advance()
        while self._settled and (choices := [*self._deliveries()]):
            self.take(choices[0])
        self.dice.load(())
        self._begin()

    def choices(self) -> list[Choice]:
        """Return all that may happen next."""
        if self.over:
            return []
        there = [worker for worker in self.workers if worker.state is not State.GONE]
        own = (each for worker in there for each in _of_worker(worker))
        return [*self._deliveries(), *(each for each in own if each.kind not in self._left_out)]

    @property
    def over(self) -> bool:
        """Whether nothing more is explored."""
        return self.phase is Phase.OVER or (self.stopping and not self.bounds.until_stopped)

    def _deliveries(self) -> Iterator[Choice]:
        for (source, to), waiting in sorted(self.links.items()):
            if waiting and self.workers[to].state is not State.GONE:
                yield Choice("deliver", source, to)

    def take(self, choice: Choice) -> None:
        """Let one thing happen."""
        self.dice.load(choice.falls)
        if choice.kind == "deliver":
            self._deliver(choice.first, choice.second)
            return
        worker = self.workers[choice.first]
        if choice.kind == "end":
            worker.polled = 0.0
            worker.task_over(0.0)
        elif choice.kind == "end late":
            self._end_late(worker, worker.stack[-1])
        elif choice.kind == "give up":
            worker.scheduler.balancer.deadline = worker.deadline = 0.0
            worker.alarm(0.0, "deadline")
        elif choice.kind == "timer":
            worker.scheduler._timer = worker.timer = 0.0
            self._serve(worker)
        else:
            worker.outbox_since = LONG_AGO
            worker.service()

    def _deliver(self, source: int, to: int) -> None:
        number, mail = self.links[source, to].pop(0)
        del self.in_flight[number]
        self.workers[to].inbox.append((source, mail))
        self._serve(self.workers[to])

    @staticmethod
    def _serve(worker: Simulated) -> None:
        if worker.state is State.COMPUTING:
            worker.service()
        else:
            worker.wake(0.0)

    @staticmethod
    def _end_late(worker: Simulated, frame: Frame) -> None:
        worker.polled = frame.shipped = worker.outbox_since = 2 * LONG_AGO
        worker.task_over(0.0)
        frame.shipped = 0.0


def _of_worker(worker: Simulated) -> Iterator[Choice]:
    rank, balancer = worker.rank, worker.scheduler.balancer
    if worker.state is State.COMPUTING:
        yield Choice("end", rank)
        work = worker.stack[-1].work
        if worker.ready or worker.outbox or (work is not None and work.call.owner != rank):
            yield Choice("end late", rank)
        if worker.service_at < NEVER:
            yield Choice("look", rank)
    if balancer.mode is Mode.ASKING and balancer.deadline > 0.0:
        yield Choice("give up", rank)
    if worker.timer < NEVER:
        yield Choice("timer", rank)


def fingerprint(world: Untimed) -> Any:
    """Return what tells states apart."""
    links = {link: [mail for _, mail in waiting] for link, waiting in world.links.items()}
    return world.phase, Digest(world.workers, links).tuples()


class _Explorer:
    """The states found so far, and how one got there."""

    def __init__(self, make: Callable[[], Untimed], most_states: int) -> None:
        self.make = make
        self.most_states = most_states
        self.explored = Explored()
        self.pending: list[tuple[int, Path]] = [(-1, ())]
        self._numbers: dict[int, int] = {}
        self._ways: list[Path] = []
        self._from: defaultdict[int, list[int]] = defaultdict(list)
        self._ends: list[int] = []

    def reached(self, world: Untimed, before: int, path: Path) -> int | None:
        """Note a state and how it came about; return its number if it is new."""
        mark = hash(fingerprint(world))
        number = self._numbers.setdefault(mark, len(self._numbers))
        self._from[number].append(before)
        if number < len(self._ways):
            return None
        self._ways.append(path)
        if number >= self.most_states:
            raise Law.GETS_ON.broken(f"no end after {self.most_states} states")
        self.explored.parked += any(worker.parked for worker in world.workers)
        return number

    def follow(self, before: int, path: Path) -> None:
        """Run a path, and on from there by the first of the choices until nothing is new."""
        world = self.make()
        world.begin()
        for choice in path[:-1]:
            world.take(choice)
        if path:
            self._take(world, before, path)
        while (number := self.reached(world, before, path)) is not None:
            choices = world.choices()
            if not choices:
                self._end(world, number, path)
                return
            self.pending += [(number, (*path, choice)) for choice in choices[1:]]
            before, path = number, (*path, choices[0])
            self._take(world, before, path)

    def _end(self, world: Untimed, number: int, path: Path) -> None:
        left = [worker.rank for worker in world.workers if worker.state is not State.GONE]
        if not world.over or (left and world.bounds.until_stopped):
            raise Law.GETS_ON.broken(f"a state without progress, after {show(path)}")
        if not left:
            self._judge(end_invariants.check_quiet, world, path)
        self._ends.append(number)

    @staticmethod
    def _judge(check: Callable[[World], None], world: Untimed, path: Path) -> None:
        try:
            check(world)
        except InvariantError as error:
            raise InvariantError(f"{error}, after {show(path)}") from error

    def _take(self, world: Untimed, before: int, path: Path) -> None:
        """Take the last step of a path; other falls of its dice are other paths."""
        last = path[-1]
        try:
            world.take(last)
            invariants.check(world)
        except InvariantError as error:
            raise InvariantError(f"{error}, after {show(path)}") from error
        falls = world.dice.falls
        fallen = tuple(fall for fall, _ in falls)
        for place in range(len(last.falls), len(falls)):
            for other in range(1, falls[place][1]):
                choice = last._replace(falls=(*fallen[:place], other))
                self.pending.append((before, (*path[:-1], choice)))

    def finish(self) -> Explored:
        """Require that an end can be reached from every state."""
        reaching, waiting = set(self._ends), list(self._ends)
        while waiting:
            for before in self._from[waiting.pop()]:
                if before not in reaching:
                    reaching.add(before)
                    waiting.append(before)
        stuck = [way for number, way in enumerate(self._ways) if number not in reaching]
        if stuck:
            raise Law.GETS_ON.broken(f"no end can be reached after {show(min(stuck, key=len))}")
        self.explored.states, self.explored.ends = len(self._ways), len(self._ends)
        return self.explored


def show(path: Path) -> str:
    """Return choices as people read them."""
    return ", ".join(
        f"{kind} {first}" + (f" to {second}" if kind == "deliver" else "")
        for kind, first, second, _ in path
    )


def explore(make: Callable[[], Untimed], most_states: int = 1 << 20) -> Explored:
    """Take every choice in every state.

    Raises:
        InvariantError: a law is broken, or the end of the run cannot be reached; the message
            ends with the choices that lead there.
    """
    explorer = _Explorer(make, most_states)
    while explorer.pending:
        explorer.follow(*explorer.pending.pop())
    return explorer.finish()
