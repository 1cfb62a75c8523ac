"""What leaves for another worker: whether it can be sent, and what sending it costs.

A part of a call that cannot be sent goes back to the deque and is *pinned*: it runs where it was
called, and stderr says so once for a function and once for what it is applied to, however many
calls follow.  Costs are measured by pickling a sample (:mod:`dtm.wire.cost`).  No item runs
meanwhile, and the age of a range speaks for its items: it does not grow by that.

Shared attributes: ``_told``, under the worker's lock.

Threads: any, with the worker's lock held.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from time import perf_counter, thread_time
from typing import Any, TypeVar

from dtm.core.messages import Grant, Load
from dtm.errors import Unsendable
from dtm.run.late_globals import late_globals
from dtm.task import Call, Range, Same
from dtm.wire.codec import Wire
from dtm.wire.cost import may_take, shipping_cost

MOST_TOLD = 1024

Cost = TypeVar("Cost", float, float | None)


def _beside_its_age(
    appraise: Callable[[Shipping, Range, float], Cost],
) -> Callable[[Shipping, Range, float], Cost]:
    @wraps(appraise)
    def appraised(self: Shipping, work: Range, bound: float) -> Cost:
        began = perf_counter()
        try:
            return appraise(self, work, bound)
        finally:
            work.born += perf_counter() - began

    return appraised


class Shipping:
    """What one worker's grants and results cost, and what of them cannot be sent.

    Args:
        wire: encodes messages.
        others: how many other workers there are.
        put_back: takes back a part of which the item with an index, or all, cannot be sent.
    """

    def __init__(
        self,
        wire: Wire,
        others: int,
        put_back: Callable[[Range, int | None], None],
    ) -> None:
        self._wire = wire
        self._others = others
        self._put_back = put_back
        self._told: set[tuple[str, bool]] = set()

    def encoded(self, to: int, grant: Grant, load: Load) -> tuple[Grant, Sequence[Any]] | None:
        """Encode a grant; parts that cannot be sent go back to the deque."""
        parts = list(grant.parts)
        for part in parts:
            for line in late_globals.look(part.call.function):
                sys.stderr.write(line)
        try:
            return grant, self._wire.encode(to, load, grant)
        except Unsendable:
            parts = self._sendable(to, parts)
        if not parts:
            return None
        grant = grant._replace(parts=tuple(parts))
        try:
            return grant, self._wire.encode(to, load, grant)
        except Unsendable as problem:  # of an object that can be pickled at times
            for part in parts:
                self._keep(part, Unsendable(None, problem.reason))
            return None

    def _sendable(self, to: int, parts: Sequence[Range]) -> list[Range]:
        """Return the parts that can be sent; the others go back to the deque."""
        sendable = []
        for part in parts:
            problem = self._wire.unsendable(to, part)
            if problem is None:
                sendable.append(part)
            else:
                self._keep(part, problem)
        return sendable

    def _keep(self, part: Range, problem: Unsendable) -> None:
        self._put_back(part, problem.index)
        self._tell(part.call, problem.index is None, problem.reason)

    def _tell(self, call: Call, is_function: bool, reason: str) -> None:
        if (call.name, is_function) in self._told:
            return
        if len(self._told) == MOST_TOLD:
            self._told.clear()
        self._told.add((call.name, is_function))
        sys.stderr.write(f"dtm: cannot be sent, so it runs where it was called: {reason}\n")

    @_beside_its_age
    def items_cost(self, work: Range, near_enough: float) -> float:
        """Return the seconds of processor time that shipping one item of a range costs.

        What costs less than ``near_enough`` need not be known better.
        """
        call = work.call
        middle = (work.lo + work.hi) // 2 - call.base
        items = call.items[middle : middle + 16]
        if type(items) is Same:  # not isinstance, which asks an abstract class's metaclass
            items = [items.item]
        cost = self._shipping_cost(items, (), near_enough)
        if cost == float("inf"):
            cost = min(
                self._shipping_cost([item], (), near_enough)
                for item in items[:: max(1, len(items) // 4)]
            )
        if cost == float("inf"):
            work.pinned = True
            found = self._wire.culprit(items, middle + call.base)
            if found is not None:
                self._tell(call, False, f"item {found[0]} of {call.name}: {found[1]}")
        return cost

    @_beside_its_age
    def results_cost(self, work: Range, near_enough: float) -> float | None:
        """Return the seconds that shipping one result costs, None if none is there to judge by."""
        results = (work.call.sample or [])[-16:]
        return self._shipping_cost((), results, near_enough) if results else None

    @_beside_its_age
    def function_cost(self, work: Range, saved: float) -> float:
        """Return the seconds that bringing the function of a range to another worker costs.

        Infinity if finding out took too long for what could be saved when it was last tried.  That
        may have been of another object, so half of it is forgotten each time.
        """
        profile = work.call.profile
        if profile.weighing > may_take(saved):
            profile.weighing /= 2
            return float("inf")
        began = thread_time()
        cost = self._wire.weight(work.call, saved)
        profile.weighing = thread_time() - began
        return cost

    def lacking(self, work: Range) -> float:
        """Return the part of the other workers that do not hold the function of a range."""
        return self._wire.lacking(work.call, self._others)

    def _shipping_cost(
        self, items: Sequence[Any], results: Sequence[Any], near_enough: float
    ) -> float:
        measure = partial(shipping_cost, items, results, near_enough=near_enough)
        try:
            cost: float = self._wire.guarded(measure)
        except Exception:  # noqa: BLE001 - objects' own methods may raise anything, and exit
            return float("inf")
        return cost
