"""How long items take, and what follows from it: strip lengths, and what is worth sending.

A :class:`Profile` holds the running estimate for one function at one depth of
the task tree.  The depth matters: in a recursion the same function takes a
millisecond at the top and a microsecond at the leaves, and a mean over all depths
would keep the big pieces at home.

A function is known by its code, for a closure that is made anew for each generation has the code
of the one before; any other callable by identity, never by ``==``.  No function is kept alive.

An estimate is *mature* once it rests on enough time or enough items; the first
call of a function is always slow.  Before that, the age of a range is a lower
bound for its next item, after some patience.

A range is worth sending when what is left of it takes longer than the sending
(``minimum`` seconds, about four round trips) and an item runs longer than
shipping it and its result costs (``Call.cost``); a call of one item carries
``CALL_SECONDS`` on top.  What goes along with the function (a closure's data, a keyword) goes once
to a worker, and must be outweighed by half of what is left, which is what sending can save.

A first item is cold, and may last a thousand times as long as the others; and a call may be
unlike the one before.  So what is spent on sending items is at most ``TRUST`` times the time that
the function has been seen to run, less ``COLD_SECONDS``, and for the function it is this call that
counts: to bring 400 MB is not worth a thought before some milliseconds of its work are done.

An estimate that keeps a call at home may be wrong: made when all was cold, or from items that are
not like the others.  It is made again when the range is ten times as old.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from dtm.core.identity import WeakIdentity
from dtm.task import Call, Range

STRIP_SECONDS = 100e-6
PATIENCE_SECONDS = 50e-6
MATURE_SECONDS = 20e-6
MATURE_ITEMS = 64
LEAST_WEIGHT = 0.2  # of the newest measurement in the running estimate
CALL_SECONDS = 8e-6  # to send a call of one item, beyond the item itself
UNSEEN_SECONDS = 1e-3  # items that run for so long are sent though no result of the call is there
MANY_ITEMS = 8
MOST_PROFILES = 512
MOST_DEPTH = 256


NEAR_ENOUGH = 0.25  # of what an item takes: it may be sent, whether it costs this or less
LIGHT_SECONDS = 50e-6  # a function that costs no more to bring is not worth a thought
TRUST = 50.0
COLD_SECONDS = 0.5e-3
DOUBT = 10.0  # times the age at which a call was kept at home, its costs are estimated again
NEVER = float("inf")


AppraiseItems = Callable[[Range, float], float]
AppraiseResults = Callable[[Range, float], float | None]
AppraiseFunction = Callable[[Range, float], float]
Lacking = Callable[[Range], float]


def _weightless(_: Range, __: float) -> float:
    return 0.0


def _everybody(_: Range) -> float:
    return 1.0


class Profile:
    """Running estimate of the seconds an item takes, and of what its result costs to ship.

    Attributes:
        seconds: the estimate.
        mature: whether it can be relied on.
        items: what it rests on until then.
        spent: seconds that items have taken; infinite if another worker answers for it.
        result_cost: seconds.
        came, next_look: results that have come from other workers, and at how many of them what
            they cost is looked at again.
        weighing: seconds that it took to find out what bringing the function costs, last time.
        ended: whether ``main`` has seen a call end, wherever it ran, when it waited for the first
            of several.
    """

    __slots__ = (
        "came",
        "ended",
        "items",
        "mature",
        "next_look",
        "result_cost",
        "seconds",
        "spent",
        "weighing",
    )

    def __init__(self) -> None:
        self.seconds = 0.0
        self.items = 0
        self.spent = 0.0
        self.mature = False
        self.ended = False
        self.result_cost = 0.0
        self.came = 0
        self.next_look = 1
        self.weighing = 0.0

    def learn(self, items: int, seconds: float) -> None:
        """Take in that ``items`` items took ``seconds`` in all."""
        weight = items / (self.items + items)
        if weight < LEAST_WEIGHT:  # noqa: PLR1730 - once a strip, and max takes three times as long
            weight = LEAST_WEIGHT
        self.seconds += (seconds / items - self.seconds) * weight
        self.spent += seconds
        if not self.mature:
            self.items += items
            self.mature = self.spent >= MATURE_SECONDS or self.items >= MATURE_ITEMS

    def assume(self, seconds: float) -> None:
        """Start from an estimate that another worker has made."""
        if not self.mature:
            self.seconds = seconds
            self.items = MATURE_ITEMS
            self.spent = NEVER
            self.mature = True


def _bare(function: Any) -> Any:
    """Return what a callable runs, without what is bound to it."""
    while isinstance(function, partial):
        function = function.func
    return function.__func__ if isinstance(function, MethodType) else function


class Granularity:
    """Estimates by function and depth, and the decisions that rest on them.

    Args:
        minimum: seconds of work below which a range is not worth sending.
        chunk: fewest items that run or leave together, unless a call says more.
        appraise_items: returns the cost in seconds of shipping one item of a range, given a cost
            below which it need not be known better.
        appraise_results: the same for a result, None if none is there to judge by.

    Attributes:
        appraise_function: returns the seconds that it costs to bring the function of a range to
            a worker, given the seconds that doing so may save.
        lacking: returns the part of the other workers that have not got that function.
    """

    def __init__(
        self,
        minimum: float,
        chunk: int,
        appraise_items: AppraiseItems,
        appraise_results: AppraiseResults,
    ) -> None:
        self.minimum = minimum
        self.chunk = chunk
        self._appraise_items = appraise_items
        self._appraise_results = appraise_results
        self.appraise_function: AppraiseFunction = _weightless
        self.lacking: Lacking = _everybody
        self.main_thread_away = False  # see ``pays``
        self._by_code: dict[tuple[int, int], tuple[CodeType, Profile]] = {}
        self._by_object: WeakIdentity[dict[int, Profile]] = WeakIdentity()

    def profile(self, function: Any, depth: int) -> Profile:
        """Return the profile of a function at a depth."""
        if depth > MOST_DEPTH:  # noqa: PLR1730 - once a call, and min takes three times as long
            depth = MOST_DEPTH
        if type(function) is not FunctionType:
            function = _bare(function)
            if type(function) is not FunctionType:
                return self._profile_of_object(function, depth)
        code = function.__code__
        key = (id(code), depth)
        known = self._by_code.get(key)
        if known is not None:
            return known[1]
        if len(self._by_code) >= MOST_PROFILES:
            del self._by_code[next(iter(self._by_code))]
        made = Profile()
        self._by_code[key] = (code, made)  # the code stays, so that its id does
        return made

    def _profile_of_object(self, function: Any, depth: int) -> Profile:
        by_depth = self._by_object.get(function)
        if by_depth is None:
            by_depth = {}
            try:
                self._by_object.set(function, by_depth)
            except TypeError:  # it cannot be held weakly: known by its type
                return self._profile_of_object(type(function), depth)
        return by_depth.setdefault(depth, Profile())

    @staticmethod
    def strip_length(work: Range, previous: int) -> int:
        """Return how many items to run before looking at the inbox again."""
        chunk = work.call.chunk
        if chunk > 1:
            return chunk
        profile: Profile = work.call.profile
        if not profile.mature:
            return previous * 2 or 1
        length = int(STRIP_SECONDS / (profile.seconds + 1e-9)) or 1
        return min(length, previous * 2) if previous else min(length, 64)

    def seconds_an_item(self, work: Range, now: float) -> float:
        """Return the estimate for one item of a range; 0 while nothing can be said."""
        profile: Profile = work.call.profile
        if profile.mature:
            return profile.seconds
        age = now - work.born
        if profile.items:  # the age is not all of the item that runs now
            age -= COLD_SECONDS
        return age if age >= PATIENCE_SECONDS else 0.0

    def worth(self, work: Range, items: int, now: float) -> bool:
        """Whether ``items`` items like those of a range are enough to leave for an idle worker."""
        each = self.seconds_an_item(work, now)
        return each * items >= self.minimum and self.pays(work, now)

    def pays(self, work: Range, now: float) -> bool:
        """Whether an item of a range runs longer than it costs to send it away."""
        each = self.seconds_an_item(work, now)
        if work.pinned or each == 0.0:
            return False
        call = work.call
        overhead = CALL_SECONDS if call.size == 1 else 0.0
        if self.main_thread_away:
            # The thread that runs tasks here has not come by for a while.  It may be blocked,
            # outside of dtm, until just this is done: whatever can be sent is worth it.
            if call.cost is None:
                call.cost = self._appraise_items(work, 0.0) + overhead
            return call.cost < NEVER
        if each <= overhead:
            return False
        age = now - work.born  # to appraise takes time, and moves ``born``
        if now >= call.appraise_at:
            call.cost = call.result_cost = call.weight = None
            call.appraise_at = NEVER
        if call.cost is None:
            call.cost = self._appraise_items(work, each * NEAR_ENOUGH) + overhead
        result_cost = self._result_cost(work, each)
        if result_cost is None:
            return False
        if each > call.cost + result_cost and self._carries(
            work, each, call.cost + result_cost, age
        ):
            return True
        if call.appraise_at == NEVER:
            call.appraise_at = work.born + DOUBT * max(age, PATIENCE_SECONDS)
        return False

    def see_results(self, call: Call, values: list[Any]) -> None:
        """Learn what results cost from those that have come, each time that their number doubles.

        A call of items that run for long is sent away before any result of it is there, and it may
        be the same with the next one, so nobody here would ever see how large they are.
        """
        profile: Profile = call.profile
        profile.came += len(values)
        if profile.came < profile.next_look or call.range is None:
            return
        profile.next_look = 2 * profile.came
        sample, call.sample = call.sample, values
        cost = self._appraise_results(call.range, profile.seconds * NEAR_ENOUGH)
        call.sample = sample
        if cost is not None:
            profile.result_cost = cost

    def enough(self, seconds: float) -> bool:
        """Whether so much work is worth a message."""
        return seconds >= self.minimum or self.main_thread_away

    def _result_cost(self, work: Range, each: float) -> float | None:
        """Return what shipping a result costs; None if it is better to wait for one to judge by."""
        call = work.call
        profile: Profile = call.profile
        if call.result_cost is None:
            call.result_cost = self._appraise_results(work, each * NEAR_ENOUGH)
            if call.result_cost is None:
                if call.size >= MANY_ITEMS and each < UNSEEN_SECONDS:
                    return None  # it may be larger than the last
                return profile.result_cost
            profile.result_cost = call.result_cost
        return call.result_cost

    def _carries(self, work: Range, each: float, cost: float, age: float) -> bool:
        """Whether what is left pays for bringing the function to a worker, and half of the items.

        ``cost`` is that of an item and its result, ``age`` that of the range.
        """
        call, half = work.call, work.left / 2
        profile: Profile = call.profile
        seen = profile.spent + age - COLD_SECONDS
        if max(TRUST * seen, LIGHT_SECONDS) < half * cost:
            return False
        saved = min(half * each, TRUST * max(min(age, seen), 0.0))
        if call.weight is None:
            call.weight = self.appraise_function(work, saved)
        if call.weight <= LIGHT_SECONDS:
            return True
        return saved > call.weight or saved > call.weight * self.lacking(work)
