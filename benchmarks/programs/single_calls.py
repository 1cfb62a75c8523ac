"""One call a task: submit many calls of a function that does nothing, then collect."""

from __future__ import annotations

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Library
from benchmarks.programs.work import nothing

CALLS = 100_000
FEWER = {"executor": 5000, "mpi4py": 5000, "joblib": 5000, "scoop": 1000, "dask": 1000, "ray": 2000}


def submit_and_collect(library: Library, count: int) -> None:
    library.collect([library.submit(nothing, number) for number in range(count)])


def measure(library: Library, request: Request) -> Result:
    count = FEWER.get(request.library, CALLS) // (10 if request.quick else 1)
    submit_and_collect(library, 100)
    seconds = [
        seconds_of(submit_and_collect, library, count) for _ in range(2 if request.quick else 5)
    ]
    return result([each / count * 1e6 for each in seconds], note=f"{count} calls")


if __name__ == "__main__":
    play(measure)
