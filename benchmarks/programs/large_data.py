"""Large data as items, as results, and along with a function.

``what=`` says which:

* ``arrays-in``: 32 arrays of 8 MB are summed up; MB/s.
* ``arrays-both``: the same arrays, each comes back with 1 added; MB/s, of one way.
* ``along``: 1,000 tasks of ``cost`` µs that share an array of ``size`` MB, new each time: seconds
  beyond what the loop takes, or beyond half of that if tasks take 1 ms and more.
* ``first``: the first map whose function and items go by value, over the second.
* ``generations``: 1,000 maps, each with a new array of 20 MB in its closure: by how many MB the
  memory of the worker grows that grows most.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Library
from benchmarks.programs.memory import status_bytes
from benchmarks.programs.work import process_ids, spin, turns_in

ARRAYS = 32
MEGABYTE = 1_000_000
TASKS = 1000


def array_of(megabytes: int, start: int = 0) -> Any:
    return np.arange(start, start + megabytes * MEGABYTE // 8, dtype=np.int64)


def total(array: Any) -> tuple[int, int]:
    return os.getpid(), int(array.sum())


def increased(array: Any) -> tuple[int, Any]:
    return os.getpid(), array + 1


def entry(index: int, array: Any, turns: int) -> int:
    spin(turns)
    return int(array[index])


def memory_of(index: int, array: Any, turns: int) -> tuple[int, int, int]:
    """Look at the array; return the process, its memory in bytes, and an entry."""
    spin(turns)
    used = status_bytes("RssAnon:") + status_bytes("RssShmem:")
    return os.getpid(), used, int(array[index])


def arrays(function: Callable[[Any], tuple[int, Any]], library: Library, rounds: int) -> Result:
    items = [array_of(8, number) for number in range(ARRAYS)]
    rates, pids = [], set()
    for _ in range(rounds):
        found: list[tuple[int, Any]] = []
        seconds = seconds_of(lambda: found.extend(library.map(function, items)))  # noqa: B023
        if [np.sum(value) for _, value in found] != [np.sum(function(each)[1]) for each in items]:
            raise ValueError("wrong results")
        pids |= {pid for pid, _ in found}
        rates.append(ARRAYS * 8 / seconds)
    return result(rates, [median(rates)], f"{len(pids)} processes worked")


def along(library: Library, rounds: int, megabytes: int, microseconds: float) -> Result:
    turns = turns_in(microseconds * 1e-6) if microseconds else 0
    beyond = []
    for number in range(rounds):
        array = array_of(megabytes, number)
        function = partial(entry, array=array, turns=turns)
        serial = seconds_of(lambda: list(map(function, range(TASKS))))  # noqa: B023
        mapped = seconds_of(lambda: library.map(function, range(TASKS)))  # noqa: B023
        beyond.append(mapped - (serial / 2 if microseconds >= 1000 else serial))
    return result(beyond, [median(beyond)])


def first(library: Library, workers: int) -> Result:
    """Each first map has a class and a function of its own, made at run time."""
    ratios = []
    turns = turns_in(1e-3)
    for number in range(7):
        cls = type(f"Individual{number}", (list,), {})
        items = [cls(range(30)) for _ in range(50 * workers)]
        source = f"lambda item, spin=spin: spin({turns}) or len(item) + {number}"
        function = eval(source, {"spin": spin})  # code that nothing knows yet
        took = [seconds_of(library.map, function, items) for _ in range(2)]
        ratios.append(took[0] / took[1])
    return result(ratios, [median(ratios)])


def generations(library: Library, count: int) -> Result:
    turns = turns_in(1e-3)
    begun: dict[int, int] = {}
    grown: dict[int, int] = {}
    for number in range(count):
        array = array_of(20, number)
        reports = library.map(lambda index: memory_of(index, array, turns), range(40))  # noqa: B023
        if number < 10:
            begun |= {pid: used for pid, used, _ in reports}
        grown |= {pid: used - begun.setdefault(pid, used) for pid, used, _ in reports}
        if [value for _, _, value in reports] != list(range(number, number + 40)):
            raise ValueError("wrong results")
    note = f"{len(grown)} processes worked"
    return result([max(grown.values()) / MEGABYTE], note=note)


def measure(library: Library, request: Request) -> Result:
    settings = request.settings
    process_ids(library, request.workers)
    what = settings.get("what", "arrays-in")
    rounds = 2 if request.quick else 7
    if what == "generations":
        return generations(library, 20 if request.quick else 1000)
    if what == "first":
        return first(library, request.workers)
    if what == "along":
        megabytes = int(settings.get("size", "20"))
        return along(library, rounds, megabytes, float(settings.get("cost", "0")))
    return arrays(total if what == "arrays-in" else increased, library, rounds)


if __name__ == "__main__":
    play(measure)
