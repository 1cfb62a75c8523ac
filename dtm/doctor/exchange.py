"""A trial run: its workers tell what they see, and the root measures round trips and bandwidth.

``python -m dtm.doctor.exchange`` joins or starts a run as any program does.  It uses the
communication manager directly, so the figures are those of the manager.  It prints lines
of JSON: under MPI each rank prints the name of the library before it joins, and its rank
after; the root prints in the end what was exchanged.

Invariant: no wait for a message is longer than a set time, so a run whose workers hang
ends too.  If a library hangs, the process that has started this one ends it.

Called in the main thread, with a manager that nobody else uses.

Rejected: a task of dtm's that does the measuring.  It would measure the scheduler too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
_LEVELS = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")


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
    """What a process of a trial run has told.

    Attributes:
        machines: what each rank sees of its machine, by rank; told by the root.
        links: what was measured: a worker of each machine; told by the root.
        error: why the run did not come to its end, empty if it did.
        rank: the rank of the process.
        size: how many ranks the run has; 0 if the process has not joined it.
        library: what the MPI library says of itself; empty if none was loaded.
        level: the thread level that MPI came up with; empty if it did not.
    """

    machines: dict[int, Machine] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    error: str = ""
    rank: int = 0
    size: int = 0
    library: str = ""
    level: str = ""


def messages(manager: CommunicationManager, seconds: float) -> Iterator[tuple[int, list[Frame]]]:
    """Give the messages of a manager, one by one.

    Raises:
        CommunicationError: none came for so many seconds, or a worker is gone.
    """
    while True:
        deadline = monotonic() + seconds
        while not (came := manager.receive()):
            lost = manager.lost()
            if lost:
                raise CommunicationError(f"worker {lost[0].rank} was lost: {lost[0].reason}")
            left = deadline - monotonic()
            if left <= 0:
                raise CommunicationError(f"no message came within {seconds:g} s")
            manager.wait(left)
        yield from came


def lead(manager: CommunicationManager, seconds: float = ANSWER_SECONDS) -> Exchanged:
    """Ask all the workers, tell them that it is over, and return what came of it."""
    done = Exchanged(machines={0: machine.look()}, size=manager.size)
    inbox = messages(manager, seconds)
    others = range(1, manager.size)
    try:
        for rank in others:
            manager.send(rank, [_LOOK, b""])
        for _ in others:
            rank, frames = next(inbox)
            done.machines[rank] = machine.read(json.loads(bytes(frames[0])))
        done.links.extend(_measured(manager, inbox, rank) for rank in partners(manager.hosts))
    except CommunicationError as error:
        return replace(done, error=str(error))
    finally:
        for rank in others:
            manager.send(rank, [_END, b""])
        manager.close(_CLOSE_SECONDS)
    return done


def _measured(
    manager: CommunicationManager, inbox: Iterator[tuple[int, list[Frame]]], rank: int
) -> Link:
    def ask(what: bytes, load: Frame) -> float:
        start = perf_counter()
        manager.send(rank, [what, load])
        next(inbox)
        return perf_counter() - start

    trips: list[float] = []
    start = perf_counter()
    while len(trips) < _TRIPS and perf_counter() - start < _TRIPS_SECONDS:
        trips.append(ask(_ECHO, b"12345678"))
    large = bytearray(_LARGE)
    taken = min(ask(_TAKE, large) for _ in range(_LARGE_TIMES))
    hosts = manager.hosts
    near = hosts[rank] == hosts[0]
    return Link(rank, hosts[rank], near, sorted(trips)[len(trips) // 2], _LARGE / taken)


def partners(hosts: Sequence[str]) -> list[int]:
    """Return whom the root measures: the first other rank of each machine, of 16 at most."""
    first: dict[str, int] = {}
    for rank in range(1, len(hosts)):
        first.setdefault(hosts[rank], rank)
    return list(first.values())[:_MOST_PARTNERS]


def answer(manager: CommunicationManager, seconds: float = 3 * ANSWER_SECONDS) -> None:
    """Answer the root's questions until it says that it is over."""
    try:
        for _, (what, load) in messages(manager, seconds):
            if bytes(what) == _END:
                break
            if bytes(what) == _ECHO:
                manager.send(0, [load])
            else:
                seen = asdict(machine.look()) if bytes(what) == _LOOK else None
                manager.send(0, [json.dumps(seen).encode()])
    finally:
        manager.close(_CLOSE_SECONDS)


def told(output: str) -> dict[str, Any]:
    """Return the fields of an exchange that a process has printed, as far as it came."""
    known: dict[str, Any] = {}
    for line in output.splitlines():
        with suppress(json.JSONDecodeError):  # other lines, and one that was cut off
            if line.startswith("{"):
                known |= json.loads(line)
    return known


def read(known: dict[str, Any]) -> Exchanged:
    """Return the exchange with these fields."""
    machines = {int(rank): machine.read(each) for rank, each in known.get("machines", {}).items()}
    links = [Link(**link) for link in known.get("links", ())]
    return Exchanged(**{**known, "machines": machines, "links": links})


def tell(**fields: Any) -> None:
    """Print fields of an exchange."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Become a run, exchange, and print what came of it."""
    from dtm.options import Options
    from dtm.run.managers import join

    chosen = Options().overridden(os.environ)
    manager = _join_mpi() if chosen.communicationManager == "mpi" else join(chosen)
    if manager.rank == 0:
        tell(**{name: value for name, value in asdict(lead(manager)).items() if value})
        return
    with suppress(CommunicationError):  # the root has seen the same, and says so
        answer(manager)


def _join_mpi() -> CommunicationManager:
    """Join the MPI run, or start one of a single rank; each step is told before the next."""
    from dtm.comm.mpi.library import load
    from dtm.comm.mpi.manager import MpiManager

    try:
        mpi = load()
        tell(library=" ".join(mpi.Get_library_version().split()).rstrip("\0"))
        manager = MpiManager()
    except CommunicationError as error:
        tell(error=str(error))
        sys.exit(1)
    levels = {getattr(mpi, f"THREAD_{name}"): name for name in _LEVELS}
    tell(level=levels[mpi.Query_thread()], rank=manager.rank, size=manager.size)
    return manager


if __name__ == "__main__":
    main()
