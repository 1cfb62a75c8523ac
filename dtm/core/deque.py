"""The local deque: ranges that stand ready on one worker.

Owner's end (right): the newest; the worker runs depth first and so keeps its
memory small.  Thief's end (left): the oldest; in a tree of tasks it is the
largest piece, so one theft moves the most work (Blumofe and Leiserson 1999).

A range stays in the deque while it runs, so that thieves can split what has not
been started.  Exhausted ranges are dropped when they reach an end.

Threads: under the worker's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from dtm.task import Range


class Deque:
    """A double-ended queue of ranges: the owner works at one end, thieves take from the other."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: deque[Range] = deque()

    def push(self, work: Range) -> None:
        """Add work at the owner's end."""
        ranges = self._ranges
        while ranges and ranges[-1].lo >= ranges[-1].hi:
            ranges.pop()
        ranges.append(work)

    def newest(self) -> Range | None:
        """Return the newest range that has items left, or None."""
        ranges = self._ranges
        while ranges:
            last = ranges[-1]
            if last.lo < last.hi and last.lo < last.call.limit:
                return last
            ranges.pop()
        return None

    def oldest(self, most: int = 64) -> Iterator[Range]:
        """Iterate over up to ``most`` of the ranges with items left, oldest first."""
        ranges = self._ranges
        while ranges and not ranges[0].left:
            ranges.popleft()
        return (work for work in islice(ranges, most) if work.left)

    def clear(self) -> None:
        """Drop all work that nobody has started."""
        for work in self._ranges:
            work.hi = work.lo
        self._ranges.clear()

    def several(self) -> bool:
        """Whether more than one item is ready."""
        count = 0
        for work in self.oldest(2):
            count += work.left
        return count > 1

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)
