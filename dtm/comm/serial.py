"""The manager of a run of one worker, which has nobody to talk to.

Threads: as the interface says; they share an ``Event``, which has its own lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

from dtm.comm.base import CommunicationManager, Frame, LostPeer


class SingleManager(CommunicationManager):
    """The manager of a run that has only its root."""

    def __init__(self) -> None:
        self.rank = 0
        self.size = 1
        self.hosts = ("localhost",)
        self._woken = Event()

    def send(self, rank: int, frames: Sequence[Frame]) -> None:  # noqa: ARG002
        """There is nobody to send to."""
        raise ValueError(f"there is no rank {rank} in a run of one worker")

    def receive(self) -> list[tuple[int, list[Frame]]]:
        """Nothing ever comes."""
        return []

    def wait(self, timeout: float) -> None:
        """Sleep until woken or until time is up."""
        self._woken.wait(timeout)
        self._woken.clear()

    def wake(self) -> None:
        """End a wait."""
        self._woken.set()

    def lost(self) -> list[LostPeer]:
        """Nobody can be lost."""
        return []

    def close(self, timeout: float) -> None:
        """There is nothing to close."""
