"""The figures that the balancer must reach, in virtual time: means over seeds.

Standard machine: 64 workers a host, 2 us inside, 50 us between hosts, 5 us of processor time at
each end of a message, an answer in the middle of a task after 0 to 0.8 ms.  The function of
the map is known, as from the second generation on.  ``DTM_BIG=1`` adds 16,384 workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from random import Random
from statistics import fmean

import pytest

from dtm.testing import (
    Network,
    Report,
    Script,
    Simulation,
    constant,
    exponential,
    flat,
    geometric,
    greedy_makespan,
)

NETWORK = Network(seconds_a_byte=0.0)
SEEDS = range(1, 6)
SIZES = [256, 1024]
if os.environ.get("DTM_BIG"):
    SIZES.append(16_384)

pytestmark = pytest.mark.timeout(3600)


def seeds(size: int) -> range:
    return SEEDS if size <= 1024 else range(1, 3)


def bar(size: int, *bars: float) -> float:
    """Return the bar for 256, 1,024 or 16,384 workers."""
    return bars[[256, 1024, 16_384].index(size)]


@cache
def run(size: int, mean: float, seed: int, kind: str) -> tuple[Report, float]:
    """Run a flat map; return the report and the ratio to the greedy queue."""
    law: Callable[[Random], float] = constant(mean) if kind == "half" else exponential(mean)
    program = flat(100 * size, law, seed)
    speeds = [0.5 if kind == "half" and rank % 2 else 1.0 for rank in range(size)]
    simulation = Simulation(
        size, program, network=NETWORK, speeds=speeds, seed=seed, known=mean, check=False
    )
    report = simulation.run()
    durations = next(program.steps())
    assert isinstance(durations, list)
    return report, greedy_makespan(durations, speeds) / report.makespan


def reports(size: int) -> list[Report]:
    return [run(size, 0.01, seed, "even")[0] for seed in seeds(size)]


def ratio(size: int, mean: float, kind: str) -> float:
    return fmean(run(size, mean, seed, kind)[1] for seed in seeds(size))


@pytest.mark.parametrize("size", SIZES)
def test_a_map_reaches_all_workers_at_once(size: int) -> None:
    spreads = [report.spread for report in reports(size)]
    assert fmean(spread or 9.0 for spread in spreads) <= bar(size, 0.3e-3, 0.4e-3, 0.6e-3)


@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_10_ms_is_as_good_as_a_central_queue_without_cost(size: int) -> None:
    assert ratio(size, 0.01, "even") >= bar(size, 0.98, 0.98, 0.97)


@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_1_ms_nearly_so(size: int) -> None:
    assert ratio(size, 0.001, "even") >= bar(size, 0.97, 0.96, 0.96)


@pytest.mark.parametrize("size", SIZES)
def test_half_of_the_workers_at_half_speed(size: int) -> None:
    assert ratio(size, 0.01, "half") >= bar(size, 0.96, 0.96, 0.94)


@pytest.mark.parametrize("size", SIZES)
def test_idle_workers_say_little_and_fall_silent(size: int) -> None:
    report = reports(size)[0]
    assert report.settling / size <= bar(size, 16, 18, 22)


@pytest.mark.parametrize("size", SIZES)
def test_messages_are_few_and_few_of_them_the_roots(size: int) -> None:
    assert fmean(r.total_messages for r in reports(size)) / size <= bar(size, 40, 40, 50)
    assert fmean(r.root_messages for r in reports(size)) / size <= bar(size, 8, 3, 0.5)


@pytest.mark.parametrize("size", SIZES)
def test_what_a_worker_knows_does_not_grow_with_their_number(size: int) -> None:
    assert max(report.neighbourhood for report in reports(size)) <= 48


@pytest.mark.parametrize("size", SIZES)
def test_the_shutdown_takes_two_messages_a_worker(size: int) -> None:
    assert {report.shutdown for report in reports(size)} == {2 * (size - 1)}


@pytest.mark.parametrize(("size", "height"), [(256, 10)])
def test_a_tree_search_scales(size: int, height: int) -> None:
    program = geometric(2, height, 4.0, 1e-3)
    assert isinstance(program, Script)
    report = Simulation(size, program, network=NETWORK, seed=2, check=False).run()
    assert report.efficiency >= 0.95
