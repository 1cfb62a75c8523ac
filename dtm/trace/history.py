"""What the workers of a run have said of themselves lately, and what follows from it.

Invariant: memory is bounded, whatever the number of workers and the length of the run.

Threads: whoever holds the lock of the view.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

MOST_ROUNDS = 300
MOST_ENTRIES = 200_000  # of all workers in all rounds
MOST_NAMES = 500
MOST_LANES = 64  # on a page
_SUMS = (
    "items", "queued", "ranges", "memory", "steals_asked", "steals_won", "messages", "bytes",
)  # fmt: skip


class Known(NamedTuple):
    """What is known of a worker.

    Attributes:
        values: of its newest status.
        at: when that came.
        busy: the part of the time before, since the one before that, in which it had work.
        rate: items a second in that time.
    """

    values: dict[str, Any]
    at: float
    busy: float
    rate: float


class History:
    """What the workers have said, and what follows from it.

    Args:
        hosts: of each worker.
        began: when the run did.

    Attributes:
        known: of each worker that has said anything.
        serial: the number of the newest round.
    """

    def __init__(self, hosts: Iterable[str], began: float) -> None:
        self.hosts = list(hosts)
        self.began = began
        self.known: dict[int, Known] = {}
        self.serial = 0
        length = max(10, min(MOST_ROUNDS, MOST_ENTRIES // len(self.hosts)))
        self._rounds: deque[tuple[int, float, dict[int, tuple[float, int]]]] = deque(maxlen=length)
        self._names: dict[str, int] = {"": 0, "main": 1}

    def take(self, said: Iterable[tuple[int, float, dict[str, Any]]], now: float) -> None:
        """Take a round: rank, time and values of workers that have answered."""
        entries = {}
        for rank, at, values in said:
            before = self.known.get(rank)
            busy = rate = 0.0
            if before is not None:
                span = max(at - before.at, 1e-6)
                busy = 1.0 - (values["idle"] - before.values["idle"]) / span
                rate = (values["items"] - before.values["items"]) / span
            elif at > self.began:
                busy = 1.0 - values["idle"] / (at - self.began)
            busy = min(1.0, max(0.0, busy))
            self.known[rank] = Known(values, at, busy, rate)
            entries[rank] = round(busy, 3), self._name(values)
        self.serial += 1
        self._rounds.append((self.serial, now - self.began, entries))

    def _name(self, values: dict[str, Any]) -> int:
        """Return the number of what a worker does: that of a function, or of ``main``."""
        task = values["task"]
        name = task[0] if task else "main" if values["place"] == "main" else ""
        if name not in self._names and len(self._names) >= MOST_NAMES:
            name = "other functions"
        return self._names.setdefault(name, len(self._names))

    def calls(self) -> list[dict[str, Any]]:
        """Return the calls under way, those of ``main`` first: how far they are."""
        sums: dict[tuple[str, int], list[int]] = {}
        for known in self.known.values():
            for name, depth, *counts in known.values["calls"]:
                total = sums.setdefault((name, depth), [0, 0, 0])
                total[:] = map(sum, zip(total, counts, strict=True))
        ordered = sorted(sums.items(), key=lambda each: (each[0][1], -each[1][1]))
        return [
            {"name": name, "depth": depth, "calls": number, "items": items, "done": done}
            for (name, depth), (number, items, done) in ordered
        ]

    def totals(self) -> dict[str, float]:
        """Return what all workers have done together."""
        every = list(self.known.values())
        found: dict[str, float] = {name: sum(each.values[name] for each in every) for name in _SUMS}
        found["rate"] = sum(each.rate for each in every)
        found["busy"] = sum(each.busy for each in every) / max(1, len(every))
        return found

    def seen(self, since: int, first: int, now: float) -> dict[str, Any]:
        """Return what a page shows: the rounds after ``since``, and workers from ``first`` on."""
        last = min(first + MOST_LANES, len(self.hosts))
        rounds = [
            [serial, round(at, 3), [[rank, *entries[rank]] for rank in range(first, last)
                                    if rank in entries]]
            for serial, at, entries in self._rounds
            if serial > since
        ]  # fmt: skip
        return {
            "serial": self.serial, "seconds": round(now - self.began, 3),
            "program": os.path.basename((sys.argv or [""])[0]), "workers": len(self.hosts),
            "answering": len(self.known), "first": first, "most": MOST_LANES,
            "names": list(self._names), "rounds": rounds, "calls": self.calls(),
            "totals": self.totals(),
            "lanes": [self._lane(rank, now) for rank in range(first, last)],
        }  # fmt: skip

    def _lane(self, rank: int, now: float) -> dict[str, Any]:
        known = self.known.get(rank)
        said: dict[str, Any] = {"rank": rank, "host": self.hosts[rank]}
        if known is not None:
            values = {name: each for name, each in known.values.items() if name != "calls"}
            age = round(now - known.at, 1)
            said |= values | {"age": age, "busy": round(known.busy, 3), "rate": known.rate}
        return said
