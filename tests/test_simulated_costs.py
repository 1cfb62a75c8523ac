"""What real machines cost besides, in virtual time: pickling, sleepers, shared cores."""

from __future__ import annotations

from typing import Any

import pytest

from dtm.testing import (
    Crawl,
    Freeze,
    Network,
    Script,
    Simulation,
    constant,
    exponential,
    flat,
    nested,
    random_simulation,
    recorded,
)
from dtm.testing.cores import Cores


def makespan(workers: int, program: Script, network: Network, **options: Any) -> float:
    """Return the time of a run in which a message costs nothing but what the network says."""
    return Simulation(workers, program, network=network, seed=1, **options).run().makespan


def free(**costs: Any) -> Network:
    """Return a network that costs nothing but what is given."""
    return Network(near=0.0, middle=0.0, far=0.0, seconds_a_byte=0.0, cpu=0.0, **costs)


def test_costs_that_are_not_given_change_nothing() -> None:
    program = nested([4, 4, 4], 1e-3)
    plain = Simulation(8, program, network=Network(), seed=3).run()
    spelled = Network(message_send=5e-6, message_receive=5e-6, spin=1.0, cores=64)
    assert Simulation(8, program, network=spelled, seed=3).run().trace == plain.trace
    asleep = Simulation(8, program, network=Network(cores=8), seed=3, patience=0.8e-3)
    assert asleep.run().trace == plain.trace


def test_the_two_ends_of_a_message_cost_what_each_is_said_to() -> None:
    program = recorded([1e-3] * 16)
    plain = makespan(2, program, free(), known=1e-3, patience=0.0)
    assert plain == pytest.approx(8e-3)
    for end in ("message_send", "message_receive"):
        costly = makespan(2, program, free(**{end: 1e-4}), known=1e-3, patience=0.0)
        assert 1e-4 <= costly - plain < 2e-3


@pytest.mark.parametrize("end", ["item_send", "item_receive", "result_send", "result_receive"])
def test_pickling_costs_so_much_an_item(end: str) -> None:
    program = recorded([1e-3] * 40)
    options: dict[str, Any] = {"known": 1e-3, "patience": 0.0}
    plain = makespan(2, program, free(), **options)
    assert plain == pytest.approx(20e-3)
    costly = Simulation(2, program, network=free(**{end: 1e-4}), seed=1, **options).run()
    # About 20 items go to the other worker, and what one of the two spends both share.
    assert 0.4e-3 < costly.makespan - plain < 4e-3
    assert costly.executed == 40
    assert costly.efficiency < 1.0


def test_the_root_bounds_a_map_of_items_that_cost_much_to_pickle() -> None:
    size, seconds = 48, 1e-3
    costs = {"item_send": 56e-6, "result_receive": 4e-6}
    network = Network(seconds_a_byte=0.0, **costs)
    program = flat(25 * size, exponential(seconds), seed=1)
    report = Simulation(size, program, network=network, known=seconds, seed=1).run()
    most = seconds / (network.item_send + network.result_receive)
    assert report.efficiency < most / size * 1.1
    assert report.efficiency > most / size * 0.4
    assert Simulation(size, program, known=seconds, seed=1).run().efficiency > 0.8


def test_items_that_cost_more_to_ship_than_they_take_stay_at_home() -> None:
    network = Network(item_send=1e-3, item_receive=1e-3)
    report = Simulation(4, flat(100, constant(1e-3), 0), network=network, known=1e-3).run()
    assert "Grant" not in report.messages


def test_who_sleeps_has_to_be_woken_unless_it_still_looks() -> None:
    network = Network(wake=50e-6, spin=20e-6)
    assert network.heard(1, 2, since=0.0, now=10e-6) == 10e-6
    assert network.heard(1, 2, since=0.0, now=30e-6) == pytest.approx(80e-6)
    program = recorded([1e-3] * 2)
    for wake in (0.0, 200e-6):
        network = Network(near=1e-6, seconds_a_byte=0.0, cpu=0.0, wake=wake)
        found = Simulation(2, program, network=network, known=1e-3, patience=0.0).run()
        assert found.spread == pytest.approx(1e-6 + wake)


def test_who_polls_hears_of_other_hosts_at_its_next_look() -> None:
    network = Network(host=2, poll=1e-3, spin=0.1e-3, wake=50e-6)
    assert network.heard(0, 3, since=1.0, now=1.00005) == 1.00005
    assert network.heard(0, 3, since=1.0, now=1.0002) == pytest.approx(1.0011)
    assert network.heard(0, 3, since=1.0, now=1.00205) == pytest.approx(1.0021)
    assert network.heard(2, 3, since=1.0, now=1.0002) == pytest.approx(1.00025)
    far = free(host=1, poll=1e-3)
    found = Simulation(2, recorded([1e-2] * 2), network=far, known=1e-2, patience=0.0).run()
    assert found.spread is not None
    assert found.spread < 1e-3 + 1e-9


@pytest.mark.parametrize(("workers", "cores"), [(2, 1), (4, 2), (8, 2), (3, 2), (4, 4)])
def test_bodies_that_compute_share_the_cores_and_bodies_that_sleep_do_not(
    workers: int, cores: int
) -> None:
    program = flat(20 * workers, constant(1e-3), 0)
    options: dict[str, Any] = {"known": 1e-3, "patience": 0.0}
    computing = Simulation(workers, program, network=free(cores=cores), **options).run()
    assert computing.makespan == pytest.approx(20e-3 * workers / cores, rel=0.1)
    assert computing.efficiency == pytest.approx(1.0, abs=0.1)
    assert computing.capacity == cores
    asleep = Simulation(workers, program, network=free(cores=cores), sleeping=True, **options).run()
    assert asleep.makespan == pytest.approx(20e-3, rel=0.05)
    assert asleep.capacity == workers


def test_messages_of_sleeping_bodies_queue_for_the_cores() -> None:
    program = flat(16 * 3, constant(1e-3), 0)
    costs = {"message_send": 50e-6, "message_receive": 50e-6}
    apart = makespan(16, program, free(**costs), known=1e-3, sleeping=True)
    together = makespan(16, program, free(cores=1, **costs), known=1e-3, sleeping=True)
    assert together > 1.3 * apart


class Body:
    """A worker of which only the end counts."""

    def __init__(self, end: float) -> None:
        self.end = end

    def ends(self, when: float) -> None:
        self.end = when


def test_a_body_is_faster_when_another_has_ended() -> None:
    cores, first, second = Cores(1), Body(10.0), Body(0.0)
    assert cores.begin(first, 0.0) == 1.0
    assert cores.begin(second, 4.0) == 0.5
    second.end = 4.0 + 2.0 / 0.5
    assert first.end == pytest.approx(16.0)
    cores.over(second, 8.0)
    cores.over(second, 8.0)
    assert first.end == pytest.approx(12.0)
    assert cores.share() == 1.0


def test_what_is_short_goes_first_and_one_after_the_other() -> None:
    cores, body, other = Cores(1), Body(10.0), Body(0.0)
    cores.begin(body, 0.0)
    assert cores.serve(other, 1.0, 0.5) == 1.5
    assert cores.serve(other, 1.0, 0.5) == 2.0
    assert body.end == pytest.approx(11.0)
    assert cores.serve(body, 3.0, 0.5) == 3.5
    assert body.end == pytest.approx(11.0)  # who interrupts itself accounts for it itself


@pytest.mark.parametrize("sleeping", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_every_law_holds_on_a_machine_that_costs(seed: int, *, sleeping: bool) -> None:
    network = Network(
        host=4, item_send=2e-6, item_receive=3e-6, result_send=1e-6, result_receive=2e-6,
        message_send=20e-6, message_receive=10e-6, wake=40e-6, spin=20e-6, poll=1e-3, cores=2,
    )  # fmt: skip
    faults = [Freeze(40, seed % 8, 5e-3), Crawl(80, (seed + 1) % 8, 3.0)]
    options: dict[str, Any] = {"network": network, "sleeping": sleeping, "faults": faults}
    report = random_simulation(seed, tasks=60, **options).run(400_000)
    assert report.executed > 0
    assert report.efficiency <= 1.0 + 1e-9
    assert report.trace == random_simulation(seed, tasks=60, **options).run(400_000).trace
