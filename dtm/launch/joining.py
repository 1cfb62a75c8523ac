"""Workers of this machine that join a run by hand.

The process is only their parent: it starts them with its own command line, invites them, and ends
when the last has ended.  What their tasks print goes to the root of the run; what else they write
comes out here.  That the root is gone is said once, however many find it out.

A signal ends it, and them; to the run they are lost then.

Threads: the event loop's.

Rejected: joining in this process when one worker is wanted.  It would be a second way to the same
end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from urllib.parse import urlsplit

from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.handshake import ANY_RANK
from dtm.comm.tcp.joining import REFUSED_SECONDS, Member, look
from dtm.errors import CommunicationError, OptionError
from dtm.launch.command_line import command_line, why_not_again
from dtm.launch.messages import Ended, Invitation, Message, Output
from dtm.launch.plan import check_ports
from dtm.launch.processes import Workers, worker_environment
from dtm.launch.tcp_worker import ROOT_GONE
from dtm.launch.terminal import Terminal

CONNECT_SECONDS = 30.0
_WRITE_SECONDS = 10.0


def check(address: str, credentials: Credentials, patience: float | None) -> None:
    """Check that a run can be joined, before anything is started for it.

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
        self._terminal = Terminal(None, self._finish)
        self._status = 0
        self._over = asyncio.Event()
        self._finished: int | None = None  # the status, if it was not the workers' to decide
        self._root_gone = False
        self._left = workers
        self._workers = Workers(
            [None] * workers,
            command,
            worker_environment(os.environ),
            invitation._asdict(),
            self._take,
            self._terminal.room,
        )

    def serve(self) -> int:
        """Start the workers, and return the worst of their exit statuses.

        Raises:
            CommunicationError: the system does not let so many be started.
        """
        return asyncio.run(self._serve(), debug=False)

    async def _serve(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._finish, 128 + number)
        problem: CommunicationError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                try:
                    self._workers.start(tasks, self._bind)
                except CommunicationError as error:
                    problem = error
                else:
                    self._workers.invite(self._address)
                    await self._over.wait()
                await self._workers.end()
        finally:
            self._terminal.close(_WRITE_SECONDS)
        if problem is not None:
            raise problem
        return self._status if self._finished is None else self._finished

    def _take(self, message: Message) -> None:
        if isinstance(message, Output):
            if message.text.startswith(ROOT_GONE):
                if self._root_gone:
                    return
                self._root_gone = True
            self._terminal.write(message.rank, message.stream, message.text)
        elif isinstance(message, Ended):
            status = message.status if message.status >= 0 else 128 - message.status
            self._status = max(self._status, status)
            self._left -= 1
            if not self._left:
                self._over.set()

    def _finish(self, status: int) -> None:
        if not self._over.is_set():
            self._finished = status
            self._over.set()


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
    host, port = parsed(address)
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            mine = str(probe.getsockname()[0])
    except OSError as error:
        raise CommunicationError(f"{host} cannot be reached: {error.strerror}") from error
    return None if mine.startswith("127.") or mine == "::1" else mine
