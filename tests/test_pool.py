"""``dtm.Pool`` does what a ``multiprocessing.Pool`` does, by CPython's own tests and by ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtm import dtm
from tests import checks, cpython_pool, their_tests
from tests.launch import PROGRAMS

PROGRAM = PROGRAMS / "pools.py"
PLACES = checks.places(PROGRAM, "local-3", "local-1", "mpi-3")
LEAST_ASKED = 20


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("check", checks.names(PROGRAM))
def test_in_a_run(check: str, place: str) -> None:
    checks.assert_kept(PROGRAM, place, check)


@pytest.mark.parametrize("place", PLACES)
def test_the_run_ends_well(place: str) -> None:
    checks.assert_ended_well(PROGRAM, place)


def test_cpythons_own_tests_of_pools() -> None:
    pytest.importorskip("test._test_multiprocessing", reason="this Python came without its tests")
    asked = their_tests.names(cpython_pool.cases(), cpython_pool.NOT_ASKED)
    assert len(asked) >= LEAST_ASKED
    verdicts = checks.verdicts_of(Path(cpython_pool.__file__), "local-3")
    wrong = [f"{name}: {verdicts.get(name)}" for name in asked if verdicts.get(name) != "ok"]
    assert not wrong, "\n".join(wrong)


def test_outside_of_a_run_a_pool_is_this_process() -> None:
    with dtm.Pool() as pool:
        assert pool.size == 1
        assert pool.map(abs, [-1, 2]) == [1, 2]
        assert list(pool.imap(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
        assert pool.apply_async(int, ("7",)).get(10) == 7
