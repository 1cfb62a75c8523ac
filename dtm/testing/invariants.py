"""The laws of a run, checked after every simulated event.

*One place*: each item below the limit of a call that is under way is in exactly one
place: ready in a deque, running, under way to another worker, finished and not yet
sent, on the way home, or delivered to its owner.

*Honest counts*: ``missing`` of a call is the number of its items below the limit that
are not delivered, and the limit is its size or its smallest failing index; its segments do not
overlap and stand in order.

*Delivered once*: the results of a call are those of its items, each once and in
order (checked when the call ends, by identity).

*The ledger is exact*: it holds the calls under way of which a part has left, no others.

*Cancelled means cancelled*: a worker that has been told the limit of a call begins nothing at or
above it, now or when a part of it comes later; when all is silent, everybody has been told.

*No lifeline is lost*: what a thief believes to be tied to a neighbour is held by that
neighbour, or the request, the grant or the refusal is on the way.

*No request is lost*: what a thief has asked, and not given up, is on the way, or the answer is.

*Answered once*: a lifeline that is held has not been answered; a grant carries work.

*Messages go to others*: no worker sends to itself or to a rank that there is not; every real
manager refuses that (checked in all runs).

*Reports are the newest*: what a worker knows of another is what it heard last.

*Reports tell the truth*: a report says that its worker is idle when it is, and speaks of seconds of
work only when some stands ready.

*Nobody is forgotten*: a worker that has work and lifelines to answer has a timer, so it
looks again; so has one that keeps results of others; and nobody rests with a timer overdue.

*Nobody is buried by a stranger*: on a stack each task is a child of the one below it.

*Modes tell the truth*: a worker that waits for work has none, and has a lifeline at
every neighbour; one that asks has a deadline, no other has.

*Timers are near*: a request is given up after at most 5 ms, lifelines are looked at again within
1 ms, results of others are sent on within 20.

*Soon silent*: after two refusals, a thief asks only those who have said that they have work.

*Silent when idle*: when the idle workers have nothing more to say, before ``main`` begins or
while it alone has run for long, all of them wait, nothing is under way, and no timer is left.

*It gets on*: until the run is over, something happens; if it is bounded, not more than that.

*Stop means stop*: a worker that has been told to stop has nothing ready any more, begins with
nothing of others, asks nobody and answers no thief.

*The root ends last*: then all workers have stopped.

*Quiet at the end*: when the root has ended, there may still be under way requests, refusals and
cancellations, and what nobody needs: work and results of items that were cancelled, and of calls
that such an item has made.  Only that may also lie on a worker.  Nothing else is under way, ready,
parked, kept or owned; nobody waits for an answer, and no timer was set far ahead
(:mod:`dtm.testing.end_invariants`).

Those of a single act are judged when it is done (:mod:`dtm.testing.act_invariants`).  Those
about how things stand hold until ``main`` returns or a worker dies: after an error, what nobody
waits for is
left behind.  The last three are those of what comes then.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from dtm.core.balancer import Mode
from dtm.core.messages import (
    Grant,
    Message,
    Refusal,
    Relayed,
    Results,
    Segment,
    StealRequest,
)
from dtm.testing.laws import Law
from dtm.testing.mail import Mail
from dtm.testing.simulated_runner import NEVER, Frame, State
from dtm.testing.simulated_worker import Simulated

if TYPE_CHECKING:
    from dtm.task import Call, Range
    from dtm.testing.world import World

Place = tuple[int, int, str]
ANSWER_SECONDS = 5e-3
LIFELINE_SECONDS = 1e-3
RELAY_SECONDS = 20e-3


def check(world: World, touched: Simulated | None = None) -> None:
    """Check every law; those about a single worker for ``touched`` alone, if it is given.

    Raises:
        InvariantError: one is broken; the message names it.
    """
    if world.stopping:
        return
    moving = list(under_way(world))
    one_place(world, moving)
    honest_counts(world)
    for worker in world.workers if touched is None else (touched,):
        ledger_exact(world, worker)
        reports_newest(worker)
        nobody_buried(worker)
        timers_near(worker)
        if not worker.scheduler.stopping:
            modes_tell_the_truth(worker)
            nobody_forgotten(worker)
    no_lifeline_lost(world, moving)


def require(holds: bool, law: Law, details: Callable[[], str]) -> None:
    """Raise the error that names a law if it does not hold."""
    if not holds:
        raise law.broken(details())


def under_way(world: World) -> Iterator[tuple[int, int, Message]]:
    """Yield (from, to, message) of all that is sent and not yet read, oldest first."""
    for worker in world.workers:
        for source, mail in worker.inbox:
            if not mail.echo:
                yield source, worker.rank, mail.message
    for source, to, mail in world.in_flight.values():
        if not mail.echo:
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
        for owner, segments in (*worker.outbox.items(), *worker.scheduler.relay):
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
                    raise Law.ONE_PLACE.broken(f"{call!r} has {found}")
                at = hi
            if at < limit:
                raise Law.ONE_PLACE.broken(f"{call!r} has {found}")


def one_place(world: World, messages: list[tuple[int, int, Message]]) -> None:
    """Each item of a call under way is in exactly one place."""
    census = _Census(world)
    for worker in world.workers:
        census.put_worker(worker)
    for _, to, message in messages:
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
        if call.whole is not None:
            right = call.missing == 0 and len(call.whole) == call.size
        else:
            right = _in_order(call) and call.missing == call.limit - call.base - _inside(call)
        if not right or call.limit != (call.failure[0] if call.failure else call.base + call.size):
            raise Law.HONEST_COUNTS.broken(
                f"{call!r} with limit {call.limit} has "
                f"{[(lo, lo + len(call.segments[lo])) for lo in call.starts]}"
            )


def _inside(call: Call) -> int:
    limit = call.limit
    return sum(max(0, min(lo + len(values), limit) - lo) for lo, values in call.segments.items())


def _in_order(call: Call) -> bool:
    """Whether the segments of a call stand in order and do not overlap."""
    if len(call.starts) != len(call.segments):
        return False
    at = call.base
    for lo in call.starts:
        if lo < at or lo not in call.segments:
            return False
        at = lo + len(call.segments[lo])
    return at <= call.base + call.size


def ledger_exact(world: World, worker: Simulated) -> None:
    """The ledger holds the calls under way of which a part has left."""
    for call in worker.scheduler.ledger:
        if not call.missing:
            raise Law.EXACT_LEDGER.broken(f"worker {worker.rank} keeps {call!r}")
    for call in world.calls.values():
        if call.owner == worker.rank and call.key and call.missing:
            found = worker.scheduler.ledger.find(call.key)
            if found is not call:
                raise Law.EXACT_LEDGER.broken(f"worker {worker.rank} lacks {call!r}")


# Thieves and victims.


def modes_tell_the_truth(worker: Simulated) -> None:
    """A worker that waits has nothing to run and has asked all its neighbours."""
    if worker.state is State.GONE or worker.scheduler.size == 1:
        return
    balancer = worker.scheduler.balancer
    if balancer.mode is not Mode.ASKING and balancer.deadline < NEVER:
        raise Law.TRUE_MODES.broken(f"worker {worker.rank} asks nobody and has a deadline")
    if balancer.mode is Mode.WORKING:
        return
    law, who = Law.TRUE_MODES, f"worker {worker.rank} is {balancer.mode.value}"
    if worker.state is State.COMPUTING and worker.scheduler.deque.newest() is not None:
        raise law.broken(f"{who} and has work")
    if balancer.mode is Mode.ASKING:
        require(balancer.deadline < NEVER, law, lambda: f"{who} without a deadline")
        return
    lacking = [other for other in balancer.neighbours if other not in balancer.tied]
    require(not lacking, law, lambda: f"{who} without a lifeline at {lacking}")


def nobody_forgotten(worker: Simulated) -> None:
    """Who has work and lifelines to answer looks again."""
    scheduler, law, who = worker.scheduler, Law.NOBODY_FORGOTTEN, f"worker {worker.rank}"
    if worker.state is State.RESTING and worker.timer <= worker.clock:
        raise law.broken(f"{who} rests with its timer overdue")
    if worker.timer != NEVER or worker.service_at != NEVER or worker.inbox:
        return
    if scheduler.relay.deadline < NEVER:
        raise law.broken(f"{who} keeps results and has set no timer")
    lifelines = worker.state is State.COMPUTING and scheduler.balancer.waiting
    if lifelines and scheduler.deque.newest() is not None:
        raise law.broken(f"{who} has set no timer")


def nobody_buried(worker: Simulated) -> None:
    """What lies on top of a task is its own."""
    for stack in (worker.stack, *worker.parked, *worker.ready):
        for below, above in pairwise(stack):
            assert above.work is not None
            if above.work.call.parent is not below:
                raise Law.NOBODY_BURIED.broken(
                    f"worker {worker.rank} runs {above.work} on top of a task that waits"
                )


def timers_near(worker: Simulated) -> None:
    """No worker sleeps for longer than it may."""
    scheduler, clock = worker.scheduler, worker.clock
    relays = scheduler.size >= scheduler.relay.many
    latest = {
        "to look at lifelines": (worker.timer, RELAY_SECONDS if relays else LIFELINE_SECONDS),
        "to send on results": (scheduler.relay.deadline, RELAY_SECONDS),
        "to give up a request": (scheduler.balancer.deadline, ANSWER_SECONDS),
    }
    for what, (when, most) in latest.items():
        if clock + most + 1e-9 < when < NEVER:
            raise Law.NEAR_TIMERS.broken(f"worker {worker.rank} waits {when - clock} s {what}")


def no_lifeline_lost(world: World, messages: list[tuple[int, int, Message]]) -> None:
    """What a thief believes to be tied is tied, or a message about it is on the way."""
    moving, answered = _said(messages)
    moving |= answered
    deals = {
        (to, message.deal)
        for _, to, message in messages
        if isinstance(message, Grant) and message.deal
    }
    for worker in world.workers:
        _requests_kept(world, worker, moving)
        for thief, (serial, *_) in worker.scheduler.balancer.waiting.items():
            if (thief, worker.rank, serial) in answered:
                raise Law.ANSWERED_ONCE.broken(f"{worker.rank} holds {serial} of {thief}")
        for other, serial in worker.scheduler.balancer.tied.items():
            victim = world.workers[other].scheduler
            if victim.stopping or (worker.rank, other, serial) in moving:
                continue
            if (worker.rank, victim.balancer.dealt) in deals:
                continue  # it is void, and its thief about to hear so
            held = victim.balancer.waiting.get(worker.rank, (0, 0, 0))[0]
            if held != serial:
                raise Law.NO_LIFELINE_LOST.broken(
                    f"{worker.rank} has tied {serial} to {other}, which holds {held}"
                )


Said = set[tuple[int, int, int]]


def _said(messages: list[tuple[int, int, Message]]) -> tuple[Said, Said]:
    """Return the requests and the answers under way, as (thief, victim, serial)."""
    asked, answered = set(), set()
    for source, to, message in messages:
        if isinstance(message, StealRequest):
            asked.add((source, to, message.serial))
        elif isinstance(message, (Grant, Refusal)):
            answered.add((to, source, message.serial))
            if isinstance(message, Grant) and not any(part.lo < part.hi for part in message.parts):
                raise Law.ANSWERED_ONCE.broken(f"{source} grants nothing to {to}")
    return asked, answered


def _requests_kept(world: World, worker: Simulated, moving: set[tuple[int, int, int]]) -> None:
    balancer = worker.scheduler.balancer
    if balancer.mode is not Mode.ASKING or balancer.deadline <= world.now:
        return
    for victim, serial in balancer.asked.items():
        kept = (worker.rank, victim, serial) in moving or world.workers[victim].scheduler.stopping
        if not kept:
            raise Law.NO_REQUEST_LOST.broken(f"{worker.rank} asked {victim}")


def reports_newest(worker: Simulated) -> None:
    """What a worker knows of another is what it heard last."""
    for source, (load, _) in worker.scheduler.balancer.reports.items():
        if worker.heard.get(source, load.sequence) != load.sequence:
            raise Law.NEWEST_REPORTS.broken(f"{worker.rank} on {source}")


def show(mail: Mail) -> str:
    """Return a message as people read it."""
    message = mail.message
    if isinstance(message, Grant):
        parts = ", ".join(_part(part) for part in message.parts)
        return f"Grant({message.serial}: {parts})"
    return repr(message)


def _part(part: Range) -> str:
    return f"{part.call.owner}:{part.call.key}[{part.lo}, {part.hi})"
