"""Functions, classes and objects go to other workers, however they were made."""

from __future__ import annotations

import json
import re

import pytest

from tests.launch import PROGRAMS, Completed, Launcher, launchers

TRAVELLING = PROGRAMS / "travelling.py"
EVERY_WAY = launchers("local-2", "local-3", "mpi-3", "tcp-3")
SCENARIOS = re.findall(r"^def (check_\w+)", TRAVELLING.read_text(), re.MULTILINE)

Report = tuple[dict[str, str], Completed]


@pytest.fixture(scope="module", params=EVERY_WAY)
def report(request: pytest.FixtureRequest) -> Report:
    """Return the outcomes of all scenarios of one run."""
    launcher: Launcher = request.param
    done = launcher.run(TRAVELLING, launcher.workers, timeout=110)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: line["outcome"] for line in lines}, done


@pytest.mark.parametrize("name", SCENARIOS)
def test_travelling(report: Report, name: str) -> None:
    outcomes, done = report
    assert outcomes.get(name) == "kept", outcomes.get(name, done.stderr)


def test_nothing_is_complained_of(report: Report) -> None:
    _, done = report
    assert done.returncode == 0, done.stderr
    assert done.stderr == "all run\n"


@pytest.mark.parametrize("launcher", EVERY_WAY)
def test_what_goes_by_reference_does_without_dill(launcher: Launcher) -> None:
    done = launcher.run(PROGRAMS / "by_reference.py", launcher.workers)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{[(worker, False) for worker in range(launcher.workers)]}\n"


@pytest.mark.parametrize("launcher", EVERY_WAY)
def test_the_error_of_a_task_that_has_spoiled_imports_comes_home(launcher: Launcher) -> None:
    done = launcher.run(PROGRAMS / "spoiled_imports.py", launcher.workers)
    assert (done.returncode, done.stdout) == (0, "its own error\n"), done.stderr


@pytest.mark.parametrize("launcher", launchers("local-3", "mpi-3"))
def test_what_goes_along_with_functions_does_not_stay(launcher: Launcher) -> None:
    done = launcher.run(PROGRAMS / "bounded_memory.py", launcher.workers, timeout=110)
    assert done.returncode == 0, done.stderr
    grown = dict(line.split() for line in done.stdout.splitlines())
    assert grown.keys() == {"closure", "partial"}
    assert all(int(megabytes) <= 70 for megabytes in grown.values()), grown  # of 400
