"""Scenarios of functions, classes and objects that go from worker to worker."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import operator
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import helper_module
import scenarios

from dtm import dtm

WORKERS = int(sys.argv[1])
ITEMS = scenarios.ITEMS
OFFSET = 5


def nap() -> int:
    """Sleep a little, so that others get a part; return the worker."""
    time.sleep(0.01)
    return dtm.getWorkerId()


def expect(found: list[Any], expected: list[Any]) -> None:
    """See to it that the results are right, and were computed on all workers."""
    assert [value for value, _ in found] == expected, found
    assert {worker for _, worker in found} == set(range(WORKERS)), found


def add_offset(item: int) -> tuple[int, int]:
    """Use a global of this module."""
    return item + OFFSET, nap()


class Adder:
    """A class of the main module."""

    def __init__(self, number: int) -> None:
        self.number = number

    def add(self, item: int) -> tuple[int, int]:
        """Be a bound method."""
        return item + self.number, nap()

    def __call__(self, item: int) -> tuple[int, int]:
        """Be a callable object."""
        return self.add(item)

    @staticmethod
    def double(item: int) -> tuple[int, int]:
        """Be a static method."""
        return 2 * item, nap()

    @classmethod
    def name(cls, _: int) -> tuple[str, int]:
        """Be a class method."""
        return cls.__name__, nap()


def check_functions_of_main() -> None:
    expect(dtm.map(add_offset, range(ITEMS)), [i + OFFSET for i in range(ITEMS)])


def check_functions_of_another_module() -> None:
    found = dtm.map(helper_module.triple, range(ITEMS))
    expect(found, [3 * i for i in range(ITEMS)])


def check_objects_of_classes_of_main_are_of_the_same_class() -> None:
    def make(item: int) -> tuple[Adder, int]:
        return Adder(item), nap()

    found = dtm.map(make, range(ITEMS))
    assert all(type(made) is Adder for made, _ in found)
    expect([(made.number, worker) for made, worker in found], list(range(ITEMS)))


def check_lambdas_and_closures() -> None:
    number = 7
    expect(
        dtm.map(lambda item: (item * number, nap()), range(ITEMS)), [7 * i for i in range(ITEMS)]
    )

    def outer(factor: int) -> Any:
        def inner(item: int) -> tuple[int, int]:
            return item * factor + number, nap()

        return inner

    expect(dtm.map(outer(3), range(ITEMS)), [3 * i + 7 for i in range(ITEMS)])


def check_local_functions_that_call_themselves() -> None:
    def factorial(item: int) -> int:
        return item * factorial(item - 1) if item else 1

    found = dtm.map(lambda item: (factorial(item), nap()), range(ITEMS))
    expect(found, [functools.reduce(operator.mul, range(1, i + 1), 1) for i in range(ITEMS)])


def check_local_classes_come_home_as_themselves() -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        def moved(self) -> Point:
            return Point(self.x + 1)

    @dataclasses.dataclass
    class Pair:
        x: int

    class Colour(enum.Enum):
        RED = 1
        BLUE = 2

    named = collections.namedtuple("named", "x y")  # noqa: PYI024

    def work(point: Point) -> tuple[Any, ...]:
        kept = Point(point.x).moved(), Pair(point.x), Colour(1 + point.x % 2), named(point.x, 2)
        return (*kept, nap())

    found = dtm.map(work, [Point(item) for item in range(ITEMS)])
    for item, (point, pair, colour, tuple_, _) in enumerate(found):
        assert type(point) is Point and point.x == item + 1
        assert pair == Pair(item)
        assert colour is Colour(1 + item % 2)
        assert tuple_ == (item, 2) and type(tuple_) is named
    assert {row[-1] for row in found} == set(range(WORKERS))


def check_partials_and_methods() -> None:
    for function in (
        Adder(4).add,
        Adder(4),
        functools.partial(lambda number, item: (item + number, nap()), 4),
        functools.partial(Adder(4).add),
    ):
        expect(dtm.map(function, range(ITEMS)), [i + 4 for i in range(ITEMS)])
    expect(dtm.map(Adder.double, range(ITEMS)), [2 * i for i in range(ITEMS)])
    expect(dtm.map(Adder.name, range(ITEMS)), ["Adder"] * ITEMS)


def check_keyword_arguments_travel() -> None:
    def work(item: int, *, chunksize: int, function: Any) -> tuple[int, int]:
        return function(item) + chunksize, nap()

    negative = functools.partial(work, function=lambda item: -item)
    found = dtm.map(negative, range(ITEMS), chunksize=2)
    expect(found, [2 - i for i in range(ITEMS)])


def check_a_closure_sees_what_changed_between_two_maps() -> None:
    number = 1

    def work(_: int) -> tuple[int, int]:
        return number, nap()

    expect(dtm.map(work, range(ITEMS)), [1] * ITEMS)
    number = 2
    expect(dtm.map(work, range(ITEMS)), [2] * ITEMS)


def check_a_nested_map_of_a_lambda_on_any_worker() -> None:
    def outer(item: int) -> tuple[int, int]:
        worker = nap()
        return sum(dtm.map(lambda inner: inner + item, range(5))), worker

    expect(dtm.map(outer, range(ITEMS)), [10 + 5 * i for i in range(ITEMS)])


class Counted:
    """Notes in a file each time that it is pickled (p) and loaded (l)."""

    def __init__(self, notes: str) -> None:
        self.notes = notes
        self.burden = bytes(range(256)) * 100

    def note(self, event: str) -> None:
        """Add to the file."""
        with open(self.notes, "a") as file:
            file.write(event)

    def __getstate__(self) -> dict[str, Any]:
        self.note("p")
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.note("l")

    def __call__(self, item: int) -> tuple[int, int]:
        """Work."""
        return item, nap()


def check_a_function_is_sent_once_to_a_worker() -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        notes = Path(directory, "notes")
        notes.touch()
        counted = Counted(str(notes))
        expect(dtm.map(counted, range(8 * ITEMS)), list(range(8 * ITEMS)))
        events = notes.read_text()
        assert 1 <= events.count("p") <= WORKERS, events
        assert WORKERS - 1 <= events.count("l") <= WORKERS, events


def check_large_arrays_travel() -> None:
    try:
        import numpy as np
    except ImportError:
        return
    rows = [np.full(50_000, item, dtype=float) for item in range(ITEMS)]
    found = dtm.map(lambda row: (row * 2, nap()), rows)
    expect([(float(row.sum()), who) for row, who in found], [1e5 * i for i in range(ITEMS)])
    found[0][0][0] = 1  # what arrives can be written to


def check_results_of_one_megabyte() -> None:
    found = dtm.map(lambda item: (bytes([item]) * (1 << 20), nap()), range(ITEMS))
    assert {len(row) for row, _ in found} == {1 << 20}
    expect([(row[0], who) for row, who in found], list(range(ITEMS)))


def check_the_working_directory_and_the_path_are_the_roots() -> None:
    found = dtm.map(lambda _: ((os.getcwd(), sys.argv), nap()), range(ITEMS))
    expect(found, [(os.getcwd(), sys.argv)] * ITEMS)


def main() -> None:
    """Run the scenarios."""
    scenarios.run_all(globals(), WORKERS, sys.argv[2:])


if __name__ == "__main__":
    dtm.start(main)
