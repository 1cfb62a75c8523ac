"""The window of a lazy map, and asynchronous results, with a runner of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from threading import RLock
from typing import Any

import pytest

from dtm.core.granularity import Profile
from dtm.future import AsyncResult
from dtm.lazy import LazyResults, Window
from dtm.run.context import Context
from dtm.task import Call

BATCHES = 3


class Runner:
    """Completes a call when it is waited for, unless nothing comes ``in_time``.

    Attributes:
        calls: all that were submitted.
        dropped: those that were abandoned.
        rung: whether a call was completed by ``ring``.
    """

    ended = resting = False

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.dropped: list[Call] = []
        self.rung = False
        self.in_time = True
        self.lock = RLock()
        self.world: Any = self
        self.scheduler: Any = self
        self.callbacks: Any = self
        self.is_calling = False

    def submit(self, items: list[Any], first: int) -> Call:
        call = Call(str, items, len(items), 0, Profile(), "imap", base=first)
        self.calls.append(call)
        return call

    def complete(self, call: Call) -> None:
        call.account(call.base, [str(item) for item in call.items])
        for listener in call.listeners or ():
            listener()

    def wait(self, call: Call, deadline: float | None = None) -> bool:
        assert deadline is not None or self.in_time
        if call.missing and self.in_time:
            self.complete(call)
        return not call.missing

    def wait_any(self, calls: Sequence[Call], deadline: float | None = None) -> bool:
        return self.wait(calls[-1], deadline)

    def abandon(self, call: Call) -> None:
        self.dropped.append(call)

    def step(self, calls: Sequence[Call]) -> None:
        raise AssertionError(calls)

    def listen(self, call: Call, listener: Callable[[], None]) -> bool:
        if call.missing:
            call.listeners = [listener]
        return bool(call.missing)

    def call_later(self, callback: Callable[[], None]) -> None:
        callback()

    def ring(self, bell: Call) -> None:
        self.rung = True
        bell.account(0, [None])


def lazy(
    runner: Runner, items: Iterable[Any], *, most: int | None = None, ordered: bool = True
) -> tuple[Window, LazyResults]:
    window = Window(runner, runner.submit, items, BATCHES, most, 4, lambda call: call.values())
    return window, LazyResults(window, ordered=ordered)


def in_flight(runner: Runner) -> int:
    return sum(call.missing for call in runner.calls)


def test_no_more_batches_are_in_flight_than_the_window_has() -> None:
    runner = Runner()
    window, results = lazy(runner, range(100))
    for expected in range(5):
        window.fill()
        assert in_flight(runner) == BATCHES
        assert next(results) == str(expected)
    assert len(runner.calls) < 5 + BATCHES


def test_no_more_items_are_in_flight_than_the_window_may_hold() -> None:
    runner = Runner()
    pulled = count()
    window, _ = lazy(runner, (next(pulled) for _ in range(100)), most=2)
    window.fill()
    assert in_flight(runner) == next(pulled) == 2


@pytest.mark.parametrize("ordered", [True, False])
def test_all_results_come_once(ordered: bool) -> None:
    _, results = lazy(Runner(), range(50), ordered=ordered)
    found = list(results)
    expected = [str(x) for x in range(50)]
    assert (found if ordered else sorted(found, key=int)) == expected


def test_what_is_in_flight_is_dropped_when_a_lazy_map_ends_early() -> None:
    runner = Runner()
    window, results = lazy(runner, range(100))
    next(results)
    window.fill()
    flying = [call for call in runner.calls if call.missing]
    results.close()
    assert flying == runner.dropped
    assert window.empty
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_result_that_is_late_comes_later(ordered: bool) -> None:
    runner = Runner()
    _, results = lazy(runner, range(9), ordered=ordered)
    runner.in_time = False
    with pytest.raises(TimeoutError):
        results.next(0.0)
    runner.in_time = True
    assert sorted(results) == [str(x) for x in range(9)]


def test_an_error_of_the_iterable_comes_after_what_came_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("no more")

    found = []
    _, results = lazy(Runner(), items())
    with pytest.raises(OSError, match="no more"):
        for each in results:
            found.append(each)  # noqa: PERF402 - what came before the error counts
    assert found == [str(x) for x in range(5)]


# Callbacks.


def result_of(runner: Runner) -> AsyncResult:
    call = Call(str, [3], 1, 0, Profile(), "apply")
    return AsyncResult(runner, call, Context(0, None), single=True)


def test_a_callback_is_called_when_its_call_ends() -> None:
    runner, told = Runner(), list[str]()
    result = result_of(runner)
    result.on_end(told.append, None)
    assert not told
    runner.complete(result.call)
    assert told == ["3"]


def test_a_callback_is_called_though_its_call_has_ended_before() -> None:
    runner, told = Runner(), list[str]()
    result = result_of(runner)
    runner.complete(result.call)
    result.on_end(told.append, None)
    assert told == ["3"]


def test_who_waits_for_a_callback_goes_on_when_it_fails() -> None:
    runner = Runner()
    result = result_of(runner)

    def fail(_: str) -> None:
        raise ZeroDivisionError

    result.on_end(fail, None)
    with pytest.raises(ZeroDivisionError):
        runner.complete(result.call)
    assert runner.rung
    result.wait()


def test_an_error_goes_to_the_error_callback_alone() -> None:
    runner, told = Runner(), list[Any]()
    result = result_of(runner)
    result.on_end(told.append, lambda error: told.append(type(error)))
    result.call.fail(0, ZeroDivisionError())
    for listener in result.call.listeners or ():
        listener()
    assert told == [ZeroDivisionError]
