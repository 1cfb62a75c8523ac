"""A CPU-bound task while dtm's load-balancer thread is alive: milliseconds a piece.

One task runs the same loop many times without ever coming back, and times each
turn.  Run without a library and under dtm, the two are compared.
"""

from __future__ import annotations

import time

from benchmarks.programs.harness import Request, Result, play, result
from benchmarks.programs.libraries import Library
from benchmarks.programs.work import process_ids, spin

TURNS = 1_500_000  # some tens of milliseconds


def pieces(count: int) -> list[float]:
    """Return the milliseconds which each piece took."""
    taken = []
    for _ in range(count):
        begin = time.perf_counter()
        spin(TURNS)
        taken.append((time.perf_counter() - begin) * 1e3)
    return taken


def measure(library: Library, request: Request) -> Result:
    if request.library != "serial":
        process_ids(library, request.workers)
    (taken,) = library.collect([library.submit(pieces, 10 if request.quick else 80)])
    return result(taken)


if __name__ == "__main__":
    play(measure)
