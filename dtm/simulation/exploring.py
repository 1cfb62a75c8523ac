"""Every order of events: exhaustive exploration of small worlds.

Time is taken out: a *choice* is which worker acts next, or which link delivers its oldest
message; a task ends when it is chosen to, a request is given up when it is chosen to.  Two ways to
the same state are explored once.  A state without a choice in which ``main`` has not
returned is a deadlock; every law of :mod:`dtm.simulation.invariants` holds in all.

A state is reached by running the choices that lead to it again, for a world cannot be
copied cheaply (generators, closures).  What makes two states the same is their fingerprint: modes,
deques, stacks, lifelines, ledgers, messages under way; not times, and not serial numbers, which
stand for the order in which things were said.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dtm.comm.simulated import Network
from dtm.core.messages import Grant, Relayed, Results, StealRequest
from dtm.errors import InvariantError
from dtm.simulation import invariants
from dtm.simulation.frame import Frame
from dtm.simulation.mail import Mail
from dtm.simulation.programs import Inner
from dtm.simulation.worker import Simulated, State
from dtm.simulation.world import World

KNOWN_DEPTHS = 8

Choice = tuple[str, int, int]


@dataclass
class Explored:
    """How large a world was: states, and how many of them are ends."""

    states: int = 0
    ends: int = 0


class Untimed(World):
    """A world in which the explorer decides what happens next.

    ``known`` is the estimate for a task, so that all is worth sending.
    """

    def __init__(self, program: Inner, size: int, known: float, *, settled: bool = True) -> None:
        super().__init__(
            program, [1.0] * size, network=Network(cpu=0.0), known=known, minimum=0.0,
            watch=lambda *_: None,
        )  # fmt: skip
        self.links: dict[tuple[int, int], list[tuple[int, Mail]]] = {}
        for worker in self.workers:
            for depth in range(KNOWN_DEPTHS):
                worker.scheduler.granularity.profile(self.function, depth).assume(known)
        self._settled = settled
        self._number = 0

    def alarm(self, when: float, worker: Simulated, kind: str) -> None:
        """Alarms go off when they are chosen to."""

    def post(self, sender: Simulated, to: int, mail: Mail) -> None:
        """Put a message at the end of its link."""
        self._number += 1
        self.in_flight[self._number] = (sender.rank, to, mail)
        self.links.setdefault((sender.rank, to), []).append((self._number, mail))

    def begin(self) -> None:
        """Let ``main`` begin, when the other workers are silent if the world is ``settled``."""
        for worker in self.workers[1:]:
            worker.advance()
        while self._settled and (choices := self.choices()):
            self.take(choices[0])
        self._begin()

    def choices(self) -> list[Choice]:
        """Return all that may happen next."""
        found: list[Choice] = [
            ("deliver", *link) for link, waiting in sorted(self.links.items()) if waiting
        ]
        computing = [worker for worker in self.workers if worker.state is State.COMPUTING]
        return found + [("end", worker.rank, 0) for worker in computing]

    def take(self, choice: Choice) -> None:
        """Let one thing happen."""
        kind, first, second = choice
        self.now += 1e-3
        if kind == "deliver":
            number, mail = self.links[first, second].pop(0)
            del self.in_flight[number]
            worker = self.workers[second]
            if worker.state is State.GONE:
                return
            worker.inbox.append((first, mail))
            if worker.state is State.COMPUTING:
                worker.clock = max(worker.clock, self.now)
                worker.service()
            else:
                worker.wake(self.now)
        else:
            self.workers[first].task_over(self.now)


def fingerprint(world: Untimed) -> Any:
    """Return what tells states apart."""
    links = tuple(
        (link, tuple(_mail(mail) for _, mail in waiting))
        for link, waiting in sorted(world.links.items())
        if waiting
    )
    return world.phase, links, tuple(_worker(worker) for worker in world.workers)


def _mail(mail: Mail) -> Any:
    message = mail.message
    if isinstance(message, Grant):
        parts = tuple((p.call.owner, p.call.key, p.lo, p.hi) for p in message.parts)
        return "grant", parts
    if isinstance(message, (Results, Relayed)):
        return "results", tuple((s.key, s.lo, len(s.values)) for s in message.segments)
    if isinstance(message, StealRequest):
        return "request", message.stays, message.weight
    return type(message).__name__


def _worker(worker: Simulated) -> Any:
    scheduler = worker.scheduler
    balancer = scheduler.balancer
    return (
        worker.state,
        balancer.mode,
        balancer.running,
        tuple(sorted(balancer.asked)),
        tuple(sorted(balancer.tied)),
        tuple((thief, weight) for thief, (_, weight) in balancer.waiting.items()),
        tuple((w.call.owner, w.call.key, w.lo, w.hi) for w in scheduler.deque),
        tuple(sorted((call.key, call.missing) for call in scheduler.ledger)),
        _stack(worker.stack),
        tuple(map(_stack, worker.ready)),
        tuple(map(_stack, worker.parked)),
        tuple((owner, len(segments)) for owner, segments in worker.outbox.items()),
    )


def _stack(stack: list[Frame]) -> Any:
    return tuple(
        (
            frame.lo,
            frame.hi,
            frame.position,
            len(frame.values),
            frame.taken,
            len(frame.pending),
            frame.waiting is not None and frame.waiting.missing,
        )
        for frame in stack
    )


def explore(make: Callable[[], Untimed], most_states: int = 1 << 20) -> Explored:
    """Take every choice in every state.

    Raises:
        InvariantError: a law is broken, or nothing can happen though ``main`` has not returned;
            the message ends with the choices that lead there.
    """
    explored = Explored()
    seen: set[int] = set()
    paths: list[tuple[Choice, ...]] = [()]
    while paths:
        path = paths.pop()
        world = _replay(make, path)
        while True:
            mark = hash(fingerprint(world))
            if mark in seen:
                break
            seen.add(mark)
            if len(seen) > most_states:
                raise InvariantError(f"more than {most_states} states")
            if world.ending:
                explored.ends += 1
                break
            choices = world.choices()
            if not choices:
                raise InvariantError(f"a state without progress, after {path}")
            paths += [(*path, choice) for choice in choices[1:]]
            path = (*path, choices[0])
            _take(world, path)
    explored.states = len(seen)
    return explored


def _replay(make: Callable[[], Untimed], path: tuple[Choice, ...]) -> Untimed:
    """Reach a state again; only the last step is new."""
    world = make()
    world.begin()
    for choice in path[:-1]:
        world.take(choice)
    if path:
        _take(world, path)
    return world


def _take(world: Untimed, path: tuple[Choice, ...]) -> None:
    try:
        world.take(path[-1])
        invariants.check(world)
    except InvariantError as error:
        raise InvariantError(f"{error}, after {path}") from error
