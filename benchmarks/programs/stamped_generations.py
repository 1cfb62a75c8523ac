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
from benchmarks.programs.steps import wait_for_all
from dtm import dtm

A_WORKER = 2.5


def evaluate(seconds: float) -> tuple[float, float, int, float]:
    used = time.process_time()
    begin = perf_counter()
    time.sleep(seconds)
    return begin, perf_counter(), os.getpid(), used


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
