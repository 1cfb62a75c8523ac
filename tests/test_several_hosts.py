"""Several hosts, for real: network namespaces, real ``sshd``, and what goes wrong between them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import launch, namespaces
from tests.launch import PROGRAMS, ROOT, Started
from tests.namespaces import HOSTS, Network

SPREAD = PROGRAMS / "spread.py"
LAST = PROGRAMS / "last.py"
LIMIT = 90.0
SOON = 25.0
"""The 10 seconds in which a lost host has to be told of, and what a busy machine adds."""

REASON = namespaces.why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        REASON is not None,
        reason=f"NOT TESTED: runs on several hosts by ssh, since {REASON}",
    ),
]
SEVEN = ("alpha", "beta slots=3", "gamma slots=3")
THREE = ("alpha slots=2", "beta", "gamma")
RESULT = {
    "squares": sum(x * x for x in range(100_000)),
    "leaves": 3**6,
    "large": 16 << 20,
}


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    with namespaces.network() as made:
        yield made


@pytest.fixture(autouse=True)
def _whole_again(hosts: Network) -> Iterator[None]:
    """Connect all hosts after each test; nothing of it may be left on any."""
    yield
    for host in HOSTS:
        hosts.plug(host)
    hosts.await_silence()


def command(hosts: Network, *arguments: object, lines: tuple[str, ...] = THREE) -> list[str]:
    """Return the command that launches a program from home."""
    file = hosts.hosts_file(*lines)
    options = ["--hosts", file, "--ssh", hosts.ssh, "--connect-timeout", "6"]
    words = [sys.executable, "-m", "dtm", *options, *map(str, arguments)]
    return hosts.inside("home", *words)


@contextmanager
def started(
    hosts: Network, *arguments: object, lines: tuple[str, ...] = THREE
) -> Iterator[Started]:
    with launch.started(command(hosts, *arguments, lines=lines), launch.environment()) as program:
        yield program


def result_of(program: Started, workers: int) -> None:
    assert program.wait(LIMIT) == 0, program.stderr
    ready, line = program.stdout.splitlines()
    assert ready == f"ready {workers}"
    assert json.loads(line) == {"workers": list(range(workers)), **RESULT}
    assert program.stderr == ""


@pytest.mark.parametrize("options", [(), ("--no-tls",), ("--ports", "42000-42050")])
def test_a_run_on_three_hosts(hosts: Network, options: tuple[str, ...]) -> None:
    with started(hosts, *options, SPREAD, 4) as program:
        result_of(program, 4)


def test_a_run_over_ipv6(hosts: Network) -> None:
    names = ("alpha-six slots=2", "beta-six", "gamma-six")
    with started(hosts, "--tag-output", SPREAD, 4, "for-ever", lines=names) as program:
        program.wait_for("ready 4")
        listening = subprocess.run(
            hosts.inside("beta", "ss", "-tlnH"), capture_output=True, text=True, timeout=LIMIT
        ).stdout
        assert re.search(rf"\[{hosts.address_6('beta')}\]:(?!22 )\d+ ", listening), listening
        os.kill(program.process.pid, 15)
        assert program.wait(SOON) == 143


def test_a_run_here_and_there(hosts: Network) -> None:
    with started(hosts, SPREAD, 3, lines=("localhost", "beta slots=2")) as program:
        result_of(program, 3)


def test_connections_of_a_run_keep_to_their_ports_and_are_encrypted(hosts: Network) -> None:
    with started(hosts, "--ports", "42000-42050", SPREAD, 4, "for-ever") as program:
        program.wait_for("ready 4")
        listening = subprocess.run(
            hosts.inside("alpha", "ss", "-tlnH"), capture_output=True, text=True, timeout=LIMIT
        ).stdout
        ports = {int(port) for port in re.findall(r"\d+\.\d+\.\d+\.\d+:(\d+)", listening)}
        assert len(ports) == 3  # two workers, and the ssh server
        assert all(port == 22 or 42000 <= port <= 42050 for port in ports)
        os.kill(program.process.pid, 15)
        assert program.wait(SOON) == 143


def test_hosts_start_others_beyond_the_fan_out(hosts: Network) -> None:
    with started(hosts, "--fan-out", "1", SPREAD, 4) as program:
        result_of(program, 4)


# Hosts that are not as they should be.


def test_a_host_that_is_down_is_named_and_nothing_is_started(hosts: Network) -> None:
    hosts.unplug("gamma")
    began = time.monotonic()
    with started(hosts, SPREAD, 4) as program:
        assert program.wait(LIMIT) == 1
        assert time.monotonic() - began < SOON
        assert re.search("^dtm: gamma: ", program.stderr, re.MULTILINE), program.stderr
        assert "nothing was started" in program.stderr
        assert "alpha" not in program.stderr
        assert program.stdout == ""


def test_a_host_whose_key_is_unknown_is_not_trusted(hosts: Network) -> None:
    known = hosts.directory / "known_hosts"
    text = known.read_text()
    known.write_text("".join(line for line in text.splitlines(True) if "beta" not in line[:5]))
    try:
        with started(hosts, SPREAD, 4) as program:
            assert program.wait(LIMIT) == 1
            assert re.search("dtm: beta: .*[Hh]ost key", program.stderr), program.stderr
    finally:
        known.write_text(text)


def test_a_host_that_wants_a_password_is_an_error_at_once(hosts: Network) -> None:
    config = hosts.directory / "config"
    text = config.read_text()
    config.write_text(text.replace(f"{hosts.directory}/user", "/dev/null"))
    try:
        with started(hosts, SPREAD, 4) as program:
            assert program.wait(LIMIT) == 1
            assert re.search("dtm: beta: .*Permission denied", program.stderr), program.stderr
    finally:
        config.write_text(text)


# Hosts that go away.


def lost(program: Started, host: str, began: float) -> None:
    """Wait for the end of a run that has lost a host, with an error that names it."""
    assert program.wait(LIMIT) == 1, program.stderr
    took = time.monotonic() - began
    assert took < SOON, (took, program.stderr)
    assert re.search(rf"WorkerLostError: worker \d on {host} was lost: ", program.stderr), (
        program.stderr
    )


def test_a_host_that_goes_away_is_told_of(hosts: Network) -> None:
    with started(hosts, SPREAD, 4, "for-ever") as program:
        program.wait_for("ready 4")
        began = time.monotonic()
        hosts.crash("gamma")
        lost(program, "gamma", began)
        hosts.await_silence()


def test_a_host_that_is_cut_off_is_told_of_and_ends_its_workers(hosts: Network) -> None:
    with started(hosts, SPREAD, 4, "for-ever") as program:
        program.wait_for("ready 4")
        began = time.monotonic()
        hosts.unplug("beta")
        lost(program, "beta", began)
        hosts.await_silence(timeout=SOON)


def test_the_roots_host_goes_away(hosts: Network) -> None:
    with started(hosts, SPREAD, 4, "for-ever") as program:
        program.wait_for("ready 4")
        began = time.monotonic()
        hosts.crash("alpha")
        assert program.wait(LIMIT) == 1
        assert time.monotonic() - began < SOON
        assert re.search(
            "dtm: the connection to alpha is lost: .*the root was there", program.stderr
        )
        hosts.await_silence()


def test_home_is_cut_off_and_nothing_is_left(hosts: Network) -> None:
    with started(hosts, SPREAD, 4, "for-ever") as program:
        program.wait_for("ready 4")
        hosts.unplug("home")
        try:
            assert program.wait(LIMIT) == 1
            hosts.await_silence(timeout=SOON)
        finally:
            hosts.plug("home")


def test_a_killed_worker_is_named_with_its_signal(hosts: Network) -> None:
    with started(hosts, SPREAD, 4, "for-ever") as program:
        program.wait_for("ready 4")
        (worker,) = workers_of(hosts, "gamma")
        os.kill(worker, 9)
        assert program.wait(LIMIT) == 1
        assert "worker 3 on gamma was lost: killed by SIGKILL" in program.stderr, program.stderr


def workers_of(hosts: Network, host: str) -> list[int]:
    """Return the processes on a host that run the program."""
    found = []
    for pid in hosts.processes(host):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if str(SPREAD).encode() in words:
            found.append(pid)
    return found


@pytest.mark.parametrize("how", ["unreachable", "blackhole"])
def test_two_hosts_that_lose_each_other_end_the_run(hosts: Network, how: str) -> None:
    """Root and launcher reach both all the time."""
    with started(hosts, SPREAD, 7, "for-ever", lines=SEVEN) as program:
        program.wait_for("ready 7")
        began = time.monotonic()
        hosts.separate("beta", "gamma", how)
        assert program.wait(LIMIT) == 1
        took = time.monotonic() - began
        assert took < SOON, (took, program.stderr)
        on = r"worker \d on (beta|gamma)"
        told = re.search(f"WorkerLostError: {on} was lost to {on}: ", program.stderr)
        assert told, program.stderr
        assert told[1] != told[2]
        hosts.await_silence(timeout=SOON)


@pytest.mark.parametrize("how", ["unreachable", "blackhole"])
def test_hosts_that_never_reach_each_other_end_the_run(hosts: Network, how: str) -> None:
    hosts.separate("beta", "gamma", how)
    with started(hosts, SPREAD, 7, "for-ever", lines=SEVEN) as program:
        assert program.wait(LIMIT) == 1
        on = r"worker \d on (beta|gamma)"
        assert re.search(f"WorkerLostError: {on} was lost to {on}: ", program.stderr)
        hosts.await_silence(timeout=SOON)


def test_a_run_ends_well_though_two_hosts_have_lost_each_other(hosts: Network) -> None:
    """What is said at the end does not come down the tree: gamma's workers are below beta's."""
    with started(hosts, LAST, lines=SEVEN) as program:
        program.wait_for("reached 7")
        hosts.separate("beta", "gamma", "blackhole")
        (program.directory / "cut").touch()
        assert program.wait(SOON) == 0, program.stderr
        rows = [row.split()[0] for row in program.stderr.splitlines() if row.strip()]
        assert [row for row in rows if row in "0123456"] == [*"0123456"], program.stderr


def test_the_launcher_is_killed(hosts: Network) -> None:
    with started(hosts, SPREAD, 4, "for-ever") as program:
        program.wait_for("ready 4")
        program.process.kill()
        program.wait(LIMIT)
        hosts.await_silence()


# Who may come in.


def address_of(program: Started) -> tuple[str, str]:
    """Return the address of a run, and the file with its secret, from what it says."""
    deadline = time.monotonic() + LIMIT
    while not (found := re.search(r"join (tcp://\S+) --secret-file (\S+)", program.stderr)):
        assert program.process.poll() is None and time.monotonic() < deadline, program.stderr
        time.sleep(0.02)
    return found[1], found[2]


def join(hosts: Network, host: str, address: str, secret: str) -> launch.Completed:
    """Join a run from a host, until the run is over or refuses."""
    command = hosts.inside(host, *join_words(address, secret))
    return launch.run(command, launch.environment(), LIMIT, cwd=ROOT)


def join_words(address: str, secret: str, *options: str) -> list[str]:
    """Return the command that joins a run."""
    words = [sys.executable, "-m", "dtm", "join", address, "--secret-file", secret, *options]
    return [*words, str(SPREAD), "5"]


def test_a_worker_joins_from_a_third_host_while_the_run_is_under_way(hosts: Network) -> None:
    lines = ("alpha slots=2", "beta slots=2")
    options = ("--join-slots", "2", "--secret-file", f"{hosts.directory}/join.secret")
    with started(hosts, *options, SPREAD, 5, lines=lines) as program:
        done = join(hosts, "gamma", *address_of(program))
        assert done.returncode == 0, done.stderr
        assert program.wait(LIMIT) == 0, program.stderr
        assert json.loads(program.stdout.splitlines()[-1]) == {"workers": [0, 1, 2, 3, 4], **RESULT}


def test_workers_join_a_program_that_leads_its_run_alone(hosts: Network) -> None:
    secret = f"{hosts.directory}/alone.secret"
    options = ["--comm", "tcp", "--bind", hosts.address("alpha"), "--secret-file", secret]
    words = [sys.executable, "-m", "dtm", *options, str(SPREAD), "5"]
    with launch.started(hosts.inside("alpha", *words), launch.environment()) as program:
        address, _ = address_of(program)
        assert address.startswith(f"tcp://{hosts.address('alpha')}:")
        with launch.started(
            hosts.inside("beta", *join_words(address, secret, "-n", "3")), launch.environment()
        ) as first:
            done = join(hosts, "gamma", address, secret)
            assert done.returncode == 0, done.stderr
            assert first.wait(LIMIT) == 0, first.stderr
        assert program.wait(LIMIT) == 0, program.stderr
        assert json.loads(program.stdout.splitlines()[-1]) == {"workers": [0, 1, 2, 3, 4], **RESULT}


def test_a_wrong_secret_is_refused_and_the_run_goes_on(hosts: Network) -> None:
    from dtm.comm.tcp.credentials import Credentials

    options = ("--join-slots", "1", "--secret-file", f"{hosts.directory}/right.secret")
    with started(hosts, *options, SPREAD, 2, "for-ever", lines=("alpha", "beta")) as program:
        address, secret = address_of(program)
        program.wait_for("ready 2")
        right = Credentials.from_file(secret)
        wrong = Credentials(right.run, bytes(32), right.certificate, right.key)
        wrong.to_file(f"{hosts.directory}/wrong.secret")
        try:
            done = join(hosts, "gamma", address, f"{hosts.directory}/wrong.secret")
        finally:
            os.unlink(f"{hosts.directory}/wrong.secret")
        assert done.returncode != 0
        assert done.stderr.startswith(f"dtm: cannot join the run at {address}: "), done.stderr
        assert program.process.poll() is None, program.stderr
        os.kill(program.process.pid, 15)
        assert program.wait(SOON) == 143
