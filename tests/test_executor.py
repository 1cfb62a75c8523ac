"""``dtm.Executor`` does what an executor does, by CPython's own tests and by ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtm import dtm
from tests import checks, cpython_executor, their_tests
from tests.launch import PROGRAMS

PROGRAM = PROGRAMS / "executors.py"
PLACES = checks.places(PROGRAM, "local-3", "local-1", "mpi-3")
LEAST_ASKED = 15


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("check", checks.names(PROGRAM))
def test_in_a_run(check: str, place: str) -> None:
    checks.assert_kept(PROGRAM, place, check)


@pytest.mark.parametrize("place", PLACES)
def test_the_run_ends_well(place: str) -> None:
    checks.assert_ended_well(PROGRAM, place)


def test_cpythons_own_tests_of_executors() -> None:
    cases = cpython_executor.cases()
    if not cases:
        pytest.skip("this Python came without test.test_concurrent_futures")
    asked = their_tests.names(cases, cpython_executor.NOT_ASKED)
    assert len(asked) >= LEAST_ASKED
    verdicts = checks.verdicts_of(Path(cpython_executor.__file__), "local-3")
    wrong = [f"{name}: {verdicts.get(name)}" for name in asked if verdicts.get(name) != "ok"]
    assert not wrong, "\n".join(wrong)


def test_outside_of_a_run_an_executor_is_this_process() -> None:
    with dtm.Executor() as executor:
        assert executor.submit(pow, 2, 5).result() == 32
        assert list(executor.map(abs, [-1, 2])) == [1, 2]
