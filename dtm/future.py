"""AsyncResult: what a caller of ``map_async`` and ``apply_async`` holds.

It may be used from any thread of the worker that made it.  It cannot leave that
worker: the results come home to where the call was made.

Rejected: a subclass of ``concurrent.futures.Future``.  Its condition variable and
its states cost several times the call itself, and its ``result`` would block the
worker; an executor on top of this is the place for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NoReturn, Protocol

from dtm.errors import CallCancelledError, ItemTimeoutError, ResultNotReadyError, RunStateError
from dtm.task import Call


class Waits(Protocol):
    """What a result needs of the runner."""

    ended: bool
    interruption: BaseException | None
    resting: bool
    world: Any
    scheduler: Any
    callbacks: Any

    def abandon(self, call: Call) -> None:
        """Drop what is left of a call."""

    def wait(self, call: Call, deadline: float | None = None) -> bool:
        """Wait until a call is complete."""

    def wait_any(self, calls: Sequence[Call], deadline: float | None = None) -> bool:
        """Wait until one of the calls is complete."""

    def step(self, calls: Sequence[Call]) -> None:
        """Make a little progress."""

    def listen(self, call: Call, listener: Callable[[], None]) -> bool:
        """Have a function called when a call is complete; False if it is."""

    def ring(self, bell: Call) -> None:
        """Complete a call of one item that nobody runs."""


class Task(Protocol):
    """What a result needs of the task that made its call."""

    pending: Any


def raised(call: Call) -> BaseException:
    """Return what a call that has failed raises at its caller."""
    assert call.failure is not None
    index, exception = call.failure
    if isinstance(exception, ItemTimeoutError):
        exception.index = index
    return exception


def end_early(runner: Waits, call: Call, reason: BaseException, *, unbegun: bool = False) -> bool:
    """Drop what is left of a call, and wake those who wait for it; whether it was under way.

    With ``unbegun`` only a call is dropped of which no item has been started or has left.
    """
    with runner.world.lock:
        work = call.range
        begun = work is None or work.left < call.size
        if not call.missing or runner.ended or (unbegun and begun):
            return False
        runner.abandon(call)
        call.failure = (call.base, reason)
        listeners, call.listeners = call.listeners, None
        for listener in listeners or ():
            listener()
    if runner.resting:
        runner.world.nudge()
    return True


def wait_or_withdraw(runner: Waits, call: Call, deadline: float | None) -> bool:
    """Wait for a call; an interrupt ends the call, too, and what other workers run of it."""
    try:
        return runner.wait(call, deadline)
    except KeyboardInterrupt as error:
        if error is runner.interruption and not end_early(runner, call, error):
            runner.abandon(call)
        raise


class AsyncResult:
    """The result of a call under way.

    Raises, from ``get``: what the function raised, at the smallest index that
    failed; ``TimeoutError``.

    Attributes:
        named: whether ``waitAny`` or ``testAny`` has named it; next time they name others first.
    """

    __slots__ = ("_call", "_called_back", "_runner", "_settle", "_single", "_task", "named")

    def __init__(
        self,
        runner: Waits,
        call: Call,
        task: Task,
        single: bool,
        settle: Callable[[Call], list[Any]] | None = None,
    ) -> None:
        self._runner = runner
        self._call = call
        self._task = task
        self._single = single
        self._settle = settle
        self._called_back: Call | None = None  # complete when callbacks have been called
        self.named = False

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result and return it, or raise what the function raised.

        Args:
            timeout: seconds to wait; None waits as long as it takes.  With a timeout other
                workers run what may take longer; with one worker it is noticed when an item ends.

        Raises:
            TimeoutError: the time is up; the call goes on.
            RunStateError: the run is over, and the call had not ended.
        """
        call = self._call
        if call.missing or self._called_back is not None:
            self.wait(timeout)
            if call.missing:
                raise TimeoutError(f"{call.name} has not ended within {timeout} seconds")
        self.forget()
        return self._value()

    def _value(self) -> Any:
        call = self._call
        if self._settle is not None:
            values = self._settle(call)
        elif call.failure is not None:
            raise raised(call)
        else:
            values = call.values()
        return values[0] if self._single else values

    def cancel(self) -> bool:
        """Drop what has not begun of the call; whether the call was still under way.

        What other workers hold ready of it is dropped too.  Items that run go on, and their
        results are dropped.  ``get`` raises :class:`dtm.errors.CallCancelledError`.
        """
        name = self._call.name
        dropped = end_early(self._runner, self._call, CallCancelledError(f"{name} was cancelled"))
        if dropped:
            self.forget()
        return dropped

    def cancelled(self) -> bool:
        """Whether the call was dropped by ``cancel``."""
        failure = self._call.failure
        return failure is not None and isinstance(failure[1], CallCancelledError)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended, or for ``timeout`` seconds.

        If it has callbacks, they have been called by then.
        """
        call = self._call
        deadline = None if timeout is None else perf_counter() + timeout
        if call.missing:
            if self._runner.ended:
                raise RunStateError(f"the run is over, and {call.name} had not ended")
            wait_or_withdraw(self._runner, call, deadline)
        told = self._called_back
        if (
            told is not None
            and told.missing
            and not (call.missing or self._runner.callbacks.is_calling)
        ):
            self._runner.wait(told, deadline)

    def ready(self) -> bool:
        """Whether the call has ended.

        It comes back at once, and makes a little progress, so polling in a loop comes to an end:
        it reads messages, and runs what is very short, or what nobody else has taken for a while.
        """
        if self._call.missing and not self._runner.ended:
            self._runner.step((self._call,))
        return not self._call.missing

    def successful(self) -> bool:
        """Whether the call has ended without an exception.

        Raises:
            ResultNotReadyError: it has not ended.  (A ``ValueError`` and an
                ``AssertionError`` at once, as old and new pools raise.)
        """
        if self._call.missing:
            raise ResultNotReadyError(f"{self._call.name} has not ended; ask ready() first")
        return self._call.failure is None

    def forget(self) -> None:
        """Say that somebody knows of the end: ``waitAny`` and ``testAny`` need not name it."""
        if self._task.pending is not None:
            self._task.pending.pop(self._call, None)

    @property
    def runner(self) -> Waits:
        """The runner that the call was made for."""
        return self._runner

    @property
    def call(self) -> Call:
        """The call that this is the result of."""
        return self._call

    def on_end(
        self,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        """Have a function called with the result, or with the exception, once it is there."""
        call, runner = self._call, self._runner
        told = self._called_back = Call(print, [()], 1, call.owner, call.profile, "callback")

        def tell() -> None:
            try:
                pass_on()
            finally:
                runner.ring(told)

        def pass_on() -> None:
            try:
                value = self._value()
            except Exception as error:  # noqa: BLE001 - handed to whom it concerns
                if error_callback is not None:
                    error_callback(error)
            else:
                if callback is not None:
                    callback(value)

        if not runner.listen(call, lambda: runner.callbacks.call_later(tell)):
            tell()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AsyncResult cannot leave the worker that made it; send its get()")

    def __repr__(self) -> str:
        call = self._call
        state = f"{call.missing} of {call.size} to come" if call.missing else "ended"
        return f"<AsyncResult {call.name}: {state}>"
