"""Granularity, neighbours, balancer: what is worth sending, to whom, and when to be silent."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtm.core.balancer import (
    ANSWER_SECONDS,
    ASKED_AT_ONCE,
    FRESH_SECONDS,
    MOST_TRIED,
    TRANSITIONS,
    Balancer,
    Mode,
)
from dtm.core.deque import Deque
from dtm.core.granularity import (
    CALL_SECONDS,
    COLD_SECONDS,
    LIGHT_SECONDS,
    MATURE_ITEMS,
    MOST_PROFILES,
    PATIENCE_SECONDS,
    STRIP_SECONDS,
    TRUST,
    Granularity,
    Profile,
)
from dtm.core.ledger import Ledger
from dtm.core.messages import Grant, Load, Message, Refusal, Segment, StealRequest
from dtm.core.topology import neighbours, tree_children, tree_parent
from dtm.task import Call, Range

from .core import granularity, work

Sends = list[tuple[int, Message]]


@given(st.integers(2, 3000))
def test_the_neighbours_join_everybody(size: int) -> None:
    reached, edge = {0}, [0]
    while edge:
        edge = [to for rank in edge for to in neighbours(rank, size) if to not in reached]
        reached |= set(edge)
    assert reached == set(range(size))


@given(st.integers(1, 3000), st.integers(0, 2999))
def test_parents_and_children_agree(size: int, rank: int) -> None:
    rank %= size
    for child in tree_children(rank, size):
        assert tree_parent(child) == rank
    parent = tree_parent(rank)
    assert (parent is None) == (rank == 0)
    assert len(neighbours(rank, size)) <= 5
    assert rank not in neighbours(rank, size)


# Granularity.


def test_an_estimate_matures_and_follows_changes() -> None:
    profile = Profile()
    profile.learn(1, 1e-6)
    assert not profile.mature
    profile.learn(MATURE_ITEMS, MATURE_ITEMS * 1e-6)
    assert profile.mature
    for _ in range(50):
        profile.learn(1, 1e-3)
    assert profile.seconds == pytest.approx(1e-3, rel=0.01)


def test_what_another_worker_knows_counts_until_one_knows_better() -> None:
    profile = Profile()
    profile.assume(0.5)
    assert (profile.mature, profile.seconds) == (True, 0.5)
    profile.assume(0.1)
    assert profile.seconds == 0.5


class Contrary:
    """A callable that can be neither compared nor hashed."""

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        raise ZeroDivisionError

    def __call__(self) -> None: ...


def closure_over(value: object) -> Any:
    return lambda: value


def test_profiles_are_by_code_or_identity_and_by_depth() -> None:
    known = granularity()
    assert known.profile(len, 1) is known.profile(len, 1)
    assert known.profile(len, 1) is not known.profile(len, 2)
    assert known.profile(len, 10_000) is known.profile(len, 20_000)
    one, two = Contrary(), Contrary()
    assert known.profile(one, 0) is known.profile(one, 0)
    assert known.profile(one, 0) is not known.profile(two, 0)
    assert known.profile(closure_over(1), 0) is known.profile(closure_over(2), 0)
    assert known.profile(partial(partial(len), []), 0) is known.profile(len, 0)
    assert known.profile(one.__call__, 0) is known.profile(two.__call__, 0)
    assert known.profile(lambda: 1, 0) is not known.profile(lambda: 2, 0)


def test_profiles_are_bounded() -> None:
    known = granularity()
    first = known.profile(closure_over, 0)
    for number in range(MOST_PROFILES):
        known.profile(eval(f"lambda: {number}"), 0)
    assert known.profile(closure_over, 0) is not first
    assert len(known._by_code) == MOST_PROFILES


def test_a_profile_keeps_no_function_alive() -> None:
    known, data = granularity(), Contrary()
    gone = ref(data)
    known.profile(closure_over(data), 0)
    known.profile(data, 0)
    del data
    assert gone() is None


def test_strips_double_towards_their_length() -> None:
    unknown = work(10_000)
    assert [Granularity.strip_length(unknown, n) for n in (0, 1, 2)] == [1, 2, 4]
    known = work(10_001, seconds=1e-6)
    assert Granularity.strip_length(known, 0) == 64
    assert Granularity.strip_length(known, 64) in (99, 100)
    assert Granularity.strip_length(work(10, seconds=1.0), 0) == 1
    assert Granularity.strip_length(work(10, chunk=7), 1) == 7
    assert STRIP_SECONDS == 100e-6


def test_the_age_of_a_range_speaks_for_it_while_nothing_else_does() -> None:
    known, unknown = granularity(), work(100)
    assert not known.worth(unknown, 100, PATIENCE_SECONDS / 2)
    assert known.worth(unknown, 100, 1e-3)


def test_what_costs_more_to_ship_than_to_run_stays() -> None:
    assert not granularity(cost=1e-3).worth(work(10_000, seconds=1e-4), 10_000, 1.0)
    assert granularity(cost=1e-5).worth(work(10_000, seconds=1e-4), 10_000, 1.0)


def test_pinned_work_and_single_trifles_stay() -> None:
    known = granularity()
    pinned = work(100, seconds=1.0)
    pinned.pinned = True
    assert not known.pays(pinned, 1.0)
    assert not known.pays(work(1, seconds=CALL_SECONDS / 2), 1.0)
    assert known.pays(work(1, seconds=1.0), 1.0)


def test_results_that_nobody_has_seen_count_as_those_of_the_function() -> None:
    known = Granularity(1e-3, 1, lambda *_: 1e-6, lambda *_: None)
    unseen = work(50, seconds=1e-3)
    assert known.pays(unseen, 0.0)
    unseen.call.profile.result_cost = 1.0
    assert not known.pays(unseen, 0.0)
    dear = Granularity(1e-3, 1, lambda *_: 1e-6, lambda *_: 2.0)
    assert not dear.pays(unseen, 0.0)
    short, pair = work(50, seconds=1e-4), work(2, seconds=1e-4)
    assert not known.pays(short, 0.0)  # its first result will be there before long
    assert known.pays(pair, 0.0)
    assert unseen.call.profile.result_cost == 2.0


def test_what_results_cost_is_learnt_from_those_that_come() -> None:
    """Or a call whose results are dear is sent away each time, before one of them is there."""
    seen: list[Any] = []

    def appraise(work: Range, _: float) -> float:
        seen.append(work.call.sample)
        return 1.0

    known = Granularity(1e-3, 1, lambda *_: 1e-6, appraise)
    sent = work(50, seconds=2e-3)
    sent.call.range = sent
    for values in ([1], [2], [3], [4], [5]):
        known.see_results(sent.call, values)
    assert seen == [[1], [2], [4]]
    assert sent.call.sample is None
    assert sent.call.profile.result_cost == 1.0


def test_what_goes_along_with_the_function_must_be_outweighed_by_half_of_what_is_left() -> None:
    known, lacking = granularity(), [1.0]
    known.appraise_function = lambda *_: 1.0
    known.lacking = lambda _: lacking[0]
    some = work(100, seconds=0.03)
    assert known.pays(some, 1.0)
    some.lo = 50
    assert not known.pays(some, 1.0)
    lacking[0] = 0.5  # one of two workers has it
    assert known.pays(some, 1.0)
    some.lo = 99
    lacking[0] = 0.0
    assert known.pays(some, 1.0)


def test_a_heavy_function_is_not_brought_before_its_call_has_run_for_a_part_of_that() -> None:
    """Or 400 MB would travel for 5,000 items of no length, since the first of them was cold."""
    known = granularity()
    known.appraise_function = lambda *_: 0.4
    cold = work(5_000)
    cold.call.profile.learn(1, 15e-6)
    assert cold.call.profile.seconds * 5_000 < 0.4, "what the items are known to take"
    for age in (2e-4, 2e-3):
        assert not known.pays(cold, age)
    long = work(5_000)
    assert not known.pays(long, 0.4 / TRUST), "the first half of a millisecond does not count"
    assert known.pays(long, 0.4 / TRUST + COLD_SECONDS + 1e-6)
    known.appraise_function = lambda *_: LIGHT_SECONDS
    assert known.pays(work(5_000, seconds=1e-3), 0.0)


def test_each_call_has_to_show_that_its_function_is_worth_bringing() -> None:
    """It may be of another kind than the one before, whose estimate it has."""
    known = granularity()
    known.appraise_function = lambda *_: 0.1
    before = work(1_000, seconds=1e-3)
    before.call.profile.learn(100, 0.1)
    assert not known.pays(before, 0.05 / TRUST)
    assert known.pays(before, 0.11 / TRUST)


def test_items_that_are_dear_to_send_wait_until_their_function_has_been_seen_to_run() -> None:
    known = granularity(cost=2e-4)
    cold = work(1_000)
    cold.call.profile.learn(1, 15e-6)
    assert not known.pays(cold, 4e-4), "the age is that of the start, not of an item"
    warm = work(1_000)
    warm.call.profile.learn(1, 1e-3)
    enough = COLD_SECONDS + 0.1 / TRUST - 1e-3
    assert not known.pays(warm, enough - 1e-6)
    assert known.pays(warm, enough + 1e-6)
    warm.call.profile.learn(10, 0.01)
    assert known.pays(warm, 0.0), "it was seen to run for long"
    first = work(100)
    first.call.profile.learn(1, 1e-4)
    assert granularity(cost=1e-6).pays(first, 0.0), "that is not much"


def test_what_another_worker_answers_for_is_believed_at_once() -> None:
    known = granularity(cost=2e-4)
    passed = work(1_000)
    passed.call.profile.assume(1e-3)
    assert known.pays(passed, 0.0)


def test_an_appraisal_is_made_again_at_ten_times_the_age_that_it_was_made_at() -> None:
    """Also when it took so long itself that the range is taken to be younger afterwards."""
    made: list[float] = []

    def appraise(work: Range, _: float) -> float:
        made.append(1.0)
        work.born += 5e-3
        return 1.0

    known = Granularity(1e-3, 1, appraise, lambda *_: 0.0)
    dear = work(1_000, seconds=1e-4)
    assert not known.pays(dear, 1e-3)
    assert not known.pays(dear, 5e-3 + 0.99e-2)
    assert len(made) == 1
    assert not known.pays(dear, 5e-3 + 1.01e-2)
    assert len(made) == 2


def test_the_age_of_a_range_says_how_long_may_be_spent_on_weighing_its_function() -> None:
    """Or one that is cold, and takes a millisecond to weigh, would keep a first call at home."""
    known, saved = granularity(), []
    known.appraise_function = lambda _, seconds: saved.append(seconds) or 0.0
    assert known.pays(work(4), 3.0)
    assert saved == [6.0]


def test_a_light_function_is_not_held_against_the_last_items() -> None:
    known = granularity()
    known.appraise_function = lambda *_: LIGHT_SECONDS
    assert known.pays(work(1, seconds=2 * CALL_SECONDS), 0.0)


def test_costs_that_kept_work_at_home_are_estimated_again_when_it_is_ten_times_as_old() -> None:
    costs = [1.0, 1.0, 1e-6]
    known = Granularity(1e-3, 1, lambda *_: costs.pop(0), lambda *_: 0.0)
    dear = work(10_000, seconds=1e-2)
    dear.born = 5.0
    times = {6.0: False, 14.9: False, 15.1: False, 50.0: False, 107.0: True, 108.0: True}
    assert {now: known.pays(dear, now) for now in times} == times
    assert not costs


def test_costs_that_did_not_keep_work_at_home_are_not_estimated_again() -> None:
    costs = [1e-6]
    known = Granularity(1e-3, 1, lambda *_: costs.pop(0), lambda *_: 0.0)
    cheap = work(10_000, seconds=1e-2)
    assert all(known.pays(cheap, now) for now in (1.0, 1e3, 1e6))


# The ledger.


def test_the_owner_lets_go_of_items_as_their_results_come() -> None:
    books, users = Ledger(), [Contrary() for _ in range(6)]
    mine = Call(abs, users, 6, 0, Profile(), "map")
    gone = [ref(item) for item in users]
    books.register(mine)
    assert mine.items is not users
    del users
    books.settle(Segment(mine.key, 2, [0, 0], None, "map(abs)"))
    assert [item() is None for item in gone] == [False, False, True, True, False, False]
    books.settle(Segment(mine.key, 0, [0], ValueError(), "map(abs)"))
    assert [item() is None for item in gone] == [True, False, True, True, False, False]
    books.close(mine)
    assert gone[1]() is not None, "what failed may have to run again"


def test_a_call_that_is_over_keeps_nothing() -> None:
    books, item = Ledger(), Contrary()
    mine = Call(abs, (item,), 1, 0, Profile(), "apply")
    gone = ref(item)
    mine.range = Range(mine, 0, 1)
    books.register(mine)
    books.close(mine)
    del item
    assert (gone(), mine.range) == (None, None)


# The balancer.


def balancer(rank: int = 1, size: int = 21) -> Balancer:
    return Balancer(rank, size, Random(rank), granularity())


def starved(rank: int = 1, size: int = 21) -> tuple[Balancer, Sends]:
    """Return a balancer that has found nobody, and what it said last."""
    made = balancer(rank, size)
    said = made.out_of_work(0.0)
    asked = list(said)
    while made.mode is Mode.ASKING:
        victim, request = asked.pop(0)
        assert isinstance(request, StealRequest)
        assert not request.stays
        said = made.refused(victim, request.serial, 0.0)
        asked += said
    return made, said


@pytest.mark.parametrize("size", [2, 3, 21, 300])
@pytest.mark.parametrize("rank", [0, 1])
def test_who_finds_nobody_ties_a_lifeline_at_each_neighbour_and_is_silent(
    rank: int, size: int
) -> None:
    made, said = starved(rank, size)
    assert made.mode is Mode.WAITING
    assert [to for to, _ in said] == list(neighbours(rank, size))
    assert all(isinstance(message, StealRequest) and message.stays for _, message in said)
    assert made.out_of_work(100.0) == []
    assert made.deadline == float("inf")


def test_who_is_alone_is_silent() -> None:
    assert balancer(0, 1).out_of_work(0.0) == []


def test_a_loaded_neighbour_is_asked_first() -> None:
    made = balancer()
    made.hear(0, Load(1, 2.0, idle=False), 0.0)
    (victim, _), *_ = made.out_of_work(0.001)
    assert victim == 0


def test_workers_that_have_said_of_late_that_they_are_idle_are_not_asked() -> None:
    made = balancer()
    for rank in (0, *range(2, 21)):
        made.hear(rank, Load(1, 0.0, idle=True), 0.0)
    said = made.out_of_work(FRESH_SECONDS / 2)
    assert [to for to, _ in said] == list(neighbours(1, 21))
    assert made.mode is Mode.WAITING


def test_two_refusals_end_a_search_even_of_workers_that_are_at_work() -> None:
    made = balancer(1, 300)
    asked = made.out_of_work(0.0)
    for victim, request in asked:
        assert isinstance(request, StealRequest)
        made.hear(victim, Load(1, 0.0, idle=False), 0.0)
        said = made.refused(victim, request.serial, 0.0)
        asked += [each for each in said if made.mode is Mode.ASKING]
    assert len(asked) == ASKED_AT_ONCE + 1
    assert made.mode is Mode.WAITING


def test_stale_reports_do_not_count() -> None:
    made = balancer(1, 2)
    made.hear(0, Load(1, 2.0, idle=False), 0.0)
    ((_, request),) = made.out_of_work(100.0)
    assert isinstance(request, StealRequest)
    assert request.stays


def test_only_newer_reports_are_kept_and_not_many() -> None:
    made = balancer()
    made.hear(0, Load(5, 2.0, idle=False), 0.0)
    made.hear(0, Load(4, 0.0, idle=True), 0.0)
    assert made.reports[0][0].sequence == 5
    for rank in range(1000):
        made.hear(rank, Load(1, 0.0, idle=True), 0.0)
    assert len(made.reports) < 40


def test_a_victim_that_does_not_answer_is_given_up() -> None:
    made = balancer(1, 300)
    first = {victim for victim, _ in made.out_of_work(0.0)}
    assert len(first) == ASKED_AT_ONCE
    assert made.out_of_work(ANSWER_SECONDS / 2) == []
    second = {victim for victim, _ in made.out_of_work(ANSWER_SECONDS * 1.1)}
    assert not first & second
    assert made.refused(min(first), 1, 0.0) == []


def test_a_lifeline_that_is_refused_is_tied_again() -> None:
    made, said = starved(1, 2)
    ((victim, request),) = said
    assert isinstance(request, StealRequest)
    ((again, renewed),) = made.refused(victim, request.serial, 0.0)
    assert again == victim
    assert isinstance(renewed, StealRequest)
    assert made.tied == {victim: renewed.serial}
    made.work_came()
    assert made.refused(victim, renewed.serial, 0.0) == []
    assert made.tied == {}


def test_a_grant_unties_the_lifeline_that_it_answers() -> None:
    made, said = starved(1, 2)
    ((victim, request),) = said
    assert isinstance(request, StealRequest)
    made.granted(victim, request.serial - 1)
    assert victim in made.tied
    made.granted(victim, request.serial)
    assert victim not in made.tied


def test_weights_of_idle_subtrees_add_up() -> None:
    made, _ = starved(1, 21)
    updates: Sends = []
    for child in tree_children(1, 21):
        updates += made.requested(child, StealRequest(7, 3, stays=True), Deque(), 0.0)
    ((to, update),) = updates
    assert to == 0
    assert isinstance(update, StealRequest)
    assert update.weight == 1 + 4 * 3


def deque_of(*ranges: Range) -> Deque:
    made = Deque()
    for each in ranges:
        made.push(each)
    return made


def given_away(sends: Sends) -> dict[int, int]:
    return {
        to: sum(part.left for part in message.parts)
        for to, message in sends
        if isinstance(message, Grant)
    }


def test_a_thief_gets_half_of_the_seconds_that_stand_ready_and_the_oldest_of_them() -> None:
    old, new = work(100, seconds=0.01), work(60, seconds=0.01)
    made = balancer()
    sends = made.requested(5, StealRequest(1, 1, stays=False), deque_of(old, new), 0.0)
    assert given_away(sends) == {5: 80}
    assert (old.left, new.left) == (20, 60)


def test_a_thief_gets_several_ranges_where_the_oldest_are_short() -> None:
    singles = [work(1, seconds=0.001) for _ in range(8)]
    made = balancer()
    sends = made.requested(5, StealRequest(1, 1, stays=False), deque_of(*singles), 0.0)
    assert given_away(sends) == {5: 4}
    assert [single.left for single in singles] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_one_long_range_is_enough_for_a_thief() -> None:
    long, short = work(1, seconds=1.0), [work(1, seconds=0.001) for _ in range(8)]
    made = balancer()
    sends = made.requested(5, StealRequest(1, 1, stays=False), deque_of(long, *short), 0.0)
    assert given_away(sends) == {5: 1}
    assert long.left == 0


def test_a_thief_without_luck_is_refused() -> None:
    made = balancer()
    assert made.requested(5, StealRequest(9, 1, stays=False), Deque(), 0.0) == [(5, Refusal(9))]
    made.requested(5, StealRequest(9, 1, stays=True), Deque(), 0.0)
    assert made.waiting == {5: (9, 1, 0)}


def test_who_runs_its_last_item_passes_on_what_waits_here() -> None:
    made, empty = balancer(1, 21), Deque()
    asked = made.requested(5, StealRequest(9, 3, stays=True), empty, 0.0)
    assert [to for to, _ in asked] == [0, 6, 7, 8], "not whoever is the only one that waits"
    weights = [message.weight for _, message in asked if isinstance(message, StealRequest)]
    assert weights == [3, 1, 1, 1], "the parent hears how many are idle behind, this one is not"
    assert made.pass_on(empty) == [], "once is enough"
    ((to, _),) = made.requested(6, StealRequest(9, 1, stays=True), empty, 0.0)
    assert to == 5, "another waits here too"


def test_who_has_work_passes_nothing_on() -> None:
    made = balancer(1, 21)
    trifles = deque_of(work(4))
    assert made.requested(5, StealRequest(9, 3, stays=True), trifles, 0.0) == []


def test_a_lifeline_that_was_passed_on_leaves_when_it_is_answered() -> None:
    made = balancer(1, 21)
    made.requested(5, StealRequest(9, 3, stays=True), Deque(), 0.0)
    made.granted(0, made.tied[0])
    assert [to for to, _ in made.pass_on(Deque())] == [0]


@given(st.integers(1, 500), st.lists(st.integers(1, 40), min_size=1, max_size=8), st.booleans())
def test_shares_follow_the_weights(size: int, weights: list[int], running: bool) -> None:
    made = balancer()
    made.running = running
    for number, weight in enumerate(weights, 100):
        made.requested(number, StealRequest(number, weight, stays=True), Deque(), 0.0)
    whole = work(size, seconds=0.01)
    shares = given_away(made.answer_lifelines(deque_of(whole), 0.0))
    assert sum(shares.values()) + whole.left == size
    if not running:
        assert whole.left >= 1
    total = 1 + sum(weights)
    for number, weight in enumerate(weights, 100):
        assert abs(shares.get(number, 0) - size * weight / total) < len(weights) + 1
    assert not made.waiting.keys() & shares.keys()


def test_an_idle_worker_keeps_its_last_item() -> None:
    made = balancer()
    made.requested(5, StealRequest(1, 1, stays=True), Deque(), 0.0)
    last = deque_of(work(1, seconds=1.0))
    made.running = False
    assert made.answer_lifelines(last, 0.0) == []
    made.running = True
    assert given_away(made.answer_lifelines(last, 0.0)) == {5: 1}
    assert made.answer_lifelines(last, 0.0) == []


def test_chunks_leave_whole() -> None:
    chunked = work(100, seconds=0.01, chunk=30)
    sends = balancer().requested(5, StealRequest(1, 1, stays=False), deque_of(chunked), 0.0)
    assert given_away(sends) == {5: 60}


def test_single_calls_of_one_task_leave_in_bundles() -> None:
    parent, other = object(), object()
    singles = [work(1, seconds=0.01, parent=parent) for _ in range(8)]
    stranger = work(1, seconds=0.01, parent=other)
    for each in (*singles, stranger):
        each.call.profile = singles[0].call.profile
    singles[0].pinned = True
    sends = balancer().requested(
        5, StealRequest(1, 1, stays=False), deque_of(*singles, stranger), 0.0
    )
    ((_, grant),) = sends
    assert isinstance(grant, Grant)
    assert len(grant.parts) == 4
    assert all(part.call.parent is parent for part in grant.parts)


def test_single_calls_that_came_later_are_judged_by_the_first_too() -> None:
    parent = object()
    old, young, other = (work(1, parent=parent) for _ in range(3))
    young.call.profile = old.call.profile  # of which nothing is known but the age of the first
    old.born, young.born = 0.0, 1.0
    other.call.profile = Profile()
    other.call.profile.assume(1.0)
    request = StealRequest(1, 3, stays=False)
    sends = balancer().requested(5, request, deque_of(old, young, other), 1.0)
    assert given_away(sends) == {5: 2}
    assert (old.left, young.left, other.left) == (0, 0, 1)


def test_what_is_not_worth_it_is_passed_over() -> None:
    cheap, dear = work(2, seconds=1e-6), work(1, seconds=1.0)
    single = work(1, seconds=1e-9)
    sends = balancer().requested(
        5, StealRequest(1, 1, stays=False), deque_of(single, cheap, dear), 0.0
    )
    ((_, grant),) = sends
    assert isinstance(grant, Grant)
    assert grant.parts[0].call is dear.call


def test_a_long_row_of_trifles_is_not_gone_through_at_each_look() -> None:
    trifles = [work(1, seconds=1e-9) for _ in range(500)]
    for each in trifles:
        each.call.profile = trifles[0].call.profile
    looked_at = 0

    class Watched(Deque):
        def oldest(self, most: int = 64) -> Iterator[Range]:
            nonlocal looked_at
            for each in super().oldest(most):
                looked_at += 1
                yield each

    watched = Watched()
    for each in trifles:
        watched.push(each)
    assert balancer().requested(5, StealRequest(1, 1, stays=True), watched, 0.0) == []
    assert looked_at <= 2 * MOST_TRIED


def test_the_table_of_transitions_is_complete() -> None:
    assert set(TRANSITIONS) == set(Mode)
    assert {mode for row in TRANSITIONS.values() for mode in row.values()} == set(Mode)
