"""Schedules: who goes on at each point of a program whose threads are controlled.

Two ways to choose them are known to find bugs with few schedules.

:class:`Deviations` describes a schedule by where it differs from the plain one, in which a
thread runs until it has to wait.  A *preemption* takes the processor from a thread that could
have gone on.  Most bugs of threads need one or two, so all schedules with at most two are tried
(CHESS: Musuvathi, Qadeer, Ball, Basler, Nainar, Neamtiu, "Finding and Reproducing Heisenbugs in
Concurrent Programs", OSDI 2008).

:class:`Priorities` gives each thread a random priority and lets the highest run; at ``depth - 1``
random points whoever runs falls behind all others.  A bug that ``depth`` ordered events bring
about is found with a probability of at least ``1 / (n * k ** (depth - 1))``, with ``n`` threads and
``k`` points (PCT: Burckhardt, Kothari, Musuvathi, Nagarakatte, "A Randomized Scheduler with
Probabilistic Guarantees of Finding Bugs", ASPLOS 2010).

Either is written as a short *seed*, ``chess 120:1 431:2`` or ``pct 17 2300 3``, and the same seed
with the same code gives the same schedule.

Threads: whichever of the controlled ones runs.

Rejected: choices by a random generator at each point.  The chance that one thread stands still
long enough for a bug to show falls exponentially with the length of the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, Protocol, TypeVar

Actor = TypeVar("Actor")

SPIN = 2000
JUMPS = 0.25


class Ranked(Protocol):
    """Whoever can be chosen to go on."""

    priority: float


class Branch(NamedTuple):
    """A choice that a schedule has made: its number, and how many others there were.

    ``costs`` tells whether another choice is a preemption.
    """

    number: int
    others: int
    costs: bool


class Deviations:
    """The plain schedule, but for the given choices.

    Args:
        choices: pairs of the number of a choice and which of the others to take, from 1 on.
        timeouts: whether a wait may reach its timeout while others could go on.
        turns: whether another choice is free of charge where the running thread has to wait.

    Attributes:
        branches: the choices made after the last deviation.
    """

    eager = True

    def __init__(
        self,
        choices: Sequence[tuple[int, int]] = (),
        *,
        timeouts: bool = True,
        turns: bool = False,
    ) -> None:
        self.choices = tuple(choices)
        self.timeouts = timeouts
        self.branches: list[Branch] = []
        self._turns = turns
        self._number = 0
        self._wanted = dict(choices)
        self._last = max(self._wanted, default=-1)

    @property
    def seed(self) -> str:
        """The schedule as text."""
        return " ".join(("chess", *(f"{number}:{choice}" for number, choice in self.choices)))

    def choose(self, others: int, *, costs: bool) -> int:
        """Return 0 for the plain choice, or which of the others to take, from 1 on."""
        number = self._number
        self._number += 1
        if number > self._last:
            self.branches.append(Branch(number, others, costs))
            return 0
        return self._wanted.get(number, 0)

    def turn(self, enabled: Sequence[Actor]) -> Actor:
        """Choose who goes on where the running thread cannot."""
        if len(enabled) == 1:
            return enabled[0]
        return enabled[self.choose(len(enabled) - 1, costs=not self._turns)]


class Priorities:
    """Random priorities, and a few random points where they change.

    Args:
        number: seeds the generator.
        points: about how many points the program has.
        depth: one more than the number of changes.
    """

    eager = False
    timeouts = True

    def __init__(self, number: int, points: int, depth: int = 3) -> None:
        self.seed = f"pct {number} {points} {depth}"
        self._random = Random(self.seed)
        changes = [self._random.randrange(1, max(2, points)) for _ in range(depth - 1)]
        self._changes = sorted(changes, reverse=True)
        self._lowest = 0.0
        self.next_change = self._pop()

    def _pop(self) -> float:
        return self._changes.pop() if self._changes else float("inf")

    def draw(self) -> float:
        """Return the priority of somebody new."""
        return 1.0 + self._random.random()

    def change(self) -> bool:
        """Pass a point of change; whether a timeout is due instead of another priority."""
        self.next_change = self._pop()
        return self._random.random() < JUMPS

    def pick(self, among: Sequence[Actor]) -> Actor:
        """Choose one at random."""
        return self._random.choice(among)

    def lowest(self) -> float:
        """Return a priority below all others."""
        self._lowest -= 1.0
        return self._lowest


Schedule = Deviations | Priorities


def from_seed(seed: str, *, timeouts: bool = True, turns: bool = False) -> Schedule:
    """Return the schedule that a seed describes.

    Raises:
        ValueError: it is not the seed of a schedule.
    """
    try:
        kind, *rest = seed.split()
        if kind == "chess":
            pairs = [tuple(map(int, each.split(":"))) for each in rest]
            choices = [(number, choice) for number, choice in pairs]
            return Deviations(choices, timeouts=timeouts, turns=turns)
        if kind == "pct":
            number, points, depth = map(int, rest)
            return Priorities(number, points, depth)
    except ValueError as error:
        raise ValueError(f"{seed!r} is not the seed of a schedule: {error}") from error
    raise ValueError(
        f"{seed!r} is not the seed of a schedule: it begins with neither chess nor pct"
    )
