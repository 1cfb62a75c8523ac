"""400 tasks of Pareto-distributed length, one near the end a tenth of the whole.

Efficiency is the best possible time, max(total / workers, longest), over the wall
time, from the processor time that each task took.
"""

from __future__ import annotations

import random
from time import perf_counter

from benchmarks.programs.harness import Request, Result, play, result
from benchmarks.programs.libraries import Library
from benchmarks.programs.work import spin_timed, turns_in

TASKS = 400
GIANT = 380  # the number of the task that is a tenth of the total
MEAN = 5e-3
ALPHA, CAP = 1.5, 10.0


def lengths(seed: int, mean: float) -> list[float]:
    """Draw the seconds of each task."""
    source = random.Random(seed)
    drawn = [min(source.paretovariate(ALPHA), CAP) for _ in range(TASKS)]
    drawn[GIANT] = 0.0
    scale = mean * (TASKS - 1) / sum(drawn)
    scaled = [each * scale for each in drawn]
    scaled[GIANT] = sum(scaled) / 9
    return scaled


def measure(library: Library, request: Request) -> Result:
    mean = MEAN / 10 if request.quick else MEAN
    efficiencies = []
    library.map(spin_timed, [10] * 10)
    for seed in range(1 if request.quick else 5):
        turns_a_second = turns_in(0.02) / 0.02
        items = [round(seconds * turns_a_second) for seconds in lengths(seed, mean)]
        begin = perf_counter()
        costs = library.map(spin_timed, items)
        wall = perf_counter() - begin
        efficiencies.append(max(sum(costs) / request.workers, *costs) / wall)
    return result(efficiencies)


if __name__ == "__main__":
    play(measure)
