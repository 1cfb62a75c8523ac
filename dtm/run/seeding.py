"""Random numbers that do not depend on who runs what.

In a seeded run each item has a stream of its own, named by the item's *path* in
the tree of tasks: the numbers of the calls and the indices of the items on the
way from ``main`` down to it.  Before an item runs, Python's ``random`` and, if it
is imported, NumPy's legacy generator are seeded from ``(seed, path)``; around
everything that runs inside of a wait their states are saved and restored.  So
neither the number of workers nor the order of running shows in the numbers.

Threads: the state of these generators belongs to the process, so to the thread
of tasks, the main thread; a user's own threads share it as they do in any program.

Rejected: jumping ahead in one global stream, which needs to know in advance how
many numbers each item draws.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from dtm.run.context import Context
from dtm.task import Call

Path = tuple[int, ...]


class Streams:
    """The streams of one run, made from its seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def number(self, path: Path) -> int:
        """Return 128 bits that belong to a path."""
        name = repr((self.seed, path)).encode()
        return int.from_bytes(blake2b(name, digest_size=16).digest(), "little")

    def enter(self, path: Path) -> None:
        """Seed the global generators for the item with this path."""
        number = self.number(path)
        random.seed(number)
        numpy = _numpy_random()
        if numpy is not None:
            # Both are Mersenne twisters: from the same number they would draw the same.
            words = [~number >> shift & 0xFFFFFFFF for shift in range(0, 128, 32)]
            numpy.seed(words)

    def results(self, call: Call, context: Context, lo: int, hi: int) -> Iterator[Any]:
        """Run some items of a call, each with a stream of its own, and yield their results."""
        assert call.path is not None
        saved = self.save()
        items = call.items[lo - call.base : hi - call.base]
        try:
            for index, item in enumerate(items, lo):
                context.path = (*call.path, index)
                context.calls = 0
                self.enter(context.path)
                try:
                    value = call.function(*item) if call.star else call.function(item)
                except StopIteration:
                    return
                yield value
        finally:
            self.restore(saved)

    def generator(self, path: Path) -> random.Random:
        """Return a generator of :mod:`random` for a path."""
        return random.Random(self.number(path))  # noqa: S311 - for simulations, not for secrets

    def numpy_generator(self, path: Path) -> Any:
        """Return a ``numpy.random.Generator`` for a path."""
        from numpy.random import SeedSequence, default_rng

        return default_rng(SeedSequence(self.number(path)))

    @staticmethod
    def save() -> tuple[Any, Any]:
        """Return the states of the global generators."""
        numpy = _numpy_random()
        return random.getstate(), None if numpy is None else numpy.get_state()

    @staticmethod
    def restore(state: tuple[Any, Any]) -> None:
        """Put the global generators back."""
        random.setstate(state[0])
        if state[1] is not None:
            sys.modules["numpy.random"].set_state(state[1])


def _numpy_random() -> Any:
    """Return ``numpy.random`` if NumPy is imported, which itself may not have imported it yet."""
    if "numpy" not in sys.modules:
        return None
    if "numpy.random" not in sys.modules:
        import numpy.random  # noqa: F401
    return sys.modules["numpy.random"]
