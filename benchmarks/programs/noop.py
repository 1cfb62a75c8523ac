"""A map of a function that does nothing over many ints, next to the built-in map.

The two take turns in the same process; the figure is microseconds an item, what
is judged is the ratio of the two.
"""

from __future__ import annotations

from statistics import median

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Library, Serial
from benchmarks.programs.work import nothing

ITEMS = 1_000_000
FEWER = {"executor": 2000, "mpi4py": 2000, "joblib": 100_000, "scoop": 1000, "dask": 1000}
FEWER["ray"] = 100_000


def measure(library: Library, request: Request) -> Result:
    count = FEWER.get(request.library, ITEMS) // (10 if request.quick else 1)
    items = range(count)
    serial = Serial()
    library.map(nothing, range(100))
    alone, mapped = [], []
    for _ in range(2 if request.quick else 7):
        alone.append(seconds_of(serial.map, nothing, items))
        mapped.append(seconds_of(library.map, nothing, items))
    ratios = [there / here for here, there in zip(alone, mapped, strict=True)]
    note = f"{count} items, serial {median(alone) / count * 1e6:.3f} µs"
    return result([seconds / count * 1e6 for seconds in mapped], ratios, note)


if __name__ == "__main__":
    play(measure)
