"""What it costs to call dtm by the interfaces of others: ``what=submit``, ``pool`` or ``joblib``.

* ``submit``: many calls handed to an executor, then their results, in microseconds a call;
* ``pool``: ``dtm.Pool().map`` over ``dtm.map``, of items that do nothing and of items of 5 µs: the
  worse of the two ratios;
* ``joblib``: ``Parallel`` over calls of 10 µs each, in microseconds a call.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Executor, Joblib, Library
from benchmarks.programs.single_calls import CALLS, FEWER, submit_and_collect
from benchmarks.programs.work import nothing, spin, turns_in

ITEMS = 1_000_000
PARALLEL_CALLS = 20_000
ROUNDS = 5


def submit(library: Library, request: Request) -> Result:
    count = FEWER.get(request.library, CALLS) // (10 if request.quick else 1)
    if request.library == "dtm":
        from dtm import dtm

        library = Executor(dtm.Executor())
    submit_and_collect(library, 100)
    seconds = [seconds_of(submit_and_collect, library, count) for _ in range(ROUNDS)]
    return result([each / count * 1e6 for each in seconds], note=f"{count} calls")


def pool(library: Library, request: Request) -> Result:
    from dtm import dtm

    ratios = []
    count = ITEMS // (10 if request.quick else 1)
    pool_map = dtm.Pool().map
    for function, items in ((nothing, range(count)), (spin, [turns_in(5e-6)] * (count // 20))):
        library.map(function, items)
        pairs = [
            (seconds_of(pool_map, function, items), seconds_of(library.map, function, items))
            for _ in range(ROUNDS)
        ]
        ratios.append(min(ours for ours, _ in pairs) / min(plain for _, plain in pairs))
    return result([max(ratios)], note=" and ".join(f"{each:.3f}" for each in ratios))


def joblib(library: Library, request: Request) -> Result:
    context: AbstractContextManager[Any] = nullcontext()
    if request.library == "dtm":
        import joblib as theirs

        import dtm.joblib

        dtm.joblib.register()
        context = theirs.parallel_config(backend="dtm")
    with context:
        if request.library == "dtm":
            library = Joblib(request.workers)
        count = PARALLEL_CALLS // (10 if request.quick else 1)
        turns = turns_in(1e-5)
        library.map(spin, [turns] * 100)
        seconds = [seconds_of(library.map, spin, [turns] * count) for _ in range(ROUNDS)]
    return result([each / count * 1e6 for each in seconds], note=f"{count} calls")


def measure(library: Library, request: Request) -> Result:
    ways = {"submit": submit, "pool": pool, "joblib": joblib}
    return ways[request.settings["what"]](library, request)


if __name__ == "__main__":
    play(measure)
