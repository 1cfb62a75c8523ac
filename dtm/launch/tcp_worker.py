"""Joins this process to a run over TCP: as a worker that a launcher has started, or as the root.

Whoever starts a worker (:mod:`dtm.launch.processes`) gives it one end of a socket pair.  The number
of the descriptor is in the environment, the invitation with the secret of the run comes through
the socket: neither a command line nor an environment ever holds that.  At ``start`` the worker
removes the variable (a program that a task starts is no worker), checks that its parent is who
invited it (a program that it ran before joining finds the same variable), and reads one line,
which comes when the root listens.

The root is told at once.  It writes its address back by the same socket, and later the ranks that
it has lost, so that nobody waits for them when the run is over.  It goes on to read: each further
line names workers that have ended, and how.  Only the launcher knows what no connection tells: that
a process was killed by a signal, or ended before it joined, or that a host cannot be heard.

A program that has chosen TCP and started no workers leads the run by itself: it says on stderr how
others join.  They learn the secret from a file that only its owner can read.  It is removed when
the run ends; if the program is killed it stays, and is of no use any more.

A worker that joined by hand says why it ends when its root is gone; for the others the launcher
does.  An interrupt ends a worker as any signal does, and so it is lost: as an exception of the task
that happened to run, it would come out of ``main``.

Threads: the managers as in :class:`dtm.comm.base.CommunicationManager`; all else in the main
thread, before there is a run.

Rejected: invitations in files, and secrets on the terminal.  A file can be read by others until
somebody removes it, and what stands in a terminal ends up in logs.  Also: to ask the launcher about
each worker that is lost; it may be the launcher's host that is.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.manager import UNKNOWN, TcpManager, TcpRoot
from dtm.errors import CommunicationError, UnreachableError
from dtm.launch.messages import INVITATION, Invitation
from dtm.options import JOIN_SLOTS, Settings

ROOT_GONE = "dtm: the root of the run is gone"
_LOOPBACK = "127.0.0.1"
_LONGEST = 1 << 20
_EXPLAIN_SECONDS = 1.0  # an agent knows of a process's end soon after the kernel cut its streams
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
    invitation, line = accepted
    credentials = Credentials.from_bytes(invitation.credentials.encode())
    make = _lead if invitation.address is None else _follow
    joined = make(invitation, credentials, line)
    joined.carries_output = invitation.carries_output
    return joined


def _lead(invitation: Invitation, credentials: Credentials, line: socket.socket) -> TcpManager:
    reserved = len(invitation.hosts)
    root = TcpManager.lead(
        invitation.size,
        credentials,
        bind=invitation.bind or _LOOPBACK,
        ports=invitation.ports,
        tls=invitation.tls,
        hosts=[*invitation.hosts, *[UNKNOWN] * (invitation.size - reserved)],
        reserved=range(reserved),
        kind=Root,
    )
    assert isinstance(root, Root)
    root.hear_launcher(line)
    return root


def _follow(invitation: Invitation, credentials: Credentials, line: socket.socket) -> TcpManager:
    """Join the root, and tell so whoever started this process."""
    free = invitation.rank is None
    with line:
        try:
            joined = (Volunteer if free else TcpManager).join(
                invitation.address or "",
                credentials,
                rank=invitation.rank,
                host=None if invitation.rank is None else invitation.hosts[invitation.rank],
                bind=invitation.bind,
                ports=invitation.ports,
                tls=invitation.tls,
                timeout=_JOIN_SECONDS,
            )
        except UnreachableError:  # if the run is over, this process is about to be ended
            select.select([line], (), (), _VERDICT_SECONDS)
            raise
        with suppress(OSError):
            line.send(b"j")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    return joined


def accept_invitation() -> tuple[Invitation, socket.socket] | None:
    """Take the invitation of this process, and the line that it came by; None if there is none.

    Raises:
        CommunicationError: who invited it is gone.
    """
    text = os.environ.pop(INVITATION, "")
    descriptor, _, parent = text.partition(":")
    if parent != str(os.getppid()):
        return None
    line = socket.socket(fileno=int(descriptor))
    line.set_inheritable(False)
    for stream in (sys.stdout, sys.stderr):  # a pipe gets what a terminal would, when it would
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
    fields = json.loads(_read_line(line))
    if fields is None:  # the root ended before its start: there will be no run
        sys.exit(0)
    return Invitation(**fields), line


def _read_line(line: socket.socket) -> bytes:
    """Read one line, and nothing of what follows it."""
    text = b""
    while not text.endswith(b"\n"):
        try:
            seen = line.recv(1 << 16, socket.MSG_PEEK)
            piece = line.recv(seen.find(b"\n") + 1 or len(seen)) if seen else b""
        except OSError:
            piece = b""
        if not piece or len(text) > _LONGEST:
            raise CommunicationError("who started this worker has ended before the run began")
        text += piece
    return text


class Volunteer(TcpManager):
    """A worker that has joined by hand."""

    def _lose(self, rank: int, reason: str) -> None:
        if rank == 0 and rank not in self._gone and not self._leaving:
            with suppress(OSError):
                os.write(2, f"{ROOT_GONE} ({reason})\n".encode())
        super()._lose(rank, reason)


class LauncherLine:
    """The root's line to whoever started it: by it the ends of other workers are told.

    Args:
        line: the socket.
        hear: takes ranks, and how they ended.
    """

    def __init__(self, line: socket.socket, hear: Callable[[list[int], str], object]) -> None:
        line.setblocking(False)
        self.endings: dict[int, str] = {}
        self.ended = False
        self.fileno = line.fileno
        self.close = line.close
        self._line = line
        self._hear = hear
        self._heard = b""

    def read(self) -> None:
        """Take what has come."""
        try:
            piece = self._line.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        self.ended = not piece
        *lines, self._heard = (self._heard + piece).split(b"\n")
        for line in lines:
            ranks, reason = json.loads(line)
            self.endings |= dict.fromkeys(ranks, reason)
            self._hear(ranks, reason)

    def tell(self, what: str | list[int]) -> None:
        """Tell the root's address, or ranks that are lost."""
        with suppress(OSError):  # nobody hears it, and this process will be ended too
            self._line.send(json.dumps(what).encode() + b"\n")

    def await_ending(self, rank: int, timeout: float) -> str | None:
        """Return how a worker ended, if that is told in time."""
        deadline = monotonic() + timeout
        while not self.ended and rank not in self.endings:
            if not select.select([self], (), (), max(0.0, deadline - monotonic()))[0]:
                break
            self.read()
        return self.endings.get(rank)


class Root(TcpRoot):
    """Rank 0 of a launched run: it also hears from who started the workers."""

    launcher: LauncherLine | None = None

    def hear_launcher(self, line: socket.socket) -> None:
        """Tell the address to who started this process, and hear from there."""
        self.launcher = launcher = LauncherLine(line, self._lose_all)
        launcher.tell(self.address)

        def act(_: object) -> None:
            launcher.read()
            if launcher.ended:
                self._unwatch(launcher)

        self._watch(launcher, act)

    def _lose(self, rank: int, reason: str) -> None:
        if rank not in self._gone and self.launcher is not None:
            self.launcher.tell([rank])
        super()._lose(rank, reason)

    def _linger(self, deadline: float) -> None:
        """Tell who has not left in time, too."""
        super()._linger(deadline)
        late = [stream.peer for stream in self._streams if stream.peer > 0 and not stream.orderly]
        if late and self.launcher is not None:
            self.launcher.tell(late)

    def _lose_all(self, ranks: list[int], reason: str) -> None:
        for rank in ranks:
            self._lose(rank, reason)

    def _explain(self, rank: int, error: OSError | None) -> str:
        """Say how a process ended; who started it may be about to tell."""
        told = self.launcher and self.launcher.await_ending(rank, _EXPLAIN_SECONDS)
        return told or super()._explain(rank, error)


# Leading a run that others join by hand.


class SecretFile:
    """The credentials of a run in a new file, until ``remove``.

    Raises:
        CommunicationError: the file is there already, or cannot be written.
    """

    def __init__(self, path: str | None, credentials: Credentials) -> None:
        self.path = os.path.abspath(path or f"dtm-{credentials.run.hex()[:8]}.secret")
        credentials.to_file(self.path)

    def remove(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            os.unlink(self.path)

    def how_to_join(self, address: str, slots: int, program: str) -> str:
        """Return what tells the user how to add workers."""
        options = f"--secret-file {shlex.quote(self.path)}"
        workers = "1 worker" if slots == 1 else f"{slots} workers"
        return (
            f"dtm: up to {workers} may join by hand:\n"
            f"dtm:   {shlex.quote(sys.executable)} -m dtm join {address} {options} {program}\n"
        )


def lead(chosen: Settings) -> TcpManager:
    """Return the manager of rank 0; says on stderr how to join.

    Raises:
        CommunicationError: nothing can be listened at, or the secret cannot be written.
    """
    tls = chosen.bind is not None if chosen.tls is None else chosen.tls
    credentials = Credentials.fresh(tls=tls)
    free = JOIN_SLOTS if chosen.join_slots is None else chosen.join_slots
    secret = SecretFile(chosen.secret_file, credentials)
    atexit.register(secret.remove)
    root = TcpManager.lead(
        1 + free, credentials, bind=chosen.bind or _LOOPBACK, ports=chosen.ports, tls=tls
    )
    root.alters_threads = True
    sys.stderr.write(secret.how_to_join(root.address, free, shlex.join(sys.argv)))
    return root
