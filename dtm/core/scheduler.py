"""One worker's scheduling as a function: something happens, effects come out.

``Scheduler`` composes the deque, the ledger, the granularity and the balancer.
Whoever drives it (a :class:`dtm.run.worker.Worker`, or a simulation) tells it what
has happened and the time, and carries out the effects that it returns.  Same
events, same effects: it reads no clock, owns no thread and rolls no dice but
those of the generator passed in.

Events: work submitted (``submit``), nothing left to run (``out_of_work``), a message
(``handle``), time gone by (``send_due``), a strip done (``Call.account`` by whoever ran
it, then ``completed``).  The frequent ones are methods rather than objects handed
to one function: a nested call costs a few microseconds in all, and an event
object would be a tenth of that.

Effects: :class:`Send`, :class:`Resume`, :class:`WakeAt`, :class:`Print`, :class:`End`,
:class:`Tell`.

Threads: under the worker's lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from random import Random
from typing import NamedTuple

from dtm.core.balancer import Balancer, Mode
from dtm.core.deque import Deque
from dtm.core.granularity import PATIENCE_SECONDS, AppraiseItems, AppraiseResults, Granularity
from dtm.core.ledger import Ledger
from dtm.core.messages import (
    Broken,
    Cancel,
    Fetch,
    Found,
    Grant,
    Load,
    Looked,
    LookRequest,
    Message,
    Noted,
    Output,
    Refusal,
    Relayed,
    Results,
    Returned,
    Segment,
    Status,
    StatusRequest,
    StealRequest,
    Stop,
    Stopped,
    Unprepared,
)
from dtm.core.relay import Relay
from dtm.core.shutdown import Shutdown, Stage
from dtm.core.topology import BASE
from dtm.task import Call, Range

TICK_SECONDS = 1e-3
NEVER = float("inf")
MOST_CANCELLED = 256
MOST_UNREAD = 1024


class Send(NamedTuple):
    """Send a message to a rank."""

    to: int
    message: Message


class Resume(NamedTuple):
    """A call is complete: tell those who wait for it."""

    call: Call


class WakeAt(NamedTuple):
    """Call ``send_due`` at this time even if a task runs."""

    when: float


class Print(NamedTuple):
    """(Root) write what a task has printed."""

    stream: str
    text: str


class End(NamedTuple):
    """The run is over for this worker; ``reason`` says why if it was not the normal end.

    ``lost`` is a rank that another worker cannot reach; perhaps more is known of it soon.
    """

    reason: str | None
    lost: int | None = None


WorkerMessage = LookRequest | Looked | StatusRequest | Status | Unprepared | Noted | Fetch | Found
"""What is not the scheduler's business: stacks and status, initializers, shared objects."""


class Tell(NamedTuple):
    """Hand a message on to the worker."""

    source: int
    message: WorkerMessage


Effect = Send | Resume | WakeAt | Print | End | Tell


class Counters:
    """What a worker has done, for the summary at the end of a run."""

    items: int = 0
    seconds: float = 0.0
    steals_asked: int = 0
    steals_won: int = 0
    lifelines: int = 0
    grants: int = 0
    items_given: int = 0
    refusals: int = 0
    messages: int = 0
    bytes: int = 0
    parked: int = 0

    def as_dict(self) -> dict[str, float]:
        """Return the counters by name."""
        return {name: getattr(self, name) for name in Counters.__annotations__}


class Scheduler:
    """The scheduling of one worker.

    Args:
        rank, size: this worker, and how many there are.
        random: a seeded generator for the choice of victims.
        minimum: seconds of work below which nothing is sent.
        chunk: fewest items that run or leave together.
        appraise_items, appraise_results: say what shipping them costs; see :class:`Granularity`.
        balancer: makes the balancer, with the arguments of :class:`Balancer`.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        random: Random,
        minimum: float,
        chunk: int,
        appraise_items: AppraiseItems,
        appraise_results: AppraiseResults,
        balancer: Callable[[int, int, Random, Granularity], Balancer] = Balancer,
    ) -> None:
        self.rank = rank
        self.size = size
        self.deque = Deque()
        self.ledger = Ledger()
        self.relay = Relay(rank, size)
        self.granularity = Granularity(minimum, chunk, appraise_items, appraise_results)
        self.balancer = balancer(rank, size, random, self.granularity)
        self.shutdown = Shutdown(rank, size)
        self.counters = Counters()
        self._sequence = 0
        self._timer = 0.0
        self._armed = NEVER
        self._pause = PATIENCE_SECONDS
        self._dealt = 0  # the key of the map
        self._cancelled: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._unread: OrderedDict[tuple[int, str], None] = OrderedDict()  # what was told of whom
        self._handlers: dict[type, Callable[..., list[Effect]]] = {
            StealRequest: self._on_steal_request,
            Grant: self._on_grant,
            Refusal: self._on_refusal,
            Results: self._on_results,
            Relayed: self._on_relayed,
            Returned: self._on_returned,
            Cancel: self._on_cancel,
            Output: self._on_output,
            Stop: self._on_stop,
            Stopped: self._on_stopped,
            Broken: self._on_broken,
            Unprepared: self._tell_worker,
            LookRequest: self._tell_worker,
            Looked: self._tell_worker,
            StatusRequest: self._tell_worker,
            Status: self._tell_worker,
            Noted: self._tell_worker,
            Fetch: self._tell_worker,
            Found: self._tell_worker,
        }

    # Work of this worker.

    def submit(self, call: Call, now: float, *, kept: bool = False) -> list[Effect]:
        """Make the range of a new call ready.

        One that is ``kept`` is not offered yet: its caller is about to run it, and would idle.
        """
        work = call.range = Range(call, call.base, call.base + call.size, now)
        self.deque.push(work)
        if self.size == 1:
            return []
        balancer = self.balancer
        if balancer.mode is not Mode.WORKING:
            balancer.work_came()
        balancer.patient = False
        if call.size >= self.size and not self.ledger and len(self.deque) == 1:
            dealt: list[Effect] = [self._send(*each) for each in balancer.deal(work, now)]
            if dealt:
                self._dealt = call.key
                return dealt
        return self.send_due(now) if balancer.waiting and not kept else []

    def completed(self, call: Call) -> list[Effect]:
        """A call has become complete here."""
        if call.key:
            self.ledger.close(call)
            if call.failure is not None:
                return [*self._cancel(call), Resume(call)]
        return [Resume(call)]

    def abandon(self, call: Call, *, running: bool = False) -> list[Effect]:
        """Drop what is left of a call everywhere; with ``running``, what runs of it too."""
        call.abandon()
        if not call.key:
            return []
        self.ledger.close(call)
        return self._cancel(call, running=running)

    def _cancel(self, call: Call, *, running: bool = False) -> list[Effect]:
        self.balancer.doubt()
        return self._forward(Cancel(self.rank, call.key, call.limit, running))

    def put_back(self, work: Range, culprit: int | None) -> None:
        """Take back work that cannot be sent: ``culprit`` stays here, or all if it is None."""
        if culprit is None:
            work.pinned = True
            self.deque.push(work)
            return
        call, born = work.call, work.born
        pieces = (
            Range(call, work.lo, culprit, born),
            Range(call, culprit, culprit + 1, born, pinned=True),
            Range(call, culprit + 1, work.hi, born),
        )
        for piece in reversed(pieces):
            if piece.left:
                self.deque.push(piece)

    # Balancing.

    def out_of_work(self, now: float) -> list[Effect]:
        """There is nothing to run here; at the end of the run that is as it should be."""
        if self.stopping:
            return []
        return [self._send(to, message) for to, message in self.balancer.out_of_work(now)]

    def send_due(self, now: float) -> list[Effect]:
        """Send what is due: work to those who wait here, and results that pass; set the timer."""
        if not self.balancer.waiting and self.relay.deadline == NEVER:
            return []
        due = now >= self.relay.deadline
        looks = now >= self._timer and self.balancer.waiting and self.deque.newest() is not None
        if not (due or looks):
            passed = now >= self._armed and self.relay.deadline < NEVER
            asks = [self._send(*each) for each in self.balancer.pass_on(self.deque)]
            return [*asks, *(self._wake(now) if passed else [])]
        effects: list[Effect] = [Send(*each) for each in self.relay.send_on(now)]
        if looks:
            grants = self.balancer.answer_lifelines(self.deque, now)
            said = *grants, *self.balancer.pass_on(self.deque)
            effects += [self._send(to, message) for to, message in said]
            self._pause = PATIENCE_SECONDS if grants else min(2 * self._pause, TICK_SECONDS)
            if self.balancer.waiting and self.deque.newest() is not None:
                self._timer = now + self._pause
        return effects + self._wake(now)

    def _wake(self, now: float) -> list[Effect]:
        """Set the one timer that there is to what is due first."""
        when = self.relay.deadline
        if now < self._timer < when:
            when = self._timer
        self._armed = when
        return [WakeAt(when)] if when < NEVER else []

    def load(self, now: float) -> Load:
        """Return this worker's report."""
        seconds = 0.0
        for work in self.deque.oldest(4) if self.deque else ():
            seconds += work.left * (self.granularity.seconds_an_item(work, now) or 1e-6)
        self._sequence += 1
        idle = self.balancer.mode is not Mode.WORKING
        return Load(self._sequence, seconds, idle)

    def _send(self, to: int, message: Message) -> Send:
        counters = self.counters
        if isinstance(message, Grant):
            counters.grants += 1
            self.balancer.tied.pop(to, None)
            for part in message.parts:
                counters.items_given += part.left
                if part.call.owner == self.rank:
                    self.ledger.register(part.call)
        elif isinstance(message, StealRequest):
            counters.steals_asked += 1
            counters.lifelines += message.stays
        elif isinstance(message, Refusal):
            counters.refusals += 1
        return Send(to, message)

    # Messages.

    def handle(self, source: int, load: Load, message: Message, now: float) -> list[Effect]:
        """Take in a message."""
        self.balancer.hear(source, load, now)
        return self._handlers[type(message)](source, message, now)

    def _on_steal_request(self, source: int, message: StealRequest, now: float) -> list[Effect]:
        if self.stopping:
            return []
        answers = self.balancer.requested(source, message, self.deque, now)
        effects: list[Effect] = [self._send(to, answer) for to, answer in answers]
        return effects + self.send_due(now)

    def _on_grant(self, source: int, message: Grant, now: float) -> list[Effect]:
        if self.stopping:  # main has returned: nobody needs it
            return []
        balancer = self.balancer
        if message.deal:
            balancer.hear_of_deal(message.deal)
            self._dealt = message.parts[0].call.key if message.parts else 0
        else:
            balancer.waiting.pop(source, None)
            balancer.granted(source, message.serial)
            balancer.patient = all(map(self._is_dealt, message.parts))
            self.counters.steals_won += 1
        balancer.work_came()
        for part in reversed(message.parts):
            call = part.call
            if call.owner == self.rank:
                own = self.ledger.find(call.key)
                if own is None:
                    continue
                part.call = own
            else:
                known = self._cancelled.get((call.owner, call.key), call.limit)
                call.limit = min(call.limit, known)
            part.born = now
            self.deque.push(part)
        return self.send_due(now) if balancer.waiting else []

    def _is_dealt(self, part: Range) -> bool:
        """Whether a range is of the map of which this worker was dealt a share last."""
        return part.call.key == self._dealt and part.call.owner == 0

    def _on_refusal(self, source: int, message: Refusal, now: float) -> list[Effect]:
        sends = self.balancer.refused(source, message.serial, now)
        return [self._send(to, answer) for to, answer in sends]

    def _on_results(self, source: int, message: Results, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for segment in message.segments:
            owned = self.ledger.find(segment.key)
            if owned is not None and segment.values:
                self.granularity.see_results(owned, segment.values)
            call = self.ledger.settle(segment)
            if call is not None:
                effects += self.completed(call)
        return effects

    def deliver(self, owner: int, segments: tuple[Segment, ...]) -> list[Effect]:
        """Send results of this worker home."""
        return [Send(*each) for each in self.relay.route(owner, segments)]

    def _on_relayed(self, source: int, message: Relayed, now: float) -> list[Effect]:
        sends = self.relay.take(message.owner, message.segments, now)
        return [*(Send(*each) for each in sends), *self._wake(now)]

    def _on_returned(self, source: int, message: Returned, now: float) -> list[Effect]:
        call = self.ledger.find(message.key)
        if call is None:
            return []
        pinned = bool(message.reason)
        self.deque.push(Range(call, message.lo, message.hi, now, pinned=pinned))
        self.balancer.work_came()
        if not pinned:
            return []
        about = source, call.name
        if about in self._unread:
            return []
        self._unread[about] = None
        if len(self._unread) > MOST_UNREAD:
            self._unread.popitem(last=False)
        return [Print("stderr", f"dtm: {call.name}: {message.reason}\n")]

    def _on_cancel(self, source: int, message: Cancel, now: float) -> list[Effect]:
        name = (message.owner, message.key)
        self._cancelled[name] = message.limit
        if len(self._cancelled) > MOST_CANCELLED:
            self._cancelled.popitem(last=False)
        for work in self.deque:
            call = work.call
            if call.key == message.key and call.owner == message.owner:
                call.limit = min(call.limit, message.limit)
        return self._forward(message)

    def _forward(self, message: Cancel) -> list[Effect]:
        """Pass a cancellation on along the 4-ary tree whose root is the owner."""
        place = (self.rank - message.owner) % self.size
        places = range(BASE * place + 1, min(BASE * place + 1 + BASE, self.size))
        return [Send((child + message.owner) % self.size, message) for child in places]

    def _on_output(self, source: int, message: Output, now: float) -> list[Effect]:
        return [Print(message.stream, message.text)]

    def _on_broken(self, source: int, message: Broken, now: float) -> list[Effect]:
        return [End(message.reason, message.lost)]

    def _tell_worker(self, source: int, message: WorkerMessage, now: float) -> list[Effect]:
        return [Tell(source, message)]

    # The end of the run.

    @property
    def stopping(self) -> bool:
        """Whether the end of the run has reached this worker."""
        return self.shutdown.stage is not Stage.RUNNING

    def stop(self, absent: Collection[int] = ()) -> list[Effect]:
        """(Root) end the run, without the workers that never joined or are gone."""
        return self._on_stop(self.rank, Stop(tuple(absent)), 0.0)

    def hurry(self, absent: Collection[int]) -> list[Effect]:
        """(Root, at the end) tell those who have not been heard of once more, without the tree."""
        return [*(Send(*each) for each in self.shutdown.hurry(absent)), *self._finish()]

    def excuse(self, absent: Collection[int]) -> list[Effect]:
        """(Root, at the end) wait no more for those who are gone."""
        self.shutdown.excuse(absent)
        return self._finish()

    def _on_stop(self, source: int, message: Stop, now: float) -> list[Effect]:
        self.deque.clear()
        self.balancer.end()
        return [*(Send(*each) for each in self.shutdown.told(source, message)), *self._finish()]

    def _on_stopped(self, source: int, message: Stopped, now: float) -> list[Effect]:
        late = self.shutdown.stopped(source, message)
        return [*(Send(*each) for each in late), *self._finish()]

    def _finish(self) -> list[Effect]:
        last = self.shutdown.finish(self.counters.as_dict())
        return [] if last is None else [*(Send(*each) for each in last), End(None)]

    def summary(self) -> dict[int, dict[str, float]]:
        """(Root, at the end) return the counters of all workers, by rank."""
        return {self.rank: self.counters.as_dict(), **self.shutdown.counters}
