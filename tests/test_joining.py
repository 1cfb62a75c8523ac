"""Workers that join by hand, and that a run's secret shows nowhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.manager import TcpManager
from dtm.launch.joining import check
from tests import launch
from tests.launch import PROGRAMS, Started
from tests.tcp_programs import running

SPREAD = PROGRAMS / "spread.py"
LIMIT = 60.0
SAID = re.compile(r"dtm:   (.* -m dtm join (tcp://\S+) --secret-file ('[^']*'|\S+) .*)")

CHOOSES = f"""
import sys
sys.path.insert(0, {str(PROGRAMS)!r})
from spread import *
dtm.setOptions(communicationManager='deap.dtm.commManagerTCP')
dtm.start(main)
"""


def how_to_join(program: Started) -> tuple[str, str, Path]:
    """Return the command that a run tells, and of it the address and the file."""
    deadline = time.monotonic() + LIMIT
    while not (found := SAID.search(program.stderr)):
        assert program.process.poll() is None and time.monotonic() < deadline, program.stderr
        time.sleep(0.02)
    return found[1], found[2], Path(*shlex.split(found[3]))


def run(words: list[str], cwd: Path, stdin: str = "") -> launch.Completed:
    return launch.run(words, launch.environment(), LIMIT, cwd=cwd, stdin=stdin)


def alone(
    tmp_path: Path, *arguments: object, way: str = "variable"
) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of a run that is led by its program alone."""
    words = [str(SPREAD), *map(str, arguments)]
    if way == "variable":
        return [sys.executable, *words], launch.environment({"DTM_COMM": "tcp"})
    if way == "option":
        return [sys.executable, "-m", "dtm", "--comm", "tcp", *words], launch.environment()
    program = tmp_path / "chooses.py"
    program.write_text(CHOOSES)
    return [sys.executable, str(program), *map(str, arguments)], launch.environment()


@pytest.mark.parametrize("way", ["variable", "option", "program"])
def test_the_command_that_a_run_tells_adds_a_worker(tmp_path: Path, way: str) -> None:
    command, environment = alone(tmp_path, 2, way=way)
    with launch.started(command, environment, cwd=tmp_path) as program:
        told, _, secret = how_to_join(program)
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        done = run(["sh", "-c", told], tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert program.wait(LIMIT) == 0, program.stderr
        assert program.stdout.startswith("ready 2\n")
        assert json.loads(program.stdout.splitlines()[1])["workers"] == [0, 1]
        assert not secret.exists()


def test_several_join_with_the_secret_from_standard_input(tmp_path: Path) -> None:
    command, environment = alone(tmp_path, 4)
    with launch.started(command, environment, cwd=tmp_path) as program:
        _, address, secret = how_to_join(program)
        words = [sys.executable, "-m", "dtm", "join", "-n", "3", address, str(SPREAD), "4"]
        done = run(words, tmp_path, secret.read_text())
        assert done.returncode == 0, done.stderr
        assert program.wait(LIMIT) == 0, program.stderr
        assert json.loads(program.stdout.splitlines()[1])["workers"] == [0, 1, 2, 3]


def test_workers_join_a_launched_run(tmp_path: Path) -> None:
    options = ["-m", "dtm", "--comm", "tcp", "-n", "2", "--join-slots", "1"]
    command = [sys.executable, *options, str(SPREAD), "3"]
    with launch.started(command, launch.environment(), cwd=tmp_path) as program:
        told, *_ = how_to_join(program)
        assert run(["sh", "-c", told], tmp_path).returncode == 0
        assert program.wait(LIMIT) == 0, program.stderr
        assert json.loads(program.stdout.splitlines()[1])["workers"] == [0, 1, 2]


def test_a_run_has_room_for_as_many_as_it_was_told(tmp_path: Path) -> None:
    command, environment = alone(tmp_path, 2, "for-ever")
    with launch.started(command, environment | {"DTM_JOIN_SLOTS": "1"}, cwd=tmp_path) as program:
        told, *_ = how_to_join(program)
        with launch.started(
            ["sh", "-c", f"exec {told}"], launch.environment(), cwd=tmp_path
        ) as first:
            program.wait_for("ready 2")
            second = run(["sh", "-c", told], tmp_path)
            assert second.returncode == 1
            assert "run is full" in second.stderr, second.stderr
            os.kill(program.process.pid, signal.SIGINT)
            assert program.wait(LIMIT) == -signal.SIGINT
            assert first.wait(LIMIT) == 0, first.stderr


def test_nobody_need_join(tmp_path: Path) -> None:
    command, environment = alone(tmp_path, 1)
    with launch.started(command, environment, cwd=tmp_path) as program:
        assert program.wait(LIMIT) == 0, program.stderr
        assert "may join by hand" in program.stderr
    assert not list(tmp_path.glob("*.secret"))


# Ends that are none of the run.


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[tuple[Started, Started]]:
    """A root that runs for ever, and the command that has added two workers."""
    command, environment = alone(tmp_path, 3, "for-ever")
    with launch.started(command, environment, cwd=tmp_path) as program:
        _, address, secret = how_to_join(program)
        words = [sys.executable, "-m", "dtm", "join", "-n", "2", address]
        words += ["--secret-file", str(secret), str(SPREAD), "3"]
        with launch.started(words, launch.environment(), cwd=tmp_path) as joined:
            program.wait_for("ready 3")
            yield program, joined


def test_who_joined_says_once_that_the_root_is_gone(crowd: tuple[Started, Started]) -> None:
    program, joined = crowd
    program.process.kill()
    assert joined.wait(LIMIT) == 1
    assert re.fullmatch(r"dtm: the root of the run is gone \(.*\)\n", joined.stderr), joined.stderr


def workers_of(joined: Started) -> list[int]:
    """Return the workers that a command has added."""
    return [pid for pid in joined.processes() if pid != joined.process.pid]


@pytest.mark.parametrize("whom", ["the command", "a worker"])
def test_an_interrupt_where_workers_joined_makes_them_lost(
    crowd: tuple[Started, Started], whom: str
) -> None:
    program, joined = crowd
    pid = joined.process.pid if whom == "the command" else workers_of(joined)[0]
    os.kill(pid, signal.SIGINT)
    assert program.wait(LIMIT) == 1
    assert re.search(r"WorkerLostError: worker \d on .* was lost: ", program.stderr)
    assert "KeyboardInterrupt" not in program.stderr
    assert joined.wait(LIMIT) == 130
    assert joined.stderr == ""


# Who is refused.


def test_a_wrong_secret_is_refused_and_the_run_goes_on(tmp_path: Path) -> None:
    command, environment = alone(tmp_path, 1, "for-ever")
    with launch.started(command, environment, cwd=tmp_path) as program:
        _, address, secret = how_to_join(program)
        wrong = tmp_path / "wrong"
        Credentials(Credentials.from_file(str(secret)).run, bytes(32)).to_file(str(wrong))
        words = [sys.executable, "-m", "dtm", "join", address, "--secret-file", str(wrong)]
        done = run([*words, str(SPREAD), "1"], tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"dtm: cannot join the run at {address}: "), done.stderr
        assert done.stderr.count("\n") == 1
        assert bytes(32).hex() not in done.stderr
        os.kill(program.process.pid, signal.SIGINT)
        assert program.wait(LIMIT) == -signal.SIGINT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["http://127.0.0.1:1", "PROGRAM"], "no address of a run"),
        (["tcp://127.0.0.1", "PROGRAM"], "no address of a run"),
        (["tcp://127.0.0.1:1", "/no/such/program.py"], "no program"),
        (["tcp://127.0.0.1:1", "--secret-file", "/no/such/file", "PROGRAM"], "/no/such/file"),
        (["tcp://127.0.0.1:1", "PROGRAM"], "credentials"),
        (["tcp://127.0.0.1:1", "--secret-file", "OPEN", "PROGRAM"], "chmod 600"),
        (
            ["-n", "2", "--ports", "9", "SECRET", "tcp://127.0.0.1:1", "PROGRAM"],
            "2 workers on this machine",
        ),
        (["-n", "0", "tcp://127.0.0.1:1", "PROGRAM"], "number of workers"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    tmp_path: Path, words: list[str], said: str
) -> None:
    readable = tmp_path / "open"
    Credentials.fresh().to_file(str(readable))
    readable.chmod(0o644)
    secret = tmp_path / "secret"
    Credentials.fresh().to_file(str(secret))
    known = {
        "PROGRAM": [str(SPREAD)],
        "OPEN": [str(readable)],
        "SECRET": ["--secret-file", str(secret)],
    }
    given = [word for each in words for word in known.get(each, [each])]
    done = run([sys.executable, "-m", "dtm", "join", *given], tmp_path)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--connect-timeout", "0.5"], ["-n", "3"]])
def test_nobody_is_there_to_be_joined(tmp_path: Path, options: list[str]) -> None:
    secret = tmp_path / "secret"
    Credentials.fresh().to_file(str(secret))
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        words = ["join", *options, address, "--secret-file", str(secret), str(SPREAD), "1"]
        done = run([sys.executable, "-m", "dtm", *words], tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"dtm: nobody listens at {address}: has the run ended?\n"


def test_who_asks_for_it_waits_for_a_run_that_is_not_there_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    credentials = Credentials.fresh()
    with socket.socket() as place, ExitStack() as stack:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]

        def begin(_: float) -> None:
            monkeypatch.undo()
            place.close()
            root = TcpManager.lead(2, credentials, ports=(port, port))
            stack.callback(root.close, 0.1)
            stack.enter_context(running(root))

        monkeypatch.setattr("dtm.comm.tcp.joining.sleep", begin)
        check(f"tcp://127.0.0.1:{port}", credentials, LIMIT)


# The secret.


def shown(secret: bytes) -> list[str]:
    """Return the command lines and environments, of all processes, that hold a secret."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                text = (folder / name).read_bytes()
            except OSError:  # it has ended
                continue
            if secret in text or secret.hex().encode() in text.lower():
                found.append(f"{folder.name}/{name}")
    return found


def test_the_secret_is_in_no_command_line_and_no_environment(tmp_path: Path) -> None:
    program_file = tmp_path / "starts.py"
    program_file.write_text(
        "import subprocess, sys, time\n"
        f"sys.path.insert(0, {str(PROGRAMS)!r})\n"
        "from spread import *\n"
        "def begin(_):\n"
        "    subprocess.Popen(['sleep', '600'])\n"
        "    return dtm.getWorkerId()\n"
        "def run():\n"
        "    await_workers(3)\n"
        "    dtm.map(begin, range(30))\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
        "dtm.start(run)\n"
    )
    options = ["-m", "dtm", "--comm", "tcp", "-n", "2", "--join-slots", "1"]
    command = [sys.executable, *options, str(program_file), "3"]
    with launch.started(command, launch.environment(), cwd=tmp_path) as program:
        told, _, secret = how_to_join(program)
        credentials = Credentials.from_file(str(secret))
        with launch.started(["sh", "-c", f"exec {told}"], launch.environment(), cwd=tmp_path) as (
            joined
        ):
            program.wait_for("ready")
            assert shown(credentials.secret) == []
            assert shown(f"{program_file}".encode())  # so what is looked for would be found
            os.kill(program.process.pid, signal.SIGTERM)
            assert program.wait(LIMIT) == 143
            joined.wait(LIMIT)
            for each in (program, joined):
                for pid in each.processes():
                    if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)


# Scripts for DEAP's dtm.


@pytest.mark.slow
def test_the_old_option_launches_on_hosts(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text("localhost slots=2\n")
    program = tmp_path / "old.py"
    program.write_text(f"{CHOOSES}print('after start')\n")
    one, two = [f"--dtmTCPhosts={hosts}"], ["--dtmTCPhosts", str(hosts)]
    for before, option in (([], one), (["-m", "dtm"], one), ([], two), (["-m", "dtm"], two)):
        words = [sys.executable, *before, str(program), "2", *option]
        done = run(words, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("ready 2\n")
        assert done.stdout.endswith("after start\n")
        assert done.stdout.count("after start") == 1


def test_the_old_option_without_a_file_is_refused(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "dtm", str(SPREAD), "2", "--dtmTCPhosts"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "dtm: --dtmTCPhosts needs the file of hosts\n"
