"""Classes keep their identity, however and wherever they were made."""

from __future__ import annotations

import abc
import collections
import copy
import ctypes
import dataclasses
import enum
import functools
import threading
import typing
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from dtm.wire import rebuilding
from dtm.wire.pickling import dumps, loads
from tests.travel import as_if_new, there_and_back

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


def made_a_structure() -> Any:
    class Made(ctypes.Structure):
        _fields_: typing.ClassVar = [("n", ctypes.c_int)]
        v = 3

    return Made(1)


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
