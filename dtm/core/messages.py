"""Everything that workers say to each other.

Each message states who sends it, when, and what the receiver owes.  A
:class:`Load` report travels with every one of them.

Work is named by :class:`dtm.task.Range`: on the sender it points to the sender's
call, on the receiver to the receiver's.  How it becomes bytes is the matter of
:mod:`dtm.wire.codec`.

Named tuples: frozen, slotted and typed, so two of different classes with the same
fields compare equal; tell them apart by class first, as all code here does.

Rejected: frozen dataclasses.  To make these and what the scheduler returns took 9 ms at
the start of every process, and ``inspect``, which they need, 10 more: half of all that
dtm imports.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dtm.task import Range


class Load(NamedTuple):
    """The load report of a worker, which goes along with every message.

    ``sequence`` orders the reports of one worker, ``seconds`` estimates its queued
    work, ``idle`` says that it has none and runs none.
    """

    sequence: int
    seconds: float
    idle: bool


class StealRequest(NamedTuple):
    """Thief to victim, when idle.  The victim owes a Grant or, unless it ``stays``, a Refusal.

    A request that stays is a *lifeline*: the victim keeps it and answers when it has
    something to share.  ``weight`` counts the idle workers behind the thief, ``deal`` is the number
    of deals that it has heard of.
    """

    serial: int
    weight: int
    stays: bool
    deal: int = 0


class Grant(NamedTuple):
    """Victim to thief: work, in answer to request ``serial``.  The thief owes its results.

    With a number ``deal`` it is a share that the root gives to each worker unasked.  It is sent
    even if there is nothing in it, for it makes void the lifelines of those who have not heard
    of it.
    """

    serial: int
    parts: tuple[Range, ...]
    deal: int = 0


class Refusal(NamedTuple):
    """Victim to thief: nothing worth sending.  Nothing is owed."""

    serial: int


class Segment(NamedTuple):
    """Results of consecutive items of one call: ``(key, lo)`` and the values, or a failure.

    With ``failure`` the values are those before the failing item.  ``seconds`` is what they took to
    compute, 0 if that is not known: their owner may not have run one itself.
    """

    key: int
    lo: int
    values: list[Any]
    failure: BaseException | None = None
    name: str = ""
    seconds: float = 0.0


class Results(NamedTuple):
    """Helper to owner: finished segments, possibly of several calls.  Nothing is owed."""

    segments: tuple[Segment, ...]


class Relayed(NamedTuple):
    """Helper to owner by way of others, in a large run: finished segments.

    Whoever gets it on the way sends it on towards ``owner``, together with what else passes.
    """

    owner: int
    segments: tuple[Segment, ...]


class Returned(NamedTuple):
    """Helper to owner: these items could not be read here.  The owner runs them itself.

    The reason says what could not be read, where and why.  Without one it is the function that is
    not held here any more: they may be sent again.
    """

    key: int
    lo: int
    hi: int
    reason: str


class Cancel(NamedTuple):
    """Owner to all, along the tree rooted at the owner: items from ``limit`` on are not needed.

    With ``running`` those that run are to be interrupted, where that can be done.
    """

    owner: int
    key: int
    limit: int
    running: bool = False


class Output(NamedTuple):
    """Worker to root: whole lines that tasks have printed to ``stdout`` or ``stderr``."""

    stream: str
    text: str


class Stop(NamedTuple):
    """Root to all, down the spread tree: the run is over.  A worker owes a Stopped.

    ``absent`` are workers that never joined, or are gone; the tree is closed over them.  They
    get a Stop of their own, in case they can hear it: None, which is passed on to nobody.  So
    does, late in the end, who has not been heard of: its place in the tree may be cut off.
    """

    absent: tuple[int, ...] | None = ()


class Stopped(NamedTuple):
    """Worker to whom its Stop came from, when all have stopped that it passed it on to.

    ``counters`` are those of its whole subtree, by rank.
    """

    counters: dict[int, dict[str, float]]


class Broken(NamedTuple):
    """Worker to root: an error of dtm itself, or a worker that it cannot reach.

    The root ends the run.  ``lost`` is the rank that cannot be reached, None for an error: if
    that worker has died, the root will know better, and soon.
    """

    reason: str
    lost: int | None = None


class Unprepared(NamedTuple):
    """Worker to root: its initializer has failed, so it runs nothing.  The root ends the run.

    ``traceback`` is that of the worker, as text.
    """

    reason: str
    traceback: str


class LookRequest(NamedTuple):
    """Root to worker: say what your tasks do.  The worker owes a Looked."""

    serial: int


class Looked(NamedTuple):
    """Worker to root: its stacks, in answer to request ``serial``, for people to read."""

    serial: int
    stacks: tuple[Any, ...]


class StatusRequest(NamedTuple):
    """Root to worker, while somebody watches the run: say how you are.  Owed: a Status."""

    serial: int


class Status(NamedTuple):
    """Worker to root: what it does and has done, in answer to request ``serial``."""

    serial: int
    values: dict[str, Any]


class Noted(NamedTuple):
    """Worker to worker, about handles of shared objects, by their keys.  Nothing is owed.

    ``held``: to their owner, they have come here.  It owes ``confirmed``.  ``released``: to their
    owner, they are not here any more.  ``kept``: to whoever has sent them, it need not keep
    them for this worker any more.  ``unneeded``: from their owner, which has none itself any more:
    what is only kept in case it is needed again can go.
    """

    held: tuple[Any, ...] = ()
    released: tuple[Any, ...] = ()
    confirmed: tuple[Any, ...] = ()
    kept: tuple[Any, ...] = ()
    unneeded: tuple[Any, ...] = ()


class Fetch(NamedTuple):
    """Worker to whoever has a shared object: send it.  It owes a Found.

    ``insist``: to its owner, who must not name somebody else.
    """

    key: Any
    insist: bool = False


class Found(NamedTuple):
    """Owner to worker: the frames of a shared object, or why there are none, or who has them."""

    key: Any
    reason: str
    at: int = -1
    frames: tuple[Any, ...] = ()


Message = (
    StealRequest
    | Grant
    | Refusal
    | Results
    | Relayed
    | Returned
    | Cancel
    | Output
    | Stop
    | Stopped
    | Broken
    | Unprepared
    | LookRequest
    | Looked
    | StatusRequest
    | Status
    | Noted
    | Fetch
    | Found
)
MESSAGES: tuple[type[Any], ...] = (
    StealRequest, Grant, Refusal, Results, Relayed, Returned, Cancel, Output, Stop, Stopped, Broken,
    Unprepared, LookRequest, Looked, StatusRequest, Status, Noted, Fetch, Found,
)  # fmt: skip
