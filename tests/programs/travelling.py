"""Scenarios of functions, classes and objects that go from worker to worker."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import operator
import os
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import helper_module
import scenarios

from dtm import dtm
from dtm import errors as dtm_errors

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
        # Its size is found out before, and once more if it takes long, for it may have been cold.
        assert 1 <= events.count("p") <= WORKERS + 1, events
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


def check_classes_put_into_a_module_by_main_come_home_as_themselves() -> None:
    class Base:
        def __init__(self, x: int) -> None:
            self.x = x

    made: Any = type("MadeByMain", (Base,), {"__module__": helper_module.__name__})
    made.__qualname__ = "MadeByMain"
    vars(helper_module)["MadeByMain"] = made

    def work(obj: Any) -> tuple[Any, bool, int]:
        known: Any = vars(helper_module)["MadeByMain"]
        again = pickle.loads(pickle.dumps(obj))
        return obj, type(obj) is known is type(again) is type(copy.deepcopy(obj)), nap()

    found = dtm.map(work, [made(item) for item in range(ITEMS)])
    assert all(type(obj) is made and same for obj, same, _ in found)
    expect([(obj.x, worker) for obj, _, worker in found], list(range(ITEMS)))
    assert pickle.loads(pickle.dumps(found[0][0])).x == 0


def check_a_global_function_redefined_by_main_is_the_one_that_travels() -> None:
    global redefined

    def redefined(item: int) -> tuple[int, int]:
        return item + 2, nap()

    expect(dtm.map(redefined, range(ITEMS)), [i + 2 for i in range(ITEMS)])
    expect(dtm.map(call, [(redefined, i) for i in range(ITEMS)]), [i + 2 for i in range(ITEMS)])


def redefined(item: int) -> tuple[int, int]:  # noqa: F811 - main has one of its own
    """Be replaced by main."""
    return item - 1, nap()


def call(pair: tuple[Any, int]) -> Any:
    """Call a function that is part of an item."""
    function, item = pair
    return function(item)


class Demanding(Exception):
    """An exception whose constructor does not take its ``args``."""

    def __init__(self, first: int, second: str) -> None:
        super().__init__(f"{first} {second}")
        self.first = first


def check_exceptions_are_values_like_others() -> None:
    found = dtm.map(lambda item: (Demanding(item, "x"), nap()), range(ITEMS))
    assert all(type(error) is Demanding for error, _ in found)
    expect([(error.first, worker) for error, worker in found], list(range(ITEMS)))


class Unloadable:
    """An object that can be pickled on any worker but loaded on none."""

    def __init__(self) -> None:
        self.state = 1

    def __setstate__(self, state: Any) -> None:
        raise ZeroDivisionError(state)


def check_a_result_that_cannot_be_loaded_is_named_by_its_index() -> None:
    def work(item: int) -> tuple[Any, int]:
        worker = nap()
        return (Unloadable() if item == ITEMS - 1 and worker else item), worker

    for _ in range(3):  # the root may have run the item itself, and then it never travels
        try:
            found = dtm.map(work, range(ITEMS))
        except dtm_errors.SerializationError as error:
            assert f"result of item {ITEMS - 1} of map(" in str(error), str(error)
        else:
            expect(found, list(range(ITEMS)))


def check_a_generator_as_a_result_is_named_by_its_index() -> None:
    def work(item: int) -> tuple[Any, int]:
        worker = nap()
        return ((x for x in ()) if item == ITEMS - 1 and worker else item), worker

    for _ in range(3):
        try:
            dtm.map(work, range(ITEMS))
        except dtm_errors.SerializationError as error:
            assert f"result of item {ITEMS - 1} of map(" in str(error), str(error)
            assert "return or pass a list" in str(error), str(error)


class Contrary:
    """A callable that must not be asked for ``==`` or ``hash``."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        raise ZeroDivisionError

    def __call__(self, item: int) -> tuple[int, int]:
        """Work."""
        return item + self.number, nap()


def check_callables_are_known_by_identity() -> None:
    for number in range(3):
        expect(dtm.map(Contrary(number), range(ITEMS)), [i + number for i in range(ITEMS)])


def check_the_first_map_by_value_is_shared_like_the_second() -> None:
    class Fresh:
        def __init__(self, x: int) -> None:
            self.call = lambda: x

    for _ in range(2):
        found = dtm.map(lambda obj: (obj.call(), nap()), [Fresh(item) for item in range(ITEMS)])
        expect(found, list(range(ITEMS)))


def check_arrays_without_elements_travel_by_value() -> None:
    try:
        import numpy as np
    except ImportError:
        return
    for one, two in ((np.empty(0), np.empty(0)), (np.zeros(1, bool), np.zeros(1, bool))):

        class Holder:
            def __init__(self, first: Any, second: Any) -> None:
                self.both = first, second, {}.keys()

        kept = one, two
        found = dtm.map(lambda item: ((Holder(*kept), item), nap()), range(ITEMS))
        assert all(type(holder) is Holder for (holder, _), _ in found)
        assert all(len(holder.both[1]) == len(two) for (holder, _), _ in found)


def main() -> None:
    """Run the scenarios."""
    scenarios.run_all(globals(), WORKERS, sys.argv[2:])


if __name__ == "__main__":
    dtm.start(main)
