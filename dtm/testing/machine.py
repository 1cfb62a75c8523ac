"""What messages and pickling cost on this machine: for :meth:`dtm.testing.Network.measured`.

Two processes, each with a worker of production that runs no task, ask each other for work over a
Unix socket, by turns: a request and its refusal are all that a message costs (encoding, sending,
receiving, decoding, the scheduler's part), and nothing else.  First both look for messages without
rest, which gives the latency; then both sleep until one comes, which gives the waking.

The figures are means over the best tenth of all turns: what else runs here is no cost of dtm's.
Processor time is that of the thread, so others disturb it little.

Every wait has a bound, the other process is ended in any case, and it ends by itself when this one
is gone.

Rejected: measuring a whole run.  What a message costs would have to be told from what the policy
does with it.

Threads: one, in each of the two processes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from time import perf_counter, thread_time
from typing import Any, NamedTuple

from dtm.comm.stream import FramedStream
from dtm.comm.stream_manager import StreamManager
from dtm.core.messages import Message, Refusal, StealRequest
from dtm.core.scheduler import Send
from dtm.run.worker import Worker
from dtm.wire.pickling import dumps, loads

MOST_TURNS = 400
LEAST_TURNS = 10
PICKLED = 64  # items at a time
REST_SECONDS = 0.02
START_SECONDS = 10.0
LONGEST_SECONDS = 60.0
LEAST_LATENCY = 1e-6
_ECHO = "from dtm.testing.machine import echo; echo()"


class Costs(NamedTuple):
    """Seconds, as the attributes of :class:`dtm.testing.Network` of these names."""

    near: float
    wake: float
    message_send: float
    message_receive: float


class _End(StreamManager):
    """One of two ends of a connection."""

    def __init__(self, rank: int, connection: socket.socket) -> None:
        super().__init__(rank, 2, ("here", "here"))
        self._adopt(FramedStream(connection, 1 - rank, greeted=True))

    def _connect(self, rank: int) -> socket.socket | None:
        return None


class _Talker(Worker):
    """Asks and answers.

    Attributes:
        rests: whether whoever has asked last sleeps until the answer comes.
        alone: whether the other is gone.
    """

    def __init__(self, manager: _End) -> None:
        super().__init__(manager, on_end=self._note)
        self.rests = True
        self.alone = False

    def _note(self, _: BaseException | None) -> None:
        self.alone = True

    def _dispatch(self, to: int, message: Message, frames: Sequence[Any]) -> None:
        if isinstance(message, Refusal):
            self.rests = bool(message.serial)
        super()._dispatch(to, message, frames)


class _Turn(NamedTuple):
    """What a turn took: of the clock, and of this thread's processor time at its two ends."""

    seconds: float
    sending: float
    receiving: float


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pickling(values: Sequence[Any], seconds: float) -> tuple[float, float]:
    """Return the seconds of processor time to pickle a value and to load it.

    Args:
        values: some like those that will be sent; none cost nothing.
        seconds: not much longer than this is spent.
    """
    some = list(values[:PICKLED])
    if not some:
        return 0.0, 0.0
    frames = dumps(some)
    deadline = perf_counter() + seconds
    sending = receiving = float("inf")
    while True:
        sending = min(sending, _spent(lambda: dumps(some)))
        receiving = min(receiving, _spent(lambda: loads(frames)))
        if perf_counter() >= deadline:
            return sending / len(some), receiving / len(some)


def _spent(act: Callable[[], object]) -> float:
    began = thread_time()
    act()
    return thread_time() - began


def messages(seconds: float) -> Costs:
    """Return what messages cost between two processes of this machine.

    Args:
        seconds: not much longer than this is spent, once the other process has started.

    Raises:
        RuntimeError: the other process cannot be started, or does not answer.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    path = os.pathsep.join(
        [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    command = [sys.executable, "-c", _ECHO, str(theirs.fileno())]
    environment = {**os.environ, "PYTHONPATH": path}
    try:
        other = subprocess.Popen(  # noqa: S603 - this interpreter
            command, pass_fds=[theirs.fileno()], env=environment
        )
    except OSError as error:
        ours.close()
        raise RuntimeError(f"this machine cannot be measured: {error}") from error
    finally:
        theirs.close()
    manager = _End(0, ours)
    try:
        worker = _Talker(manager)
        _turn(worker, START_SECONDS, rests=True)  # it has started
        spinning = _turns(worker, seconds / 2, rests=False) if usable_cores() > 1 else None
        _turn(worker, 1.0, rests=True)
        sleeping = _turns(worker, seconds / 2, rests=True)
    finally:
        with suppress(OSError):
            manager.close(0.0)
        other.kill()
        other.wait()
    cpu = sleeping.sending + sleeping.receiving
    asleep = max(LEAST_LATENCY, sleeping.seconds / 2 - cpu)
    near = LEAST_LATENCY
    if spinning is not None:
        near = min(asleep, max(near, spinning.seconds / 2 - cpu))
    return Costs(near, asleep - near, sleeping.sending, sleeping.receiving)


def _turns(worker: _Talker, seconds: float, *, rests: bool) -> _Turn:
    deadline = perf_counter() + seconds
    turns: list[_Turn] = []
    while len(turns) < MOST_TURNS and (perf_counter() < deadline or len(turns) < LEAST_TURNS):
        began = perf_counter()
        sending, receiving = _turn(worker, 1.0, rests=rests)
        turns.append(_Turn(perf_counter() - began, sending, receiving))
    best = sorted(turns)[: max(1, len(turns) // 10)]
    return _Turn(*map(fmean, zip(*best, strict=True)))


def _turn(worker: _Talker, patience: float, *, rests: bool) -> tuple[float, float]:
    """Ask once and have the answer; return the processor time of both."""
    taken, began, came = worker.taken, thread_time(), 0.0
    with worker.lock:
        worker.perform([Send(1, StealRequest(int(rests), 1, stays=False))])
    sent = thread_time()
    deadline = perf_counter() + patience
    while worker.taken == taken:
        if worker.alone or perf_counter() > deadline:
            raise RuntimeError("this machine cannot be measured: the other process does not answer")
        if rests:
            worker.rest(REST_SECONDS)
        came = thread_time()
        worker.service()
    return sent - began, thread_time() - came


def echo() -> None:
    """Answer, in the other process, and rest as the first does; a worker ends with its root."""
    manager = _End(1, socket.socket(fileno=int(sys.argv[1])))
    worker = _Talker(manager)
    ended = perf_counter() + LONGEST_SECONDS
    while perf_counter() < ended:
        if worker.rests:
            worker.rest(REST_SECONDS)
        worker.service()
