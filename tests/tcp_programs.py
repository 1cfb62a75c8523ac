"""Runs over TCP for tests: workers in processes and in threads, and strangers.

Run as a program, this file is one rank of a conformance scenario.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from dtm.comm.tcp.address import Address
from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.manager import TcpManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dtm.comm.base import CommunicationManager, Frame
    from dtm.comm.tcp.manager import TcpRoot
    from dtm.testing.conformance import Scenario

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0


class Factory:
    """Runs a scenario on the ranks of a TCP run, all but the root in processes of their own."""

    def __init__(self, *, tls: bool) -> None:
        self.tls = tls

    @staticmethod
    def vanish(_: CommunicationManager) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, scenario: Scenario, size: int) -> None:
        credentials = Credentials.fresh(tls=self.tls)
        root = TcpManager.lead(size, credentials)
        with ExitStack() as stack:
            ranks = [
                stack.enter_context(rank_process(root.address, rank)) for rank in range(1, size)
            ]
            for process in ranks:
                assert process.stdin is not None
                process.stdin.write(credentials.to_bytes() + pickle.dumps(scenario))
                process.stdin.close()
            scenario(root)
            ends = [process.wait(60) for process in ranks]
        last = -signal.SIGKILL if "vanish" in getattr(scenario, "keywords", {}) else 0
        assert not any(ends[:-1])
        assert not ends or ends[-1] == last


@contextmanager
def rank_process(address: str, rank: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.tcp_programs", address, str(rank)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running(*managers: TcpManager) -> Iterator[list[tuple[int, int, list[Frame]]]]:
    """Let managers read, in a thread; what comes is listed as (receiver, sender, frames)."""
    received: list[tuple[int, int, list[Frame]]] = []
    done = Event()

    def read() -> None:
        while not done.is_set():
            for manager in managers:
                manager.wait(0.005)
                received.extend((manager.rank, *each) for each in manager.receive())

    thread = Thread(target=read, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        done.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()


@contextmanager
def run_of(
    size: int, credentials: Credentials | None = None, **options: object
) -> Iterator[tuple[TcpRoot, Credentials]]:
    """Lead a run, and close it in the end."""
    credentials = credentials or Credentials.fresh()
    root = TcpManager.lead(size, credentials, **options)  # type: ignore[arg-type]
    try:
        yield root, credentials
    finally:
        root.close(0.1)


def pump(
    root: TcpManager, until: Callable[[], object], patience: float = PATIENCE
) -> list[tuple[int, list[Frame]]]:
    """Let one manager read until something is so; return what came."""
    deadline = time.monotonic() + patience
    received = []
    while not until():
        assert time.monotonic() < deadline, "it never came to that"
        root.wait(0.05)
        received += root.receive()
    return received


def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until something is so that another thread brings about."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def stranger(root: TcpRoot) -> socket.socket:
    """Connect to a root."""
    address = Address.parse(root.address)
    return socket.create_connection((address.host, address.port), PATIENCE)


def closed(connection: socket.socket) -> bool:
    """Whether the other end has closed a connection."""
    connection.setblocking(False)
    with suppress(BlockingIOError):
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True
    return False


def main() -> None:
    """Be one rank of a scenario."""
    credentials = Credentials.read(sys.stdin.buffer)
    manager = TcpManager.join(sys.argv[1], credentials, rank=int(sys.argv[2]))
    pickle.loads(sys.stdin.buffer.read())(manager)


if __name__ == "__main__":
    main()
