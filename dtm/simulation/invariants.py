"""The laws of a run, checked after every simulated event.

*One place*: each item below the limit of a call that is under way is in exactly one
place: ready in a deque, running, under way to another worker, finished and not yet
sent, on the way home, or delivered to its owner.

*Honest counts*: ``missing`` of a call is the number of its items below the limit that
are not delivered; its segments do not overlap and stand in order.

*The ledger is exact*: it holds the calls under way of which a part has left, no others.

*No lifeline is lost*: what a thief believes to be tied to a neighbour is held by that
neighbour, or the request, the grant or the refusal is on the way.

*No request is lost*: what a thief has asked, and not given up, is on the way, or the answer is.

*Answered once*: a lifeline that is held has not been answered; a grant carries work.

*Reports are the newest*: what a worker knows of another is what it heard last.

*Nobody is forgotten*: a worker that has work and lifelines to answer has a timer, so it
looks again; so has one that keeps results of others; and nobody rests with a timer overdue.

*Nobody is buried by a stranger*: on a stack each task is a child of the one below it.

*Modes tell the truth*: a worker that waits for work has none, and has a lifeline at
every neighbour; one that asks has a deadline.

*Delivered once*: the results of a call are those of its items, each once and in
order (checked when the call ends, by identity).

*Silent when idle*: when the idle workers have nothing more to say before ``main`` begins, all of
them wait, and no timer is left.

*Quiet at the end*: when nothing happens any more, ``main`` has returned; nothing is
under way, no task is parked (:func:`check_quiet`).

They hold until ``main`` returns or a worker dies: after an error, what nobody waits for is left
behind.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from dtm.core.balancer import Mode
from dtm.core.messages import Grant, Message, Refusal, Relayed, Results, Segment, StealRequest
from dtm.errors import InvariantError
from dtm.simulation.frame import Frame
from dtm.simulation.mail import Mail
from dtm.simulation.worker import NEVER, Simulated, State

if TYPE_CHECKING:
    from dtm.simulation.world import World
    from dtm.task import Call, Range

Place = tuple[int, int, str]


def check(world: World, touched: Simulated | None = None) -> None:
    """Check every law; those about a single worker for ``touched`` alone, if it is given.

    Raises:
        InvariantError: one is broken; the message names it.
    """
    if world.ending:
        return
    under_way = list(_under_way(world))
    one_place(world, under_way)
    honest_counts(world)
    for worker in world.workers if touched is None else (touched,):
        ledger_exact(world, worker)
        reports_newest(worker)
        nobody_buried(worker)
        if not worker.scheduler.stopping:
            modes_tell_the_truth(worker)
            nobody_forgotten(worker)
    no_lifeline_lost(world, under_way)


def _require(holds: bool, law: str, details: Callable[[], str]) -> None:
    if not holds:
        raise InvariantError(f"{law}: {details()}")


def _under_way(world: World) -> Iterator[tuple[int, int, Message]]:
    """Yield (from, to, message) of all that is sent and not yet read, oldest first."""
    for worker in world.workers:
        for source, mail in worker.inbox:
            yield source, worker.rank, mail.message
    for source, to, mail in world.in_flight.values():
        yield source, to, mail.message


# Items.


class _Census:
    """Where the items of each call under way are, and below which index that matters."""

    def __init__(self, world: World) -> None:
        self.calls = world.calls
        self.homes = {(call.owner, call.key): call for call in world.calls.values() if call.key}
        self.places: dict[int, list[Place]] = {number: [] for number in world.calls}
        self.limits = {number: call.limit for number, call in world.calls.items()}

    def put(self, call: Call, lo: int, hi: int, what: str) -> None:
        """Note items of a call, or of a helper's copy of it."""
        if lo < hi:
            found = self.places.get(id(call))
            if found is None:
                home = self.homes.get((call.owner, call.key))
                if home is None:
                    return
                found = self.places[id(home)]
            found.append((lo, hi, what))

    def put_segment(self, owner: int, segment: Segment, what: str) -> None:
        """Note results that are not with their owner yet."""
        home = self.homes.get((owner, segment.key))
        if home is not None:
            stop = segment.lo + len(segment.values)
            if segment.values:
                self.places[id(home)].append((segment.lo, stop, what))
            if segment.failure is not None:
                self.limits[id(home)] = min(self.limits[id(home)], stop)

    def put_frame(self, frame: Frame) -> None:
        """Note what a stack holds: the strip that runs, and the values gathered before it."""
        if frame.work is None:
            return
        call = frame.work.call
        self.put(call, frame.lo, frame.hi, "running")
        held = frame.lo if frame.hi > frame.lo else frame.start + len(frame.values)
        self.put(call, frame.start, held, "finished")

    def put_worker(self, worker: Simulated) -> None:
        """Note what a worker has."""
        for work in worker.scheduler.deque:
            self.put(work.call, work.lo, work.hi, "ready")
        for stack in (worker.stack, *worker.parked, *worker.ready):
            for frame in stack:
                self.put_frame(frame)
        for owner, segments in (*worker.outbox.items(), *worker.scheduler.gathering):
            for segment in segments:
                self.put_segment(owner, segment, "finished")

    def tile(self) -> None:
        """Require that the places cover the items below the limit, without overlap."""
        for number, found in self.places.items():
            call = self.calls[number]
            if not call.missing:
                continue
            found += [(lo, lo + len(call.segments[lo]), "delivered") for lo in call.starts]
            found.sort()
            at, limit = 0, self.limits[number]
            for lo, hi, _ in found:
                if lo >= limit:
                    break
                if lo != at:
                    raise InvariantError(f"one place: {call!r} has {found}")
                at = hi
            if at < limit:
                raise InvariantError(f"one place: {call!r} has {found}")


def one_place(world: World, under_way: list[tuple[int, int, Message]]) -> None:
    """Each item of a call under way is in exactly one place."""
    census = _Census(world)
    for worker in world.workers:
        census.put_worker(worker)
    for _, to, message in under_way:
        if type(message) is Grant:
            for part in message.parts:
                census.put(part.call, part.lo, part.hi, "under way")
        elif isinstance(message, (Results, Relayed)):
            owner = message.owner if isinstance(message, Relayed) else to
            for segment in message.segments:
                census.put_segment(owner, segment, "on the way home")
    census.tile()


def honest_counts(world: World) -> None:
    """Calls count right."""
    for call in world.calls.values():
        if call.missing and call.failure is None:
            there = sum(map(len, call.segments.values()))
            if call.missing != call.size - there:
                raise InvariantError(f"honest counts: {call!r} has {there} results")


def ledger_exact(world: World, worker: Simulated) -> None:
    """The ledger holds the calls under way of which a part has left."""
    for call in worker.scheduler.ledger:
        if not call.missing:
            raise InvariantError(f"the ledger is exact: worker {worker.rank} keeps {call!r}")
    for call in world.calls.values():
        if call.owner == worker.rank and call.key and call.missing:
            found = worker.scheduler.ledger.find(call.key)
            if found is not call:
                raise InvariantError(f"the ledger is exact: worker {worker.rank} lacks {call!r}")


# Thieves and victims.


def modes_tell_the_truth(worker: Simulated) -> None:
    """A worker that waits has nothing to run and has asked all its neighbours."""
    if worker.state is State.GONE or worker.scheduler.size == 1:
        return
    balancer = worker.scheduler.balancer
    if balancer.mode is Mode.WORKING:
        return
    law = f"modes tell the truth: worker {worker.rank} is {balancer.mode.value}"
    if worker.state is State.COMPUTING and worker.scheduler.deque.newest() is not None:
        raise InvariantError(f"{law} and has work")
    if balancer.mode is Mode.ASKING:
        _require(balancer.deadline < NEVER, law, lambda: "without a deadline")
        return
    everybody = balancer.neighbours
    lacking = [other for other in everybody if other not in balancer.tied]
    _require(not lacking, law, lambda: f"without a lifeline at {lacking}")


def nobody_forgotten(worker: Simulated) -> None:
    """Who has work and lifelines to answer looks again."""
    scheduler = worker.scheduler
    law = f"nobody is forgotten: worker {worker.rank}"
    if worker.state is State.RESTING and worker.timer <= worker.clock:
        raise InvariantError(f"{law} rests with its timer overdue")
    if worker.timer != NEVER or worker.service_at != NEVER or worker.inbox:
        return
    if scheduler.gathering.deadline < NEVER:
        raise InvariantError(f"{law} keeps results and has set no timer")
    lifelines = worker.state is State.COMPUTING and scheduler.balancer.waiting
    if lifelines and scheduler.deque.newest() is not None:
        raise InvariantError(f"{law} has set no timer")


def nobody_buried(worker: Simulated) -> None:
    """What lies on top of a task is its own."""
    for stack in (worker.stack, *worker.parked, *worker.ready):
        for below, above in pairwise(stack):
            assert above.work is not None
            if above.work.call.parent is not below:
                law = f"nobody is buried by a stranger: worker {worker.rank}"
                raise InvariantError(f"{law} runs {above.work} on top of a task that waits")


def no_lifeline_lost(world: World, under_way: list[tuple[int, int, Message]]) -> None:
    """What a thief believes to be tied is tied, or a message about it is on the way."""
    moving, answered = _said(under_way)
    moving |= answered
    for worker in world.workers:
        _requests_kept(world, worker, moving)
        for thief, (serial, _) in worker.scheduler.balancer.waiting.items():
            if (thief, worker.rank, serial) in answered:
                raise InvariantError(f"answered once: {worker.rank} holds {serial} of {thief}")
        for other, serial in worker.scheduler.balancer.tied.items():
            victim = world.workers[other].scheduler
            if victim.stopping or (worker.rank, other, serial) in moving:
                continue
            held = victim.balancer.waiting.get(worker.rank, (0, 0))[0]
            if held != serial:
                raise InvariantError(
                    f"no lifeline is lost: {worker.rank} has tied {serial} to {other}, "
                    f"which holds {held}"
                )


Said = set[tuple[int, int, int]]


def _said(under_way: list[tuple[int, int, Message]]) -> tuple[Said, Said]:
    """Return the requests and the answers under way, as (thief, victim, serial)."""
    asked, answered = set(), set()
    for source, to, message in under_way:
        if isinstance(message, StealRequest):
            asked.add((source, to, message.serial))
        elif isinstance(message, (Grant, Refusal)):
            answered.add((to, source, message.serial))
            if isinstance(message, Grant) and not any(part.lo < part.hi for part in message.parts):
                raise InvariantError(f"answered once: {source} grants nothing to {to}")
    return asked, answered


def _requests_kept(world: World, worker: Simulated, moving: set[tuple[int, int, int]]) -> None:
    balancer = worker.scheduler.balancer
    if balancer.mode is not Mode.ASKING or balancer.deadline <= world.now:
        return
    for victim, serial in balancer.asked.items():
        kept = (worker.rank, victim, serial) in moving or world.workers[victim].scheduler.stopping
        if not kept:
            raise InvariantError(f"no request is lost: {worker.rank} asked {victim}")


def reports_newest(worker: Simulated) -> None:
    """What a worker knows of another is what it heard last."""
    for source, (load, _) in worker.scheduler.balancer.reports.items():
        if worker.heard.get(source, load.sequence) != load.sequence:
            raise InvariantError(f"reports are the newest: {worker.rank} on {source}")


def check_silent(world: World) -> None:
    """Before ``main`` begins nobody but the root has anything left to do."""
    for worker in world.workers[1:]:
        balancer = worker.scheduler.balancer
        _require(
            balancer.mode is Mode.WAITING and worker.timer == balancer.deadline == NEVER,
            "silent when idle",
            lambda: f"worker {worker.rank} is {balancer.mode.value}",
        )


def check_quiet(world: World) -> None:
    """When nothing happens any more, nothing is left."""
    law = "quiet at the end"
    _require(not world.in_flight, law, lambda: f"{len(world.in_flight)} messages under way")
    for worker in world.workers:
        left = {
            "parked tasks": worker.parked,
            "results": worker.outbox,
            "results of others": [kept for _, kept in worker.scheduler.gathering if kept],
            "work": list(worker.scheduler.deque),
            "calls": list(worker.scheduler.ledger),
        }
        for what, kept in left.items():
            if kept:
                raise InvariantError(f"{law}: worker {worker.rank} has {what}: {kept}")


def show(mail: Mail) -> str:
    """Return a message as people read it."""
    message = mail.message
    if isinstance(message, Grant):
        parts = ", ".join(_part(part) for part in message.parts)
        return f"Grant({message.serial}: {parts})"
    return repr(message)


def _part(part: Range) -> str:
    return f"{part.call.owner}:{part.call.key}[{part.lo}, {part.hi})"
