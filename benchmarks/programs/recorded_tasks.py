"""What it costs to record tasks of 100 microseconds, and what it costs that one could.

``what=tasks``: the time of a map over 100,000 of them, by what it takes without any cost.
``what=strip``: the processor time of such a task and of what dtm does for it.  It is measured with
tasks that do nothing, each of which is a strip of its own, and it is the least of many maps: a
busy machine does not change it much.
``what=hook``: the places at which a trace is recorded are methods, which a watched worker
extends.  What a call of such a method takes, in percent of a task.
"""

from __future__ import annotations

from time import thread_time
from timeit import repeat

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Library
from benchmarks.programs.work import cost_now, nothing, spin, turns_in

SECONDS = 100e-6
TASKS = 100_000
STRIPS = 2000
MAPS = 40
CALLS = 100_000


class Seam:
    """As :meth:`dtm.run.runner.Runner._strip`, without its body."""

    def strip(self, call: object, context: object, lo: int, hi: int, values: object) -> None:
        """Do nothing."""


def tasks(library: Library, request: Request) -> Result:
    turns = turns_in(SECONDS)
    count = TASKS // (20 if request.quick else 1)
    cost = cost_now(library, turns, SECONDS, request.workers)
    wall = seconds_of(library.map, spin, [turns] * count)
    ideal = cost * count / request.workers
    return result([wall / ideal], note=f"{count} tasks of {cost * 1e6:.1f} µs")


def strip(library: Library, request: Request) -> Result:
    from dtm.core import granularity

    granularity.STRIP_SECONDS = 0.0
    costs = []
    for _ in range(5 if request.quick else MAPS):
        began = thread_time()
        library.map(nothing, range(STRIPS))
        costs.append((thread_time() - began) / STRIPS)
    return result([1e6 * (SECONDS + min(costs))])


def hook(_library: Library, request: Request) -> Result:
    method = Seam().strip
    calls = CALLS // (10 if request.quick else 1)
    taken = repeat(lambda: method(1, 2, 3, 4, 5), number=calls, repeat=20)
    empty = repeat(lambda: None, number=calls, repeat=20)
    return result([100.0 * (min(taken) - min(empty)) / calls / SECONDS])


def measure(library: Library, request: Request) -> Result:
    return {"tasks": tasks, "strip": strip, "hook": hook}[request.settings["what"]](
        library, request
    )


if __name__ == "__main__":
    play(measure)
