"""Calls and ranges: the units of work.

A :class:`Call` is one ``map``, ``apply`` or ``repeat``: a function, its items and,
on the worker that made it (its *owner*), what has come back.  A :class:`Range` is
a run of consecutive items of one call that nobody has started yet: the unit that
stands in a deque and that thieves split.  ``map`` over a million items makes one
call and one range, not a million tasks.

A worker that was given a part of somebody else's call holds a `Call` of its own
for it, with the same ``(owner, key)`` and only the items of that part; the
results leave for the owner in whole segments.

Invariants:

* ``range.lo <= range.hi``; ``lo`` grows as strips are claimed, ``hi`` shrinks as
  thieves take the back; a range with ``lo == hi`` is exhausted and belongs to nobody.
* ``call.missing`` counts the items below ``call.limit`` whose results are not in.
  ``limit`` is the size of the call until an item fails; then it is the smallest
  failing index, for what lies above need not run.
* A segment is counted once; a second delivery of the same items is refused.

Threads: all of it is touched under the worker's lock, except that the values of
a segment under construction belong to the thread that runs the strip.

Rejected: one object an item (the original's `TaskContainer`): creating it costs
more than a small item's work.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat, starmap
from operator import attrgetter
from typing import Any

Function = Callable[..., Any]

missing = attrgetter("missing")
"""How many results a call lacks; ``all(map(missing, calls))`` runs no Python code."""


def printable(text: str) -> str:
    """Return a text of the program's as one line that any file or terminal takes."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


_NONE: dict[int, list[Any]] = {}  # of a call of one item, which never has but the whole
_NO_STARTS: list[int] = []
_NEVER = float("inf")


class Same(Sequence[Any]):
    """``size`` times the same item, in constant memory."""

    __slots__ = ("item", "size")

    def __init__(self, item: object, size: int) -> None:
        self.item = item
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Same(self.item, len(range(*index.indices(self.size))))
        range(self.size)[index]
        return self.item

    def __iter__(self) -> Iterator[Any]:
        return repeat(self.item, self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return Same, (self.item, self.size)


class Body:
    """A function of a call that runs its items by itself, because it adds something to each.

    Attributes:
        func: the user's function.
    """

    __slots__ = ("func",)

    func: Function

    def prepare(self, runner: Any) -> None:
        """Do what must be done in this process before the first of the items.

        It is not part of the time of any item.  What it raises is the failure of the item.
        """

    def __call__(self, *args: Any) -> Any:
        """Run one item."""
        (result,) = self.results((args,), True)
        return result

    def results(self, items: Sequence[Any], star: bool) -> Iterable[Any]:
        """Return what the function gives for each of the items, lazily if one may raise."""
        return starmap(self.func, items) if star else map(self.func, items)


def name_of(function: Any) -> str:
    """Return the name of what a callable calls in the end."""
    while isinstance(function, (partial, Body)):
        function = function.func
    return getattr(function, "__qualname__", None) or type(function).__name__


class Call:
    """One call of ``map`` and its kin, as its owner or a helper of the owner sees it.

    Attributes:
        function: what runs on each item, keyword arguments bound.
        items: a sequence that can be sliced; ``items[0]`` has index ``base``.
        star: whether an item is a tuple of positional arguments.
        owner: rank of the worker that made the call.
        key: number of the call at its owner; 0 until a part of it leaves.
        kind: the function of dtm that made it: "map", "apply" ...
        profile: what is known of the duration of its items.
        depth: how many tasks enclose it.
        path: where it stands in the tree of tasks; None unless the run is seeded.
        chunk: fewest items that run or leave together.
        streaming: whether results should leave as soon as they are there.
        limit: items from here on need not run.
        cost, result_cost: estimated seconds of processor time to ship one item, and one result;
            None if unknown.
        weight: the same for bringing the function, and what goes along with it, to one worker.
        appraise_at: when the costs, which have kept this call at home, are to be estimated again.
        range: (owner) the range made with the call, what is left of it.
        parent: (owner) the context of the task that made the call.
        segments: (owner) first index -> values, of the segments that are finished.
        starts: (owner) the first indices of the segments, sorted.
        whole: (owner) all the values in order, once they are together.
        sample: values of a segment under way, to judge what results cost to send.
        missing: (owner) items whose results are not in yet.
        failure: (owner) smallest failing index and its exception.
        listeners: (owner) called once, without arguments, when the call is complete.
        number, tally: what a watched run notes of it; not set in other runs.
    """

    __slots__ = (
        "__weakref__",
        "appraise_at",
        "base",
        "chunk",
        "cost",
        "depth",
        "failure",
        "function",
        "items",
        "key",
        "kind",
        "limit",
        "listeners",
        "missing",
        "number",
        "owner",
        "parent",
        "path",
        "profile",
        "range",
        "result_cost",
        "sample",
        "segments",
        "size",
        "star",
        "starts",
        "streaming",
        "tally",
        "weight",
        "whole",
    )  # fmt: skip
    number: int
    tally: Any

    def __init__(
        self,
        function: Function,
        items: Sequence[Any],
        size: int,
        owner: int,
        profile: Any,
        kind: str,
        star: bool = False,
        depth: int = 0,
        path: tuple[int, ...] | None = None,
        chunk: int = 1,
        streaming: bool = False,
        parent: Any = None,
        base: int = 0,
        key: int = 0,
    ) -> None:
        self.function = function
        self.items = items
        self.size = size
        self.owner = owner
        self.profile = profile
        self.kind = kind
        self.star = star
        self.base = base
        self.key = key
        self.depth = depth
        self.path = path
        self.chunk = chunk
        self.streaming = streaming
        self.parent = parent
        self.limit = base + size
        self.cost: float | None = None
        self.result_cost: float | None = None
        self.weight: float | None = None
        self.appraise_at = _NEVER
        self.range: Range | None = None
        self.segments: dict[int, list[Any]] = _NONE if size == 1 else {}
        self.starts: list[int] = _NO_STARTS if size == 1 else []
        self.whole: list[Any] | None = None
        self.sample: list[Any] | None = None
        self.missing = size
        self.failure: tuple[int, BaseException] | None = None
        self.listeners: list[Callable[[], None]] | None = None

    def strip(self, lo: int, hi: int) -> Iterable[Any]:
        """Return the lazy evaluation of the items ``lo`` to ``hi - 1``."""
        items = self.items[lo - self.base : hi - self.base]
        if isinstance(self.function, Body):
            return self.function.results(items, self.star)
        return starmap(self.function, items) if self.star else map(self.function, items)

    def account(self, lo: int, values: list[Any]) -> bool:
        """Count a segment that is finished; whether the call is now complete."""
        count = len(values)
        if count == self.size:
            self.whole = values
            self.missing = 0
            self.range = None  # for the garbage collector, which walks all calls that are kept
            return True
        insort(self.starts, lo)
        self.segments[lo] = values
        stop = min(lo + count, self.limit)
        if stop > lo:
            self.missing -= stop - lo
            return self.missing == 0
        return False

    def deliver(self, lo: int, values: list[Any]) -> bool | None:
        """Accept a segment that another worker has run; None if any of it is in already."""
        if self.whole is not None:
            return None
        after = bisect_left(self.starts, lo + len(values))
        if after:
            before = self.starts[after - 1]
            if before + len(self.segments[before]) > lo:
                return None
        return self.account(lo, values)

    def fail(self, index: int, exception: BaseException) -> bool:
        """Note that an item failed; whether the call is now complete."""
        if self.failure is not None and self.failure[0] <= index:
            return False
        self.failure = (index, exception)
        self.limit = min(self.limit, index)
        was = self.missing
        inside = sum(
            max(0, min(lo + len(values), self.limit) - lo) for lo, values in self.segments.items()
        )
        self.missing = self.limit - self.base - inside
        return was > 0 and self.missing == 0

    def abandon(self) -> None:
        """Let nothing more of this call run or be waited for."""
        self.limit = self.base
        self.missing = 0

    @property
    def name(self) -> str:
        """How messages to people name it, e.g. ``map(op)``."""
        return printable(f"{self.kind}({name_of(self.function)})")

    @property
    def complete(self) -> bool:
        """Whether every result that is needed is in."""
        return self.missing == 0

    def done(self) -> int:
        """Return how many items the owner knows to be done; touches no lock, so any thread may ask.

        What other workers have computed counts when they send it, which is within a second.
        """
        count, sample = self.size - self.missing, self.sample
        if self.missing and sample:
            segments = list(self.segments.values())
            if not any(values is sample for values in segments):
                count += len(sample)
        return min(count, self.size)

    def values(self) -> list[Any]:
        """Return all results in the order of the items."""
        whole = self.whole
        if whole is None:
            whole = []
            for lo in self.starts:
                whole += self.segments[lo]
            self.whole = whole  # at once: another thread may ask for it too
            self.segments = _NONE
        return whole

    def __repr__(self) -> str:
        return f"<Call {self.owner}:{self.key} {self.name} missing={self.missing}/{self.size}>"


class Range:
    """Consecutive items of a call, ``lo`` to ``hi - 1``, that nobody has started.

    ``born`` is the time at which it came to this worker.  A ``pinned`` range
    never leaves: it could not be sent.
    """

    __slots__ = ("born", "call", "hi", "lo", "pinned")

    def __init__(
        self, call: Call, lo: int, hi: int, born: float = 0.0, *, pinned: bool = False
    ) -> None:
        self.call = call
        self.lo = lo
        self.hi = hi
        self.born = born
        self.pinned = pinned

    def claim(self, count: int) -> tuple[int, int]:
        """Take up to ``count`` items from the front; ``(lo, lo)`` if nothing is left."""
        lo, limit = self.lo, self.call.limit
        hi = lo + count
        if hi > self.hi:  # noqa: PLR1730 - once a strip, and min takes three times as long
            hi = self.hi
        if hi > limit:  # noqa: PLR1730 - likewise
            hi = limit
        if hi <= lo:
            self.lo = self.hi
            return lo, lo
        self.lo = hi
        return lo, hi

    def take_back(self, count: int) -> Range:
        """Split off the last ``count`` items as a range of their own."""
        part = Range(self.call, self.hi - count, self.hi, self.born)
        self.hi -= count
        return part

    @property
    def left(self) -> int:
        """How many items are still to be started."""
        return max(0, min(self.hi, self.call.limit) - self.lo)

    def __repr__(self) -> str:
        return f"<Range [{self.lo}, {self.hi}) of {self.call!r}>"
