"""The figures that the balancer must reach, in virtual time: means over seeds.

The rows and their bars are those of :mod:`benchmarks.simulated`.  By default 16,384 workers
take part with one seed of one row, and tree searches with 256 workers; ``DTM_BIG=1``
measures everything with the full number of seeds, which takes hours.
"""

from __future__ import annotations

import os
from functools import cache
from statistics import fmean
from typing import Any

import pytest

from benchmarks.simulated import AT_LEAST, AT_MOST, NETWORK, SEEDS, SIZES, Measured, measured
from dtm.testing import Calls, Script, Simulation

BIG = bool(os.environ.get("DTM_BIG"))


def _together(row: str, size: int) -> Any:
    """Return a parameter: what looks at the same figures runs in the process that has them."""
    marks = [pytest.mark.xdist_group(f"balancing {row} {size}")]
    fast = size == SIZES[0] and row == FLAT[0]
    return pytest.param(row, size, marks=marks if fast else [*marks, pytest.mark.slow])


FLAT = ("flat 10 ms", "flat 1 ms", "half speed")
LARGEST = SIZES[-1]
FLATS = [
    (row, size) for row in FLAT for size in SIZES if BIG or size < LARGEST or row == "flat 10 ms"
]
TREES = [("geometric tree", size) for size in (SIZES if BIG else SIZES[:1])]
RATIOS = [_together(row, size) for row, size in FLATS + TREES]

pytestmark = pytest.mark.timeout(7200)


@cache
def figures(row: str, size: int) -> list[Measured]:
    """Run a row with as many seeds as there is time for."""
    few = not BIG and (size == LARGEST or row.endswith("tree"))
    return [measured(row, size, seed) for seed in range(1, 2 if few else SEEDS + 1)]


def mean(name: str, row: str, size: int) -> float:
    return fmean(getattr(found, name) for found in figures(row, size))


@pytest.mark.parametrize(("row", "size"), RATIOS)
def test_no_more_time_is_lost_than_the_bar_says(row: str, size: int) -> None:
    assert mean("ratio", row, size) >= AT_LEAST[row][SIZES.index(size)]


@pytest.mark.parametrize(("row", "size"), [_together("flat 10 ms", size) for size in SIZES])
@pytest.mark.parametrize("name", AT_MOST)
def test_spread_and_messages_of_a_map_keep_their_bars(name: str, row: str, size: int) -> None:
    assert mean(name, row, size) <= AT_MOST[name][SIZES.index(size)]


@pytest.mark.parametrize(("row", "size"), RATIOS)
def test_what_a_worker_knows_does_not_grow_with_their_number(row: str, size: int) -> None:
    assert max(found.state for found in figures(row, size)) <= 48


@pytest.mark.parametrize(("row", "size"), RATIOS)
def test_the_shutdown_takes_two_messages_a_worker(row: str, size: int) -> None:
    assert {found.shutdown for found in figures(row, size)} == {2 * (size - 1)}
    assert all(found.spread_ms > 0.0 for found in figures(row, size))


@pytest.mark.xdist_group("balancing by itself")
def test_what_looks_at_the_same_figures_runs_in_one_process(request: pytest.FixtureRequest) -> None:
    """Else each process would measure them anew; pytest 9.2 once lost sight of the groups."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("without -n there is one process")
    assert request.node.nodeid.endswith("@balancing by itself")


@pytest.mark.parametrize("size", [4, 16, 64])
@pytest.mark.parametrize("kind", [list, Calls])
def test_as_many_long_tasks_as_workers_keep_all_of_them_busy(kind: type, size: int) -> None:
    """Also where the idle ones stand behind others, which run their only task."""
    step = kind([1.0] * size)
    report = Simulation(size, Script(0.05, step, step, step), network=NETWORK, seed=1).run()
    assert report.makespan <= 3.05 * 1.05


@pytest.mark.slow
def test_a_binomial_tree_stays_where_it_was_brought() -> None:
    """It misses its bar; docs/balancer.rst says why."""
    assert measured("binomial tree", 256, seed=3).ratio >= 0.78
