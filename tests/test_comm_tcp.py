"""The TCP manager: its promises, how workers join, and how links end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import suppress
from threading import Lock, Thread
from typing import Any

import pytest

from dtm.comm.tcp import address as addresses
from dtm.comm.tcp.address import Address, Stall, listen, resolve
from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.handshake import Versions
from dtm.comm.tcp.manager import TcpManager
from dtm.comm.tcp.roster import Ask, Gone, Here, Join, NotYet, Refused, Roster, Welcome, read_notice
from dtm.comm.tcp.tls import Contexts, TlsChannel
from dtm.errors import CommunicationError
from dtm.testing.conformance import check_communication_manager
from tests.tcp_programs import PATIENCE, ROOT, Factory, pump, run_of, running, until


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        listen("::1", None).close()
    except CommunicationError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("tls", [False, True], ids=["sealed", "TLS"])
def test_the_tcp_manager_keeps_every_promise(tls: bool) -> None:
    check_communication_manager(Factory(tls=tls))


# Joining


def test_workers_get_the_ranks_they_ask_for_and_others_the_lowest_that_are_free() -> None:
    with run_of(5, reserved=[1]) as (root, credentials), running(root):
        ranks = [
            TcpManager.join(root.address, credentials, rank=rank) for rank in (None, 4, None, 1)
        ]
        assert [manager.rank for manager in ranks] == [2, 4, 3, 1]
        assert {manager.size for manager in ranks} == {5}
        assert list(root.absent()) == []
        for manager in ranks:
            manager.close(1)


@pytest.mark.parametrize(
    ("rank", "sentence"),
    [(1, "rank 1 of this run is taken"), (None, "this run is full"), (9, "there is no rank 9")],
)
def test_a_worker_that_cannot_have_a_rank_is_told_why(
    rank: int | None, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with run_of(2) as (root, credentials), running(root):
        first = TcpManager.join(root.address, credentials)
        with pytest.raises(CommunicationError, match=sentence):
            TcpManager.join(root.address, credentials, rank=rank)
        first.close(1)
    assert sentence in capfd.readouterr().err


def test_messages_for_a_worker_that_has_not_joined_wait_in_order() -> None:
    with run_of(3) as (root, credentials), running(root):
        early = TcpManager.join(root.address, credentials, rank=1)
        for number in range(10):
            root.send(2, [b"root %d" % number])
            early.send(2, [b"peer %d" % number])
        assert list(root.absent()) == [2]
        late = TcpManager.join(root.address, credentials)
        with running(early, late) as received:
            until(lambda: len(received) == 20)
        for sender, name in ((0, b"root"), (1, b"peer")):
            came = [frames for _, source, frames in received if source == sender]
            assert came == [[b"%s %d" % (name, number)] for number in range(10)]
        early.close(1)
        late.close(1)


def test_peers_are_called_only_when_there_is_something_to_say() -> None:
    with run_of(4) as (root, credentials), running(root):
        workers = [TcpManager.join(root.address, credentials) for _ in range(3)]
        assert all(set(worker._routes) == {0} for worker in workers)
        with running(*workers) as received:
            workers[0].send(2, [b"hello"])
            until(lambda: received)
        assert received == [(2, 1, [b"hello"])]
        assert [sorted(worker._routes) for worker in workers] == [[0, 2], [0, 1], [0]]
        for worker in workers:
            worker.close(1)


def test_hosts_are_known_once_their_workers_have_joined() -> None:
    with run_of(3, hosts=["a", "b", "?"]) as (root, credentials), running(root):
        first = TcpManager.join(root.address, credentials, host="other")
        second = TcpManager.join(root.address, credentials, host="third")
        assert root.hosts == ["a", "other", "third"]
        assert second.hosts == root.hosts
        first.close(1)
        second.close(1)


def test_a_wrong_secret_is_told_to_the_worker_and_to_nobody_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with run_of(2) as (root, credentials), running(root):
        other = Credentials(credentials.run, os.urandom(32))
        with pytest.raises(CommunicationError, match="does not know the secret of this run"):
            TcpManager.join(root.address, other)
        with pytest.raises(CommunicationError, match="another run"):
            TcpManager.join(root.address, Credentials.fresh())
        assert list(root.absent()) == [1]
    assert capfd.readouterr().err == ""


def test_another_certificate_does_not_get_in() -> None:
    with run_of(2, Credentials.fresh(tls=True)) as (root, credentials), running(root):
        other = Credentials.fresh(tls=True)
        mixed = Credentials(credentials.run, credentials.secret, other.certificate, other.key)
        with pytest.raises(CommunicationError, match="presents another certificate"):
            TcpManager.join(root.address, mixed)
        plain = Credentials(credentials.run, credentials.secret)
        with pytest.raises(CommunicationError):
            TcpManager.join(root.address, plain, timeout=1)
        assert list(root.absent()) == [1]


@pytest.mark.parametrize(
    ("versions", "part"),
    [
        (Versions("0.0.1", sys.version_info[:2], 5), "dtm 0.0.1"),
        (Versions("1", (3, 99), 5), "Python 3.99"),
        (Versions("1", sys.version_info[:2], 77), "pickle 77"),
    ],
)
def test_another_version_is_refused_with_a_sentence_at_both_ends(
    versions: Versions,
    part: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with run_of(2) as (root, credentials):
        failures: list[BaseException] = []
        root_versions = iter([versions])
        monkeypatch.setattr(
            "dtm.comm.tcp.handshake.own_versions",
            lambda: next(root_versions, Versions("x.y", (3, 11), 5)),
        )  # the worker begins its handshake first

        def join() -> None:
            try:
                TcpManager.join(root.address, credentials, timeout=5)
            except CommunicationError as error:
                failures.append(error)

        thread = Thread(target=join)
        thread.start()
        pump(root, lambda: failures)
        thread.join(PATIENCE)
        pump(root, lambda: not root._pending_connections)
        assert part in str(failures[0])
        assert "both must be the same" in str(failures[0])
    told = capfd.readouterr().err
    assert part in told
    assert "is not let in" in told


def test_a_root_that_is_not_there_is_named_within_the_timeout() -> None:
    with listen("127.0.0.1", None) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(CommunicationError, match=f"nobody listens at .*:{port}: has the run ended"):
        TcpManager.join(f"tcp://127.0.0.1:{port}", Credentials.fresh(), timeout=0.3)


def test_a_listener_that_says_nothing_is_given_up() -> None:
    with listen("127.0.0.1", None) as silent:
        address = Address(*silent.getsockname()[:2])
        with pytest.raises(CommunicationError, match="does not answer"):
            TcpManager.join(str(address), Credentials.fresh(), timeout=0.3)


# Where it listens


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("tls", [False, True])
def test_ipv6(tls: bool) -> None:
    with run_of(3, Credentials.fresh(tls=tls), bind="::1") as (root, credentials), running(root):
        assert root.address.startswith("tcp://[::1]:")
        one, two = (TcpManager.join(root.address, credentials) for _ in range(2))
        with running(one, two) as received:
            one.send(2, [b"by IPv6"])
            until(lambda: received)
        assert received == [(2, 1, [b"by IPv6"])]
        one.close(1)
        two.close(1)


def test_ports_come_from_the_range_and_an_exhausted_one_is_named() -> None:
    with listen("127.0.0.1", None) as taken:
        low = taken.getsockname()[1]
        with pytest.raises(CommunicationError, match=f"no port of {low}-{low} is free"):
            TcpManager.lead(2, Credentials.fresh(), ports=(low, low))
        with run_of(2, ports=(low, min(low + 50, 65_535))) as (root, _):
            assert low < Address.parse(root.address).port <= low + 50


def test_links_that_leave_the_machine_are_encrypted_or_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(CommunicationError, match="have to be encrypted"):
        TcpManager.lead(2, Credentials.fresh(), bind="0.0.0.0")
    with run_of(2, Credentials.fresh(tls=True), bind="0.0.0.0") as (root, _):
        assert root._member.contexts is not None
    with run_of(2, bind="0.0.0.0", tls=False) as (root, _):
        assert root._member.contexts is None
    with run_of(2) as (root, _):
        assert root.address.startswith("tcp://127.0.0.1:")


@pytest.mark.parametrize(
    "text", ["", "host:1", "tcp://host", "tcp://:1", "tcp://::1:5", "tcp://h:0", "tcp://h:99999"]
)
def test_what_is_no_address_is_quoted(text: str) -> None:
    with pytest.raises(CommunicationError, match=r"address|port"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["tcp://host.example:5", "tcp://[::1]:70", "tcp://1.2.3.4:65535"])
def test_addresses_are_written_as_they_are_read(text: str) -> None:
    assert str(Address.parse(text)) == text


def test_a_name_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(CommunicationError, match=r"the name in tcp://no\.such\.invalid:5 "):
        resolve(Address("no.such.invalid", 5))


def test_small_messages_are_not_held_back_and_silent_machines_are_noticed() -> None:
    with run_of(2) as (root, credentials), running(root):
        worker = TcpManager.join(root.address, credentials)
        for manager in (worker, root):
            (stream,) = manager._streams
            with socket.socket(fileno=os.dup(stream.fileno())) as view:
                assert view.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert view.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                if sys.platform == "linux":
                    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                    idle, interval, count = (
                        view.getsockopt(socket.IPPROTO_TCP, option) for option in options
                    )
                    assert idle + interval * count < 10
        worker.close(1)


# Ends


WORKER = """
import os, signal, sys
from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.manager import TcpManager
manager = TcpManager.join(sys.argv[1], Credentials.read(sys.stdin.buffer))
"""


def worker_process(address: str, credentials: Credentials, source: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER + textwrap.dedent(source), address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    process.stdin.write(credentials.to_bytes())
    process.stdin.flush()
    return process


def test_what_a_worker_sent_before_it_was_killed_arrives_and_then_its_loss() -> None:
    source = """
    manager.send(0, [b"last words"])
    manager.receive()
    os.kill(os.getpid(), signal.SIGKILL)
    """
    with run_of(2) as (root, credentials):
        losses = []

        def over() -> bool:
            losses.extend(root.lost())
            return bool(losses)

        with worker_process(root.address, credentials, source) as process:
            received = pump(root, over)
            assert process.wait(PATIENCE) == -signal.SIGKILL
        assert received == [(1, [b"last words"])]
        assert [loss.rank for loss in losses] == [1]
        assert losses[0].reason


def test_a_worker_learns_that_the_root_is_gone() -> None:
    source = """
    print("joined", flush=True)
    while not (losses := manager.lost()):
        manager.wait(1)
        manager.receive()
    print(losses)
    """
    lead = (
        "import sys, os\n"
        "from dtm.comm.tcp.credentials import Credentials\n"
        "from dtm.comm.tcp.manager import TcpManager\n"
        "root = TcpManager.lead(2, Credentials.read(sys.stdin.buffer))\n"
        "print(root.address, flush=True)\n"
        "while True: root.wait(1); root.receive()\n"
    )
    credentials = Credentials.fresh()
    with subprocess.Popen(
        [sys.executable, "-c", lead], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as root:
        assert root.stdin is not None
        assert root.stdout is not None
        root.stdin.write(credentials.to_bytes())
        root.stdin.flush()
        address = root.stdout.readline().decode().strip()
        with worker_process(address, credentials, source) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"joined\n"
            root.kill()
            assert b"LostPeer(rank=0" in worker.communicate(timeout=PATIENCE)[0]


def test_a_peer_whose_listener_is_gone_is_lost_or_has_left_as_the_root_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dtm.comm.tcp.roster.UNREACHABLE", 0.5)
    with run_of(3) as (root, credentials), running(root):
        one, two = (TcpManager.join(root.address, credentials) for _ in range(2))
        assert two._listener is not None
        two._unwatch(two._listener)
        one.send(2, [b"nobody listens"])
        losses = []

        def over() -> bool:
            losses.extend(one.lost())
            return bool(losses)

        pump(one, over)
        assert [loss.rank for loss in losses] == [2]
        assert "cannot be reached" in losses[0].reason
        two._listener = None
        one.close(1)
        two.close(1)


def test_a_peer_that_is_busy_is_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel takes the call, and it does not answer: it may be in the middle of a task."""
    monkeypatch.setattr("dtm.comm.tcp.roster.UNREACHABLE", 0.1)
    monkeypatch.setattr("dtm.comm.tcp.acceptor.LONGEST", 0.2)
    with run_of(3) as (root, credentials), running(root):
        one, two = (TcpManager.join(root.address, credentials) for _ in range(2))
        calls = []
        failed = one._failed
        monkeypatch.setattr(one, "_failed", lambda *call: (calls.append(call), failed(*call)))
        one.send(2, [b"when you have time"])
        pump(one, lambda: len(calls) == 4)
        assert one.lost() == []
        monkeypatch.setattr("dtm.comm.tcp.acceptor.LONGEST", PATIENCE)
        with running(one, two) as received:
            until(lambda: received)
        assert [message[-1] for message in received] == [[b"when you have time"]]
        one.close(1)
        two.close(1)


def test_a_peer_that_left_before_it_was_called_is_not_lost() -> None:
    with run_of(3) as (root, credentials), running(root):
        one, two = (TcpManager.join(root.address, credentials) for _ in range(2))
        two.close(1)
        one.send(2, [b"too late"])
        pump(one, lambda: 2 in one._gone)
        assert one.lost() == []
        assert not one._searches
        one.close(1)


def test_what_was_sent_arrives_though_its_sender_closes_with_mail_unread() -> None:
    """A socket closed with unread input resets the connection, which must not cost the output."""
    with run_of(3) as (root, credentials), running(root):
        one, two = (TcpManager.join(root.address, credentials) for _ in range(2))
        with running(one, two) as received:
            two.send(1, [b"hello"])
            until(lambda: received)
        two.send(1, [bytes(100_000)] * 5)
        for number in range(100):
            one.send(2, [b"%d" % number])
        one.close(10)
        with running(two) as received:
            until(lambda: len(received) == 100)
        assert [frames for *_, frames in received] == [[b"%d" % n] for n in range(100)]
        assert two.lost() == []
        two.close(1)


def test_a_stall_is_a_peer_that_confirms_nothing_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[int, int | None] = {}
    monkeypatch.setattr(addresses, "_last_heard", lambda descriptor, _now: heard[descriptor])
    stall = Stall(8.0)
    heard.update({1: 100_000, 2: 100_000, 3: None})
    assert stall.look([1, 2, 3], 100.0) == []
    heard[2] = 107_000  # an answer has come
    assert stall.look([1, 2, 3], 107.0) == []
    assert stall.look([1, 2, 3], 108.5) == [1]
    heard[3] = 90_000  # it was silent because nothing was asked
    assert stall.look([2, 3], 109.0) == []
    assert stall.look([2, 3], 117.5) == [2, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_program_that_does_not_read_is_not_taken_for_a_dead_machine() -> None:
    with listen("127.0.0.1", None) as listener:
        sender = socket.create_connection(listener.getsockname())
        receiver, _ = listener.accept()
        with sender, receiver:
            sender.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    sender.send(bytes(1 << 20))
            descriptor = sender.fileno()
            assert addresses.unsent(descriptor) > 0
            stall = Stall(0.0)
            stall.look([descriptor], 0.0)
            until(lambda: addresses._last_heard(descriptor, 1e6) is None)
            assert stall.look([descriptor], 1e6) == []


# Notices and the roster


@pytest.mark.parametrize(
    "notice",
    [
        Join("häst", "tcp://[::1]:5"),
        Welcome(3, ("a", "", "ü")),
        Refused("no"),
        Ask(7),
        Here(7, "host", "tcp://h:1"),
        NotYet(2),
        Gone(3, ""),
    ],
    ids=lambda notice: type(notice).__name__,
)
def test_notices_arrive_as_they_were_sent(notice: Join) -> None:
    assert read_notice(notice.frames()) == notice


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\0"],
        [b"\xff"],
        [b"\x01"],
        [b"\x04", b"x"],
        [b"\x01", b"\xff", b"a"],
        [b"\x04", b"1", b"2"],
    ],
)
def test_a_notice_that_cannot_be_read_is_an_error(frames: list[bytes]) -> None:
    with pytest.raises(CommunicationError, match="cannot be read"):
        read_notice(frames)


def test_the_roster_answers_who_asked_once_a_rank_has_joined() -> None:
    roster = Roster(4, ["h"] * 4, [3])
    assert roster.find(2, 1) == NotYet(2)
    assert roster.choose(-1) == 1
    roster.enter(1, "x", "tcp://x:1")
    assert roster.choose(-1) == 2
    assert roster.enter(2, "y", "tcp://y:1") == [1]
    assert roster.find(2, 1) == Here(2, "y", "tcp://y:1")
    with pytest.raises(CommunicationError, match="full"):
        roster.choose(-1)
    assert roster.choose(3) == 3
    roster.strike(2, "killed")
    roster.strike(1, "")
    assert roster.find(2, 1) == Gone(2, "killed")
    assert roster.find(1, 2) == Gone(1, "")
    assert roster.absent() == [3]


def test_a_wait_looks_at_nothing_that_other_threads_change(monkeypatch: pytest.MonkeyPatch) -> None:
    root = TcpManager.lead(2, Credentials.fresh())
    root.receive()
    for name in ("_searches", "_pending_connections", "_streams", "_sources", "_routes"):
        monkeypatch.delattr(root, name)
    root.wait(0.01)
    monkeypatch.undo()
    root.close(PATIENCE)


class OneAtATime:
    """Stands for an object that must not be used by two threads at a time."""

    def __init__(self, used: object) -> None:
        self.used = used
        self.lock = Lock()
        self.met: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: object) -> Any:
            if not self.lock.acquire(blocking=False):
                self.met.append(name)
                return getattr(self.used, name)(*args)
            try:
                return getattr(self.used, name)(*args)
            finally:
                self.lock.release()

        return call


def greeted(contexts: Contexts) -> tuple[TlsChannel, TlsChannel]:
    """Return two channels over a pair of sockets, which have done the handshake of TLS."""
    channels = tuple(
        contexts.channel(end, called=called)
        for end, called in zip(socket.socketpair(), (False, True), strict=True)
    )
    waiting = set(channels)
    for channel in channels * 10:
        channel.setblocking(False)
        with suppress(BlockingIOError):
            channel.greet()
            waiting.discard(channel)
    assert not waiting
    return channels[0], channels[1]


def test_tls_is_not_used_by_a_reader_and_a_writer_at_the_same_time() -> None:
    near, far = greeted(Contexts(Credentials.fresh(tls=True)))
    near._tls = watched = OneAtATime(near._tls)  # type: ignore[assignment]
    near._read_into = watched.read
    size, count = 1 << 16, 100

    def write(channel: TlsChannel) -> None:
        for _ in range(count):
            while True:
                with suppress(BlockingIOError):
                    channel.send(bytes(size))
                    break

    def read(channel: TlsChannel) -> None:
        left, target = size * count, memoryview(bytearray(size))
        while left:
            with suppress(BlockingIOError):
                left -= channel.recv_into(target)

    threads = [Thread(target=act, args=(each,)) for act in (write, read) for each in (near, far)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert watched.met == []
    near.close()
    far.close()
