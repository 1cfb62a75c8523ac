"""Generations of sleeps whose evaluations say when they began and ended, and where.

Prints as JSON, for each generation: when its map began and returned, and of each evaluation its
begin, its end, its process, and the processor time that this had used.  All times are of the
machine's monotonic clock, so the workers have to be on one machine.
"""

from __future__ import annotations

import json
import os
import time
from time import perf_counter

from benchmarks.programs.generations import GENERATIONS, WARM, populations
from dtm import dtm

A_WORKER = 2.5
START_SECONDS = 60.0


def evaluate(seconds: float) -> tuple[float, float, int, float]:
    used = time.process_time()
    begin = perf_counter()
    time.sleep(seconds)
    return begin, perf_counter(), os.getpid(), used


def wait_for_all(workers: int) -> None:
    until = perf_counter() + START_SECONDS
    seen: set[int] = set()
    while len(seen) < workers:
        seen.update(each[2] for each in dtm.map(evaluate, [1e-2] * 4 * workers))
        if perf_counter() > until:
            raise RuntimeError(f"only {len(seen)} of {workers} workers run tasks")


def main() -> None:
    workers = dtm.size()
    wait_for_all(workers)
    found = []
    for number, population in enumerate(populations(WARM + GENERATIONS, round(A_WORKER * workers))):
        began = perf_counter()
        items = dtm.map(evaluate, population)
        if number >= WARM:
            found.append((began, perf_counter(), items))
    print(json.dumps(found))


dtm.start(main)
