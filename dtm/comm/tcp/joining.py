"""How two ends of a TCP connection prove who they are, and how a worker joins a run.

A :class:`PendingConnection` leads a socket from the moment when it is connected or accepted to
the moment when both ends have proven to be members of the run.  Its steps are the
connection, TLS if the run has it, the handshake.  No step waits; ``advance`` is called when
the socket is ready for more.  A step that fails raises, and the owner drops the connection.
While it lasts, nothing is kept but one handshake, of fixed size, and TLS's own state, which is
bounded; and the owner drops it after ``LONGEST`` seconds.

To join, a worker calls the root (``connect_to_root``), and the root gives it a rank
(``await_verdict``).  These wait, for a deadline at most; a worker that has no rank has nothing
else to do.  A root that does not answer is called again, for it may be starting still, or busy
with strangers; one that proves to be another run's is not.

Threads: a pending connection, all its attributes, under the caller's lock
(:mod:`dtm.comm.stream_manager`); the functions by the thread that makes the manager, before
there is another.

Rejected: a thread for each connection that is not proven.  Strangers could make as many
as they like.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from dtm.comm.stream import FramedStream
from dtm.comm.stream_manager import Received
from dtm.comm.tcp.address import Address, Resolved, begin_connecting, resolve, set_options
from dtm.comm.tcp.channel import SealedChannel, known_seals
from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.handshake import ANY_RANK, NONCE, Handshake, Hello, Role, State
from dtm.comm.tcp.roster import Refused, Welcome, read_notice
from dtm.errors import CommunicationError, StrangerError, UnreachableError

if TYPE_CHECKING:
    from dtm.comm.tcp.tls import Contexts, TlsChannel

LONGEST = 5.0
_T = TypeVar("_T")
REFUSED_SECONDS = 2.0  # for a root that is not listening yet, or no longer
_AGAIN = 0.2  # seconds until the root is called once more


class Member:
    """What this process needs to prove that it belongs to the run.

    Attributes:
        credentials: of the run.
        contexts: what TLS needs, None if the run's links are plain.
        rank: of this worker, ``ANY_RANK`` while it has none.
    """

    def __init__(self, credentials: Credentials, rank: int = ANY_RANK, *, tls: bool) -> None:
        self.credentials = credentials
        self.rank = rank
        self.contexts = _contexts(credentials) if tls else None
        self._seals = known_seals()

    def handshake(self, role: Role) -> Handshake:
        """Begin a handshake."""
        return Handshake(self.credentials, role, self.rank, os.urandom(NONCE), self._seals)


def _contexts(credentials: Credentials) -> Contexts:
    from dtm.comm.tcp.tls import Contexts  # a run without it does not load the library

    return Contexts(credentials)


class PendingConnection:
    """A connection whose ends have not proven yet that they belong to the run.

    Attributes:
        target: the rank that was called, -1 if the peer called.
        began: when.
        connected: whether the peer's machine has accepted the connection.
        events: the selector events after which ``advance`` can go on.
        handshake: the handshake of this end.
    """

    def __init__(
        self, connection: socket.socket, member: Member, role: Role, began: float, target: int = -1
    ) -> None:
        connection.setblocking(False)
        self.target = target
        self.began = began
        self.connected = role is Role.ACCEPTOR
        self.events = EVENT_READ if self.connected else EVENT_WRITE
        self.handshake = member.handshake(role)
        self._socket = connection
        self._contexts = member.contexts
        self._tls: TlsChannel | None = None
        if member.contexts is not None:
            self._tls = member.contexts.channel(connection, called=self.connected)
        self._heard = False
        self._steps = self._prove()
        if self.connected:
            set_options(connection)

    def __repr__(self) -> str:
        whom = f"rank {self.target}" if self.target >= 0 else "somebody"
        return f"<PendingConnection to {whom}, {self.handshake.state.value}>"

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    @property
    def spoken(self) -> bool:
        """Whether anything has come from the peer."""
        return self._heard or (self._tls is not None and self._tls.greeting > 0)

    @property
    def peer(self) -> Hello:
        """The hello of the peer."""
        assert self.handshake.peer is not None
        return self.handshake.peer

    def own_host(self) -> str:
        """Return the numeric address of this end."""
        host: str = self._socket.getsockname()[0]
        return host

    def peer_host(self) -> str:
        """Return the numeric address of the other end."""
        host: str = self._socket.getpeername()[0]
        return host

    def stream(self, peer: int) -> FramedStream:
        """Return the stream that the connection becomes."""
        carrier = self._tls or SealedChannel(self._socket, self.handshake.keys())
        return FramedStream(carrier, peer, greeted=True)

    def advance(self) -> bool:
        """Take the next steps, without waiting; return whether both ends are proven.

        Raises:
            OSError: the connection failed.
            StrangerError: the peer is no member of this run.
        """
        for events in self._steps:
            self.events = events
            return False
        # After a failure there are no steps left either, so this alone is no proof.
        return self.handshake.state is State.PROVEN

    def _prove(self) -> Iterator[int]:
        """Take all the steps; yield the selector events to wait for where one cannot go on."""
        if not self.connected:
            if status := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(status, os.strerror(status))
            self.connected = True
            set_options(self._socket)
        if self._tls is not None and self._contexts is not None:
            yield from _when_possible(self._tls.greet)
            self._contexts.check(self._tls)
        carrier = self._tls or self._socket
        handshake = self.handshake
        while output := handshake.take_output() or handshake.wanted:
            if isinstance(output, bytes):
                while output:
                    output = output[(yield from _when_possible(partial(carrier.send, output))) :]
                continue
            data = memoryview(bytearray(output))
            size = yield from _when_possible(partial(carrier.recv_into, data))
            if size == 0:
                raise ConnectionResetError("the connection was closed during the handshake")
            self._heard = True
            handshake.feed(bytes(data[:size]))


def _when_possible(act: Callable[[], _T]) -> Generator[int, None, _T]:
    """Try until it does not block; yield the selector events to wait for in between."""
    while True:
        try:
            return act()
        except BlockingIOError:
            yield EVENT_READ


def why(error: Exception) -> str:
    """Return the text of an error, without its number."""
    return getattr(error, "strerror", None) or str(error)


def connect_to_root(
    address: Address, member: Member, deadline: float, refused: float = REFUSED_SECONDS
) -> PendingConnection:
    """Connect to the root, again until it answers; return the connection when it is proven.

    Args:
        address: the root's.
        member: this worker.
        deadline: when it is given up.
        refused: seconds after which it is given up if nobody listens there.

    Raises:
        UnreachableError: the root does not answer.
        CommunicationError: it is not the root of this worker's run, or of another version.
    """
    began = monotonic()
    targets = resolve(address)
    failure: Exception = TimeoutError("it does not answer")
    while monotonic() < deadline:
        for target in targets:
            try:
                return _checked(_call_root(target, member, deadline), address)
            except StrangerError as error:
                raise CommunicationError(f"cannot join the run at {address}: {error}") from error
            except OSError as error:
                failure = error
        if isinstance(failure, ConnectionRefusedError) and monotonic() - began >= refused:
            break
        sleep(min(_AGAIN, max(0.0, deadline - monotonic())))
    if isinstance(failure, ConnectionRefusedError):
        raise UnreachableError(f"nobody listens at {address}: has the run ended?") from failure
    raise UnreachableError(
        f"cannot reach the root of the run at {address}: {why(failure)}"
    ) from failure


def look(address: str, member: Member, timeout: float, refused: float) -> None:
    """Check that the run at an address can be joined; raise as ``connect_to_root`` if not."""
    connect_to_root(Address.parse(address), member, monotonic() + timeout, refused).close()


def _checked(call: PendingConnection, address: Address) -> PendingConnection:
    """Return the connection if its other end is the root, and of this version."""
    problem = call.handshake.disagreement()
    if call.peer.rank == 0 and not problem:
        return call
    call.close()
    if call.peer.rank:
        raise CommunicationError(f"at {address} is rank {call.peer.rank}, not the root")
    raise CommunicationError(f"this worker cannot join the run at {address}: {problem}")


def _call_root(target: Resolved, member: Member, deadline: float) -> PendingConnection:
    began = monotonic()
    with ExitStack() as unless_proven:
        call = PendingConnection(begin_connecting(target), member, Role.CALLER, began, 0)
        unless_proven.callback(call.close)
        proven = False
        while not proven:
            left = min(deadline, began + LONGEST) - monotonic()
            if left <= 0 or not _ready(call, call.events, left):
                raise TimeoutError("it does not answer")
            proven = call.advance()
        unless_proven.pop_all()
    return call


def _ready(source: PendingConnection | FramedStream, events: int, timeout: float) -> bool:
    poll = select.poll()
    wanted = (select.POLLIN if events & EVENT_READ else 0) | (
        select.POLLOUT if events & EVENT_WRITE else 0
    )
    poll.register(source, wanted)
    return bool(poll.poll(1000 * timeout))


def await_verdict(stream: FramedStream, address: str, deadline: float) -> tuple[Welcome, Received]:
    """Wait until the root gives a rank; return that, and the messages that came before."""
    early: Received = []
    while True:
        early += [(0, message) for message in stream.receive()]
        if stream.notices:
            break
        left = deadline - monotonic()
        if stream.ended or left <= 0:
            raise UnreachableError(
                f"cannot join the run at {address}: the root "
                + ("closed the connection; the run has ended" if stream.ended else "says nothing")
            )
        _ready(stream, EVENT_READ, left)
    verdict = read_notice(stream.notices.pop(0))
    if isinstance(verdict, Refused):
        raise CommunicationError(f"cannot join the run at {address}: {verdict.reason}")
    assert isinstance(verdict, Welcome), verdict
    return verdict, early
