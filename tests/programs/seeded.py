"""Draws random numbers in every way, in maps of every kind; prints them on the root."""

from __future__ import annotations

import random
import sys
import time

import scenarios

from dtm import dtm

try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment]


def draw(item: int) -> tuple[float, ...]:
    """Return numbers of all the generators there are."""
    time.sleep(0.002)
    numbers = [random.random(), dtm.random().random(), random.gauss(0, 1)]
    if np is not None:
        numbers += [float(np.random.rand()), float(dtm.rng().random())]
    return (item, *numbers)


def nested(item: int) -> list[object]:
    """Draw before, in, between and after two maps, one of which is waited for later."""
    before = random.random()
    call = dtm.map_async(draw, range(3))
    inner = dtm.map(draw, range(item % 3))
    between = random.random()
    return [before, inner, between, call.get(), random.random()]


def lazy(item: int) -> list[float]:
    """Draw while an iterator of results is under way."""
    return [random.random() + number[1] for number in dtm.imap(draw, range(item))]


def main() -> None:
    """Print the numbers, and the workers that drew on the standard error."""
    dtm.apply(scenarios.gather, int(sys.argv[1]))  # one call, however often it has to look
    print("main", random.random())
    print("map", dtm.map(draw, range(60)))
    print("again", dtm.map(draw, range(60)))
    print("repeat", dtm.repeat(draw, 20, 7))
    print("apply", [dtm.apply(draw, 1), dtm.apply(draw, 1)])
    print("async", [call.get() for call in [dtm.apply_async(draw, 1) for _ in range(5)]])
    print("nested", dtm.map(nested, range(20)))
    print("imap", list(dtm.imap(draw, range(20))), dtm.map(lazy, range(4)))
    print("imap_unordered", sorted(dtm.imap_unordered(draw, range(20))))
    print("filter", dtm.filter(lambda _: random.random() < 0.5, range(40)))
    print("main", random.random(), dtm.random().random())
    workers = set(dtm.map(scenarios.who, range(100)))
    print("workers", sorted(workers), file=sys.stderr)


if __name__ == "__main__":
    if "seed" in sys.argv:
        dtm.setOptions(seed=42)
    dtm.start(main)
