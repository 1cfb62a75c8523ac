"""Maps that the root deals, and lifelines that a deal makes void."""

from __future__ import annotations

import pytest

from dtm.core.balancer import DEALT_SECONDS, MOST_DEALT_TO, Mode
from dtm.core.messages import Grant, Refusal, Results, Segment, StealRequest
from dtm.core.scheduler import Scheduler
from dtm.task import Call, Range

from .core import BUSY, IDLE, call, scheduler, sent

LONG = 2 * DEALT_SECONDS


def root(size: int = 5, heard: int | None = None) -> Scheduler:
    """Return a root that so many others have told that they have nothing."""
    made = scheduler(size=size)
    for other in range(1, size if heard is None else heard + 1):
        made.handle(other, IDLE, Refusal(99), 0.0)
    return made


def shares(made: Scheduler, mine: Call) -> dict[int, tuple[int, int]]:
    """Return what each worker is dealt when a map is made."""
    messages = sent(made.submit(mine, 0.0))
    grants = [(to, each) for to, each in messages if isinstance(each, Grant) and each.deal]
    return {to: (each.parts[0].lo, each.parts[0].hi) for to, each in grants}


def test_each_worker_gets_an_equal_share_and_the_rest_stays() -> None:
    made = root()
    mine = call(13, seconds=LONG)
    assert shares(made, mine) == {1: (11, 13), 2: (9, 11), 3: (7, 9), 4: (5, 7)}
    assert mine.range is not None
    assert (mine.range.lo, mine.range.hi) == (0, 5)
    assert mine.key


def test_a_lifeline_is_no_condition_and_is_void_afterwards() -> None:
    made = root()
    made.handle(2, IDLE, StealRequest(7, 1, stays=True), 0.0)
    assert set(shares(made, call(10, seconds=LONG))) == {1, 2, 3, 4}
    assert not made.balancer.waiting


@pytest.mark.parametrize(
    ("made", "mine"),
    [
        (root(heard=3), call(10, seconds=LONG)),
        (root(), call(4, seconds=LONG)),
        (root(), call(10, seconds=DEALT_SECONDS / 2)),
        (root(), call(10)),
        (root(), call(10, seconds=LONG, chunk=2)),
        (root(MOST_DEALT_TO + 1), call(200, seconds=LONG)),
        (scheduler(rank=1), call(10, seconds=LONG, owner=1)),
    ],
    ids=["not all heard", "too few", "short", "unknown", "in chunks", "too many", "not the root"],
)
def test_what_is_not_to_be_dealt_is_not(made: Scheduler, mine: Call) -> None:
    assert shares(made, mine) == {}
    assert not made.balancer.dealt


def test_the_largest_run_in_which_maps_are_dealt() -> None:
    assert len(shares(root(MOST_DEALT_TO), call(64, seconds=LONG))) == MOST_DEALT_TO - 1


def test_a_map_beside_another_is_not_dealt() -> None:
    made = root()
    first = call(10, seconds=LONG)
    assert shares(made, first)
    assert not shares(made, call(10, seconds=LONG))
    for work in made.deque:
        work.lo = work.hi
    assert not shares(made, call(5, seconds=LONG))
    for work in made.deque:
        work.lo = work.hi
    values = list(range(first.size))
    first.account(0, values[:2])
    made.handle(1, IDLE, Results((Segment(first.key, 2, values[2:]),)), 0.0)
    assert shares(made, call(10, seconds=LONG))
    assert made.balancer.dealt == 2


def test_after_a_cancellation_each_worker_has_to_be_heard_of_again() -> None:
    made = root()
    mine = call(10, seconds=LONG)
    assert shares(made, mine)
    made.abandon(mine)
    for work in made.deque:
        work.lo = work.hi
    assert not shares(made, call(10, seconds=LONG))
    for work in made.deque:
        work.lo = work.hi
    for other in range(1, 5):
        made.handle(other, IDLE, Refusal(99), 0.0)
    assert shares(made, call(10, seconds=LONG))


def test_a_map_beside_work_that_nobody_has_begun_is_not_dealt() -> None:
    made = root()
    made.submit(call(1), 0.0)
    assert not shares(made, call(10, seconds=LONG))


def part(size: int = 2, key: int = 1, owner: int = 0) -> Range:
    return Range(call(size, seconds=LONG, owner=owner, key=key), 0, size)


def dealt(made: Scheduler, deal: int, key: int = 1) -> None:
    made.handle(0, BUSY, Grant(0, (part(key=key),), deal), 0.0)


def ran(made: Scheduler) -> list[tuple[int, object]]:
    """Return what a worker says when all that it had has run."""
    for work in made.deque:
        work.lo = work.hi
    return [(to, message) for to, message in sent(made.out_of_work(0.0))]


def test_who_was_dealt_to_asks_nobody_and_tells_of_the_deal() -> None:
    made = scheduler(rank=1, size=6)
    dealt(made, 3)
    said = ran(made)
    assert [to for to, _ in said] == [0, 5]
    assert all(isinstance(each, StealRequest) and each.stays for _, each in said)
    assert {each.deal for _, each in said if isinstance(each, StealRequest)} == {3}
    assert made.balancer.mode is Mode.WAITING


def test_it_stays_patient_with_what_it_gets_of_the_same_map_only() -> None:
    made = scheduler(rank=1, size=6)
    dealt(made, 1, key=4)
    ((_, lifeline), *_) = ran(made)
    assert isinstance(lifeline, StealRequest)
    made.handle(0, BUSY, Grant(lifeline.serial, (part(key=4),)), 0.0)
    assert made.balancer.patient
    made.handle(0, BUSY, Grant(99, (part(key=5),)), 0.0)
    assert not made.balancer.patient
    assert any(isinstance(each, StealRequest) and not each.stays for _, each in ran(made))


def test_who_makes_a_call_of_its_own_is_not_patient_any_more() -> None:
    made = scheduler(rank=1, size=6)
    dealt(made, 1)
    made.submit(call(1, owner=1), 0.0)
    assert not made.balancer.patient


def test_a_deal_makes_lifelines_of_before_void_at_both_ends() -> None:
    made = scheduler(rank=1, size=6)
    ran(made)
    made.handle(2, IDLE, Refusal(1), 0.0)
    made.handle(3, IDLE, Refusal(2), 0.0)
    made.handle(5, IDLE, StealRequest(7, 1, stays=True), 0.0)
    dealt(made, 1)
    assert not made.balancer.tied
    assert not made.balancer.waiting


def test_a_lifeline_of_who_has_not_heard_of_a_deal_is_void() -> None:
    made = scheduler(rank=1, size=6)
    dealt(made, 2)
    assert made.handle(5, IDLE, StealRequest(7, 1, stays=True, deal=1), 0.0) == []
    assert not made.balancer.waiting
    ((to, grant),) = sent(made.handle(5, IDLE, StealRequest(8, 1, stays=True, deal=2), 0.0))
    assert to == 5
    assert isinstance(grant, Grant)


def test_who_only_asks_is_answered_whatever_it_has_heard() -> None:
    made = scheduler(rank=1, size=6)
    dealt(made, 2)
    assert sent(made.handle(5, IDLE, StealRequest(7, 1, stays=False), 0.0))


def test_a_lifeline_that_overtakes_a_deal_stays() -> None:
    made = scheduler(rank=1, size=6)
    ran(made)
    made.handle(5, IDLE, StealRequest(7, 1, stays=True, deal=2), 0.0)
    made.handle(0, BUSY, Grant(0, (), 1), 0.0)
    made.handle(0, BUSY, Grant(0, (), 2), 0.0)
    assert made.balancer.waiting == {5: (7, 1, 2)}


def test_a_share_of_which_nothing_could_be_sent_sends_its_receiver_looking_for_work() -> None:
    made = scheduler(rank=1, size=6)
    ran(made)
    made.handle(0, BUSY, Grant(0, (), 1), 0.0)
    assert made.balancer.mode is Mode.WORKING
    assert {to for to, _ in ran(made)} == {0, 5}
