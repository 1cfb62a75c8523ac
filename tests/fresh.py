"""The seeds of this run's simulations: fresh ones each time, or those that are asked for.

``DTM_SIMULATION_FIRST_SEED`` and ``DTM_SIMULATION_SEEDS`` say which.  A seed that does not end
is given up after ``MOST_SECONDS`` of processor time, so that it can be named.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterable

SEEDS = int(os.environ.get("DTM_SIMULATION_SEEDS", "1000"))
FIRST_SEED = int(os.environ.get("DTM_SIMULATION_FIRST_SEED", secrets.randbelow(1 << 40)))
REPLAY = (
    "DTM_SIMULATION_FIRST_SEED={} DTM_SIMULATION_SEEDS={} "
    "python -m pytest tests/test_simulation.py -k every_law"
)

MOST_SECONDS = 60.0  # a world takes some hundredths of a second
MOST_HANGING = 2


class DoesNotEndError(Exception):
    """A seed took more processor time than any should."""


def failures(
    seeds: Iterable[int], run: Callable[[int], object], most: float = MOST_SECONDS
) -> list[str]:
    """Run seeds; return, for those that fail or do not end, how to run them again and the error."""
    failed: list[str] = []
    hanging = 0
    before = signal.signal(signal.SIGVTALRM, _give_up)
    try:
        for seed in seeds:
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, most)
                run(seed)
            except Exception as error:
                hanging += isinstance(error, DoesNotEndError)
                failed.append(f"seed {seed}: {REPLAY.format(seed, 1)}\n  {error!r}")
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
            if hanging >= MOST_HANGING:
                break
    finally:
        signal.signal(signal.SIGVTALRM, before)
    return failed


def _give_up(*_: object) -> None:
    raise DoesNotEndError("it does not end")
