"""Functions and definitions go once to a worker, and what is held of them is bounded."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtm.errors import InvariantError
from dtm.wire import functions, rebuilding
from dtm.wire.definitions import DefinitionReceiver, DefinitionSender
from dtm.wire.functions import (
    CACHE_BYTES,
    DIGESTED,
    INLINE,
    AbsentError,
    FunctionReceiver,
    FunctionSender,
)
from dtm.wire.pickling import LARGE, dumps, loads
from tests.travel import at_top

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


def test_what_was_used_last_is_dropped_last() -> None:
    first, *others, last = (closure_of(letter * 1000) for letter in "abcdef")
    peer = Peer(5 * FunctionSender().pack(first).size)
    held = peer.carry(first)
    for function in (*others, first, last):
        peer.carry(function)
    assert peer.carry(first) is held


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


def test_no_digest_is_made_of_much_that_goes_through_shared_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digested = []
    monkeypatch.setattr(functions, "_digest", lambda frames: digested.append(frames) or b"d" * 16)
    large, small = closure_of(np.zeros(DIGESTED, np.uint8)), closure_of("x" * 1000)
    apart, near, scope = FunctionSender(), FunctionSender(lambda: True), Scope()
    assert apart.pack(large).key == near.pack(small).key == b"d" * 16
    assert len(digested) == 2
    first = near.pack(large, scope)
    assert near.pack(large, scope) is first
    assert near.pack(large, Scope()).key not in (first.key, None)
    assert len(digested) == 2
    assert FunctionReceiver().unpack(0, first.key, first.frames)[0]().nbytes == DIGESTED


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
