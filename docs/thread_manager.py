"""A communication manager of threads in one process: an example for the documentation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dtm.comm.base import CommunicationManager, Frame, LostPeer
from dtm.testing.conformance import check_communication_manager


class ThreadManager(CommunicationManager):
    """One rank; ``ranks`` are all of them, this one among them."""

    def __init__(self, rank: int, size: int, ranks: list[ThreadManager]) -> None:
        self.rank, self.size, self.hosts = rank, size, ["here"] * size
        self._ranks = ranks
        self._inbox: list[tuple[int, list[Frame]]] = []
        self._news = threading.Condition()
        self._sleepers = self._wakes = 0
        self._woken = False

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        if rank == self.rank or rank not in range(self.size):
            raise ValueError(f"rank {self.rank} cannot send to rank {rank}")
        peer = self._ranks[rank]
        with peer._news:
            peer._inbox.append((self.rank, [bytes(frame) for frame in frames]))
            peer._news.notify_all()

    def receive(self) -> list[tuple[int, list[Frame]]]:
        with self._news:
            messages, self._inbox = self._inbox, []
        return messages

    def wait(self, timeout: float) -> None:
        with self._news:
            wakes, self._sleepers = self._wakes, self._sleepers + 1
            self._news.wait_for(lambda: self._inbox or self._woken or self._wakes > wakes, timeout)
            self._sleepers -= 1
            self._woken = False

    def wake(self) -> None:
        with self._news:
            if self._sleepers:
                self._wakes += 1
            else:
                self._woken = True
            self._news.notify_all()

    def lost(self) -> list[LostPeer]:
        return []

    def close(self, timeout: float) -> None:
        pass


def factory(scenario: Callable[[CommunicationManager], None], size: int) -> None:
    """Run a scenario of the conformance suite on ``size`` ranks."""
    ranks: list[ThreadManager] = []
    ranks.extend(ThreadManager(rank, size, ranks) for rank in range(size))
    with ThreadPoolExecutor(size) as threads:
        for done in [threads.submit(scenario, manager) for manager in ranks]:
            done.result(timeout=60)


if __name__ == "__main__":
    print(check_communication_manager(factory, large=10_000_000))
