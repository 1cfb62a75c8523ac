"""Small worlds in every order of events: no law is broken, and no state is without progress.

The counts are exact: one that has changed says that the protocol has, or what is explored.  After
a change that is meant write down in ``tests/worlds.py`` what the test shows; the documentation has
the same list, which DTM_REWRITE_WORLDS=1 writes again.
"""

from __future__ import annotations

import os
from dataclasses import astuple
from pathlib import Path
from unittest.mock import patch

import pytest

from dtm.core.balancer import Balancer
from dtm.core.messages import Load
from dtm.core.scheduler import Scheduler
from dtm.errors import InvariantError
from dtm.testing.simulated_worker import Simulated
from tests.exploring import Untimed, explore, fingerprint
from tests.worlds import WORLDS, table


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize("name", list(WORLDS))
def test_every_order_of_events_gets_on(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = WORLDS[name]
    explored = explore(small.make, 100_000)
    with capsys.disabled():
        print(f" [{name}: {explored}]", end="")
    assert astuple(explored) == (small.states, small.ends, small.parked)


def test_the_documentation_has_these_counts() -> None:
    listed = Path(__file__).resolve().parent.parent / "docs" / "explored.rst"
    if os.environ.get("DTM_REWRITE_WORLDS"):
        listed.write_text(table(), encoding="utf-8")
    assert listed.read_text(encoding="utf-8") == table()


def test_there_are_worlds_in_which_tasks_park() -> None:
    assert sum(small.parked > 0 for small in WORLDS.values()) >= 3
    assert any(small.parked and small.workers == 3 for small in WORLDS.values())


def test_a_parked_task_that_nobody_resumes_is_found() -> None:
    park = Simulated._park

    def forget(worker: Simulated, call) -> bool:
        before = call.listeners
        gone_on = park(worker, call)
        call.listeners = before
        return gone_on

    with (
        patch.object(Simulated, "_park", forget),
        pytest.raises(InvariantError, match=r"progress|no end"),
    ):
        explore(WORLDS["two workers, seven tasks"].make)


def test_results_that_an_idle_worker_keeps_are_found() -> None:
    look_for_work = Simulated._look_for_work

    def keep(worker: Simulated) -> bool:
        with patch.object(worker, "flush", lambda: None):
            return look_for_work(worker)

    with (
        patch.object(Simulated, "_look_for_work", keep),
        pytest.raises(InvariantError, match=r"progress|no end"),
    ):
        explore(WORLDS["two leaves"].make)


def test_a_lifeline_that_overtakes_a_deal_and_is_made_void_by_it_is_found() -> None:
    hear_of_deal = Balancer.hear_of_deal

    def hear(balancer: Balancer, deal: int) -> None:
        balancer.waiting.clear()
        hear_of_deal(balancer, deal)

    with (
        patch.object(Balancer, "hear_of_deal", hear),
        pytest.raises(InvariantError, match="has tied"),
    ):
        explore(WORLDS["dealt to neighbours"].make)


def test_to_be_busy_without_an_end_is_found() -> None:
    """Timers go off and requests are given up for ever, but the results are not taken in."""
    with (
        patch.object(Scheduler, "_on_results", lambda *_: []),
        patch("dtm.testing.invariants.check"),
        pytest.raises(InvariantError, match=r"no end can be reached|without progress"),
    ):
        explore(WORLDS["two leaves"].make)


@pytest.mark.parametrize("name", ["_tries", "_refusals", "_probe"])
def test_states_differ_by_all_that_a_search_for_work_remembers(name: str) -> None:
    world, mark = searching()
    balancer = next(each.scheduler.balancer for each in world.workers if balancing(each))
    vars(balancer)[name] += 1
    assert fingerprint(world) != mark


def test_states_differ_by_whom_a_search_has_tried_and_what_reports_say() -> None:
    world, mark = searching()
    balancer = next(each.scheduler.balancer for each in world.workers if balancing(each))
    balancer._tried.add(99)
    tried = fingerprint(world)
    balancer.reports[0] = (Load(10**6, 1234.0, idle=False), 0.0)
    assert len({mark, tried, fingerprint(world)}) == 3


def test_states_do_not_differ_by_counters() -> None:
    world, mark = searching()
    world.workers[1].scheduler.counters.items += 1
    assert fingerprint(world) == mark


def test_what_a_state_holds_is_known_or_an_error() -> None:
    world, _ = searching()
    world.workers[1].scheduler.balancer.novelty = object()
    with pytest.raises(TypeError, match=r"does not know"):
        fingerprint(world)


def balancing(worker: Simulated) -> bool:
    return bool(worker.scheduler.balancer.asked)


def searching() -> tuple[Untimed, object]:
    """Return a world in which workers look for work."""
    world = Untimed(WORLDS["two leaves"].program, 3, 1.0, settled=False)
    world.begin()
    return world, fingerprint(world)
