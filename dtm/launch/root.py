"""Joining a run over TCP that this process was started for; the root as its launcher sees it.

The launcher knows what no connection tells: that a process was killed by a signal, or
ended before it joined, or that a host cannot be heard.  It tells the root by the
line that its invitation came through.

Threads: as in :class:`dtm.comm.base.CommunicationManager`.

Rejected: asking the launcher about each worker that is lost.  It may be the
launcher's host that is.
"""

from __future__ import annotations

import select
import socket
from time import monotonic

from dtm.comm.credentials import Credentials
from dtm.comm.tcp import TcpManager
from dtm.launch.invitation import Invitation, accept_invitation

_EXPLAIN_SECONDS = 0.5  # an agent knows of a process's end soon after the kernel cut its streams
_JOIN_SECONDS = 30.0


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
        home.close()
        joined = _join(invitation)
    joined.carries_output = invitation.carries_output
    return joined


def _join(invitation: Invitation) -> TcpManager:
    return TcpManager.join(
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
    root = Root.lead(
        invitation.size,
        Credentials.from_bytes(invitation.credentials.encode()),
        bind=invitation.bind,
        ports=invitation.ports,
        tls=invitation.tls,
        hosts=[*invitation.hosts, *[""] * (invitation.size - invitation.reserved)],
        reserved=invitation.reserved,
    )
    root.listen_home(home, heard)
    return root


class Root(TcpManager):
    """Rank 0 of a launched run: it also hears from who started the workers."""

    _home: socket.socket | None = None

    def listen_home(self, home: socket.socket, heard: bytes) -> None:
        """Tell the address to who started this process, and hear from there.

        ``heard`` has come from there already.
        """
        home.sendall(self.address.encode() + b"\n")
        home.setblocking(False)
        self._home = home
        self._heard = b""
        self._endings: dict[int, str] = {}
        self._watch(home, lambda _: self._hear())
        self._heed(heard)

    def _hear(self) -> None:
        home = self._home
        try:
            piece = home.recv(1 << 16) if home is not None else b""
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._home = None
            if home is not None:
                self._unwatch(home)
            return
        self._heed(piece)

    def _heed(self, piece: bytes) -> None:
        """Note which workers are said to have ended."""
        import json

        *lines, self._heard = (self._heard + piece).split(b"\n")
        for line in lines:
            ranks, reason = json.loads(line)
            self._endings |= dict.fromkeys(ranks, reason)
            for rank in ranks:
                self._lose(rank, reason)

    def _explain(self, rank: int) -> str:
        """Say how a process ended; who started it may be about to tell."""
        deadline = monotonic() + _EXPLAIN_SECONDS
        while self._home is not None and rank not in self._endings:
            ready = select.select([self._home], (), (), max(0.0, deadline - monotonic()))[0]
            if not ready:
                break
            self._hear()
        return self._endings.get(rank) or super()._explain(rank)
