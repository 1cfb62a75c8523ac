"""Simulated runs end with the right results, obey the laws, and are the same each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dtm.core.messages import Cancel, Load, Refusal
from dtm.core.shutdown import Stage
from dtm.errors import InvariantError, WorkerLostError
from dtm.testing import (
    Crawl,
    Death,
    Delay,
    Echo,
    Freeze,
    Network,
    Report,
    Script,
    Simulation,
    Suspicion,
    binomial,
    check_invariants,
    constant,
    exponential,
    flat,
    geometric,
    greedy_makespan,
    measure,
    nested,
    random_simulation,
    random_tree,
    recorded,
    total_work,
    world,
)
from dtm.testing.mail import Mail
from dtm.testing.simulated_worker import Simulated
from tests.fresh import FIRST_SEED, SEEDS, failures

ROOT = Path(__file__).resolve().parent.parent


def simulate(seed: int, **options: Any) -> Report:
    """Run a random tree of about 200 tasks on 8 workers, invariants checked at every event."""
    return random_simulation(seed, **options).run(400_000)


@pytest.mark.parametrize(
    "block", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in range(1, 10))]
)
def test_random_trees_obey_every_law(block: int) -> None:
    failed = failures(range(FIRST_SEED + block, FIRST_SEED + SEEDS, 10), simulate)
    assert not failed, "\n".join(failed)


def test_a_seed_that_does_not_end_is_named_with_the_command_that_runs_it_again() -> None:
    def hangs_at_three(seed: int) -> None:
        while seed == 3:
            pass

    failed = failures(range(5), hangs_at_three, most=0.2)
    assert len(failed) == 1
    assert "seed 3: DTM_SIMULATION_FIRST_SEED=3" in failed[0]
    assert "does not end" in failed[0]


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        # Who turned idle with its timer overdue kept the results of others.
        (558911913377, {}),
        # A timer for lifelines that had gone left results that were gathered later without one.
        (70285, {"relay_from": 2}),
        # Work below a cancelled item stood ready at the root while main alone had something to do.
        (693800735367, {}),
        # (In a law:) a root that had just run its last task was to have no timer left.
        (37531336828, {}),
    ],
)
def test_seeds_that_have_found_something_before(seed: int, options: dict[str, Any]) -> None:
    simulate(seed, **options)


def test_the_same_seed_gives_the_same_run() -> None:
    assert simulate(1).trace == simulate(1).trace
    assert simulate(1).trace != simulate(4).trace


def test_the_same_seed_gives_the_same_run_in_another_process() -> None:
    code = "from tests.test_simulation import simulate; print(simulate(1).trace)"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert other.stdout.strip() == simulate(1).trace, other.stderr


def test_a_flat_map_runs_every_task_once() -> None:
    program = flat(800, exponential(0.01), seed=3)
    report = Simulation(8, program, seed=3).run()
    assert report.executed == 800
    assert report.work == pytest.approx(total_work(program))
    assert report.failure is None
    assert report.efficiency > 0.9
    assert report.makespan == pytest.approx(report.work / 8, rel=0.1)
    assert "8 workers" in str(report)


@pytest.mark.parametrize(
    "program",
    [
        nested([4, 4, 4], 1e-3),
        nested([], 1e-3),
        geometric(3, 6, 2.0, 1e-3),
        binomial(5, 40, 2, 0.45, 1e-3),
        recorded([1e-3] * 50),
        flat(30, constant(1e-3), 0),
        Script([], 1e-3, []),
    ],
    ids=["nested", "one task", "geometric", "binomial", "recorded", "constant", "empty maps"],
)
def test_trees_of_every_sort_are_walked_once(program: Script) -> None:
    count, seconds = measure(program)
    report = Simulation(4, program, seed=1, network=Network(host=2)).run()
    assert report.executed == count - 1
    assert report.work == pytest.approx(seconds)


def test_one_worker_needs_no_message() -> None:
    report = Simulation(1, nested([3, 3], 1e-3)).run()
    assert report.total_messages == 0
    assert report.efficiency == pytest.approx(1.0)


def test_a_failure_comes_out_of_main() -> None:
    program = Script([1e-3, Script(1e-3, KeyError("planned")), 1e-3])
    report = Simulation(3, program).run()
    assert isinstance(report.failure, KeyError)


def test_a_slow_worker_does_not_hold_up_the_rest() -> None:
    durations = [1e-3] * 400
    speeds = [1.0] * 7 + [1e-3]
    report = Simulation(8, recorded(durations), speeds=speeds, known=1e-3).run()
    assert report.makespan < greedy_makespan(durations, speeds) + 1.0
    assert report.executed == 400


def test_speeds_must_fit_the_workers() -> None:
    with pytest.raises(ValueError, match="speeds"):
        Simulation(3, recorded([1.0]), speeds=[1.0])


def test_events_are_bounded_if_asked() -> None:
    with pytest.raises(InvariantError, match="no end"):
        Simulation(4, flat(100, constant(1e-3), 0)).run(most_events=20)


WORKERS = 5
TREE = random_tree(7, 60, 1e-3)
WHOLE = Simulation(WORKERS, TREE, seed=7).run()


def ends_as_documented(fault: Death | Suspicion) -> bool:
    """Run with a fault, all laws checked; whether it ended with the documented error.

    If it did not, the root learned of the loss when ``main`` had returned, or never, for the
    worker had said before that it stopped.
    """
    simulation = Simulation(WORKERS, TREE, seed=7, faults=[fault])
    try:
        report = simulation.run(200_000)
    except WorkerLostError as error:
        assert f"worker {fault.rank} was lost" in str(error)
        return True
    stage = simulation.world.workers[fault.rank].scheduler.shutdown.stage
    assert report.lost or stage is Stage.STOPPED, f"{fault} went unnoticed"
    assert f"worker {fault.rank} was lost" in (report.lost or f"worker {fault.rank} was lost")
    return False


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Death, Suspicion])
@pytest.mark.parametrize("rank", [0, 1, 4])
def test_a_loss_at_any_event_ends_the_run_with_the_documented_error(rank: int, kind: Any) -> None:
    events = range(1, WHOLE.events + 1)
    ended = [event for event in events if ends_as_documented(kind(event, rank))]
    # All but those of the end, when main has returned or does so before the root can know.
    assert ended == list(range(1, len(ended) + 1))
    assert len(ended) == WHOLE.events if rank == 0 else len(ended) > 0.8 * WHOLE.events


def test_a_loss_before_main_has_returned_is_never_too_late_if_it_is_known_at_once() -> None:
    simulation = Simulation(WORKERS, TREE, seed=7)
    events: list[int] = []
    returns = simulation.world.main_returned

    def spy(worker: Simulated) -> None:
        events.append(simulation.world.events)
        returns(worker)

    simulation.world.main_returned = spy  # type: ignore[method-assign]
    simulation.run()
    last = events[0]
    for event in range(last - 40, last):
        assert ends_as_documented(Death(event, 1, noticed=0.0))
    assert not ends_as_documented(Death(last + 1, 1, noticed=0.0))


def test_a_false_suspicion_ends_the_run_too() -> None:
    with pytest.raises(WorkerLostError, match="worker 2"):
        Simulation(4, flat(100, constant(1e-3), 0), faults=[Suspicion(60, 2)]).run()


@pytest.mark.parametrize("seed", range(20))
def test_freezes_and_slow_links_lose_nothing(seed: int) -> None:
    faults = [
        Freeze(50 + seed, seed % 8, 0.02),
        Freeze(200 + seed, (seed + 3) % 8, 0.005),
        Delay(0.003, source=seed % 8),
        Delay(0.001, to=(seed + 1) % 8, since=0.001, until=0.05),
    ]
    simulate(seed, faults=faults)


def test_a_freeze_while_workers_compute_costs_what_it_says() -> None:
    program = recorded([0.03] * 8)
    whole = Simulation(2, program, known=0.03).run()
    costs = []
    for event in range(1, whole.events):
        faults = [Freeze(event, rank, 0.02) for rank in (0, 1)]
        report = Simulation(2, program, known=0.03, faults=faults).run()
        assert report.unstruck == ()
        costs.append(report.makespan - whole.makespan)
    before, after = 2, 2  # events while the idle worker settles, and while both stop
    assert costs[:before] + costs[-after:] == pytest.approx([0.0] * (before + after))
    assert costs[before:-after] == pytest.approx([0.02] * (len(costs) - before - after))


def test_of_overlapping_freezes_the_latest_end_counts() -> None:
    program = recorded([0.03])
    plain = Simulation(1, program).run().makespan
    for faults, cost in (
        ([Freeze(1, 0, 0.02), Freeze(1, 0, 0.005)], 0.02),
        ([Freeze(1, 0, 0.005), Freeze(1, 0, 0.02)], 0.02),
    ):
        makespan = Simulation(1, program, faults=faults).run().makespan
        assert makespan == pytest.approx(plain + cost)


def test_a_worker_that_crawls_is_slow_in_its_tasks_and_in_its_answers() -> None:
    program = recorded([1e-3] * 40)
    plain = Simulation(1, program, faults=[]).run().makespan
    slow = Simulation(1, program, faults=[Crawl(1, 0, 1000)]).run().makespan
    assert slow == pytest.approx(plain / 40 + 39 * 1000 * plain / 40)  # since the first ended
    lame = Simulation(4, program, known=1e-3, speeds=[1, 1, 1, 1e-3], settle=False)
    crawls = Simulation(
        4, program, known=1e-3, speeds=[1, 1, 1, 1e-3], settle=False, faults=[Crawl(1, 3)]
    )
    lame.run()
    crawls.run()
    assert crawls.world.workers[3].sending == pytest.approx(1000 * lame.world.workers[3].sending)
    assert crawls.world.workers[3].clock > lame.world.workers[3].clock


def test_invariants_can_be_checked_at_any_time() -> None:
    simulation = Simulation(4, nested([5, 5], 1e-3))
    simulation.run()
    check_invariants(simulation.world)


# What the report says.


def a_failing_run(**options: Any) -> Report:
    """Return a run of which ``main`` raises while others are in the middle of long tasks."""
    failing = Script([1.0, 1e-3, Script(5e-3, KeyError("planned")), *[1.0] * 5])
    return Simulation(4, failing, seed=2, known=1.0, **options).run()


def test_work_and_idleness_are_those_until_main_raised() -> None:
    report = a_failing_run()
    assert isinstance(report.failure, KeyError)
    assert 0.0 < report.efficiency <= 1.0
    assert report.work <= report.makespan * 4
    assert all(0.0 <= idle <= report.makespan for idle in report.idle)
    assert sum(report.idle) == pytest.approx(4 * report.makespan - report.work)


@pytest.mark.parametrize("seed", range(30))
def test_all_counts_of_a_report_are_of_one_span(seed: int) -> None:
    simulation = random_simulation(seed)
    post = simulation.world.post
    sent: dict[str, list[tuple[int, int, str]]] = {}

    def spy(sender: Simulated, to: int, mail: Mail) -> None:
        told = " told" if sender.scheduler.stopping else ""
        kind = type(mail.message).__name__
        sent.setdefault(simulation.world.phase.value + told, []).append((sender.rank, to, kind))
        post(sender, to, mail)

    simulation.world.post = spy  # type: ignore[method-assign]
    report = simulation.run(400_000)
    meanwhile = sent.get("running", [])
    assert report.total_messages == len(meanwhile)
    assert report.root_messages == sum(0 in pair[:2] for pair in meanwhile)
    assert report.steals_asked == report.messages.get("StealRequest", 0)
    assert report.steals_won <= report.messages.get("Grant", 0) + report.settling
    assert report.settling == len(sent.get("settling", []))
    assert report.shutdown == len(sent["stopping told"]) >= 2 * 7
    assert report.late == len(sent.get("stopping", []))
    assert 0.0 <= report.efficiency <= 1.0 + 1e-9
    assert min(report.idle) >= -1e-12


def test_a_run_without_work_has_no_message_of_the_root_but_those_of_the_shutdown() -> None:
    report = Simulation(8, Script()).run()
    assert (report.total_messages, report.root_messages, report.steals_asked) == (0, 0, 0)
    assert report.shutdown == 14


def test_the_state_of_a_worker_is_the_most_that_it_ever_was() -> None:
    simulation = Simulation(64, flat(3000, exponential(1e-3), 1), seed=1)
    report = simulation.run()
    ends = [worker.scheduler.balancer for worker in simulation.world.workers]
    last = max(len(each.reports) + len(each.tied) + len(each.waiting) for each in ends)
    assert last < report.neighbourhood <= 38


def test_the_trace_tells_messages_of_different_sizes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(seconds_a_byte=0.0)
    one = simulate(1, network=network)
    monkeypatch.setattr("dtm.testing.mail.ITEM_BYTES", 10)
    other = simulate(1, network=network)
    assert (one.makespan, one.events) == (other.makespan, other.events)
    assert one.trace != other.trace


@pytest.mark.parametrize(
    ("message", "sender", "size"), [(Refusal(1), 2, 60), (Cancel(0, 1, 1), 1, 60)]
)
def test_the_trace_tells_senders_and_kinds_apart(message: Any, sender: int, size: int) -> None:
    def mark(message: Any, sender: int, size: int) -> Any:
        mail = Mail(Load(1, 0.0, idle=False), message, sender)
        mail.bytes = size
        return world.mark(mail)

    assert mark(Refusal(1), 1, 60) != mark(message, sender, size)
    assert mark(Refusal(1), 1, 60) != mark(Refusal(1), 1, 61)


@pytest.mark.parametrize("seed", range(10))
def test_results_that_come_twice_count_once(seed: int) -> None:
    simulation = random_simulation(seed, faults=[Echo(1e-4)])
    report = simulation.run(400_000)
    late = sum(worker.scheduler.ledger.dropped for worker in simulation.world.workers)
    assert late or not report.messages.get("Results")
