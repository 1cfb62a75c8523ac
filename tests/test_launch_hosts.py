"""Launching on hosts: what arrives there, what comes home, and what is left when it fails."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests import launch
from tests.hosts import Hosts
from tests.launch import PROGRAMS

PLACE = PROGRAMS / "place.py"
LIMIT = 60.0
STRANGE = "two words, \"quotes\", 'others', $HOME `id` \\ ;&|<>* #\nand a line\t\u00e9\udcff"


def lines_of(done: launch.Completed) -> dict[str, list[str]]:
    """Return what each tag had to say."""
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"\[(\d+@[\w-]+)\] (.*)", line)
        assert match is not None, done.stdout
        found.setdefault(match[1], []).append(match[2])
    return found


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("localhost slots=3",), ()),
        (("alpha slots=2", "beta"), ()),
        (("localhost", "alpha:2"), ()),
        (("alpha", "beta", "gamma"), ("--fan-out", "1")),
        (("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"), ("--fan-out", "2")),
    ],
)
def test_every_worker_gets_the_same_as_the_launcher(
    tmp_path: Path, names: tuple[str, ...], options: tuple[str, ...]
) -> None:
    hosts = Hosts(tmp_path, *names)
    arguments = ["x y", STRANGE.replace("\udcff", ""), "--hosts", "-n", ""]
    done = hosts.run(
        PLACE,
        *arguments,
        options=(*options, "--tag-output"),
        env={"STRANGE": STRANGE},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = lines_of(done)
    slots = [int(re.search(r"\d+$", line)[0]) if line[-1].isdigit() else 1 for line in names]
    assert len(found) == sum(slots)
    for tag, lines in found.items():
        seen = json.loads(lines[0])
        assert seen["arguments"] == arguments
        assert seen["directory"] == str(tmp_path)
        assert seen["strange"] == STRANGE
        assert seen["threads"] == os.environ.get("OMP_NUM_THREADS", "1")
        assert seen["own"] == ([] if tag.endswith("@localhost") else ["SSH_CONNECTION"])
        assert seen["module"] == "__main__"


def test_ranks_are_counted_along_the_hosts(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "alpha slots=2", "localhost", "beta slots=2")
    found = lines_of(hosts.run(PLACE, options=("--tag-output",)))
    assert sorted(found) == ["0@alpha", "1@alpha", "2@localhost", "3@beta", "4@beta"]
    found = lines_of(hosts.run(PLACE, options=("--tag-output", "-n", "2")))
    assert sorted(found) == ["0@alpha", "1@alpha"]


def test_hosts_beyond_the_fan_out_are_started_by_other_hosts(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, *(f"h{number}" for number in range(7)))
    described = hosts.run(PLACE, options=("--fan-out", "2", "--dry-run")).stdout
    assert described.count("started by this process") == 2
    assert described.count("started by another agent") == 5
    assert not hosts.log.exists()
    assert hosts.run(PLACE, options=("--fan-out", "2")).returncode == 0
    assert len(hosts.log.read_text().splitlines()) == 7


def test_a_dry_run_names_the_python_of_a_host_that_has_its_own(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "alpha python=/opt/py/bin/python", "beta")
    said = hosts.run(PLACE, options=("--dry-run",)).stdout
    assert said.count("each worker there: /opt/py/bin/python -m dtm --hosts ") == 1
    assert f"each worker: {shlex.quote(sys.executable)} -m dtm --hosts " in said


def test_the_line_for_ssh_is_careful(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "me@alpha port=2222")
    assert hosts.run(PLACE).returncode == 0
    call = hosts.log.read_text()
    assert re.match(r"-T -o BatchMode=yes -o ConnectTimeout=\d+ -l me -p 2222 -- alpha exec ", call)
    assert "StrictHostKeyChecking" not in call


def test_lines_come_home_whole_and_none_is_lost(tmp_path: Path) -> None:
    program = tmp_path / "much.py"
    program.write_text(
        "import os, sys\n"
        "for number in range(3000):\n"
        "    stream = sys.stderr if number % 3 == 0 else sys.stdout\n"
        "    print('<', number, 'x' * (number % 1000), '>', file=stream)\n"
        "os.write(1, b'an end without a newline')\n"
    )
    hosts = Hosts(tmp_path, "localhost slots=2", "alpha slots=2")
    done = hosts.run(program, options=("--tag-output",))
    assert done.returncode == 0, done.stderr
    whole = re.compile(r"\[\d@\w+\] (< \d+ x* >|an end without a newline)")
    for text, count in ((done.stdout, 2001), (done.stderr, 1000)):
        assert [line for line in text.splitlines() if not whole.fullmatch(line)] == []
        assert len(text.splitlines()) == 4 * count


def test_what_others_write_on_a_host_does_no_harm(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "localhost", "prompt", "chatty")
    done = hosts.run(PROGRAMS / "spread.py", 3, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ready 3\n")


# How it ends.


@pytest.mark.parametrize("host", ["localhost", "alpha"])
def test_the_roots_status_comes_home(tmp_path: Path, host: str) -> None:
    assert Hosts(tmp_path, host, "beta").run(PLACE, 7).returncode == 7


def test_a_killed_root_is_told_of(tmp_path: Path) -> None:
    program = tmp_path / "killed.py"
    program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    done = Hosts(tmp_path, "alpha", "beta").run(program)
    assert done.returncode == 137
    assert "the root, on alpha, was killed by SIGKILL" in done.stderr


WAITING = """
import subprocess, sys, time
children = subprocess.Popen(["sleep", "600"])
try:
    print("up", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
)
@pytest.mark.parametrize("names", [("localhost slots=2",), ("alpha", "beta slots=2")])
def test_signals_reach_the_root_and_nothing_is_left(
    tmp_path: Path, names: tuple[str, ...], number: int, status: int
) -> None:
    program = tmp_path / "waiting.py"
    program.write_text(WAITING)
    hosts = Hosts(tmp_path, *names)
    environment = launch.environment()
    with launch.started(hosts.command(program), environment) as started:
        started.wait_for("up", 2 if names[0].startswith("localhost") else 3)
        os.kill(started.process.pid, number)
        assert started.wait() == status
        if number == signal.SIGKILL and names[0].startswith("localhost"):
            # What workers here have started themselves is nobody's once the launcher is killed.
            for pid in started.processes():
                if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        started.assert_nothing_is_left(20.0)
        assert ("interrupted" in started.stdout) == (number == signal.SIGINT)


def test_a_third_interrupt_ends_a_root_that_heeds_none(tmp_path: Path) -> None:
    program = tmp_path / "deaf.py"
    program.write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: print('heard', flush=True))\n"
        "print('up', flush=True)\n"
        "while True:\n    time.sleep(600)\n"
    )
    command = Hosts(tmp_path, "alpha").command(program)
    with launch.started(command, launch.environment()) as started:
        for count in (1, 2):
            started.wait_for("up")
            os.kill(started.process.pid, signal.SIGINT)
            started.wait_for("heard", count)
        os.kill(started.process.pid, signal.SIGINT)
        assert started.wait() == 130


def test_an_interrupt_while_hosts_are_called_ends_it_at_once(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "alpha", "hanging")
    with launch.started(hosts.command(PLACE), launch.environment()) as started:
        deadline = time.monotonic() + LIMIT
        while not hosts.log.exists() or len(hosts.log.read_text().splitlines()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(started.process.pid, signal.SIGINT)
        assert started.wait() == 130
        started.assert_nothing_is_left()
        assert started.stdout == ""


def test_nobody_reads_what_is_written(tmp_path: Path) -> None:
    program = tmp_path / "endless.py"
    program.write_text("while True:\n    print('x' * 1000)\n")
    command = Hosts(tmp_path, "alpha", "localhost").command(program)
    with launch.started(["sh", "-c", '"$@" | head -n 5', "sh", *command], launch.environment()) as (
        started
    ):
        assert started.wait() == 0
        started.assert_nothing_is_left(20.0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_output_that_cannot_be_written_ends_the_run_with_a_line(tmp_path: Path) -> None:
    program = tmp_path / "endless.py"
    program.write_text("while True:\n    print('x' * 1000)\n")
    command = Hosts(tmp_path, "alpha", "localhost").command(program)
    done = launch.run(
        ["sh", "-c", 'exec "$@" > /dev/full', "sh", *command], launch.environment(), LIMIT
    )
    assert done.returncode == 1
    assert "dtm: stdout cannot be written, so the run ends: No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_standard_output_is_nobodys_loss(tmp_path: Path) -> None:
    command = Hosts(tmp_path, "alpha", "localhost").command(PLACE, 3)
    done = launch.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], launch.environment(), LIMIT)
    assert (done.returncode, done.stderr) == (3, "")


# What can be wrong with hosts.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("down", "No route to host"),
        ("hanging", "no answer within 3 s"),
        ("old", "dtm 0.9 on Python 2.7"),
        ("mute", "no agent of dtm answered: Have a nice day."),
        ("asking", "no answer within 3 s: The sum of 2 and 3?"),
        ("alpha python=/no/such/python", "/no/such/python"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--fan-out", "1")])
def test_a_host_that_cannot_do_its_part_is_named_and_nothing_is_started(
    tmp_path: Path, host: str, words: str, options: tuple[str, ...]
) -> None:
    program = tmp_path / "trace.py"
    program.write_text("import sys\nopen(sys.argv[1], 'w').close()\n")
    hosts = Hosts(tmp_path, "beta", host, "gamma slots=2")
    done = hosts.run(program, tmp_path / "trace", options=(*options, "--connect-timeout", "3"))
    assert done.returncode == 1
    name = host.partition(" ")[0]
    assert re.search(rf"^dtm: {name}: .*{re.escape(words)}", done.stderr, re.MULTILINE), done.stderr
    assert "nothing was started" in done.stderr
    assert not (tmp_path / "trace").exists()


@pytest.mark.slow
def test_nothing_is_left_of_a_script_that_stands_for_ssh(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "alpha", "hanging")
    script = tmp_path / "wrapper"
    script.write_text(f"#!/bin/sh\n'{hosts.stand_in}' \"$@\"\nexit $?\n")
    script.chmod(0o755)
    done = hosts.run(PLACE, options=("--ssh", str(script), "--connect-timeout", "2"))
    assert done.returncode == 1
    assert "dtm: hanging: no answer within 2 s" in done.stderr


def test_all_hosts_that_are_down_are_named(tmp_path: Path) -> None:
    done = Hosts(tmp_path, "alpha", "down1", "down2").run(PLACE)
    assert "dtm: down1: " in done.stderr
    assert "dtm: down2: " in done.stderr


def can_mount() -> bool:
    return (
        subprocess.run(
            ["unshare", "-m", "true"], capture_output=True, check=False, timeout=LIMIT
        ).returncode
        == 0
    )


@pytest.mark.skipif(not can_mount(), reason="file systems cannot be mounted here")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_missing_file_is_named_with_its_host(tmp_path: Path, what: str) -> None:
    there = tmp_path / "there"
    (there / "inner").mkdir(parents=True)
    program = there / "program.py"
    program.write_text("print('no')\n")
    hosts = Hosts(tmp_path, "alpha", "bare")
    cwd = there / "inner" if what == "directory" else tmp_path
    done = hosts.run(program, env={"BARE": str(there)}, cwd=cwd)
    assert done.returncode == 1
    missing = cwd if what == "directory" else program
    assert f"dtm: bare: the {what} {missing} is not there" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hosts", "/no/such/file", str(PLACE)], "/no/such/file"),
        (["--hosts", "HOSTS", "/no/such/program.py"], "/no/such/program.py"),
        (["--hosts", "HOSTS", "--comm", "mpi", str(PLACE)], "tcp, not mpi"),
        (["--hosts", "HOSTS", "-n", "9", str(PLACE)], "9 workers are more than the 2 slots"),
        (["--hosts", "HOSTS", "--ssh", "'", str(PLACE)], "cannot be split"),
        (["--hosts", "HOSTS", "--connect-timeout", "-1", str(PLACE)], "above 0"),
        (["--hosts", "HOSTS", "--ports", "9-1", str(PLACE)], "40000-40999"),
        (["--hosts", "HOSTS", "--ports", "41000", str(PLACE)], "2 workers on alpha need a port"),
        (["--comm", "tcp", "-n", "3", "--ports", "41000-41001", str(PLACE)], "3 workers on localh"),
        (["--hosts", "HOSTS", "--bind", "nowhere", str(PLACE)], "address of this machine"),
        (["--hosts", "HOSTS", "--join-slots", "x", str(PLACE)], "whole number"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    hosts = Hosts(tmp_path, "alpha slots=2")
    given = [str(hosts.file) if word == "HOSTS" else word for word in arguments]
    done = launch.run([sys.executable, "-m", "dtm", *given], launch.environment(), LIMIT)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not hosts.log.exists()


def test_a_missing_module_is_named_with_its_host(tmp_path: Path) -> None:
    done = Hosts(tmp_path, "alpha", "localhost").run("-m", "nosuch.module")
    assert done.returncode == 1
    for host in ("alpha", "localhost"):
        assert f"dtm: {host}: there is no module nosuch.module\n" in done.stderr
    assert done.stderr.endswith("dtm: nothing was started\n")


def test_a_module_beside_the_start_or_on_the_path_is_found(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "alpha")
    (tmp_path / "beside.py").write_text("print('beside')\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "along.py").write_text("print('along')\n")
    path = os.pathsep.join((str(launch.ROOT), "lib"))
    for name in ("beside", "along"):
        done = hosts.run("-m", name, env={"PYTHONPATH": path}, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\n", "")


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    done = Hosts(tmp_path, "alpha").run(PLACE, env={"DTM_PORTS": "no"})
    assert done.returncode == 1
    assert "DTM_PORTS='no'" in done.stderr


# Workers that do not come to join.


def program_of(tmp_path: Path, *lines: str) -> Path:
    """Write a program whose lines run on ``alpha``, not on ``localhost``, before its start."""
    program = tmp_path / "before.py"
    there = "\n".join(f"    {line}" for line in lines)
    program.write_text(
        f"import os, sys, time\nfrom dtm import dtm\nif 'SSH_CONNECTION' in os.environ:\n{there}\n"
        "dtm.start(lambda: time.sleep(float(sys.argv[1])))\n"
    )
    return program


def test_a_worker_that_ends_before_it_joins_is_told_of(tmp_path: Path) -> None:
    program = program_of(tmp_path, "sys.exit(5)")
    done = Hosts(tmp_path, "localhost", "alpha").run(program, 600)
    assert done.returncode == 1
    assert "worker 1 on alpha was lost: exited with status 5" in done.stderr


def test_a_worker_that_ends_before_it_joins_is_told_of_even_if_the_root_ends_well(
    tmp_path: Path,
) -> None:
    sign = tmp_path / "sign"
    program = program_of(tmp_path, f"open({str(sign)!r}, 'w').close()", "os._exit(5)")
    waits = f"while not os.path.exists({str(sign)!r}):\n    time.sleep(0.01)\n"
    program.write_text(program.read_text().replace("dtm.start", f"{waits}LATE or dtm.start"))
    program.write_text(f"LATE = True\n{program.read_text()}")
    done = Hosts(tmp_path, "localhost", "alpha").run(program, 0)
    assert done.returncode == 0
    assert done.stderr == "dtm: worker 1, on alpha, exited with status 5\n"


def port_before_a_free_one() -> socket.socket:
    """Return a socket that listens at a port below one that is free."""
    while True:
        taken = socket.create_server(("127.0.0.1", 0))
        with suppress(OSError, OverflowError):
            socket.create_server(("127.0.0.1", taken.getsockname()[1] + 1)).close()
            return taken
        taken.close()


def test_a_worker_that_finds_no_free_port_says_so_also_to_a_short_run(tmp_path: Path) -> None:
    program = tmp_path / "short.py"
    program.write_text(
        "import time\nfrom dtm import WorkerLostError, dtm\n"
        "try:\n    dtm.start(lambda: time.sleep(600))\nexcept WorkerLostError:\n    pass\n"
    )
    with port_before_a_free_one() as taken:
        port = taken.getsockname()[1]
        options = ["--comm", "tcp", "-n", "2", "--ports", f"{port}-{port + 1}"]
        words = [sys.executable, "-m", "dtm", *options, str(program)]
        done = launch.run(words, launch.environment(), LIMIT)
    assert done.returncode == 0
    assert f"no port of {port}-{port + 1} is free at 127.0.0.1" in done.stderr
    assert done.stderr.endswith("dtm: worker 1, on localhost, exited with status 1\n")


def test_who_is_late_for_a_short_run_goes_quietly(tmp_path: Path) -> None:
    program = program_of(tmp_path, "print('up', flush=True)", "time.sleep(600)")
    done = Hosts(tmp_path, "localhost", "alpha").run(program, 0)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_root_that_ends_before_its_start_leaves_nobody_waiting(tmp_path: Path) -> None:
    program = program_of(tmp_path, "pass")
    program.write_text(program.read_text().replace("dtm.start", "LATE or dtm.start", 1))
    late = "import os\nLATE = 'SSH_CONNECTION' not in os.environ\n"
    program.write_text(late + program.read_text())
    done = Hosts(tmp_path, "localhost", "alpha slots=2").run(program, 600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_system_that_lets_not_so_many_be_started_is_told_of(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "dtm", "--comm", "tcp", "-n", "30", str(PLACE)]
    command = ["sh", "-c", 'ulimit -n 60; exec "$@"', "sh", *words]
    done = launch.run(command, launch.environment(), LIMIT, cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(r"dtm: on localhost only \d+ of 30 workers could be started: ", done.stderr)
    assert "Traceback" not in done.stderr
