"""Many short maps with a barrier after each, as an evolutionary algorithm makes them.

An evaluation takes an exponentially distributed time, 5 ms on the average. The value is the time
of a greedy list schedule (whoever is free takes the next of the list) of the durations that were
really taken, over the real time, of all generations together. The greedy schedule takes the
evaluations in their order and dtm does not, so one of them is luckier with some populations:
without any cost dtm would reach 0.93 to 1.05 with 50 of them, and needs hundreds to tell.
``a-worker`` is how many evaluations a worker a generation has. An evaluation sleeps, so workers
may outnumber cores; with ``what=spin`` it computes, and a duration is processor time.

The note has what else a generation cost a worker: processor time beyond that of the evaluations,
and, of dtm, messages sent.  Each evaluation says what its process had used and sent when it began,
so nothing is added to what is measured.
"""

from __future__ import annotations

import os
import random
import sys
import time
from heapq import heapreplace
from time import perf_counter
from typing import NamedTuple

from benchmarks.programs.harness import Request, Result, play, result
from benchmarks.programs.libraries import Library
from benchmarks.programs.work import process_ids, spin, turns_in

MEAN = 5e-3
GENERATIONS = 400  # of 50, which are 0.02 better or worse by the luck of the draw alone
WARM = 5  # generations before those that count
SEED = 1


class Evaluation(NamedTuple):
    """What one evaluation took, and what its process had done until then."""

    seconds: float
    process: int
    used: float
    messages: int


def begun() -> tuple[int, float, int]:
    """Return this process, the processor time that it has used, and the messages it has sent."""
    runtime = sys.modules.get("dtm.run.runtime")
    run = runtime.current if runtime is not None else None
    sent = 0 if run is None else run.worker.scheduler.counters.messages
    return os.getpid(), time.process_time(), sent


def sleep_timed(seconds: float) -> Evaluation:
    """Sleep."""
    before = begun()
    begin = perf_counter()
    time.sleep(seconds)
    return Evaluation(perf_counter() - begin, *before)


def spin_timed(turns: int) -> Evaluation:
    """Spin; its seconds are processor time."""
    before = begun()
    begin = time.thread_time()
    spin(turns)
    return Evaluation(time.thread_time() - begin, *before)


def populations(count: int, size: int) -> list[list[float]]:
    """Draw the seconds of each evaluation of so many generations."""
    source = random.Random(SEED)
    return [[source.expovariate(1 / MEAN) for _ in range(size)] for _ in range(count)]


def greedy(durations: list[float], workers: int) -> float:
    """Return when the last item ends if whoever is free takes the next one."""
    free = [0.0] * workers
    for seconds in durations:
        heapreplace(free, free[0] + seconds)
    return max(free)


def costs(generations: list[list[Evaluation]], spinning: bool) -> str:
    """Return what a generation cost a worker besides."""
    first: dict[int, tuple[int, Evaluation]] = {}
    last: dict[int, tuple[int, Evaluation]] = {}
    for number, generation in enumerate(generations):
        for each in generation:
            first.setdefault(each.process, (number, each))
            last[each.process] = number, each
    passed = sum(last[each][0] - first[each][0] for each in first) or 1
    used = sum(last[each][1].used - first[each][1].used for each in first)
    if spinning:
        used -= sum(each.seconds for generation in generations for each in generation)
    sent = sum(last[each][1].messages - first[each][1].messages for each in first)
    text = f"{used / passed * 1e6:.0f} µs of processor time"
    return f"{text}, {sent / passed:.1f} messages" if sent else text


def measure(library: Library, request: Request) -> Result:
    workers = request.workers
    spinning = request.settings.get("what") == "spin"
    size = round(float(request.settings.get("a-worker", "2.5")) * workers)
    up = len(process_ids(library, workers))
    turns_a_second = turns_in(0.02) / 0.02 if spinning else 0.0
    function = spin_timed if spinning else sleep_timed
    at_once = min(workers, len(os.sched_getaffinity(0))) if spinning else workers
    count = 5 if request.quick else GENERATIONS
    found, ideal, real = [], 0.0, 0.0
    for number, population in enumerate(populations(WARM + count, size)):
        items = [round(each * turns_a_second) for each in population] if spinning else population
        begin = perf_counter()
        evaluations = library.map_singly(function, items)
        seconds = perf_counter() - begin
        if number >= WARM:
            found.append(evaluations)
            real += seconds
            ideal += greedy([each.seconds for each in evaluations], at_once)
    note = f"a worker and generation: {costs(found, spinning)}; {up} workers were up"
    return result([ideal / real], note=note)


if __name__ == "__main__":
    play(measure)
