"""The handshake: both ends prove that they know the run's secret, before anything else is read.

Two ends, the *caller* and the *acceptor*.  Three messages, each of one fixed size::

    caller                              acceptor
      | -- hello ----------------------->  |
      | <----------------- hello, proof -- |
      | -- proof ----------------------->  |
      |    keys                     keys   |

A hello holds the magic bytes and the layout's number, the role of its sender, the
ways to seal that it knows, its versions (dtm, Python, pickle protocol), the run's
name, its rank and a fresh nonce.  From the secret and *both* hellos four keys are
derived (HKDF with SHA-256, RFC 5869): for the proof of each end, and for what each
end will send.  A proof is HMAC-SHA-256, under the key for it, over both hellos.
So a proof is good for one connection, one direction and these very hellos: it can
be neither replayed (nonces), nor reflected (roles), nor relayed to another
connection, and whoever changes a byte of a hello, to make both ends choose the
weaker way for instance, breaks both proofs.

Nothing here is a socket, a clock or a source of chance: bytes go in (never more
than ``wanted``), bytes come out.  Nothing has a length that the peer chooses, so
nothing can be too long.  What arrives before the proof is compared and never
reported: a :class:`~dtm.errors.StrangerError` names no byte that a stranger sent.
Versions are compared after the proof (``disagreement``), so that only members can
make us print a complaint about them.

Threads: a handshake is used by one thread at a time.

Rejected: TLS alone.  A member that joins by hand would be told by a library's
error code why it is not let in, and a loopback run would need the package that
makes certificates.  A password-authenticated exchange: the secret has 256 random
bits, so guessing it from a proof is not a danger.  And proof by the caller first:
the acceptor would have to say which of "other run" and "wrong secret" it is by
silence.
"""

from __future__ import annotations

import hmac
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from hashlib import sha256
from struct import Struct

from dtm.comm.tcp.credentials import Credentials
from dtm.errors import StrangerError

MAGIC = b"\x93dtm"
LAYOUT = 1
NONCE = 32
PROOF = 32
ANY_RANK = -1  # claimed by a worker that takes whichever is free

_HELLO = Struct("<4sBBBBBB16s32s32si")
_VERSION = 32  # bytes of the text of dtm's version


class Role(IntEnum):
    """Which end of a connection this is."""

    CALLER = 1
    ACCEPTOR = 2


class Seals(IntFlag):
    """The ways to authenticate what follows the handshake; the highest in common is used."""

    HMAC = 1
    GMAC = 2


class State(Enum):
    """What a handshake waits for, or how it has ended."""

    HELLO = "hello of the peer"
    PROOF = "proof of the peer"
    PROVEN = "proven"
    FAILED = "failed"


TRANSITIONS: Mapping[State, Mapping[str, State]] = {
    State.HELLO: {"hello": State.PROOF, "anything else": State.FAILED},
    State.PROOF: {"proof": State.PROVEN, "anything else": State.FAILED},
    State.PROVEN: {},
    State.FAILED: {},
}


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of which both ends must have the same."""

    dtm: str
    python: tuple[int, int]
    pickle: int

    def __str__(self) -> str:
        return f"dtm {self.dtm}, Python {self.python[0]}.{self.python[1]}, pickle {self.pickle}"


def own_versions() -> Versions:
    """Return the versions of this process."""
    from dtm.version import VERSION

    return Versions(VERSION, sys.version_info[:2], pickle.HIGHEST_PROTOCOL)


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of either end."""

    role: Role
    seals: Seals
    versions: Versions
    run: bytes
    nonce: bytes
    rank: int

    def to_bytes(self) -> bytes:
        """Return the bytes on the wire; a version that is too long is cut."""
        versions = self.versions
        text = versions.dtm.encode("ascii", "replace")[:_VERSION]
        return _HELLO.pack(
            MAGIC, LAYOUT, self.role, self.seals, *versions.python, versions.pickle,
            self.run, self.nonce, text, self.rank,
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> Hello:
        """Read a hello.

        Raises:
            StrangerError: these bytes are none.
        """
        magic, layout, role, seals, major, minor, protocol, run, nonce, text, rank = _HELLO.unpack(
            data
        )
        if magic != MAGIC:
            raise StrangerError("whoever is there does not speak dtm's protocol")
        if layout != LAYOUT:
            raise StrangerError("dtm is there in a version that greets in another way")
        text = text.rstrip(b"\0")
        known = role in tuple(Role) and seals & Seals.HMAC and not seals & ~sum(Seals)
        if not known or rank < ANY_RANK or not all(32 < byte < 127 for byte in text):
            raise StrangerError("a malformed greeting")
        versions = Versions(text.decode("ascii"), (major, minor), protocol)
        return cls(Role(role), Seals(seals), versions, run, nonce, rank)


HELLO = _HELLO.size


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """How to authenticate one connection, and the key for each direction."""

    seal: Seals
    outgoing: bytes
    incoming: bytes


class Handshake:
    """One end of a handshake.

    Args:
        credentials: of the run.
        role: whether this end called.
        rank: of this worker, or ``ANY_RANK``.
        nonce: 32 fresh random bytes.
        seals: the ways to seal that this end knows.
        versions: of this process.

    Attributes:
        state: what it waits for.
        peer: the hello of the other end, once that has come; to be believed when proven.
    """

    def __init__(
        self,
        credentials: Credentials,
        role: Role,
        rank: int,
        nonce: bytes,
        seals: Seals = Seals.HMAC,
        versions: Versions | None = None,
    ) -> None:
        self.state = State.HELLO
        self.peer: Hello | None = None
        self._secret = credentials.secret
        self._mine = Hello(role, seals, versions or own_versions(), credentials.run, nonce, rank)
        self._transcript = b""
        self._input = b""
        self._output = self._mine.to_bytes() if role is Role.CALLER else b""

    def __repr__(self) -> str:
        return f"<Handshake of the {self._mine.role.name.lower()}, {self.state.value}>"

    @property
    def wanted(self) -> int:
        """How many bytes of the peer this end can take now; 0 when it has ended."""
        size = {State.HELLO: HELLO, State.PROOF: PROOF}.get(self.state, 0)
        return size - len(self._input) if size else 0

    def _go(self, event: str) -> None:
        self.state = TRANSITIONS[self.state][event]

    def take_output(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output, self._output = self._output, b""
        return output

    def feed(self, data: bytes) -> None:
        """Take at most ``wanted`` bytes of the peer.

        Raises:
            StrangerError: the peer has not proven to be a member of the run.
        """
        if len(data) > self.wanted:
            raise ValueError(f"{len(data)} bytes for a handshake that wants {self.wanted}")
        self._input += data
        if self.wanted:
            return
        data, self._input = self._input, b""
        try:
            if self.state is State.HELLO:
                self._greeted(data)
            else:
                self._proven(data)
        except StrangerError:
            self._go("anything else")
            raise

    def _greeted(self, data: bytes) -> None:
        peer = Hello.from_bytes(data)
        mine = self._mine
        if peer.role is mine.role or hmac.compare_digest(peer.nonce, mine.nonce):
            raise StrangerError("our own greeting came back")
        self.peer = peer
        calling = mine.role is Role.CALLER
        own = mine.to_bytes()
        self._transcript = own + data if calling else data + own
        if not calling:
            self._output += own + self._prove(mine.role)
        self._go("hello")

    def _proven(self, data: bytes) -> None:
        assert self.peer is not None
        mine = self._mine
        if self.peer.run != mine.run:
            raise StrangerError("another run of dtm is there")
        if not hmac.compare_digest(data, self._prove(self.peer.role)):
            raise StrangerError("whoever is there does not know the secret of this run")
        if mine.role is Role.CALLER:
            self._output += self._prove(mine.role)
        self._go("proof")

    def _prove(self, role: Role) -> bytes:
        return hmac.digest(self._derive(b"proof", role), self._transcript, "sha256")

    def _derive(self, purpose: bytes, role: Role) -> bytes:
        """Return the key for a purpose of the end that has this role."""
        salt = sha256(self._transcript).digest()
        extracted = hmac.digest(salt, self._secret, "sha256")
        label = b"dtm " + purpose + b" " + role.name.lower().encode()
        return hmac.digest(extracted, label + b"\x01", "sha256")

    # When it is proven

    def keys(self) -> Keys:
        """Return the keys of this connection."""
        peer = self._member()
        seal = max(seal for seal in Seals if seal in peer.seals & self._mine.seals)
        return Keys(
            seal, self._derive(b"frames", self._mine.role), self._derive(b"frames", peer.role)
        )

    def disagreement(self) -> str | None:
        """Return a sentence if both ends cannot work together, and None if they can."""
        peer, mine = self._member().versions, self._mine.versions
        if peer == mine:
            return None
        return f"it runs {peer}; this process runs {mine}; both must be the same"

    def _member(self) -> Hello:
        assert self.state is State.PROVEN, self
        assert self.peer is not None
        return self.peer
