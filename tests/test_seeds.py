"""With a seed, the numbers are the same on any number of workers, however they are joined."""

from __future__ import annotations

import ast
import functools

import pytest

from tests.launch import PROGRAMS, Completed, Launcher, launchers

SEEDED = PROGRAMS / "seeded.py"
EVERY_WAY = launchers("local-1", "local-2", "local-3", "mpi-3", "tcp-3")


@pytest.fixture(params=EVERY_WAY)
def launcher(request: pytest.FixtureRequest) -> Launcher:
    made: Launcher = request.param
    return made


def output_of(launcher: Launcher, *arguments: str, **env: str) -> str:
    done: Completed = launcher.run(SEEDED, launcher.workers, *arguments, env=env)
    assert done.returncode == 0, done.stderr
    assert f"workers {list(range(launcher.workers))}" in done.stderr
    return done.stdout


@functools.cache
def reference() -> str:
    """Return what one worker prints."""
    return output_of(Launcher("local", 1), "seed")


def test_numbers_do_not_depend_on_the_workers(launcher: Launcher) -> None:
    assert output_of(launcher, "seed").splitlines() == reference().splitlines()


def test_items_have_different_numbers_and_calls_too() -> None:
    lines = dict(line.split(" ", 1) for line in reference().splitlines())
    rows = ast.literal_eval(lines["map"]) + ast.literal_eval(lines["again"])
    for column in list(zip(*rows, strict=True))[1:]:
        assert len(set(column)) == 120
    for row in rows:  # dtm.random() begins where Python's own does, the others elsewhere
        assert len(set(row[1:])) == len(row) - 2


@pytest.mark.slow
def test_the_seed_may_come_from_the_environment() -> None:
    assert output_of(Launcher("local", 2), DTM_SEED="42") == reference()
    assert output_of(Launcher("local", 2), DTM_SEED="43") != reference()


def test_the_environment_goes_before_the_program() -> None:
    assert output_of(Launcher("local", 2), "seed", DTM_SEED="43") != reference()


@pytest.mark.slow
def test_without_a_seed_each_run_has_its_own_numbers() -> None:
    first, second = (output_of(Launcher("local", 2)).splitlines() for _ in range(2))
    assert all(one != other for one, other in zip(first, second, strict=True))
