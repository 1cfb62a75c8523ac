"""Efficiency of a map whose items cost about 5 microseconds each."""

from __future__ import annotations

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Library
from benchmarks.programs.work import cost_now, spin, turns_in

SECONDS = 5e-6
TOTAL = 1.0  # seconds of work in a map
FEWER = {"executor": 0.02, "mpi4py": 0.02, "scoop": 0.005, "dask": 0.005}


def measure(library: Library, request: Request) -> Result:
    turns = turns_in(SECONDS)
    total = FEWER.get(request.library, TOTAL) * (0.1 if request.quick else 1.0)
    items = [turns] * max(1, round(total / SECONDS))
    library.map(spin, items[:100])
    efficiencies = []
    for _ in range(2 if request.quick else 7):
        cost = cost_now(library, turns, SECONDS, request.workers)
        wall = seconds_of(library.map, spin, items)
        efficiencies.append(cost * len(items) / (request.workers * wall))
    return result(efficiencies, note=f"{len(items)} items of {cost * 1e6:.2f} µs")


if __name__ == "__main__":
    play(measure)
