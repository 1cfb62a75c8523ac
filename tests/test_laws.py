"""Every law of simulated runs has a name in the documentation, and can be broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dtm.testing
from dtm.core.granularity import Profile
from dtm.core.messages import Cancel, Grant, Load, Refusal, Results, Segment, StealRequest, Stop
from dtm.errors import InvariantError
from dtm.task import Call, Range
from dtm.testing import (
    Caught,
    Script,
    Simulation,
    end_invariants,
    exponential,
    flat,
    invariants,
    random_simulation,
)
from dtm.testing.act_invariants import ActChecker
from dtm.testing.laws import Law
from dtm.testing.mail import Mail
from dtm.testing.simulated_worker import Simulated
from dtm.testing.world import World

from .core import work

LOAD = Load(1, 0.0, idle=False)


def law(name: Law) -> Any:
    return pytest.raises(InvariantError, match=f"^{name.value}: ")


def ran(*steps: Any, workers: int = 3) -> World:
    """Return a world in which a run with these steps is over."""
    simulation = Simulation(workers, Script(*(steps or ([1e-3] * 30,))), seed=1)
    simulation.run()
    return simulation.world


def stopped_at(event: int, workers: int = 3) -> World:
    """Return a world in the middle of a map, of which some is in."""
    simulation = Simulation(workers, flat(300, exponential(0.02), 0), seed=1)
    with pytest.raises(InvariantError, match="no end"):
        simulation.run(event)
    invariants.check(simulation.world)
    return simulation.world


def test_the_words_and_the_code_name_the_same_laws() -> None:
    words = re.findall(r"^\*(.+?)\*: ", invariants.__doc__ or "", re.MULTILINE)
    assert [name.lower() for name in words] == [each.value for each in Law]


def test_no_error_of_a_simulated_run_is_without_a_law() -> None:
    folder = dtm.testing.__path__[0]
    without = [
        path.name
        for path in Path(folder).glob("*.py")
        if "raise InvariantError" in path.read_text(encoding="utf-8")
    ]
    assert not without


# The state of a run that is under way.


def test_counts_include_the_order_of_segments() -> None:
    world = stopped_at(300)
    call = next(call for call in world.calls.values() if len(call.starts) > 1)
    call.starts.reverse()
    with law(Law.HONEST_COUNTS):
        invariants.honest_counts(world)


def test_counts_are_checked_where_an_item_has_failed() -> None:
    world = stopped_at(300)
    call = next(call for call in world.calls.values() if len(call.starts) > 1)
    call.fail(call.base + call.size - 1, ValueError("planned"))
    invariants.honest_counts(world)
    call.missing += 1
    with law(Law.HONEST_COUNTS):
        invariants.honest_counts(world)
    call.missing -= 1
    call.limit -= 1
    with law(Law.HONEST_COUNTS):
        invariants.honest_counts(world)


def test_segments_do_not_overlap() -> None:
    world = stopped_at(300)
    call = next(call for call in world.calls.values() if len(call.starts) > 1)
    lo = call.starts[0]
    call.segments[lo] = [*call.segments[lo], 0.0]
    call.missing -= 1
    with law(Law.HONEST_COUNTS):
        invariants.honest_counts(world)


@pytest.mark.parametrize("what", ["lifelines", "results", "request"])
def test_a_timer_far_ahead_is_found(what: str) -> None:
    worker = stopped_at(300).workers[1]
    invariants.timers_near(worker)
    if what == "lifelines":
        worker.timer = worker.clock + 100.0
    elif what == "results":
        worker.scheduler.relay.deadline = worker.clock + 100.0
    else:
        worker.scheduler.balancer.deadline = worker.clock + 100.0
    with law(Law.NEAR_TIMERS):
        invariants.timers_near(worker)


# Lifelines.


@pytest.mark.parametrize("deal", [0, 3], ids=["a grant", "the deal"])
def test_only_a_deal_on_its_way_excuses_a_lifeline_that_is_not_held(deal: int) -> None:
    world = stopped_at(300)
    root, thief = (worker.scheduler.balancer for worker in world.workers[:2])
    thief.tied[0] = 99
    root.dealt = deal
    under_way = [(0, 1, Grant(0, (work(1),), deal))]
    if deal:
        invariants.no_lifeline_lost(world, under_way)
        return
    with law(Law.NO_LIFELINE_LOST):
        invariants.no_lifeline_lost(world, under_way)


# Silence.


def test_before_main_begins_nobody_has_a_timer_not_even_the_root() -> None:
    for rank in range(3):
        simulation = Simulation(3, Script(1e-3), seed=1)
        worker = simulation.world.workers[rank]
        check = simulation.world._silent
        assert check is not None

        def late(world: World, worker: Simulated = worker, check: Any = check) -> None:
            worker.timer = worker.clock + 1e-4
            check(world)

        simulation.world._silent = late
        with law(Law.SILENT_WHEN_IDLE):
            simulation.run()


def test_main_alone_for_long_is_silence_too() -> None:
    simulation = Simulation(3, Script([1e-3] * 30, 0.2), seed=1)
    seen: list[str] = []
    simulation.world._silent = lambda world: seen.append(world.phase.value)
    simulation.run()
    assert seen == ["settling", "running"]


def test_everybody_is_told_of_a_failure() -> None:
    failing = Caught([*[1e-3] * 20, Script(1e-3, KeyError("planned")), *[1e-3] * 20])
    simulation = Simulation(3, Script(failing, 0.2), seed=1)
    simulation.run()
    assert any(call.key for call in simulation.world.failed)
    simulation = Simulation(3, Script(failing, 0.2), seed=1)
    simulation.world.workers[0].scheduler._cancel = lambda _: []  # type: ignore[method-assign]
    with law(Law.CANCELLED):
        simulation.run()


# The end.


def planted(world: World, to: int, message: Any) -> None:
    world.in_flight[-1] = (1, to, Mail(LOAD, message, 1))


def test_requests_refusals_and_cancellations_may_be_under_way_at_the_end() -> None:
    world = ran()
    for message in (StealRequest(1, 1, stays=False), Refusal(1), Cancel(0, 1, 1)):
        planted(world, 0, message)
        end_invariants.check_quiet(world)


def test_work_results_and_the_end_itself_may_not_be_under_way_at_the_end() -> None:
    world = ran()
    call = Call(len, [1.0], 1, 0, Profile(), "map", key=1)
    segment = Segment(1, 0, [1.0])
    for message in (Grant(1, (Range(call, 0, 1),)), Results((segment,)), Stop()):
        planted(world, 0, message)
        with law(Law.QUIET_AT_THE_END):
            end_invariants.check_quiet(world)


def test_results_of_cancelled_items_may_be_under_way_at_the_end_others_may_not() -> None:
    failing = Caught([*[1e-3] * 20, Script(1e-3, KeyError("planned")), *[1e-3] * 20])
    world = ran(failing)
    call = next(call for call in world.failed if call.key)
    planted(world, call.owner, Results((Segment(call.key, call.limit + 1, [1.0]),)))
    end_invariants.check_quiet(world)
    planted(world, call.owner, Results((Segment(call.key, call.limit - 1, [1.0]),)))
    with law(Law.QUIET_AT_THE_END):
        end_invariants.check_quiet(world)


def _ready(world: World) -> None:
    call = Call(len, [1.0], 1, 0, None, "map", key=1)
    world.workers[1].scheduler.deque.push(Range(call, 0, 1))


def _result(world: World) -> None:
    world.workers[1].outbox[0] = [Segment(1, 0, [1.0])]


def _call(world: World) -> None:
    world.workers[1].scheduler.ledger.register(Call(len, [1.0], 1, 1, None, "map"))


def _task(world: World) -> None:
    world.workers[1].parked.append([SimpleNamespace(work=None)])  # type: ignore[list-item]


def _deadline(world: World) -> None:
    worker = world.workers[0]
    worker.scheduler.balancer.deadline = worker.clock + 1e-3


@pytest.mark.parametrize("leave", [_ready, _result, _call, _task, _deadline])
def test_nothing_that_somebody_needs_is_left_at_the_end(leave: Callable[[World], None]) -> None:
    world = ran()
    end_invariants.check_quiet(world)
    leave(world)
    with law(Law.QUIET_AT_THE_END):
        end_invariants.check_quiet(world)


def test_a_timer_far_ahead_is_found_at_the_end_too() -> None:
    world = ran()
    world.workers[2].timer = world.workers[2].clock + 100.0
    with law(Law.NEAR_TIMERS):
        end_invariants.check_quiet(world)


def test_the_root_ends_last() -> None:
    simulation = Simulation(3, Script([1e-3] * 30), seed=1)
    simulation.world.workers[2].leave = lambda: None  # type: ignore[method-assign]
    with law(Law.ROOT_ENDS_LAST):
        simulation.run()


# Acts.


@pytest.mark.parametrize("to", [1, -1, 3])
@pytest.mark.parametrize("check", [True, False])
def test_no_message_to_oneself_or_to_nobody(to: int, check: bool) -> None:
    worker = Simulation(3, Script(1e-3), check=check).world.workers[1]
    with law(Law.TO_OTHERS):
        worker.send(to, Refusal(1))


def checker_of(rank: int = 1) -> tuple[ActChecker, Simulated]:
    worker = Simulation(3, Script(1e-3), check=True).world.workers[rank]
    assert worker.act_checker is not None
    return worker.act_checker, worker


def test_a_cancelled_item_is_not_begun_nor_is_one_that_comes_later() -> None:
    checker, _ = checker_of()
    call = Call(len, [1.0] * 9, 9, 0, None, "map", key=4)
    checker.begins(call, 0, 9)
    checker.hears(0, LOAD, Cancel(0, 4, 5))
    checker.hears(0, LOAD, Cancel(0, 4, 7))
    checker.begins(call, 0, 5)
    with law(Law.CANCELLED):
        checker.begins(call, 0, 6)


def test_who_stops_begins_nothing_of_others_and_asks_nobody() -> None:
    checker, worker = checker_of()
    worker.scheduler.handle(0, LOAD, Stop(), 0.0)
    checker.begins(Call(len, [1.0], 1, 1, None, "map"), 0, 1)
    with law(Law.STOP):
        checker.begins(Call(len, [1.0], 1, 0, None, "map", key=1), 0, 1)
    for message in (StealRequest(1, 1, stays=True), Refusal(1)):
        with law(Law.STOP):
            checker.says(0, LOAD, message)


def test_who_stops_keeps_nothing_ready() -> None:
    checker, worker = checker_of()
    checker.heard(Stop())
    worker.scheduler.deque.push(Range(Call(len, [1.0], 1, 0, None, "map", key=1), 0, 1))
    with law(Law.STOP):
        checker.heard(Stop())


@pytest.mark.parametrize("load", [Load(1, 0.0, idle=True), Load(1, 1.0, idle=False)])
def test_a_report_that_lies_is_found(load: Load) -> None:
    checker, _ = checker_of()
    checker.says(0, LOAD, Refusal(1))
    with law(Law.TRUE_REPORTS):
        checker.says(0, load, Refusal(1))


def test_a_thief_gives_up_after_two_refusals_unless_somebody_says_that_he_has_work() -> None:
    checker, worker = checker_of()
    checker.out_of_work()
    balancer = worker.scheduler.balancer
    balancer.asked.update({0: 7, 2: 8})
    idle = Load(1, 0.0, idle=True)
    request = StealRequest(9, 1, stays=False)
    checker.hears(0, idle, Refusal(7))
    checker.says(2, LOAD, request)
    checker.hears(2, idle, Refusal(8))
    with law(Law.SOON_SILENT):
        checker.says(2, LOAD, request)
    balancer.hear(2, Load(2, 1.0, idle=False), 0.0)
    checker.says(2, LOAD, request)


@pytest.mark.slow
def test_random_worlds_cancel_work_that_others_have() -> None:
    cancelled = told = silent = again = 0
    for seed in range(60):
        simulation = random_simulation(seed)
        world = simulation.world
        report = simulation.run(400_000)
        cancelled += report.messages.get("Cancel", 0)
        acts = [each.act_checker for each in world.workers if each.act_checker]
        told += sum(len(each.cancelled) for each in acts)
        silent += any(call.key for call in world.failed) and report.failure is None
        again += sum(worker.scheduler.ledger.dropped for worker in world.workers)
    assert cancelled > 100
    assert told > 100
    assert silent
    assert again


def test_results_in_the_wrong_order_are_found() -> None:
    world = stopped_at(300)
    call = Call(len, [1.0, 2.0], 2, 0, None, "map")
    call.account(0, [*reversed(call.items)])
    with law(Law.DELIVERED_ONCE):
        world.collected(call)


def test_every_law_is_broken_by_a_planted_bug_or_by_a_test() -> None:
    here = Path(__file__)
    bugs = (here.parent.parent / "docs" / "planted_bugs.rst").read_text(encoding="utf-8")
    tests = here.read_text(encoding="utf-8")
    never = [
        each.name
        for each in Law
        if f"- {each.value}\n" not in bugs and f"law(Law.{each.name})" not in tests
    ]
    assert not never
