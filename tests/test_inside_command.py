"""``dtm run --inside``: one worker runs the program, all of them its calls."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.launch import Completed, environment, mpi_prefix, run

WAYS = {
    "local": (["-m", "dtm", "-n", "3"], 0),
    "tcp": (["-m", "dtm", "--comm", "tcp", "-n", "3"], 0),
    "mpi": (["-m", "dtm"], 3),
    "alone": (["-m", "dtm", "-n", "1"], 0),
}
REFUSED = (
    "dtm run --inside has begun the run before the program: give options on its command line, "
    "dtm run --help tells which there are"
)
BODY = """
    import os, sys, time
    import dtm

    step = 1

    class Found:
        def __init__(self, x):
            self.x = x + step

    def found(x):
        time.sleep(0.005)
        return Found(x), os.getpid()

    def all_of(function, least):
        pids = set()
        while len(pids) < least:
            values, seen = zip(*dtm.map(function, range(60)))
            pids |= set(seen)
        return values
"""


def run_inside(tmp_path: Path, way: str, body: str, *arguments: str) -> Completed:
    """Run a program with ``--inside``, started in one of the ways."""
    script = tmp_path / "script.py"
    script.write_text(dedent(BODY) + dedent(body))
    options, ranks = WAYS[way]
    prefix = mpi_prefix(ranks) if ranks else []
    command = [*prefix, sys.executable, *options, "--inside", str(script), *arguments]
    return run(command, environment(), 60.0)


@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_never_starts_a_run_has_one(tmp_path: Path, way: str) -> None:
    workers = 1 if way == "alone" else 3
    body = f"""
    print("once", sys.argv[1:], dtm.size(), dtm.getWorkerId())
    values = all_of(found, {workers})
    assert all(type(each) is Found for each in values)
    assert [each.x for each in values] == list(range(1, 61))
    step = 7
    assert [each.x for each in all_of(found, {workers})] == list(range(7, 67))
    """
    done = run_inside(tmp_path, way, body, "-n", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"once ['-n', '5'] {workers} 0\n"


@pytest.mark.parametrize("way", ["local", "mpi"])
def test_what_the_program_begins_itself_is_a_part_of_that(tmp_path: Path, way: str) -> None:
    body = """
    def main(text):
        return text, len(all_of(found, 3)), dtm.size()

    with dtm.run(workers=2) as block:
        print(main("block"), block)
    dtm.start()
    dtm.stop()
    print(dtm.start(main, text="started"))
    print(main("after"))
    try:
        dtm.setOptions(seed=1)
    except dtm.RunStateError as error:
        print(error)
    """
    done = run_inside(tmp_path, way, body)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "('block', 60, 3) <dtm.run: 3 workers>",
        "('started', 60, 3)",
        "('after', 60, 3)",
        REFUSED,
    ]


@pytest.mark.parametrize("way", ["local", "tcp", "mpi"])
def test_the_programs_status_is_the_runs(tmp_path: Path, way: str) -> None:
    done = run_inside(tmp_path, way, "all_of(found, 3)\nsys.exit(7)")
    assert done.returncode == 7
    done = run_inside(tmp_path, way, "all_of(found, 3)\nraise ValueError('mine')")
    assert done.returncode == 1
    assert "ValueError: mine" in done.stderr
    assert "runpy" not in done.stderr
    assert "inside.py" not in done.stderr


def test_a_module_runs_inside(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(dedent(BODY) + "print(len(all_of(found, 3)))\n")
    command = [sys.executable, "-m", "dtm", "-n", "3", "--inside", "-m", "mine"]
    done = run(command, environment({"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}), 60.0)
    assert (done.returncode, done.stdout, done.stderr) == (0, "60\n", "")


def test_what_is_wrong_with_the_start_is_one_line(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('never')")
    command = [sys.executable, "-m", "dtm", "--comm", "no.such.Manager", "--inside", str(script)]
    done = run(command, environment(), 60.0)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("dtm: option communicationManager: cannot import")
    assert done.stderr.count("\n") == 1


def test_a_program_under_mpi_without_a_run_is_told_how(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import dtm\ndtm.map(len, ['a'])\n")
    done = run([*mpi_prefix(2), sys.executable, str(script)], environment(), 60.0)
    assert done.returncode == 0
    assert done.stderr.count("dtm run --inside") == 2
