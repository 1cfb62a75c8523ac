"""A program becomes a run however it is started, and runs serially where it cannot."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dtm.comm.mpi.environment import is_inherited, leave_mark
from dtm.commands.run import VARIABLES
from tests.launch import (
    PROGRAMS,
    ROOT,
    Completed,
    Launcher,
    environment,
    find_mpirun,
    launchers,
    mpi_prefix,
    run,
)

MPI_AT_TOP = PROGRAMS / "mpi_at_top.py"
STARTING = PROGRAMS / "starting.py"
INSIDE = PROGRAMS / "inside.py"
LIMIT = 60.0
SCENARIOS = re.findall(r"^def (check_\w+)", INSIDE.read_text(), re.MULTILINE)
without_mpi = pytest.mark.skipif(find_mpirun() is None, reason="there is no mpirun")
WAYS = ["local", pytest.param("mpi", marks=without_mpi)]


def start(
    *arguments: str,
    wanted: int = 3,
    way: str = "local",
    env: dict[str, str] | None = None,
    cwd: Path = ROOT,
    stdin: str = "",
) -> Completed:
    """Run Python with the arguments, on three workers."""
    prefix = mpi_prefix(3) if way == "mpi" else []
    variables = {"WANTED": str(wanted), **({"DTM_WORKERS": "3"} if way == "local" else {})}
    command = [*prefix, sys.executable, *arguments]
    return run(command, environment(variables | (env or {})), LIMIT, cwd=cwd, stdin=stdin)


def seen(done: Completed, workers: int = 3) -> list[dict[str, Any]]:
    """Return what the workers saw; all of them are there, and the root has printed once."""
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 1, done.stdout
    assert [each["worker"] for each in found[0]] == list(range(workers)), done.stderr
    result: list[dict[str, Any]] = found[0]
    return result


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Make a directory with the program as a module, a package, a directory and a zip."""
    shutil.copy(STARTING, tmp_path / "alone.py")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    shutil.copy(STARTING, tmp_path / "package" / "__main__.py")
    (tmp_path / "directory").mkdir()
    shutil.copy(STARTING, tmp_path / "directory" / "__main__.py")
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.write(STARTING, "__main__.py")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dtm").write_text("from dtm.__main__ import console\nconsole()\n")
    return tmp_path


HOW = {
    "a relative path": ["alone.py"],
    "a module": ["-m", "alone"],
    "a package": ["-m", "package"],
    "a directory": ["directory"],
    "a zip": ["program.zip"],
    "options of Python": ["-O", "-X", "utf8", "-W", "ignore", "alone.py"],
    "without a guard": ["alone.py", "--no-guard"],
    "after a change of directory": ["alone.py", "--chdir"],
    "dtm": ["-m", "dtm", "alone.py"],
    "dtm and a module": ["-m", "dtm", "-m", "alone"],
    "dtm and a package": ["-m", "dtm", "-m", "package"],
    "dtm and a directory": ["-m", "dtm", "directory"],
    "dtm and a zip": ["-m", "dtm", "program.zip"],
    "the installed command": ["bin/dtm", "alone.py"],
    "the installed command and a module": ["bin/dtm", "-m", "alone"],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", HOW)
def test_every_form_of_a_program(package: Path, way: str, how: str) -> None:
    arguments = ["--text", "two words", "-n", "7", ""]
    found = seen(start(*HOW[how], *arguments, way=way, cwd=package))
    for each in found:
        assert each["arguments"][-5:] == arguments
        assert each["module"] == "__main__"
        assert each["optimized"] == ("-O" in HOW[how])
        assert each["directory"] == ("/" if "--chdir" in HOW[how] else str(package))
        assert each["variables"] == (["DTM_WORKERS"] if way == "local" else [])
        assert each["stdin"] == ""


# What would be started.


@pytest.mark.parametrize("option", ["--dry-run", "--dry"])
@pytest.mark.parametrize("options", [["-n", "2"], ["--comm", "tcp", "-n", "2"], ["-n", "1"]])
def test_a_dry_run_tells_the_command_of_the_workers(option: str, options: list[str]) -> None:
    done = start("-m", "dtm", *options, option, str(STARTING), "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"-m dtm {shlex.join([*options, str(STARTING), '--dry-run'])}\n")


def test_without_words_the_command_asks_for_the_program_alone() -> None:
    done = start("-m", "dtm")
    assert done.returncode == 2
    assert done.stderr.endswith("the following arguments are required: PROGRAM\n")


def test_the_help_of_run_names_every_variable() -> None:
    said = start("-m", "dtm", "run", "--help").stdout
    assert all(variable in said for variable in VARIABLES.values())


def test_a_variable_that_means_nothing_is_told_of_once() -> None:
    done = start("-m", "dtm", str(STARTING), env={"DTM_HOSTS": "hosts.txt"})
    said = "dtm: DTM_HOSTS means nothing to dtm; dtm run --help names the variables that do\n"
    assert (done.returncode, done.stderr) == (0, said)


# How many workers.


def test_the_command_line_says_how_many() -> None:
    seen(start("-m", "dtm", "-n", "2", str(STARTING), "-n", "5", wanted=2), 2)
    seen(start("-m", "dtm", "--workers", "2", str(STARTING), wanted=2), 2)


def test_by_default_there_is_a_worker_for_each_core_of_the_process() -> None:
    cores = sorted(os.sched_getaffinity(0))
    found = start(str(STARTING), wanted=len(cores), env={"DTM_WORKERS": ""})
    seen(found, len(cores))
    taskset = shutil.which("taskset")
    if taskset is None:
        pytest.skip("there is no taskset")
    command = [taskset, "-c", str(cores[0]), sys.executable, str(STARTING)]
    seen(run(command, environment({"WANTED": "1"}), LIMIT), 1)


@pytest.mark.slow
@without_mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_launcher_says_how_many(ranks: int) -> None:
    command = [*mpi_prefix(ranks), sys.executable, str(STARTING)]
    variables = {"WANTED": str(ranks), "DTM_WORKERS": "5"}
    seen(run(command, environment(variables), LIMIT), ranks)


def test_one_worker_needs_no_second_process(tmp_path: Path) -> None:
    program = tmp_path / "one.py"
    program.write_text(
        "import threading, os\n"
        "from dtm import dtm\n"
        "def main():\n"
        "    return sum(dtm.map(abs, range(100))), threading.active_count()\n"
        "print(dtm.start(main))\n"
    )
    done = start(str(program), env={"DTM_WORKERS": "1"})
    assert (done.stdout, done.stderr) == ("(4950, 1)\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-n", "0", "x.py"], "workers"),
        (["-n", "many", "x.py"], "workers"),
        (["nowhere.py"], "nowhere.py"),
        (["-m", "no.such.module"], "no.such"),
        ([], "PROGRAM"),
        (["--comm", "mpy", str(STARTING)], "mpi"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(arguments: list[str], words: str) -> None:
    done = start("-m", "dtm", *arguments)
    assert done.returncode != 0
    assert words in done.stderr


# Threads of numeric libraries.


def test_workers_have_one_numeric_thread_each_unless_the_user_said_otherwise() -> None:
    root, *others = seen(start(str(STARTING)))
    if "OMP_NUM_THREADS" not in os.environ:
        assert [each["threads"] for each in (root, *others)] == ["1", "1", "1"]
    found = seen(start(str(STARTING), env={"OMP_NUM_THREADS": "4"}))
    assert [each["threads"] for each in found] == ["4", "4", "4"]


# Where there is nothing to run again.

SERIAL = """
import sys, json, time
from dtm import dtm
def look(x):
    time.sleep(0.001)
    return x + dtm.getWorkerId()
def main():
    return sum(dtm.map(look, range(50)))
print(json.dumps(dtm.start(main)))
"""


@pytest.mark.parametrize("how", ["-c", "stdin", "-", "interactive", "-i"])
def test_a_program_that_cannot_be_run_again_runs_serially_and_says_so(
    tmp_path: Path, how: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(SERIAL)
    lines = SERIAL.replace("\ndef", "\n\ndef").replace("\nprint", "\n\nprint")
    arguments, stdin = {
        "-c": (["-c", SERIAL], ""),
        "stdin": ([], SERIAL),
        "-": (["-", "argument"], SERIAL),
        "interactive": (["-i", "-q"], lines),
        "-i": (["-i", str(program)], "exit()\n"),
    }[how]
    done = start(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1225\n", done.stderr
    said = [line for line in done.stderr.splitlines() if "dtm:" in line]
    assert len(said) == 1, done.stderr
    assert "serially" in said[0]


def test_without_a_start_the_functions_run_serially_and_say_so_once(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from dtm import dtm\n"
        "print(dtm.map(abs, [-1, -2]), dtm.apply(abs, -3), dtm.getWorkerId())\n"
        "print(list(dtm.imap(abs, [-4])), dtm.map_async(abs, [-5]).get())\n"
        "print(dtm.start(lambda: dtm.map(abs, [-6])))\n"
    )
    done = start(str(program), env={"DTM_WORKERS": "1"})
    assert done.stdout == "[1, 2] 3 0\n[4] [5]\n[6]\n", done.stderr
    assert done.stderr.count("dtm:") == 1
    assert "dtm.start(main)" in done.stderr


# Tasks that do what programs do.


@pytest.fixture(scope="module", params=launchers("local-1", "local-2", "local-3", "mpi-3", "tcp-3"))
def report(request: pytest.FixtureRequest) -> tuple[dict[str, str], Completed]:
    """Return the outcomes of all scenarios of one run."""
    launcher: Launcher = request.param
    done = launcher.run(INSIDE, launcher.workers, timeout=110)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: line["outcome"] for line in lines}, done


@pytest.mark.parametrize("name", SCENARIOS)
def test_inside_of_tasks(report: tuple[dict[str, str], Completed], name: str) -> None:
    outcomes, done = report
    assert outcomes.get(name) == "kept", outcomes.get(name, done.stderr)


def test_a_run_is_inherited_by_what_a_rank_starts_but_not_by_a_launcher_in_it() -> None:
    environ = {"PMIX_NAMESPACE": "job@1", "PMIX_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    assert not is_inherited(environ)
    leave_mark(environ)
    assert is_inherited(environ | {"PMIX_MCA_psec": "native"})
    assert not is_inherited(environ | {"PMIX_NAMESPACE": "job@2"})


@pytest.mark.slow
@without_mpi
def test_a_task_may_start_an_mpi_run_of_its_own(tmp_path: Path) -> None:
    program = tmp_path / "outer.py"
    program.write_text(
        "import subprocess, sys\n"
        "from dtm import dtm\n"
        "def inner(_):\n"
        "    return subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True).stdout\n"
        "def main():\n"
        "    print(dtm.apply(inner, 1), end='')\n"
        "dtm.start(main)\n"
    )
    command = [*mpi_prefix(2), sys.executable, str(STARTING)]
    done = start(str(program), *command, wanted=2, env={"DTM_WORKERS": "2"})
    seen(done, 2)


def test_the_command_is_installed_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dtm", "run", "--help"],
        capture_output=True, text=True, timeout=LIMIT, check=True, env=environment(),
    )  # fmt: skip
    assert "--workers" in done.stdout


@without_mpi
def test_a_program_that_initialises_mpi_ends_well_and_may_go_on_after_the_run() -> None:
    done = start(str(MPI_AT_TOP), way="mpi")
    assert (done.returncode, done.stdout) == (0, "10000\nfinalised False\n"), done.stderr
    assert done.stderr == ""
