"""Scenarios of calls that fail, in a run that goes on."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scenarios
from scenarios import ITEMS, NAP, Elsewhere, failure_elsewhere, failure_of

from dtm import dtm
from dtm.errors import RemoteTraceback, SerializationError

WORKERS = int(sys.argv[1])


class TwoArguments(Exception):
    """Its constructor breaks when pickle calls it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Unpicklable(Exception):
    """It holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("with a lock")
        self.lock = threading.Lock()


class Serious(BaseException):
    """No Exception."""


class BreaksOnLoad:
    """Can be pickled, not loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise LookupError("cannot be made anew")


class NoPickle:
    """An argument that cannot be pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("holds a handle")


def raise_value(item: int) -> int:
    """Fail."""
    raise ValueError("no good", item)


def check_type_cause_and_notes_of_an_exception_from_elsewhere() -> None:
    error = failure_elsewhere(raise_value)
    assert type(error) is ValueError, repr(error)
    assert error.args[0] == "no good"
    item = error.args[1]
    assert isinstance(error.__cause__, RemoteTraceback), repr(error.__cause__)
    assert "in raise_value" in str(error.__cause__)
    notes = "\n".join(error.__notes__)
    assert f"item {item} of map(" in notes, notes
    assert "on worker " in notes and "worker 0" not in notes, notes
    assert os.uname().nodename in notes, notes


def check_an_exception_from_here_says_where_too() -> None:
    def only_here(item: int) -> int:
        time.sleep(NAP)
        return raise_value(item) if dtm.getWorkerId() == 0 else item

    error = failure_of(lambda: dtm.map(only_here, range(ITEMS)))
    assert type(error) is ValueError
    notes = "\n".join(error.__notes__)
    assert f"item {error.args[1]} of map(" in notes and "on worker 0" in notes, notes


def check_the_failure_with_the_smallest_index_is_raised() -> None:
    def late_first(item: int) -> int:
        time.sleep(NAP if item != 7 else 5 * NAP)
        return raise_value(item) if item in (7, 30, 50, ITEMS - 1) else item

    for _ in range(3):
        assert failure_of(lambda: dtm.map(late_first, range(ITEMS))).args[1] == 7


def check_nothing_is_computed_twice() -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        ran = Path(directory, "ran")

        def note(item: int) -> int:
            time.sleep(NAP / 4)
            with ran.open("a") as file:
                file.write(f"{item}\n")
            return raise_value(item) if item == ITEMS - 10 else item

        error = failure_of(lambda: dtm.map(note, range(ITEMS)))
        time.sleep(4 * NAP)
        items = [int(line) for line in ran.read_text().split()]
        assert error.args[1] == ITEMS - 10
        assert len(set(items)) == len(items), sorted(items)
        assert set(items) >= set(range(ITEMS - 9)), sorted(items)


def check_an_exception_with_a_demanding_constructor_arrives() -> None:
    def fail(_: int) -> None:
        raise TwoArguments(3, "three")

    error = failure_elsewhere(fail)
    assert type(error) is TwoArguments, repr(error)
    assert str(error) == "3: three"
    assert error.code == 3


def check_an_exception_that_cannot_be_pickled_arrives() -> None:
    def fail(_: int) -> None:
        raise Unpicklable

    error = failure_elsewhere(fail)
    assert type(error) is Unpicklable, repr(error)
    assert str(error) == "with a lock"
    assert "raise Unpicklable" in str(error.__cause__)


def check_a_result_that_cannot_be_pickled_is_named() -> None:
    error = failure_elsewhere(lambda _: [1, threading.Lock()])
    assert type(error) is SerializationError, repr(error)
    assert "result of item " in str(error) and "lock" in str(error), error


def check_a_result_that_cannot_be_loaded_is_an_error() -> None:
    error = failure_elsewhere(lambda _: BreaksOnLoad())
    assert type(error) is SerializationError, repr(error)
    assert "cannot be made anew" in str(error), error


def check_results_that_stay_here_need_no_pickle() -> None:
    def here_only(item: int) -> Any:
        time.sleep(NAP / 2)
        return threading.Lock() if dtm.getWorkerId() == 0 else item

    assert len(dtm.map(here_only, range(ITEMS))) == ITEMS


def take_argument(item: Any) -> int:
    """Use an argument that may not be picklable."""
    time.sleep(NAP / 2)
    return item if isinstance(item, int) else -item.number


def check_arguments_that_cannot_be_pickled_run_here() -> None:
    for bad in ([ITEMS - 2], range(ITEMS), range(3, ITEMS, 5)):
        items = [NoPickle(i) if i in bad else i for i in range(ITEMS)]
        found = dtm.map(take_argument, items)
        assert found == [-i if i in bad else i for i in range(ITEMS)], found


def check_a_function_that_cannot_be_pickled_runs_here() -> None:
    lock = threading.Lock()

    def locked(item: int) -> tuple[int, int]:
        with lock:
            time.sleep(NAP / 4)
            return item, dtm.getWorkerId()

    found = dtm.map(locked, range(ITEMS))
    assert found == [(item, 0) for item in range(ITEMS)]


def check_an_argument_that_cannot_be_loaded_elsewhere_runs_here() -> None:
    def nap(_: object) -> int:
        time.sleep(NAP / 2)
        return dtm.getWorkerId()

    assert dtm.map(nap, [BreaksOnLoad() for _ in range(ITEMS)]) == [0] * ITEMS


def check_whatever_a_task_raises_is_a_failed_task() -> None:
    def leave(_: int) -> None:
        sys.exit(3)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    def serious(_: int) -> None:
        raise Serious("very")

    def generator_exit(_: int) -> None:
        raise GeneratorExit

    def stop(_: int) -> None:
        raise StopIteration

    kinds = {
        leave: SystemExit,
        interrupt: KeyboardInterrupt,
        serious: Serious,
        generator_exit: GeneratorExit,
        stop: StopIteration,
    }
    for function, kind in kinds.items():
        error = failure_elsewhere(function)
        assert type(error) is kind, repr(error)
        assert isinstance(error.__cause__, RemoteTraceback)
        assert type(failure_of(lambda f=function: dtm.apply(f, 1))) is kind
    assert failure_elsewhere(leave).code == 3
    scenarios.gather(WORKERS)


def check_an_iterable_that_raises_midway_ends_a_map() -> None:
    def broken() -> Iterator[int]:
        yield from range(10)
        raise LookupError("no more")

    for action in (
        lambda: dtm.map(abs, broken()),
        lambda: dtm.map(max, range(20), broken()),
        lambda: dtm.map_async(abs, broken()),
        lambda: dtm.filter(abs, broken()),
    ):
        error = failure_of(action)
        assert type(error) is LookupError and error.args == ("no more",), repr(error)


def check_an_iterable_that_raises_midway_drops_what_is_out() -> None:
    def slow_start() -> Iterator[int]:
        yield from range(4)
        raise LookupError("no more")

    for lazy in (dtm.imap, dtm.imap_unordered):
        began = time.monotonic()
        error = failure_of(lambda lazy=lazy: list(lazy(abs, slow_start())))
        assert type(error) is LookupError, repr(error)
        assert time.monotonic() - began < 30
    assert dtm.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]


def check_a_nested_failure_comes_up_through_all_workers() -> None:
    def outer(item: int) -> list[int]:
        time.sleep(NAP)
        return dtm.map(inner, [item] * 4)

    def inner(item: int) -> int:
        time.sleep(NAP / 4)
        if item == 20:
            raise_value(item)
        return item

    error = failure_of(lambda: dtm.map(outer, range(ITEMS)))
    assert type(error) is ValueError and error.args == ("no good", 20), repr(error)
    notes = "\n".join(error.__notes__)
    assert "item 0 of map(" in notes and "item 20 of map(" in notes, notes


def check_async_failures_wait_for_get() -> None:
    seen: list[BaseException] = []
    call = dtm.options(error_callback=seen.append).map_async(Elsewhere(raise_value), range(ITEMS))
    call.wait()
    assert call.ready()
    assert not call.successful()
    assert type(failure_of(call.get)) is ValueError
    assert type(failure_of(call.get)) is ValueError
    deadline = time.monotonic() + 5
    while not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [type(error) for error in seen] == [ValueError]
    dtm.waitAll()
    assert dtm.apply_async(abs, -3).get() == 3


def check_every_function_passes_failures_on() -> None:
    for action in (
        lambda: dtm.apply(raise_value, 1),
        lambda: dtm.apply_async(raise_value, 1).get(),
        lambda: dtm.repeat(raise_value, 3, 1),
        lambda: dtm.filter(raise_value, [1, 2]),
        lambda: list(dtm.imap(raise_value, [1, 2])),
        lambda: list(dtm.imap_unordered(raise_value, [1, 2])),
    ):
        error = failure_of(action)
        assert type(error) is ValueError and error.args == ("no good", 1), repr(error)
        assert any("raise_value" in note for note in error.__notes__), error.__notes__


def check_an_except_clause_in_a_task_catches_what_its_map_raises() -> None:
    def careful(item: int) -> str:
        time.sleep(NAP / 4)
        try:
            dtm.map(raise_value, range(item, item + 3))
        except ValueError as error:
            return f"caught {error.args[1]}"
        return "nothing"

    assert dtm.map(careful, range(ITEMS)) == [f"caught {i}" for i in range(ITEMS)]


def check_wrong_calls_raise_at_once() -> None:
    assert type(failure_of(lambda: dtm.map(3, [1]))) is TypeError
    assert type(failure_of(lambda: dtm.map(abs))) is TypeError
    assert type(failure_of(lambda: dtm.map(abs, 3))) is TypeError
    assert type(failure_of(lambda: dtm.repeat(abs, -1, 3))) is ValueError
    assert type(failure_of(lambda: dtm.apply(abs))) is TypeError


def main() -> None:
    """Run the scenarios."""
    scenarios.run_all(globals(), WORKERS, sys.argv[2:])


if __name__ == "__main__":
    dtm.start(main)
