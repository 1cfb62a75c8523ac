"""What a launcher and its agents say to each other: one line of JSON a message.

Down, from the launcher through every agent:

* :class:`Job` first: what to run, and where; the agent answers :class:`Ready` or
  :class:`Refused`.
* :class:`Go` when all hosts are ready: start the workers.
* :class:`Address` when the root listens: the other workers may join.
* :class:`Signal`, :class:`Death`: for the agent of the root alone, the others let it pass.
* :class:`Over` when the root has ended: who has not joined need not.
* :class:`Pulse` every second: who hears nothing for long is cut off, and ends.

Up, towards the launcher:

* :class:`Ready`, :class:`Refused`: whether this host can do its part.
* :class:`Address` from the agent of the root.
* :class:`Lost` from there too: workers that the root has no way to, so that nobody waits for them.
* :class:`Output`: whole lines that a worker has written.
* :class:`Ended`: a worker's process has ended, after all of its output.
* :class:`Gone`: a host, or an agent with all that is below it, cannot be heard any more.
* :class:`Pulse`, likewise.

The end of an agent's input is an order too: end the workers, and yourself.

Nothing here is code: a line that does not decode is an error of the connection.

Named tuples rather than dataclasses: making the classes takes a third of the time, at the start of
every launcher and agent.

Rejected: pickles, which would let a host take over the launcher, and binary frames:
batch systems' launchers pass on whole lines, and hold back what has none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dtm.errors import CommunicationError

LONGEST = 64 << 20  # bytes of one message
BEGIN = b'["'  # of each


class Job(NamedTuple):
    """What every host has to know to do its part.

    Attributes:
        directory: where the workers start.
        arguments: of the interpreter: the program's command line.
        files: what has to be there.
        module: likewise, if the program is a module; else empty.
        environment: of the workers.
        invitation: what each worker is told of its run, but for rank and address; see
            :mod:`dtm.launch.invitation`.
        site: the part of the agent that gets this, and of those that it starts in turn;
            see :class:`dtm.launch.plan.Site`.
        starting: how agents are started; see :class:`dtm.launch.remote.Starting`.
    """

    directory: str
    arguments: list[str]
    files: list[str]
    module: str
    environment: dict[str, str]
    invitation: dict[str, Any]
    site: dict[str, Any]
    starting: dict[str, Any]


class Ready(NamedTuple):
    """A host can do its part; ``here`` and ``there`` are both ends of the way to it, if known."""

    host: str
    here: str
    there: str


class Refused(NamedTuple):
    """A host cannot do its part, and why."""

    host: str
    reason: str


class Go(NamedTuple):
    """Start the workers; ``addresses`` are those by which hosts reach each other."""

    addresses: dict[str, str]


class Address(NamedTuple):
    """Where the root listens."""

    address: str


class Lost(NamedTuple):
    """Workers that the root cannot hear, or who did not leave when it did."""

    ranks: list[int]


class Signal(NamedTuple):
    """A signal that the launcher has got."""

    number: int


class Death(NamedTuple):
    """Workers that have ended, and how, when the root may not know."""

    ranks: list[int]
    reason: str


class Over(NamedTuple):
    """The root has ended."""


class Pulse(NamedTuple):
    """The sender is there."""


class Output(NamedTuple):
    """Whole lines that a worker has written to ``stdout`` or ``stderr``."""

    rank: int
    stream: str
    text: str


class Ended(NamedTuple):
    """The process of a worker has ended; a negative status is a signal."""

    rank: int
    status: int


class Gone(NamedTuple):
    """Hosts that have dropped out, with the ranks that were theirs; ``reason`` says all."""

    hosts: list[str]
    ranks: list[int]
    reason: str


Message = (
    Job | Ready | Refused | Go | Address | Lost | Signal | Death | Over | Pulse | Output | Ended
    | Gone
)  # fmt: skip
_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Job, Ready, Refused, Go, Address, Lost, Signal, Death, Over, Pulse, Output, Ended, Gone,
    )
}  # fmt: skip


def encode(message: Message) -> bytes:
    """Return a message as a line."""
    import json

    return json.dumps([type(message).__name__, message._asdict()]).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Return the message that a line holds.

    Raises:
        CommunicationError: it holds none.
    """
    import json

    try:
        name, fields = json.loads(line)
        made: Message = _KINDS[name](**fields)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CommunicationError(f"no message: {line[:60]!r}") from error
    return made


class Lines:
    """Cuts bytes into whole lines, their ends included.

    A line longer than ``longest`` comes in pieces, or is an error if it must not.
    """

    def __init__(self, longest: int, *, strict: bool) -> None:
        self._longest = longest
        self._strict = strict
        self._rest = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return the lines that are whole now."""
        self._rest += data
        cut = self._rest.rfind(b"\n", len(self._rest) - len(data)) + 1
        if not cut and len(self._rest) > self._longest:
            if self._strict:
                raise CommunicationError(f"no message: {bytes(self._rest[:60])!r}")
            cut = len(self._rest)
        return self._take(cut)

    def rest(self) -> bytes:
        """Take out the line under way."""
        return self._take(len(self._rest))

    def _take(self, cut: int) -> bytes:
        whole = bytes(self._rest[:cut])
        del self._rest[:cut]
        return whole
