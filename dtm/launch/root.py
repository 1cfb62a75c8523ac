"""Joining a run over TCP that this process was started for; the root as its launcher sees it.

The launcher knows what no connection tells: that a process was killed by a signal, or
ended before it joined, or that a host cannot be heard.  It tells the root by the
line that its invitation came through.  By the same line the root tells its address, and
later whom it has lost: nobody need wait for these when the run is over.

A worker that joins by hand says why it ends when its root is gone; the others' launcher
does that.  An interrupt ends a worker as any signal does, and so it is lost: as an
exception of the task that happened to run it would come out of ``main``.

Threads: as in :class:`dtm.comm.base.CommunicationManager`.

Rejected: asking the launcher about each worker that is lost.  It may be the
launcher's host that is.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.manager import UNKNOWN, TcpManager, TcpRoot
from dtm.errors import UnreachableError
from dtm.launch.invitation import Invitation, accept_invitation

LOOPBACK = "127.0.0.1"
ROOT_GONE = "dtm: the root of the run is gone"
_EXPLAIN_SECONDS = 0.5  # an agent knows of a process's end soon after the kernel cut its streams
_JOIN_SECONDS = 30.0
_VERDICT_SECONDS = 2.0


def join_invited() -> TcpManager | None:
    """Join the run that this process was invited to, None if it was not.

    Raises:
        CommunicationError: who invited it is gone, or the run cannot be joined.
    """
    accepted = accept_invitation()
    if accepted is None:
        return None
    invitation, home, heard = accepted
    if invitation.address is None:
        joined: TcpManager = _lead(invitation, home, heard)
    else:
        joined = _follow(invitation, home)
    joined.carries_output = invitation.carries_output
    return joined


def _follow(invitation: Invitation, home: socket.socket) -> TcpManager:
    """Join the root, and say so to who started this process.

    If the root is not there, it may be because the run is over; then who started this
    process is about to end it.
    """
    with home:
        try:
            joined = _join(invitation)
        except UnreachableError:
            select.select([home], (), (), _VERDICT_SECONDS)
            raise
        with suppress(OSError):
            home.send(b"j")
    _let_interrupts_end_this_process()
    return joined


def _let_interrupts_end_this_process() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _join(invitation: Invitation) -> TcpManager:
    kind = Volunteer if invitation.rank is None else TcpManager
    return kind.join(
        invitation.address or "",
        Credentials.from_bytes(invitation.credentials.encode()),
        rank=invitation.rank,
        host=None if invitation.rank is None else invitation.hosts[invitation.rank],
        bind=invitation.bind,
        ports=invitation.ports,
        tls=invitation.tls,
        timeout=_JOIN_SECONDS,
    )


def _lead(invitation: Invitation, home: socket.socket, heard: bytes) -> TcpManager:
    reserved = len(invitation.hosts)
    root = TcpManager.lead(
        invitation.size,
        Credentials.from_bytes(invitation.credentials.encode()),
        bind=invitation.bind or LOOPBACK,
        ports=invitation.ports,
        tls=invitation.tls,
        hosts=[*invitation.hosts, *[UNKNOWN] * (invitation.size - reserved)],
        reserved=range(reserved),
        kind=Root,
    )
    assert isinstance(root, Root)
    root.listen_home(home, heard)
    return root


class Volunteer(TcpManager):
    """A worker that has joined by hand."""

    def _lose(self, rank: int, reason: str) -> None:
        if rank == 0 and rank not in self._gone and not self._leaving:
            with suppress(OSError):
                os.write(2, f"{ROOT_GONE} ({reason})\n".encode())
        super()._lose(rank, reason)


class HomeLine:
    """The line to who started this process: the endings of other workers come by it.

    Args:
        line: the socket.
        heard: what has come from there already.
        hear: takes ranks, and how they ended.
    """

    def __init__(
        self, line: socket.socket, heard: bytes, hear: Callable[[list[int], str], object]
    ) -> None:
        line.setblocking(False)
        self.endings: dict[int, str] = {}
        self.ended = False
        self._line = line
        self._hear = hear
        self._heard = b""
        self._take(heard)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._line.fileno()

    def close(self) -> None:
        """Let go of it."""
        self._line.close()

    def read(self) -> None:
        """Take what has come."""
        try:
            piece = self._line.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        self.ended = not piece
        self._take(piece)

    def tell(self, what: str | list[int]) -> None:
        """Tell who started this process the root's address, or ranks that are lost."""
        import json

        with suppress(OSError):  # it is gone, and so will this process be
            self._line.send(json.dumps(what).encode() + b"\n")

    def await_ending(self, rank: int, timeout: float) -> str | None:
        """Return how a worker ended, if that is told in time."""
        deadline = monotonic() + timeout
        while not self.ended and rank not in self.endings:
            if not select.select([self], (), (), max(0.0, deadline - monotonic()))[0]:
                break
            self.read()
        return self.endings.get(rank)

    def _take(self, piece: bytes) -> None:
        import json

        *lines, self._heard = (self._heard + piece).split(b"\n")
        for line in lines:
            ranks, reason = json.loads(line)
            self.endings |= dict.fromkeys(ranks, reason)
            self._hear(ranks, reason)


class Root(TcpRoot):
    """Rank 0 of a launched run: it also hears from who started the workers."""

    home_line: HomeLine | None = None

    def listen_home(self, line: socket.socket, heard: bytes) -> None:
        """Tell the address to who started this process, and hear from there.

        ``heard`` has come from there already.
        """
        home = HomeLine(line, heard, self._lose_all)
        home.tell(self.address)

        def act(_: object) -> None:
            home.read()
            if home.ended:
                self._unwatch(home)

        self.home_line = home
        self._watch(home, act)

    def _lose(self, rank: int, reason: str) -> None:
        if rank not in self._gone and self.home_line is not None:
            self.home_line.tell([rank])
        super()._lose(rank, reason)

    def _linger(self, deadline: float) -> None:
        """Tell who has not left in time, too."""
        super()._linger(deadline)
        late = [stream.peer for stream in self._streams if stream.peer > 0 and not stream.orderly]
        if late and self.home_line is not None:
            self.home_line.tell(late)

    def _lose_all(self, ranks: list[int], reason: str) -> None:
        for rank in ranks:
            self._lose(rank, reason)

    def _explain(self, rank: int) -> str:
        """Say how a process ended; who started it may be about to tell."""
        home = self.home_line
        told = None if home is None else home.await_ending(rank, _EXPLAIN_SECONDS)
        return told or super()._explain(rank)
