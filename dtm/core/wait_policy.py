"""What a task does while it waits for calls: the rules, without the threads that follow them.

A waiting task *runs its own work* on its stack, *looks* for work as an idle worker does, or
*parks*.  :mod:`dtm.run.waiting` says why this cannot deadlock.  All of that rests on two decisions,
which are here so that whoever runs tasks, a real worker or a simulated one, takes the same:
which work is a task's own, and which of the three comes next.

Invariant: who waits for calls of its own is given work of its own.  So on one stack each task is
a child of the one below it, and what stands in the way of a task is its descendant.

Threads: under the worker's lock if ``newest`` is to be true still when it is acted upon; who
finds it gone looks again.

A *prompt* wait has a deadline, or ends with the first of several calls.  It must not be late
because of what its worker does meanwhile, and a body that has begun cannot be interrupted.  So
while a task of a worker waits promptly, the worker begins only what ``may_begin`` allows; all
else is left to others.

Rejected: one function from all facts to a decision.  How deep a stack is costs something to
find out, and only who has work of its own needs to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from dtm.task import Call, Range


class Way(Enum):
    """How a task may wait."""

    INLINE = "run its own work, on top of it"
    LOOK = "look for work, as an idle worker does"
    PARK = "leave the worker to others until a call is complete"


def own_work(calls: Sequence[Call], task: object, rank: int, newest: Range | None) -> Range | None:
    """Return work that a waiting task may run on top of itself, None if there is none.

    Args:
        calls: what it waits for, made by it.
        task: what the calls that it has made have for a parent.
        rank: of this worker.
        newest: the newest work of the deque.
    """
    for call in calls:
        work = call.range
        if work is not None and work.lo < work.hi and work.lo < call.limit:
            return work
    if newest is not None and newest.call.parent is task and newest.call.owner == rank:
        return newest
    return None


def way_to_wait(own: Range | None, *, deep: bool, idle: bool) -> Way:
    """Return what a waiting task does next.

    Args:
        own: what ``own_work`` has found.
        deep: whether the stack is too deep for one more task.
        idle: whether nothing else is ready here, neither work nor a task that has waited.
    """
    if own is not None:
        return Way.PARK if deep else Way.INLINE
    return Way.LOOK if idle else Way.PARK


UNKNOWN_SECONDS = 10.0
UNTAKEN_SECONDS = 0.02
STALE_SECONDS = 1.0


def may_begin(work: Range, left: float, untaken: float) -> bool:
    """Return whether a worker may begin with an item while one of its tasks waits promptly.

    It may if the item takes less than what is left by the estimate for its function; one of which
    nothing is known is taken to last ``UNKNOWN_SECONDS``.  It has to if nobody else can run it,
    or if nobody has taken it since ``untaken``: else workers that all wait promptly could leave
    each other's work undone for ever.

    Args:
        work: what the item belongs to.
        left: seconds that may be spent.
        untaken: what has stood here since then is begun.  For a wait without a deadline that is
            ``UNTAKEN_SECONDS`` ago, time enough for an idle worker to take it, or longer ago if the
            wait is of ``main`` (:meth:`dtm.run.stacks.Stacks.untaken`); for one of a task with a
            deadline, ``STALE_SECONDS`` before the wait began; for one of ``main`` with a deadline
            never, for the other workers come to it when their tasks have ended.
    """
    if work.pinned:
        return True
    profile = work.call.profile
    seconds = profile.seconds if profile.mature else UNKNOWN_SECONDS
    return seconds <= left or work.born <= untaken
