"""A worker that is watched: for the summary, and for the trace if one is recorded.

The classes stand in for those that they extend, at the places where something begins or ends: a
strip, a wait of ``main``, a rest, a switch of stacks, a message.  A run that is not watched does
not import them, so it pays nothing.

*Own* seconds of a strip are those in which its own items ran: without the strips that they ran
inline while they waited, without rests, without the time for which their stack was put aside.

Threads: as those of what is extended.  What a thread is in the middle of is kept for each thread
and, as a stack is switched, put aside with it.

Rejected: a test for a recorder at each of these places.  A tree of tiny tasks takes 3
microseconds a call, and four tests in it are measurable.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from dtm.core.messages import MESSAGES, Grant, Load, Message, Results
from dtm.core.scheduler import Counters
from dtm.run.context import Context
from dtm.run.figures import FunctionFigures
from dtm.run.recording import (
    FOREIGN_STACK,
    IDLE_FLAG,
    PARK,
    RECEIVE,
    REST,
    SEND,
    SLOW_SECONDS,
    STRIP,
    WAIT,
    YIELD,
    Recorder,
    unrecorded,
)
from dtm.run.runner import Runner
from dtm.run.stacks import FOREVER, Place, Stack, Stacks
from dtm.run.status import main_thread
from dtm.run.worker import Worker
from dtm.task import Call, Range

if TYPE_CHECKING:
    from dtm.comm.base import Frame, LostPeer
    from dtm.run.seeding import Streams

LONG_SECONDS = 0.25  # what lasts longer is recorded before it ends
_strip = Runner._strip  # noqa: SLF001 - of the class extended here; super() costs a look-up a strip
_TYPES = {kind: number for number, kind in enumerate(MESSAGES)}


class Tally(Counters):
    """The counters of a watched worker: those of every worker, seconds, and each function's.

    Attributes:
        rests_since: when the rest under way began, infinity if there is none: at the end of a run
            most workers rest.
        recorder: writes the trace, if there is one.
    """

    busy: float = 0.0
    resting: float = 0.0
    waited: float = 0.0
    pickling: float = 0.0

    def __init__(self) -> None:
        self.began = perf_counter()
        self.rests_since = FOREVER
        self.recorder: Recorder | None = None
        self.functions: dict[str, FunctionFigures] = {}

    def as_dict(self) -> dict[str, float]:
        """Return the counters by name; those of functions as ``"items of map(f)"``."""
        values = super().as_dict()
        for name in ("busy", "resting", "waited", "pickling"):
            values[name] = getattr(self, name)
        now = perf_counter()
        values["resting"] += max(0.0, now - self.rests_since)
        values["lived"] = now - self.began
        values["unrecorded"] = 0 if self.recorder is None else self.recorder.problem
        for name, tally in self.functions.items():
            values.update((f"{each} of {name}", value) for each, value in vars(tally).items())
        return values


class _Moment:
    """What a thread is in the middle of.

    Attributes:
        inner: seconds of the strip under way that were not its own.
        strip: its call, the index of its first item, its values so far and how many of those were
            there before; None outside of all strips.
        waits: whether ``main`` waits.
        current: (the main thread) the stack that runs.
        stack: its number.
    """

    __slots__ = ("current", "inner", "stack", "strip", "waits")

    def __init__(self) -> None:
        self.inner = 0.0
        self.strip: tuple[Call, int, list[Any], int] | None = None
        self.waits = False
        self.current: Stack | None = None
        self.stack = FOREIGN_STACK


class _Moments(threading.local):
    """The moment of the calling thread; an object of its own, for a strip looks at it often."""

    def __init__(self) -> None:
        self.mine = _Moment()


class Watch:
    """What a watched worker notes, and where."""

    def __init__(self, tally: Tally, recorder: Recorder | None) -> None:
        self.tally = tally
        self.recorder = recorder
        self.moments = _Moments()

    def made(self, call: Call) -> None:
        """A task makes a call."""
        recorder = self.recorder
        if recorder is not None:
            strip = self.moments.mine.strip
            if strip is None:
                recorder.made(call, 0, 0)
            else:
                parent, lo, values, before = strip
                recorder.made(call, recorder.number_of(parent), lo + len(values) - before)

    def strip(
        self, call: Call, began: float, ended: float, own: float, lo: int, count: int, stack: int,
        bad: bool,
    ) -> None:  # fmt: skip
        """A strip has run."""
        tally = self.tally
        tally.busy += own
        if count:
            try:
                call.tally.add(count, own, lo)
            except AttributeError:
                call.tally = figures = tally.functions.setdefault(call.name, FunctionFigures())
                figures.add(count, own, lo)
        recorder = self.recorder
        if recorder is not None:
            number = recorder.number_of(call)
            recorder.record(STRIP, began, ended, own, lo, number, count + bad, stack, bad)
            if own >= SLOW_SECONDS and count == 1:
                recorder.slow(call, lo, own)

    def span(self, kind: int, began: float, call: Call | None = None, flag: int = 0) -> None:
        """Note what has ended, and that no item of the strip under way ran meanwhile."""
        now, moment = perf_counter(), self.moments.mine
        moment.inner += now - began
        if kind == REST:
            self.tally.resting += now - began
        elif kind == WAIT:
            self.tally.waited += now - began
        recorder = self.recorder
        if recorder is not None:
            number = 0 if call is None else recorder.number_of(call)
            recorder.record(kind, began, now, 0.0, 0, number, 0, moment.stack, flag)


class ObservedStacks(Stacks):
    """Stacks whose switches are noted."""

    watch: Watch

    def adopt(self) -> None:
        """Number the stacks from 0, the first."""
        self._numbers: dict[Stack, int] = {}
        self._awaited: Call | None = None
        super().adopt()

    def number(self) -> int:
        """Return the number of the stack that runs."""
        return self._numbers.setdefault(self.current, len(self._numbers))

    def park(self, calls: Sequence[Call]) -> None:
        """Leave the thread to others; note for what."""
        self._awaited = calls[0] if calls else None
        super().park(calls)

    def _switch(self, me: Stack, successor: Stack | None) -> None:
        watch, place = self.watch, me.place
        moment = watch.moments.mine
        call = self._awaited if place is Place.PARKED else None
        kept = moment.inner, moment.strip, moment.waits
        began = perf_counter()
        try:
            super()._switch(me, successor)
        finally:
            moment.current, moment.stack = self.current, self.number()
            moment.inner, moment.strip, moment.waits = kept
            if place is not Place.SPARE:
                watch.span(PARK if place is Place.PARKED else YIELD, began, call)


class ObservedRunner(Runner):
    """A runner whose strips, calls, rests and waits are noted.

    Attributes:
        waits_since: since when ``main`` waits, 0 if it does not.
    """

    watch: Watch
    waits_since = 0.0
    stacks_class = ObservedStacks

    def watched_by(self, watch: Watch) -> None:
        """Begin to note."""
        self.watch = watch
        assert isinstance(self.stacks, ObservedStacks)
        self._own_stacks = self.stacks
        self._own_stacks.watch = watch

    def adopt(self) -> None:
        """Make the calling thread the one that runs tasks."""
        super().adopt()
        moment = self.watch.moments.mine
        moment.current, moment.stack = self._own_stacks.current, self._own_stacks.number()

    def submit(self, call: Call, *, waits: bool = False) -> None:
        """Make a new call ready; ``waits`` if its caller does nothing else until it is complete."""
        self.watch.made(call)
        super().submit(call, waits=waits)

    def _single(self, work: Range, call: Call) -> None:
        """Run the item of a call of one item as a strip, so that it is noted like all others."""
        self._strips(work, call, self.context(), FOREVER)

    def _strip(
        self, call: Call, context: Context, lo: int, hi: int, values: list[Any]
    ) -> BaseException | None:
        watch, stacks = self.watch, self._own_stacks
        moment = watch.moments.mine
        if moment.current is not stacks.current and moment.current is not None:
            moment.current, moment.stack = stacks.current, stacks.number()  # a new one
        inner, outer, before = moment.inner, moment.strip, len(values)
        moment.inner, moment.strip = 0.0, (call, lo, values, before)
        began = perf_counter()
        failure = _strip(self, call, context, lo, hi, values)
        ended = perf_counter()
        spent = ended - began
        own = max(0.0, spent - moment.inner)
        moment.inner, moment.strip = inner + spent, outer
        if not self.forked:
            count, bad = len(values) - before, failure is not None
            watch.strip(call, began, ended, own, lo, count, moment.stack, bad)
        return failure

    def look_for_work(
        self, timeout: float, calls: Sequence[Call] = (), *, any_work: bool = True
    ) -> None:
        """There is nothing to run here."""
        self.watch.tally.rests_since = began = perf_counter()
        try:
            super().look_for_work(timeout, calls, any_work=any_work)
        finally:
            self.watch.tally.rests_since = FOREVER
            self.watch.span(REST, began, calls[0] if calls else None, any_work)

    def wait(self, call: Call, deadline: float | None = None) -> bool:
        """Wait until a call is complete."""
        began = self._main_begins_to_wait()
        try:
            return super().wait(call, deadline)
        finally:
            self._main_goes_on(began, (call,))

    def wait_any(
        self, calls: Sequence[Call], deadline: float | None = None, *, promptly: bool = False
    ) -> bool:
        """Wait until one of the calls is complete."""
        began = self._main_begins_to_wait()
        try:
            return super().wait_any(calls, deadline, promptly=promptly)
        finally:
            self._main_goes_on(began, calls)

    def step(self, calls: Sequence[Call]) -> None:
        """Make a little progress."""
        began = self._main_begins_to_wait()
        try:
            super().step(calls)
        finally:
            self._main_goes_on(began, calls)

    def _main_begins_to_wait(self) -> float:
        """Return when ``main`` begins to wait; 0 if another task does, or it waits already."""
        moment = self.watch.moments.mine
        if self._rank or moment.waits or moment.strip is not None or not self.thread.main:
            return 0.0
        moment.waits = True
        self.waits_since = perf_counter()
        return self.waits_since

    def _main_goes_on(self, began: float, calls: Sequence[Call]) -> None:
        if began:
            self.watch.moments.mine.waits = False
            self.waits_since = 0.0
            self.watch.span(WAIT, began, calls[0] if calls else None)


class ObservedWorker(Worker):
    """A worker that is watched.

    Args:
        recorder: writes the trace; None if only the summary is wanted.
    """

    runner: ObservedRunner

    def __init__(self, *given: Any, recorder: Recorder | None, **options: Any) -> None:
        self.recorder = recorder
        self._encoding = 0.0
        self._looked = perf_counter()
        super().__init__(*given, **options)

    def _make_runner(self, streams: Streams | None) -> Runner:
        self.scheduler.counters = self.tally = Tally()
        self.tally.recorder = self.recorder
        runner = ObservedRunner(self.scheduler, self, streams)
        runner.watched_by(Watch(self.tally, self.recorder))
        return runner

    def _send(self, to: int, message: Message) -> None:
        self._encoding = perf_counter()
        super()._send(to, message)

    def _dispatch(self, to: int, message: Message, frames: Sequence[Any]) -> None:
        recorder, now = self.recorder, perf_counter()
        self.tally.pickling += now - self._encoding
        if recorder is not None and not self.ended:
            if isinstance(message, Grant):
                for part in message.parts:
                    if part.call.owner == self.comm.rank:
                        recorder.key(part.call)
            recorder.record(
                SEND, self._encoding, now, 0.0, sum(map(len, frames)),
                getattr(message, "serial", 0), _items(message), to, _TYPES[type(message)],
            )  # fmt: skip
        super()._dispatch(to, message, frames)

    def _decode(
        self, source: int, frames: Sequence[Frame]
    ) -> tuple[Load, Message, list[tuple[int, Message]]]:
        began = perf_counter()
        found = super()._decode(source, frames)
        recorder, now = self.recorder, perf_counter()
        self.tally.pickling += now - began
        if recorder is not None:
            load, message, _ = found
            recorder.record(
                RECEIVE, began, now, load.seconds, sum(map(len, frames)),
                getattr(message, "serial", 0), _items(message), source,
                _TYPES[type(message)] | IDLE_FLAG * load.idle,
            )  # fmt: skip
        return found

    def start(self) -> None:
        """Begin, on the root just before ``main``."""
        super().start()
        if self.recorder is not None:
            self.recorder.began = perf_counter()

    def stop(self, timeout: float) -> bool:
        """(Root) end the run; ``main`` has returned."""
        recorder = self.recorder
        if recorder is None:
            return super().stop(timeout)
        recorder.ended = perf_counter()
        stopped = super().stop(timeout)
        counters = self.scheduler.summary()
        problems = {rank: int(each["unrecorded"]) for rank, each in counters.items()}
        if any(problems.values()) and not recorder.problem:
            problems = {rank: problem for rank, problem in problems.items() if problem}
            sys.stderr.write(unrecorded(recorder.directory, problems))
        return stopped

    def service(self) -> None:
        """Read what has come and answer it; write what has been recorded."""
        super().service()
        if self.recorder is not None:
            now = perf_counter()
            self.recorder.tick(now)
            if now - self._looked > LONG_SECONDS:
                self._looked = now
                self._record_what_is_under_way(self.recorder, now)

    def _record_what_is_under_way(self, recorder: Recorder, now: float) -> None:
        """Record an item and a wait of ``main`` that last, in case that they never end."""
        place, tasks, calls = main_thread(now)
        waits = self.runner.waits_since
        long = place == "runs" and tasks[0].seconds > LONG_SECONDS
        if long:
            recorder.under_way(now, waits, calls[0], tasks[0].item, now - tasks[0].seconds)
        elif waits and now - waits > LONG_SECONDS:
            recorder.under_way(now, waits)

    def _note_loss(self, peer: LostPeer) -> None:
        """Take note that a worker is gone; if it is the root, this process ends at once."""
        if self.recorder is not None:
            self.recorder.flush()
        super()._note_loss(peer)

    def leave(self, timeout: float) -> None:
        """Let go of the other workers, and close the trace."""
        since = self.tally.rests_since
        super().leave(timeout)
        if self.recorder is not None:
            if since < FOREVER:  # the process may end in the middle of this rest
                self.recorder.record(REST, since, perf_counter(), flag=1)
            self.recorder.close()


def _items(message: Message) -> int:
    """Return how many items, or results, a message carries."""
    if isinstance(message, Grant):
        return sum(part.left for part in message.parts)
    if isinstance(message, Results):
        return sum(len(segment.values) for segment in message.segments)
    return 0
