"""Many more workers than cores, tasks that sleep: the fraction of the ideal time."""

from __future__ import annotations

import time

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Library
from benchmarks.programs.work import process_ids

ROUNDS = 10  # tasks for each worker
NAP = 0.1


def measure(library: Library, request: Request) -> Result:
    up = len(process_ids(library, request.workers))
    naps = [NAP] * (request.workers * (2 if request.quick else ROUNDS))
    ideal = NAP * len(naps) / request.workers
    found = [
        ideal / seconds_of(library.map_singly, time.sleep, naps)
        for _ in range(1 if request.quick else 3)
    ]
    return result(found, note=f"{len(naps)} sleeps, {up} workers were up")


if __name__ == "__main__":
    play(measure)
