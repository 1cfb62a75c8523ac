"""What may go wrong in a simulated run, and when: the schedule of faults.

Each fault strikes just before the n-th event.  A worker that dies says nothing
more and loses what comes; the root learns of it a little later.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dtm.options import count, number


class World(Protocol):
    """What can happen to a world."""

    def die(self, rank: int, noticed: float, reason: str) -> None:
        """Let a worker die."""

    def lose(self, rank: int, reason: str) -> None:
        """Let the root believe that a worker is lost."""

    def freeze(self, rank: int, until: float) -> None:
        """Let a worker stand still."""

    def slow(self, rank: int, times: float) -> None:
        """Let a worker be slower."""


@dataclass(frozen=True)
class Death:
    """A worker dies at an event; the root learns of it ``noticed`` seconds later."""

    event: int
    rank: int
    noticed: float = 1e-3

    def __post_init__(self) -> None:
        _check_place(self)
        number("noticed", self.noticed)

    def strike(self, world: World, now: float) -> None:
        """Let it happen."""
        world.die(self.rank, now + self.noticed, "its process ended")


@dataclass(frozen=True)
class Suspicion:
    """The communication manager says at an event that a worker is lost, which is not so."""

    event: int
    rank: int

    def __post_init__(self) -> None:
        _check_place(self)

    def strike(self, world: World, now: float) -> None:
        """Let it happen."""
        world.lose(self.rank, f"it was silent for too long at {now:.6f} s")


@dataclass(frozen=True)
class Freeze:
    """A worker stands still from an event on, for some seconds; then it goes on.

    The task that runs ends later by as much.  Of freezes that overlap the latest end counts.
    """

    event: int
    rank: int
    seconds: float

    def __post_init__(self) -> None:
        _check_place(self)
        number("seconds", self.seconds)

    def strike(self, world: World, now: float) -> None:
        """Let it happen."""
        world.freeze(self.rank, now + self.seconds)


@dataclass(frozen=True)
class Crawl:
    """A worker is ``times`` slower from an event on: in tasks, in answers, in all it does.

    The report counts as idle what it loses so.
    """

    event: int
    rank: int
    times: float = 1000.0

    def __post_init__(self) -> None:
        _check_place(self)
        number("times", self.times, least=1.0)

    def strike(self, world: World, now: float) -> None:
        """Let it happen."""
        world.slow(self.rank, self.times)


@dataclass(frozen=True)
class Delay:
    """Messages from one rank to another (None: any) take longer."""

    seconds: float
    source: int | None = None
    to: int | None = None
    since: float = 0.0
    until: float = float("inf")

    def __post_init__(self) -> None:
        number("seconds", self.seconds)
        number("since", self.since)
        number("until", self.until, least=self.since, endless=True)
        for name in ("source", "to"):
            rank = getattr(self, name)
            if rank is not None:
                count(name, rank)


@dataclass(frozen=True)
class Echo:
    """Results from one rank to another (None: any) come again some seconds later.

    So they do where work is run twice, for a worker only seemed to be lost.
    """

    seconds: float
    source: int | None = None
    to: int | None = None

    def __post_init__(self) -> None:
        number("seconds", self.seconds)
        for name in ("source", "to"):
            rank = getattr(self, name)
            if rank is not None:
                count(name, rank)


Strike = Death | Suspicion | Freeze | Crawl
Fault = Strike | Delay | Echo


def _check_place(fault: Strike) -> None:
    count("event", fault.event, least=1)
    count("rank", fault.rank)


def check_ranks(faults: Sequence[Fault], workers: int) -> None:
    """Require that faults befall workers that there are.

    Raises:
        TypeError: something is no fault.
        ValueError: a rank is too large; the message says whose.
    """
    for fault in faults:
        if not isinstance(fault, Fault):
            raise TypeError(
                f"faults must be Death, Suspicion, Freeze, Crawl, Delay or Echo, not {fault!r}"
            )
        ranks = (fault.source, fault.to) if isinstance(fault, (Delay, Echo)) else (fault.rank,)
        if any(rank is not None and rank >= workers for rank in ranks):
            raise ValueError(
                f"{fault!r} names a rank that is not there: ranks go from 0 to {workers - 1}"
            )


class Faults:
    """The faults of a run, in the order of their events."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._delays = [fault for fault in faults if isinstance(fault, Delay)]
        self.echoes = [fault for fault in faults if isinstance(fault, Echo)]
        self._strikes = sorted(
            (fault for fault in faults if not isinstance(fault, (Delay, Echo))),
            key=lambda fault: fault.event,
            reverse=True,
        )
        self.any = bool(self._strikes)
        self.given = bool(faults)
        self.slowdown = self._slowdown if self._delays else None

    def due(self, event: int) -> list[Strike]:
        """Return the faults that strike before an event, each once."""
        found = []
        while self._strikes and self._strikes[-1].event <= event:
            found.append(self._strikes.pop())
        return found

    def echo(self, source: int, to: int) -> list[float]:
        """Return how much later results come again, for each time that they do."""
        return [
            echo.seconds
            for echo in self.echoes
            if echo.source in (None, source) and echo.to in (None, to)
        ]

    @property
    def left(self) -> tuple[Strike, ...]:
        """Those that have not struck, in the order of their events."""
        return tuple(reversed(self._strikes))

    def _slowdown(self, source: int, to: int, now: float) -> float:
        return sum(
            delay.seconds
            for delay in self._delays
            if delay.source in (None, source)
            and delay.to in (None, to)
            and delay.since <= now < delay.until
        )
