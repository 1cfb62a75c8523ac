"""How soon an idle worker gets work out of one that is inside a pure-Python loop.

A task maps over two items.  The first is a loop that never looks up; the second
only notes when it began, and can begin soon only on the other worker.  The clock
is the machine's monotonic one, the same for all its processes.  What is judged
is the 99th percentile of the milliseconds between the two beginnings.
"""

from __future__ import annotations

import os
import time
from statistics import median, quantiles
from typing import NamedTuple

from benchmarks.programs.harness import Request, Result, play, result
from benchmarks.programs.libraries import Library
from benchmarks.programs.nested import nested_map
from benchmarks.programs.work import process_ids, spin, turns_in

LOOP = 0.03  # seconds of a short loop
LONG_LOOP = 1.0


class Begun(NamedTuple):
    """When and where an item began."""

    at: float
    process: int


def begin(turns: int) -> Begun:
    begun = Begun(time.monotonic(), os.getpid())
    spin(turns)
    return begun


def latency(request: tuple[str, int]) -> tuple[float, bool]:
    """Return the seconds between the two beginnings, and if the second was stolen."""
    library, turns = request
    first, second = nested_map(library)(begin, [turns, 0])
    return second.at - first.at, second.process != first.process


def measure(library: Library, request: Request) -> Result:
    process_ids(library, request.workers)
    loops = [LOOP] * (20 if request.quick else 200) + [LONG_LOOP] * (0 if request.quick else 5)
    turns_a_second = turns_in(LOOP) / LOOP
    found = []
    for seconds in loops:
        task = (request.library, round(seconds * turns_a_second))
        found.extend(library.collect([library.submit(latency, task)]))
        time.sleep(0.005)  # let the other worker fall idle, as it would be
    times = [seconds * 1e3 for seconds, _ in found]
    stolen = sum(taken for _, taken in found)
    worst = quantiles(times, n=100, method="inclusive")[98]
    note = f"p50 {median(times):.2f} ms, p99 {worst:.2f} ms, {stolen} of {len(found)} stolen"
    return result(times, [worst], note)


if __name__ == "__main__":
    play(measure)
