"""What every task does and waits for, asked of a run under way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtm.errors import OptionError
from dtm.options import Options
from dtm.run.stack_dump import Found, Task, told
from tests.launch import PROGRAMS, environment, run

PROGRAM = str(PROGRAMS / "stalled.py")
SECONDS = 40


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """A run of three workers, one of which hangs: the process, the root's number, its stderr."""
    errors = tmp_path / "stderr"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, PROGRAM, str(SECONDS)], stdout=subprocess.PIPE, stderr=stderr,
            env=environment({"DTM_WORKERS": "3"}), text=True,
        )  # fmt: skip
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    time.sleep(1.0)  # for the maps before the one that hangs; asked too early, it answers too
    yield process, pid, errors
    process.send_signal(signal.SIGINT)
    process.wait(20)
    process.stdout.close()


def test_the_command_shows_who_runs_what_and_who_waits_for_it(
    hanging: tuple[subprocess.Popen[str], int, Path],
) -> None:
    _, pid, _ = hanging
    text = ""
    for _ in range(20):  # until the other workers have begun, on a busy machine
        done = run([sys.executable, "-m", "dtm", "stacks", str(pid)], environment(), 60)
        assert done.returncode == 0, done.stderr
        text = done.stdout
        if "what the tasks of 3 workers do" in text and "of map(hang) (" in text:
            break
        time.sleep(0.5)
    assert "what the tasks of 3 workers do" in text
    assert re.search(r"item 2 of map\(hang\) \(\d+\.\d s\)", text), text
    assert re.search(r'File ".*stalled.py", line \d+, in hang', text), text
    assert "in main" in text
    assert "dtm/run" not in text
    assert "threading.py" not in text


def test_a_signal_to_the_root_shows_it_on_stderr_and_changes_nothing(
    hanging: tuple[subprocess.Popen[str], int, Path],
) -> None:
    process, pid, errors = hanging
    os.kill(pid, signal.SIGUSR1)
    until = time.monotonic() + 20
    while "in hang" not in errors.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    assert "in hang" in errors.read_text()
    assert "threading.py" not in errors.read_text()
    assert process.poll() is None


def test_a_run_that_stalls_tells_by_itself_once() -> None:
    words = ["run", "-n", "2", "--stall-after", "1", PROGRAM, "4"]
    done = run([sys.executable, "-m", "dtm", *words], environment(), 60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "[[1, 2, 3]]"
    assert done.stderr.count("nothing has moved for 1 s") == 1, done.stderr
    assert "in hang" in done.stderr


def test_items_that_end_within_a_strip_are_movement() -> None:
    words = ["run", "-n", "2", "--stall-after", "1.6", PROGRAMS / "long_strips.py"]
    done = run([sys.executable, "-m", "dtm", *map(str, words)], environment(), 60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sum(range(160))}\n", "")


def test_a_run_that_moves_tells_nothing() -> None:
    words = ["run", "-n", "2", "--stall-after", "30", PROGRAM, "0.1"]
    done = run([sys.executable, "-m", "dtm", *words], environment(), 60)
    assert (done.returncode, done.stderr) == (0, "")


def test_who_is_no_root_is_not_signalled() -> None:
    with subprocess.Popen(["sleep", "30"]) as other:
        done = run([sys.executable, "-m", "dtm", "stacks", str(other.pid)], environment(), 60)
        assert done.returncode == 1
        assert "is not the root of a run under way" in done.stderr
        assert other.poll() is None
        other.kill()


def test_equal_stacks_are_told_together() -> None:
    frames = (("prog.py", 3, "main"), ("prog.py", 7, "evaluate"))
    answers = {
        rank: (Found("runs", "", (Task("map(evaluate)", rank + 10, 1.5),), frames),)
        for rank in range(8)
    }
    answers[8] = ()
    text = told(answers, [f"host{rank}" for rank in range(10)], [9], "")
    assert text.count('File "prog.py", line 7, in evaluate') == 1
    assert "workers 0 (host0), 1 (host1), 2 (host2), 3 (host3), 4 (host4) and 3 more: runs" in text
    assert "worker 1: item 11 of map(evaluate) (1.5 s)" in text
    assert "and 3 more like these" in text
    assert "worker 8 (host8): nothing to run" in text
    assert "worker 9 (host9): no answer within 2 s" in text


def test_what_a_task_waits_for_is_told() -> None:
    waiting = Found("put aside", "map(f), 3 of 9 results missing", (), ())
    text = told({0: (waiting,)}, ["here"], [], "")
    assert "worker 0: main; waits for map(f), 3 of 9 results missing" in text


@pytest.mark.parametrize("value", [None, -1, "soon", float("inf")])
def test_an_impossible_time_to_stall_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match="stallAfter"):
        Options(stallAfter=value)
