"""Unbalanced tree search: efficiency against the sequential program.

dtm, SCOOP, Dask and Ray run the plain nested recursion of ``examples/uts.py``.
Libraries whose tasks cannot make tasks are fed by hand: a task walks its share of
nodes and returns those that it found and did not walk, and the root sends them
out again.  ``grain=N`` is the number of nodes that a task walks.
"""

from __future__ import annotations

import sys
from math import inf
from queue import SimpleQueue
from typing import Any

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Executor, Library, Pool
from benchmarks.programs.nested import NESTING, nested_map
from examples.uts import Node, Shape, walk

SHAPE = Shape(branching=4.0, depth=9, seed=19)
SMALL = SHAPE._replace(depth=7)

inner_map = nested_map(sys.argv[1]) if sys.argv[1] in NESTING else None

Share = tuple[list[Node], Shape, int]


def halves_of(found: list[Node]) -> list[list[Node]]:
    middle = len(found) // 2
    return [half for half in (found[:middle], found[middle:]) if half]


def search(share: Share) -> int:
    """Count by nested recursion."""
    found, shape, grain = share
    counted = walk(found, shape, grain)
    if not found:
        return counted
    shares = [(half, shape, grain) for half in halves_of(found)]
    return counted + sum(inner_map(search, shares))  # type: ignore[misc]


def walk_once(share: Share) -> tuple[int, list[list[Node]]]:
    """Count one share; return also what was found and not counted, in two halves."""
    found, shape, grain = share
    return walk(found, shape, grain), halves_of(found)


def search_by_hand(library: Library, shape: Shape, grain: int) -> int:
    """Count by sending out tasks from the root as their parents come back."""
    arrived: SimpleQueue[Any] = SimpleQueue()

    def send(found: list[Node]) -> None:
        share = (found, shape, grain)
        if isinstance(library, Pool):
            library.pool.apply_async(walk_once, (share,), callback=arrived.put)
        elif isinstance(library, Executor):
            future = library.executor.submit(walk_once, share)
            future.add_done_callback(lambda done: arrived.put(done.result()))

    send([shape.root()])
    counted, out = 0, 1
    while out:
        more, halves = arrived.get(timeout=60)
        counted += more
        out += len(halves) - 1
        for half in halves:
            send(half)
    return counted


def search_all(library: Library, request: Request, shape: Shape, grain: int) -> int:
    if request.library not in NESTING:
        return search_by_hand(library, shape, grain)
    (counted,) = library.collect([library.submit(search, ([shape.root()], shape, grain))])
    return int(counted)


def measure(library: Library, request: Request) -> Result:
    shape = SMALL if request.quick else SHAPE
    grain = int(request.settings.get("grain", "1000"))
    counts: list[float] = []
    search_all(library, request, SMALL, grain)
    efficiencies = []
    for _ in range(1 if request.quick else 3):
        alone = seconds_of(lambda: counts.append(walk([shape.root()], shape, inf)))
        shared = seconds_of(lambda: counts.append(search_all(library, request, shape, grain)))
        efficiencies.append(alone / (request.workers * shared))
    if len(set(counts)) != 1:
        message = f"the counts differ: {counts}"
        raise RuntimeError(message)
    return result(efficiencies, note=f"{counts[0]} nodes")


if __name__ == "__main__":
    play(measure)
