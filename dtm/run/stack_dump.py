"""Stack dumps: what every task of a run does at this moment, on all workers, for people.

The root asks every worker, and each answers with what it finds (:func:`look`): the frames of its
main thread and of the stacks that are put aside, those of the program's own threads, and for each
the tasks on it, with the item under way, and what it waits for.  Frames of dtm are left out.  The
root merges equal ones, and says who did not answer: a worker that is stopped, or deep in code that
keeps the interpreter to itself.

Whoever asks sends SIGUSR1 to the root (``dtm stacks`` does).  The answer goes to stderr, or into
the directory of :func:`answer_directory` if there is one that belongs to the same user.

``Watchman`` asks by itself when nothing has moved for a while.  It takes for movement that the root
hands in results or hears a message, and that an item ends on any worker: results are handed in a
strip at a time, so before it says something it asks all workers twice which items are under way.
One long item, all others idle, is no movement, and is what one wants to be shown then.

Nothing of this costs anything before it is asked for: what a task does is read off its frames.

Threads: ``look`` runs in whatever thread reads messages; ``StackDump.report`` in one of its own.

Rejected: ``faulthandler`` and ``py-spy`` for it.  Neither sees stacks that are put aside, nor which
item of which call a frame belongs to.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
from collections.abc import Iterator
from time import perf_counter, sleep, strftime
from types import CodeType, FrameType
from typing import Any, NamedTuple, Protocol

from dtm.core.messages import Looked, LookRequest, Message
from dtm.core.scheduler import Scheduler
from dtm.run.runner import Runner
from dtm.run.stacks import Place
from dtm.run.status import SINGLE, STRIPS, Task, task_of
from dtm.run.waiting import Waiting

ANSWER_SECONDS = 2.0
MOST_TASKS = 5
_HANDLER = "_on_stacks_signal"  # of the signal: what it runs is not what the task does
_SHARED = "/dev/shm"  # noqa: S108 - a directory in it is trusted if only this user can enter it
if not os.path.isdir(_SHARED):
    from tempfile import gettempdir  # not where it need not be: it takes as long as all of this

    _SHARED = gettempdir()
_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_WAITS = {
    Waiting.wait_any.__code__,
    Waiting.wait_promptly.__code__,
    Waiting.visit.__code__,
}


class Worker(Protocol):
    """What this needs of the worker that it belongs to."""

    comm: Any
    ended: bool
    lock: Any
    runner: Runner
    scheduler: Scheduler
    taken: int

    def send(self, to: int, message: Message) -> None:
        """Send a message.  Called with the lock held."""

    def service(self) -> None:
        """Read messages and answer them."""

    def nudge(self) -> None:
        """End a rest."""


class Found(NamedTuple):
    """One stack of a worker.

    Attributes:
        place: what it does, for people.
        waits: what its innermost task waits for, "" for nothing.
        tasks: the innermost first.
        frames: file, line, function; the innermost last.
    """

    place: str
    waits: str
    tasks: tuple[Task, ...]
    frames: tuple[tuple[str, int, str], ...]


# On a worker.


def look(worker: Worker) -> tuple[Found, ...]:
    """Return the stacks of this worker, but for those that only look for work."""
    root = worker.comm.rank == 0
    return tuple(
        each
        for each in _stacks(worker)
        if each.tasks or (each.frames and (root or each.place.startswith("thread")))
    )


def _stacks(worker: Worker) -> Iterator[Found]:
    frames = sys._current_frames()  # noqa: SLF001 - the way to see other threads' frames
    now = perf_counter()
    stacks = worker.runner.stacks
    main = threading.main_thread().ident
    running = frames.pop(main, None) if main is not None else None
    if running is not None:
        yield _found("runs", running, now)
    for stack in stacks.aside():
        frame = stack.greenlet.gr_frame
        if frame is not None:
            yield _found("put aside" if stack.place is Place.PARKED else "ready", frame, now)
    names = {each.ident: each.name for each in threading.enumerate()}
    for ident, frame in frames.items():
        name = names.get(ident, "")
        if not name.startswith("dtm-") and ident != threading.get_ident():
            yield _found(f"thread {name}", frame, now)


def _found(place: str, innermost: FrameType, now: float) -> Found:
    waits = ""
    tasks: list[Task] = []
    frames: list[tuple[str, int, str]] = []
    frame: FrameType | None = innermost
    while frame is not None:
        code = frame.f_code
        if code in _WAITS and not waits and not tasks:
            waits = _waits_for(frame.f_locals.get("calls", ()))
        elif code is STRIPS or code is SINGLE:
            tasks.append(task_of(code, frame.f_locals, now))
        elif code.co_name == _HANDLER and _is_ours(code):
            frames.clear()
        elif not _is_ours(code):
            frames.append((code.co_filename, frame.f_lineno, code.co_qualname))
        frame = frame.f_back
    return Found(place, waits, tuple(tasks), tuple(reversed(frames)))


def _waits_for(calls: Any) -> str:
    said = [
        f"{call.name}, {call.missing} of {call.size} results missing"
        for call in calls
        if call.missing
    ]
    more = f", and {len(said) - 1} calls more" if len(said) > 1 else ""
    return said[0] + more if said else ""


def _is_ours(code: CodeType) -> bool:
    name = code.co_filename
    return name.startswith((_HOME, "<frozen ")) or name.endswith(f"{os.sep}runpy.py")


# On the root.


class StackDump:
    """Asks the workers, on the root, and tells people what they say."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._serial = 0
        self._answers: dict[int, tuple[Found, ...]] = {}
        self._reporting = threading.Lock()
        self._asking = threading.Lock()  # one question at a time, its answers after it

    def answered(self, source: int, message: Looked) -> None:
        """Take a worker's answer.  Called with the worker's lock held."""
        if message.serial == self._serial:
            self._answers[source] = tuple(
                Found(place, waits, tuple(Task(*each) for each in tasks), frames)
                for place, waits, tasks, frames in message.stacks
            )

    def report(self, reason: str = "") -> None:
        """Ask every worker, wait for the answers for a while, and tell."""
        if not self._reporting.acquire(blocking=False):
            return
        try:
            text = self._text(reason)
            directory = answer_directory(os.getpid())
            if not reason and _is_own(directory):
                _write(directory, text)
            else:
                sys.stderr.write(text)
        finally:
            self._reporting.release()

    def under_way(self) -> Any:
        """Ask every worker, and return which items are under way on each."""
        answers, _ = self._ask()
        return {
            rank: [(task.call, task.item) for each in stacks for task in each.tasks]
            for rank, stacks in answers.items()
        }

    def _text(self, reason: str) -> str:
        answers, silent = self._ask()
        return told(answers, self._worker.comm.hosts, silent, reason)

    def _ask(self) -> tuple[dict[int, tuple[Found, ...]], list[int]]:
        """Return what the workers answer, and which have not."""
        with self._asking:
            return self._answers_of_all()

    def _answers_of_all(self) -> tuple[dict[int, tuple[Found, ...]], list[int]]:
        worker = self._worker
        with worker.lock:
            self._serial += 1
            self._answers = {0: look(worker)}
            absent = set(worker.comm.absent())
            asked = [rank for rank in range(1, worker.comm.size) if rank not in absent]
            for rank in asked:
                worker.send(rank, LookRequest(self._serial))
        worker.nudge()
        until = perf_counter() + ANSWER_SECONDS
        while len(self._answers) <= len(asked) and perf_counter() < until and not worker.ended:
            sleep(0.01)
            worker.service()
        silent = [rank for rank in asked if rank not in self._answers]
        return dict(self._answers), silent


def told(answers: dict[int, tuple[Found, ...]], hosts: Any, silent: list[int], reason: str) -> str:
    """Return what to tell of the stacks of workers, equal ones together."""
    merged: dict[tuple[Any, ...], list[tuple[int, Found]]] = {}
    for rank, stacks in sorted(answers.items()):
        for each in stacks:
            key = (each.place, each.frames, tuple(task.call for task in each.tasks))
            merged.setdefault(key, []).append((rank, each))
    lines = [f"dtm: what the tasks of {len(answers)} workers do, at {strftime('%H:%M:%S')}{reason}"]
    for alike in sorted(merged.values(), key=len, reverse=True):
        lines += _of_alike(alike, hosts)
    busy = {rank for alike in merged.values() for rank, _ in alike}
    idle = [rank for rank in answers if rank not in busy]
    if idle:
        lines.append(f"{_workers(idle, hosts)}: nothing to run")
    if silent:
        lines.append(
            f"{_workers(silent, hosts)}: no answer within {ANSWER_SECONDS:g} s: stopped, or in "
            "code that keeps the interpreter to itself"
        )
    return "\n".join((*lines, ""))


def _of_alike(alike: list[tuple[int, Found]], hosts: Any) -> Iterator[str]:
    first = alike[0][1]
    ranks = sorted({rank for rank, _ in alike})
    yield f"{_workers(ranks, hosts)}: {first.place}"
    for rank, each in alike[:MOST_TASKS]:
        under = ", in ".join(
            f"item {task.item} of {task.call} ({task.seconds:.1f} s)" for task in each.tasks
        )
        waits = f"; waits for {each.waits}" if each.waits else ""
        yield f"    worker {rank}: {under or 'main'}{waits}"
    if len(alike) > MOST_TASKS:
        yield f"    and {len(alike) - MOST_TASKS} more like these"
    for file, line, function in first.frames:
        yield f'        File "{file}", line {line}, in {function}'


def _workers(ranks: list[int], hosts: Any) -> str:
    names = ", ".join(f"{rank} ({hosts[rank]})" for rank in ranks[:MOST_TASKS])
    more = f" and {len(ranks) - MOST_TASKS} more" if len(ranks) > MOST_TASKS else ""
    return f"worker{'s' if len(ranks) > 1 else ''} {names}{more}"


class Watchman:
    """(Root) tells what the tasks do when nothing has moved for some seconds, once each time."""

    def __init__(self, stack_dump: StackDump, worker: Worker, seconds: float) -> None:
        self._stack_dump = stack_dump
        self._worker = worker
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="dtm-watchman", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._over.set()

    def _watch(self) -> None:
        worker = self._worker
        seen, since, said, items = (-1, -1), perf_counter(), False, None
        while not self._over.wait(min(1.0, self._seconds / 4)):
            now = worker.taken, worker.scheduler.counters.items
            waited = perf_counter() - since
            if now != seen:
                seen, since, said, items = now, perf_counter(), False, None
            elif said or waited < self._seconds / 2:
                continue
            elif items is None:
                items = self._stack_dump.under_way()
            elif waited < self._seconds:
                continue
            elif items != self._stack_dump.under_way():
                since, items = perf_counter(), None
            else:
                self._stack_dump.report(f": nothing has moved for {self._seconds:g} s")
                said = True


# Between the command and the root.


def answer_directory(pid: int) -> str:
    """Return where whoever asks the process ``pid`` waits for the answer.

    Not where ``TMPDIR`` says: batch systems give each job, and each shell in it, another.
    """
    return os.path.join(_SHARED, f"dtm-stacks-{os.getuid()}-{pid}")


def _is_own(directory: str) -> bool:
    try:
        found = os.lstat(directory)
    except OSError:
        return False
    mode = stat.S_IMODE(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and mode == 0o700


def _write(directory: str, text: str) -> None:
    """Write an answer, which appears whole; if whoever asked has gone, for nobody."""
    part, whole = (os.path.join(directory, name) for name in ("part", "answer"))
    with contextlib.suppress(OSError):
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(part, whole)
