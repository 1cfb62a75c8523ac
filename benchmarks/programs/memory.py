"""The root's peak memory in a map of a million ints, over that of inputs and results.

``cost=5`` gives each item so many microseconds of work, so that items travel.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.programs.harness import Request, Result, play, result
from benchmarks.programs.libraries import Library
from benchmarks.programs.work import spin, turns_in

ITEMS = 1_000_000
FIRST = 10**6  # no small ints, which CPython shares


def successor(request: int) -> int:
    """Return the next int; the number of turns to spin before stands in its last digits."""
    number, turns = divmod(request, 1000)
    if turns:
        spin(turns)
    return number + 1


def status_bytes(name: str) -> int:
    """Return a field of this process's memory, as the kernel counts it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    message = f"no {name} in /proc/self/status"
    raise RuntimeError(message)


def forget_peak() -> None:
    """Let the kernel count this process's peak from now on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def size_of(numbers: list[int]) -> int:
    return sys.getsizeof(numbers) + sum(map(sys.getsizeof, numbers))


def measure(library: Library, request: Request) -> Result:
    microseconds = float(request.settings.get("cost", "0"))
    last_digits = min(999, turns_in(microseconds * 1e-6)) if microseconds else 0
    library.map(successor, range(FIRST, FIRST + 100))
    count = ITEMS // 10 if request.quick else ITEMS
    forget_peak()
    before = status_bytes("VmRSS")
    numbers = [(FIRST + number) * 1000 + last_digits for number in range(count)]
    results = library.map(successor, numbers)
    peak = status_bytes("VmHWM") - before
    if results[0] != FIRST + 1 or results[-1] != FIRST + count:
        message = "wrong results"
        raise RuntimeError(message)
    needed = size_of(numbers) + size_of(results)
    note = f"peak {peak / 1e6:.0f} MB, inputs and results {needed / 1e6:.0f} MB"
    return result([peak / needed], note=note)


if __name__ == "__main__":
    play(measure)
