"""Streams, and the manager that joins the processes of one machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtm.comm import spinning, stream_manager
from dtm.comm.child import Child
from dtm.comm.local import LocalManager, make_directory, remove_directory
from dtm.comm.stream import FramedStream
from dtm.testing.conformance import check_communication_manager
from tests.local_programs import await_end_of_group, local_factory, program

if TYPE_CHECKING:
    from pathlib import Path

PRELUDE = """
import os, signal, sys, time
from dtm.launch.local_workers import join_run, start_workers
manager = join_run()

def until_lost(manager, limit=10.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        manager.receive()
        if losses := manager.lost():
            return losses
        manager.wait(1.0)
    return "nobody"

def message(manager, limit=10.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if received := manager.receive():
            return received
        manager.wait(1.0)
    raise SystemExit("nothing came")
"""


def written(tmp_path: Path, source: str) -> Path:
    path = tmp_path / "prog.py"
    path.write_text(PRELUDE + textwrap.dedent(source))
    return path


def as_sent(messages: list[list[bytes]]) -> bytes:
    """Return the bytes that a stream makes of messages."""
    near, far = socket.socketpair()
    wire = bytearray()
    with closing(FramedStream(near)) as writer, far:
        far.setblocking(False)
        for message in messages:
            queued = writer.send(message)
            while queued:
                wire += far.recv(1 << 20)
                queued = writer.flush()
        with suppress(BlockingIOError):
            while True:
                wire += far.recv(1 << 20)
    return bytes(wire)


@pytest.fixture
def pair() -> tuple[socket.socket, FramedStream]:
    left, right = socket.socketpair()
    return left, FramedStream(right, 1, greeted=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_local_manager_keeps_every_promise() -> None:
    check_communication_manager(local_factory)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 200_000), min_size=1, max_size=4), max_size=6),
    st.integers(1, 300_000),
)
def test_messages_survive_any_cutting_of_the_byte_stream(
    sizes: list[list[int]], piece: int
) -> None:
    messages = [[os.urandom(size) for size in message] for message in sizes]
    wire = as_sent(messages)
    piece = max(piece, len(wire) // 1000)
    left, right = socket.socketpair()
    reader = FramedStream(right)
    received = []
    with left, closing(reader):
        for start in range(0, len(wire), piece):
            rest = memoryview(wire)[start : start + piece]
            while rest:
                rest = rest[left.send(rest[: 1 << 16]) :]
                received += reader.receive()
    assert [[bytes(frame) for frame in message] for message in received] == messages


def test_an_end_after_a_farewell_is_orderly(pair: tuple[socket.socket, FramedStream]) -> None:
    peer, stream = pair
    farewell = FramedStream(peer)
    farewell.send([b"last"])
    farewell.leave()
    farewell.close()
    assert stream.receive() == [[b"last"]]
    stream.receive()
    assert (stream.ended, stream.orderly) == (True, True)
    stream.close()


def test_an_end_without_a_farewell_is_not_orderly(pair: tuple[socket.socket, FramedStream]) -> None:
    peer, stream = pair
    peer.send(b"\1\0\0\0half")
    peer.close()
    stream.receive()
    assert stream.receive() == []
    assert (stream.ended, stream.orderly) == (True, False)
    stream.close()


def test_sending_to_a_closed_stream_drops_the_message(
    pair: tuple[socket.socket, FramedStream],
) -> None:
    peer, stream = pair
    peer.close()
    assert not stream.send([b"x" * 10])
    assert not stream.send([b"x" * 1_000_000])
    stream.close()


def test_small_messages_queue_up_behind_a_large_one_in_order(
    pair: tuple[socket.socket, FramedStream],
) -> None:
    peer, stream = pair
    other = FramedStream(peer)
    assert stream.send([b"x" * 5_000_000])
    for number in range(1000):
        assert stream.send([b"%d" % number])
    received: list[list[object]] = []
    while stream.flush():
        received += other.receive()
    while len(received) < 1001:
        received += other.receive()
    assert [message[0] for message in received[1:]] == [b"%d" % number for number in range(1000)]
    stream.close()
    other.close()


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("sys.exit(3)", "exited with status 3"),
    ],
)
@pytest.mark.parametrize("joined", [True, False])
def test_the_root_says_how_a_worker_ended(
    tmp_path: Path, end: str, reason: str, joined: bool
) -> None:
    source = f"""
    if manager:
        {end}
    manager = start_workers(2)
    print(until_lost(manager))
    manager.close(5)
    """
    text = written(tmp_path, source)
    if not joined:
        text.write_text(
            text.read_text().replace(
                "manager = join_run()\n", f"if 'DTM_WORKER' in os.environ: {end}\nmanager = None\n"
            )
        )
    with program(text) as started:
        output, errors = started.finish()
    suffix = "" if joined else " before it joined the run"
    assert f"reason='{reason}{suffix}'" in output, errors


def test_what_a_worker_sent_before_it_died_arrives(tmp_path: Path) -> None:
    source = """
    if manager:
        for number in range(100):
            manager.send(0, [b"%d" % number])
        manager.send(0, [bytes(100_000)])
        os.kill(os.getpid(), signal.SIGKILL)
    manager = start_workers(2)
    count = 0
    while not (losses := manager.lost()):
        count += len(manager.receive())
        manager.wait(0.1)
    print(count, losses)
    manager.close(5)
    """
    with program(written(tmp_path, source)) as started:
        output, errors = started.finish()
    assert output.startswith("101 [LostPeer(rank=1"), output + errors


@pytest.mark.slow
def test_a_worker_hidden_by_a_forked_grandchild_is_found_dead(tmp_path: Path) -> None:
    source = """
    if manager:
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    manager = start_workers(2)
    began = time.monotonic()
    print(until_lost(manager), time.monotonic() - began < 2.5)
    manager.close(1)
    """
    with program(written(tmp_path, source)) as started:
        output, errors = started.finish()
    assert "killed by SIGKILL" in output, errors
    assert output.endswith("True\n")


@pytest.mark.slow
def test_workers_learn_of_the_death_of_the_root_and_clean_up(tmp_path: Path) -> None:
    source = """
    if manager:
        print(until_lost(manager), flush=True)
        manager.close(1)
        sys.exit()
    manager = start_workers(3)
    while not manager._routes[1].greeted or not manager._routes[2].greeted:
        message(manager) if manager.receive() else manager.wait(0.1)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    with program(written(tmp_path, source)) as started:
        output, _ = started.finish(10)
    assert output.count("LostPeer(rank=0, reason='its process has ended')") == 2


@pytest.mark.slow
def test_a_worker_that_starts_after_the_death_of_the_root_ends(tmp_path: Path) -> None:
    source = """
    manager = start_workers(2)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    path = written(tmp_path, source)
    path.write_text(
        path.read_text().replace(
            "manager = join_run()",
            "if 'DTM_WORKER' in os.environ: time.sleep(0.5)\nmanager = join_run()",
        )
    )
    with program(path) as started:
        _, errors = started.finish(10)
    assert errors == "", "it ends without a word, like a worker whose root dies later"


@pytest.mark.parametrize("stubborn", [False, True])
def test_closing_ends_workers_that_have_not_joined(tmp_path: Path, stubborn: bool) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if stubborn else ""
    source = """
    manager = start_workers(4)
    time.sleep(0.5)
    began = time.monotonic()
    manager.close(30)
    print(time.monotonic() - began < 2.0)
    """
    path = written(tmp_path, source)
    path.write_text(
        path.read_text().replace(
            "manager = join_run()", f"if 'DTM_WORKER' in os.environ: {deaf} time.sleep(60)"
        )
    )
    with program(path) as started:
        output, errors = started.finish(20)
    assert (output, errors) == ("True\n", "")


def test_closing_kills_a_worker_that_never_ends(tmp_path: Path) -> None:
    source = """
    if manager:
        manager.send(0, [b"here"])
        time.sleep(60)
    manager = start_workers(2)
    message(manager)
    began = time.monotonic()
    manager.close(0.5)
    print(time.monotonic() - began < 3.0)
    """
    with program(written(tmp_path, source)) as started:
        output, errors = started.finish(20)
    assert (output, errors) == ("True\n", "")


def test_closing_waits_for_a_worker_that_has_left(tmp_path: Path) -> None:
    source = """
    if manager:
        message(manager)
        manager.close(1)
        time.sleep(0.3)
        print("ended by itself")
        sys.exit()
    manager = start_workers(2)
    manager.send(1, [b"stop"])
    while not manager.receive() and not manager._routes[1].greeted:
        manager.wait(1)
    manager.close(10)
    """
    with program(written(tmp_path, source)) as started:
        assert started.finish(20) == ("ended by itself\n", "")


def test_a_worker_called_while_it_is_starting_gets_the_message(tmp_path: Path) -> None:
    source = """
    if manager and manager.rank == 1:
        manager.send(2, [b"from 1"])
        message(manager)
        manager.close(5)
        sys.exit()
    if manager:
        print(message(manager), flush=True)
        manager.send(1, [b"stop"])
        manager.send(0, [b"done"])
        manager.close(5)
        sys.exit()
    manager = start_workers(3)
    message(manager)
    manager.close(5)
    """
    path = written(tmp_path, source)
    path.write_text(
        path.read_text().replace(
            "manager = join_run()",
            "if os.environ.get('DTM_WORKER', '').startswith('2'): time.sleep(0.5)\n"
            "manager = join_run()",
        )
    )
    with program(path) as started:
        assert started.finish(20) == ("[(1, [b'from 1'])]\n", "")


def test_a_signal_handler_can_wake(tmp_path: Path) -> None:
    source = """
    manager = start_workers(1)
    signal.signal(signal.SIGALRM, lambda *_: manager.wake())
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    began = time.monotonic()
    manager.wait(30)
    print(0.1 < time.monotonic() - began < 5)
    manager.close(1)
    """
    with program(written(tmp_path, source)) as started:
        assert started.finish(20) == ("True\n", "")


class Peer(LocalManager):
    """A manager without a root, to see what calling the others does."""


def test_who_removed_his_address_has_left_and_who_refuses_is_lost() -> None:
    directory = make_directory()
    try:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{directory}/2")
        manager = Peer(0, 3, directory)
        manager.send(1, [b"nobody has this address"])
        assert manager.lost() == []
        manager.send(2, [b"nobody listens here"])
        assert [loss.rank for loss in manager.lost()] == [2]
        manager.send(2, [b"nobody listens here"])
        assert manager.lost() == []
        with pytest.raises(ValueError, match="cannot send to 3"):
            manager.send(3, [b"nobody"])
        manager.close(1)
    finally:
        remove_directory(directory)


class Glances:
    """Stands for the looks at the selector: something is there at one of them."""

    def __init__(self, there: int) -> None:
        self.looks = 0
        self._there = there

    def poll(self, timeout: float) -> bool:
        assert timeout == 0
        self.looks += 1
        return self.looks >= self._there


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_manager, "LOOK_SECONDS", 60.0)
    monkeypatch.setattr(spinning, "CORES", 2)
    monkeypatch.setattr(stream_manager, "CORES", 2)


def looks_before_sleep(
    size: int, there: int, monkeypatch: pytest.MonkeyPatch, seconds: float = 30.0, **more: Any
) -> int:
    """Let one of so many workers wait until it is woken; return how often it looks before."""
    directory = make_directory()
    try:
        manager, glances = Peer(0, size, directory), Glances(there)
        monkeypatch.setattr(manager, "_before_sleep", glances)
        for name, value in more.items():
            monkeypatch.setattr(manager, name, value)
        manager.wake()
        manager.wait(seconds)
        manager.close(1)
        return glances.looks
    finally:
        remove_directory(directory)


@pytest.mark.usefixtures("two_cores")
def test_who_has_a_core_to_itself_looks_for_a_moment_before_it_sleeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spinning, "LONG_YIELD_SECONDS", 60.0)
    assert looks_before_sleep(2, 3, monkeypatch) == 3
    assert looks_before_sleep(2, 10**9, monkeypatch, 0.5) > 3, "until the wait is over"
    assert looks_before_sleep(3, 3, monkeypatch) == 0, "more workers than cores"
    assert looks_before_sleep(3, 3, monkeypatch, hosts=["a", "b", "a"]) == 3
    assert looks_before_sleep(2, 3, monkeypatch, _outer=None) == 0, "beside a task"


@pytest.mark.usefixtures("two_cores")
def test_nobody_looks_for_a_while_after_a_yield_that_lasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spinning, "LONG_YIELD_SECONDS", 0.0)
    monkeypatch.setattr(spinning, "CROWDED_SECONDS", 60.0)
    spins = spinning.Spinning()
    assert looks_before_sleep(2, 3, monkeypatch, _spinning=spins) == 1
    assert looks_before_sleep(2, 3, monkeypatch, _spinning=spins) == 0
    assert spins.pays(2, time.monotonic() + spinning.CROWDED_SECONDS)
    monkeypatch.setattr(spinning, "LONG_YIELD_SECONDS", 60.0)
    assert not spins.pays(2, spins.give_way())


def test_the_directory_is_private_and_its_path_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    directory = make_directory()
    try:
        assert os.stat(directory).st_mode & 0o777 == 0o700
        assert len(directory) < 90
    finally:
        remove_directory(directory)
    assert not os.path.exists(directory)


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system does not tell")
def test_only_the_same_user_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_directory()
    manager = Peer(0, 2, directory)
    near, far = socket.socketpair()
    with near, far:
        assert manager._admit(near)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert not manager._admit(near)
    manager.close(1)
    remove_directory(directory)


def test_without_pidfds_a_child_is_waited_for_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.2)"]) as process:
        child = Child(process)
        assert not child.watchable
        assert not child.wait(0.01)
        assert child.wait(10)
        assert child.outcome() == "exited with status 0"
        child.close()


def test_without_pidfds_deaths_are_noticed_too(tmp_path: Path) -> None:
    source = """
    if manager:
        if manager.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        print(until_lost(manager), flush=True)
        manager.close(1)
        sys.exit()
    manager = start_workers(3)
    print(until_lost(manager), flush=True)
    while not manager._routes[2].greeted:
        manager.receive()
        manager.wait(0.1)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    path = written(tmp_path, source)
    path.write_text(
        "import os\nif hasattr(os, 'pidfd_open'): del os.pidfd_open\n" + path.read_text()
    )
    with program(path) as started:
        output, errors = started.finish(20)
    assert "LostPeer(rank=1, reason='killed by SIGKILL" in output, errors
    assert "LostPeer(rank=0, reason='its process has ended')" in output, errors


def test_interrupting_the_root_leaves_nothing_behind(tmp_path: Path) -> None:
    source = """
    if manager:
        until_lost(manager, 30)
        manager.close(1)
        sys.exit()
    manager = start_workers(3)
    print("started", flush=True)
    try:
        until_lost(manager, 30)
    except KeyboardInterrupt:
        manager.close(1)
        sys.exit(130)
    """
    with program(written(tmp_path, source)) as started:
        assert started.wait_for_line() == "started"
        time.sleep(0.05)
        os.killpg(started.pid, signal.SIGINT)
        _, errors = started.finish(10)
        await_end_of_group(started.pid)
    assert started.returncode == 130
    assert errors == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who was started by whom")
def test_all_that_a_process_has_started_ends_with_it() -> None:
    source = """
        import subprocess, sys
        from dtm.comm.child import end_descendants
        subprocess.Popen("trap '' TERM; sleep 600; sleep 600", shell=True)
        subprocess.Popen(["sleep", "600"])
        end_descendants()
        """
    done = subprocess.run(  # ends only when nobody holds its output any more
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == b""
