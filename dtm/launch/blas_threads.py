"""The threads of numeric libraries: one in each worker, unless the user says another number.

Each worker has a core to itself: a library that starts a thread for every core of
the machine in each of them makes all of them slow.  The libraries read variables when
they are loaded, each its own.  A user who sets one of these means all of them: a worker's
NumPy may come with another library than the one that they had in mind.

Workers find the variables in their environment.  The root is there already: what it
loads during the run finds them too, and what it has loaded before is told, if
threadpoolctl is installed.  It gets back what it had when the run is over.

Rejected: telling the libraries in every worker too.  To load threadpoolctl takes longer
than all of dtm, and variables do.

Called in the main thread, outside of ``main``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

NUMERIC_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)
_READ_BY = {  # what threadpoolctl calls the libraries
    "openmp": "OMP_NUM_THREADS",
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
}


def thread_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a worker: those that the user has set, the others likewise."""
    given = {name: environ[name] for name in NUMERIC_THREADS if environ.get(name)}
    numbers = [number for text in given.values() if (number := first_number(text))]
    return {**dict.fromkeys(NUMERIC_THREADS, str(numbers[0]) if numbers else "1"), **given}


def first_number(text: str) -> int | None:
    """Return the number of threads that a variable says; OpenMP's has one for each depth."""
    first = text.partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and int(first) else None


@contextmanager
def as_in_workers() -> Iterator[None]:
    """Let libraries of this process start as many threads as those of workers, meanwhile."""
    wanted = thread_variables(os.environ)
    added = {name: value for name, value in wanted.items() if not os.environ.get(name)}
    os.environ.update(added)
    give_back = _tell_loaded(wanted) if "numpy" in sys.modules else []
    try:
        yield
    finally:
        for name, value in added.items():
            if os.environ.get(name) == value:
                del os.environ[name]
        for act in give_back:
            act()


def _tell_loaded(wanted: Mapping[str, str]) -> list[Callable[[], Any]]:
    """Make libraries that have more threads take fewer; return what undoes that."""
    try:
        controller = import_module("threadpoolctl").ThreadpoolController
    except ImportError:
        return []
    undo: list[Callable[[], Any]] = []
    for library in controller().lib_controllers:
        number = first_number(wanted.get(_READ_BY.get(library.internal_api, ""), ""))
        before = library.num_threads
        if number is not None and before is not None and before > number:
            library.set_num_threads(number)
            undo.append(partial(library.set_num_threads, before))
    return undo
