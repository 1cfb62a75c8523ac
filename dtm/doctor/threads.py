"""Threads of numeric libraries: one for every core in each worker makes all of them slow.

What the libraries would do is what they say themselves where threadpoolctl is
installed to ask them, else what the variables say that they read.

Looking starts a process; any thread.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from dtm.doctor.conversation import ask
from dtm.doctor.finding import Finding, fine, warning
from dtm.launch.cores import NUMERIC_THREADS, first_number, thread_variables

_ASK = """
import json
try:
    import threadpoolctl
except ImportError:
    print("null")
else:
    try:
        import numpy
        numpy.ones((2, 2)) @ numpy.ones((2, 2))
    except ImportError:
        pass
    pools = threadpoolctl.threadpool_info()
    print(json.dumps([[pool["internal_api"], pool["num_threads"]] for pool in pools]))
"""


@dataclass(frozen=True, slots=True)
class Threads:
    """What one worker's libraries would do.

    Attributes:
        variables: those of the variables that will be set for a worker.
        pools: of each library that NumPy brings its name and its number of threads; None
            where that cannot be known.
        root_differs: whether libraries that the root has loaded by the start are beyond dtm.
    """

    variables: Mapping[str, str]
    pools: tuple[tuple[str, int], ...] | None
    root_differs: bool = False


def look(set_for_workers: bool, seconds: float) -> Threads:
    """Look what libraries do in a worker; whether dtm sets the variables for it, has to be said."""
    variables = {name: os.environ[name] for name in NUMERIC_THREADS if os.environ.get(name)}
    if set_for_workers:
        variables = thread_variables(os.environ)
    answer = ask([sys.executable, "-c", _ASK], seconds, {**os.environ, **variables})
    try:
        pools = json.loads(answer.output)
    except json.JSONDecodeError:
        pools = None
    beyond = pools is None and set_for_workers and not os.environ.get("OMP_NUM_THREADS")
    return Threads(variables, None if pools is None else tuple((a, n) for a, n in pools), beyond)


def judge(look: Threads, workers: int, usable: int, each: int) -> list[Finding]:
    """Judge what the threads of workers do to a machine.

    ``usable`` is how many cores they all may use, ``each`` how many one of them may.
    """
    threads, why = _threads(look, each)
    if look.root_differs and threads < each:
        why += (
            f"; {each} in the root for what it loads before dtm.start, unless threadpoolctl is "
            "installed or OMP_NUM_THREADS set"
        )
    if workers * threads <= max(usable, workers):
        return [fine("threads of libraries", f"{threads} a worker ({why})", threads=threads)]
    return [
        warning(
            "threads of libraries",
            f"{workers} workers with {threads} threads each on {usable} cores ({why})",
            f"export OMP_NUM_THREADS={max(usable // workers, 1)} before the start, and the same "
            "for what else is set",
            threads=threads,
        )
    ]


def _threads(look: Threads, each: int) -> tuple[int, str]:
    """Return how many threads a worker would start, and how that is known."""
    if look.pools:
        name, most = max(look.pools, key=lambda pool: pool[1])
        return most, f"{name} says so"
    said = {name: first_number(value) for name, value in look.variables.items()}
    numbers = {name: number for name, number in said.items() if number}
    if not numbers:
        return each, "no OMP_NUM_THREADS or the like is set"
    name = max(numbers, key=lambda name: numbers[name])
    return numbers[name], f"{name}={numbers[name]}"
