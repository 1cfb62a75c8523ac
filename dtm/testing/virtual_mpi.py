"""MPI between controlled processes, for the production manager of MPI.

:class:`VirtualMpiManager` is the production manager, in whose module some names are exchanged: the
library, the doorbell, the death watch, the pipe that wakes and the poller.  So its own code, its
mail and its locks are what is explored.

What the library owes is kept: messages of equal sender, receiver and tag do not overtake each
other; a small message may be out at once, others are when their receiver has taken them, and that
is the schedule's choice; and calls of two threads of a process at the same time are an error.

Threads: controlled ones.

Rejected: the production doorbell with real sockets.  A thread that sleeps on a real descriptor
is not controlled.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from dtm.comm.base import LostPeer
from dtm.comm.mpi import manager as production
from dtm.testing.actors import Actor
from dtm.testing.controller import Controller
from dtm.testing.primitives import OS
from dtm.testing.substitution import Overlay
from dtm.testing.virtual_network import Links
from dtm.testing.virtual_time import stage

EAGER_BYTES = 200
ANY = -1
_MODULE = production.__name__


class Request:
    """Something under way; ``Test`` says whether it is done."""

    def __init__(self, *, done: bool = False) -> None:
        self.done = done

    def finish(self) -> None:
        """It is done."""
        self.done = True

    def Test(self) -> bool:  # noqa: N802 - the name of mpi4py
        """Whether it is done."""
        return self.done


class Sent:
    """A message under way: its content, and the request of its sender."""

    def __init__(self, source: int, to: int, tag: int, content: bytes, request: Request) -> None:
        self.source = source
        self.to = to
        self.tag = tag
        self.content = content
        self.request = request


class MpiWorld:
    """What the ranks of one run share."""

    def __init__(self, links: Links) -> None:
        size = len(links.processes)
        self.links = links
        self.size = size
        self.arrived: list[list[Sent]] = [[] for _ in range(size)]
        self.posted: list[list[tuple[int, int, Any, Request]]] = [[] for _ in range(size)]
        self.inside: list[Actor | None] = [None] * size
        self.asleep = [True] * size
        self.bells = [Descriptor() for _ in range(size)]
        self.deaths = [Descriptor() for _ in range(size)]
        self.losses: list[list[LostPeer]] = [[] for _ in range(size)]
        self._gathered: dict[int, dict[int, Any]] = {}
        self._rounds = [0] * size
        self._sends = 0
        self._gathering: list[Actor] = []
        self._barriers: list[tuple[set[int], Request]] = []
        for rank in range(size):
            links.mourners[rank] = partial(self._hear, rank)

    @property
    def rank(self) -> int:
        """The rank of the process that runs."""
        return self.links.processes.index(stage.controller.current.process)

    def _hear(self, rank: int, lost: LostPeer) -> None:
        if rank == 0 or lost.rank == 0:
            self.losses[rank].append(lost)
            self.deaths[rank].put()

    @contextmanager
    def call(self, rank: int, name: str) -> Iterator[None]:
        """Count a call of the library; two threads of a process must not be inside at once."""
        controller = self.links.controller
        other = self.inside[rank]
        if other is not None and other is not controller.current:
            controller.fail(f"{controller.current!r} calls {name} while {other!r} is inside of MPI")
        self.inside[rank] = controller.current
        try:
            self.links.operate(rank)
            yield
        finally:
            self.inside[rank] = None

    def is_eager(self, length: int) -> bool:
        """Whether a message is out at once: every other small one is."""
        self._sends += 1
        return length <= EAGER_BYTES and self._sends % 2 > 0

    def arrive(self, message: Sent) -> None:
        """Match a message with a receive that waits for it, or keep it."""
        for entry in self.posted[message.to]:
            if entry[:2] == (message.source, message.tag):
                self.posted[message.to].remove(entry)
                self.fill(message, entry[2], entry[3])
                return
        self.arrived[message.to].append(message)

    def take(self, rank: int, source: int, tag: int, *, remove: bool = True) -> Sent | None:
        """Return the first message that matches, if there is one."""
        for message in self.arrived[rank]:
            if message.tag == tag and source in (ANY, message.source):
                if remove:
                    self.arrived[rank].remove(message)
                return message
        return None

    def fill(self, message: Sent, buffer: Any, request: Request) -> None:
        """Let a receive take place: at once if it is small, else when the schedule says."""
        view = memoryview(buffer).cast("B")
        view[: len(message.content)] = message.content
        if message.request.done:
            request.finish()
            return

        def finish() -> None:
            request.finish()
            message.request.finish()

        self.links.carry(message.source, message.to, finish)

    def gather(self, rank: int, value: Any) -> list[Any]:
        """Return what each rank has brought, once all have."""
        controller = self.links.controller
        number = self._rounds[rank]
        self._rounds[rank] += 1
        brought = self._gathered.setdefault(number, {})
        brought[rank] = value
        controller.wake(self._gathering)
        while len(brought) < self.size:
            controller.block(self._gathering)
        return [brought[each] for each in range(self.size)]

    def barrier(self, rank: int) -> Request:
        """Return a request that is done when every rank has begun one."""
        if not self._barriers or all(rank in ranks for ranks, _ in self._barriers):
            self._barriers.append((set(), Request()))
        ranks, request = next(each for each in self._barriers if rank not in each[0])
        ranks.add(rank)
        if len(ranks) == self.size:
            request.finish()
        return request


class Message:
    """A message whose receiver has claimed it."""

    def __init__(self, world: MpiWorld, sent: Sent) -> None:
        self._world = world
        self._sent = sent

    def Irecv(self, buffer: Sequence[Any]) -> Request:  # noqa: N802 - the name of mpi4py
        """Begin to receive it."""
        request = Request()
        self._world.fill(self._sent, buffer[0], request)
        return request


class Status:
    """Where a message came from and how long it is."""

    def __init__(self) -> None:
        self.sent: Sent | None = None

    def Get_source(self) -> int:  # noqa: N802 - the name of mpi4py
        """Return the rank of the sender."""
        assert self.sent is not None
        return self.sent.source

    def Get_count(self, _datatype: object) -> int:  # noqa: N802 - the name of mpi4py
        """Return how many bytes it has."""
        assert self.sent is not None
        return len(self.sent.content)


class Comm:
    """The communicator of one rank, with the methods that dtm uses, named as mpi4py does."""

    def __init__(self, world: MpiWorld) -> None:
        self._world = world
        self._rank = world.rank

    def Dup(self) -> Comm:  # noqa: N802
        """Return itself: nobody else uses it."""
        return self

    def Free(self) -> None:  # noqa: N802
        """There is nothing to free."""

    def Set_errhandler(self, _handler: object) -> None:  # noqa: N802
        """Errors are exceptions here."""

    def Get_rank(self) -> int:  # noqa: N802
        """Return the rank."""
        return self._rank

    def Get_size(self) -> int:  # noqa: N802
        """Return how many ranks there are."""
        return self._world.size

    def allgather(self, value: Any) -> list[Any]:
        """Return what all ranks have brought."""
        return self._world.gather(self._rank, value)

    def Barrier(self) -> None:  # noqa: N802
        """Wait for all ranks."""
        self._world.gather(self._rank, None)

    def Ibarrier(self) -> Request:  # noqa: N802
        """Begin to wait for all ranks."""
        with self._world.call(self._rank, "Ibarrier"):
            return self._world.barrier(self._rank)

    def Isend(self, buffer: Sequence[Any], to: int, tag: int) -> Request:  # noqa: N802
        """Begin to send."""
        world = self._world
        with world.call(self._rank, "Isend"):
            content = bytes(memoryview(buffer[0]))
            request = Request(done=world.is_eager(len(content)))
            sent = Sent(self._rank, to, tag, content, request)
            if world.links.processes[to].status is None:
                world.links.carry(self._rank, to, partial(world.arrive, sent))
            return request

    def Irecv(self, buffer: Sequence[Any], source: int, tag: int) -> Request:  # noqa: N802
        """Begin to receive from a rank."""
        world = self._world
        with world.call(self._rank, "Irecv"):
            request = Request()
            sent = world.take(self._rank, source, tag)
            if sent is None:
                world.posted[self._rank].append((source, tag, buffer[0], request))
            else:
                world.fill(sent, buffer[0], request)
            return request

    def Improbe(self, source: int, tag: int, status: Status) -> Message | None:  # noqa: N802
        """Claim a message that has come."""
        with self._world.call(self._rank, "Improbe"):
            status.sent = self._world.take(self._rank, source, tag)
            return None if status.sent is None else Message(self._world, status.sent)

    def Iprobe(self, source: int, tag: int) -> bool:  # noqa: N802
        """Whether a message has come."""
        with self._world.call(self._rank, "Iprobe"):
            return self._world.take(self._rank, source, tag, remove=False) is not None


class MpiFailure(Exception):  # noqa: N818 - stands for MPI.Exception
    """The library reports an error; it never does here."""


class Descriptor:
    """What a process can sleep on: how many bytes wait in it, and who sleeps.

    It stands for its own number, which is not negative.
    """

    def __ge__(self, other: object) -> bool:
        return True

    def __init__(self) -> None:
        self.count = 0
        self.pollers: list[list[Actor]] = []

    def put(self) -> None:
        """Add a byte and wake who sleeps."""
        self.count += 1
        for waiters in self.pollers:
            stage.controller.wake(waiters)


class Poller:
    """Stands for ``select.poll``; descriptors are their own numbers."""

    def __init__(self) -> None:
        self._registered: list[Descriptor] = []
        self._waiters: list[Actor] = []

    def register(self, descriptor: Any, _events: int) -> None:
        """Watch a descriptor as well."""
        self._registered.append(descriptor)
        descriptor.pollers.append(self._waiters)

    def poll(self, milliseconds: float) -> list[tuple[Any, int]]:
        """Sleep until one is readable or until time is up."""
        controller = stage.controller
        controller.point(everywhere=True)
        deadline = controller.clock + milliseconds / 1000
        while True:
            readable = [(each, select.POLLIN) for each in self._registered if each.count]
            if readable or controller.clock >= deadline:
                return readable
            controller.block(self._waiters, deadline)


class Bell:
    """Stands for the doorbell: who sleeps is rung at once, though its message may come later."""

    def __init__(self, _size: int) -> None:
        self._world = world()
        self._rank = self._world.rank
        self.card = self._rank

    def meet(self, _rank: int, _cards: Sequence[object]) -> None:
        """Learn who the others are; all live on one machine."""
        self.decline_bells()

    @property
    def neighbours(self) -> Collection[int]:
        """All the others."""
        return set(range(self._world.size)) - {self._rank}

    def fileno(self) -> Descriptor:
        """Return what to sleep on."""
        return self._world.bells[self._rank]

    def ring(self, rank: int) -> None:
        """Wake a rank if it may be asleep."""
        stage.controller.point(everywhere=True)
        if rank != self._rank and self._world.asleep[rank]:
            self._world.bells[rank].put()

    def ask_for_bells(self) -> None:
        """Ask to be rung."""
        stage.controller.point(everywhere=True)
        self._world.asleep[self._rank] = True

    def decline_bells(self) -> None:
        """Ask not to be rung."""
        self._world.asleep[self._rank] = False

    lie_down, get_up = ask_for_bells, decline_bells

    def drain(self) -> None:
        """Read all bells."""
        self._world.bells[self._rank].count = 0

    def close(self) -> None:
        """There is nothing to close."""


class Watch:
    """Stands for the death watch: the root hears of each worker's end, and they of the root's."""

    def __init__(self, rank: int) -> None:
        self._world = world()
        self._rank = rank
        self.card = rank

    def connect(self, *_: object) -> None:
        """All are connected."""

    def accept(self) -> None:
        """All are accepted."""

    def fileno(self) -> Descriptor:
        """Return what to sleep on."""
        return self._world.deaths[self._rank]

    def check(self) -> list[LostPeer]:
        """Return who has died since the last call."""
        self._world.deaths[self._rank].count = 0
        news, self._world.losses[self._rank] = self._world.losses[self._rank], []
        return news

    def farewell(self) -> None:
        """Tell the others that the coming end is meant."""
        self._world.links.closed.add(self._rank)

    def overdue(self) -> set[int]:
        """Nobody can be ended from outside here."""
        return set()

    def close(self) -> None:
        """There is nothing to close."""


class VirtualMpiManager(production.MpiManager):
    """The production manager on the virtual library."""

    def _gather(self, card: object) -> list[Any]:
        gathered: list[Any] = self._comm.allgather(card)
        return gathered

    @staticmethod
    def quit(status: int) -> None:  # type: ignore[override]
        """End this process."""
        stage.controller.leave(status)

    def abort(self, status: int) -> None:
        """End every process of the run."""
        controller = stage.controller
        for process in world().links.processes:
            if process is not controller.current.process:
                controller.exit(process, status)
        controller.leave(status)


_worlds: dict[Controller, MpiWorld] = {}


def world() -> MpiWorld:
    """Return the world of the schedule under way."""
    return _worlds[stage.controller]


@contextmanager
def mpi_world(links: Links) -> Iterator[None]:
    """Let managers be made in the processes of a schedule."""
    _worlds[links.controller] = MpiWorld(links)
    try:
        yield
    finally:
        del _worlds[links.controller]


def _library() -> Any:
    """Return what stands for ``mpi4py.MPI``, as the running process sees it."""
    return SimpleNamespace(
        COMM_WORLD=Comm(world()),
        BYTE=None,
        ANY_SOURCE=ANY,
        ERRORS_RETURN=None,
        Status=Status,
        Exception=MpiFailure,
        Get_processor_name=lambda: "host",
        buffer=SimpleNamespace(allocate=bytearray),
    )


def _pipe() -> tuple[Descriptor, Descriptor]:
    both = Descriptor()
    return both, both


def _read(descriptor: Descriptor, _most: int) -> bytes:
    stage.controller.point()
    if not descriptor.count:
        raise BlockingIOError
    descriptor.count = 0
    return b"\0"


def _write(descriptor: Descriptor, data: bytes) -> int:
    stage.controller.point()
    descriptor.put()
    return len(data)


def _nothing(*_: object) -> None:
    """Do nothing with a descriptor."""


def exchanged() -> Mapping[str, Any]:
    """Return the names that the module of the production manager sees otherwise."""
    calls: dict[str, Callable[..., Any]] = {
        **OS, "pipe": _pipe, "set_blocking": _nothing, "read": _read, "write": _write,
        "close": _nothing,
    }  # fmt: skip
    return {
        f"{_MODULE}:load": _library,
        f"{_MODULE}:initialise": lambda _: False,
        f"{_MODULE}:Doorbell": Bell,
        f"{_MODULE}:Deathwatch": Watch,
        f"{_MODULE}:os": Overlay(os, calls),
        f"{_MODULE}:select": Overlay(select, {"poll": Poller}),
    }
