"""How the doctor looks: at hosts behind what stands for ssh, at this machine, at MPI."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest

from dtm.comm.base import CommunicationManager
from dtm.doctor import checks, exchange, machine
from dtm.doctor.examination import library_threads, look_for_mpi, trial
from dtm.doctor.probe import (
    NO_DIRECTORY,
    Enter,
    Probe,
    by_batch_system,
    by_ssh,
    probe_all,
    run_command,
)
from dtm.launch.allocation import Allocation
from dtm.launch.hosts import Host
from tests.hosts import Hosts
from tests.launch import environment

LONG = 60.0
TRIAL = ["-m", "dtm.doctor.exchange"]


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def assert_gone(process: int) -> None:
    """Wait until a process has ended; a zombie that nobody has buried yet has."""
    deadline = monotonic() + LONG
    while _is_alive(process):
        assert monotonic() < deadline, f"{process} is still there"
        sleep(0.01)


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# Commands.


def test_a_command_ends_with_its_status_and_what_it_wrote() -> None:
    done = run_command(["sh", "-c", "echo out; echo err >&2; exit 3"], LONG)
    assert (done.status, done.output, done.error, done.late) == (3, "out\n", "err", False)


def test_a_command_that_reads_is_told_that_nothing_comes() -> None:
    assert run_command(["cat"], LONG).status == 0


def test_what_does_not_end_in_time_is_ended_with_its_children() -> None:
    done = run_command(["sh", "-c", "sleep 1000 & echo $!; exec sleep 1000"], 0.5)
    assert (done.status, done.late) == (None, True)
    assert_gone(int(done.output))


@pytest.mark.slow
def test_what_ignores_sigterm_is_killed() -> None:
    done = run_command([sys.executable, "-c", _STUBBORN], 2.0)
    assert done.late
    assert_gone(int(done.output))


_STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(1000)
"""


def test_a_child_that_holds_the_pipes_makes_nobody_wait_longer() -> None:
    start = monotonic()
    done = run_command(["sh", "-c", "echo here; sleep 30 & exit 0"], 0.5)
    assert monotonic() - start < 20.0  # 30 if it were waited for
    assert done.output == "here\n"


def test_a_command_that_is_not_there_is_an_answer() -> None:
    done = run_command(["/no/such/command"], LONG)
    assert done.status is None
    assert "No such file" in done.error


def test_much_output_and_many_errors_are_all_read() -> None:
    code = "import sys; sys.stderr.write('e' * 10**6); sys.stdout.write('o' * 10**6)"
    done = run_command([sys.executable, "-c", code], LONG)
    assert (done.status, len(done.output)) == (0, 10**6)
    assert done.error == "e" * 4000


# Hosts.


@pytest.fixture
def enter_nothing(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path, "unused")


def probe(host: Host, enter: Enter, seconds: float = LONG) -> Probe:
    (seen,) = probe_all([host], enter, seconds)
    return seen


def seen_at(hosts: Hosts, host: Host, seconds: float = LONG) -> Probe:
    return probe(host, partial(by_ssh, ssh=f"'{hosts.stand_in}'", seconds=3.0), seconds)


def test_a_host_that_does_not_read_blocks_nobody() -> None:
    seen = probe(Host("alpha"), lambda _host, _words: ["sleep", "600"], 0.5)
    assert (seen.machine, seen.outcome.late) == (None, True)


def test_a_host_that_closes_its_input_is_no_error() -> None:
    says = "echo 'dtm-doctor:[3, 12, 1]'; exec <&-; sleep 0.2; exit 5"
    seen = probe(Host("alpha"), lambda _host, _words: ["sh", "-c", says])
    assert (seen.python, seen.machine, seen.outcome.status) == ((3, 12, 1), None, 5)


def test_a_line_without_an_end_is_no_error() -> None:
    says = "head -c 3000000 /dev/zero | tr '\\0' x"
    seen = probe(Host("alpha"), lambda _host, _words: ["sh", "-c", says])
    assert (seen.machine, seen.outcome.status) == (None, 0)


def test_a_look_at_a_host_sees_the_machine_and_its_clock(enter_nothing: Hosts) -> None:
    seen = seen_at(enter_nothing, Host("alpha", user="me", port=2222))
    here = machine.look()
    assert seen.machine is not None
    assert seen.python == here.python
    assert (seen.machine.dtm, seen.machine.dill) == (here.dtm, here.dill)
    assert seen.machine.executable == here.executable
    assert abs(seen.offset) < 0.5
    assert 0.0 < seen.round_trip < 5.0
    assert seen.noise == ["Welcome to alpha."]
    assert seen.outcome.status == 0
    asked = enter_nothing.log.read_text()
    assert "BatchMode=yes" in asked
    assert "-l me -p 2222 -- alpha" in asked
    assert "StrictHostKeyChecking" not in asked


def test_this_machine_is_entered_without_ssh() -> None:
    seen = probe(Host("localhost"), partial(by_ssh, ssh="/no/such/ssh", seconds=3.0), LONG)
    assert seen.machine is not None
    assert seen.noise == []


def test_a_clock_that_is_ahead_is_measured(enter_nothing: Hosts, tmp_path: Path) -> None:
    ahead = "import sys, time; now = time.time; time.time = lambda: now() + 100; exec(sys.argv[1])"
    python = script(tmp_path / "python", f"exec {shlex.quote(sys.executable)} -c '{ahead}' \"$2\"")
    seen = seen_at(enter_nothing, Host("alpha", python=python))
    assert 99.0 < seen.offset < 101.0


def test_a_host_that_is_down_says_why(enter_nothing: Hosts) -> None:
    seen = seen_at(enter_nothing, Host("down1"))
    assert (seen.machine, seen.python, seen.outcome.status) == (None, None, 255)
    assert "No route to host" in seen.outcome.error


def test_a_host_that_does_not_answer_is_not_waited_for(enter_nothing: Hosts) -> None:
    seen = seen_at(enter_nothing, Host("hanging1"), 0.5)
    assert (seen.machine, seen.outcome.late) == (None, True)


def test_a_host_that_says_something_else_is_heard(enter_nothing: Hosts) -> None:
    seen = seen_at(enter_nothing, Host("mute1"))
    assert (seen.machine, seen.noise, seen.outcome.status) == (None, ["Have a nice day."], 0)


def test_a_host_without_that_python_is_told_apart(enter_nothing: Hosts) -> None:
    seen = seen_at(enter_nothing, Host("alpha", python="/no/such/python"))
    assert (seen.machine, seen.outcome.status) == (None, 127)


def test_a_host_without_the_directory_is_told_apart(
    enter_nothing: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    enter = partial(by_ssh, ssh=f"'{enter_nothing.stand_in}'", seconds=3.0)

    def enter_when_it_is_gone(host: Host, words: Sequence[str]) -> Sequence[str]:
        moved = [word.replace(str(gone), str(tmp_path / "moved")) for word in words]
        return enter(host, moved)

    seen = probe(Host("alpha"), enter_when_it_is_gone, LONG)
    assert (seen.machine, seen.outcome.status) == (None, NO_DIRECTORY)


def test_an_old_python_says_its_version_at_least(enter_nothing: Hosts, tmp_path: Path) -> None:
    old = (
        "import sys; sys.version_info = (3, 6, 15, None, 0); "
        'code = sys.argv[1].replace("exec(", "raise SyntaxError("); exec(code)'
    )
    python = script(tmp_path / "python", f"exec {shlex.quote(sys.executable)} -c '{old}' \"$2\"")
    seen = seen_at(enter_nothing, Host("alpha", python=python))
    assert (seen.machine, seen.python) == (None, (3, 6, 15))


def test_a_python_without_dtm_is_seen(
    enter_nothing: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    python = script(tmp_path / "python", f'exec {shlex.quote(sys.executable)} -I -S "$@"')
    seen = seen_at(enter_nothing, Host("alpha", python=python))
    assert seen.machine is not None
    assert seen.machine.dtm is None
    assert "No module named 'dtm'" in seen.machine.dtm_error


def test_many_hosts_are_entered_in_their_order(enter_nothing: Hosts) -> None:
    hosts = [Host(name) for name in ("alpha", "down1", "beta", "down2")]
    enter = partial(by_ssh, ssh=f"'{enter_nothing.stand_in}'", seconds=3.0)
    found = probe_all(hosts, enter, LONG)
    assert [(seen.host.name, seen.machine is not None) for seen in found] == [
        ("alpha", True), ("down1", False), ("beta", True), ("down2", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("starter", "run"), [("srun", 'shift; exec "$@"'), ("oarsh", 'shift; exec sh -c "$*"')]
)
def test_hosts_are_entered_by_the_batch_system_where_that_starts_workers(
    starter: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / starter, run)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    granted = Allocation("slurm", (Host("nx1"),), (starter, "{host}"))
    seen = probe(Host("nx1"), partial(by_batch_system, granted=granted), LONG)
    assert seen.machine is not None, seen.outcome


# This machine.


def test_a_look_at_this_machine_is_written_and_read_again() -> None:
    here = machine.look()
    assert machine.read(json.loads(json.dumps(asdict(here)))) == here
    assert here.usable <= len(here.affinity) <= here.cores
    assert here.temporary is not None


def test_a_tmpdir_that_is_not_there_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert machine.look().refused is None
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", "/no/such/directory")
    seen = machine.look()
    assert seen.refused == "/no/such/directory"
    assert seen.temporary not in (None, seen.refused)


def test_a_host_is_seen_with_the_tmpdir_that_workers_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/no/such/directory")
    seen = probe(Host("localhost"), lambda _, words: words, LONG)
    assert seen.machine is not None
    assert seen.machine.refused == "/no/such/directory"


def test_a_machine_without_room_for_temporary_files_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    assert machine.look().temporary is None


def test_libraries_say_how_many_threads_they_would_start() -> None:
    pytest.importorskip("threadpoolctl")
    pytest.importorskip("numpy")
    for_workers = library_threads(set_by_dtm=True, seconds=LONG)
    assert for_workers.pools
    assert {count for _, count in for_workers.pools} == {1}


def test_the_variables_alone_are_read_where_libraries_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "threadpoolctl.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    seen = library_threads(set_by_dtm=False, seconds=LONG)
    assert seen.pools is None
    assert seen.variables["OMP_NUM_THREADS"] == "3"


# MPI.


def test_the_mpi_library_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mpi4py")
    beside = Path(sys.executable).parent
    if not (beside / "mpiexec").exists():
        pytest.skip("there is no mpiexec beside this Python")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(beside), prepend=os.pathsep)
    seen = look_for_mpi(LONG)
    assert checks.kind(seen.library) == checks.kind(seen.launcher_says) != "unknown MPI"
    assert seen.level in {"SERIALIZED", "MULTIPLE"}
    assert seen.launcher == seen.beside == str(beside / "mpiexec")


def test_a_launcher_of_another_kind_on_the_path_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "mpiexec", "echo 'HYDRA build details:'; echo '    Version:  4.2.3'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    seen = look_for_mpi(LONG)
    assert seen.launcher == str(tmp_path / "mpiexec")
    assert checks.kind(seen.launcher_says) == "MPICH"


def test_a_missing_mpi_library_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("raise ImportError('no libmpi.so')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    seen = look_for_mpi(LONG)
    assert seen.library == seen.level == ""
    assert "no libmpi.so" in seen.error


def test_a_library_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("import time; time.sleep(1000)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    seen = look_for_mpi(0.5)
    assert "took more than 0.5 s" in seen.error


def test_a_library_that_ends_the_process_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mpi4py").mkdir()
    text = "import os, sys; print('no network', file=sys.stderr, flush=True); os._exit(14)"
    (tmp_path / "mpi4py" / "__init__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert "ended with status 14: no network" in look_for_mpi(LONG).error


# Exchanges.


def with_threads(size: int, factory: type, root_seconds: float = LONG) -> exchange.Exchanged:
    managers = factory.make(size)
    workers = [Thread(target=exchange.answer, args=(each, LONG)) for each in managers[1:]]
    for worker in workers:
        worker.start()
    done = exchange.lead(managers[0], root_seconds)
    for worker in workers:
        worker.join(LONG)
    assert not any(worker.is_alive() for worker in workers)
    return done


class Queued(CommunicationManager):
    """Ranks of one process that put messages into each other's queue."""

    def __init__(self, rank: int, everybody: list[Queued]) -> None:
        from queue import SimpleQueue

        self.rank, self.size = rank, 3
        self.hosts = ["a", "a", "b"]
        self.everybody = everybody
        self.queue: SimpleQueue[tuple[int, list[bytes]]] = SimpleQueue()
        self.first: list[tuple[int, list[bytes]]] = []

    @classmethod
    def make(cls, size: int) -> list[Queued]:
        everybody: list[Queued] = []
        everybody += [cls(rank, everybody) for rank in range(size)]
        return everybody

    def send(self, rank, frames):
        self.everybody[rank].queue.put((self.rank, [bytes(frame) for frame in frames]))

    def receive(self):
        found, self.first = self.first, []
        while not self.queue.empty():
            found.append(self.queue.get())
        return found

    def wait(self, timeout):
        from queue import Empty

        try:
            self.first.append(self.queue.get(timeout=timeout))
        except Empty:
            pass

    def wake(self):
        pass

    def lost(self):
        return []

    def close(self, timeout):
        pass


def test_an_exchange_sees_every_machine_and_measures_one_worker_of_each() -> None:
    done = with_threads(3, Queued)
    assert done.error == ""
    assert set(done.machines) == {0, 1, 2}
    assert [(link.rank, link.host, link.near) for link in done.links] == [
        (1, "a", True),
        (2, "b", False),
    ]
    assert all(link.round_trip > 0 and link.bandwidth > 0 for link in done.links)
    assert exchange.read(exchange.told(json.dumps(asdict(done)))) == done


class Deaf(Queued):
    """Rank 2 gets nothing before the end."""

    def send(self, rank, frames):
        if rank != 2 or bytes(frames[0]) == b"end":
            super().send(rank, frames)


def test_a_worker_that_does_not_answer_ends_the_exchange() -> None:
    done = with_threads(3, Deaf, root_seconds=0.3)
    assert done.error == "no message came within 0.3 s"
    assert set(done.machines) == {0, 1}


class Gone(Queued):
    """Rank 2 is lost."""

    def send(self, rank, frames):
        if rank != 2 or bytes(frames[0]) == b"end":
            super().send(rank, frames)

    def lost(self):
        from dtm.comm.base import LostPeer

        return [LostPeer(2, "killed by SIGKILL")] if self.rank == 0 else []


def test_a_worker_that_is_lost_is_named() -> None:
    done = with_threads(3, Gone)
    assert done.error == "worker 2 was lost: killed by SIGKILL"


def test_two_workers_of_this_machine_exchange() -> None:
    done = trial(TRIAL, {"DTM_COMM": "local", "DTM_WORKERS": "2"})
    assert done.error == ""
    assert [link.rank for link in done.links] == [1]


def test_a_run_that_fails_is_an_exchange_that_failed() -> None:
    done = trial(TRIAL, {"DTM_COMM": "no.such.Manager"})
    assert done.error.startswith("the run ended with status 1: ")
    assert "no.such" in done.error
