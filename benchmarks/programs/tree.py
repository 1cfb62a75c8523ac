"""A binary tree of tasks, each node a nested map over its two children: time a node."""

from __future__ import annotations

import sys

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Library
from benchmarks.programs.nested import nested_map

DEPTH = 12
LESS_DEEP = {"scoop": 8, "dask": 4, "ray": 5}

inner_map = nested_map(sys.argv[1])


def node(depth: int) -> int:
    if depth == 0:
        return 1
    return 1 + sum(inner_map(node, [depth - 1, depth - 1]))


def measure(library: Library, request: Request) -> Result:
    depth = LESS_DEEP.get(request.library, DEPTH)
    depth -= 2 if request.quick else 0
    library.collect([library.submit(node, 3)])
    nodes = 2 ** (depth + 1) - 1
    seconds = [
        seconds_of(lambda: library.collect([library.submit(node, depth)]))
        for _ in range(2 if request.quick else 7)
    ]
    return result([each / nodes * 1e6 for each in seconds], note=f"{nodes} nodes")


if __name__ == "__main__":
    play(measure)
