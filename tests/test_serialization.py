"""Objects to frames and back: what goes by reference, what by value, and what is refused."""

from __future__ import annotations

import functools
import gc
import pickle
import socket
import statistics
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtm.errors import SerializationError
from dtm.wire import cost
from dtm.wire.cost import function_cost, shipping_cost
from dtm.wire.pickling import LARGE, culprit, dumps, dumps_flat, loads
from tests.travel import AtTop, at_top, there_and_back

# Frames.


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_pickle_can_do_comes_back_equal_in_one_frame(obj: Any) -> None:
    frames = dumps(obj)
    assert len(frames) == 1
    assert loads(frames) == obj


def test_large_buffers_go_out_of_band_and_are_not_copied() -> None:
    array = np.arange(LARGE // 8, dtype=float)
    frames = dumps({"array": array})
    assert [memoryview(frame).nbytes for frame in frames[1:]] == [LARGE]
    assert np.shares_memory(np.frombuffer(frames[1]), array)
    assert np.array_equal(loads(frames)["array"], array)


def test_small_buffers_stay_in_band() -> None:
    assert len(dumps(np.zeros(LARGE // 8 - 1))) == 1


def test_an_array_that_was_writable_is_writable_at_its_arrival() -> None:
    array = np.zeros(LARGE)
    frozen = np.zeros(LARGE)
    frozen.flags.writeable = False
    received = [bytes(frame) for frame in dumps((array, frozen))]
    copy, frozen_copy = loads(received)
    copy += 1
    assert not frozen_copy.flags.writeable


def test_buffers_go_out_of_band_by_value_too() -> None:
    array = np.arange(LARGE, dtype=float)
    frames = dumps((lambda: array, array))
    assert len(frames) == 2
    function, copy = loads(frames)
    assert function() is copy


# By value.


def test_functions_of_modules_go_by_reference_even_inside_what_goes_by_value() -> None:
    copies = there_and_back((lambda: 0, at_top, AtTop, AtTop().method, np, sys))
    assert copies[1] is at_top
    assert copies[2] is AtTop
    assert type(copies[3].__self__) is AtTop
    assert copies[4] is np
    assert copies[5] is sys


def test_lambdas_closures_partials_and_bound_methods_work() -> None:
    factor = 3

    class Local:
        def times(self, x: int) -> int:
            return x * factor

    assert there_and_back(lambda x: x * factor)(2) == 6
    assert there_and_back(functools.partial(lambda a, b: a - b, 5))(2) == 3
    assert there_and_back(Local().times)(4) == 12
    assert there_and_back(AtTop(2).method)(4) == 6


def test_defaults_keywords_attributes_and_annotations_are_kept() -> None:
    def local(a: int, b: Any = [1], *, c: str = "x") -> str:  # noqa: B006 - a default to look at
        """Say it."""
        return f"{a}{b}{c}"

    local.mark = 5  # type: ignore[attr-defined]
    copy = there_and_back(local)
    assert copy(1) == "1[1]x"
    assert (copy.mark, copy.__doc__, copy.__qualname__) == (5, "Say it.", local.__qualname__)
    assert copy.__annotations__["c"] == "str"


def test_a_function_reads_the_globals_of_its_own_module() -> None:
    assert there_and_back(lambda: at_top).__globals__ is globals()


def test_a_function_of_no_module_takes_along_what_it_reads() -> None:
    namespace: dict[str, Any] = {"__name__": "made", "base": 10, "lock": threading.Lock()}
    exec("def inner(x): return base + x\ndef outer(x): return [inner(y) for y in x]", namespace)
    outer, inner = there_and_back((namespace["outer"], namespace["inner"]))
    assert outer([1, 2]) == [11, 12]
    assert outer.__globals__ is inner.__globals__
    assert "lock" not in outer.__globals__


def test_local_functions_may_call_themselves_and_each_other() -> None:
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    @functools.lru_cache(None)
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert there_and_back(factorial)(5) == 120
    assert there_and_back(even)(10)
    assert there_and_back(fib)(30) == 832040


def test_functions_share_a_variable_after_their_journey() -> None:
    count = 0

    def add() -> None:
        nonlocal count
        count += 1

    def get() -> int:
        return count

    add_copy, get_copy = there_and_back((add, get))
    add_copy()
    assert get_copy() == 1
    assert get() == 0


def test_a_variable_not_yet_set_stays_unset() -> None:
    def local() -> Any:
        return later

    copy = there_and_back(local)
    later = 1
    assert local() == later
    with pytest.raises(NameError):
        copy()


def test_nothing_is_warned_of() -> None:
    class Local:
        def get(self) -> Local:
            return Local()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there_and_back((Local, lambda: Local))


PROGRAM = """
import sys
from dtm.wire.pickling import dumps, loads
import dill  # early, so that it has the wrong idea of the main module under runpy

LEVEL = 5
def at_top(x): return x + LEVEL
class AtTop: pass

def main():
    class Local:
        def get(self): return at_top, AtTop
    sent = (lambda x: at_top(x), at_top, AtTop, Local, AtTop())
    function, top, cls, local, obj = loads(dumps(sent))
    assert function(1) == 6
    assert function.__globals__ is globals()
    assert (top, cls, local, type(obj)) == (at_top, AtTop, Local, AtTop)
    frames = dumps(Local)
    from dtm.wire import rebuilding
    rebuilding._things.clear()
    assert loads(frames)().get() == (at_top, AtTop)
    print("well")

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("how", ["script", "runpy"])
def test_main_goes_by_reference_however_it_was_started(tmp_path: Path, how: str) -> None:
    program = tmp_path / "prog.py"
    program.write_text(PROGRAM)
    command = [str(program)]
    if how == "runpy":
        code = f"import dill, runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
        command = ["-c", code]
    result = subprocess.run(
        [sys.executable, "-W", "error", *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    assert (result.stdout, result.stderr) == ("well\n", "")


def test_loading_a_lambda_does_not_import_dill() -> None:
    frames = dumps(lambda x: x + 1)
    code = (
        "import pickle, sys; f = pickle.loads(sys.stdin.buffer.read())\n"
        "print(f(1), 'dill' in sys.modules)"
    )
    code = f"import sys, types; sys.modules[{__name__!r}] = types.ModuleType({__name__!r})\n" + code
    result = subprocess.run(
        [sys.executable, "-c", code],
        input=frames[0],
        check=True,
        capture_output=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    assert result.stdout == b"2 False\n"


# What cannot travel.


@pytest.mark.parametrize(
    "make",
    [threading.Lock, threading.RLock, lambda: (letter for letter in "")],
    ids=["lock", "rlock", "generator"],
)
def test_what_lives_in_one_process_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(SerializationError, match="cannot pickle"):
        dumps(make())


def test_an_open_socket_is_refused() -> None:
    with socket.socket() as sock, pytest.raises(SerializationError, match="socket"):
        dumps(sock)


def test_an_open_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with path.open("w") as file:
        file.write("kept")
        file.flush()
        with pytest.raises(SerializationError):
            dumps(lambda: file)
    assert path.read_text() == "kept"


def test_the_error_names_the_part_and_the_reason() -> None:
    obj = AtTop({"deep": [0, threading.Lock()]})  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match=r"\.value\['deep'\]\[1\].*TypeError.*lock"):
        dumps(obj)


def test_the_error_names_the_variable_of_a_closure() -> None:
    guard = threading.Lock()
    with pytest.raises(SerializationError, match="variable guard"):
        dumps(lambda: guard)


def test_culprit_names_the_first_item_that_cannot_travel() -> None:
    items = [1, lambda: 0, {"a": threading.Lock()}, threading.Lock()]
    found = culprit(items, 10)
    assert found is not None
    index, reason = found
    assert index == 12
    assert reason.startswith("TypeError: cannot pickle")
    assert reason.endswith("(in ['a'])")
    assert culprit(items[:2]) is None


def test_errors_of_the_objects_own_methods_are_reported() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise ZeroDivisionError("odd")

    with pytest.raises(SerializationError, match="ZeroDivisionError: odd"):
        dumps(Odd())


def test_endless_recursion_is_an_error() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(SerializationError, match="RecursionError"):
        dumps(nested)
    while nested:  # or its end would recurse, too
        nested = nested.pop()


# Buffers in every position.

BUFFERS = st.sampled_from([0, 1, 8, LARGE // 8, LARGE // 8 + 1])
ARRAYS = st.builds(lambda size, fill: np.full(size, fill, dtype=float), BUFFERS, st.integers(0, 2))
BYTES = st.builds(lambda size: np.zeros(size, dtype=np.uint8), BUFFERS)
NESTED = st.recursive(
    ARRAYS | BYTES | st.integers() | st.builds(bytearray, BUFFERS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two) and two.flags.writeable
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def by_dill(obj: Any) -> Any:
    """Send an object along with one that only dill can pickle."""
    return loads(dumps([obj, {}.keys()]))[0]


@settings(deadline=None, max_examples=150)
@given(NESTED)
def test_buffers_of_all_sizes_travel_in_every_position(obj: Any) -> None:
    class Local:
        def __init__(self) -> None:
            self.held = obj

    for way in (there_and_back, by_dill):
        assert same(obj, way(obj))
        assert same([obj, obj], way([obj, obj]))
        assert same(obj, way(lambda: obj)())
        assert same(obj, way(Local()).held)
        received = [bytes(frame) for frame in dumps((lambda: [obj], obj))]
        function, copied = loads(received)
        assert same(obj, copied)
        assert function()[0] is copied or not isinstance(obj, (list, dict, np.ndarray))


# What shipping costs.


def test_numbers_cost_less_than_objects() -> None:
    numbers, objects = list(range(1000)), [AtTop(number) for number in range(1000)]
    # The median, for a single look may be disturbed by what else runs on the machine.
    of_numbers = statistics.median(shipping_cost(numbers, numbers) for _ in range(15))
    of_objects = statistics.median(shipping_cost(objects, []) for _ in range(15))
    assert of_numbers < 2e-6
    assert of_numbers < of_objects < 1e-4


def test_large_things_cost_by_their_size() -> None:
    assert shipping_cost([bytes(10**7)], []) >= 2e-2
    assert shipping_cost([np.zeros(10**6)], []) >= 8e-3
    assert shipping_cost(["x" * 10**7], []) >= 2e-2
    assert shipping_cost([1], [[list(range(10**6))] * 3]) >= 1e-4


def test_nothing_costs_nothing() -> None:
    assert shipping_cost([], []) == 0
    assert shipping_cost([], range(0)) == 0


def test_sequences_of_every_kind_are_sampled_where_they_are() -> None:
    rows: Any = np.zeros((1000, 3))
    costs = [shipping_cost(range(10**12), rows) for _ in range(15)]
    assert 0 <= statistics.median(costs) < 1e-5


def test_what_cannot_go_costs_infinitely_much() -> None:
    assert 0 < shipping_cost([lambda n=n: n for n in range(20)], []) < 1
    assert shipping_cost([threading.Lock()], []) == float("inf")
    assert shipping_cost([1], [threading.Lock()]) == float("inf")


def test_an_item_that_is_cheap_enough_by_itself_is_pickled_once() -> None:
    pickled = []

    class Counted:
        def __reduce__(self) -> Any:
            pickled.append(1)
            return str, ("x",)

    items = [Counted() for _ in range(16)]
    assert 0 < shipping_cost(items, [], near_enough=1.0) < 1.0
    assert len(pickled) == 1
    shipping_cost(items, [])
    assert len(pickled) > 16


def test_an_item_too_large_to_go_by_value_is_not_pickled_to_its_end() -> None:
    pickled = []

    class Counted:
        def __reduce__(self) -> Any:
            pickled.append(1)
            return (str, ("x" * 1000 + str(len(pickled)),))

    shipping_cost([[lambda: 0, *(Counted() for _ in range(10_000))]], [])
    assert len(pickled) < 1000


def test_an_item_that_is_much_too_dear_is_pickled_by_itself_only() -> None:
    pickled = []

    class Dear:
        def __reduce__(self) -> Any:
            pickled.append(1)
            end = time.thread_time() + 120e-6
            while time.thread_time() < end:
                pass
            return str, ()

    assert shipping_cost([Dear() for _ in range(16)], [], near_enough=1e-7) > 1e-4
    assert 1 <= len(pickled) <= 2


def test_what_one_pickle_takes_by_itself_is_not_what_an_item_among_others_costs() -> None:
    """Or items of a microsecond would be too dear to send, whatever they are."""
    pickled = []

    class Cheap:
        def __reduce__(self) -> Any:
            pickled.append(1)
            return str, ()

    shipping_cost([Cheap() for _ in range(16)], [], near_enough=1e-9)
    assert len(pickled) > 16


class Bound:
    """Has a method, and something large."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def method(self, _item: Any) -> None:
        """Do nothing."""


def closure_over(held: Any) -> Callable[[], Any]:
    return lambda: held


TEXT = "x" * 10_000_000


@pytest.mark.parametrize(
    "function",
    [
        closure_over(TEXT),
        closure_over([TEXT]),
        closure_over({"key": {"deeper": TEXT}}),
        lambda _item, text=TEXT: text,
        lambda _item, *, text=TEXT: text,
        functools.partial(len, TEXT),
        functools.partial(print, sep=TEXT),
        Bound(TEXT).method,
        closure_over(Bound(TEXT)),
        closure_over([None] * 1_000_000),
        closure_over(dict.fromkeys(range(1_000_000))),
        closure_over(set(range(1_000_000))),
    ],
)
def test_what_is_large_for_sure_is_not_pickled_to_find_that_out(
    function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2e-3 < function_cost(function, 1e3) < 10.0
    monkeypatch.setattr(cost, "dump", None)
    assert function_cost(function, 1e-3) == float("inf")


def test_what_a_quick_look_finds_is_not_more_than_there_is() -> None:
    empty = closure_over(0)

    def itself() -> Any:
        return itself, later, sys

    assert function_cost(itself, 0.0) < 1e-3  # a cell is empty yet, a module goes by its name
    later = TEXT
    assert function_cost(itself, 0.0) > 1e-3
    assert function_cost(empty, 0.0) < 1e-3
    assert function_cost(at_top, 0.0) < 1e-3


def test_pickles_are_read_by_plain_pickle() -> None:
    assert pickle.loads(dumps_flat(lambda: 7))() == 7


class Nested:
    """Pickles something by itself while it is pickled."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (dumps(self.content)[0],)


class Held:
    """Can be held weakly."""


def test_nothing_is_kept_alive_of_what_was_sent() -> None:
    gc.disable()  # whoever is in a circle is kept
    try:
        for beside in (b"", b"x" * (LARGE // 2), b"x" * LARGE, np.zeros(LARGE), lambda: 3):
            held = Held()
            gone = weakref.ref(held)
            dumps([held, beside, held])
            del held
            assert gone() is None
    finally:
        gc.enable()


def test_one_pickler_after_the_other_has_nothing_of_the_last() -> None:
    shared = ["a" * 100]
    again = [dumps([shared, shared]) for _ in range(3)]
    assert again[0] == again[1] == again[2]
    with pytest.raises(SerializationError):
        dumps([shared, threading.Lock()])
    assert dumps([shared, shared]) == again[0]
    variable = [1]
    dumps(lambda: variable)
    assert loads(dumps(lambda: variable))() == [1]


def test_what_pickles_while_it_is_pickled_is_right() -> None:
    inner = loads(dumps([1, Nested([2, Nested({"k": 3})]), 4]))
    assert (inner[0], inner[2]) == (1, 4)
    assert loads([loads([inner[1]])[1]]) == {"k": 3}


def test_threads_pickle_at_once() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for length in range(200):
            data = [number, Held, list(range(length)), b"x" * length]
            if loads(dumps(data)) != data:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_small_arrays_arrive_as_they_were() -> None:
    numpy = pytest.importorskip("numpy")
    fixed = numpy.arange(4)
    fixed.flags.writeable = False
    arrays = [
        *(numpy.zeros(3, kind) for kind in "?bhilqBHILQefdgFDG"),
        *(numpy.arange(6, dtype=kind).reshape(2, 3) for kind in (">i4", "<f8", ">c16")),
        numpy.array(7.5), numpy.empty((0, 3)), numpy.array(["a", "bc"]), numpy.array([b"x"]),
        numpy.array([None, 3], dtype=object), numpy.zeros(2, [("a", int), ("b", float)]),
        numpy.array(["2020-01-01"], dtype="datetime64[D]"),
        numpy.arange(24).reshape(2, 3, 4)[:, ::2],
        numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)), fixed, numpy.arange(4.0)[::-1],
        numpy.arange(512.0), numpy.arange(513.0), numpy.ma.array([1, 2], mask=[0, 1]),
    ]  # fmt: skip
    for array, arrived in zip(arrays, loads(dumps(arrays)), strict=True):
        assert type(arrived) is type(array)
        assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
        assert arrived.flags.writeable == array.flags.writeable
        assert arrived.tolist() == array.tolist()
        assert arrived.flags.f_contiguous == pickle.loads(pickle.dumps(array, 5)).flags.f_contiguous
    twice = loads(dumps([arrays[0], arrays[0]]))
    assert twice[0] is twice[1]


def test_what_items_share_is_not_counted_for_each_of_them() -> None:
    """As the primitives of GP trees, most of what one of them takes by itself."""
    shared = [str(number) for number in range(2000)]
    alone, items = [[*shared]], [[*shared] for _ in range(16)]
    one = statistics.median(shipping_cost(alone, ()) for _ in range(9))
    each = statistics.median(shipping_cost(items, ()) for _ in range(9))
    assert each < one / 2
