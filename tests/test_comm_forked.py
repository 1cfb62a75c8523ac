"""A process that a worker forks has a manager that is silent, and no descriptor of its parent."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from dtm.comm.base import CommunicationManager, Frame, LostPeer
from dtm.comm.forked import Forkable
from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.manager import TcpManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE = 20.0
FINE = 7

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


def in_child(check: Callable[[], bool], end: Callable[[int], object] = os._exit) -> int:
    """Fork; return the status with which the child ends, which is FINE if ``check`` holds."""
    child = os.fork()
    if child == 0:
        try:
            if check():
                end(FINE)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def two() -> Iterator[tuple[TcpManager, TcpManager]]:
    """Two workers of a run over TCP, both in this process."""
    credentials = Credentials.fresh()
    root = TcpManager.lead(2, credentials)
    joined: list[TcpManager] = []
    joining = threading.Thread(
        target=lambda: joined.append(TcpManager.join(root.address, credentials))
    )
    joining.start()
    deadline = monotonic() + PATIENCE
    while joining.is_alive() and monotonic() < deadline:
        root.wait(0.05)
        root.receive()
    joining.join(PATIENCE)
    yield root, joined[0]
    closing = threading.Thread(target=joined[0].close, args=(PATIENCE,))
    closing.start()
    root.close(PATIENCE)
    closing.join(PATIENCE)


def take(manager: CommunicationManager, count: int) -> list[bytes]:
    """Return the first frames of the next messages."""
    taken: list[bytes] = []
    deadline = monotonic() + PATIENCE
    while len(taken) < count and monotonic() < deadline:
        taken += [bytes(frames[0]) for _, frames in manager.receive()]
        manager.wait(0.05)
    return taken


def test_a_forked_child_sends_and_receives_nothing(two: tuple[TcpManager, TcpManager]) -> None:
    root, worker = two
    worker.send(0, [b"before"])

    def calls_everything() -> bool:
        worker.send(0, [b"a child's"])
        root.send(1, [b"a child's"])
        worker.wake()
        worker.wait(0.01)
        silent = not worker.receive() and not root.receive()
        alone = not worker.lost() and not worker.absent() and worker.forked
        worker.close(1.0)
        root.close(1.0)
        return silent and alone

    assert in_child(calls_everything) == FINE
    assert not worker.forked
    worker.send(0, [b"after"])
    root.send(1, [b"to the worker"])
    assert take(root, 2) == [b"before", b"after"]
    assert take(worker, 1) == [b"to the worker"]
    assert root.lost() == worker.lost() == []


def test_a_forked_child_keeps_no_connection_open(two: tuple[TcpManager, TcpManager]) -> None:
    descriptors = [stream.fileno() for manager in two for stream in manager._streams]
    assert descriptors

    def holds_none() -> bool:
        held = []
        for descriptor in descriptors:
            with suppress(OSError):
                held.append(os.fstat(descriptor))
        return not held

    assert in_child(holds_none) == FINE


def test_a_child_forked_while_a_thread_waits_can_end_in_any_way(
    two: tuple[TcpManager, TcpManager],
) -> None:
    _, worker = two
    waiter = threading.Thread(target=worker.wait, args=(PATIENCE,))
    waiter.start()
    assert in_child(lambda: worker.wait(0.01) is None, lambda status: worker.abort(status)) == FINE  # type: ignore[attr-defined]
    worker.wake()
    waiter.join(PATIENCE)
    assert not waiter.is_alive()


class Plain(Forkable):
    """A manager of somebody else's, that lets the child know."""

    rank, size, hosts = 0, 1, ("here",)
    closed = False

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        raise AssertionError(rank, frames)

    def receive(self) -> list[tuple[int, list[Frame]]]:
        raise AssertionError

    def wait(self, timeout: float) -> None:
        raise AssertionError(timeout)

    def wake(self) -> None:
        raise AssertionError

    def lost(self) -> list[LostPeer]:
        raise AssertionError

    def close(self, timeout: float) -> None:
        raise AssertionError(timeout)

    def _close_copies(self) -> None:
        self.closed = True
        raise OSError("some descriptor is closed already")


def test_other_managers_fall_silent_too_and_keep_their_attributes() -> None:
    manager = Plain()

    def is_silent() -> bool:
        manager.send(0, [])
        return manager.closed and not manager.receive() and manager.hosts == ("here",)

    manager.hosts = ("here",)
    assert in_child(is_silent) == FINE
    assert not manager.closed
