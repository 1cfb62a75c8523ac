"""A message under way: what :mod:`dtm.wire.codec` does with bytes, done with references.

A part of a call that arrives at another worker becomes a call of that worker's
own, with only the items of the part; a part that comes home is named and carries
nothing.  The estimate of an item's duration travels with it.  The size in bytes is
an estimate.

Threads: one.
"""

from __future__ import annotations

from typing import Any

from dtm.core.messages import Grant, Load, Message, Relayed, Results
from dtm.core.scheduler import Scheduler
from dtm.task import Call, Range

HEAD_BYTES = 60
PART_BYTES = 80
ITEM_BYTES = 9
SEGMENT_BYTES = 30


class Mail:
    """A message and the load report that travels with it.

    ``bytes`` is its size, once it is sent; an ``echo`` is the second delivery of a message.
    """

    __slots__ = ("bytes", "echo", "estimates", "load", "message", "sender")

    def __init__(self, load: Load, message: Message, sender: int) -> None:
        self.load = load
        self.message = message
        self.sender = sender
        self.bytes = 0
        self.echo = False
        self.estimates: list[float] | None = None
        if type(message) is Grant:
            profiles: list[Any] = [part.call.profile for part in message.parts]
            self.estimates = [each.seconds if each.mature else 0.0 for each in profiles]

    def again(self) -> Mail:
        """Return a copy to be delivered a second time."""
        copy = Mail(self.load, self.message, self.sender)
        copy.bytes = self.bytes
        copy.echo = True
        return copy

    def size(self) -> int:
        """Return about how many bytes it takes."""
        message = self.message
        if type(message) is Grant:
            items = sum(part.left for part in message.parts)
            return HEAD_BYTES + PART_BYTES * len(message.parts) + ITEM_BYTES * items
        if isinstance(message, (Results, Relayed)):
            values = sum(len(segment.values) for segment in message.segments)
            return HEAD_BYTES + SEGMENT_BYTES * len(message.segments) + ITEM_BYTES * values
        return HEAD_BYTES

    def packed(self, rank: int) -> tuple[int, int]:
        """Return how many items and results one end of it pickles or loads: ``rank`` gets it.

        Items that come home are only named, and results that are passed on stay as they are.
        """
        message = self.message
        if type(message) is Grant:
            return sum(part.left for part in message.parts if part.call.owner != rank), 0
        if type(message) is Results or (type(message) is Relayed and message.owner == rank):
            return 0, sum(len(segment.values) for segment in message.segments)
        return 0, 0

    def open(self, scheduler: Scheduler) -> Message:
        """Return the message as its receiver sees it."""
        message = self.message
        if self.estimates is None:
            return message
        assert type(message) is Grant
        parts = [
            _received(scheduler, part, estimate)
            for part, estimate in zip(message.parts, self.estimates, strict=True)
        ]
        return message._replace(parts=tuple(parts))


def _received(scheduler: Scheduler, part: Range, estimate: float) -> Range:
    call, lo, hi = part.call, part.lo, part.hi
    if call.owner == scheduler.rank:
        return Range(Call(len, (), 0, call.owner, None, "", key=call.key), lo, hi)
    profile = scheduler.granularity.profile(call.function, call.depth)
    if estimate:
        profile.assume(estimate)
    items = call.items[lo - call.base : hi - call.base]
    copy = Call(
        call.function, items, hi - lo, call.owner, profile, call.kind,
        depth=call.depth, chunk=call.chunk, base=lo, key=call.key,
    )  # fmt: skip
    return Range(copy, lo, hi)
