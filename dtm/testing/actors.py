"""Who takes part in a schedule: processes, their threads, and what happens by itself.

Threads: what is here is changed by the controller, on behalf of the thread that runs.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any


class Killed(BaseException):
    """Ends a controlled thread whose run is over."""


class UncontrolledError(RuntimeError):
    """A thread that nobody controls uses what is controlled."""


class Trouble(Exception):  # noqa: N818 - becomes an InterleavingError with its schedule
    """What went wrong in a schedule, with the stacks and the last switches."""


class Process:
    """What the threads of one process share.

    Attributes:
        actors: its live threads.
        main: its first thread; None before it starts.
        status: with which it has ended; None while it lives.
        handlers: what it does at signals.
        values: of the interpreter's globals, while another process runs.
        at_exit: called, without arguments, when it ends.
        worked: seconds of processor time that it has taken.
    """

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name = name
        self.actors: list[Actor] = []
        self.main: Actor | None = None
        self.status: int | None = None
        self.handlers: dict[int, Any] = {}
        self.values = list(values)
        self.at_exit: list[Callable[[], None]] = []
        self.worked = 0.0


class Actor:
    """One controlled thread.

    Attributes:
        runnable: whether it could go on.
        deadline: when its wait is over, in virtual time.
        timed_out: whether its last wait ended so.
        signals: numbers of signals that it has not handled.
        streak: points passed since it last gave way.
        last: the switch at which it last ran.
        worked: seconds of processor time that it has taken.
    """

    __slots__ = (
        "at_gate", "deadline", "finished", "gate", "ident", "joiners", "last", "name", "priority",
        "process", "runnable", "signals", "streak", "thread", "timed_out", "waiters", "worked",
    )  # fmt: skip

    def __init__(self, process: Process, name: str, thread: Any) -> None:
        self.process = process
        self.name = name
        self.thread = thread
        self.gate = allocate_lock()
        self.gate.acquire()
        self.finished = allocate_lock()
        self.finished.acquire()
        self.at_gate = True
        self.ident = 0
        self.runnable = True
        self.deadline: float | None = None
        self.timed_out = False
        self.waiters: list[Actor] | None = None
        self.joiners: list[Actor] = []
        self.signals: list[int] = []
        self.priority = 0.0
        self.streak = 0
        self.last = 0
        self.worked = 0.0

    def __repr__(self) -> str:
        return f"{self.process.name}/{self.name}"


class Link:
    """Something that happens by itself once it is due, a delivery say, whenever it is chosen.

    Attributes:
        pending: what is due, in order: each is called without arguments.
    """

    __slots__ = ("name", "pending", "priority")

    def __init__(self, name: str) -> None:
        self.name = name
        self.pending: deque[Callable[[], None]] = deque()
        self.priority = 0.0

    def __repr__(self) -> str:
        return self.name
