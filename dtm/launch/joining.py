"""Workers of this machine that join a run by hand.

The process is their parent and no more: it starts them with its own command line,
invites them (:mod:`dtm.launch.invitation`), and ends when the last has ended.  What
their tasks print goes to the root of the run; what else they write comes out here.  That the root
is gone is said once, however many find it out.

A signal ends it, and them; the root has lost them then.

Threads: the loop's.

Rejected: joining in this process when one worker is wanted.  It would be a second way
to the same end.
"""

from __future__ import annotations

import os
import signal
from urllib.parse import urlsplit

from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.handshake import ANY_RANK
from dtm.comm.tcp.joining import REFUSED_SECONDS, Member, look
from dtm.errors import CommunicationError, OptionError
from dtm.launch.command_line import command_line, why_not_again
from dtm.launch.invitation import Invitation
from dtm.launch.launcher import worker_environment
from dtm.launch.loop import Loop
from dtm.launch.messages import Ended, Message, Output
from dtm.launch.plan import check_ports
from dtm.launch.processes import Crew
from dtm.launch.root import ROOT_GONE
from dtm.launch.terminal import Terminal

_WRITE_SECONDS = 10.0


CONNECT_SECONDS = 30.0


def check(address: str, credentials: Credentials, patience: float | None) -> None:
    """See whether a run can be joined before anything is started for it.

    Args:
        address: of the run.
        credentials: its secret.
        patience: seconds to wait for an answer, also where nobody listens yet; None waits
            ``CONNECT_SECONDS`` for an answer, and not for somebody who listens.

    Raises:
        CommunicationError: it cannot be joined; the message says why.
    """
    member = Member(credentials, ANY_RANK, tls=credentials.tls)
    refused = REFUSED_SECONDS if patience is None else patience
    look(address, member, patience or CONNECT_SECONDS, refused)


class Joiner:
    """Workers that join, and what becomes of them."""

    def __init__(
        self,
        address: str,
        credentials: Credentials,
        workers: int,
        bind: str | None,
        ports: tuple[int, int] | None,
    ) -> None:
        check_ports(workers, "this machine", ports)
        command = command_line()
        if command is None:
            raise CommunicationError(f"no worker can be started: {why_not_again()}")
        invitation = Invitation(
            credentials=credentials.to_bytes().decode("ascii"),
            size=0,
            hosts=(),
            tls=credentials.tls,
            ports=ports,
        )
        self._address = address
        self._bind = bind or _towards(address)
        self._loop = Loop()
        self._terminal = Terminal(self._loop, None, self._finish)
        self._status = 0
        self._finished: int | None = None  # the status, if it was not the workers' to decide
        self._mourned = False
        self._left = workers
        self._crew = Crew(
            self._loop,
            [None] * workers,
            command,
            worker_environment(os.environ),
            invitation.written(),
            self._take,
        )

    def serve(self) -> int:
        """Start the workers, and return the worst of their exit statuses."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._loop.signals(numbers, self._signal)
        try:
            self._crew.start(self._bind)
            self._crew.invite(self._address)
            self._loop.run()
        finally:
            self._crew.end()
            self._terminal.close(_WRITE_SECONDS)
            self._loop.close()
        return self._status if self._finished is None else self._finished

    def _take(self, message: Message) -> None:
        if isinstance(message, Output):
            if message.text.startswith(ROOT_GONE):
                if self._mourned:
                    return
                self._mourned = True
            self._terminal.write(message.rank, message.stream, message.text)
        elif isinstance(message, Ended):
            status = message.status if message.status >= 0 else 128 - message.status
            self._status = max(self._status, status)
            self._left -= 1
            if not self._left:
                self._loop.stop()

    def _signal(self, number: int) -> None:
        self._finish(128 + number)

    def _finish(self, status: int) -> None:
        self._finished = status
        self._loop.stop()


def parsed(address: str) -> tuple[str, int]:
    """Split an address such as ``tcp://10.0.0.1:40001``.

    Raises:
        OptionError: it is none.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "tcp" or not host or not port:
        raise OptionError(f"{address!r} is no address of a run; it looks like tcp://10.0.0.1:40001")
    return host, port


def _towards(address: str) -> str | None:
    """Return this machine's address on the way to another, None if that is this machine."""
    import socket

    host, port = parsed(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, kind, _, _, target = found[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            mine = str(probe.getsockname()[0])
    except OSError as error:
        raise CommunicationError(f"{host} cannot be reached: {error.strerror}") from error
    return None if mine.startswith("127.") or mine == "::1" else mine
