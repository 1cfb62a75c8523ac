"""Results on their way home in a large run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dtm.core.messages import Message, Relayed, Results, Segment
from dtm.core.relay import FORGET_SECONDS, LONGEST_SECONDS, MANY, Relay, hop
from dtm.core.scheduler import Send, WakeAt

from .core import BUSY, scheduler

SIZE = 4096


def segment(lo: int = 0, key: int = 1) -> Segment:
    return Segment(key, lo, [lo])


def count(sends: list[tuple[int, Message]]) -> int:
    return sum(len(m.segments) for _, m in sends if isinstance(m, (Relayed, Results)))


@given(st.integers(MANY, 20_000), st.data())
def test_the_way_home_is_short_and_ends_there(size: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, size - 1))
    owner = data.draw(st.integers(0, size - 1))
    hops = 0
    while rank != owner:
        rank = hop(rank, owner, size)
        hops += 1
    assert hops <= 4


def test_few_receive_directly_from_many() -> None:
    last = {rank for rank in range(1, SIZE) if hop(rank, 0, SIZE) == 0}
    assert last == {1, 2, 3, 4}


def test_in_a_small_run_results_go_to_their_owner() -> None:
    assert Relay(5, MANY - 1).route(0, (segment(),)) == [(0, Results((segment(),)))]


def test_failures_go_directly() -> None:
    failed = Segment(1, 0, [], ValueError())
    assert Relay(4000, SIZE).route(0, (failed,)) == [(0, Results((failed,)))]


def test_in_a_large_run_they_go_by_way_of_others_and_the_last_hop_is_plain() -> None:
    ((to, message),) = Relay(4000, SIZE).route(0, (segment(),))
    assert to == hop(4000, 0, SIZE) != 0
    assert message == Relayed(0, (segment(),))
    assert Relay(2, SIZE).route(0, (segment(),)) == [(0, Results((segment(),)))]


def test_nothing_that_passes_is_lost_and_less_and_less_is_said() -> None:
    relay = Relay(2, SIZE)
    now, taken, passed, messages = 0.0, 0, 0, 0
    for lo in range(5000):
        now += 50e-6
        sends = relay.take(0, (segment(lo),), now)
        taken, passed, messages = taken + 1, passed + count(sends), messages + len(sends)
    assert relay.deadline <= now + LONGEST_SECONDS
    sends = relay.send_on(relay.deadline)
    assert passed + count(sends) == taken
    assert messages < 700
    assert relay.deadline == float("inf")
    assert relay.send_on(now + 1.0) == []


def test_a_new_call_begins_anew_and_what_is_over_is_forgotten() -> None:
    relay = Relay(2, SIZE)
    relay.take(0, (segment(),), 0.0)
    assert count(relay.take(0, (segment(1),), 1e-6)) == 0
    assert count(relay.take(0, (segment(0, key=2),), 2e-6)) == 2
    relay.take(7, (segment(),), 2 * FORGET_SECONDS)
    relay.take(7, (segment(1),), 2 * FORGET_SECONDS)
    relay.send_on(relay.deadline)
    assert relay.deadline == float("inf")


def test_two_owners_do_not_wait_for_each_other() -> None:
    relay = Relay(2, SIZE)
    relay.take(0, (segment(),), 0.0)
    relay.take(7, (segment(),), 50e-6)
    relay.take(0, (segment(1),), 60e-6)
    relay.take(7, (segment(1),), 61e-6)
    ((to, _),) = relay.send_on(relay.deadline)
    assert to == 0
    ((_, message),) = relay.send_on(relay.deadline)
    assert isinstance(message, Relayed)
    assert message.owner == 7


def test_a_scheduler_passes_results_on_and_wakes_for_what_it_keeps() -> None:
    made = scheduler(2, SIZE)
    (first,) = made.handle(9, BUSY, Relayed(0, (segment(),)), 0.0)
    assert first == Send(0, Results((segment(),)))
    (wake,) = made.handle(9, BUSY, Relayed(0, (segment(1),)), 1e-6)
    assert isinstance(wake, WakeAt)
    assert made.send_due(wake.when / 2) == []
    assert made.send_due(wake.when) == [Send(0, Results((segment(1),)))]
    assert made.deliver(0, (segment(2),)) == [Send(0, Results((segment(2),)))]
