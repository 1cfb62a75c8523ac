"""What tells two states of a world without time apart.

A *digest* is made of tuples.  It holds every attribute of what it is made of, except those named
in ``LEFT_OUT``: what never changes, history that decides nothing, and times, of which only counts
whether they have come.  Objects get numbers in the order in which they are met, so that two
worlds with the same shape have the same digest.

Threads: one.

Rejected: a list of what matters.  What is forgotten in it merges states that have different
futures, and nobody notices.  Here a new attribute counts until somebody leaves it out, and one of
an unknown kind is an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from dtm.core.balancer import Balancer, Mode
from dtm.core.deque import Deque
from dtm.core.ledger import Ledger
from dtm.core.messages import Grant, Load, Message, Refusal, StealRequest
from dtm.core.relay import Relay
from dtm.core.scheduler import Scheduler
from dtm.core.shutdown import Shutdown
from dtm.task import Call, Range
from dtm.testing.act_invariants import ActChecker
from dtm.testing.mail import Mail
from dtm.testing.programs import Inner
from dtm.testing.simulated_runner import NEVER, Frame, State
from dtm.testing.simulated_worker import Simulated

LEFT_OUT: dict[type, frozenset[str]] = {
    Simulated: frozenset({
        "world", "rank", "speed", "slowness", "cpu",  # constant
        "clock", "end", "busy", "lasting", "first", "frozen", "polled", "outbox_since",  # times
        "heard",  # for the laws only: what `reports` of the balancer holds
    }),
    Scheduler: frozenset({
        "rank", "size", "granularity", "_handlers",  # constant
        "counters", "_sequence",  # history
        "_armed", "_pause",  # how long, not whether
    }),
    Balancer: frozenset({
        "rank", "size", "neighbours", "dice",  # constant
        "_parent", "_children", "_random", "_granularity", "_stride", "_deals",  # constant
        "_serial",  # renamed
    }),
    ActChecker: frozenset({"_scheduler", "_refusals"}),  # what `_refusals` of the balancer holds
    Shutdown: frozenset({"_rank", "_size", "counters", "_last"}),
    Relay: frozenset({"_rank", "_size", "many"}),
    Ledger: frozenset({"dropped"}),
    Deque: frozenset(),
    Call: frozenset({
        "__weakref__", "function", "kind", "profile", "owner",
        "cost", "result_cost", "sample", "depth", "path", "star", "streaming", "chunk", "parent",
    }),
    Range: frozenset({"born"}),
    Frame: frozenset({"began", "shipped", "parks", "steps"}),
    Mail: frozenset({"estimates", "sender", "bytes"}),
}  # fmt: skip
TIMES = {"deadline", "timer", "service_at", "_timer"}
SEARCH = {"asked", "_tried", "_tries", "_refusals", "_probe"}  # cleared by the next search
Links = Mapping[tuple[int, int], Sequence[Mail]]


class Digest:
    """The digest of workers and of what is under way between them."""

    def __init__(self, workers: Sequence[Simulated], links: Links) -> None:
        self._workers = workers
        self._links = [
            (*link, mail)
            for link, waiting in sorted(links.items())
            if workers[link[1]].state is not State.GONE
            for mail in waiting
        ]
        self._numbers: dict[int, int] = {}
        self._serials = self._renamed()

    def tuples(self) -> Any:
        """Return the digest."""
        here = tuple(
            self._any(worker) if worker.state is not State.GONE else None
            for worker in self._workers
        )
        return here, tuple(
            (source, to, self._load(mail.load), self._message(source, to, mail.message))
            for source, to, mail in self._links
        )

    def _renamed(self) -> dict[tuple[int, int], int]:
        """Number the requests of each thief in their order."""
        found = set(self._requests())
        return {name: number for number, name in enumerate(sorted(found))}

    def _requests(self) -> Iterator[tuple[int, int]]:
        for worker in self._workers:
            balancer = worker.scheduler.balancer
            if worker.state is State.GONE:
                continue
            if balancer.mode is Mode.ASKING:
                yield from ((worker.rank, serial) for serial in balancer.asked.values())
            yield from ((worker.rank, serial) for serial in balancer.tied.values())
            yield from ((thief, serial) for thief, (serial, *_) in balancer.waiting.items())
        for source, to, mail in self._links:
            if isinstance(mail.message, StealRequest):
                yield source, mail.message.serial
            elif isinstance(mail.message, (Grant, Refusal)):
                yield to, mail.message.serial

    def _message(self, source: int, to: int, message: Message) -> Any:
        fields = [getattr(message, name) for name in message._fields]
        if isinstance(message, StealRequest):
            fields[0] = self._serials[source, message.serial]
        elif isinstance(message, (Grant, Refusal)):
            fields[0] = self._serials[to, message.serial]
        elif type(message).__name__ == "Stopped":
            fields = []
        return type(message).__name__, *map(self._any, fields)

    @staticmethod
    def _load(load: Load) -> Any:
        return load.seconds, load.idle

    def _balancer(self, balancer: Balancer) -> Iterator[tuple[str, Any]]:
        rank, serials = balancer.rank, self._serials
        for name, value in vars(balancer).items():
            if name in LEFT_OUT[Balancer] or (name in SEARCH and balancer.mode is not Mode.ASKING):
                continue
            drawn: Any
            if name == "waiting":
                drawn = [
                    (thief, serials[thief, each[0]], *each[1:]) for thief, each in value.items()
                ]
            elif name in ("asked", "tied"):
                drawn = sorted((other, serials[rank, serial]) for other, serial in value.items())
            elif name == "reports":
                drawn = sorted((other, self._load(load)) for other, (load, _) in value.items())
            else:
                drawn = self._attribute(name, value)
            yield name, self._any(drawn)

    def _attribute(self, name: str, value: Any) -> Any:
        if name in TIMES:
            return "never" if value == NEVER else value > 0.0
        if name == "listeners":
            return value is not None and len(value)
        return self._any(value)

    def _object(self, thing: Any, kind: type) -> Any:
        number = self._numbers.setdefault(id(thing), len(self._numbers))
        if number < len(self._numbers) - 1:
            return number
        if kind is Balancer:
            return number, tuple(self._balancer(thing))
        extra: Any = None
        if kind is Call:
            extra = thing.owner, self._numbers.get(id(thing.parent))
        names = [
            name for name in _names(thing) if name not in LEFT_OUT[kind] and hasattr(thing, name)
        ]
        return number, extra, *(self._attribute(name, getattr(thing, name)) for name in names)

    def _any(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str, Enum)):
            return value
        if isinstance(value, BaseException):
            return repr(value)
        if isinstance(value, Inner):
            return "task", id(value)
        if isinstance(value, (list, tuple, deque)):
            return tuple(map(self._any, value))
        if isinstance(value, (set, frozenset)):
            return tuple(sorted(value))
        if isinstance(value, dict):
            return tuple((self._any(key), self._any(each)) for key, each in value.items())
        kind = Balancer if isinstance(value, Balancer) else type(value)
        if kind in LEFT_OUT:
            return self._object(value, kind)
        raise TypeError(f"a digest does not know what {value!r} is")


def _names(thing: Any) -> Sequence[str]:
    slots: Sequence[str] | None = getattr(type(thing), "__slots__", None)
    return slots if slots is not None else tuple(vars(thing))
