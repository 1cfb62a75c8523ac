"""The scheduler: what follows from what."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dtm.core.balancer import Mode
from dtm.core.granularity import PATIENCE_SECONDS
from dtm.core.messages import (
    Broken,
    Cancel,
    Grant,
    Output,
    Refusal,
    Results,
    Returned,
    Segment,
    StealRequest,
    Stop,
    Stopped,
)
from dtm.core.scheduler import (
    MOST_CANCELLED,
    MOST_UNREAD,
    TICK_SECONDS,
    End,
    Print,
    Resume,
    Scheduler,
    WakeAt,
)
from dtm.task import Call, Range

from .core import BUSY, IDLE, call, scheduler, sent

LIFELINE = StealRequest(1, 1, stays=True)


def submitted(made: Scheduler, size: int, seconds: float = 0.01) -> Call:
    mine = call(size, seconds=seconds, owner=made.rank)
    made.submit(mine, 0.0)
    return mine


def test_submitted_work_is_ready() -> None:
    made = scheduler()
    mine = submitted(made, 10)
    assert made.deque.newest() is mine.range
    assert made.load(0.0).seconds == pytest.approx(0.1)


def test_a_worker_that_is_alone_never_shares() -> None:
    made = scheduler(size=1)
    assert made.submit(call(10, seconds=1.0), 0.0) == []
    assert made.out_of_work(0.0) == []


def test_reports_are_numbered_and_say_who_is_idle() -> None:
    made = scheduler()
    first, second = made.load(0.0), made.load(0.0)
    assert second.sequence == first.sequence + 1
    assert not second.idle
    made.out_of_work(0.0)
    assert made.load(0.0).idle


def test_work_that_comes_goes_on_at_once_to_who_waits() -> None:
    made = scheduler()
    made.handle(1, IDLE, LIFELINE, 0.0)
    ((to, grant),) = sent(made.submit(call(10, seconds=0.01), 0.0))
    assert to == 1
    assert isinstance(grant, Grant)
    assert grant.parts[0].left == 5
    assert made.ledger.find(grant.parts[0].call.key) is grant.parts[0].call


def test_results_that_come_say_what_results_cost() -> None:
    made = scheduler()
    made.granularity._appraise_results = lambda work, _: float(len(work.call.sample))
    mine = submitted(made, 9)
    made.ledger.register(mine)
    made.handle(1, BUSY, Results((Segment(mine.key, 3, [1, 2], None, "map(abs)"),)), 0.0)
    assert mine.profile.result_cost == 2.0


def test_the_item_that_its_caller_is_about_to_run_is_not_given_away() -> None:
    made = scheduler()
    made.handle(1, IDLE, LIFELINE, 0.0)
    assert made.submit(call(1, seconds=0.01), 0.0, kept=True) == []
    assert made.deque.newest() is not None
    assert made.balancer.waiting
    assert sent(made.submit(call(1, seconds=0.01), 0.0))


def test_work_of_unknown_length_is_looked_at_again_soon_and_then_less_often() -> None:
    made = scheduler()
    made.handle(1, IDLE, LIFELINE, 0.0)
    (wake,) = made.submit(call(2), 0.0)
    assert wake == WakeAt(2 * PATIENCE_SECONDS)
    assert made.send_due(PATIENCE_SECONDS) == []
    now, waits = 0.0, []
    made.granularity.minimum = 1e9
    for _ in range(8):
        assert isinstance(wake, WakeAt)
        waits.append(round(wake.when - now, 9))
        now = wake.when
        (wake,) = made.send_due(now)
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(TICK_SECONDS)


def test_who_waits_at_a_worker_without_work_costs_nothing() -> None:
    made = scheduler()
    made.handle(1, IDLE, LIFELINE, 0.0)
    assert made.send_due(1.0) == []


def test_a_grant_feeds_an_idle_worker() -> None:
    made = scheduler(1)
    made.out_of_work(0.0)
    part = Range(call(4, seconds=0.01, owner=0, base=6, key=3), 6, 10)
    assert made.handle(0, BUSY, Grant(1, (part,)), 5.0) == []
    assert made.deque.newest() is part
    assert part.born == 5.0
    assert made.balancer.mode is Mode.WORKING
    assert made.counters.steals_won == 1


def test_work_that_comes_home_is_part_of_the_call_again() -> None:
    made = scheduler()
    mine = submitted(made, 10)
    made.ledger.register(mine)
    home = Range(Call(len, (), 0, 0, None, "", key=mine.key), 5, 10)
    gone = Range(Call(len, (), 0, 0, None, "", key=99), 0, 3)
    made.handle(1, BUSY, Grant(1, (home, gone)), 0.0)
    newest = made.deque.newest()
    assert newest is not None
    assert newest.call is mine
    assert (newest.lo, newest.hi) == (5, 10)


def test_who_sends_work_waits_for_none() -> None:
    made = scheduler(1)
    made.handle(0, IDLE, LIFELINE, 0.0)
    part = Range(call(1, seconds=0.01, owner=0, key=3), 0, 1)
    made.handle(0, BUSY, Grant(1, (part,)), 0.0)
    assert made.balancer.waiting == {}
    made.balancer.tied[0] = 7
    made.deque.push(Range(call(9, seconds=0.01, owner=0, key=4), 0, 9))
    made.handle(0, IDLE, StealRequest(2, 1, stays=False), 0.0)
    assert made.balancer.tied == {}


def test_refusals_lead_to_the_next_victim() -> None:
    made = scheduler(1, 300)
    (victim, request), *_ = sent(made.out_of_work(0.0))
    assert isinstance(request, StealRequest)
    assert sent(made.handle(victim, BUSY, Refusal(request.serial), 0.0))
    ((_, refusal),) = sent(made.handle(9, IDLE, StealRequest(4, 1, stays=False), 0.0))
    assert refusal == Refusal(4)
    assert made.counters.refusals == 1


def test_results_complete_a_call_and_resume_who_waits() -> None:
    made = scheduler()
    mine = submitted(made, 4)
    made.ledger.register(mine)
    segments = (Segment(mine.key, 0, [0, 1]), Segment(mine.key, 2, [2, 3]))
    assert made.handle(1, BUSY, Results(segments), 0.0) == [Resume(mine)]
    assert len(made.ledger) == 0


def test_a_failure_is_told_to_all_so_that_the_rest_does_not_run() -> None:
    made = scheduler(2, 6)
    mine = submitted(made, 9)
    made.ledger.register(mine)
    effects = made.handle(1, BUSY, Results((Segment(mine.key, 0, [], ValueError()),)), 0.0)
    assert effects[-1] == Resume(mine)
    assert sent(effects) == [(to, Cancel(2, mine.key, 0)) for to in (3, 4, 5, 0)]


def test_a_call_that_nobody_shared_completes_without_a_word() -> None:
    made = scheduler()
    mine = submitted(made, 2)
    assert made.completed(mine) == [Resume(mine)]
    assert made.abandon(mine) == []
    assert mine.range is not None
    assert mine.range.left == 0


def test_an_abandoned_call_is_cancelled_where_its_parts_are() -> None:
    made = scheduler()
    mine = submitted(made, 9)
    made.ledger.register(mine)
    assert {message for _, message in sent(made.abandon(mine))} == {Cancel(0, mine.key, 0)}
    assert len(made.ledger) == 0


def test_a_cancellation_reaches_ready_work_and_work_that_comes_later() -> None:
    made = scheduler(1)
    here = Range(call(10, seconds=0.01, owner=0, key=3), 0, 10)
    made.handle(0, BUSY, Grant(1, (here,)), 0.0)
    made.handle(0, BUSY, Cancel(0, 3, 2), 0.0)
    assert here.left == 2
    later = Range(call(10, seconds=0.01, owner=0, key=3, base=0), 0, 10)
    made.handle(0, BUSY, Grant(2, (later,)), 0.0)
    assert later.left == 2
    for key in range(4, 4 + MOST_CANCELLED):
        made.handle(0, BUSY, Cancel(0, key, 0), 0.0)
    after = Range(call(10, seconds=0.01, owner=0, key=3), 0, 10)
    made.handle(0, BUSY, Grant(3, (after,)), 0.0)
    assert after.left == 10


def test_cancellations_reach_everybody_once() -> None:
    size = 23
    schedulers = [scheduler(rank, size) for rank in range(size)]
    mine = submitted(schedulers[5], 3)
    schedulers[5].ledger.register(mine)
    messages = sent(schedulers[5].abandon(mine))
    reached = []
    while messages:
        to, message = messages.pop()
        reached.append(to)
        messages += sent(schedulers[to].handle(5, BUSY, message, 0.0))
    assert sorted(reached) == [rank for rank in range(size) if rank != 5]


def test_what_could_not_be_read_runs_at_home() -> None:
    made = scheduler()
    mine = submitted(made, 9)
    made.ledger.register(mine)
    mine.range = None
    (effect,) = made.handle(1, BUSY, Returned(mine.key, 3, 5, "no such module"), 0.0)
    assert isinstance(effect, Print)
    newest = made.deque.newest()
    assert newest is not None
    assert newest.pinned
    assert (newest.lo, newest.hi) == (3, 5)
    assert made.handle(1, BUSY, Returned(77, 3, 5, "no such module"), 0.0) == []


def test_what_a_worker_could_not_read_is_told_once_for_each_function_and_worker() -> None:
    made = scheduler()

    def owned(name: str) -> int:
        mine = submitted(made, 9)
        mine.function = SimpleNamespace(__qualname__=name)
        made.ledger.register(mine)
        return mine.key

    def told(source: int, key: int) -> bool:
        return bool(made.handle(source, BUSY, Returned(key, 3, 5, "no such module"), 0.0))

    f, again, g = owned("f"), owned("f"), owned("g")
    assert [told(1, key) for key in (f, f, again, g)] == [True, False, False, True]
    assert [told(2, key) for key in (again, f)] == [True, False]
    for number in range(MOST_UNREAD):
        told(3, owned(str(number)))
    assert told(1, f)  # what was told long ago is forgotten


def test_what_could_not_be_sent_stays_and_the_rest_may_leave() -> None:
    made = scheduler()
    mine = submitted(made, 9)
    assert mine.range is not None
    part = mine.range.take_back(5)
    made.put_back(part, 6)
    pieces = [(each.lo, each.hi, each.pinned) for each in list(made.deque)[1:]]
    assert sorted(pieces) == [(4, 6, False), (6, 7, True), (7, 9, False)]
    whole = mine.range.take_back(2)
    made.put_back(whole, None)
    assert made.deque.newest() is whole
    assert whole.pinned


def test_the_end_goes_down_the_tree_and_comes_back() -> None:
    size = 23
    schedulers = [scheduler(rank, size) for rank in range(size)]
    queue = [(0, to, message) for to, message in sent(schedulers[0].stop())]
    count, ended = 0, []
    while queue:
        source, to, message = queue.pop(0)
        count += 1
        effects = schedulers[to].handle(source, BUSY, message, 0.0)
        queue += [(to, other, answer) for other, answer in sent(effects)]
        ended += [to for effect in effects if effect == End(None)]
    assert count == 2 * (size - 1)
    assert sorted(ended) == list(range(size))
    assert ended[-1] == 0
    assert sorted(schedulers[0].summary()) == list(range(size))


def test_who_is_cut_off_from_its_place_in_the_tree_is_told_by_the_root_itself() -> None:
    size, cut = 23, {(1, 5), (5, 1)}
    schedulers = [scheduler(rank, size) for rank in range(size)]
    queue = [(0, to, message) for to, message in sent(schedulers[0].stop())]
    ended = []

    def settle() -> None:
        while queue:
            source, to, message = queue.pop(0)
            if (source, to) in cut:
                continue
            effects = schedulers[to].handle(source, BUSY, message, 0.0)
            queue.extend((to, other, answer) for other, answer in sent(effects))
            ended.extend(to for effect in effects if effect == End(None))

    settle()
    assert sorted({*range(size)} - {*ended}) == [0, 1, 5, 21, 22]
    queue += [(0, to, message) for to, message in sent(schedulers[0].hurry([]))]
    assert [to for _, to, _ in queue] == [1, 5, 6, 7, 8, 21, 22]
    settle()
    assert sorted(ended) == sorted(schedulers[0].summary()) == list(range(size))


def test_at_the_end_nobody_waits_for_who_is_gone() -> None:
    root = scheduler(0, 3)
    root.stop()
    assert root.handle(1, BUSY, Stopped({1: {}}), 0.0) == []
    assert root.excuse([]) == []
    assert root.excuse([2]) == [End(None)]
    assert root.excuse([2]) == []


def test_who_has_stopped_already_says_so_to_the_root_that_did_not_hear_it() -> None:
    made = scheduler(5, 6)
    ((_, last),) = sent(made.handle(1, BUSY, Stop(), 0.0))
    assert sent(made.handle(0, BUSY, Stop(None), 0.0)) == [(0, last)]
    child = scheduler(1, 6)
    child.handle(0, BUSY, Stop(), 0.0)
    assert End(None) in child.handle(0, BUSY, Stop(None), 0.0)
    assert child.handle(0, BUSY, Stop(None), 0.0) == []
    late = Stopped({5: {}})
    assert sent(child.handle(5, BUSY, late, 0.0)) == [(0, late)]


def test_who_is_stopping_answers_no_thief() -> None:
    made = scheduler(1)
    made.handle(0, BUSY, Stop(), 0.0)
    assert made.handle(2, IDLE, LIFELINE, 0.0) == []


def test_a_lone_root_ends_at_once() -> None:
    assert scheduler(size=1).stop() == [End(None)]


def test_lines_are_printed_and_broken_workers_end_the_run() -> None:
    made = scheduler()
    assert made.handle(1, BUSY, Output("stdout", "hello\n"), 0.0) == [Print("stdout", "hello\n")]
    assert made.handle(1, BUSY, Broken("no luck"), 0.0) == [End("no luck")]
    assert made.handle(1, BUSY, Broken("no way", 2), 0.0) == [End("no way", 2)]
    assert isinstance(Stopped({}), Stopped)
