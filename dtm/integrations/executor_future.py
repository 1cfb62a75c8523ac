"""The futures of ``dtm.Executor``: real ones of ``concurrent.futures``, whose waiting is work.

A thread that waits for a future of a process pool sleeps on an event, while other processes
work.  A worker of dtm that slept so would do nothing else, and what it waits for may stand ready in
its own deque.  So ``result`` and ``exception`` wait as dtm's own results do, and so does the event
on which ``concurrent.futures.wait`` and ``as_completed`` sleep: it is replaced when they leave
it with the first future of dtm.

Invariant: a future is settled once, by whoever first sees that its call is over: one that waits for
it, or the runner's callback, which there is only if somebody wants to be told.

Threads: any.

Rejected: a thread that waits in the place of its caller.  Task bodies run in the main thread, and
that is the one that would sleep.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent import futures
from threading import RLock
from time import perf_counter
from typing import Any

from dtm.door import Made
from dtm.errors import RunStateError
from dtm.future import Waits, end_early, raised, wait_or_withdraw
from dtm.integrations.lanes import Lanes
from dtm.task import Call

MOST_WATCHED = 64


class _Guarded(type(RLock())):  # type: ignore[misc]
    """Stands for the condition of a future, on which nobody sleeps: a lock, and no more.

    A whole condition is ten objects, which the garbage collector walks again and again where
    thousands of futures are kept.
    """

    __slots__ = ()

    def notify_all(self) -> None:
        """Wake nobody."""

    def wait(self, timeout: float | None = None) -> bool:
        """Return at once: who asks has waited before."""
        del timeout
        return False


_FRESH = {
    name: value
    for name, value in vars(futures.Future()).items()
    if name not in ("_condition", "_waiters", "_done_callbacks")
}


class Future(futures.Future[Any]):
    """The result of ``dtm.Executor.submit``.

    Args:
        made: its call, which has not been submitted yet.
        lanes: what may hold the call back.
        failed: called with what the call raised, once that is known.
    """

    def __init__(self, made: Made, lanes: Lanes, failed: Callable[[BaseException], None]) -> None:
        vars(self).update(_FRESH)
        self._condition = _Guarded()
        self._done_callbacks: list[Any] = []
        self._made: Made | None = made
        self._lanes = lanes
        self._failed = failed
        self._listens = False
        self._listed: _Waiters | None = None

    @property
    def _waiters(self) -> Any:  # type: ignore[override]
        """Those who wait for it; once it is over their list does not know it: that is a circle."""
        found = self._listed
        if found is None:
            over = self._state in ("FINISHED", "CANCELLED_AND_NOTIFIED")
            found = self._listed = _Waiters(None if over else self)
        return found

    @property
    def made(self) -> Made | None:
        """The call, None if it is over."""
        return self._made

    def listen(self) -> None:
        """Be settled when the call ends, for somebody wants to be told then."""
        made = self._made
        if made is not None and not self._listens:
            self._listens = True
            if not made.runner.listen(made.call, self._note):
                self.over()

    def _note(self) -> None:
        """The call is over; called with the worker's lock held."""
        if self._made is not None:
            self._made.runner.callbacks.call_later(self.over)

    def over(self) -> None:
        """Take over what has become of the call, if it has ended."""
        made = self._made
        if made is None or made.call.missing:
            return
        failure = made.call.failure
        try:
            if failure is None:
                self.set_result(made.call.values()[0])
            elif isinstance(failure[1], futures.CancelledError):
                if super().cancel():
                    self._notify_of_cancel()
            else:
                self.set_exception(raised(made.call))
        except (futures.InvalidStateError, RuntimeError):  # another thread came first
            pass
        if failure is not None:
            self._failed(failure[1])
        self._made = None
        if self._listed is not None:
            self._listed.future = None

    def _notify_of_cancel(self) -> None:
        """Tell those who wait, once: several threads may find the call cancelled."""
        with self._condition:
            if self._state == "CANCELLED":
                self.set_running_or_notify_cancel()

    def _help(self, timeout: float | None) -> None:
        """Wait for the call as a task of dtm does."""
        made = self._made
        if made is None:
            return
        runner, call, _ = made
        if call.missing and runner.ended:
            raise RunStateError(f"the run is over, and {call.name} had not ended")
        try:
            if call.missing:
                deadline = None if timeout is None else perf_counter() + timeout
                wait_or_withdraw(runner, call, deadline)
        finally:
            self.over()

    def add_done_callback(self, fn: Callable[[futures.Future[Any]], object]) -> None:
        """Have a function called with this future when it is over."""
        super().add_done_callback(fn)
        self.listen()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result and return it, or raise what the function raised.

        Raises:
            TimeoutError: the time is up.
            concurrent.futures.CancelledError: the call was cancelled.
        """
        self._help(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end of the call and return what it raised, None if nothing."""
        self._help(timeout)
        return super().exception(0)

    def done(self) -> bool:
        """Whether the call has ended or was cancelled; makes a little progress."""
        made = self._made
        if made is not None:
            if made.call.missing and not made.runner.ended:
                made.runner.step((made.call,))
            self.over()
        return super().done()

    def running(self) -> bool:
        """Whether the call has begun, or has left for another worker, and has not ended."""
        made = self._made
        if made is None or not made.call.missing:
            return False
        work = made.call.range
        return work is not None and not work.left

    def cancel(self) -> bool:
        """Cancel the call if it has not begun; whether it is cancelled."""
        made = self._made
        if made is not None and made.call.missing:
            held = self._lanes.holds(made.call)
            end_early(made.runner, made.call, futures.CancelledError(), unbegun=not held)
        self.over()
        return self.cancelled()

    def drop(self) -> None:
        """Cancel the call whether it has begun or not: what runs of it goes on for nobody."""
        made = self._made
        if made is not None:
            end_early(made.runner, made.call, futures.CancelledError())
        self.over()


class _Waiters(list[Any]):
    """Those who wait for a future; each is given an event that works while it waits."""

    def __init__(self, future: Future | None) -> None:
        super().__init__()
        self.future = future

    def append(self, waiter: Any) -> None:
        """Take in a waiter of ``concurrent.futures``."""
        super().append(waiter)
        if self.future is not None:
            if not isinstance(waiter.event, _WorkingEvent):
                waiter.event = _WorkingEvent()
            waiter.event.watch(self.future)
            self.future.listen()


class _WorkingEvent(threading.Event):
    """An event whose waiting runs tasks of dtm, and ends at once when it is set."""

    def __init__(self) -> None:
        super().__init__()
        self._futures: deque[Future] = deque()
        self._bell: tuple[Waits, Call] | None = None

    def watch(self, future: Future) -> None:
        """Wait for the call of this future among others."""
        self._futures.append(future)

    def set(self) -> None:
        """Set the event, and wake who waits for it."""
        super().set()
        if self._bell is not None:
            runner, bell = self._bell
            runner.ring(bell)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, or for ``timeout`` seconds; whether it is set."""
        deadline = None if timeout is None else perf_counter() + timeout
        while not self.is_set():
            left = None if deadline is None else deadline - perf_counter()
            if left is not None and left <= 0:
                return False
            watched = self._watched()
            if not watched:
                return super().wait(left)
            self._work(watched, deadline)
        return True

    def _watched(self) -> list[Future]:
        """Return some of the futures whose calls are under way, the oldest first."""
        while self._futures and self._futures[0].made is None:
            self._futures.popleft()
        found = []
        for future in self._futures:
            if future.made is not None:
                found.append(future)
                if len(found) == MOST_WATCHED:
                    break
        return found

    def _work(self, watched: list[Future], deadline: float | None) -> None:
        made = [each for future in watched if (each := future.made) is not None]
        if made:
            runner = made[0].runner
            if runner.ended:
                raise RunStateError("the run is over, and what is waited for had not ended")
            bell = Call(len, (None,), 1, runner.scheduler.rank, None, "wait")
            self._bell = runner, bell
            if not self.is_set():
                runner.wait_any([*(each.call for each in made), bell], deadline)
            self._bell = None
        for future in watched:
            future.over()
