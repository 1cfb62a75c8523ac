"""The death watch: which ranks of this machine ended without closing.

MPI does not tell that a peer died: messages to it just stay away, until the
launcher kills the job without a word on the cause.  The kernel does tell: it
closes the sockets of a dead process.  So the root holds one stream connection
with every worker of its machine.  Its end without the farewell byte before it
is a death, on either side.  By the same connection a worker hands the root its exit
switch (:mod:`dtm.comm.mpi.exit_switch`).

Invariants:

* A connection is watched until its farewell or its end, whichever is first;
  hence each death is reported once.
* It stays open until ``close`` all the same: who hangs up on a peer that has
  said farewell would look dead to it.
* Who connects proves to belong to the run with a token that only MPI has carried.

Threads: after the constructor of the manager, its lock is held in each method, and so
around each access of an attribute.

============== ==================================== ===========================
attribute      written by                           read by
============== ==================================== ===========================
``_links``     ``connect``, ``accept``, ``close``   ``check``, ``farewell``
``_staying``   the same, ``check``                  ``overdue``
``_switches``  ``accept``, ``press``                ``press``
============== ==================================== ===========================

Rejected: heartbeats.  A worker inside a long C call would look dead, and an idle
run would never be silent.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from dtm.comm.base import LostPeer
from dtm.comm.mpi.exit_switch import press

_HELLO = struct.Struct("<16sI")
_FAREWELL = b"c"
_CONNECT_SECONDS = 5.0
_EXIT_CODE_FIELD = 52


class Card(NamedTuple):
    """What each rank sends to all others at the start; the root's says where it listens."""

    process: int
    address: bytes = b""
    token: bytes = b""


class Deathwatch:
    """One end of the connections between the root and the workers of its machine."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._links: dict[int, tuple[int, socket.socket]] = {}
        self._staying: set[int] = set()  # those who have neither said farewell nor died
        self._switches: dict[int, int] = {}
        self._listener: socket.socket | None = None
        self._events = select.epoll() if sys.platform == "linux" else None
        self.card = Card(os.getpid())
        if rank == 0 and self._events is not None:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.setblocking(False)
            self._listener.bind("")
            self._listener.listen(socket.SOMAXCONN)
            name = self._listener.getsockname()
            self.card = Card(os.getpid(), name, os.urandom(16))

    def connect(
        self, cards: Sequence[Card], neighbours: AbstractSet[int], switch: Sequence[int]
    ) -> None:
        """Connect to the root if it is on this machine.  Every rank does so before ``accept``.

        ``switch`` is the writing end of this rank's exit switch, if it has one.
        """
        self._processes = [card.process for card in cards]
        root = cards[0]
        if self._rank == 0 or 0 not in neighbours or not root.address:
            return
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(_CONNECT_SECONDS)
        try:
            link.connect(root.address)
            socket.send_fds(link, [_HELLO.pack(root.token, self._rank)], switch)
        except OSError:  # without it a death is merely noticed by the launcher alone
            link.close()
            return
        self._add(0, link)

    def accept(self) -> None:
        """(Root) accept the connections that have been made, which are queued in the kernel."""
        while self._listener is not None:
            try:
                link, _ = self._listener.accept()
            except BlockingIOError:
                self._listener.close()
                self._listener = None
                return
            self._admit(link)

    def _admit(self, link: socket.socket) -> None:
        link.setblocking(False)
        try:
            hello, descriptors, _, _ = socket.recv_fds(link, _HELLO.size, 1)
            token, rank = _HELLO.unpack(hello)
        except (OSError, struct.error):
            descriptors, token, rank = [], b"", 0
        if token == self.card.token and 0 < rank < len(self._processes):
            self._add(rank, link)
            for descriptor in descriptors:
                self._switches[rank] = descriptor
        else:
            link.close()
            for descriptor in descriptors:
                os.close(descriptor)

    def _add(self, rank: int, link: socket.socket) -> None:
        link.setblocking(False)
        self._links[link.fileno()] = (rank, link)
        self._staying.add(rank)
        if self._events is not None:
            self._events.register(link.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``check`` has work, -1 for none."""
        return -1 if self._events is None else self._events.fileno()

    def check(self) -> list[LostPeer]:
        """Return who has died since the last call.  Does not block."""
        if self._events is None or not self._links:
            return []
        lost = []
        for descriptor, _ in self._events.poll(0):
            rank, link = self._links[descriptor]
            self._events.unregister(descriptor)
            self._staying.discard(rank)
            try:
                parted = link.recv(1) == _FAREWELL
            except OSError:
                parted = False
            if not parted:
                lost.append(LostPeer(rank, _last_words(self._processes[rank])))
        return lost

    def farewell(self) -> None:
        """Tell the peers that this process is about to end in order."""
        for _, link in self._links.values():
            try:
                link.send(_FAREWELL)
            except OSError:  # it is gone; there is nobody to tell
                continue

    def overdue(self) -> set[int]:
        """Return the ranks of this machine that are alive and have not said farewell."""
        return set(self._staying)

    def press(self, ranks: AbstractSet[int]) -> bool:
        """(Root) end ranks by their exit switches, if each of them has one; tell whether."""
        if not ranks <= self._switches.keys():
            return False
        for rank in ranks:
            press(self._switches[rank])
        return True

    def close(self) -> None:
        """Let go of all descriptors; nothing is said to anybody, so a forked child may do it."""
        for _, link in self._links.values():
            link.close()
        for switch in self._switches.values():
            os.close(switch)
        self._links, self._switches = {}, {}
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._events is not None:
            self._events.close()
            self._events = None


def _last_words(process: int) -> str:
    """Return how a process ended, if the launcher has not collected its status yet."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as stat:
            after_name = stat.read().rpartition(")")[2].split()
        status = int(after_name[_EXIT_CODE_FIELD - 3])
    except (OSError, ValueError, IndexError):
        status = 0
    if number := status & 0x7F:
        import signal

        return f"process {process} was killed by {signal.Signals(number).name}"
    if status:
        return f"process {process} ended with status {status >> 8}"
    return f"process {process} ended without closing"
