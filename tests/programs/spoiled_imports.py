"""A task spoils what imports need on its worker; the features named on the command line go on.

``error``: the task's own error comes home.  The others are used after a map of such tasks.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

import scenarios

from dtm import dtm

SMALL, NAP = 40, 0.02


def spoil(everywhere: bool) -> int:
    """Leave nothing on this worker by which a module could be found; return the worker."""
    time.sleep(0.01)
    if dtm.getWorkerId() or everywhere:
        sys.path[:] = []
        sys.path_importer_cache.clear()
        sys.meta_path[:] = []
    return dtm.getWorkerId()


def fail_elsewhere(_item: int) -> int:
    """Spoil a worker that is not the root, and fail there."""
    if spoil(everywhere=False):
        raise ValueError("its own error")
    return 0


def fail(item: int) -> int:
    """Fail for every tenth item."""
    if item % 10 == 3:
        raise ValueError(item)
    return scenarios.who(item)


def check_error(_workers: int) -> object:
    """Return what a spoiling task raised."""
    try:
        dtm.map(fail_elsewhere, range(100))
    except ValueError as error:
        return error
    return None


def _everybody(workers: int, map_: Callable[..., object]) -> bool:
    """Tell whether a map is run by all the workers, within a while."""
    deadline = time.monotonic() + scenarios.PATIENCE
    met: set[object] = set()
    while len(met) < workers and time.monotonic() < deadline:
        met |= set(map_(scenarios.who, range(8 * workers)))  # type: ignore[call-overload]
    return len(met) == workers


def check_timeout(workers: int) -> object:
    """Use a time limit."""
    return _everybody(workers, dtm.options(timeout=30).map)


def check_on_error(workers: int) -> object:
    """Use replacements of failures."""
    tolerant = dtm.options(on_error=-1)
    return _everybody(workers, tolerant.map) and tolerant.map(fail, range(SMALL)).count(-1)


def check_return_exceptions(workers: int) -> object:
    """Use failures as results."""
    tolerant = dtm.options(return_exceptions=True)
    found = tolerant.map(fail, range(SMALL))
    return _everybody(workers, tolerant.map) and sum(isinstance(one, ValueError) for one in found)


def check_executor(workers: int) -> object:
    """Use an executor."""
    with dtm.Executor() as executor:
        return _everybody(workers, executor.map) and executor.submit(abs, -4).result()


def check_pool(workers: int) -> object:
    """Use a pool."""
    with dtm.Pool() as pool:
        return _everybody(workers, pool.map) and pool.apply(abs, (-4,))


def _visit(_item: int) -> int:
    time.sleep(NAP)
    return len(dtm.map(scenarios.who, range(3)))


def check_nested(_workers: int) -> object:
    """Use calls of tasks."""
    return sum(dtm.map(_visit, range(SMALL)))


def _long(_item: int) -> int:
    time.sleep(0.5)
    return 1


def check_stacks(workers: int) -> object:
    """Ask for the stacks, and go on."""
    call = dtm.map_async(_long, range(4 * workers))
    os.kill(os.getpid(), signal.SIGUSR1)
    return sum(call.get())


def main() -> None:
    """Spoil the workers, then print what comes of each feature that is named."""
    workers, where, *names = sys.argv[1:]
    scenarios.gather(int(workers))
    if names != ["error"]:
        met: set[int] = set()
        while len(met) < int(workers):  # within the time that the test allows
            met |= set(dtm.map(spoil, [where == "everywhere"] * 8 * int(workers)))
    for name in names:
        print(name, globals()[f"check_{name}"](int(workers)), flush=True)


if __name__ == "__main__":
    dtm.start(main)
