"""The Fibonacci numbers by their definition, both calls spawned: time a call."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Library

NUMBER = 20
SMALLER = {"scoop": 14, "ray": 8}


def fib_dtm(n: int) -> int:
    if n < 2:
        return n
    one, other = dtm.apply_async(fib_dtm, n - 1), dtm.apply_async(fib_dtm, n - 2)
    value: int = one.get() + other.get()
    return value


def fib_scoop(n: int) -> int:
    if n < 2:
        return n
    one, other = futures.submit(fib_scoop, n - 1), futures.submit(fib_scoop, n - 2)
    value: int = one.result() + other.result()
    return value


def fib_ray(n: int) -> int:
    import ray

    from benchmarks.programs.libraries import remote_of

    if n < 2:
        return n
    spawn = remote_of(fib_ray)
    return sum(ray.get([spawn.remote(n - 1), spawn.remote(n - 2)]))


if sys.argv[1] == "dtm":
    from dtm import dtm
elif sys.argv[1] == "scoop":
    from scoop import futures

SPAWNERS: dict[str, Any] = {"dtm": fib_dtm, "scoop": fib_scoop, "ray": fib_ray}


def calls_of(n: int) -> int:
    """Return how many calls it takes."""
    fewer, calls = 1, 1
    for _ in range(n - 1):
        fewer, calls = calls, calls + fewer + 1
    return calls


def measure(library: Library, request: Request) -> Result:
    spawner = SPAWNERS[request.library]
    number = SMALLER.get(request.library, NUMBER) - (4 if request.quick else 0)
    library.collect([library.submit(spawner, 3)])
    seconds = [
        seconds_of(lambda: library.collect([library.submit(spawner, number)]))
        for _ in range(2 if request.quick else 7)
    ]
    calls = calls_of(number)
    return result([each / calls * 1e6 for each in seconds], note=f"fib({number}), {calls} calls")


if __name__ == "__main__":
    play(measure)
