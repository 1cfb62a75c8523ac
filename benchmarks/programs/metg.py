"""METG(50%), the minimum effective task granularity of Task Bench.

Sweep the length of a busy loop over powers of two; the efficiency of each is the
processor time of its tasks over workers x wall time.  The figure is the smallest
length at which efficiency reaches one half, with all greater ones too,
interpolated on the logarithm of the length.
``chunks=one`` asks for one task an item, else the default call is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import exp, log
from statistics import median
from typing import NamedTuple

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Library
from benchmarks.programs.work import cost_now, spin, turns_in

HALF = 0.5
START = 64e-6
SHORTEST, LONGEST = 0.1e-6, 50e-3
FEWEST, MOST = 16, 1_000_000  # tasks in a map


class Point(NamedTuple):
    """One length of the sweep: what a task really cost, and how efficient the map was."""

    seconds: float
    efficiency: float


class Sweep:
    """Measures points for one library."""

    def __init__(self, library: Library, request: Request) -> None:
        self.library = library
        self.workers = request.workers
        self.repetitions = 1 if request.quick else 3
        self.wall = 0.05 if request.quick else 0.25
        self.turns_a_second = turns_in(0.02) / 0.02
        singly = request.settings.get("chunks") == "one"
        self.map: Callable[..., object] = library.map_singly if singly else library.map

    def point(self, seconds: float) -> Point:
        turns = round(seconds * self.turns_a_second)
        count = round(self.wall * self.workers / seconds)
        items = [turns] * min(MOST, max(FEWEST, count))
        costs, efficiencies = [], []
        for _ in range(self.repetitions):
            cost = cost_now(self.library, turns, seconds, self.workers)
            wall = seconds_of(self.map, spin, items)
            costs.append(cost)
            efficiencies.append(cost * len(items) / (self.workers * wall))
        return Point(median(costs), median(efficiencies))

    def points(self) -> Iterator[Point]:
        """Walk from the start to the first point on the other side of one half."""
        seconds = START
        first = self.point(seconds)
        yield first
        factor = 0.5 if first.efficiency >= HALF else 2.0
        while SHORTEST < seconds * factor < LONGEST:
            seconds *= factor
            reached = self.point(seconds)
            yield reached
            if (reached.efficiency >= HALF) != (first.efficiency >= HALF):
                return


def crossing(points: list[Point]) -> float:
    """Interpolate the length at which efficiency is one half."""
    last = points[-1]
    if len(points) == 1 or (last.efficiency >= HALF) == (points[0].efficiency >= HALF):
        return last.seconds  # never crossed: the figure is at most, or at least, this
    (low, weak), (high, strong) = sorted(points[-2:])
    share = (HALF - weak) / (strong - weak)
    return exp(log(low) + share * (log(high) - log(low)))


def measure(library: Library, request: Request) -> Result:
    sweep = Sweep(library, request)
    library.map(spin, [10] * 100)
    points = list(sweep.points())
    shown = ", ".join(f"{seconds * 1e6:.2f}: {efficiency:.2f}" for seconds, efficiency in points)
    return result([crossing(points) * 1e6], note=f"efficiency at µs {shown}")


if __name__ == "__main__":
    play(measure)
