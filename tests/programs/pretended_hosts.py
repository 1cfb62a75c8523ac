"""Local workers that think they are on three hosts, and functions with much data.

Prints a line for each check: its name, and whether all is as it should be.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from dtm import dtm
from dtm.comm.local import LocalManager
from dtm.core.messages import Found
from dtm.handle import here
from dtm.run.handles import Handles

HOSTS = "aabbcc"
ROOT = os.environ.setdefault("ROOT_OF_THE_RUN", str(os.getpid()))
given: list[int] = []


def on_pretended_hosts(self: LocalManager, *arguments: Any) -> None:
    join(self, *arguments)
    self.hosts = tuple(HOSTS[: self.size])


def counted(self: Handles, source: int, fetch: Any) -> None:
    class World:
        def send(self, to: int, message: Any) -> None:
            if isinstance(message, Found) and message.frames:
                given.append(to)
            world.send(to, message)

    world, self._world = self._world, World()  # type: ignore[assignment]
    try:
        answer(self, source, fetch)
    finally:
        self._world = world


join, LocalManager.__init__ = LocalManager.__init__, on_pretended_hosts  # type: ignore[method-assign]
answer, Handles._answer = Handles._answer, counted  # type: ignore[method-assign]


class Homely:
    """Cannot be loaded but by the root."""

    def __setstate__(self, state: Any) -> None:
        if str(os.getpid()) != ROOT:
            raise (SystemExit(3) if len(state["data"]) > 2_000_000 else ValueError("not here"))
        self.__dict__.update(state)


def tell(name: str, right: object) -> None:
    print(name, bool(right), flush=True)


def main() -> None:
    size = dtm.size()
    everybody: set[int] = set()
    while len(everybody) < size:
        everybody |= set(dtm.map(lambda _: time.sleep(0.02) or dtm.getWorkerId(), range(2 * size)))
    table = np.arange(400_000.0)

    def entry(index: int) -> tuple[int, float, bool]:
        time.sleep(0.01)
        return dtm.getWorkerId(), table[index], bool(table.flags.writeable)

    found = dtm.map(entry, range(20 * size))
    tell("values", [value for _, value, _ in found] == list(table[: 20 * size]))
    tell("everybody", {rank for rank, _, _ in found} == everybody)
    tell("writable", all(writable for _, _, writable in found))
    tell("once-a-host", len(given) <= 3 and len({HOSTS[rank] for rank in given}) == len(given))

    given.clear()
    table[:] += 1.0
    found = dtm.map(entry, range(20 * size))
    tell("as-it-is-now", [value for _, value, _ in found] == list(table[: 20 * size]))
    tell("once-a-call", 0 < len(given) <= 3)

    def increased(index: int) -> int:
        time.sleep(0.01)
        table[index] += 1.0
        return index

    tell("changed-in-place", dtm.map(increased, range(20 * size)) == list(range(20 * size)))

    homely = Homely()

    def at_home(index: int) -> tuple[int, int]:
        time.sleep(0.01)
        return dtm.getWorkerId(), index + homely.data[index]  # type: ignore[attr-defined]

    for length, name in ((2_000_000, "given-back"), (2_000_001, "given-back-on-exit")):
        homely.data = bytes(length)  # type: ignore[attr-defined]
        found = dtm.map(at_home, range(20 * size))
        tell(name, found == [(0, index) for index in range(20 * size)])

    handles = here.table
    assert isinstance(handles, Handles)
    patience = time.monotonic() + 20.0
    while handles._own and time.monotonic() < patience:
        dtm.map(time.sleep, [0.02] * size)
    tell("nothing-is-left", not handles._own)


dtm.start(main)
