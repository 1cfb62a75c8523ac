"""The cores of this machine: how many a run may use, and how many threads a worker may start.

A run of this machine has by default a worker for each core that this process may use, but not
more workers than slots that a batch system has granted, if its job is on this machine alone: not
every system confines a job to its cores.  A core may be used if it is in the affinity mask, and
within the quota of each control group above this process (containers and batch systems set
one); a fraction of a core counts as one, since a worker on it still helps.

Each worker has a core to itself, but a numeric library starts a thread for every core of the
machine, in each worker.  So workers find variables in their environment that make it one thread;
each library reads its own variable when it is loaded.  A user who sets one of the variables means
all of them: the NumPy of a worker may come with another library than the user had in mind.  The
root has started already: what it loads during the run finds the variables too, and a library that
is loaded is told through threadpoolctl, if that is installed.  After the run the root has its
threads back.

Read-only, any thread; but ``as_in_workers`` in the main thread, outside of ``main``.

Rejected: to tell the libraries by threadpoolctl in the workers too.  Importing it takes longer than
importing all of dtm.  Also: to refuse a run of this machine where the allocation is not
understood; the run does not need it, and a line on stderr says so.
"""

# pathlib takes longer to import than all of dtm.

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from math import ceil
from typing import TYPE_CHECKING, Any

from dtm.errors import OptionError

if TYPE_CHECKING:
    from dtm.launch.allocation import Allocation

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
# Without variables such as these there is no batch system, and nothing need be imported to know.
_SIGNS = ("SLURM_", "LSB_", "OAR_", "PE_HOSTFILE", "SGE_", "PBS_", "FLUX_")


def default_workers(environ: Mapping[str, str]) -> int:
    """Return how many workers a run of this machine has by default; may warn on stderr."""
    cores = available_cores()
    try:
        found = granted(environ)
    except OptionError as error:
        sys.stderr.write(f"dtm: {error}; so a worker for each core is taken\n")
        return cores
    if found is None or found.is_beyond_here:
        return cores
    return min(cores, sum(host.slots for host in found.hosts))


def granted(environ: Mapping[str, str]) -> Allocation | None:
    """Return what a batch system has granted, None if there is none.

    Raises:
        OptionError: what the batch system says is not understood.
    """
    if not any(name.startswith(_SIGNS) for name in environ):
        return None
    from dtm.launch.allocation import allocation

    return allocation(environ)


def available_cores(root: str = "/") -> int:
    """Return how many cores this process may use, at least 1.

    ``root`` is where ``proc`` and ``sys`` are found.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    for quota in _quotas(root):
        cores = min(cores, ceil(quota))
    return max(cores, 1)


def _quotas(root: str) -> list[float]:
    """Return the quotas of all control groups that hold this process, in cores."""
    quotas: list[float] = []
    for line in _read(root, "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for group in _ancestry(path):
            if not controllers:
                quotas += _quota_2(root, f"sys/fs/cgroup{group}")
            elif "cpu" in controllers.split(","):
                quotas += _quota_1(root, f"sys/fs/cgroup/{controllers}{group}")
                quotas += _quota_1(root, f"sys/fs/cgroup/cpu{group}")
    return quotas


def _ancestry(path: str) -> list[str]:
    """Return a group and those above it; in a container only some of them are visible."""
    parts = path.strip("/").split("/")
    return ["".join(f"/{part}" for part in parts[:length]) for length in range(len(parts) + 1)]


def _quota_2(root: str, group: str) -> list[float]:
    limit, _, period = _read(root, f"{group}/cpu.max").partition(" ")
    return [int(limit) / int(period)] if limit.isdigit() else []


def _quota_1(root: str, group: str) -> list[float]:
    limit = _read(root, f"{group}/cpu.cfs_quota_us").strip()
    period = _read(root, f"{group}/cpu.cfs_period_us").strip()
    return [int(limit) / int(period)] if limit.isdigit() and period.isdigit() else []


def _read(root: str, path: str) -> str:
    """Return what a file says, nothing if it is not there."""
    with suppress(OSError), open(os.path.join(root, path), encoding="ascii") as file:
        return file.read()
    return ""


# Threads of numeric libraries.


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
