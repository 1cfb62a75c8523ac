"""What the managers of a TCP run say to each other, beside the messages of their users.

All of it is said after the proof.  A notice is its kind, one byte, and a frame for each
field; no field is anything but text or a number, so reading one can do no more
than fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from dtm.comm.base import Frame
from dtm.errors import CommunicationError


@dataclass(frozen=True, slots=True)
class Notice:
    """Any of them."""

    def frames(self) -> list[Frame]:
        """Return what is sent."""
        frames: list[Frame] = [_KINDS[type(self)]]
        for value in astuple(self):
            values = value if isinstance(value, tuple) else (value,)
            frames += [str(each).encode() for each in values]
        return frames


@dataclass(frozen=True, slots=True)
class Join(Notice):
    """A worker to the root, first of all: its machine, and the address where it listens."""

    host: str
    address: str

    @classmethod
    def read(cls, fields: Sequence[str]) -> Join:
        """Make one from its fields."""
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class Welcome(Notice):
    """The root to a worker that has joined: its rank, and the machine of each rank."""

    rank: int
    hosts: tuple[str, ...]

    @classmethod
    def read(cls, fields: Sequence[str]) -> Welcome:
        """Make one from its fields."""
        return cls(int(fields[0]), tuple(fields[1:]))


@dataclass(frozen=True, slots=True)
class Refused(Notice):
    """The root to a worker that cannot join."""

    reason: str

    @classmethod
    def read(cls, fields: Sequence[str]) -> Refused:
        """Make one from its fields."""
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class Ask(Notice):
    """A worker to the root: where is that rank?  It owes Here, NotYet or Gone."""

    rank: int

    @classmethod
    def read(cls, fields: Sequence[str]) -> Ask:
        """Make one from its fields."""
        return cls(int(fields[0]))


@dataclass(frozen=True, slots=True)
class Here(Notice):
    """The root to who asked: that rank listens there."""

    rank: int
    host: str
    address: str

    @classmethod
    def read(cls, fields: Sequence[str]) -> Here:
        """Make one from its fields."""
        return cls(int(fields[0]), *fields[1:])


@dataclass(frozen=True, slots=True)
class NotYet(Notice):
    """The root to who asked: that rank has not joined; Here follows when it has."""

    rank: int

    @classmethod
    def read(cls, fields: Sequence[str]) -> NotYet:
        """Make one from its fields."""
        return cls(int(fields[0]))


@dataclass(frozen=True, slots=True)
class Gone(Notice):
    """The root to who asked: that rank has left, or, if there is a reason, is lost."""

    rank: int
    reason: str

    @classmethod
    def read(cls, fields: Sequence[str]) -> Gone:
        """Make one from its fields."""
        return cls(int(fields[0]), *fields[1:])


_TYPES = (Join, Welcome, Refused, Ask, Here, NotYet, Gone)
_KINDS: dict[type[Notice], bytes] = {kind: bytes([i + 1]) for i, kind in enumerate(_TYPES)}


def read_notice(frames: Sequence[Frame]) -> Notice:
    """Read what ``frames`` returned at the other end."""
    try:
        kind = _TYPES[frames[0][0] - 1]
        return kind.read([bytes(frame).decode() for frame in frames[1:]])
    except (IndexError, TypeError, ValueError) as error:
        raise CommunicationError("a notice of another manager cannot be read") from error
