"""The tasks: loops of known length, and what they cost in processor time.

Wall time is no measure of work on a machine that others share, and the speed of
a core drifts.  So a loop's cost is measured while the benchmark runs, in the
processes that run it, as processor time of the thread that turns it.
"""

from __future__ import annotations

import os
import time
from itertools import repeat
from statistics import fmean

from benchmarks.programs.libraries import Library, Serial

CALIBRATION = 0.03  # seconds of processor time that each calibrating task takes


def nothing(_item: object) -> None:
    """Cost what a call costs."""


def spin(turns: int) -> None:
    """Keep a core busy for so many turns of an empty loop."""
    for _ in range(turns):
        pass


def spin_timed(turns: int) -> float:
    """Spin; return the seconds of processor time that it took."""
    begin = time.thread_time()
    spin(turns)
    return time.thread_time() - begin


def cost_of_calls(request: tuple[int, int]) -> float:
    """Return the seconds of processor time of one of ``count`` calls of ``spin(turns)``."""
    turns, count = request
    begin = time.thread_time()
    for _ in map(spin, repeat(turns, count)):
        pass
    return (time.thread_time() - begin) / count


def cost_now(library: Library, turns: int, guess: float, workers: int) -> float:
    """Measure the cost of one ``spin(turns)``, on all workers at once, by the library itself.

    ``guess`` is roughly what it costs: it says how often to call.
    """
    count = max(1, round(CALIBRATION / guess))
    return fmean(library.map_singly(cost_of_calls, [(turns, count)] * workers))


def turns_in(seconds: float) -> int:
    """Return how many turns take about so long on this core, now.

    A turn costs more in a long loop than in a short one (small ints are shared,
    and the interpreter specialises what has run a while), hence the rounds.
    """
    turns = max(1, round(seconds * 5e7))
    for _ in range(4):
        count = max(2, round(CALIBRATION / 4 / seconds))
        turns = max(1, round(turns * seconds / cost_of_calls((turns, count))))
    return turns


def process_id(seconds: float) -> int:
    """Sleep, so that one worker cannot answer for all; return the process id."""
    time.sleep(seconds)
    return os.getpid()


def process_ids(library: Library, workers: int, patience: float = 60.0) -> set[int]:
    """Wait until so many processes run tasks, and return their ids."""
    if isinstance(library, Serial):  # there is only one
        return {os.getpid()}
    found: set[int] = set()
    give_up = time.monotonic() + patience
    while len(found) < workers and time.monotonic() < give_up:
        found |= set(library.map_singly(process_id, [0.05] * (2 * workers)))
    return found
