"""A real exchange between workers: what each sees of its machine, round trips, bandwidth.

The root asks, one worker after the other, and the workers answer until they are
told that it is over.  It goes through the communication manager of a real run, and
nothing above it, so the figures are those of the manager.  As a program of its own,
``python -m dtm.doctor.exchange``, this becomes a run as any program does, and
prints what it measured as JSON.

Invariant: the root waits for no answer longer than said, and a worker not longer
than that for the next question; so a run that hangs ends too.

Called in the main thread, with a manager that nobody else uses.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from time import monotonic, perf_counter
from typing import Any

from dtm.comm.base import CommunicationManager, Frame
from dtm.doctor import machine
from dtm.doctor.machine import Machine
from dtm.errors import CommunicationError

ANSWER_SECONDS = 20.0
_CLOSE_SECONDS = 10.0
_LOOK, _ECHO, _TAKE, _END = b"look", b"echo", b"take", b"end"
_TRIPS = 200
_TRIPS_SECONDS = 1.0
_LARGE = 16_000_000
_LARGE_TIMES = 4
_MOST_PARTNERS = 16


@dataclass(frozen=True, slots=True)
class Link:
    """What was measured between the root and a worker.

    Attributes:
        rank: the worker's number.
        host: its machine.
        near: whether that is the root's machine too.
        round_trip: seconds of a small message there and back, the median.
        bandwidth: bytes a second of large messages.
    """

    rank: int
    host: str
    near: bool
    round_trip: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What came of an exchange.

    Attributes:
        machines: what each rank sees of its machine, by rank.
        links: what was measured: a worker of each machine.
        error: why it did not come to its end, empty if it did.
    """

    machines: dict[int, Machine] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    error: str = ""


class Root:
    """The one who asks."""

    def __init__(self, manager: CommunicationManager, seconds: float = ANSWER_SECONDS) -> None:
        self._manager = manager
        self._inbox = Inbox(manager, seconds)

    def exchange(self) -> Exchanged:
        """Ask all the workers, tell them that it is over, and return what came of it."""
        manager = self._manager
        done = Exchanged(machines={0: machine.look()})
        others = range(1, manager.size)
        try:
            for rank in others:
                manager.send(rank, [_LOOK, b""])
            for _ in others:
                rank, frames = self._inbox.next()
                done.machines[rank] = machine.read(json.loads(bytes(frames[0])))
            done.links.extend(map(self._measured, partners(manager.hosts)))
        except CommunicationError as error:
            return replace(done, error=str(error))
        finally:
            for rank in others:
                manager.send(rank, [_END, b""])
            manager.close(_CLOSE_SECONDS)
        return done

    def _measured(self, rank: int) -> Link:
        trips: list[float] = []
        start = perf_counter()
        while len(trips) < _TRIPS and perf_counter() - start < _TRIPS_SECONDS:
            trips.append(self._asked(rank, _ECHO, b"12345678"))
        large = bytearray(_LARGE)
        taken = min(self._asked(rank, _TAKE, large) for _ in range(_LARGE_TIMES))
        hosts = self._manager.hosts
        near = hosts[rank] == hosts[0]
        return Link(rank, hosts[rank], near, sorted(trips)[len(trips) // 2], _LARGE / taken)

    def _asked(self, rank: int, what: bytes, load: Frame) -> float:
        """Send a question, wait for the answer; return the seconds that it took."""
        start = perf_counter()
        self._manager.send(rank, [what, load])
        self._inbox.next()
        return perf_counter() - start


class Inbox:
    """The messages of a manager, one by one, each within a time."""

    def __init__(self, manager: CommunicationManager, seconds: float) -> None:
        self._manager = manager
        self._seconds = seconds
        self._messages: deque[tuple[int, list[Frame]]] = deque()

    def next(self) -> tuple[int, list[Frame]]:
        """Return the next message.

        Raises:
            CommunicationError: none came in time, or a worker is gone.
        """
        deadline = monotonic() + self._seconds
        while not self._messages:
            self._messages += self._manager.receive()
            lost = [] if self._messages else self._manager.lost()
            if lost:
                raise CommunicationError(f"worker {lost[0].rank} was lost: {lost[0].reason}")
            left = deadline - monotonic()
            if left <= 0:
                raise CommunicationError(f"no message came within {self._seconds:g} s")
            if not self._messages:
                self._manager.wait(left)
        return self._messages.popleft()


def answer(manager: CommunicationManager, seconds: float = 3 * ANSWER_SECONDS) -> None:
    """Answer the root's questions until it says that it is over."""
    inbox = Inbox(manager, seconds)
    try:
        while True:
            _, (what, load) = inbox.next()
            if bytes(what) == _END:
                break
            if bytes(what) == _LOOK:
                load = json.dumps(asdict(machine.look())).encode()
            elif bytes(what) == _TAKE:
                load = b""
            manager.send(0, [load])
    finally:
        manager.close(_CLOSE_SECONDS)


def partners(hosts: Sequence[str]) -> list[int]:
    """Return whom the root measures: the first other rank of each machine, of 16 at most."""
    first: dict[str, int] = {}
    for rank in range(1, len(hosts)):
        first.setdefault(hosts[rank], rank)
    return list(first.values())[:_MOST_PARTNERS]


def written(exchanged: Exchanged) -> str:
    """Return what :func:`read` makes this from."""
    return json.dumps(asdict(exchanged))


def read(text: str) -> Exchanged:
    """Return the exchange that was written.

    Raises:
        ValueError: the text is not one.
    """
    seen: Any = json.loads(text)
    machines = {int(rank): machine.read(each) for rank, each in seen["machines"].items()}
    return Exchanged(machines, [Link(**link) for link in seen["links"]], seen["error"])


def main() -> None:
    """Become a run, exchange, and print on the root what came of it."""
    from dtm.options import Options
    from dtm.run.runtime import join

    manager = join(Options().overridden(os.environ))
    if manager.rank:
        answer(manager)
    else:
        sys.stdout.write(written(Root(manager).exchange()) + "\n")


if __name__ == "__main__":
    main()
