"""The doorbell: one byte from a rank of this machine wakes another, so that nobody polls.

MPI has no way to sleep until a message comes: a blocking receive burns a core.
Ranks that share a machine therefore ring: each owns a Unix datagram socket on
which it can sleep, and a byte on it means "look at MPI".  A bell carries no
information and may be superfluous; it must never be missing.

Invariants:

* The byte is sent after the message, and read before MPI is looked at.  A bell
  that is read too early to find its message is answered by looking again for
  some milliseconds (:class:`dtm.comm.mpi.manager.MpiManager`).
* A full socket buffer loses nothing: bells are already waiting in it.
* A flag per rank in shared memory says who sleeps; only sleepers are rung (a
  look costs 0.1 µs, a bell 2 to 9 µs).  Flags start as "asleep", so a rank that
  cannot reach the shared page is rung each time.

Threads: ``ring`` from any.  ``ask_for_bells``, ``decline_bells`` and ``drain`` by the thread
that leads the waiting (:mod:`dtm.comm.mpi.manager`).  ``close`` when no other thread is inside.

================ ============================ ===========================================
attribute        written by                   read by
================ ============================ ===========================================
``_addresses``   the constructor, ``meet``,   ``ring``; between ``meet`` and ``close`` it
                 ``close``                    does not change, so without a lock
``_flags``       the ranks, each its own      ``ring`` of the others, without a lock: a
                 byte                         stale "asleep" is a superfluous bell, for a
                                              stale "awake" see the first invariant
================ ============================ ===========================================

Rejected: a futex on the shared page, which Python cannot reach; a pipe for each
pair of ranks, n² descriptors; a file in ``/dev/shm``, which a killed run leaves
behind (an anonymous file and abstract socket names vanish by themselves).
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

_TOKEN = 16


class Card(NamedTuple):
    """What a rank tells the others about its bell.  ``place`` is empty where it has none."""

    place: str = ""
    address: bytes = b""
    process: int = 0
    page: int = -1
    token: bytes = b""


class Doorbell:
    """The bell of one rank, and the way to its neighbours' bells."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rank = 0
        self._socket: socket.socket | None = None
        self._page = -1
        self._flags: mmap.mmap | bytes = bytes([1]) * (_TOKEN + size)
        self._addresses: dict[int, bytes] = {}
        self.card = Card()
        if sys.platform == "linux":
            try:
                self.card = self._open()
            except OSError:
                self.close()

    def _open(self) -> Card:
        place = os.readlink("/proc/self/ns/net")
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            place += boot.read().strip()
        token = os.urandom(_TOKEN)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("")
        self._page = os.memfd_create("dtm-asleep")
        os.write(self._page, token + bytes([1]) * self._size)
        return Card(place, self._socket.getsockname(), os.getpid(), self._page, token)

    def meet(self, rank: int, cards: Sequence[Card]) -> None:
        """Learn who else lives here; ``cards`` are those of all ranks, in order."""
        self._rank = rank
        here = [peer for peer, card in enumerate(cards) if card.place == self.card.place]
        if self._socket is None:
            return
        self._addresses = {peer: cards[peer].address for peer in here if peer != rank}
        first = cards[here[0]]
        try:
            self._share_page(f"/proc/{first.process}/fd/{first.page}", first.token)
        except (OSError, ValueError):
            return
        self.decline_bells()

    def _share_page(self, path: str, token: bytes) -> None:
        page = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            flags = mmap.mmap(page, _TOKEN + self._size)
        finally:
            os.close(page)
        if flags[:_TOKEN] == token:
            self._flags = flags

    @property
    def neighbours(self) -> AbstractSet[int]:
        """The other ranks that can ring here and be rung from here."""
        return self._addresses.keys()

    def fileno(self) -> int:
        """Return the descriptor to sleep on, -1 where there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    def ring(self, rank: int) -> None:
        """Wake the neighbour if it may be asleep; nothing for a rank that is none."""
        if rank not in self._addresses or not self._flags[_TOKEN + rank] or self._socket is None:
            return
        try:
            self._socket.sendto(b"\0", self._addresses[rank])
        except OSError:  # full: rung already; refused: gone, which others notice
            return

    def ask_for_bells(self) -> None:
        """Ask to be rung from now on.  Look at MPI once more before sleeping."""
        self._set_flag(1)

    def decline_bells(self) -> None:
        """Ask not to be rung."""
        self._set_flag(0)

    def _set_flag(self, value: int) -> None:
        if isinstance(self._flags, mmap.mmap):
            self._flags[_TOKEN + self._rank] = value

    def drain(self) -> None:
        """Read all bells that wait.  Look at MPI afterwards, not before."""
        while self._socket is not None:
            try:
                self._socket.recv(1)
            except BlockingIOError:
                return

    def close(self) -> None:
        """Let go of the socket and the page."""
        self._addresses = {}
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._page >= 0:
            os.close(self._page)
            self._page = -1
