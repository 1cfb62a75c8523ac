"""The network between controlled processes: when a message arrives is the schedule's choice.

Messages of one sender to one receiver keep their order, those of different pairs do not.  A
process that ends without closing is lost; the others learn of it in their own time, before or
after the messages that it has sent.

Threads: controlled ones.

Rejected: latencies.  What can go wrong depends on the order of events only, and a schedule
that may hold any message back until nothing else can happen has every order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from dtm.comm.base import CommunicationManager, Frame, LostPeer
from dtm.testing.actors import Actor, Process
from dtm.testing.controller import Controller

KILLED = 137


class Links:
    """Joins the processes of one run.

    Attributes:
        closed: the ranks that have said that their end is meant.
        operations: how many operations the manager of each rank has begun.
        mourners: by rank, what to call with the deaths of others.

    Args:
        controller: of the schedule.
        processes: by rank.
        deaths: pairs of a rank and the number of the operation of its manager at which it dies.
    """

    def __init__(
        self,
        controller: Controller,
        processes: Sequence[Process],
        deaths: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.controller = controller
        self.processes = processes
        self.closed: set[int] = set()
        self.operations = [0] * len(processes)
        self.mourners: dict[int, Callable[[LostPeer], None]] = {}
        self._deaths = dict(deaths)
        ranks = range(len(processes))
        self._links = {
            (a, b): controller.link(f"what {a} has sent to {b}")
            for a in ranks
            for b in ranks
            if a != b
        }
        self._notices = [controller.link(f"that {rank} is gone") for rank in ranks]
        for rank, process in enumerate(processes):
            process.at_exit.append(partial(self._gone, rank))

    def _gone(self, rank: int) -> None:
        if rank in self.closed:
            return
        lost = LostPeer(rank, "its process has ended")
        for other, tell in self.mourners.items():
            if other != rank:
                self.controller.happen(self._notices[rank], partial(tell, lost))

    def operate(self, rank: int) -> None:
        """Count an operation of a rank; it may be the one at which it dies."""
        self.operations[rank] += 1
        if self._deaths.get(rank) == self.operations[rank]:
            self.controller.leave(KILLED)
        self.controller.point(everywhere=True)

    def carry(self, source: int, to: int, arrive: Callable[[], None]) -> None:
        """Have something arrive."""
        self.controller.happen(self._links[source, to], arrive)


class VirtualManager(CommunicationManager):
    """The manager of one rank, by the shortest way; ``peers`` are those of all ranks."""

    def __init__(self, links: Links, rank: int) -> None:
        self.rank = rank
        self.size = len(links.processes)
        self.hosts = ["host"] * self.size
        self._links = links
        self.peers: Sequence[VirtualManager] = ()
        self._inbox: deque[tuple[int, list[Frame]]] = deque()
        self._losses: list[LostPeer] = []
        self._known: set[int] = set()
        self._waiters: list[Actor] = []
        self._standing: list[Actor] = []
        self._waiting = 0
        self._wakes = 0
        self._woken = False
        self._alert = True
        links.mourners[rank] = self._hear

    def _hear(self, lost: LostPeer) -> None:
        self._losses.append(lost)
        self._known.add(lost.rank)
        self._rouse()

    def arrive(self, source: int, frames: list[Frame]) -> None:
        """Take in a message."""
        self._inbox.append((source, frames))
        self._rouse()

    def _rouse(self) -> None:
        """Let those who wait look again, and who stands by if it is to mind."""
        self._links.controller.wake(self._waiters)
        if self._alert:
            self._links.controller.wake(self._standing)

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        """Send a copy of the frames."""
        if rank == self.rank or not 0 <= rank < self.size:
            raise ValueError(f"rank {self.rank} cannot send to rank {rank} of {self.size}")
        links = self._links
        links.operate(self.rank)
        copies: list[Frame] = [bytes(memoryview(frame)) for frame in frames]
        if rank not in links.closed and links.processes[rank].status is None:
            links.carry(self.rank, rank, partial(self.peers[rank].arrive, self.rank, copies))

    def receive(self) -> list[tuple[int, list[Frame]]]:
        """Return what has come."""
        self._links.operate(self.rank)
        come = list(self._inbox)
        self._inbox.clear()
        return come

    def wait(self, timeout: float) -> None:
        """Sleep until something comes, until woken, or until time is up."""
        controller = self._links.controller
        self._links.operate(self.rank)
        if self._woken:
            self._woken = False
            return
        wakes = self._wakes
        deadline = controller.clock + timeout
        self._waiting += 1
        while not (self._come() or self._wakes != wakes):
            if not controller.block(self._waiters, deadline):
                break
        self._waiting -= 1

    def _come(self) -> bool:
        return bool(self._inbox or self._losses)

    def stand_by(self, timeout: float) -> bool:
        """Sleep likewise, but mind nothing of it while off ``alert``."""
        controller = self._links.controller
        self._links.operate(self.rank)
        wakes = self._wakes
        deadline = controller.clock + timeout
        while not (self._alert and (self._come() or self._woken or self._wakes != wakes)):
            if not controller.block(self._standing, deadline):
                return False
        self._woken = False
        return True

    def alert(self, on: bool) -> bool:
        """Say whether who stands by is to mind what comes."""
        self._links.operate(self.rank)
        self._alert = on
        if on and (self._come() or self._woken):
            self._links.controller.wake(self._standing)
        return True

    def wake(self) -> None:
        """End the waits that are under way, or else the next one."""
        controller = self._links.controller
        controller.point()
        if self._waiting:
            self._wakes += 1
        else:
            self._woken = True
        self._rouse()

    def lost(self) -> list[LostPeer]:
        """Return the ranks that are gone, each once."""
        losses, self._losses = self._losses, []
        return losses

    def absent(self) -> set[int]:
        """Return the ranks that are known to be lost; who has closed has said so before."""
        return set(self._known)

    def close(self, timeout: float) -> None:
        """Leave; all that was sent arrives."""
        self._links.operate(self.rank)
        self._links.closed.add(self.rank)

    def quit(self, status: int) -> None:
        """End this process."""
        self._links.controller.leave(status)

    def abort(self, status: int) -> None:
        """End this process at once."""
        self._links.controller.leave(status)


def joined(links: Links) -> list[VirtualManager]:
    """Return the managers of all ranks."""
    managers = [VirtualManager(links, rank) for rank in range(len(links.processes))]
    for each in managers:
        each.peers = managers
    return managers
