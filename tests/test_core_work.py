"""Calls, ranges, the deque and the ledger: no item is lost, none is done twice."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dtm.core.deque import Deque
from dtm.core.ledger import Ledger
from dtm.core.messages import Segment
from dtm.task import Call, Range

from .core import call, work


@given(st.integers(1, 200), st.lists(st.tuples(st.booleans(), st.integers(1, 50)), max_size=60))
def test_claims_and_thefts_share_out_each_item_once(
    size: int, moves: list[tuple[bool, int]]
) -> None:
    whole = work(size)
    taken: list[int] = []
    for claims, count in moves:
        if claims:
            taken += range(*whole.claim(count))
        elif whole.left:
            part = whole.take_back(min(count, whole.left))
            taken += range(part.lo, part.hi)
    taken += range(whole.lo, whole.hi)
    assert sorted(taken) == list(range(size))


def cut(draw: Any, size: int) -> list[tuple[int, int]]:
    marks = sorted(draw(st.sets(st.integers(1, max(1, size - 1)), max_size=12)) - {size})
    edges = [0, *marks, size]
    return list(pairwise(edges))


@st.composite
def segments(draw: Any) -> tuple[int, list[tuple[int, int]]]:
    """A size, and segments in any order, some of them delivered more than once."""
    size = draw(st.integers(1, 60))
    pieces = cut(draw, size)
    again = draw(st.lists(st.sampled_from(pieces), max_size=5))
    return size, draw(st.permutations(pieces + again))


@given(segments())
def test_results_are_accepted_once_and_come_out_in_order(
    case: tuple[int, list[tuple[int, int]]],
) -> None:
    size, pieces = case
    owned = call(size)
    seen: set[tuple[int, int]] = set()
    completions = 0
    for lo, hi in pieces:
        accepted = owned.deliver(lo, list(range(lo, hi)))
        if owned.complete and accepted:
            completions += 1
        assert (accepted is None) == ((lo, hi) in seen)
        seen.add((lo, hi))
    assert owned.complete
    assert completions == 1
    assert owned.values() == list(range(size))


@given(st.integers(2, 40), st.data())
def test_of_several_failures_the_smallest_index_wins(size: int, data: Any) -> None:
    failing = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=4, unique=True))
    owned = call(size)
    order = data.draw(st.permutations(failing))
    for index in order:
        owned.fail(index, ValueError(index))
    first = min(failing)
    assert owned.failure is not None
    assert owned.failure[0] == first == owned.limit
    for index in range(first):
        owned.deliver(index, [index])
    assert owned.complete


def test_a_failure_completes_a_call_whose_other_results_are_in() -> None:
    owned = call(3)
    owned.deliver(0, [0])
    assert owned.fail(1, ValueError()) is True
    assert owned.fail(2, ValueError()) is False
    assert owned.complete


def test_a_range_ends_where_its_call_is_limited() -> None:
    whole = work(10)
    whole.call.limit = 4
    assert whole.left == 4
    assert whole.claim(3) == (0, 3)
    assert whole.claim(3) == (3, 4)
    assert whole.claim(3) == (4, 4)
    assert whole.lo == whole.hi


def test_an_abandoned_call_has_nothing_left() -> None:
    whole = work(10)
    whole.call.abandon()
    assert whole.left == 0
    assert whole.call.complete


def test_the_owner_takes_the_newest_and_thieves_see_the_oldest() -> None:
    deque = Deque()
    first, second, third = work(1), work(2), work(3)
    for each in (first, second, third):
        deque.push(each)
    assert deque.newest() is third
    assert list(deque.oldest()) == [first, second, third]
    assert list(deque.oldest(1)) == [first]
    third.claim(3)
    first.claim(1)
    assert deque.newest() is second
    assert list(deque.oldest()) == [second]


def test_exhausted_ranges_do_not_pile_up() -> None:
    deque = Deque()
    for _ in range(100):
        each = work(1)
        deque.push(each)
        each.claim(1)
    assert len(deque) == 1
    assert deque.newest() is None
    assert list(deque) == []


def test_the_deque_knows_whether_more_than_one_item_is_ready() -> None:
    deque = Deque()
    assert not deque.several()
    deque.push(work(1))
    assert not deque.several()
    deque.push(work(1))
    assert deque.several()
    deque.clear()
    assert deque.newest() is None


def owned(ledger: Ledger, size: int) -> Call:
    made = call(size)
    ledger.register(made)
    return made


def test_calls_get_keys_of_their_own_once() -> None:
    ledger = Ledger()
    first, second = owned(ledger, 1), owned(ledger, 1)
    key = first.key
    ledger.register(first)
    assert first.key == key != second.key
    assert ledger.find(key) is first
    assert list(ledger) == [first, second]
    assert len(ledger) == 2


def test_results_complete_a_call_and_late_ones_are_counted() -> None:
    ledger = Ledger()
    made = owned(ledger, 4)
    assert ledger.settle(Segment(made.key, 2, ["c", "d"])) is None
    assert ledger.settle(Segment(made.key, 2, ["c", "d"])) is None
    assert ledger.dropped == 2
    assert ledger.settle(Segment(made.key, 0, ["a", "b"])) is made
    ledger.close(made)
    assert ledger.settle(Segment(made.key, 0, ["a", "b"])) is None
    assert ledger.dropped == 4
    assert made.values() == ["a", "b", "c", "d"]
    assert not len(ledger)


def test_a_segment_may_bring_values_and_a_failure() -> None:
    ledger = Ledger()
    made = owned(ledger, 4)
    failure = ValueError("third")
    assert ledger.settle(Segment(made.key, 0, ["a", "b"], failure)) is made
    assert made.failure == (2, failure)


def test_ranges_and_calls_print_what_they_are() -> None:
    whole = work(3)
    assert "map(abs)" in repr(whole)
    assert repr(Range(whole.call, 1, 2)).startswith("<Range [1, 2)")
