"""A worker: where the core meets the world.

Events go in (a message, work, time), the scheduler says what follows, and the
worker carries it out: it sends, resumes, prints, ends.  It owns the lock under
which all of this happens, and the *load-balancer thread*, which answers thieves
while a long task runs.

The load-balancer thread sleeps in ``comm.wait`` and wakes when a message comes;
then it needs the interpreter, which the running thread yields after the switch
interval (0.1 ms, :mod:`dtm.run.runtime`).  The running thread looks at the inbox only
once a millisecond.  Polling between all strips was tried and is worse: each poll
lets go of the interpreter for an instant, too short for the waiting thread to
catch it, yet long enough to start its waiting time anew; measured, two threads
that interfered in this way took 15 % of a core and answered thieves after 50 ms.  While the main
thread looks for work, it alone reads messages: with two threads awake for each, 64
workers that asked each other at the end of a map kept its last results waiting for 80 ms.

What can go wrong: a worker dies, or cannot reach another (:mod:`dtm.run.losses`).  An error inside
dtm (a broken invariant): the root is told and ends the run.  A wake-up that is meant for the main
thread reaches the load-balancer thread, which is on its way out of ``comm.wait``: it passes it on.

Shared attributes:

    =========================================  ============  =============  ======================
    attribute                                  written by    read by        under
    =========================================  ============  =============  ======================
    _finish                                    any thread    any thread     ``lock``
    _timer, _end_reached                       any thread    any thread     ``lock`` to write; who
                                                                            sets one wakes those
                                                                            that have read it
    _running                                   main thread   load balancer  atomic
    _busy                                      main thread   load balancer  an ``Event``, for
                                                                            managers without
                                                                            ``alert``
    _rounds                                    any thread    any thread     atomic: who has waited
                                                                            makes it 0
    _inside                                    any thread    any thread     atomic (a set)
    ended, cancelled                           any thread    any thread     written once
    =========================================  ============  =============  ======================

Threads: ``perform``, ``service`` and what they call hold ``lock``; ``idle``, ``rest``,
``busy``, ``nudge`` and ``balance`` do not.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from random import Random
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, ClassVar

from dtm.comm.base import CommunicationManager, Frame, LostPeer
from dtm.core.balancer import Balancer
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
    Refusal,
    Segment,
    Status,
    StatusRequest,
    Stopped,
    Unprepared,
)
from dtm.core.scheduler import Effect, End, Print, Resume, Scheduler, Send, Tell, WakeAt
from dtm.errors import InitializerError, RemoteTraceback, WorkerLostError
from dtm.run.handles import Handles
from dtm.run.losses import Losses
from dtm.run.outbox import Outbox
from dtm.run.output import Output as Streamed
from dtm.run.runner import Runner
from dtm.run.shipping import Shipping
from dtm.run.stack_dump import StackDump, look
from dtm.run.status import View, status
from dtm.task import Call
from dtm.wire.codec import Wire
from dtm.wire.failures import annotate, traceback_text
from dtm.wire.functions import CACHE_BYTES
from dtm.wire.imports import imports

if TYPE_CHECKING:
    from dtm.run.seeding import Streams

FOUR_ROUND_TRIPS = 200e-6
TICK_SECONDS = 0.25
LOOKS = frozenset({LookRequest, Looked, StatusRequest, Status})  # they move nothing
HURRY_SECONDS = 0.3
AWAY_SECONDS = 0.05
ABANDONED_SECONDS = 0.5
ROUNDS_SECONDS = 0.1
NEVER = float("inf")


class Worker:
    """One worker of a run.

    Args:
        comm: joins it to the others.
        minimum: seconds of work worth sending; 0 for about four round trips.
        chunk: fewest items that run or leave together.
        seed: makes the random numbers of items repeatable; None does not.
        balancer: makes the balancer.
        on_end: called, without the lock, when the run is over or broken for this worker.
        cache_bytes: how much of other workers' functions is kept after the calls that need them.

    Attributes:
        ended: whether the run is over for this worker.
        cancelled: whether a call was cancelled, so that others may be in the middle of its items.
        stack_dump, view: (root) who is told what the workers answer, if somebody asks.
    """

    SHARED: ClassVar = {"_finish": "lock"}
    SHARED_READ_FREELY: ClassVar = {"_timer": "lock", "_end_reached": "lock"}

    def __init__(
        self,
        comm: CommunicationManager,
        *,
        minimum: float = 0.0,
        chunk: int = 1,
        seed: int | None = None,
        balancer: Callable[..., Balancer] = Balancer,
        on_end: Callable[[BaseException | None], None] = lambda _: None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.comm = comm
        self.lock = threading.RLock()
        self.ended = False
        self.cancelled = False
        self.output: Streamed | None = None
        self.stack_dump: StackDump | None = None
        self.view: View | None = None
        self.taken = 0
        rank, size = comm.rank, comm.size
        self.where = f"worker {rank} ({comm.hosts[rank]})"
        self.scheduler = Scheduler(
            rank,
            size,
            Random(rank),  # noqa: S311 - chooses victims
            minimum or FOUR_ROUND_TRIPS,
            chunk,
            lambda *work: self._shipping.items_cost(*work),  # noqa: PLW0108 - made below
            lambda *work: self._shipping.results_cost(*work),  # noqa: PLW0108
            balancer,
        )
        self.runner = self._make_runner(_streams(seed))
        self.handles = Handles(
            self,
            rank,
            comm.hosts,
            cache_bytes,
            lambda key: self._wire.forget(key),  # noqa: PLW0108 - made below
        )
        self._wire = Wire(
            rank,
            self.where,
            self.scheduler.granularity.profile,
            lambda: self.runner.interrupted,
            cache_bytes,
            self.handles,
            lambda: comm.shares_memory,
            lambda: len({*comm.hosts}) > 1,
        )
        self._shipping = Shipping(self._wire, size - 1, self.scheduler.put_back)
        self.scheduler.granularity.appraise_function = self._shipping.function_cost
        self.scheduler.granularity.lacking = self._shipping.lacking
        self._on_end = on_end
        self._outbox = Outbox(self.lock)
        self._losses = Losses(self)
        self._timer = NEVER
        self._rounds = 0.0
        self._inside: set[int] = set()
        self._busy = threading.Event()
        self._running = True
        self._finish: list[tuple[BaseException | None]] = []
        self._end_reached = False
        self._thread: threading.Thread | None = None

    def _make_runner(self, streams: Streams | None) -> Runner:
        return Runner(self.scheduler, self, streams)

    def start(self) -> None:
        """Redirect the standard streams and start the load-balancer thread."""
        if self.comm.size == 1:
            return
        imports.remember()
        at_home = self.comm.rank == 0 or self.comm.carries_output
        self.output = Streamed(None if at_home else self.say)
        self._thread = threading.Thread(target=self.balance, name="dtm-balancer", daemon=True)
        self._busy.set()
        self._thread.start()

    # Effects.

    def perform(self, effects: Sequence[Effect]) -> None:
        """Carry out effects.  Called with the lock held."""
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect.to, effect.message)
            elif isinstance(effect, Resume):
                self._resume(effect.call)
            elif isinstance(effect, WakeAt):
                self._timer = effect.when
                self.comm.wake()
            elif isinstance(effect, Print):
                self._print(effect)
            elif isinstance(effect, End):
                self._conclude(effect)
            elif isinstance(effect, Tell):
                self._tell(effect)

    def send(self, to: int, message: Message) -> None:
        """Send a message.  Called with the lock held."""
        self._send(to, message)

    def _tell(self, told: Tell) -> None:
        """Act on a message that is not the scheduler's business."""
        if isinstance(told.message, Unprepared):
            error = InitializerError(told.message.reason)
            error.__cause__ = RemoteTraceback(told.message.traceback)
            self.fail(error)
            return
        if isinstance(told.message, LookRequest):
            self._send(told.source, Looked(told.message.serial, look(self)))
        elif isinstance(told.message, StatusRequest):
            self._send(told.source, Status(told.message.serial, status(self)))
        elif isinstance(told.message, Status):
            if self.view is not None:
                self.view.heard(told.source, told.message)
        elif isinstance(told.message, (Noted, Fetch, Found)):
            self.handles.hear(told.source, told.message)
        elif self.stack_dump is not None:
            self.stack_dump.answered(told.source, told.message)

    def _conclude(self, end: End) -> None:
        reason = end.reason
        if end.lost is None:
            self._finish.append((WorkerLostError(reason) if reason else None,))
            self._end_reached = True
        elif reason:
            self._losses.hear(reason)

    def fail(self, error: BaseException) -> None:
        """End the run with an error, as soon as the lock is free.  Called with the lock held."""
        self._finish.append((error,))

    def _send(self, to: int, message: Message) -> None:
        if isinstance(message, Grant):
            load = self.scheduler.load(perf_counter())
            sendable = self._shipping.encoded(to, message, load)
            if sendable is None:
                unasked = message.deal
                message = message._replace(parts=()) if unasked else Refusal(message.serial)
            else:
                self._dispatch(to, *sendable)
                return
        elif isinstance(message, Cancel):
            self.cancelled = True
        elif isinstance(message, Stopped):
            if self.output is not None:
                self.output.finish()
            self._flush_lines()
            self.flush()
        load = self.scheduler.load(perf_counter())
        self._dispatch(to, message, self._wire.encode(to, load, message))

    def _dispatch(
        self,
        to: int,
        message: Message,  # noqa: ARG002 - for those who watch
        frames: Sequence[Any],
    ) -> None:
        if self.ended:  # a task that outlives the run: the manager is closed, or about to be
            return
        counters = self.scheduler.counters
        counters.messages += 1
        counters.bytes += sum(map(len, frames))
        self.comm.send(to, frames)

    def _resume(self, call: Call) -> None:
        listeners, call.listeners = call.listeners, None
        for listener in listeners or ():
            listener()

    def _print(self, effect: Print) -> None:
        if self.output is not None and self.comm.rank == 0:
            self.output.write(effect.stream, effect.text)
        else:
            getattr(sys, effect.stream).write(effect.text)

    # Messages in.

    def service(self) -> None:
        """Read what has come and answer it; share work; send what has gathered."""
        with self.lock:
            now = perf_counter()
            if self.ended:
                return
            if now >= self._timer:  # first of all, for what follows may set it anew
                self._timer = NEVER
            came_by = max(self.runner.polled, self.runner.submitted)
            self.scheduler.granularity.main_thread_away = now - came_by > AWAY_SECONDS
            self._take_all()
            due = self.scheduler.send_due(now)
            if due:
                self.perform(due)
            if self._outbox.waits:
                self._empty_outbox(now)
            if now >= min(self._rounds, self._losses.due):
                self._rounds = now + ROUNDS_SECONDS  # not after each item
                self.handles.settle()
                for peer in self.comm.lost():
                    self._note_loss(peer)
                self._losses.believe(now)
            finish, self._finish = self._finish, []
            # To pickle 100 MB takes long, but whoever waits for that is not away.
            self.runner.polled += perf_counter() - now
        for (reason,) in finish:
            self._on_end(reason)

    def _empty_outbox(self, now: float) -> None:
        if self._outbox.results_due(now):
            self.flush()
        if self._outbox.lines_due(now):
            self._flush_lines()

    def _decode(
        self, source: int, frames: Sequence[Frame]
    ) -> tuple[Load, Message, list[tuple[int, Message]]]:
        return self._wire.decode(source, frames)

    def _take(self, source: int, frames: Sequence[Frame]) -> None:
        load, message, replies = self._decode(source, frames)
        self.taken += type(message) not in LOOKS
        for to, reply in replies:
            self._send(to, reply)
        if isinstance(message, Cancel) and message.running and self.runner.interrupt_items:
            self.runner.interrupt_items(message.owner, message.key)
        self.perform(self.scheduler.handle(source, load, message, perf_counter()))

    def _note_loss(self, peer: LostPeer) -> None:
        self._losses.notice(peer)

    def broken(self, error: BaseException) -> None:
        """An error inside dtm: tell the root, which ends the run."""
        text = "".join(traceback.format_exception(error))
        reason = f"internal error on {self.where}:\n{text}"
        with self.lock:
            if self.comm.rank:
                self._send(0, Broken(reason))
                return
        self._on_end(error)

    def unprepared(self, error: InitializerError) -> None:
        """(Not on the root) the initializer has failed here: tell the root, which ends the run."""
        with self.lock:
            self._send(0, Unprepared(str(error), traceback_text(error)))

    # Results and lines out.

    def ship(self, owner: int, segment: Segment) -> None:
        """Send results soon: with others, or before this worker does anything long."""
        with self.lock:
            if self._outbox.add_results(owner, segment):
                self.flush()

    def flush(self) -> None:
        """Send all results now."""
        with self.lock:
            for owner, segments in self._outbox.take_results().items():
                self.perform(self.scheduler.deliver(owner, tuple(segments)))

    def say(self, stream: str, text: str) -> None:
        """Send lines that a task has printed to the root."""
        with self.lock:
            self._outbox.add_lines(stream, text)
            if self._outbox.lines_due(perf_counter()):
                self._flush_lines()

    def _flush_lines(self) -> None:
        for lines in self._outbox.take_lines():
            self._send(0, lines)

    # Threads.

    def idle(self) -> None:
        """The main thread has nothing to run: from here on it reads the messages itself.

        It has to say so before it looks a last time for what the load-balancer thread may have
        brought.  That thread is told to mind no messages, or called back from its wait where that
        cannot be, or it would be the one to hear of the next, and have to wake this one.
        """
        if self._running:
            can_be_told = self.comm.alert(False)  # before it may find that nothing runs, and spin
            self._running = False
            if not can_be_told:
                self._busy.clear()
                if self._inside:
                    self.nudge()

    def rest(self, timeout: float) -> None:
        """Sleep until a message comes; the main thread calls it when it has nothing to run."""
        deadline = min(self.scheduler.balancer.deadline, self._due())
        self._wait(min(timeout, deadline - perf_counter()), self.comm.wait)

    def _due(self) -> float:
        """Return when ``service`` is to be called even if no message comes."""
        return min(self._timer, self._losses.due)

    def busy(self) -> None:
        """A task runs again: from here on messages are the load-balancer thread's business."""
        if not self._running:
            self._running = True
            if not self.comm.alert(True):
                self._busy.set()
            elif self._due() < NEVER:  # that thread sleeps for as long as it knew when it lay down
                self.nudge()

    def _wait(self, timeout: float, wait: Callable[[float], Any]) -> Any:
        """Wait in the manager, unless this worker is leaving it."""
        me = threading.get_ident()
        self._inside.add(me)
        try:
            return not self.ended and wait(max(0.0, timeout))
        finally:
            self._inside.discard(me)
            self._rounds = 0.0

    def nudge(self) -> None:
        """End a rest."""
        if not self.ended:
            self.comm.wake()

    def balance(self) -> None:
        """Answer thieves while a task runs: the load-balancer thread."""
        try:
            while not self.ended:
                if not self._busy.wait(TICK_SECONDS):
                    continue
                self._balance()
        except BaseException as error:  # noqa: BLE001 - the top of a thread: tell the root
            self.broken(error)

    def _balance(self) -> None:
        came = self._wait(min(TICK_SECONDS, self._due() - perf_counter()), self.comm.stand_by)
        if not self._running or self.ended:
            if came and self.runner.resting:  # what came may have been meant for the other thread
                self.nudge()
            return
        self.service()
        if self.runner.resting:  # it has not seen what has just been read here
            self.nudge()

    def give_back(self, call: Call, lo: int, hi: int, error: BaseException) -> None:
        """Give items of which the function cannot be read here back to their owner."""
        with self.lock:
            what, cause = "the function", error.__cause__ or error
            message = self._wire.returned(call.key, lo, hi, what, cause)
            self._send(call.owner, message)

    def located(self, call: Call, index: int, exception: BaseException) -> None:
        """Note on an exception where it happened."""
        item = "" if call.kind.startswith("apply") else f"item {index} of "
        annotate(exception, f"in {item}{call.name}, on {self.where}")

    # The end.

    def abandon(self) -> None:
        """(Root) tell each worker by itself that the run is over, and wait for none."""
        with self.lock:
            self._take_all()
            self.perform(self.scheduler.stop(range(1, self.comm.size)))

    def stop(self, patience: float) -> bool:
        """(Root) end the run; whether every worker has said that it stopped.

        Args:
            patience: seconds without such a word from anybody, after which the rest is given up.
                Where calls were abandoned it is ``ABANDONED_SECONDS``: who is in the middle of one
                of their items may be stuck in it; all others are only late.
        """
        with self.lock:
            if self.cancelled or len(self.scheduler.ledger):
                patience = ABANDONED_SECONDS
            self.flush()
            absent = self.comm.absent()  # first: what they sent before they left is then there
            self._take_all()
            self.perform(self.scheduler.stop(absent))
        heard = perf_counter()
        hurried, stopped = False, 0
        while not self._end_reached:
            quiet = perf_counter() - heard
            if quiet >= patience and hurried:
                return False
            left = (patience if hurried else HURRY_SECONDS) - quiet
            self.comm.wait(max(0.0, min(left, TICK_SECONDS)))
            with self.lock:
                absent = self.comm.absent()
                self._take_all()
                self.perform(self.scheduler.excuse(absent))
                quiet = perf_counter() - heard
                if quiet >= HURRY_SECONDS and not hurried and not self._end_reached:
                    hurried, heard = True, perf_counter()
                    self.perform(self.scheduler.hurry(absent))
            if len(self.scheduler.shutdown.counters) != stopped:
                stopped, heard = len(self.scheduler.shutdown.counters), perf_counter()
        return True

    def _take_all(self) -> None:
        for source, frames in self.comm.receive():
            self._take(source, frames)

    def leave(self, timeout: float) -> None:
        """Let go of the other workers.  Nothing of dtm runs in this process afterwards."""
        self.ended = True
        self.runner.end()
        self._busy.set()
        self.comm.alert(True)
        deadline = perf_counter() + 1.0
        while self._inside and perf_counter() < deadline:
            self.comm.wake()
            sleep(1e-3)
        if self.output is not None:
            self.output.restore()
        with self.lock:
            self.comm.close(timeout)


def _streams(seed: int | None) -> Streams | None:
    if seed is None:
        return None
    from dtm.run.seeding import Streams

    return Streams(seed)
