"""The communication manager over TCP, for workers on one machine or on several.

Two ways to make one::

    root = TcpManager.lead(size, credentials)              # rank 0; listens at root.address
    worker = TcpManager.join(root.address, credentials)    # any other rank

``lead`` returns at once.  Workers may join at any time, also while the run is under way;
until then they are ``absent``, and messages for them are queued here.  ``join`` returns when
the worker has its rank.

A worker keeps its connection to the root for the whole run.  It connects to another worker when
it first has a message for it: it asks the root for the address (:mod:`dtm.comm.tcp.roster`) and
queues messages meanwhile.  So there are only as many connections as there are pairs that
talk, and names are resolved once, by ``join``.  Whoever connects has to prove first that it
knows the secret of the run (:mod:`dtm.comm.tcp.acceptor`, :mod:`dtm.comm.tcp.handshake`).

A connection that ends after a farewell ends in order.  Any other end is the loss of the peer: its
process died (the kernel closes the connection), its machine is silent (keepalive) or
confirms nothing of what was sent (``Stall``), or what came is not what the peer sent
(:mod:`dtm.comm.tcp.channel`).  A worker that leaves waits for ``_HASTE`` seconds only for a
machine that does not answer.

Threads: all attributes are under the caller's lock (:mod:`dtm.comm.stream_manager`).

Rejected: to send the addresses of all workers to each of them at the start.  Then the run
would have to wait for the slowest to join, and nobody could come later.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from time import monotonic

from dtm.comm.base import Frame
from dtm.comm.stream import FramedStream
from dtm.comm.stream_manager import Received
from dtm.comm.tcp.acceptor import MOST_STRANGERS, Acceptor
from dtm.comm.tcp.address import (
    Address,
    Stall,
    allow_descriptors,
    begin_connecting,
    is_loopback,
    listen,
    resolve,
    unsent,
)
from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.handshake import ANY_RANK, Role
from dtm.comm.tcp.joining import Member, PendingConnection, await_verdict, connect_to_root, why
from dtm.comm.tcp.roster import (
    Ask,
    Gone,
    Here,
    Join,
    Notice,
    NotYet,
    Refused,
    Roster,
    Search,
    Stage,
    Welcome,
    read_notice,
)
from dtm.errors import CommunicationError

UNKNOWN = "?"  # the machine of a rank that has not joined

_LOOK = 0.05  # seconds between looks at the clock while somebody is on the way
_UNCONFIRMED = 6.0  # seconds after which a kernel that confirms nothing is gone
_SEARCH = 0.5  # seconds between looks at what kernels confirm
_HASTE = 1.0  # the first again, and how long a call may be in vain, for who leaves
_DESCRIPTORS = 64  # for others than the workers
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - to know them

Ports = tuple[int, int]


class TcpManager(Acceptor):
    """One worker of a run over TCP; made by ``lead`` and ``join``."""

    ways_may_break = True

    def __init__(self, rank: int, hosts: list[str], member: Member) -> None:
        member.rank = rank
        super().__init__(rank, hosts, member)
        self.hosts: list[str] = hosts
        self._searches: dict[int, Search] = {}  # for ranks that messages wait for
        self._stall = Stall(_UNCONFIRMED)
        self._searched = monotonic()

    @classmethod
    def lead(
        cls,
        size: int,
        credentials: Credentials,
        *,
        bind: str = "127.0.0.1",
        ports: Ports | None = None,
        tls: bool | None = None,
        hosts: Sequence[str] | None = None,
        reserved: Collection[int] = (),
        kind: type[TcpRoot] | None = None,
    ) -> TcpRoot:
        """Make the manager of rank 0, which listens for the others.

        Args:
            size: how many workers the run can have, this one included.
            credentials: of the run.
            bind: the name or number of the interface to listen at; ``""`` or ``"::"`` is all.
            ports: the lowest and the highest that may be used; None leaves it to the system.
            tls: whether to encrypt.  None: if the credentials have a certificate,
                and they need one if the address is not on the loopback.
            hosts: names of the machines by rank, if they are known.
            reserved: ranks that are given only to workers that ask for them.
            kind: the class to make, for those who refine it.

        Raises:
            CommunicationError: it cannot listen there, or must not without TLS.
        """
        names = list(hosts or [os.uname().nodename] + [UNKNOWN] * (size - 1))
        if size < 1 or len(names) != size:
            raise CommunicationError(f"{len(names)} names of hosts for a run of {size} workers")
        listener = listen(bind or "0.0.0.0", ports)  # noqa: S104 - only where it is asked for
        host, port = listener.getsockname()[:2]
        if tls is None and not credentials.tls and not is_loopback(host):
            listener.close()
            raise CommunicationError(
                f"links to {host} leave this machine, so they have to be encrypted: "
                "Credentials.fresh(tls=True), or tls=False if everybody on the way may listen"
            )
        allow_descriptors(size + MOST_STRANGERS + _DESCRIPTORS)
        member = Member(credentials, tls=credentials.tls if tls is None else tls)
        shown = os.uname().nodename if host in _EVERYWHERE else host
        root = (kind or TcpRoot)(names, member, Address(shown, port), reserved)
        root._listen(listener)  # noqa: SLF001 - its own class
        return root

    @classmethod
    def join(
        cls,
        address: str,
        credentials: Credentials,
        *,
        rank: int | None = None,
        host: str | None = None,
        bind: str | None = None,
        ports: Ports | None = None,
        tls: bool | None = None,
        timeout: float = 30.0,
    ) -> TcpManager:
        """Join the run whose root listens at ``address``, and return the manager of the new rank.

        Args:
            address: as ``lead(...).address`` says.
            credentials: of the run.
            rank: the one to get; None for any that is free.
            host: the name of this machine, for messages to people.
            bind: where to listen for other workers; None: at the interface that leads to the root.
            ports: the lowest and the highest that may be used; None leaves it to the system.
            tls: whether to encrypt, if not as the credentials say.
            timeout: seconds until it is given up.

        Raises:
            CommunicationError: the root cannot be reached, or does not let this worker in.
        """
        claimed = ANY_RANK if rank is None else rank
        member = Member(credentials, claimed, tls=credentials.tls if tls is None else tls)
        deadline = monotonic() + timeout
        with ExitStack() as unless_joined:
            call = connect_to_root(Address.parse(address), member, deadline)
            unless_joined.callback(call.close)
            listener = unless_joined.enter_context(listen(bind or call.own_host(), ports))
            bound, port = listener.getsockname()[:2]
            own = Address(call.own_host() if bound in _EVERYWHERE else bound, port)
            stream = call.stream(0)
            stream.send(Join(host or os.uname().nodename, str(own)).frames(), notice=True)
            welcome, early = await_verdict(stream, address, deadline)
            unless_joined.pop_all()
        manager = cls(welcome.rank, list(welcome.hosts), member)
        manager._begin(stream, listener, early)
        return manager

    def _begin(self, root: FramedStream, listener: socket.socket, early: Received) -> None:
        allow_descriptors(self.size + MOST_STRANGERS + _DESCRIPTORS)
        self._listen(listener)
        self._adopt(root)
        self._early = early
        self._read(root, self._early)
        if self._early:
            self.wake()

    def __repr__(self) -> str:
        queued = {rank: len(search.messages) for rank, search in self._searches.items()}
        pending = len(self._pending_connections)
        return f"{super().__repr__()[:-1]}, queued {queued}, {pending} pending>"

    # The interface

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        """Send one message, or queue it until there is a connection."""
        if rank in self._routes:
            super().send(rank, frames)
            return
        if rank == self.rank or not 0 <= rank < self.size:
            raise ValueError(f"worker {self.rank} of {self.size} cannot send to {rank}")
        if rank in self._gone:
            return
        search = self._searches.get(rank)
        if search is None:
            self._searches[rank] = Search(frames)
            self._ask_where(rank)
        else:
            search.messages.append(frames)

    def close(self, timeout: float) -> None:
        """Leave, after the messages too that are queued for connections that are being made."""
        deadline = monotonic() + timeout
        self._stall = Stall(_HASTE)
        while self._expected() and (left := deadline - monotonic()) > 0:
            self.wait(min(left, _LOOK))
            self.receive()
        super().close(max(0.0, deadline - monotonic()))

    def _expected(self) -> bool:
        """Whether a connection for which messages are queued may come soon."""
        now = monotonic()
        return any(
            search.is_hopeful(now, _HASTE) or self._is_answered(rank)
            for rank, search in self._searches.items()
        )

    def _is_answered(self, rank: int) -> bool:
        """Whether a peer's machine has accepted a connection, though the peer may be busy."""
        return any(each.target == rank and each.connected for each in self._pending_connections)

    def _linger(self, deadline: float) -> None:
        """Wait until the peers' kernels have confirmed all; a close may drop what they have not."""
        while monotonic() < deadline:
            if not any(unsent(stream.fileno()) for stream in self._streams if not stream.ended):
                return
            self._handle(self._poll(0.001))
            self.receive()

    # Connections that are wanted

    def _connect(self, rank: int) -> socket.socket | None:
        raise AssertionError(f"{self} connects without waiting, also to {rank}")

    def _ask_where(self, rank: int) -> None:
        """Ask the root for the address of a rank; without a root, drop what is queued for it."""
        if 0 in self._routes:
            self._send_notice(0, Ask(rank))
        else:
            del self._searches[rank]

    def _send_notice(self, rank: int, notice: Notice) -> None:
        stream = self._routes.get(rank)
        if stream is not None:
            self._send_notice_by(stream, notice)

    def _send_notice_by(self, stream: FramedStream, notice: Notice) -> None:
        with self._output:
            if stream.send(notice.frames(), notice=True):
                self._send_rest_later(stream)

    def _call(self, rank: int, address: str, now: float) -> None:
        """Begin to connect to a worker, unless that is under way or no longer needed."""
        search = self._searches.get(rank)
        if search is None or not search.here(now):
            return
        try:
            connection = begin_connecting(resolve(Address.parse(address))[0])
        except OSError as error:
            self._missed(rank, error)
            return
        self._begin_handshake(PendingConnection(connection, self._member, Role.CALLER, now, rank))

    def _is_busy(self) -> bool:
        missed = any(search.stage is Stage.MISSED for search in self._searches.values())
        return missed or super()._is_busy()

    def _failed(self, newcomer: PendingConnection, error: Exception) -> None:
        rank = newcomer.target
        search = self._searches.get(rank)
        if search is not None and newcomer.connected and isinstance(error, TimeoutError):
            search.busy(monotonic())
        self._missed(rank, error)

    def _missed(self, rank: int, error: Exception) -> None:
        """Note that a connection failed: the root is asked again, or the peer is lost by now."""
        search = self._searches.get(rank)
        if search is not None and not search.missed(monotonic()):
            self._lose(rank, f"it cannot be reached: {why(error)}")

    def _authenticated(self, newcomer: PendingConnection, received: Received) -> None:
        """Make a stream of a connection whose other end is proven to be a member."""
        if problem := newcomer.handshake.disagreement():
            warn(f"a worker at {newcomer.peer_host()} is not let in: {problem}")
            newcomer.close()
            return
        claimed = newcomer.peer.rank
        rank = newcomer.target if newcomer.target >= 0 else claimed
        if claimed != rank or not self._knows(rank):
            newcomer.close()
            self._missed(newcomer.target, ConnectionError("another worker answers there"))
            return
        stream = newcomer.stream(ANY_RANK)
        self._adopt(stream)
        self._settle(stream, rank, received)

    def _knows(self, rank: int) -> bool:
        """Whether a proven peer that says it has this rank can be talked to."""
        return 0 <= rank < self.size and rank != self.rank

    def _settle(self, stream: FramedStream, rank: int, received: Received) -> None:
        """Assign a new stream to its rank, send what is queued for that, and read."""
        self._enter(stream, rank)
        if stream in self._streams:
            self._read(stream, received)  # a channel may hold what no selector sees

    def _enter(self, stream: FramedStream, rank: int) -> None:
        stream.peer = rank
        if rank not in self._gone:  # else it is only read, see `_read_crossed`
            self._routes.setdefault(rank, stream)
        search = self._searches.pop(rank, None)
        for frames in () if search is None else search.messages:
            self.send(rank, frames)
        if self._leaving:
            self._say_farewell(stream)

    # Time

    def _look(self, now: float) -> None:
        """Do what is due by the clock."""
        super()._look(now)
        for rank, search in list(self._searches.items()):
            if search.asks_again(now):
                self._ask_where(rank)
        if now - self._searched >= (_LOOK if self._leaving else _SEARCH):
            self._searched = now
            self._drop_stalled(now)

    def _drop_stalled(self, now: float) -> None:
        streams = {stream.fileno(): stream for stream in self._streams if not stream.ended}
        for descriptor in self._stall.look(streams, now):
            stream = streams[descriptor]
            peer = stream.peer
            self._drop(stream)
            if peer >= 0:
                self._lose(peer, f"its machine has not answered for {self._stall.limit:g} s")

    # Ends

    def _read(self, stream: FramedStream, received: Received) -> None:
        super()._read(stream, received)
        notices, stream.notices = stream.notices, []
        for frames in notices:
            self._handle_notice(stream, read_notice(frames))

    def _stream_ended(self, stream: FramedStream, received: Received) -> None:
        peer = stream.peer
        if peer < 0:
            self._drop(stream)
            return
        super()._stream_ended(stream, received)
        if peer in self._gone:
            self._forget(peer)

    def _explain(self, rank: int, error: OSError | None) -> str:
        if error is None:
            return super()._explain(rank, error)
        return f"its connection broke: {why(error)}"

    def _lose(self, rank: int, reason: str) -> None:
        super()._lose(rank, reason)
        self._forget(rank)

    def _forget(self, rank: int) -> None:
        """Drop what is queued for a rank that is gone, or if it is the root, needs its answer."""
        self._searches.pop(rank, None)
        if rank == 0:
            kept = self._searches.items()
            self._searches = {to: each for to, each in kept if each.stage is Stage.CALLED}

    def _handle_notice(self, stream: FramedStream, notice: Notice) -> None:  # noqa: ARG002
        """Act on what the root says about a rank."""
        if isinstance(notice, Here):
            self.hosts[notice.rank] = notice.host
            self._call(notice.rank, notice.address, monotonic())
        elif isinstance(notice, NotYet):
            search = self._searches.get(notice.rank)
            if search is not None:
                search.not_yet()
        elif isinstance(notice, Gone):
            if notice.reason:
                self._lose(notice.rank, notice.reason)
            else:
                self._gone.add(notice.rank)
                self._forget(notice.rank)


class TcpRoot(TcpManager):
    """The manager of rank 0, which keeps the roster.

    Attributes:
        address: where it listens, as ``join`` wants it.
    """

    def __init__(
        self, hosts: list[str], member: Member, address: Address, reserved: Collection[int]
    ) -> None:
        super().__init__(0, hosts, member)
        self.address = str(address)
        self._roster = Roster(self.size, hosts, reserved)
        self._wishes: dict[FramedStream, int] = {}  # of those who have not said that they join

    def absent(self) -> set[int]:
        """Return the workers that have not joined, and those that are gone."""
        return self._gone.union(self._roster.absent())

    def _expected(self) -> bool:
        return False  # the root calls nobody; who is absent need not be waited for

    def _linger(self, deadline: float) -> None:
        """Answer the others until each has said farewell."""
        while (left := deadline - monotonic()) > 0:
            if all(stream.orderly for stream in self._streams if stream.peer >= 0):
                break
            self._handle(self._poll(min(left, _LOOK)))
            self.receive()
        super()._linger(deadline)

    def _ask_where(self, rank: int) -> None:
        """Wait until the rank joins; there is nobody to ask."""
        self._searches[rank].not_yet()

    def _knows(self, rank: int) -> bool:  # noqa: ARG002
        return True  # whether it can have that rank is answered when it says that it joins

    def _settle(self, stream: FramedStream, rank: int, received: Received) -> None:
        """Note which rank a proven worker asks for; it has none until its ``Join`` is answered."""
        self._wishes[stream] = rank
        self._read(stream, received)

    def _handle_notice(self, stream: FramedStream, notice: Notice) -> None:
        if isinstance(notice, Join) and stream in self._wishes:
            self._let_join(stream, notice)
        elif isinstance(notice, Ask) and stream.peer >= 0:
            self._send_notice(stream.peer, self._roster.find(notice.rank, stream.peer))

    def _let_join(self, stream: FramedStream, notice: Join) -> None:
        try:
            rank = self._roster.choose(self._wishes.pop(stream))
        except CommunicationError as error:
            warn(f"a worker on {notice.host} is not let in: {error}")
            self._send_notice_by(stream, Refused(str(error)))
            return
        asking = self._roster.enter(rank, notice.host, notice.address)
        self._send_notice_by(stream, Welcome(rank, tuple(self.hosts)))
        self._enter(stream, rank)
        for who in asking:
            self._send_notice(who, self._roster.find(rank, who))

    def _drop(self, stream: FramedStream) -> None:
        super()._drop(stream)
        self._wishes.pop(stream, None)

    def _forget(self, rank: int) -> None:
        super()._forget(rank)
        reasons = [loss.reason for loss in self._losses if loss.rank == rank]
        self._roster.strike(rank, reasons[0] if reasons else "")


def warn(text: str) -> None:
    """Print a warning: of what members do, never strangers, who could fill the terminal."""
    with suppress(OSError, ValueError):  # no standard error, or one that is closed
        sys.stderr.write(f"dtm: {text}\n")
