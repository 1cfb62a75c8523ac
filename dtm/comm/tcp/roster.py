"""How the workers of a TCP run find each other.

Workers do not know each other's addresses.  A worker that first has a message for a rank
begins a :class:`Search`: it asks the root, which answers from its :class:`Roster`, and who
asks for a rank that has not joined is answered when it has.  So nobody keeps more than
the addresses of those it talks to, and a worker can join at any time.

Questions and answers are *notices*, which managers exchange beside the messages of their
users, after the proof that both belong to the run.  A notice is its kind, one byte, and a
frame for each field; a field is text or a number, so to read one can do no more than fail.

A search::

    ASKED --here--> CALLED --no answer--> MISSED --time to ask--> ASKED
    ASKED --not yet--> ABSENT --here--> CALLED

is over, and forgotten, as soon as there is a connection, whoever made it, or the peer is known
to be gone, or there is no root to ask.  A peer whose machine has not answered for
``UNREACHABLE`` seconds, or has refused for so long although the root knows of no end, is
lost.  One that is merely busy, so that its kernel takes the call and it does not, never is.

A rank is given once: a worker that has left, or was lost, does not come back under its
number, for messages to the old one may still be under way.

Threads: under the caller's lock (:mod:`dtm.comm.stream_manager`), all attributes.

Rejected: to call the same address again without asking.  A peer that has left meanwhile
never answers, and the root knows that it has.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, fields
from enum import Enum

from dtm.comm.base import Frame
from dtm.errors import CommunicationError

AGAIN = 0.2  # seconds until an address that did not answer is asked for again
UNREACHABLE = 4.5  # seconds after which a peer that cannot be called is lost


@dataclass(frozen=True, slots=True)
class Notice:
    """What one manager says to another."""

    def frames(self) -> list[Frame]:
        """Return the frames that carry it."""
        frames: list[Frame] = [_KINDS[type(self)]]
        for value in astuple(self):
            values = value if isinstance(value, tuple) else (value,)
            frames += [str(each).encode() for each in values]
        return frames

    @classmethod
    def read(cls, texts: Sequence[str]) -> Notice:
        """Make one from the text of its fields; a tuple, which is the last, takes all the rest."""
        values: list[object] = []
        for number, each in enumerate(fields(cls)):
            if each.type == "tuple[str, ...]":
                values.append(tuple(texts[number:]))
                break
            values.append(int(texts[number]) if each.type == "int" else texts[number])
        else:
            if len(texts) != len(values):
                raise ValueError(texts)
        return cls(*values)


@dataclass(frozen=True, slots=True)
class Join(Notice):
    """A worker to the root, first of all: its machine, and the address where it listens."""

    host: str
    address: str


@dataclass(frozen=True, slots=True)
class Welcome(Notice):
    """The root to a worker that has joined: its rank, and the machine of each rank."""

    rank: int
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused(Notice):
    """The root to a worker that cannot join."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ask(Notice):
    """A worker to the root: where is that rank?  It owes Here, NotYet or Gone."""

    rank: int


@dataclass(frozen=True, slots=True)
class Here(Notice):
    """The root to who asked: that rank listens there."""

    rank: int
    host: str
    address: str


@dataclass(frozen=True, slots=True)
class NotYet(Notice):
    """The root to who asked: that rank has not joined; Here follows when it has."""

    rank: int


@dataclass(frozen=True, slots=True)
class Gone(Notice):
    """The root to who asked: that rank has left, or, if there is a reason, is lost."""

    rank: int
    reason: str


_TYPES = (Join, Welcome, Refused, Ask, Here, NotYet, Gone)
_KINDS: dict[type[Notice], bytes] = {kind: bytes([i + 1]) for i, kind in enumerate(_TYPES)}


def read_notice(frames: Sequence[Frame]) -> Notice:
    """Return the notice of which these are the frames."""
    try:
        kind = _TYPES[frames[0][0] - 1]
        return kind.read([bytes(frame).decode() for frame in frames[1:]])
    except (IndexError, TypeError, ValueError) as error:
        raise CommunicationError("a notice of another manager cannot be read") from error


class Roster:
    """The root's list of the ranks: who has joined, where they listen, who is gone.

    Args:
        size: of the run.
        hosts: names of the machines, as far as they are known.
        reserved: ranks that are given only to who asks for them.
    """

    def __init__(self, size: int, hosts: list[str], reserved: Collection[int]) -> None:
        self.hosts = hosts
        self._reserved = frozenset(reserved)
        self._absent = dict.fromkeys(range(1, size))  # an ordered set
        self._addresses: dict[int, str] = {}
        self._gone: dict[int, str] = {}
        self._asking: dict[int, list[int]] = {}

    def absent(self) -> Sequence[int]:
        """Return the ranks that have not joined, in order."""
        return list(self._absent)

    def choose(self, claimed: int) -> int:
        """Return the rank for a worker that claims one, or any (-1).

        Raises:
            CommunicationError: it cannot have it; the text is for the worker.
        """
        if claimed in self._absent:
            return claimed
        size = len(self.hosts)
        if claimed >= size:
            raise CommunicationError(f"there is no rank {claimed} in this run of {size} workers")
        if claimed >= 0:
            raise CommunicationError(f"rank {claimed} of this run is taken")
        for rank in self._absent:
            if rank not in self._reserved:
                return rank
        raise CommunicationError(
            f"this run is full: it has {size} workers, and each rank is taken or reserved"
        )

    def enter(self, rank: int, host: str, address: str) -> list[int]:
        """Note that a rank has joined; return those who asked for it."""
        del self._absent[rank]
        self.hosts[rank] = host
        self._addresses[rank] = address
        return self._asking.pop(rank, [])

    def find(self, rank: int, who: int) -> Notice:
        """Return the answer to who asks for a rank."""
        if rank in self._absent:
            self._asking.setdefault(rank, []).append(who)
            return NotYet(rank)
        if rank in self._gone or rank not in self._addresses:
            return Gone(rank, self._gone.get(rank, ""))
        return Here(rank, self.hosts[rank], self._addresses[rank])

    def strike(self, rank: int, reason: str) -> None:
        """Note that a rank has left, or with a reason, that it is lost."""
        self._gone.setdefault(rank, reason)
        self._absent.pop(rank, None)


class Stage(Enum):
    """How far a search has come."""

    ASKED = "the root is asked for its address"
    ABSENT = "it has not joined"
    CALLED = "it is being called"
    MISSED = "it did not answer"


TRANSITIONS: dict[Stage, dict[str, Stage]] = {
    Stage.ASKED: {"not yet": Stage.ABSENT, "here": Stage.CALLED},
    Stage.ABSENT: {"here": Stage.CALLED},
    Stage.CALLED: {"no answer": Stage.MISSED},
    Stage.MISSED: {"time to ask": Stage.ASKED, "here": Stage.CALLED},
}


class Search:
    """A peer that is not connected, and the messages for it.

    Attributes:
        stage: how far it has come.
        messages: what waits for the link, in order.
    """

    def __init__(self, first: Sequence[Frame]) -> None:
        self.stage = Stage.ASKED
        self.messages = [first]
        self._since: float | None = None  # since when the peer has been called in vain
        self._due = 0.0  # when to ask once more

    def _go(self, event: str) -> None:
        self.stage = TRANSITIONS[self.stage][event]

    def not_yet(self) -> None:
        """Note that the peer has not joined; the root will say when it has."""
        if self.stage is Stage.ASKED:
            self._go("not yet")

    def here(self, now: float) -> bool:
        """Note that the address is known; return whether to connect to it now."""
        if self.stage is Stage.CALLED:
            return False
        self._go("here")
        if self._since is None:
            self._since = now
        return True

    def missed(self, now: float) -> bool:
        """Note that connecting has failed; return False when it is time to give the peer up."""
        if self.stage is not Stage.CALLED or self._since is None:
            return True  # a call of an earlier search
        self._go("no answer")
        self._due = now + AGAIN
        return now - self._since < UNREACHABLE

    def busy(self, now: float) -> None:
        """Note that the peer's machine answers, though the peer does not."""
        self._since = now

    def is_hopeful(self, now: float, patience: float) -> bool:
        """Whether there may be a connection soon: the peer has joined and was called just now."""
        if self.stage is Stage.ABSENT:
            return False
        return self._since is None or now - self._since < patience

    def asks_again(self, now: float) -> bool:
        """Whether it is time to ask the root once more."""
        if self.stage is not Stage.MISSED or now < self._due:
            return False
        self._go("time to ask")
        return True
