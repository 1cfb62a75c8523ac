"""How two ends of a TCP connection get to know each other, and how a worker joins a run.

An :class:`Introduction` leads a socket from the moment when it is called or accepted to the
moment when both ends have proven to be members of the run: connected, TLS if the run
has it, the handshake.  These are its steps, and follow each other by ``TRANSITIONS``; who
is called begins connected.  No step waits; ``advance`` is called when the socket is ready
for more.  A step that fails raises, and whoever owns the introduction drops it.  While it
lasts, nothing is kept but one handshake, of fixed size, and TLS's own state, which is bounded;
and whoever owns it drops it after ``LONGEST`` seconds.

To join, a worker calls the root (``meet``), and the root gives it a rank
(``await_verdict``).  These wait, for a deadline at most; a worker that has no rank has nothing
else to do.  A root that does not answer is called again, for it may be starting still, or busy
with strangers; one that proves to be another run's is not.

Threads: an introduction under the caller's lock (:mod:`dtm.comm.stream_manager`); the functions
by the thread that makes the manager, before there is another.

Rejected: a thread for each connection that is not proven.  Strangers could make as many
as they like.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import ExitStack
from enum import Enum
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic, sleep
from typing import TYPE_CHECKING

from dtm.comm.stream import FramedStream
from dtm.comm.stream_manager import Received
from dtm.comm.tcp.address import Address, Resolved, dial, resolve, tune
from dtm.comm.tcp.channel import SealedChannel, known_seals
from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.handshake import ANY_RANK, NONCE, Handshake, Hello, Role
from dtm.comm.tcp.roster import Refused, Welcome, read_notice
from dtm.errors import CommunicationError, StrangerError, UnreachableError

if TYPE_CHECKING:
    from dtm.comm.tcp.tls import Contexts, TlsChannel

LONGEST = 5.0
REFUSED_SECONDS = 2.0  # for a root that is not listening yet, or no longer
_AGAIN = 0.2  # seconds until the root is called once more


class Step(Enum):
    """What is under way."""

    CONNECTING = "the connection"
    ENCRYPTING = "the greeting of TLS"
    PROVING = "the handshake"
    PROVEN = "proven"


TRANSITIONS: dict[Step, dict[str, Step]] = {
    Step.CONNECTING: {"connected, TLS": Step.ENCRYPTING, "connected, no TLS": Step.PROVING},
    Step.ENCRYPTING: {"the run's certificate": Step.PROVING},
    Step.PROVING: {"both proofs": Step.PROVEN},
    Step.PROVEN: {},
}


class Member:
    """What this process shows to whoever it meets.

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


class Introduction:
    """One connection on its way.

    Attributes:
        target: the rank that was called, -1 if the peer called.
        began: when.
        spoken: whether the peer has said anything.
        step: what is under way.
        handshake: where that stands.
    """

    def __init__(
        self, connection: socket.socket, member: Member, role: Role, began: float, target: int = -1
    ) -> None:
        connection.setblocking(False)
        self.target = target
        self.began = began
        self.spoken = False
        self.handshake = member.handshake(role)
        self._socket = connection
        self._contexts = member.contexts
        self._tls: TlsChannel | None = None
        self._output = b""
        called = role is Role.ACCEPTOR
        if member.contexts is not None:
            self._tls = member.contexts.channel(connection, called=called)
        self.step = Step.CONNECTING
        if called:
            self._set_up()

    def __repr__(self) -> str:
        whom = f"rank {self.target}" if self.target >= 0 else "somebody"
        return f"<Introduction to {whom}, {self.handshake.state.value}>"

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Break off."""
        self._socket.close()

    @property
    def events(self) -> int:
        """What the socket has to become for ``advance`` to get further."""
        return EVENT_WRITE if self.step is Step.CONNECTING else EVENT_READ

    @property
    def connected(self) -> bool:
        """Whether the peer's machine has answered."""
        return self.step is not Step.CONNECTING

    @property
    def peer(self) -> Hello:
        """What the peer said of itself."""
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

    def advance(self) -> bool:
        """Go as far as it goes; return whether both ends are proven.

        Raises:
            OSError: the connection failed.
            StrangerError: the peer is no member of this run.
        """
        try:
            if self.step is Step.CONNECTING:
                self._connect()
            if self.step is Step.ENCRYPTING:
                self._greet()
            if self.step is Step.PROVING:
                self._shake_hands(self._tls or self._socket)
            return self.step is Step.PROVEN
        except BlockingIOError:
            self.spoken = self.spoken or (self._tls is not None and self._tls.greeting > 0)
            return False

    def stream(self, peer: int) -> FramedStream:
        """Return the stream that the connection becomes."""
        carrier = self._tls or SealedChannel(self._socket, self.handshake.keys())
        return FramedStream(carrier, peer, greeted=True)

    def _connect(self) -> None:
        status = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, os.strerror(status))
        self._set_up()

    def _set_up(self) -> None:
        tune(self._socket)
        self._go("connected, no TLS" if self._tls is None else "connected, TLS")

    def _go(self, event: str) -> None:
        self.step = TRANSITIONS[self.step][event]

    def _greet(self) -> None:
        assert self._tls is not None
        assert self._contexts is not None
        self._tls.greet()
        self._contexts.check(self._tls)
        self._go("the run's certificate")

    def _shake_hands(self, carrier: socket.socket | TlsChannel) -> None:
        handshake = self.handshake
        while True:
            self._output += handshake.take_output()
            while self._output:
                self._output = self._output[carrier.send(self._output) :]
            if not handshake.wanted:
                self._go("both proofs")
                return
            data = memoryview(bytearray(handshake.wanted))
            size = carrier.recv_into(data)
            if size == 0:
                raise ConnectionResetError("the connection was closed during the handshake")
            self.spoken = True
            handshake.feed(bytes(data[:size]))


def why(error: Exception) -> str:
    """Return what an error says, without its number."""
    return getattr(error, "strerror", None) or str(error)


def meet(
    address: Address, member: Member, deadline: float, refused: float = REFUSED_SECONDS
) -> Introduction:
    """Call the root until it answers, and prove to each other who we are.

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
    """See whether the run at an address can be joined, without doing it; raises as ``meet``."""
    meet(Address.parse(address), member, monotonic() + timeout, refused).close()


def _checked(met: Introduction, address: Address) -> Introduction:
    """Return whom we have met, if it is the root, and of this version."""
    problem = met.handshake.disagreement()
    if met.peer.rank == 0 and not problem:
        return met
    met.close()
    if met.peer.rank:
        raise CommunicationError(f"at {address} is rank {met.peer.rank}, not the root")
    raise CommunicationError(f"this worker cannot join the run at {address}: {problem}")


def _call_root(target: Resolved, member: Member, deadline: float) -> Introduction:
    began = monotonic()
    with ExitStack() as unless_proven:
        call = Introduction(dial(target), member, Role.CALLER, began, 0)
        unless_proven.callback(call.close)
        proven = False
        while not proven:
            left = min(deadline, began + LONGEST) - monotonic()
            if left <= 0 or not _ready(call, call.events, left):
                raise TimeoutError("it does not answer")
            proven = call.advance()
        unless_proven.pop_all()
    return call


def _ready(source: Introduction | FramedStream, events: int, timeout: float) -> bool:
    poll = select.poll()
    wanted = (select.POLLIN if events & EVENT_READ else 0) | (
        select.POLLOUT if events & EVENT_WRITE else 0
    )
    poll.register(source, wanted)
    return bool(poll.poll(1000 * timeout))


def await_verdict(stream: FramedStream, address: str, deadline: float) -> tuple[Welcome, Received]:
    """Wait until the root says whether this worker is in; return what else it sent meanwhile."""
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
