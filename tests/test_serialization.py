"""Objects to frames and back: what goes by reference, what by value, and what is refused."""

from __future__ import annotations

import abc
import collections
import copy
import dataclasses
import enum
import functools
import importlib.machinery
import pickle
import socket
import statistics
import subprocess
import sys
import threading
import types
import typing
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtm.errors import InvariantError, SerializationError
from dtm.wire import functions, rebuilding
from dtm.wire.cost import shipping_cost
from dtm.wire.definitions import DefinitionReceiver, DefinitionSender
from dtm.wire.functions import CACHE_BYTES, INLINE, AbsentError, FunctionReceiver, FunctionSender
from dtm.wire.imports import imports
from dtm.wire.pickling import LARGE, culprit, dumps, dumps_flat, loads
from dtm.wire.salvage import salvage


def there_and_back(obj: Any) -> Any:
    return loads(dumps(obj))


def as_if_new(obj: Any) -> Any:
    """Load by value, as a process does that has never seen the classes of ``obj``."""
    return as_if_new_frames(dumps(obj))


def as_if_new_frames(frames: list[Any]) -> Any:
    """Load frames as a process does that has never seen the classes in them."""
    saved, rebuilding._things = rebuilding._things, weakref.WeakValueDictionary()
    try:
        return loads(frames)
    finally:
        rebuilding._things = saved


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

    first, second = dumps(Local()), dumps([Local()])
    saved = rebuilding._things
    rebuilding._things = weakref.WeakValueDictionary()
    try:
        one, (two,) = loads(first), loads(second)
        assert type(one) is type(two)
        assert type(one) is not Local
        assert type(there_and_back(one)) is type(one)
    finally:
        rebuilding._things = saved
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

    frames, found = dumps(Local()), []
    saved = rebuilding._things
    rebuilding._things = weakref.WeakValueDictionary()
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
        rebuilding._things = saved
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


# Functions travel once.


def closure_of(value: Any) -> Callable[[], Any]:
    def function() -> Any:
        return value

    return function


class Peer:
    """Two workers of which one sends functions to the other."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.sender, self.receiver = FunctionSender(), FunctionReceiver(cache_bytes)
        self.sent_bytes = 0

    def carry(self, function: Any, scope: object = None, rank: int = 1) -> Any:
        """Send a function as the wire does; return what arrives."""
        self.sender.not_held(rank, self.receiver.dropped_for(0))
        packed = self.sender.pack(function, scope)
        key, frames = packed.key, list(packed.frames)
        if key is not None:
            if self.sender.holds(rank, key):
                frames = []
            self.sender.sent(rank, [key])
        self.sent_bytes += sum(memoryview(frame).nbytes for frame in frames)
        return self.receiver.unpack(0, key, frames)[0]


class Scope:
    """Stands for a call."""


def test_a_function_by_reference_goes_inline() -> None:
    packed = FunctionSender().pack(at_top)
    assert packed.key is None
    assert packed.size < INLINE
    assert FunctionReceiver().unpack(0, None, packed.frames) == (at_top, None)


def test_a_function_by_value_goes_once_to_each_worker() -> None:
    peer, function = Peer(), closure_of("x" * 1000)
    first = peer.carry(function)
    once = peer.sent_bytes
    assert first() == "x" * 1000
    assert peer.carry(function) is first
    assert peer.sent_bytes == once


def test_one_function_from_two_senders_is_loaded_once() -> None:
    receiver = FunctionReceiver()
    packed = FunctionSender().pack(closure_of(list(range(100))))
    first, second = (receiver.unpack(rank, packed.key, packed.frames)[0] for rank in (0, 2))
    assert first is second


def test_a_variable_changed_between_two_maps_is_seen_by_the_second() -> None:
    peer, one, two = Peer(), Scope(), Scope()
    value = ["before"] * 50

    def function() -> Any:
        return value

    for scope in (one, None):
        assert peer.carry(function, scope)() == value
    value = ["after"] * 50
    assert peer.carry(function, one)()[0] == "before"
    assert peer.carry(function, two)()[0] == "after"
    assert peer.carry(function)()[0] == "after"


def test_within_a_scope_and_without_variables_a_function_is_pickled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    def counting(obj: Any) -> Any:
        made.append(obj)
        return dumps(obj)

    monkeypatch.setattr(functions, "dumps", counting)
    sender, closure, free, scope = FunctionSender(), closure_of([1]), lambda: 0, Scope()
    for _ in range(5):
        sender.pack(closure, scope)
        sender.pack(free)
        sender.pack(at_top)
    assert made == [closure, free, at_top]


def test_a_function_is_passed_on_as_it_came() -> None:
    sender, receiver, scope = FunctionSender(), FunctionReceiver(), Scope()
    packed = FunctionSender().pack(closure_of([1] * 999))
    function, kept = receiver.unpack(0, packed.key, packed.frames)
    assert kept is not None
    sender.adopt(function, kept, scope)
    assert sender.pack(function, scope) is kept


class Contrary:
    """Callables that must be known by identity."""

    def __init__(self, text: str) -> None:
        self.text = text * 100

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        raise ZeroDivisionError

    def __call__(self) -> str:
        return self.text


def test_callables_are_never_compared_nor_hashed() -> None:
    peer, scope = Peer(), Scope()
    for text in "ab":
        assert peer.carry(Contrary(text), scope)() == text * 100


def test_a_function_that_cannot_be_loaded_raises_at_each_arrival() -> None:
    class Odd:
        def __init__(self) -> None:
            self.text = "x" * INLINE

        def __setstate__(self, state: Any) -> None:
            raise ZeroDivisionError

        def __call__(self) -> None: ...

    peer, odd = Peer(), Odd()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            peer.carry(odd)
    assert peer.receiver.held_bytes == 0


def test_a_key_that_is_not_held_is_told_from_no_function_at_all() -> None:
    with pytest.raises(AbsentError):
        FunctionReceiver().unpack(0, b"k" * 16, ())
    with pytest.raises(InvariantError):
        FunctionReceiver().unpack(0, None, ())


FUNCTIONS = [closure_of(f"{number}" * 500) for number in range(30)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 29), max_size=200), st.integers(1000, 20_000))
def test_what_is_held_is_bounded_and_what_was_dropped_comes_again(
    steps: list[int], limit: int
) -> None:
    peer = Peer(limit)
    for number in steps:
        assert peer.carry(FUNCTIONS[number])() == FUNCTIONS[number]()
        latest = peer.sender.pack(FUNCTIONS[number]).size
        assert peer.receiver.held_bytes <= max(limit, latest)


def test_a_function_larger_than_the_cache_is_held_until_the_next_one_comes() -> None:
    peer = Peer(100)
    large = closure_of("y" * 10_000)
    assert peer.carry(large) is peer.carry(large)
    peer.carry(closure_of("z" * 1000))
    assert peer.receiver.held_bytes < 2000


def test_arrays_of_a_function_are_shared_by_what_is_loaded_and_what_is_passed_on() -> None:
    array = np.arange(LARGE, dtype=float)
    packed = FunctionSender().pack(closure_of(array))
    received = [bytes(frame) for frame in packed.frames]
    function, kept = FunctionReceiver().unpack(0, packed.key, received)
    assert kept is not None
    assert np.shares_memory(function(), np.frombuffer(kept.frames[1]))
    function()[0] = 7.0


# Definitions travel once.


class Wires:
    """Two workers that send each other objects with their definitions apart."""

    def __init__(self, most_bytes: int = 1 << 20) -> None:
        self.out, self.into = DefinitionSender(most_bytes), DefinitionReceiver()
        self.ahead = 0

    def carry(self, obj: Any) -> Any:
        """Send an object as the wire does; return what arrives where no class is known."""
        used: dict[bytes, bytes] = {}
        frames = dumps(obj, used)
        ahead = self.out.note(1, used)
        saved, rebuilding._things = rebuilding._things, weakref.WeakValueDictionary()
        try:
            if ahead is not None:
                self.ahead += sum(map(len, ahead[0].values()))
                self.into.take(0, *ahead)
            rebuilding._things.update(
                {key: cls for key, cls in rebuilding._kept.items() if key in saved}
            )
            return loads(frames)
        finally:
            rebuilding._things = saved


def local_class(number: int) -> type:
    class Local:
        def get(self) -> int:
            return number

    return Local


def test_a_class_goes_once_to_a_worker() -> None:
    wires, cls = Wires(), local_class(3)
    first = wires.carry(cls())
    once = wires.ahead
    second = wires.carry([cls(), lambda: 0])
    assert first.get() == 3
    assert type(first) is type(second[0])
    assert 0 < wires.ahead - once < once
    assert len(dumps([cls()], {})[0]) < 200


def test_a_message_that_is_not_sent_changes_nothing() -> None:
    wires, cls = Wires(), local_class(4)
    dumps(cls(), {})
    assert wires.carry(cls()).get() == 4


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 8000))
def test_what_is_held_of_classes_is_bounded_too(steps: list[int], most_bytes: int) -> None:
    wires, classes = Wires(most_bytes), [local_class(number) for number in range(10)]
    for number in steps:
        assert wires.carry(classes[number]()).get() == number
        held = sum(len(rebuilding.held[key]) for key in wires.into._held[0])
        assert held <= most_bytes or len(wires.into._held[0]) <= 2


def test_what_refers_to_an_unknown_definition_is_refused() -> None:
    frames = dumps(local_class(5)(), {})
    saved, rebuilding._things = rebuilding._things, weakref.WeakValueDictionary()
    try:
        with pytest.raises(pickle.UnpicklingError, match="has not come"):
            loads(frames)
    finally:
        rebuilding._things = saved


# What the workers have by import.


@pytest.fixture
def started() -> Iterator[None]:
    """Be in a run: what modules get from here on is not on the workers."""
    imports.remember()
    yield
    imports.forget()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Return a module of the program."""
    made = types.ModuleType("made_for_this")
    made.__spec__ = importlib.machinery.ModuleSpec("made_for_this", None)
    monkeypatch.setitem(sys.modules, "made_for_this", made)
    return made


def in_module(module: types.ModuleType, code: str) -> Any:
    exec(code, vars(module))
    return module


@pytest.mark.usefixtures("started")
def test_what_was_imported_goes_by_name_and_what_came_later_by_value(
    module: types.ModuleType,
) -> None:
    in_module(module, "class Early: pass\ndef early(): return 1")
    imports.remember()
    in_module(module, "class Late:\n def get(self): return 5\ndef late(): return 2")
    assert there_and_back((module.Early, module.early)) == (module.Early, module.early)
    assert b"load_class" not in dumps((module.Early, module.early))[0]
    late, function = module.Late, module.late
    obj, called = as_if_new((late(), function))
    assert (obj.get(), called()) == (5, 2)
    assert type(there_and_back(late())) is late


@pytest.mark.usefixtures("started")
def test_what_replaces_an_imported_thing_goes_by_value(module: types.ModuleType) -> None:
    in_module(module, "class Same: kind = 'old'\ndef work(): return 'old'")
    imports.remember()
    in_module(module, "class Same: kind = 'new'\ndef work(): return 'new'")
    frames = dumps((module.Same(), module.work))
    in_module(module, "class Same: kind = 'old'\ndef work(): return 'old'")
    obj, work = as_if_new_frames(frames)
    assert (obj.kind, work()) == ("new", "new")


@pytest.mark.usefixtures("started")
def test_a_class_held_by_a_module_is_held_by_it_where_it_arrives(
    module: types.ModuleType,
) -> None:
    imports.remember()
    in_module(
        module, "class Late(list):\n def __init__(self, *a): super().__init__(*a); self.b = 1"
    )
    frames = dumps(module.Late([1, 2]))
    sent = vars(module).pop("Late")
    arrived = as_if_new_frames(frames)
    assert type(arrived) is module.Late is not sent
    for copied in (pickle.loads(pickle.dumps(arrived)), copy.deepcopy(arrived)):
        assert (copied, copied.b, type(copied)) == ([1, 2], 1, module.Late)


@pytest.mark.usefixtures("started")
def test_classes_of_deaps_creator_keep_their_identity() -> None:
    creator = pytest.importorskip("deap.creator")
    base = pytest.importorskip("deap.base")
    imports.remember()
    creator.create("FitnessMade", base.Fitness, weights=(1.0,))
    creator.create("IndividualMade", list, fitness=creator.FitnessMade)
    sent = creator.IndividualMade([1, 2])
    sent.fitness.values = (3.0,)
    back = there_and_back(sent)
    assert type(back) is creator.IndividualMade
    assert type(back.fitness) is creator.FitnessMade
    for copied in (back, pickle.loads(pickle.dumps(back)), copy.deepcopy(back)):
        assert (copied, copied.fitness.values) == ([1, 2], (3.0,))
    new = as_if_new(sent)
    assert (new, new.fitness.values) == ([1, 2], (3.0,))


# Classes by every way of making them.


class Registry(type):
    """A metaclass with a constructor of its own."""

    made: typing.ClassVar[list[str]] = []

    def __new__(mcs, name: str, bases: Any, names: Any, *, tag: str) -> Any:
        cls = super().__new__(mcs, name, bases, names)
        cls.tag = tag  # type: ignore[attr-defined]
        return cls

    def __init__(cls, name: str, bases: Any, names: Any, *, tag: str) -> None:
        super().__init__(name, bases, names)
        Registry.made.append(name)

    def __eq__(cls, other: object) -> bool:
        raise ZeroDivisionError

    def __hash__(cls) -> int:
        return 1


class Hooked:
    """A base that wants keywords of those who extend it."""

    known: typing.ClassVar[list[str]] = []

    def __init_subclass__(cls, *, unit: str, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.unit = unit  # type: ignore[attr-defined]
        Hooked.known.append(cls.__name__)


def made_by_statement() -> Any:
    class Made:
        v = 3

        def __init__(self) -> None:
            super().__init__()
            self.n = 1

    return Made()


def made_by_type() -> Any:
    return type("Made", (), {"v": 3, "__init__": lambda self: setattr(self, "n", 1)})()


def made_by_make_dataclass() -> Any:
    return dataclasses.make_dataclass("Made", [("n", int, 1)], namespace={"v": 3})()


def made_by_namedtuple() -> Any:
    made = collections.namedtuple("Made", "n")  # noqa: PYI024
    made.v = 3  # type: ignore[attr-defined]
    return made(1)


def made_by_a_metaclass() -> Any:
    class Made(metaclass=Registry, tag="t"):  # type: ignore[metaclass]
        v = 3

        def __init__(self) -> None:
            self.n = 1

    return Made()


def made_under_a_hook() -> Any:
    class Made(Hooked, unit="m"):
        v = 3

        def __init__(self) -> None:
            self.n = 1

    return Made()


def made_generic() -> Any:
    T = typing.TypeVar("T")

    class Made(typing.Generic[T]):
        v = 3
        n = 1

        def get(self) -> T:
            raise NotImplementedError

    assert Made[int]
    return Made()


def made_abstract() -> Any:
    class Base(abc.ABC):
        v = 3

        @property
        @abc.abstractmethod
        def n(self) -> int: ...

    class Made(Base):
        @functools.cached_property
        def n(self) -> int:
            return 1

    return Made()


def made_with_slots() -> Any:
    class Made:
        __slots__ = ("n",)
        v = 3

        def __init__(self) -> None:
            self.n = 1

    return Made()


def made_of_an_enum() -> Any:
    class Made(enum.IntEnum):
        ONE = 1

        @property
        def n(self) -> int:
            return int(self)

        @property
        def v(self) -> int:
            return 3

    return Made.ONE


def made_an_exception() -> Any:
    class Made(ValueError):
        v = 3

        def __init__(self, n: int, more: str) -> None:
            super().__init__(f"{n} and {more}")
            self.n = n

    return Made(1, "more")


def made_a_protocol() -> Any:
    @typing.runtime_checkable
    class Has(typing.Protocol):
        n: int

    class Made(Has):
        v = 3
        n = 1

    assert isinstance(Made(), Has)
    return Made()


WAYS = [value for name, value in sorted(globals().items()) if name.startswith("made_")]


@pytest.mark.parametrize("make", WAYS, ids=lambda make: make.__name__)
def test_objects_of_classes_made_in_any_way_come_back_and_work_elsewhere(
    make: Callable[[], Any],
) -> None:
    sent = make()
    Registry.made.clear()
    Hooked.known.clear()
    back, (also, cls) = there_and_back((sent, [sent, type(sent)]))
    assert type(back) is type(sent) is cls
    assert also is back
    assert (back.n, back.v) == (1, 3)
    if make is not made_an_exception:  # which Python itself cannot copy
        assert type(copy.deepcopy(back)) is type(sent)
    new = as_if_new(sent)
    assert (new.n, new.v) == (1, 3)
    if not isinstance(sent, enum.Enum):
        assert type(new) is not type(sent)
    kind = type(new)
    assert (kind.__name__, kind.__qualname__) == (cls.__name__, cls.__qualname__)
    assert kind.__mro__[1:-1] == cls.__mro__[1:-1] or make in (made_abstract, made_a_protocol)
    assert not Registry.made, "no code of a metaclass runs"
    assert not Hooked.known, "no hook runs"
    assert getattr(kind, "tag", "t") == "t"
    assert getattr(kind, "unit", "m") == "m"


def test_a_hook_is_what_it_was_after_a_class_has_come() -> None:
    as_if_new(made_under_a_hook())
    with pytest.raises(TypeError, match="unit"):
        type("More", (Hooked,), {})


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


# One object that cannot be loaded.


class Unloadable:
    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: Any) -> None:
        raise ZeroDivisionError(state)


class Refusing:
    def __reduce__(self) -> Any:
        return int, ("no number",)


GOOD = st.recursive(
    st.integers() | st.text() | st.floats(allow_nan=False) | st.builds(lambda: [at_top, AtTop]),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
BAD = st.sampled_from([Unloadable(1), Refusing(), [1, [Unloadable(2)]], {"a": (Refusing(), 1)}])


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), GOOD, BAD), max_size=12))
def test_only_items_that_cannot_be_loaded_are_spoiled(rows: list[Any]) -> None:
    items = [bad if spoil else good for spoil, good, bad in rows]
    places = [place for place, (spoil, _, _) in enumerate(rows) if spoil]
    found = salvage(dumps(items))
    if not places:
        assert found is None
        return
    assert found is not None
    values, errors = found
    assert list(errors) == places
    assert all(
        value == good for value, (spoil, good, _) in zip(values, rows, strict=True) if not spoil
    )


def test_an_item_that_refers_to_a_spoiled_one_is_spoiled_too() -> None:
    bad = Unloadable(1)
    found = salvage(dumps([0, bad, 2, [bad], 4]))
    assert found is not None
    assert list(found[1]) == [1, 3]


def test_long_lists_are_salvaged() -> None:
    found = salvage(dumps([*range(2500), Refusing(), *range(10), np.zeros(LARGE), Refusing()]))
    assert found is not None
    assert list(found[1]) == [2500, 2512]


def test_what_is_no_list_is_not_salvaged() -> None:
    assert salvage(dumps((1, Refusing()))) is None
    assert salvage(dumps(Refusing())) is None


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
