"""The clocks that threads see while a schedule is explored, and what takes time.

They stand for those of :mod:`time`.  Virtual time passes a little with each look at a clock, with
``compute``, and in jumps while all threads wait.  Processor time is what a thread, or a process,
has spent itself: looks and computations.  If it were taken from the one clock of all, whoever
measures what something costs would be charged with the naps of others.

Threads: the controlled ones.
"""

from __future__ import annotations

from dtm.testing.choices import TICK_SECONDS
from dtm.testing.controller import Controller


class Stage:
    """Where the controller of the schedule under way is found."""

    controller: Controller


stage = Stage()


def now() -> float:
    """Stand for the clocks of :mod:`time`."""
    return stage.controller.now()


def thread_time() -> float:
    """Stand for ``time.thread_time``: what others do, and sleep, is not counted."""
    now()
    _work(TICK_SECONDS)
    return stage.controller.current.worked


def process_time() -> float:
    """Stand for ``time.process_time``."""
    now()
    _work(TICK_SECONDS)
    return stage.controller.current.process.worked


def _work(seconds: float) -> None:
    actor = stage.controller.current
    actor.worked += seconds
    actor.process.worked += seconds


def sleep(seconds: float) -> None:
    """Stand for ``time.sleep``."""
    controller = stage.controller
    controller.point()
    controller.sleep(seconds)


def compute(seconds: float) -> None:
    """Take virtual time as a computation does: the thread could go on all the while."""
    controller = stage.controller
    _work(seconds)
    controller.clock += seconds
    controller.now()
    controller.point()


def sched_yield() -> None:
    """Stand for ``os.sched_yield``; it takes some time, or who spins would never see any pass."""
    controller = stage.controller
    controller.clock += 5e-6
    controller.now()
    controller.give_way()
