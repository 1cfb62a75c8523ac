"""The figures of a run: where its core-seconds went, and what each function took.

``from_counters`` takes them from what the workers count; a recorded run gives the same, and more
exactly (:mod:`dtm.trace.findings`).  Both are judged by :mod:`dtm.run.advice`.

Threads: any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt


@dataclass
class FunctionFigures:
    """What the items of one function took, on all workers.

    A strip of several items tells their sum only.  The deviation of single items follows from
    those sums, as long as items do not depend on their neighbours.

    Attributes:
        items: how many ran.
        strips: in how many strips.
        seconds: own seconds in all.
        squares: sum over the strips of their seconds squared, each by its number of items.
        longest: the most own seconds an item took, on the average of its strip.
        longest_at: its index.
    """

    items: float = 0
    strips: float = 0
    seconds: float = 0.0
    squares: float = 0.0
    longest: float = 0.0
    longest_at: float = 0

    def add(self, items: int, seconds: float, first: int) -> None:
        """Count a strip."""
        each = seconds / items
        self.items += items
        self.strips += 1
        self.seconds += seconds
        self.squares += seconds * each
        if each > self.longest:
            self.longest, self.longest_at = each, first

    def join(self, other: FunctionFigures) -> None:
        """Add what another worker has counted."""
        self.items += other.items
        self.strips += other.strips
        self.seconds += other.seconds
        self.squares += other.squares
        if other.longest > self.longest:
            self.longest, self.longest_at = other.longest, other.longest_at

    @property
    def mean(self) -> float:
        """Seconds that an item took on the average."""
        return self.seconds / self.items if self.items else 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of the seconds of an item, 0 if there is too little to tell."""
        if self.strips < 2:
            return 0.0
        about = self.squares - self.seconds * self.seconds / self.items
        return sqrt(max(0.0, about) / (self.strips - 1))


@dataclass
class Figures:
    """Where the core-seconds of a run went: ``workers * duration`` in all.

    Attributes:
        workers: how many there were.
        duration: seconds from the beginning of ``main`` to its end.
        busy: seconds in which each worker ran items of the user's functions, by rank.
        resting: seconds in which each had nothing to run.
        starting: core-seconds that passed before the workers were there.
        serial: seconds in which ``main`` itself computed, and waited for no call.
        pickling: seconds for which messages were made and read.
        functions: by name.
        alone: of the item that all others waited for longest: function, index, its seconds, and
            for how many seconds nothing else ran; known of recorded runs.
    """

    workers: int
    duration: float
    busy: dict[int, float] = field(default_factory=dict)
    resting: dict[int, float] = field(default_factory=dict)
    starting: float = 0.0
    serial: float = 0.0
    pickling: float = 0.0
    functions: dict[str, FunctionFigures] = field(default_factory=dict)
    alone: tuple[str, int, float, float] | None = None

    @property
    def capacity(self) -> float:
        """All core-seconds."""
        return max(self.workers * self.duration, 1e-9)

    @property
    def work(self) -> float:
        """Core-seconds of the user's code: items, and what ``main`` did itself."""
        return sum(self.busy.values()) + self.serial

    @property
    def efficiency(self) -> float:
        """The part of the core-seconds in which the user's code ran."""
        return min(1.0, self.work / self.capacity)

    @property
    def idle_while_serial(self) -> float:
        """Core-seconds in which other workers rested because ``main`` computed."""
        return min(sum(self.resting.values()), self.serial * (self.workers - 1))

    @property
    def idle_otherwise(self) -> float:
        """Core-seconds of the other rests: too little work, or work that ends unevenly."""
        return sum(self.resting.values()) - self.idle_while_serial

    @property
    def overhead(self) -> float:
        """Core-seconds of dtm's own work, pickling and starting left out."""
        known = self.work + sum(self.resting.values()) + self.pickling + self.starting
        return max(0.0, self.capacity - known)


def from_counters(
    counters: Mapping[int, Mapping[str, float]], duration: float, size: int = 0
) -> Figures:
    """Return the figures of a watched run of ``size`` workers, from what each has counted.

    Those of whom there are no counts had not joined when it ended, so all their time was lost in
    starting.
    """
    found = Figures(max(size, len(counters)), duration)
    found.starting = duration * (found.workers - len(counters))
    for rank, values in counters.items():
        found.busy[rank] = values.get("busy", 0.0)
        found.resting[rank] = values.get("resting", 0.0)
        found.pickling += values.get("pickling", 0.0)
        found.starting += max(0.0, duration - values.get("lived", duration))
        for name, each in _functions(values).items():
            found.functions.setdefault(name, FunctionFigures()).join(each)
    found.serial = max(0.0, duration - counters[0].get("waited", duration))
    return found


def _functions(values: Mapping[str, float]) -> dict[str, FunctionFigures]:
    found: dict[str, FunctionFigures] = {}
    for key, value in values.items():
        what, _, name = key.partition(" of ")
        if name:
            setattr(found.setdefault(name, FunctionFigures()), what, value)
    return found
