"""What a root makes of workers that are lost, by its own knowledge or by another's word."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dtm.comm.base import Frame, LostPeer
from dtm.comm.serial import SingleManager
from dtm.core.granularity import Profile
from dtm.core.messages import Broken, Load, Message, Stop
from dtm.errors import WorkerLostError
from dtm.run import losses
from dtm.run.worker import Worker
from dtm.wire.codec import Wire


class Fake(SingleManager):
    """What comes in is what the test puts there, what goes out can be read."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.size = rank, 4
        self.hosts = ("alpha", "beta", "gamma", "delta")
        self.inbox: list[tuple[int, list[Frame]]] = []
        self.outbox: list[tuple[int, Sequence[Frame]]] = []
        self.losses: list[LostPeer] = []

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        self.outbox.append((rank, frames))

    def receive(self) -> list[tuple[int, list[Frame]]]:
        inbox, self.inbox = self.inbox, []
        return inbox

    def lost(self) -> list[LostPeer]:
        losses, self.losses = self.losses, []
        return losses


def wire(rank: int) -> Wire:
    return Wire(rank, f"worker {rank}", lambda *_: Profile())


class Root:
    """A root, and what its run ended with."""

    def __init__(self) -> None:
        self.comm = Fake(0)
        self.ends: list[BaseException | None] = []
        self.worker = Worker(self.comm, on_end=self.ends.append)

    def hear(self, source: int, message: Message) -> None:
        self.comm.inbox.append((source, wire(source).encode(0, Load(1, 0.0, idle=False), message)))
        self.worker.service()

    def ended_with(self) -> str:
        (end,) = self.ends
        assert isinstance(end, WorkerLostError)
        return str(end)


HEARSAY = Broken("worker 2 on gamma was lost to worker 1 on beta: no answer", 2)


def test_a_worker_that_cannot_reach_another_tells_the_root() -> None:
    comm = Fake(1)
    worker = Worker(comm)
    comm.losses.append(LostPeer(2, "no answer"))
    worker.service()
    ((to, frames),) = comm.outbox
    assert to == 0
    assert wire(0).decode(1, list(frames))[1] == HEARSAY


def test_a_worker_whose_run_is_ending_does_not() -> None:
    comm = Fake(1)
    worker = Worker(comm)
    worker.scheduler.shutdown.told(0, Stop())
    comm.losses.append(LostPeer(2, "no answer"))
    worker.service()
    assert comm.outbox == []


def test_the_root_prefers_what_it_knows_itself() -> None:
    root = Root()
    root.hear(1, HEARSAY)
    assert root.ends == []
    root.comm.losses.append(LostPeer(2, "killed by SIGKILL"))
    root.worker._rounds = 0.0  # as after each wait
    root.worker.service()
    assert root.ended_with() == "worker 2 on gamma was lost: killed by SIGKILL"


def test_the_root_believes_another_if_it_learns_nothing_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(losses, "HEARSAY_SECONDS", 0.0)
    root = Root()
    root.hear(1, HEARSAY)
    root.worker.service()
    assert root.ended_with().startswith(HEARSAY.reason)


def test_the_root_believes_nobody_when_the_run_is_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "HEARSAY_SECONDS", 0.0)
    root = Root()
    root.hear(1, HEARSAY)
    root.worker.abandon()
    root.worker.service()
    assert root.ends == [None]
