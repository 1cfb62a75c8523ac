"""What the tests of the core have in common: calls, ranges and schedulers."""

from __future__ import annotations

from random import Random
from typing import Any

from dtm.core.granularity import Granularity
from dtm.core.messages import Load, Message
from dtm.core.scheduler import Effect, Scheduler, Send
from dtm.task import Call, Range

BUSY = Load(1, 1.0, idle=False)
IDLE = Load(1, 0.0, idle=True)


def granularity(cost: float = 1e-6, minimum: float = 1e-3) -> Granularity:
    """Return a granularity for which shipping an item costs so much."""
    return Granularity(minimum, 1, lambda *_: cost, lambda *_: 0.0)


def call(size: int, *, seconds: float = 0.0, owner: int = 0, **more: Any) -> Call:
    """Return a call whose items are their own indices; its estimate is mature if given."""
    profile = granularity().profile(f"function of {size}", 0)
    if seconds:
        profile.assume(seconds)
    base = more.get("base", 0)
    return Call(abs, range(base, base + size), size, owner, profile, "map", **more)


def work(size: int, *, seconds: float = 0.0, **more: Any) -> Range:
    """Return the whole range of a new call."""
    made = call(size, seconds=seconds, **more)
    return Range(made, made.base, made.base + size)


def scheduler(rank: int = 0, size: int = 5, minimum: float = 1e-3) -> Scheduler:
    """Return the scheduler of a worker."""
    return Scheduler(rank, size, Random(rank), minimum, 1, lambda *_: 1e-6, lambda *_: 0.0)


def sent(effects: list[Effect]) -> list[tuple[int, Message]]:
    """Return whom messages go to, and which."""
    return [(effect.to, effect.message) for effect in effects if isinstance(effect, Send)]
