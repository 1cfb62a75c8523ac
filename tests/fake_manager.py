"""A communication manager without others: what is sent is kept, and no wait lasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtm.comm.base import Frame
from dtm.comm.serial import SingleManager
from dtm.core.granularity import Profile
from dtm.wire.codec import Wire


class FakeManager(SingleManager):
    """Notes what is sent and how often a wait was ended.

    Args:
        rank: of the worker that it joins to nobody.
        size: how many workers there seem to be.
        most_waits: one more than so many is an error: what waits will wait for ever.
        tells: whether the thread that stands by can be told to mind no messages.

    Attributes:
        told: whether it was to mind them, each time that this was said.
        sent: each message's receiver and frames.
        wakes, waits: how often a wait was ended, and begun.
    """

    def __init__(
        self, rank: int = 1, size: int = 2, most_waits: int = 100, *, tells: bool = False
    ) -> None:
        super().__init__()
        self.rank, self.size = rank, size
        self.hosts = tuple(f"host{number}" for number in range(size))
        self.sent: list[tuple[int, Sequence[Frame]]] = []
        self.wakes = self.waits = 0
        self._most_waits = most_waits
        self._tells = tells
        self.told: list[bool] = []

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        """Keep a message."""
        assert rank != self.rank
        self.sent.append((rank, frames))

    def wait(self, timeout: float) -> None:
        """Return at once."""
        assert timeout >= 0
        self.waits += 1
        assert self.waits <= self._most_waits, "it waits on"

    def alert(self, on: bool) -> bool:
        """Note what is said."""
        self.told.append(on)
        return self._tells

    def wake(self) -> None:
        """Count the call."""
        self.wakes += 1

    def messages(self) -> list[Any]:
        """Return what was sent, as its receivers read it."""
        wire = Wire(0, "worker 0", lambda *_: Profile())
        return [wire.decode(self.rank, list(frames))[1] for _, frames in self.sent]
