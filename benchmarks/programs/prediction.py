"""What ``dtm predict`` takes for 16,384 workers from a million tasks, and how much memory."""

from __future__ import annotations

import resource
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.programs.harness import Request, Result, play, result
from benchmarks.programs.libraries import Library

TASKS, FEWER_TASKS = 1_000_000, 10_000
WORKERS, FEWER_WORKERS = 16_384, 256
RECORDED_WORKERS = 8
SECONDS = 1e-2


def measure(_library: Library, request: Request) -> Result:
    from benchmarks.traces import write_map
    from dtm.trace.prediction import predict
    from dtm.trace.recorded import read_run

    tasks, workers = (FEWER_TASKS, FEWER_WORKERS) if request.quick else (TASKS, WORKERS)
    with TemporaryDirectory() as directory:
        write_map(directory, RECORDED_WORKERS, tasks, SECONDS)
        began = perf_counter()
        (found,) = predict(read_run(directory), [workers])
        taken = perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    note = f"{memory:.0f} MiB; predicted efficiency {found.efficiency:.0%}"
    return result([taken], note=note)


if __name__ == "__main__":
    play(measure)
