"""What the ranks do in the tests: ``mpirun -n N python mpi_scenarios.py NAME REPORT``.

Each rank appends to the file REPORT its process id first (the tests see to it
that none stays), then what it found, one fact a line: launchers lose output when
a rank dies.  A watchdog ends a rank that hangs.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from dtm.comm.base import Frame
from dtm.comm.mpi import messages as mpi_messages
from dtm.comm.mpi.library import yield_when_idle
from dtm.comm.mpi.manager import MpiManager

PATIENCE = 30.0
KIB = 1024


def say(*words: object) -> None:
    """Append one whole line to the report."""
    with open(sys.argv[2], "ab", buffering=0) as report:
        report.write((" ".join(map(str, words)) + "\n").encode())


def pattern(length: int, seed: int) -> bytes:
    """Return bytes that differ from place to place."""
    unit = bytes((i * 7 + seed) % 251 for i in range(251))
    return (unit * (length // 251 + 1))[:length]


class Inbox:
    """Takes messages by their kind (the first frame), so that scenarios need no barriers."""

    def __init__(self, manager: MpiManager) -> None:
        self.manager = manager
        self.stash: deque[tuple[int, list[Frame]]] = deque()

    def take(self, kind: bytes, count: int) -> list[tuple[int, list[Frame]]]:
        """Return the next ``count`` messages of a kind, without their first frames."""
        taken: list[tuple[int, list[Frame]]] = []
        deadline = time.monotonic() + PATIENCE
        while len(taken) < count:
            for _ in range(len(self.stash)):
                sender, frames = self.stash.popleft()
                if frames[0] == kind and len(taken) < count:
                    taken.append((sender, frames[1:]))
                else:
                    self.stash.append((sender, frames))
            if len(taken) == count:
                break
            came = self.manager.receive()
            self.stash += came
            if not came:
                assert time.monotonic() < deadline, (kind, len(taken), count)
                self.manager.wait(1.0)
        return taken


def others(manager: MpiManager) -> list[int]:
    """Return all ranks but this one."""
    return [rank for rank in range(manager.size) if rank != manager.rank]


def order(manager: MpiManager, inbox: Inbox) -> None:
    """Small and large messages, mixed, arrive in the order in which they were sent."""
    lengths = [0, 1, 70 * KIB, 2, 300 * KIB, 3, 3, 65 * KIB, 0, 1100 * KIB, 5] * 3
    for number, length in enumerate(lengths):
        for peer in others(manager):
            manager.send(peer, [b"order", str(number).encode(), pattern(length, number)])
    came = inbox.take(b"order", len(lengths) * (manager.size - 1))
    for peer in others(manager):
        mine = [frames for sender, frames in came if sender == peer]
        assert [int(bytes(frames[0])) for frames in mine] == list(range(len(lengths)))
        for number, (_, content) in enumerate(mine):
            assert content == pattern(lengths[number], number), number


def shapes(manager: MpiManager, inbox: Inbox) -> None:
    """Frames arrive cut as they were: empty ones, many, and those at the limits."""
    edge = mpi_messages.INLINE_LIMIT
    messages: list[list[bytes]] = [
        [b""],
        [b"", b"", b""],
        [b"a", b"", pattern(edge, 1), b""],
        [pattern(edge - 1, 2), pattern(edge, 3), pattern(edge + 1, 4), b"end"],
        [pattern(edge + 1, 5)],
        [pattern(i % 7, i) for i in range(5000)],
        [pattern(60 * KIB, i) for i in range(40)],
        [pattern(70 * KIB, i) for i in range(40)],
        [pattern(mpi_messages.HEAD_LIMIT, 6), b"x" * 10],
    ]
    for frames in messages:
        for peer in others(manager):
            manager.send(peer, [b"shape", *frames])
    came = inbox.take(b"shape", len(messages) * (manager.size - 1))
    for peer in others(manager):
        assert [frames for sender, frames in came if sender == peer] == messages


def kinds(manager: MpiManager, inbox: Inbox) -> None:
    """Any contiguous bytes-like object is a frame; a lone frame keeps its bytes too."""
    numbers = memoryview(b"".join(i.to_bytes(8, "little") for i in range(20_000))).cast("Q")
    square = memoryview(bytes(range(16))).cast("B", (4, 4))
    frames: list[Frame] = [b"kind", bytearray(b"array"), numbers[:5], numbers, square]
    for peer in others(manager):
        manager.send(peer, frames)
    for _, came in inbox.take(b"kind", manager.size - 1):
        assert came == [b"array", bytes(numbers[:5]), bytes(numbers), bytes(range(16))]


def in_pieces(manager: MpiManager) -> None:
    """A frame longer than an MPI message may be travels in pieces."""
    mpi_messages.PIECE_LIMIT = 100 * KIB
    inbox = Inbox(manager)
    big = pattern(1050 * KIB + 3, manager.rank)
    for peer in others(manager):
        manager.send(peer, [b"piece", big, b"after"])
    for sender, frames in inbox.take(b"piece", manager.size - 1):
        assert frames == [pattern(len(big), sender), b"after"]
    say("pieces good")
    manager.close(PATIENCE)


def exchange(manager: MpiManager) -> None:
    """All that must hold for any number of ranks."""
    inbox = Inbox(manager)
    for scenario in (order, shapes, kinds):
        scenario(manager, inbox)
        say(manager.rank, scenario.__name__, "good")
    assert len(manager.hosts) == manager.size
    assert manager.lost() == []
    manager.close(PATIENCE)
    say(manager.rank, "closed")


def both_ways(manager: MpiManager) -> None:
    """Two ranks send each other 100 MB at the same time; neither blocks."""
    inbox = Inbox(manager)
    peer = 1 - manager.rank
    manager.send(peer, [b"ready"])
    inbox.take(b"ready", 1)
    began = time.monotonic()
    manager.send(peer, [b"big", bytes([manager.rank]) * 100_000_000])
    [(_, frames)] = inbox.take(b"big", 1)
    assert len(frames[0]) == 100_000_000
    assert frames[0][0] == frames[0][-1] == peer
    say("both ways", round(time.monotonic() - began, 3))
    manager.close(PATIENCE)


def many_small(manager: MpiManager) -> None:
    """A thousand messages each way, answered one by one."""
    inbox = Inbox(manager)
    for number in range(1000):
        manager.send(1 - manager.rank, [b"%d" % number])
        inbox.take(b"%d" % number, 1)
    say("small good")
    manager.close(PATIENCE)


def waking(manager: MpiManager) -> None:
    """``wake`` ends a wait, of several threads too; before a wait it ends the next one."""
    manager.wake()
    began = time.monotonic()
    manager.wait(5.0)
    threads = [threading.Thread(target=manager.wait, args=(20.0,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        manager.wake()
        threads[0].join(0.01)
    signal.signal(signal.SIGALRM, lambda *_: manager.wake())
    manager.wait(0.5)  # takes the wakes that are left; on a busy machine that may need a while
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    manager.wait(5.0)
    say("woken", round(time.monotonic() - began, 3))
    began = time.monotonic()
    manager.wait(0.2)
    say("slept", round(time.monotonic() - began, 3))
    manager.close(PATIENCE)


def look_in_vain(manager: MpiManager) -> None:
    """Where ranks outnumber cores, a look that finds nothing lets nobody else have the core."""
    say("yields", yield_when_idle(False))
    manager.close(PATIENCE)


def idle(manager: MpiManager) -> None:
    """A rank that waits uses no processor time, and hears at once when something comes."""
    inbox = Inbox(manager)
    manager.send(1 - manager.rank, [b"ready"])
    inbox.take(b"ready", 1)
    if manager.rank == 0:
        used, until = time.process_time(), time.monotonic() + 2.0
        while (now := time.monotonic()) < until:
            manager.wait(until - now)
        say("idle", round((time.process_time() - used) / 2.0, 4))
        manager.send(1, [b"sent", b"%f" % time.monotonic()])
    else:
        [(_, [sent])] = inbox.take(b"sent", 1)
        say("heard", round(time.monotonic() - float(bytes(sent)), 4))
    manager.close(PATIENCE)


def sent_and_left(manager: MpiManager) -> None:
    """A rank closes with messages under way: they arrive all the same."""
    inbox = Inbox(manager)
    if manager.rank == 0:
        for number in range(20):
            manager.send(1, [b"last", pattern(5_000_000, number)])
    else:
        time.sleep(0.3)
        came = inbox.take(b"last", 20)
        assert [bytes(frames[0]) for _, frames in came] == [
            pattern(5_000_000, number) for number in range(20)
        ]
        say("all came")
    manager.close(PATIENCE)
    say("closed")


def not_taken(manager: MpiManager) -> None:
    """A rank closes without having received what others sent; nobody hangs."""
    for peer in others(manager):
        for _ in range(5):
            manager.send(peer, [b"never read", bytes(3_000_000), b"small"])
    manager.close(PATIENCE)
    say("closed")


def from_a_thread(manager: MpiManager) -> None:
    """Another thread than the first may close, while a task thread sends and one waits."""
    done = threading.Event()

    def progress() -> None:
        while not done.is_set():
            manager.wait(0.05)

    waiter = threading.Thread(target=progress)
    waiter.start()
    inbox = Inbox(manager)
    manager.send(1 - manager.rank, [b"big", bytes(30_000_000)])
    time.sleep(0.1)  # the message has to go out by the waiting thread alone
    inbox.take(b"big", 1)
    done.set()
    manager.wake()
    waiter.join(PATIENCE)
    closer = threading.Thread(target=manager.close, args=(PATIENCE,))
    closer.start()
    closer.join(PATIENCE)
    say("closed")


def killed(manager: MpiManager) -> None:
    """The root learns that a rank was killed, and can end the job."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher must not be quicker
    if manager.rank == 1:
        Inbox(manager).take(b"ready", 1)
        os.kill(os.getpid(), signal.SIGKILL)
    manager.send(1, [b"ready"])
    deadline = time.monotonic() + PATIENCE
    lost = manager.lost()
    while not lost and time.monotonic() < deadline:
        manager.wait(1.0)
        lost = manager.lost()
    say("lost at", manager.rank, [tuple(peer) for peer in lost])
    manager.send(lost[0].rank, [b"dropped"])
    assert manager.lost() == []
    began = time.monotonic()
    manager.close(PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2  # nobody waits for a peer that is dead
    manager.abort(3)


def root_killed(manager: MpiManager) -> None:
    """The workers of its machine learn that the root was killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if manager.rank == 0:
        Inbox(manager).take(b"ready", 1)
        os.kill(os.getpid(), signal.SIGKILL)
    manager.send(0, [b"ready"])
    deadline = time.monotonic() + 10
    lost = manager.lost()
    while not lost and time.monotonic() < deadline:
        manager.wait(1.0)
        lost = manager.lost()
    say("lost at", manager.rank, [tuple(peer) for peer in lost])
    manager.abort(3)


def wrong_ranks(manager: MpiManager) -> None:
    """Oneself and ranks that do not exist are errors; so is a message without frames."""
    for rank in (manager.rank, manager.size, -1):
        try:
            manager.send(rank, [b""])
        except ValueError as error:
            say("refused", error)
    try:
        manager.send(1 - manager.rank, [])
    except ValueError as error:
        say("refused", error)
    manager.close(PATIENCE)


class OwnedLock:
    """A lock that knows which thread holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.owner: int | None = None

    def __enter__(self) -> None:
        self._lock.acquire()
        self.owner = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self.owner = None
        self._lock.release()


class Guarded:
    """Stands for an object of which every attribute is to be used under a lock only."""

    def __init__(self, guarded: object, lock: OwnedLock) -> None:
        vars(self).update(guarded=guarded, lock=lock)

    def __getattr__(self, name: str) -> object:
        if self.lock.owner != threading.get_ident() and name != "close":
            say("without the lock:", name)
        return getattr(self.guarded, name)


def guarded(manager: MpiManager) -> None:
    """What the threads of a rank share is used under the manager's lock, whatever they do."""
    lock = OwnedLock()
    manager._lock = lock  # type: ignore[assignment]
    manager._mail = Guarded(manager._mail, lock)  # type: ignore[assignment]
    manager._watch = Guarded(manager._watch, lock)  # type: ignore[assignment]
    done = threading.Event()

    def progress() -> None:
        while not done.is_set():
            manager.wait(0.05)
            manager.absent()
            manager.lost()

    waiters = [threading.Thread(target=progress) for _ in range(2)]
    for waiter in waiters:
        waiter.start()
    inbox = Inbox(manager)
    for number in range(100):
        for peer in others(manager):
            manager.send(peer, [b"%d" % number, bytes(200_000), b"small"])
        inbox.take(b"%d" % number, manager.size - 1)
    done.set()
    manager.wake()
    for waiter in waiters:
        waiter.join(PATIENCE)
    manager.close(PATIENCE)
    say("guarded")


def forked(manager: MpiManager) -> None:
    """Children that a rank forks may call all methods and end in any way; the run goes on."""
    faulthandler.cancel_dump_traceback_later()  # a child without its thread waits for it at exit
    inbox = Inbox(manager)
    for peer in others(manager):
        manager.send(peer, [b"before", bytes(300_000)])
    for way in ("_exit", "exit", "quit", "abort"):
        child = os.fork()
        if child == 0:
            for peer in others(manager):
                manager.send(peer, [b"a child's"])
            manager.wake()
            manager.wait(0.01)
            empty = manager.receive() == [] and manager.lost() == []
            manager.close(1.0)
            end = getattr({"_exit": os, "exit": sys}.get(way, manager), way)
            end(7 if empty and manager.forked else 1)
        say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    for peer in others(manager):
        manager.send(peer, [b"after"])
    assert len(inbox.take(b"before", manager.size - 1)) == manager.size - 1
    assert len(inbox.take(b"after", manager.size - 1)) == manager.size - 1
    assert not inbox.stash
    manager.close(PATIENCE)
    say("closed")


def orphaned(manager: MpiManager) -> None:
    """A rank's death is noticed though a child that it has forked lives on."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if manager.rank == 1:
        Inbox(manager).take(b"ready", 1)
        if os.fork() == 0:
            os.closerange(0, 3)  # the launcher reads the standard streams to their end
            time.sleep(3.0)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    manager.send(1, [b"ready"])
    began = time.monotonic()
    lost = manager.lost()
    while not lost and time.monotonic() < began + 10:
        manager.wait(1.0)
        lost = manager.lost()
    say("lost", [peer.rank for peer in lost], "early" if time.monotonic() < began + 2.5 else "late")
    manager.abort(3)


def stuck(manager: MpiManager) -> None:
    """Ranks whose interpreter C code keeps are ended when the root closes, and nobody complains."""
    if manager.rank in (1, 2):
        sum(range(10**11))
    began = time.monotonic()
    manager.close(2.0 if manager.rank == 0 else PATIENCE)
    say("closed after", time.monotonic() - began)


def stuck_for_good(manager: MpiManager) -> None:
    """A rank that MPI cannot end without its interpreter does not keep the root from closing."""
    manager._mpi.COMM_WORLD.allgather(manager.rank)
    stuck(manager)


SCENARIOS: dict[str, Callable[[MpiManager], None]] = {
    scenario.__name__: scenario
    for scenario in (
        exchange,
        in_pieces,
        both_ways,
        many_small,
        waking,
        look_in_vain,
        idle,
        sent_and_left,
        not_taken,
        from_a_thread,
        killed,
        root_killed,
        wrong_ranks,
        guarded,
        forked,
        orphaned,
        stuck,
        stuck_for_good,
    )
}

if __name__ == "__main__":
    faulthandler.dump_traceback_later(60, exit=True)
    say("process", os.getpid())
    SCENARIOS[sys.argv[1]](MpiManager())
