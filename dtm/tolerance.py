"""``on_error`` and ``return_exceptions``: replaces the results of failed items, at the caller.

Most failures arrive in the place of results, caught where they happened
(:class:`dtm.guard.Failed`).  But a result that cannot be sent ends its call, as without
tolerance, and the items that were not run for that are run now.

Threads: that which asks for the results.

Rejected: to look at each result where it is made whether it can be sent.  It would be pickled
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from dtm.errors import CallCancelledError, InitializerError, ItemTimeoutError
from dtm.guard import Failed
from dtm.task import Call
from dtm.wire.failures import annotate


class Runs(Protocol):
    """What tolerance needs of the runner."""

    def submit(self, call: Call) -> None:
        """Make a new call ready."""

    def wait(self, call: Call, deadline: float | None = None) -> bool:
        """Wait until a call is complete."""

    def abandon(self, call: Call) -> None:
        """Drop what is left of a call."""


class Tolerance:
    """Puts something in the place of what failed.

    Args:
        replacement: returns the result of an item from its exception.
    """

    def __init__(self, replacement: Callable[[BaseException], Any]) -> None:
        self._replacement = replacement

    def values(self, runner: Runs, call: Call) -> list[Any]:
        """Return the results of a call that has ended."""
        return [
            self._replaced(call, index, value) if type(value) is Failed else value
            for index, value in enumerate(outcomes(runner, call), call.base)
        ]

    def _replaced(self, call: Call, index: int, failed: Failed) -> Any:
        exception = failed.exception
        if isinstance(exception, ItemTimeoutError):
            exception.index = index
        item = "" if call.kind.startswith("apply") else f"item {index} of "
        annotate(exception, f"in {item}{call.name}")
        return self._replacement(exception)


class Result:
    """Returns the same result for whatever failed."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self, _: BaseException) -> Any:
        """Return it."""
        return self._value


def itself(exception: BaseException) -> BaseException:
    """Return the exception, for the result."""
    return exception


_ABSENT: Any = object()


def outcomes(runner: Runs, call: Call) -> list[Any]:
    """Return for each item of a call that has ended its result, or a :class:`Failed`.

    Raises:
        CallCancelledError: the call was cancelled.
        InitializerError: its initializer has failed.
    """
    if call.failure is None:
        return call.values() if call.size else []
    found: list[Any] = [_ABSENT] * call.size
    left = [call]
    try:
        while left:
            part = left.pop()
            runner.wait(part)
            _enter(found, call, part)
            if part.failure is not None:
                left += _rest(runner, call, part, found)
    except BaseException:  # Ctrl-C too: nobody will ask for the rest
        for part in left:
            runner.abandon(part)
        raise
    return found


def _enter(found: list[Any], call: Call, part: Call) -> None:
    if part.failure is None:
        first = part.base - call.base
        found[first : first + part.size] = part.values()
        return
    index, exception = part.failure
    if isinstance(exception, (CallCancelledError, InitializerError)):
        raise exception
    for lo, values in part.segments.items():
        found[lo - call.base : lo - call.base + len(values)] = values
    found[index - call.base] = Failed(exception)


def _rest(runner: Runs, call: Call, part: Call, found: list[Any]) -> list[Call]:
    """Submit the items of a part that failed which have not been run, and return their calls."""
    made = []
    first = part.base - call.base
    for lo, hi in _gaps(found, first, first + part.size):
        rest = Call(
            call.function, call.items[lo:hi], hi - lo, call.owner, call.profile, call.kind,
            call.star, call.depth, call.path, call.chunk, call.streaming, call.parent,
            call.base + lo,
        )  # fmt: skip
        runner.submit(rest)
        made.append(rest)
    return made


def _gaps(found: list[Any], lo: int, hi: int) -> Iterator[tuple[int, int]]:
    while lo < hi:
        while lo < hi and found[lo] is not _ABSENT:
            lo += 1
        end = lo
        while end < hi and found[end] is _ABSENT:
            end += 1
        if lo < end:
            yield lo, end
        lo = end
