"""Each example runs, as its header says, on one worker, on two, and under MPI."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.launch import ROOT, Launcher, launchers, run_local

EXAMPLES = ROOT / "examples"


@pytest.fixture(params=launchers("local-1", "local-2", "mpi-2"))
def launcher(request: pytest.FixtureRequest) -> Launcher:
    chosen: Launcher = request.param
    return chosen


def output_of(launcher: Launcher, name: str, *args: object) -> str:
    done = launcher.run(EXAMPLES / name, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def number_after(words: str, output: str) -> float:
    found = re.search(re.escape(words) + r"\s*(\S+)", output)
    assert found, f"{words!r} is not in {output!r}"
    return float(found[1])


def test_overview_prints_its_result_once(launcher: Launcher) -> None:
    assert output_of(launcher, "overview.py") == "999 results, sum 499507.484471\n"


def test_pi_is_about_right_and_the_same_on_any_number_of_workers(launcher: Launcher) -> None:
    output = output_of(launcher, "pi.py")
    assert abs(number_after("pi is about", output) - 3.14159) < 0.01
    assert output == output_of(Launcher("local", 1), "pi.py")


def test_primes_are_counted(launcher: Launcher) -> None:
    output = output_of(launcher, "primes.py", 100_000)
    assert output == "9592 primes below 100000, the last ones [99971, 99989, 99991]\n"


def test_tree_has_all_its_nodes(launcher: Launcher) -> None:
    output = output_of(launcher, "tree.py", "--depth", 6, "--branches", 3)
    assert output.startswith("1093 nodes, 729 leaves\n")


def test_shell_scheduler_runs_the_commands_of_a_file(launcher: Launcher) -> None:
    output = output_of(launcher, "shell_scheduler.py")
    assert "    hello from a task\n" in output
    assert output.endswith("4 commands, 0 failed\n")


def test_shell_scheduler_reports_exit_codes_in_order(tmp_path: Path) -> None:
    commands = tmp_path / "commands.txt"
    commands.write_text("exit 3\n\n# a remark\necho out; echo err >&2\nkill -TERM $$\n")
    done = run_local(EXAMPLES / "shell_scheduler.py", 2, commands)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "[1/3] exit 3: exit 3",
        "[2/3] exit 0: echo out; echo err >&2",
        "    out",
        "    err",
        "[3/3] exit 143: kill -TERM $$",
        "3 commands, 2 failed",
    ]


def test_onemax_finds_nearly_all_ones(launcher: Launcher) -> None:
    pytest.importorskip("deap")
    output = output_of(launcher, "onemax.py")
    assert number_after("generations:", output) >= 95


def test_symbolic_regression_comes_close(launcher: Launcher) -> None:
    pytest.importorskip("deap")
    output = output_of(launcher, "symbreg.py", "--generations", 10, "--size", 200)
    assert number_after("mean square error:", output) < 0.5


def test_cmaes_reaches_the_minimum(launcher: Launcher) -> None:
    pytest.importorskip("deap")
    output = output_of(launcher, "cmaes.py")
    assert number_after("120 generations:", output) < 1e-9


def test_steady_state_improves_on_its_first_population(launcher: Launcher) -> None:
    pytest.importorskip("deap")
    output = output_of(launcher, "steady_state.py")
    assert number_after("3000 evaluations:", output) < number_after("first 60:", output) / 10


@pytest.mark.parametrize("grain", [1000, 50])
def test_unbalanced_tree_search_counts_what_the_sequential_program_counts(
    launcher: Launcher, grain: int
) -> None:
    output = output_of(launcher, "uts.py", "--depth", 7, "--grain", grain, "--check")
    assert output.startswith("63914 nodes\n")
    assert output.endswith("63914 nodes\n")
