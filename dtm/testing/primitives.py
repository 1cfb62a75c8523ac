"""Locks, events, threads and signals that a :class:`~dtm.testing.controller.Controller` governs.

They stand for those of :mod:`threading` and :mod:`signal` while a schedule is explored, with the
same names and the same manners: each operation is a point where another thread may go on, each
wait ends in virtual time (:mod:`dtm.testing.virtual_time`).

Threads: the controlled ones.

Rejected: the standard ``Condition`` and ``Event`` on top of a controlled lock.  Each of their
operations takes several locks, so schedules would have five times as many points for nothing.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from queue import Empty
from typing import Any

from dtm.testing.actors import Actor
from dtm.testing.virtual_time import now, process_time, sched_yield, sleep, stage, thread_time


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else stage.controller.clock + max(0.0, timeout)


class Lock:
    """Stands for ``threading.Lock``."""

    def __init__(self) -> None:
        self._owner: Actor | None = None
        self._waiters: list[Actor] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, or wait for it."""
        controller = stage.controller
        controller.point()
        if self._owner is not None:
            if not blocking:
                return False
            deadline = None if timeout < 0 else _deadline(timeout)
            while self._owner is not None:
                if not controller.block(self._waiters, deadline):
                    return False
        self._owner = controller.current
        return True

    def release(self) -> None:
        """Let go of the lock, whoever has taken it."""
        if self._owner is None:
            raise RuntimeError("release unlocked lock")
        self._owner = None
        stage.controller.wake(self._waiters)

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._owner is not None

    def put_down(self) -> int:
        """Let go of the lock wholly; return how often it was taken."""
        self.release()
        return 1

    def take_up(self, count: int) -> None:
        """Take the lock as often as it was."""
        self.acquire()

    def held(self) -> bool:
        """Whether the running thread has taken it."""
        return self._owner is stage.controller.current

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *what: object) -> None:
        self.release()


class RLock(Lock):
    """Stands for ``threading.RLock``."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, once more if it is this thread's."""
        if self._owner is not None and self._owner is stage.controller.current:
            self._count += 1
            return True
        if not super().acquire(blocking, timeout):
            return False
        self._count = 1
        return True

    def release(self) -> None:
        """Let go of the lock once."""
        if self._owner is not stage.controller.current:
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            super().release()

    def put_down(self) -> int:
        """See :meth:`Lock.put_down`."""
        count, self._count = self._count, 0
        super().release()
        return count

    def take_up(self, count: int) -> None:
        """See :meth:`Lock.take_up`."""
        super().acquire()
        self._count = count

    def _is_owned(self) -> bool:
        return self.held()


class Condition:
    """Stands for ``threading.Condition``."""

    def __init__(self, lock: Lock | None = None) -> None:
        self._lock: Lock = RLock() if lock is None else lock
        self._sleepers: list[list[Actor]] = []
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> bool:
        entered: bool = self._lock.__enter__()
        return entered

    def __exit__(self, *what: object) -> None:
        self._lock.__exit__(*what)

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock until notified or until time is up; whether notified."""
        if not self._lock.held():
            raise RuntimeError("cannot wait on un-acquired lock")
        sleeper: list[Actor] = []
        self._sleepers.append(sleeper)
        count = self._lock.put_down()
        deadline = _deadline(timeout)
        woken = True
        try:
            while woken and sleeper in self._sleepers:
                woken = stage.controller.block(sleeper, deadline)
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
            self._lock.take_up(count)
        return woken

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until the predicate holds or until time is up."""
        deadline = _deadline(timeout)
        result = predicate()
        while not result:
            left = None if deadline is None else deadline - stage.controller.clock
            if left is not None and left <= 0.0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake as many as ``n``."""
        if not self._lock.held():
            raise RuntimeError("cannot notify on un-acquired lock")
        for _ in range(min(n, len(self._sleepers))):
            stage.controller.wake(self._sleepers.pop(0))

    def notify_all(self) -> None:
        """Wake all."""
        self.notify(len(self._sleepers))


class Event:
    """Stands for ``threading.Event``."""

    def __init__(self) -> None:
        self._set = False
        self._waiters: list[Actor] = []

    def is_set(self) -> bool:
        """Whether it is set."""
        stage.controller.point()
        return self._set

    def set(self) -> None:
        """Set it and wake all who wait."""
        stage.controller.point()
        self._set = True
        stage.controller.wake(self._waiters)

    def clear(self) -> None:
        """Unset it."""
        stage.controller.point()
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set or until time is up; whether it is set."""
        controller = stage.controller
        controller.point()
        deadline = _deadline(timeout)
        while not self._set:
            if not controller.block(self._waiters, deadline):
                return self._set
        return True


class Semaphore:
    """Stands for ``threading.Semaphore``."""

    def __init__(self, value: int = 1) -> None:
        self._free = Condition(Lock())
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take one, or wait for one."""
        with self._free:
            if not blocking and not self._value:
                return False
            if not self._free.wait_for(lambda: self._value, timeout):
                return False
            self._value -= 1
            return True

    def release(self, n: int = 1) -> None:
        """Give back."""
        with self._free:
            self._value += n
            self._free.notify(n)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *what: object) -> None:
        self.release()


class SimpleQueue:
    """Stands for ``queue.SimpleQueue``."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiters: list[Actor] = []

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item and wake who waits for one."""
        stage.controller.point()
        self._items.append(item)
        stage.controller.wake(self._waiters)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item, or wait for one."""
        controller = stage.controller
        controller.point()
        deadline = _deadline(timeout)
        while not self._items:
            if not block or not controller.block(self._waiters, deadline):
                break
        if not self._items:
            raise Empty
        return self._items.popleft()

    def put_nowait(self, item: Any) -> None:
        """Add an item."""
        self.put(item)

    def get_nowait(self) -> Any:
        """Take the oldest item if there is one."""
        return self.get(block=False)

    def empty(self) -> bool:
        """Whether there is none."""
        stage.controller.point()
        return not self._items


class Thread:
    """Stands for ``threading.Thread``."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        assert group is None
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self.name = str(name or getattr(target, "__name__", type(self).__name__))
        self.daemon = bool(daemon)
        self._actor: Actor | None = None

    def start(self) -> None:
        """Begin; the new thread runs when it is chosen."""
        if self._actor is not None:
            raise RuntimeError("threads can only be started once")
        controller = stage.controller
        process = controller.current.process
        self._actor = controller.spawn(process, self.name, self.run, self)
        controller.point()

    def run(self) -> None:
        """Do what the thread is for."""
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended or until time is up."""
        controller = stage.controller
        controller.point()
        deadline = _deadline(timeout)
        while self.is_alive():
            assert self._actor is not None
            if not controller.block(self._actor.joiners, deadline):
                return

    def is_alive(self) -> bool:
        """Whether it has begun and not ended."""
        return self._actor is not None and self._actor in stage.controller.actors

    @property
    def ident(self) -> int | None:
        """The identifier of the real thread."""
        return None if self._actor is None else self._actor.ident

    @property
    def actor(self) -> Actor | None:
        """What the controller knows of it."""
        return self._actor

    @actor.setter
    def actor(self, actor: Actor) -> None:
        self._actor = actor


class Timer(Thread):
    """Stands for ``threading.Timer``."""

    def __init__(
        self,
        interval: float,
        function: Callable[..., object],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(target=function, name="timer", args=args or (), kwargs=kwargs)
        self.interval = interval
        self.finished = Event()

    def cancel(self) -> None:
        """Do not call the function any more."""
        self.finished.set()

    def run(self) -> None:
        """Wait, and call the function."""
        if not self.finished.wait(self.interval):
            super().run()


def exit_process(status: int) -> None:
    """Stand for ``os._exit``."""
    stage.controller.leave(status)


def current_thread() -> Any:
    """Stand for ``threading.current_thread``."""
    actor = stage.controller.current
    if actor.thread is None:
        actor.thread = Thread(name=actor.name)
        actor.thread.actor = actor
    return actor.thread


def main_thread() -> Any:
    """Stand for ``threading.main_thread``."""
    actor = stage.controller.current.process.main
    assert actor is not None
    if actor.thread is None:
        actor.thread = Thread(name=actor.name)
        actor.thread.actor = actor
    return actor.thread


def get_signal_handler(number: int) -> Any:
    """Stand for ``signal.getsignal``."""
    plain = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    return stage.controller.current.process.handlers.get(int(number), plain)


def set_signal_handler(number: int, handler: Any) -> Any:
    """Stand for ``signal.signal``."""
    before = get_signal_handler(number)
    stage.controller.current.process.handlers[int(number)] = handler
    return before


def send_signal(_thread: int, number: int) -> None:
    """Stand for ``signal.pthread_kill``: the main thread handles it, whoever gets it."""
    controller = stage.controller
    process = controller.current.process
    if int(number) not in process.handlers:
        controller.leave(128 + number)
    assert process.main is not None
    controller.signal(process.main, int(number))
    controller.point()


def kill_process(_process: int, number: int) -> None:
    """Stand for ``os.kill`` of this process."""
    send_signal(0, number)


def nothing(*_: object) -> None:
    """Stand for what has no meaning here."""


THREADING: dict[str, Any] = {
    "Lock": Lock,
    "RLock": RLock,
    "Condition": Condition,
    "Event": Event,
    "Semaphore": Semaphore,
    "BoundedSemaphore": Semaphore,
    "Thread": Thread,
    "Timer": Timer,
    "current_thread": current_thread,
    "main_thread": main_thread,
}
QUEUE: dict[str, Any] = {"SimpleQueue": SimpleQueue}
TIME: dict[str, Any] = {
    "perf_counter": now,
    "monotonic": now,
    "time": now,
    "thread_time": thread_time,
    "process_time": process_time,
    "sleep": sleep,
}
OS: dict[str, Any] = {"_exit": exit_process, "sched_yield": sched_yield, "kill": kill_process}
SIGNAL: dict[str, Any] = {
    "getsignal": get_signal_handler,
    "signal": set_signal_handler,
    "pthread_kill": send_signal,
    "raise_signal": lambda number: send_signal(0, number),
    "set_wakeup_fd": lambda *_, **__: -1,
}
SYS: dict[str, Any] = {
    "setswitchinterval": nothing,
    "setrecursionlimit": nothing,
}
