"""Objects to frames and back: what goes by reference, what by value, and what is refused."""

from __future__ import annotations

import abc
import collections
import dataclasses
import enum
import functools
import pickle
import socket
import statistics
import subprocess
import sys
import threading
import typing
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtm.errors import InvariantError, SerializationError
from dtm.wire import functions
from dtm.wire.cost import BY_VALUE_SECONDS, shipping_cost
from dtm.wire.functions import HELD, INLINE, FunctionReceiver, FunctionSender
from dtm.wire.pickling import LARGE, culprit, dumps, dumps_flat, loads


def there_and_back(obj: Any) -> Any:
    return loads(dumps(obj))


def as_if_new(obj: Any) -> Any:
    """Load by value, as a process does that has never seen the classes of ``obj``."""
    from dtm.wire import rebuilding

    frames = dumps(obj)
    saved = rebuilding._classes
    rebuilding._classes = weakref.WeakValueDictionary()
    try:
        return loads(frames)
    finally:
        rebuilding._classes = saved


def at_top(x: int) -> int:
    return x + 1


class AtTop:
    def __init__(self, value: int = 3) -> None:
        self.value = value

    def method(self, x: int) -> int:
        return self.value + x

    def __call__(self, x: int) -> int:
        return self.value * x


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


# Classes made in functions.


def test_a_local_class_that_comes_home_is_the_original() -> None:
    class Local:
        pass

    obj, cls = there_and_back((Local(), Local))
    assert type(obj) is Local
    assert cls is Local


def test_a_local_class_that_arrives_twice_is_made_once() -> None:
    class Local:
        pass

    from dtm.wire import rebuilding

    first, second = dumps(Local()), dumps([Local()])
    saved = rebuilding._classes
    rebuilding._classes = weakref.WeakValueDictionary()
    try:
        one, (two,) = loads(first), loads(second)
        assert type(one) is type(two)
        assert type(one) is not Local
        assert type(there_and_back(one)) is type(one)
    finally:
        rebuilding._classes = saved
    assert type(there_and_back(Local())) is Local
    assert type(loads(dumps(one))) is Local, "a copy made elsewhere has the id of the original"


def test_a_new_copy_of_a_class_has_all_that_the_original_has() -> None:
    outside = [5]

    class Base(abc.ABC):
        __slots__ = ()

        @abc.abstractmethod
        def area(self) -> Any: ...

    class Shape(Base):
        __slots__ = ("__hidden", "side")
        count = 0

        def __init__(self, side: int) -> None:
            super().__init__()
            self.side = side
            self.__hidden = side + 1

        def area(self) -> Any:
            return Shape, self.side, outside

        @property
        def hidden(self) -> int:
            return self.__hidden

        @classmethod
        def make(cls) -> Shape:
            return cls(9)

        @staticmethod
        def four() -> int:
            return 4

    copy = as_if_new(Shape(2))
    kind = type(copy)
    assert kind is not Shape
    assert copy.area() == (kind, 2, [5])
    assert (copy.hidden, kind.make().side, kind.four(), kind.count) == (3, 9, 4, 0)
    assert (kind.__name__, kind.__qualname__) == (Shape.__name__, Shape.__qualname__)
    assert not hasattr(copy, "__dict__")
    with pytest.raises(TypeError, match="abstract"):
        kind.__mro__[1]()


def test_cached_properties_travel_in_spite_of_their_lock() -> None:
    class Local:
        @functools.cached_property
        def answer(self) -> int:
            return 42

    assert as_if_new(Local()).answer == 42


def test_classes_that_refer_to_each_other_travel_together() -> None:
    class Left:
        def other(self) -> type:
            return Right

    class Right:
        def other(self) -> type:
            return Left

    left, right = as_if_new((Left(), Right()))
    assert left.other() is type(right)
    assert right.other() is type(left)


def test_local_enums_keep_identity_methods_and_members() -> None:
    class Colour(enum.Enum):
        RED = 1
        GREEN = 2
        ALSO = 1  # noqa: PIE796 - an alias

        def other(self) -> Colour:
            return Colour.GREEN

    class Planet(enum.Enum):
        EARTH = (5, 6)

        def __init__(self, mass: int, radius: int) -> None:
            self.mass = mass
            self.radius = radius

    class Bits(enum.IntFlag):
        A = 1
        B = 2

    assert there_and_back(Colour.RED) is Colour.RED
    red = as_if_new(Colour.RED)
    kind: Any = type(red)
    assert kind is not Colour
    assert (red.other(), kind.ALSO, kind(2)) == (kind.GREEN, red, kind.GREEN)
    assert as_if_new(Planet.EARTH).mass == 5
    both = as_if_new(Bits.A | Bits.B)
    assert both == 3
    assert type(both).A in both


def test_local_named_tuples_and_dataclasses_work() -> None:
    class Point(typing.NamedTuple):
        x: int
        y: str = "q"

    pair = collections.namedtuple("pair", "u v")  # noqa: PYI024 - the older way, too

    @dataclasses.dataclass
    class Record:
        a: int
        b: list[int] = dataclasses.field(default_factory=list)

    @dataclasses.dataclass(frozen=True, slots=True)
    class Frozen:
        a: int = 3

    point = as_if_new(Point(1))
    assert point == (1, "q")
    assert point._replace(x=4).x == 4
    assert as_if_new(pair(1, 2)).v == 2
    record = as_if_new(Record(1, [2]))
    assert record == type(record)(1, [2])
    assert type(record)(7).b == []
    assert dataclasses.asdict(record) == {"a": 1, "b": [2]}
    frozen = as_if_new(Frozen())
    assert (frozen, type(frozen)().a) == (type(frozen)(3), 3)


def test_a_class_goes_when_nobody_uses_it() -> None:
    import gc

    def make() -> weakref.ref[type]:
        class Local:
            pass

        return weakref.ref(type(there_and_back(Local())))

    reference = make()
    gc.collect()
    assert reference() is None


def test_threads_that_load_a_class_at_once_get_one_class() -> None:
    class Local:
        def get(self) -> type:
            return Local

    from dtm.wire import rebuilding

    frames, found = dumps(Local()), []
    saved = rebuilding._classes
    rebuilding._classes = weakref.WeakValueDictionary()
    try:
        start = threading.Barrier(4)

        def load() -> None:
            start.wait(10)
            found.append(loads(frames))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    finally:
        rebuilding._classes = saved
    assert len({type(obj) for obj in found}) == 1
    assert all(obj.get() is type(obj) for obj in found)


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
    rebuilding._classes.clear()
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


# Functions travel once.


def closure_of(value: Any) -> Callable[[], Any]:
    def function() -> Any:
        return value

    return function


def test_a_function_by_reference_goes_inline() -> None:
    key, payload = FunctionSender().pack(1, at_top)
    assert key is None
    assert payload is not None
    assert len(payload) < INLINE
    assert FunctionReceiver().unpack(0, key, payload) is at_top


def test_a_function_by_value_goes_once_to_each_rank() -> None:
    sender, receiver = FunctionSender(), FunctionReceiver()
    function = closure_of("x" * 100)
    key, payload = sender.pack(1, function)
    assert key is not None
    assert payload is not None
    first = receiver.unpack(0, key, payload)
    assert sender.pack(1, function) == (key, None)
    assert receiver.unpack(0, key, None) is first
    assert sender.pack(2, function) == (key, payload)
    assert first() == "x" * 100


def test_one_function_from_two_senders_is_loaded_once() -> None:
    receiver = FunctionReceiver()
    packed = FunctionSender().pack(1, closure_of(list(range(100))))
    assert receiver.unpack(0, *packed) is receiver.unpack(2, *packed)


def test_a_variable_changed_between_two_maps_is_seen_by_the_second() -> None:
    sender, receiver = FunctionSender(), FunctionReceiver()
    value = ["before"] * 50

    def function() -> Any:
        return value

    for scope in ("map 1", None):
        before = receiver.unpack(0, *sender.pack(1, function, scope))
        assert before() == value
    value = ["after"] * 50
    assert receiver.unpack(0, *sender.pack(1, function, "map 1"))()[0] == "before"
    assert receiver.unpack(0, *sender.pack(1, function, "map 2"))()[0] == "after"
    assert receiver.unpack(0, *sender.pack(1, function))()[0] == "after"


def test_within_a_scope_and_without_variables_a_function_is_pickled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    def counting(obj: Any) -> bytes:
        made.append(obj)
        return dumps_flat(obj)

    monkeypatch.setattr(functions, "dumps_flat", counting)
    sender, closure, free = FunctionSender(), closure_of([1]), lambda: 0
    for rank in range(5):
        sender.pack(rank, closure, "map 1")
        sender.pack(rank, free)
        sender.pack(rank, at_top)
    assert made == [closure, free, at_top]


def test_a_function_is_passed_on_as_it_came() -> None:
    sender = FunctionSender()
    receiver = FunctionReceiver(sender)
    key, payload = FunctionSender().pack(1, closure_of([1] * 99), "map 1")
    function = receiver.unpack(0, key, payload, "map 1")
    assert sender.pack(5, function, "map 1") == (key, payload)


def test_callables_that_are_equal_but_differ_are_not_mixed_up() -> None:
    class Equal:
        def __init__(self, text: str) -> None:
            self.text = text * 100

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

        def __call__(self) -> str:
            return self.text

    sender, receiver = FunctionSender(), FunctionReceiver()
    for text in "ab":
        function = Equal(text)
        assert receiver.unpack(0, *sender.pack(1, function, "map"))() == text * 100


def test_a_function_that_cannot_be_loaded_raises_at_each_arrival() -> None:
    class Odd:
        def __init__(self) -> None:
            self.text = "x" * INLINE

        def __setstate__(self, state: Any) -> None:
            raise ZeroDivisionError

        def __call__(self) -> None: ...

    sender, receiver = FunctionSender(), FunctionReceiver()
    odd = Odd()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            receiver.unpack(0, *sender.pack(1, odd))
    assert sender.held_by(1) == receiver.held_for(0)


def test_what_was_packed_and_not_sent_is_taken_back() -> None:
    sender, receiver = FunctionSender(), FunctionReceiver()
    function = closure_of("y" * 100)
    before = sender.held_by(1)
    sender.pack(1, function)
    sender.restore(1, before)
    assert receiver.unpack(0, *sender.pack(1, function))() == "y" * 100


def test_a_key_that_was_never_sent_is_an_invariant_broken() -> None:
    with pytest.raises(InvariantError):
        FunctionReceiver().unpack(0, b"k" * 16, None)
    with pytest.raises(InvariantError):
        FunctionReceiver().unpack(0, None, None)


FUNCTIONS = [closure_of(f"{number}" * 200) for number in range(HELD + 20)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, HELD + 19)), max_size=400))
def test_any_sequence_of_packs_keeps_both_ends_equal(
    steps: list[tuple[int, int]],
) -> None:
    senders = [FunctionSender() for _ in range(3)]
    receiver = FunctionReceiver()
    # All at first, so that keys are dropped even in short sequences.
    everything = [(source, number) for source in (0, 1) for number in range(HELD - 2)]
    for source, number in [*everything, *steps]:
        function = FUNCTIONS[number]
        key, payload = senders[source].pack(9, function, "scope")
        assert receiver.unpack(source, key, payload)() == function()
    for source, sender in enumerate(senders):
        assert sender.held_by(9) == receiver.held_for(source)
        assert len(sender.held_by(9)) <= HELD
    held = {key for source in range(3) for key in receiver.held_for(source)}
    assert set(receiver._loaded) == set(receiver._payloads) == set(receiver._holders) == held
    for source in range(3):
        receiver.forget(source)
        senders[source].forget(9)
    assert not receiver._loaded
    assert not senders[0].held_by(9)


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


def test_what_goes_by_value_is_dear_and_what_cannot_go_is_infinite() -> None:
    assert BY_VALUE_SECONDS <= shipping_cost([lambda: 0] * 5, []) < 1
    assert shipping_cost([threading.Lock()], []) == float("inf")
    assert shipping_cost([1], [threading.Lock()]) == float("inf")


def test_an_item_too_large_to_go_by_value_is_not_pickled_to_its_end() -> None:
    pickled = []

    class Counted:
        def __reduce__(self) -> Any:
            pickled.append(1)
            return (str, ("x" * 1000 + str(len(pickled)),))

    shipping_cost([[lambda: 0, *(Counted() for _ in range(10_000))]], [])
    assert len(pickled) < 1000


def test_pickles_are_read_by_plain_pickle() -> None:
    assert pickle.loads(dumps_flat(lambda: 7))() == 7
