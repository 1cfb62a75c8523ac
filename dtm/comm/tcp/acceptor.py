"""A stream manager that accepts connections from members of the run only.

Whoever connects is a stranger (:mod:`dtm.comm.tcp.joining`) until that is done.  At most
``MOST_STRANGERS`` are on the way at a time.  When there is no room, one that has been silent for
a while makes room, or else newcomers wait in the kernel's queue.  What becomes of strangers
is counted and not reported, and nothing of theirs gets further than the handshake.

Calls to other workers go the same way, and are not counted as strangers.

Threads: all of it runs under the caller's lock, its attributes included, but for ``wait``,
which reads one attribute, ``_hurried``: a stale value makes it wait for too short or too
long a time, within ``_CALM``.

Rejected: a thread that accepts and shakes hands: it would compete with tasks for the
interpreter.  And to turn newcomers away at once when there is no room: with 64 silent
connections anybody could keep a worker from joining.
"""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from time import monotonic

from dtm.comm.stream_manager import Received, StreamManager
from dtm.comm.tcp.handshake import Role
from dtm.comm.tcp.joining import LONGEST, Member, PendingConnection
from dtm.errors import StrangerError

MOST_STRANGERS = 64

_SILENT = 0.3  # seconds after which who has said nothing makes room for others
_SLOW = 3.0  # and who has said something; a crowded machine makes members slow, too
_LOOK = 0.05  # seconds between looks at the clock while somebody is on the way
_CALM = 0.5  # and while nobody is


class Acceptor(StreamManager):
    """Accepts connections and drives their handshakes; what follows is the subclass's.

    Attributes:
        strangers_refused: how many connections came to nothing.
    """

    def __init__(self, rank: int, hosts: Sequence[str], member: Member) -> None:
        super().__init__(rank, len(hosts), hosts)
        self.strangers_refused = 0
        self._member = member
        self._pending_connections: dict[
            PendingConnection, None
        ] = {}  # in the order in which they began
        self._accepting = True  # whether the listener is watched
        self._early: Received = []  # what came before anybody called ``receive``
        self._looked = monotonic()
        self._hurried = True  # whether something is due soon; for ``wait``, which has no lock

    # For subclasses

    @abstractmethod
    def _authenticated(self, newcomer: PendingConnection, received: Received) -> None:
        """Take over a connection whose other end is a member; it is watched no more."""

    @abstractmethod
    def _failed(self, newcomer: PendingConnection, error: Exception) -> None:
        """Note that a connection from here has failed."""

    def _is_busy(self) -> bool:
        """Whether something is due soon."""
        return bool(self._pending_connections) or not self._accepting

    # The interface

    def receive(self) -> Received:
        """Read what has come; accept connections and go on with handshakes on the way."""
        now = monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            self._look(now)
        received = super().receive()
        if self._early:
            self._early, received = [], self._early + received
        self._hurried = self._is_busy()
        return received

    def wait(self, timeout: float) -> None:
        """Wait, but not past the time at which something is due."""
        super().wait(self._until_due(timeout))

    def stand_by(self, timeout: float) -> bool:
        """Stand by, but not past that time either."""
        return super().stand_by(self._until_due(timeout))

    def _until_due(self, timeout: float) -> float:
        return min(timeout, _LOOK if self._hurried else _CALM)

    # Strangers

    def _look(self, now: float) -> None:
        """Do what is due by the clock."""
        for each in [each for each in self._pending_connections if now - each.began > LONGEST]:
            self._dismiss(each)
        if not self._accepting and self._listener is not None:
            self._accepting = True
            self._watch(self._listener, self._accept)

    def _accept(self, _received: Received | None = None) -> None:
        """Accept connections, as far as there is room for strangers."""
        assert self._listener is not None
        now = monotonic()
        for _ in range(MOST_STRANGERS):
            if not self._make_room(now):
                break
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # out of descriptors
                break
            self._receive_stranger(connection, now)
        else:
            return
        if self._accepting:
            self._accepting = False  # until the next look
            with self._output:
                self._selector.unregister(self._listener)

    def _receive_stranger(self, connection: socket.socket, now: float) -> None:
        try:
            stranger = PendingConnection(connection, self._member, Role.ACCEPTOR, now)
        except OSError:  # gone already
            connection.close()
            self.strangers_refused += 1
        else:
            self._begin_handshake(stranger)

    def _make_room(self, now: float) -> bool:
        """Whether there is room for one more stranger, if need be after dropping one."""
        strangers = [each for each in self._pending_connections if each.target < 0]
        if len(strangers) < MOST_STRANGERS:
            return True
        for each in strangers:
            if now - each.began > (_SLOW if each.spoken else _SILENT):
                self._dismiss(each)
                return True
        return False

    def _begin_handshake(self, newcomer: PendingConnection) -> None:
        self._pending_connections[newcomer] = None
        self._watch(newcomer, partial(self._advance, newcomer), newcomer.events)
        if newcomer.target < 0:
            self._advance(newcomer, self._early)

    def _advance(self, newcomer: PendingConnection, received: Received) -> None:
        """Go on with a handshake; hand the connection over when it is proven."""
        if newcomer not in self._pending_connections:
            return  # dropped since the selector saw it
        events = newcomer.events
        try:
            proven = newcomer.advance()
        except (OSError, StrangerError) as error:
            self._dismiss(newcomer, error)
            return
        if proven:
            del self._pending_connections[newcomer]
            self._release(newcomer)
            self._authenticated(newcomer, received)
        elif newcomer.events != events:
            with self._output:
                self._selector.modify(newcomer, newcomer.events, partial(self._advance, newcomer))

    def _dismiss(self, newcomer: PendingConnection, error: Exception | None = None) -> None:
        del self._pending_connections[newcomer]
        self._unwatch(newcomer)
        if newcomer.target < 0:
            self.strangers_refused += 1
        else:
            self._failed(newcomer, error or TimeoutError("it does not answer"))
