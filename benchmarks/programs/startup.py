"""The overview's program: from the start of the process to its end, seen from outside."""

from __future__ import annotations

from benchmarks.programs.harness import Request, Result, play, result
from benchmarks.programs.libraries import Library


def op(x: int) -> float:
    return x + 1.0 / x


def measure(library: Library, _request: Request) -> Result:
    return result([float(len(library.map(op, range(1, 1000))))])


if __name__ == "__main__":
    play(measure)
