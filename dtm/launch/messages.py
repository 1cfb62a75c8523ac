"""What a launcher, its agents and its workers say to each other.

Launcher and agents write one line of JSON for each message.  *Down* is from the launcher through
every agent, *up* is the way back.  The end of an agent's input is an order too: end the workers,
and yourself.  A worker gets an :class:`Invitation` from whoever started it.

No message is code: a line that cannot be decoded is an error of the connection.  They are named
tuples rather than dataclasses since making the classes takes a third of the time, at the start
of every launcher and agent.

Read-only; any thread.

Rejected: pickles, which would let a host take over the launcher, and binary frames: the starters of
batch systems pass on whole lines, and hold back what has none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from dtm.errors import CommunicationError

INVITATION = "DTM_INVITATION"  # the variable by which a worker finds its invitation
BEGIN = b'["'  # of each message


class Invitation(NamedTuple):
    """What a worker is told of its run."""

    credentials: str  # as text; the secret is in it
    size: int  # how many ranks the run has, free ones included
    hosts: Sequence[str]  # of the ranks that are started for the run; the others are free
    tls: bool  # whether connections are encrypted
    rank: int | None = None  # None for a free one
    address: str | None = None  # of the root, None if this worker is to be the root
    bind: str | None = None  # the address by which others reach this host, None for itself only
    ports: tuple[int, int] | None = None  # the first and the last to listen at, None for any
    carries_output: bool = False  # whether whoever started the worker brings its output home


class Job(NamedTuple):
    """Down, first: what every host has to know to do its part."""

    directory: str  # where the workers start
    arguments: list[str]  # of the interpreter: the program's command line
    files: list[str]  # what has to be there
    module: str  # likewise, if the program is a module; else empty
    environment: dict[str, str]  # of the workers
    invitation: dict[str, Any]  # the fields of Invitation, without rank, address and bind
    site: dict[str, Any]  # the part of the agent that gets this; see dtm.launch.plan.Site
    starting: dict[str, Any]  # how agents are started: the fields of dtm.launch.plan.Starting


class Ready(NamedTuple):
    """Up: a host can do its part; ``here`` and ``there``: both addresses of the connection."""

    host: str
    here: str
    there: str


class Refused(NamedTuple):
    """Up: a host cannot do its part, and why."""

    host: str
    reason: str


class Go(NamedTuple):
    """Down, when all hosts are ready: start the workers; by these addresses hosts are reached."""

    addresses: dict[str, str]


class Address(NamedTuple):
    """Up from the agent of the root, then down to all: where the root listens."""

    address: str


class Lost(NamedTuple):
    """Up from the agent of the root: workers that are not connected to it; do not await them."""

    ranks: list[int]


class Signal(NamedTuple):
    """Down, for the root: a signal that the launcher has received."""

    number: int


class Death(NamedTuple):
    """Down, for the root: workers that have ended, and how; it may not know."""

    ranks: list[int]
    reason: str


class Over(NamedTuple):
    """Down: the root has ended; workers that have not joined it need not."""


class Pulse(NamedTuple):
    """Both ways, every second: the sender is there."""


class Output(NamedTuple):
    """Up: whole lines that a worker has written to ``stdout`` or ``stderr``."""

    rank: int
    stream: str
    text: str


class Ended(NamedTuple):
    """Up, after its output: the process of a worker has ended; a negative status is a signal."""

    rank: int
    status: int


class Gone(NamedTuple):
    """Up: hosts that cannot be heard any more, with their ranks; ``reason`` names them."""

    hosts: list[str]
    ranks: list[int]
    reason: str


Message = (
    Job | Ready | Refused | Go | Address | Lost | Signal | Death | Over | Pulse | Output | Ended
    | Gone
)  # fmt: skip
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Message.__args__}


def encode(message: Message) -> bytes:
    """Return a message as a line."""
    return json.dumps([type(message).__name__, message._asdict()]).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Return the message that a line holds.

    Raises:
        CommunicationError: it holds none.
    """
    try:
        name, fields = json.loads(line)
        made: Message = _KINDS[name](**fields)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CommunicationError(f"no message: {line[:60]!r}") from error
    return made
