"""Invariants: what may be left when all workers are idle, and when a run is over.

See *Silent when idle*, *Cancelled means cancelled*, *The root ends last* and *Quiet at the end* in
:mod:`dtm.testing.invariants`.

Threads: one.

Rejected: to let what is still under way come to its end first.  A stopped
worker drops messages, so waiting for them to arrive would hide errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from dtm.core.balancer import Mode
from dtm.core.messages import (
    Cancel,
    Grant,
    Message,
    Refusal,
    Relayed,
    Results,
    Segment,
    StealRequest,
)
from dtm.testing.invariants import require, timers_near, under_way
from dtm.testing.laws import Law
from dtm.testing.simulated_runner import NEVER, State
from dtm.testing.simulated_worker import Simulated

if TYPE_CHECKING:
    from dtm.task import Call
    from dtm.testing.world import World


def check_silent(world: World) -> None:
    """Nobody but the root has anything left to do."""
    law, moving = Law.SILENT_WHEN_IDLE, list(under_way(world))
    require(not moving, law, lambda: f"{moving[0]} is under way")
    for worker in world.workers:
        if worker.rank or world.returned == NEVER:  # the root has run until now, and may look again
            _silent(worker)
        for call in world.failed:
            if call.key and call.owner != worker.rank and worker.act_checker is not None:
                told = worker.act_checker.cancelled.get((call.owner, call.key))
                who = f"worker {worker.rank} has been told {told} of {call!r}"
                require(told == call.limit, Law.CANCELLED, partial(str, who))


def _silent(worker: Simulated) -> None:
    scheduler, who = worker.scheduler, f"worker {worker.rank}"
    timers = {
        "timer": worker.timer,
        "deadline": min(worker.deadline, scheduler.balancer.deadline),
        "service": worker.service_at,
        "results of others": scheduler.relay.deadline,
    }
    for what, when in timers.items():
        if when < NEVER:
            raise Law.SILENT_WHEN_IDLE.broken(f"{who} has set its {what} to {when}")
    if worker.rank and scheduler.balancer.mode is not Mode.WAITING:
        raise Law.SILENT_WHEN_IDLE.broken(f"{who} is {scheduler.balancer.mode.value}")


def check_quiet(world: World) -> None:
    """When the root has ended, nothing is left that somebody needs."""
    left = [worker.rank for worker in world.workers if worker.state is not State.GONE]
    require(not left, Law.ROOT_ENDS_LAST, lambda: f"{left} have not")
    needless, law = _Needless(world), Law.QUIET_AT_THE_END
    for source, to, message in under_way(world):
        if not needless.message(to, message):
            raise law.broken(f"{message!r} from {source} to {to} is under way")
    for call in world.calls.values():
        require(needless.call(call), law, partial("{!r} is under way".format, call))
    for worker in world.workers:
        timers_near(worker)
        deadline = worker.scheduler.balancer.deadline
        require(
            deadline == NEVER,
            law,
            partial("worker {} waits until {}".format, worker.rank, deadline),
        )
        for what, kept in _kept(worker, needless):
            raise law.broken(f"worker {worker.rank} has {what}: {kept}")


class _Needless:
    """What nobody needs any more: what was cancelled, and what lies below that."""

    def __init__(self, world: World) -> None:
        self.failed = {id(call): call for call in world.failed}
        self.open = world.calls
        known = (*world.failed, *world.calls.values())
        self.names = {(call.owner, call.key): call for call in known if call.key}

    def call(self, call: Call) -> bool:
        """Whether a call that is under way was made by an item that nobody needs."""
        work = call.parent.work
        return work is not None and self.items(work.call, call.parent.position)

    def items(self, call: Call, stop: int) -> bool:
        """Whether nobody needs items of a call, the last of which is ``stop - 1``."""
        home = self.names.get((call.owner, call.key), call)
        if id(home) in self.open:
            return self.call(home)
        return id(home) in self.failed and stop > home.limit

    def segment(self, owner: int, segment: Segment) -> bool:
        """Whether nobody needs these results."""
        home = self.names.get((owner, segment.key))
        stop = segment.lo + len(segment.values) + (segment.failure is not None)
        return home is not None and self.items(home, stop)

    def message(self, to: int, message: Message) -> bool:
        """Whether a message may be under way at the end."""
        if isinstance(message, Grant):
            return all(self.items(part.call, part.hi) for part in message.parts)
        if isinstance(message, (Results, Relayed)):
            owner = message.owner if isinstance(message, Relayed) else to
            return all(self.segment(owner, segment) for segment in message.segments)
        return isinstance(message, (StealRequest, Refusal, Cancel))


def _kept(worker: Simulated, needless: _Needless) -> Iterator[tuple[str, object]]:
    """Yield what a worker still has that somebody needs, or that it must not have in any case."""
    for stack in (worker.stack, *worker.ready, *worker.parked):
        for frame in stack:
            if frame.work is None or not needless.items(frame.work.call, frame.hi):
                yield "a task", frame.work
    for owner, segments in (*worker.outbox.items(), *worker.scheduler.relay):
        for segment in segments:
            if not needless.segment(owner, segment):
                yield "results", segment
    for work in worker.scheduler.deque:
        if work.lo < work.hi and not needless.items(work.call, work.hi):
            yield "work", work
    for call in worker.scheduler.ledger:
        if id(call) not in needless.open:
            yield "a call", call
