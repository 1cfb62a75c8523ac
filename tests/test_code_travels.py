"""Functions, classes and objects go to other workers, however they were made."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests.launch import PROGRAMS, Completed, Launcher, environment, launchers, run

TRAVELLING = PROGRAMS / "travelling.py"
EVERY_WAY = launchers("local-2", "local-3", "mpi-3", "tcp-3")
SPOILED = PROGRAMS / "spoiled_imports.py"
AFTER_SPOILING = {
    "timeout": True,
    "on_error": 4,
    "return_exceptions": 4,
    "executor": 4,
    "pool": 4,
    "nested": 120,
    "stacks": "",  # as many items as are asked for; the last, since its answer goes to stderr
}
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
    done = launcher.run(SPOILED, launcher.workers, "elsewhere", "error")
    assert (done.returncode, done.stdout) == (0, "error its own error\n"), done.stderr


@pytest.mark.parametrize("where", ["elsewhere", "everywhere"])
@pytest.mark.parametrize("launcher", launchers("local-3", "mpi-3", "tcp-3"))
def test_every_feature_works_where_a_task_has_spoiled_imports(
    launcher: Launcher, where: str
) -> None:
    done = launcher.run(SPOILED, launcher.workers, where, *AFTER_SPOILING, timeout=110)
    expected = [f"{name} {result}" for name, result in AFTER_SPOILING.items()]
    expected[-1] = f"stacks {4 * launcher.workers}"
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr
    assert f"dtm: what the tasks of {launcher.workers} workers do" in done.stderr
    assert "Error" not in done.stderr


def test_the_summary_is_printed_where_a_task_has_spoiled_imports() -> None:
    command = [sys.executable, "-m", "dtm", "-n", "2", "--summary", SPOILED, 2, "everywhere"]
    done = run([*map(str, command), "nested"], environment(), 60)
    assert (done.returncode, done.stdout) == (0, "nested 120\n"), done.stderr
    assert "workers" in done.stderr
    assert "Error" not in done.stderr


@pytest.mark.parametrize("launcher", launchers("local-3", "mpi-3"))
def test_what_goes_along_with_functions_does_not_stay(launcher: Launcher) -> None:
    done = launcher.run(PROGRAMS / "bounded_memory.py", launcher.workers, timeout=110)
    assert done.returncode == 0, done.stderr
    grown = dict(line.split() for line in done.stdout.splitlines())
    assert grown.keys() == {"closure", "partial"}
    assert all(int(megabytes) <= 70 for megabytes in grown.values()), grown  # of 400


@pytest.mark.parametrize("launcher", launchers("local-3", "mpi-3"))
def test_an_object_that_calls_dtm_while_it_is_pickled_stays_and_harms_nobody(
    launcher: Launcher,
) -> None:
    done = launcher.run(PROGRAMS / "calls_from_within.py", launcher.workers)
    expected = [f"{kind} True" for kind in ("Calling", "Waiting", "int") for _ in range(3)]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr
    assert "cannot call dtm while it is pickled" in done.stderr


@pytest.mark.parametrize("launcher", EVERY_WAY)
def test_a_function_that_cannot_be_sent_is_told_once_with_what_to_do(launcher: Launcher) -> None:
    done = launcher.run(PROGRAMS / "unsendable_function.py", launcher.workers)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "cannot be sent" in line]
    assert "the function of map(Guarded): " in line
    assert ".lock" in line
    assert "would travel by its name" in line
