"""What a worker does at this moment and has done, in few words: for those who watch a run.

``status`` reads it off the frames of the main thread, the deque, the ledger and the counters.  A
run that nobody watches pays nothing for it; one that is watched pays for it once a second.

Invariant: all values are numbers, texts, and tuples of them, and there are at most ``MOST_CALLS``
calls among them, so a status is small whatever the program does.

Threads: whoever reads messages, with the worker's lock held.

Rejected: to count and time in the runner what the view shows (:mod:`dtm.run.observed` does that for
the summary).  A second is long: what runs at its end is a sample that is fair enough.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from time import perf_counter, process_time
from types import CodeType, FrameType
from typing import Any, NamedTuple, Protocol

from dtm.core.messages import Status
from dtm.core.scheduler import Scheduler
from dtm.run.runner import Runner
from dtm.task import Call

MOST_CALLS = 20
MOST_LOOKED_AT = 2000  # calls, and ranges
STRIPS, SINGLE = Runner._strips.__code__, Runner._single.__code__  # noqa: SLF001
_LOOK_FOR_WORK = Runner.look_for_work.__code__
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Worker(Protocol):
    """What this needs of the worker that it tells of."""

    runner: Runner
    scheduler: Scheduler


class View(Protocol):
    """Whoever watches the run, on the root."""

    def heard(self, source: int, message: Status) -> None:
        """Take the status of a worker.  Called with the worker's lock held."""


class Task(NamedTuple):
    """An item under way: ``map(f)``, its index, and for how many seconds."""

    call: str
    item: int
    seconds: float


def task_of(code: CodeType, values: dict[str, Any], now: float) -> Task:
    """Return the item that a frame of ``STRIPS`` or ``SINGLE`` runs, by its local variables."""
    call, began = values["call"], values.get("began", now)
    index = call.base
    if code is STRIPS:
        index = values.get("lo", index) + len(values.get("values", ())) - values.get("before", 0)
    return Task(call.name, index, now - began)


def status(worker: Worker) -> dict[str, Any]:
    """Return what a worker does and has done.

    ``place`` is "runs" or "waits" (a task, named by ``task``: function, item, seconds), "main" or
    "idle".  ``idle`` (with nothing to run) and ``cpu`` are seconds since the run, or the process,
    began; ``memory`` is in bytes; ``queued`` counts items that nobody has started.  ``calls`` has
    for each function and depth the calls under way that this worker owns: name, depth, how many,
    their items, and how many of those are done.  The counters are those of the summary.
    """
    scheduler, runner = worker.scheduler, worker.runner
    now = perf_counter()
    place, tasks, running = main_thread(now)
    if place == "main" and scheduler.rank:
        place = "idle"
    rested, since = runner.rests
    ranges = list(islice(scheduler.deque, MOST_LOOKED_AT))
    queued = [work.left for work in ranges]
    known = [*islice(scheduler.ledger, MOST_LOOKED_AT), *(work.call for work in ranges), *running]
    return {
        "place": place,
        "task": tuple(tasks[0]) if tasks else None,
        "idle": rested + max(0.0, now - since),
        "cpu": process_time(),
        "memory": _memory(),
        "queued": sum(queued),
        "ranges": sum(map(bool, queued)),
        "aside": sum(1 for _ in runner.stacks.aside()),
        "calls": _calls(known, scheduler.rank),
        **scheduler.counters.as_dict(),
    }


def main_thread(now: float) -> tuple[str, list[Task], list[Call]]:
    """Return what the main thread does, the innermost task, and the calls whose items it runs.

    The calls stand in order, the innermost first.
    """
    main = threading.main_thread().ident
    frame = sys._current_frames().get(main or 0)  # noqa: SLF001 - the way to see others' frames
    place = "main"
    tasks: list[Task] = []
    calls = []
    for code, each in _frames(frame):
        if code is _LOOK_FOR_WORK and not tasks:
            place = "idle"
        elif code is STRIPS or code is SINGLE:
            values = each.f_locals
            if not tasks:
                place = "waits" if place == "idle" else "runs"
                tasks.append(task_of(code, values, now))
            calls.append(values["call"])
    return place, tasks, calls


def _frames(frame: FrameType | None) -> Iterator[tuple[CodeType, FrameType]]:
    while frame is not None:
        yield frame.f_code, frame
        frame = frame.f_back


def _calls(calls: Iterable[Call], rank: int) -> tuple[tuple[str, int, int, int, int], ...]:
    """Return those that this worker owns: name, depth, number, items, items that are done."""
    sums: dict[tuple[str, int], list[int]] = {}
    for call in {id(each): each for each in calls}.values():
        if call.owner == rank and call.missing:
            sizes = sums.setdefault((call.name, call.depth), [0, 0, 0])
            for place, value in enumerate((1, call.size, call.done())):
                sizes[place] += value
    least = sorted(sums.items(), key=lambda each: (each[0][1], -each[1][1]))
    return tuple((*key, number, size, done) for key, (number, size, done) in least[:MOST_CALLS])


def _memory() -> int:
    """Return how many bytes of memory this process holds."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        from resource import RUSAGE_SELF, getrusage

        most: int = getrusage(RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024)
