"""A simulated program, run for real: bodies sleep or compute as long as its steps say.

``python -m benchmarks.programs.steps KIND SEED`` prints as JSON what it took, and its steps as
they really were: each body notes how long it took, so that the same can be simulated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from random import Random
from time import perf_counter, sleep, thread_time
from typing import Any

from dtm import dtm
from dtm.testing import Inner, Script, exponential, flat, nested

SECONDS = 5e-3
START_SECONDS = 60.0
KINDS = ("map", "skewed list", "tree", "generations", "computing map")


def program(kind: str, workers: int, seed: int) -> Inner:
    """Return a program of one of ``KINDS``."""
    random = Random(seed)
    if kind == "skewed list":
        longest = 30 * SECONDS
        return Script([min(SECONDS * 0.4 * random.paretovariate(1.4), longest)
                       for _ in range(20 * workers)])  # fmt: skip
    if kind == "tree":
        return nested([workers, 4, 4], SECONDS)
    if kind == "generations":
        law = exponential(SECONDS)
        sizes = [int(2.5 * workers)] * 30
        return Script(*([law(random) for _ in range(size)] for size in sizes))
    return flat(20 * workers, exponential(SECONDS), seed)


def take(seconds: float) -> float:
    """Sleep, or compute if the program says so; return how long it took."""
    if COMPUTING:
        until = thread_time() + seconds
        began = thread_time()
        while thread_time() < until:
            pass
        return thread_time() - began
    started = perf_counter()
    sleep(seconds)
    return perf_counter() - started


def body(task: Any) -> Any:
    """Run a task; return its steps as they were."""
    if isinstance(task, float):
        return take(task)
    return {"steps": [each for step in task.steps() for each in perform(step)]}


def perform(step: Any) -> list[Any]:
    return [take(step)] if isinstance(step, float) else [list(dtm.map(body, step))]


def who(_: int) -> int:
    sleep(1e-2)
    return dtm.getWorkerId()


def wait_for_all(workers: int) -> None:
    """Return when all have joined, so that the start is not a part of what is measured."""
    until = perf_counter() + START_SECONDS
    seen: set[int] = set()
    while len(seen) < workers:
        seen.update(dtm.map(who, range(4 * workers)))
        if perf_counter() > until:
            raise RuntimeError(f"only {len(seen)} of {workers} workers run tasks")


def main(kind: str, seed: int) -> None:
    workers = dtm.size()
    wanted = program(kind, workers, seed)
    wait_for_all(workers)
    dtm.map(body, [1e-3] * 4 * workers)
    sleep(0.1)
    began = perf_counter()
    steps = [each for step in wanted.steps() for each in perform(step)]
    seconds = perf_counter() - began
    print(json.dumps({"seconds": seconds, "steps": steps}))


def recorded(steps: Sequence[Any]) -> Script:
    """Return the program whose steps were printed."""
    return Script(*(step if isinstance(step, float) else list(map(_task, step)) for step in steps))


def _task(task: Any) -> Any:
    return task if isinstance(task, float) else recorded(task["steps"])


COMPUTING = len(sys.argv) > 1 and sys.argv[1].startswith("computing")

if __name__ == "__main__":
    dtm.start(main, sys.argv[1], int(sys.argv[2]))
