"""What the managers of a TCP run say to each other, beside the messages of their users.

All of it is said after the proof.  A notice is its kind, one byte, and a frame for each
field; no field is anything but text or a number, so reading one can do no more
than fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

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
    """Read what ``frames`` returned at the other end."""
    try:
        kind = _TYPES[frames[0][0] - 1]
        return kind.read([bytes(frame).decode() for frame in frames[1:]])
    except (IndexError, TypeError, ValueError) as error:
        raise CommunicationError("a notice of another manager cannot be read") from error
