"""The file in which a worker records what it does, and what stands in it.

A trace is a directory with one file a worker.  A file is ``MAGIC`` and then blocks: a letter, a
length, and that many bytes.  ``T`` is a text in JSON, ``E`` are events, ``EVENT.size`` bytes each.
All events have one shape, so that a reader takes a block of them in one go:

    =========  ===================  =================  =================  ====================
    kind       begin, end           own                index, count       number, peer, flag
    =========  ===================  =================  =================  ====================
    RUN        of the run here      --                 --                 --
    STRIP      of the strip         seconds of its     first item, items  call, stack, 1 if it
                                    own                                   failed
    PARK       stack put aside      --                 --                 call, stack
    YIELD      stack gives way      --                 --                 0, stack
    REST       nothing to run       --                 --                 call, stack, 1 if it
                                                                          asks for work
    WAIT       ``main`` waits       --                 --                 call
    SEND       encoding, sent       --                 bytes, items       serial, to, kind
    RECEIVE    came, taken in       load of the        bytes, items       serial, from, kind
                                    sender, seconds
    CALL       made; size           depth              item, call that    call, function
                                                       made it
    PART       came; key            depth              function, size     call, owner
    KEY        now; key             --                 --                 call
    =========  ===================  =================  =================  ====================

What lasts long is an event only when it ends, so a text says four times a second what a worker is
in the middle of: of a run that is killed, a reader knows it by that.

A call is numbered by each worker for itself; ``KEY`` and ``PART`` say which numbers are the same
call.  Times are those of ``perf_counter``; those of several hosts are brought together when the
trace is read, from the messages: the n-th that A sent to B is the n-th that B had from A.
Whole numbers that do not fit are recorded as the largest that does.

Invariant: what has been written is whole blocks, but for the last one, so a file can be read
however its worker ended.  A worker writes what is older than ``FLUSH_SECONDS`` whenever it reads
messages, which it does four times a second at least.

What can go wrong: the directory cannot be written, the disk is full.  Nothing more is recorded
then, and the run goes on.  The root says so on stderr at once, if it is its own file; whatever
the others could not write, :func:`unrecorded` says at the end, in one line for all of them.

Threads: any may record; a queue keeps the events, and one thread at a time writes.

Rejected: a memory map of the file, which would need no writes and lose nothing at a kill.  On a
full disk a store to it is a SIGBUS.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Mapping
from heapq import heappush, heapreplace
from reprlib import Repr
from struct import Struct
from time import perf_counter, time
from typing import Any

from dtm.core.messages import MESSAGES
from dtm.task import Call, printable

MAGIC = b"dtmtrace1\n"
BLOCK = Struct("<cI")
EVENT = Struct("<ddfIIIHBB")
RUN, STRIP, PARK, YIELD, REST, WAIT, SEND, RECEIVE, CALL, PART, KEY = range(1, 12)
KINDS = {
    "run": RUN, "strip": STRIP, "park": PARK, "give_way": YIELD, "rest": REST, "wait": WAIT,
    "send": SEND, "receive": RECEIVE, "call": CALL, "part": PART, "key": KEY,
}  # fmt: skip
IDLE_FLAG = 128
FOREIGN_STACK = 0xFFFF  # of threads of the user's
SUFFIX = ".dtmtrace"
FLUSH_SECONDS = 0.1
MOST_KEPT = 256  # what is written soon is still in the processor's cache
MOST_NAMED = 8
SLOW_SECONDS = 1e-3
SLOW_ITEMS = 10
_LARGEST = 0xFFFFFFFF
_BRIEF = Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80


def file_of(directory: str, rank: int) -> str:
    """Return the path of a worker's file."""
    return os.path.join(directory, f"worker-{rank:05d}{SUFFIX}")


class Recorder:
    """Writes the trace of one worker.

    Args:
        directory: where the file stands; it is made if it is not there.
        rank, size, host: this worker, and how many there are.

    Attributes:
        began, ended: when the worker began, on the root ``main``, and when it ended; None until
            the file is closed.
        problem: number of the error for which nothing more is recorded, 0 if there is none.
    """

    def __init__(self, directory: str, rank: int, size: int, host: str) -> None:
        self._rank = rank
        self.directory = directory
        self._path = file_of(directory, rank)
        self.problem = 0
        self._pid = os.getpid()
        self._file: int | None = None
        self._events: deque[bytes] = deque()
        self._writing = threading.Lock()
        self._numbering = threading.Lock()
        self._flushed = self.began = perf_counter()
        self.ended: float | None = None
        self._functions: dict[str, int] = {}
        self._calls = 0
        self._slowest: dict[int, list[float]] = {}
        header = {
            "rank": rank, "size": size, "host": host, "machine": _machine(), "pid": self._pid,
            "clock": self.began, "time": time(), "python": sys.version.split()[0],
            "messages": [each.__name__ for each in MESSAGES],
        }  # fmt: skip
        try:
            os.makedirs(directory, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o666)
            self._write(MAGIC)
        except OSError as error:
            self._give_up(error)
        self.text("worker", header)

    # Events.

    def record(
        self,
        kind: int,
        begin: float,
        end: float,
        own: float = 0.0,
        index: int = 0,
        number: int = 0,
        count: int = 0,
        peer: int = 0,
        flag: int = 0,
    ) -> None:
        """Record an event; the head of this module says what each kind means by its values."""
        if self._file is None:
            return
        events = self._events
        if index > _LARGEST or count > _LARGEST:
            index, count = min(index, _LARGEST), min(count, _LARGEST)
        events.append(EVENT.pack(begin, end, own, index, number, count, peer, kind, flag))
        if len(events) >= MOST_KEPT:
            self.flush()

    def made(self, call: Call, parent: int, item: int) -> None:
        """Record a call that a task of this worker has made."""
        with self._numbering:
            number = self._number(call)
        self.record(
            CALL, perf_counter(), call.size, call.depth, item, number, parent,
            min(self.function(call.name), 0xFFFF),
        )  # fmt: skip

    def number_of(self, call: Call) -> int:
        """Return the number of a call, which may be a part of somebody else's."""
        try:
            return call.number
        except AttributeError:
            pass
        with self._numbering:
            if hasattr(call, "number"):  # another thread was faster
                return call.number
            number = self._number(call)
        self.record(
            PART, perf_counter(), call.key, call.depth, self.function(call.name), number,
            call.size, call.owner,
        )  # fmt: skip
        return number

    def key(self, call: Call) -> None:
        """Record under which key the other workers know a call of this one."""
        now = perf_counter()
        self.record(KEY, now, call.key, number=self.number_of(call))

    def slow(self, call: Call, index: int, seconds: float) -> None:
        """Record an item that took ``SLOW_SECONDS`` if it is among the slowest of its function."""
        if self._file is None:
            return
        slowest = self._slowest.setdefault(self.function(call.name), [])
        if len(slowest) < SLOW_ITEMS:
            heappush(slowest, seconds)
        elif seconds > slowest[0]:
            heapreplace(slowest, seconds)
        else:
            return
        said = {"call": self.number_of(call), "index": index, "seconds": seconds}
        self.text("slow", {**said, "item": _shown(call.items[index - call.base])})

    def function(self, name: str) -> int:
        """Return the number of a function by its name."""
        number = self._functions.get(name)
        if number is None:
            number = self._functions[name] = len(self._functions) + 1
            self.text("function", {"number": number, "name": name})
        return number

    def _number(self, call: Call) -> int:
        self._calls = call.number = self._calls + 1
        return call.number

    # The file.

    def text(self, about: str, values: dict[str, Any]) -> None:
        """Write something that is no event, after the events so far."""
        self.flush()
        data = json.dumps({"about": about, **values}).encode()
        with self._writing:
            self._write(BLOCK.pack(b"T", len(data)) + data)

    def under_way(
        self, at: float, waits: float, call: Call | None = None, item: int = 0, since: float = 0.0
    ) -> None:
        """Write what a worker is in the middle of, which is no event until it ends.

        ``waits`` is since when ``main`` waits, 0 if it does not.
        """
        number = 0 if call is None else self.number_of(call)
        values = {"at": at, "waits": waits, "call": number, "item": item, "since": since}
        self.text("under way", values)

    def tick(self, now: float) -> None:
        """Write what has gathered, if it is time."""
        if now - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered, unless another thread is at it."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            self._flushed = perf_counter()
            events = self._events
            count = len(events)
            data = b"".join(events.popleft() for _ in range(count))
            if data:
                self._write(BLOCK.pack(b"E", len(data)) + data)
        finally:
            self._writing.release()

    def close(self) -> None:
        """End the file; what is recorded later is dropped."""
        self.record(RUN, self.began, self.ended or perf_counter())
        self.flush()
        with self._writing:
            file, self._file = self._file, None
            if file is not None and os.getpid() == self._pid:
                os.close(file)

    def _write(self, data: bytes) -> None:
        if self._file is None or os.getpid() != self._pid:  # a child that a task has forked
            return
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._events.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self.problem = error.errno or errno.EIO
        if self._rank == 0:
            said = (
                f"worker 0 records no more of its trace, and the run goes on without: {self._path}"
            )
            sys.stderr.write(_complaint(said, self.problem))


def unrecorded(directory: str, problems: Mapping[int, int]) -> str:
    """Return a line about workers that recorded no more, by rank with the number of the error."""
    ranks = sorted(problems)
    named = ", ".join(map(str, ranks[:MOST_NAMED])) + (" ..." if len(ranks) > MOST_NAMED else "")
    which = f"worker {named} has" if len(ranks) == 1 else f"{len(ranks)} workers ({named}) have"
    said = f"{which} recorded only a part of the trace: {directory}"
    return _complaint(said, problems[ranks[0]])


def _complaint(said: str, problem: int) -> str:
    return f"dtm: {said}: {os.strerror(problem)}; option traceDir says where traces are written\n"


def _machine() -> str:
    """Return what names this machine's clock: workers with the same one share it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()


def _shown(item: object) -> str:
    try:
        return printable(_BRIEF.repr(item)[:120])
    except Exception as error:  # noqa: BLE001 - users' code, which must not end the run here
        return f"<{type(item).__name__} whose repr raises {type(error).__name__}>"
