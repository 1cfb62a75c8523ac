"""Messages as frames, from one worker's wire to another's: what is there, absent, or broken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtm.core.granularity import Profile
from dtm.core.messages import Grant, Load, Message, Relayed, Results, Returned, Segment
from dtm.errors import SerializationError, Unsendable
from dtm.task import Call, Range
from dtm.wire.codec import Replies, Wire

LOAD = Load(1, 0.0, idle=False)


def wire(rank: int, cache_bytes: int = 1 << 20) -> Wire:
    return Wire(rank, f"worker {rank}", lambda *_: Profile(), cache_bytes=cache_bytes)


def part(function: Any, items: Any, key: int = 1) -> Range:
    made = Call(function, items, len(items), 0, Profile(), "map", key=key)
    return Range(made, 0, len(items))


def carried(one: Wire, two: Wire, message: Message, source: int = 0) -> tuple[Any, Replies]:
    frames = [bytes(frame) for frame in one.encode(1, LOAD, message)]
    _, arrived, replies = two.decode(source, frames)
    return arrived, replies


def size_of(one: Wire, message: Message) -> int:
    return sum(memoryview(frame).nbytes for frame in one.encode(1, LOAD, message))


def closure_of(value: Any) -> Callable[[int], Any]:
    return lambda item: (value, item)


def local_class() -> Any:
    class Local:
        def __init__(self, number: int) -> None:
            self.number = number

    return Local


class Unloadable:
    def __setstate__(self, state: Any) -> None:
        raise ZeroDivisionError("not here")

    def __getstate__(self) -> Any:
        return 1


def test_a_function_and_its_data_go_once_and_again_when_they_were_dropped() -> None:
    one, two = wire(0), wire(1)
    table = np.arange(50_000.0)
    work = part(closure_of(table), range(10))
    first, _ = carried(one, two, Grant(1, (work,)))
    call = first.parts[0].call
    assert np.array_equal(call.function(3)[0], table)
    assert (call.function(3)[1], list(call.items)) == (3, list(range(10)))
    assert size_of(one, Grant(2, (work,))) < 1000
    again, _ = carried(one, two, Grant(3, (work,)))
    assert again.parts[0].call.function is call.function


def test_two_parts_of_one_message_share_their_function() -> None:
    one, two = wire(0), wire(1)
    work = part(closure_of("x" * 10_000), range(10))
    other = Range(work.call, 5, 10)
    work.hi = 5
    assert 10_000 < size_of(one, Grant(1, (work, other))) < 15_000
    arrived, _ = carried(wire(0), two, Grant(1, (work, other)))
    assert [(each.lo, each.hi) for each in arrived.parts] == [(0, 5), (5, 10)]


def test_a_function_dropped_meanwhile_sends_the_items_home_without_a_word() -> None:
    one, two = wire(0), wire(1, cache_bytes=12_000)
    works = [part(closure_of(f"{number}" * 10_000), range(4), number) for number in (1, 2)]
    for work in works:
        carried(one, two, Grant(1, (work,)))
    arrived, replies = carried(one, two, Grant(2, (works[0],)))
    assert arrived.parts == ()
    assert replies == [(0, Returned(1, 0, 4, ""))]
    two_says = [bytes(frame) for frame in two.encode(0, LOAD, Results(()))]
    one.decode(1, two_says)
    arrived, replies = carried(one, two, Grant(3, (works[0],)))
    assert arrived.parts[0].call.function(1) == ("1" * 10_000, 1)
    assert not replies


def test_a_part_that_cannot_be_sent_leaves_nothing_noted() -> None:
    one, two = wire(0), wire(1)
    good = part(closure_of("y" * 5_000), range(3))
    bad = part(abs, [1, threading.Lock(), 3])
    with pytest.raises(Unsendable, match=r"item 1 of map\(abs\)") as caught:
        one.encode(1, LOAD, Grant(1, (good, bad)))
    assert caught.value.index == 1
    assert one.unsendable(1, bad) is not None
    assert one.unsendable(1, good) is None
    arrived, _ = carried(one, two, Grant(1, (good,)))
    assert arrived.parts[0].call.function(0) == ("y" * 5_000, 0)


def test_a_class_is_defined_once_for_items_and_results() -> None:
    one, two, local = wire(0), wire(1), local_class()
    sizes = [size_of(one, Grant(1, (part(abs, [local(number)]),))) for number in range(3)]
    assert sizes[0] > 2 * sizes[1] == 2 * sizes[2]
    segments = (Segment(1, 0, [local(1), local(2)], None, "map(f)"),)
    sizes = [size_of(two, Results(segments)) for _ in range(2)]
    assert sizes[0] > 2 * sizes[1]


def test_results_that_pass_through_others_carry_their_definitions() -> None:
    one, relay, owner, local = wire(2), wire(1), wire(0), local_class()
    segments = (Segment(1, 0, [local(1)], None, "map(f)"),)
    for _ in range(2):
        relayed, _ = carried(one, relay, Relayed(0, segments), 2)
        arrived, _ = carried(relay, owner, Results(relayed.segments), 1)
        assert arrived.segments[0].values[0].number == 1


def test_only_the_items_that_cannot_be_loaded_go_home_and_are_named() -> None:
    arrived, replies = carried(
        wire(0), wire(1), Grant(1, (part(abs, [0, 1, Unloadable(), 3, Unloadable()]),))
    )
    assert [(each.lo, each.hi) for each in arrived.parts] == [(0, 2), (3, 4)]
    assert arrived.parts[1].call.items[3] == 3
    assert [(reply.lo, reply.hi) for _, reply in replies] == [(2, 3), (4, 5)]
    assert "item 2 cannot be read on worker 1" in replies[0][1].reason
    assert "not here" in replies[0][1].reason


class Leaving:
    """Exits when it is loaded."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return leave, (self.error,)


def leave(error: type[BaseException]) -> None:
    raise error(3)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_exits_when_it_is_loaded_spoils_only_itself(error: type[BaseException]) -> None:
    arrived, replies = carried(
        wire(0), wire(1), Grant(1, (part(abs, [0, 1, Leaving(error), 3, 4]),))
    )
    assert [(each.lo, each.hi) for each in arrived.parts] == [(0, 2), (3, 5)]
    assert [(reply.lo, reply.hi) for _, reply in replies] == [(2, 3)]
    assert f"its own code raised {error.__name__}" in replies[0][1].reason
    results = Results((Segment(1, 20, [1, 2, Leaving(error), 4], None, "map(f)"),))
    read, _ = carried(wire(1), wire(0), results, 1)
    assert read.segments[0].values == [1, 2]
    assert "item 22" in str(read.segments[0].failure)


def test_a_function_that_cannot_be_loaded_sends_the_whole_part_home() -> None:
    arrived, replies = carried(wire(0), wire(1), Grant(1, (part(Unloadable(), range(9)),)))
    assert arrived.parts == ()
    assert [(reply.lo, reply.hi) for _, reply in replies] == [(0, 9)]
    assert "the function cannot be read" in replies[0][1].reason


def test_a_result_that_cannot_be_loaded_is_named_and_those_before_it_are_there() -> None:
    segment = Segment(1, 10, [0, 1, Unloadable(), 3], None, "map(f)")
    arrived, _ = carried(wire(1), wire(0), Results((segment,)), 1)
    (found,) = arrived.segments
    assert (found.lo, found.values) == (10, [0, 1])
    assert isinstance(found.failure, SerializationError)
    assert str(found.failure) == (
        "the result of item 12 of map(f) cannot be read: ZeroDivisionError('not here')"
    )
    assert isinstance(found.failure.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((number for number in range(3)), "'generator' object; return or pass a list"),
        (threading.Lock(), "'_thread.lock' object; it lives in the process that made it"),
        (np.frompyfunc(lambda number: number, 1, 1), "ufunc"),
    ],
    ids=["generator", "lock", "frompyfunc"],
)
def test_a_result_that_cannot_be_sent_is_named_with_what_to_do(value: Any, words: str) -> None:
    segment = Segment(1, 0, [0, {"deep": [value]}], None, "map(f)")
    arrived, _ = carried(wire(1), wire(0), Results((segment,)), 1)
    (found,) = arrived.segments
    assert found.values == [0]
    message = str(found.failure)
    assert message.startswith("the result of item 1 of map(f), on worker 1, cannot be sent: ")
    assert words in message
    assert "['deep'][0]" in message


def test_the_weight_of_a_function_counts_what_goes_along() -> None:
    one, two = wire(0), wire(1)
    light, heavy = part(abs, range(9)), part(closure_of(np.zeros(10**6)), range(9))
    assert one.weight(light.call, 1.0) < 1e-3
    assert one.weight(heavy.call, 1.0) > 1e-2
    assert one.weight(part(threading.Lock(), [1]).call, 1.0) == 0.0
    assert one.lacking(heavy.call, 1) == 1.0
    carried(one, two, Grant(1, (heavy,)))
    assert one.weight(heavy.call, 1.0) > 1e-2
    assert (one.lacking(heavy.call, 1), one.lacking(heavy.call, 2)) == (0.0, 0.5)


def test_finding_out_what_a_function_weighs_is_bounded_in_time() -> None:
    pickled = []

    class Slow:
        def __reduce__(self) -> Any:
            pickled.append(1)
            return str, ("x" * 70_000,)

    many = part(closure_of([Slow() for _ in range(20_000)]), [1])
    assert wire(0).weight(many.call, 1e-3) == float("inf")
    assert len(pickled) < 20_000
    endless = part(closure_of([Slow() for _ in range(100_000)]), [1])
    pickled.clear()
    assert wire(0).weight(endless.call, 1e6) <= 2.0, "so much is to be saved that it is tried"
    assert len(pickled) < 100_000
