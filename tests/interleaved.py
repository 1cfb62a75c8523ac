"""Small programs of users' kind, whose every interleaving is explored, with what each must do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dtm import dtm
from dtm.errors import WorkerLostError
from dtm.testing import Check, Interleavings, Outcome, compute

END_SECONDS = 2.0
MESSAGES = ("dtm.comm.mpi.messages", "dtm.comm.mpi.manager")
WAITING = ("dtm.lazy", "dtm.future")
FOCI: tuple[tuple[str, ...], ...] = (
    ("dtm.run", "dtm.wire", *WAITING, *MESSAGES),
    ("dtm.run.runner", *WAITING),
    ("dtm.run.worker", "dtm.run.outbox"),
    ("dtm.run.runner", "dtm.task"),
    ("dtm.run",),
    (*WAITING, "dtm.comm.mpi.messages"),
    (),
)


class Sour(Exception):
    pass


@dataclass(frozen=True)
class Program:
    """What is explored: ``more`` are arguments of :class:`Interleavings`."""

    main: Callable[[], Any]
    expected: Any
    printed: str | None = ""
    complains: bool = False
    workers: int = 2
    within: float = 0.2
    more: dict[str, Any] = field(default_factory=dict)

    def judge(self, outcome: Outcome) -> None:
        expected = self.expected
        if isinstance(expected, type) and issubclass(expected, BaseException):
            assert isinstance(outcome.error, expected), f"{outcome.error!r} is no {expected!r}"
        else:
            if outcome.error is not None:
                raise AssertionError(f"main raised {outcome.error!r}") from outcome.error
            assert outcome.value == expected, f"main returned {outcome.value!r}, not {expected!r}"
        if self.printed is not None:
            lines = sorted(outcome.printed[0].splitlines())
            assert lines == sorted(self.printed.split()), f"printed {outcome.printed[0]!r}"
        assert self.complains or not outcome.printed[1], f"on stderr: {outcome.printed[1]}"
        assert set(outcome.statuses) == {0}, f"statuses {outcome.statuses}"
        assert outcome.seconds <= self.within, f"main took {outcome.seconds:.3f} virtual seconds"
        late = outcome.ended - outcome.seconds
        assert late <= END_SECONDS, f"the run ended {late:.3f} s after main"

    def interleavings(self, lines: Sequence[str], **more: Any) -> Interleavings:
        options = {"workers": self.workers, "lines": lines, **self.more, **more}
        return Interleavings(self.main, Check(self.judge), **options)


def square(x: int) -> int:
    compute(0.001)
    return x * x


def sour(x: int) -> int:
    compute(0.001)
    if x % 3 == 1:
        raise Sour(x)
    return x


def told(x: int) -> int:
    compute(0.001)
    print(f"item-{x}")
    return x


def loaf(x: int) -> bytes:
    compute(0.001)
    return bytes([x]) * 300


def nest(depth: int) -> int:
    compute(0.0005)
    return sum(dtm.map(nest, [depth - 1] * 2)) if depth else 1


def forked_map() -> list[int]:
    return dtm.map(square, range(6))


def nested() -> int:
    return nest(2)


def twice() -> list[list[int]]:
    return [dtm.map(square, range(5)) for _ in range(2)]


def gets() -> list[int]:
    return [each.get() for each in [dtm.apply_async(square, x) for x in range(5)]]


def waits_for_all() -> list[int]:
    for x in range(4):
        dtm.apply_async(square, x)
    results = [dtm.apply_async(square, x) for x in range(3)]
    dtm.waitAll()
    return [each.get(timeout=0) for each in results]


def waits_for_any() -> list[int]:
    results = [dtm.apply_async(square, x) for x in range(4)]
    found = []
    while results:
        first = dtm.waitAny(results)
        results.remove(first)
        found.append(first.get())
    return sorted(found)


def polls() -> list[int]:
    results = [dtm.apply_async(square, x) for x in range(4)]
    found = []
    while results:
        first = dtm.testAny(results)
        if first is not None:
            results.remove(first)
            found.append(first.get())
    return sorted(found)


def polls_all() -> list[int]:
    results = [dtm.map_async(square, range(2)) for _ in range(2)]
    while not dtm.testAll(results):
        pass
    return [value for each in results for value in each.get()]


def runs_out_of_time() -> list[int]:
    results = [dtm.apply_async(square, x) for x in range(4)]
    found = []
    for each in results:
        while True:
            try:
                found.append(each.get(timeout=0.0005))
            except TimeoutError:
                continue
            break
    return found


def waits_in_time() -> list[int]:
    result = dtm.map_async(square, range(6))
    while not result.ready():
        result.wait(0.0002)
    return result.get()


def lazily() -> list[int]:
    return list(dtm.imap(square, range(6)))


def unordered() -> list[int]:
    return sorted(dtm.imap_unordered(square, range(6)))


def ends_early() -> list[int]:
    for first in dtm.imap_unordered(square, range(30)):
        assert first in {x * x for x in range(30)}
        break
    for found in dtm.imap(square, range(30)):
        if found == 4:
            break
    return dtm.map(square, range(4))


def fails_lazily() -> int:
    found = []
    try:
        for each in dtm.imap(sour, range(6)):
            found.append(each)  # noqa: PERF402 - what came before the error counts
    except Sour as error:
        return error.args[0] + len(found)
    return -1


def calls_back() -> list[Any]:
    told: list[Any] = []
    door = dtm.options(callback=told.append, error_callback=lambda error: told.append(error.args))
    results = [door.apply_async(sour, x) for x in range(4)]
    for each in results:
        each.wait()
    while len(told) < len(results):
        results[0].ready()
        time.sleep(0.001)
    return sorted(map(str, told))


def fails() -> None:
    dtm.map(sour, range(6))


ran: list[tuple[int, int]] = []  # worker and item, in order: all workers are in one process


def noted(x: int) -> int:
    ran.append((dtm.getWorkerId(), x))
    return sour(x)


def fails_for_good() -> list[int]:
    """Return the items that a worker has run after one with a smaller index has failed there."""
    ran.clear()
    with contextlib.suppress(Sour):
        dtm.map(noted, range(2, 14))
    failed: dict[int, int] = {}
    wrong = []
    for worker, x in ran:
        if failed.get(worker, x) < x:
            wrong.append(x)
        if x % 3 == 1:
            failed[worker] = min(x, failed.get(worker, x))
    return wrong


def fails_and_goes_on() -> list[int]:
    failed = []
    for _ in range(2):
        try:
            dtm.map(sour, range(8))
        except Sour as error:
            failed.append(error.args[0])
    return failed + dtm.map(square, range(3))


def in_threads() -> list[list[int]]:
    found: list[list[int]] = [[], []]

    def work(which: int) -> None:
        found[which] = dtm.map(square, range(which, which + 3))

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return found


def beside_a_thread() -> list[list[int]]:
    found: list[list[int]] = []
    thread = threading.Thread(target=lambda: found.append(dtm.map(square, range(4))))
    thread.start()
    own = dtm.map(square, range(3))
    thread.join()
    return [own, *found]


def calls_back_once() -> list[int]:
    told: list[int] = []
    for x in range(3):
        dtm.options(callback=told.append).apply_async(square, x).wait()
    return told


def thread_in_task(x: int) -> list[int]:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(dtm.map(square, range(x))))
    thread.start()
    thread.join()
    return found


def threads_in_tasks() -> list[list[int]]:
    return dtm.map(thread_in_task, [2, 3])


def leaves_work() -> str:
    for x in range(5):
        dtm.apply_async(square, x)
    return "gone"


def exits() -> None:
    dtm.map_async(square, range(6))
    raise Sour


def prints() -> list[int]:
    print("main")
    return dtm.map(told, range(5))


def repeats() -> list[int]:
    return dtm.repeat(square, 4, 3)


def selects() -> list[int]:
    return dtm.filter(square, range(5))


def loaves() -> list[int]:
    return [len(each.get()) for each in [dtm.apply_async(loaf, x) for x in range(6)]]


def by_value() -> list[int]:
    shift = 3
    return dtm.map(lambda x: square(x) + shift, range(5))


def survives() -> list[int] | str:
    try:
        return dtm.map(square, range(8))
    except WorkerLostError:
        return "lost"


def two() -> list[int]:
    return dtm.map(square, range(2))


def one() -> int:
    return dtm.apply_async(square, 3).get()


def in_thread() -> list[int]:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(dtm.apply(square, 3)))
    thread.start()
    thread.join()
    return found


SQUARES = [x * x for x in range(8)]
PROGRAMS = {
    "map": Program(forked_map, SQUARES[:6]),
    "map, three workers": Program(forked_map, SQUARES[:6], workers=3),
    "map, MPI": Program(forked_map, SQUARES[:6], more={"mpi": True}),
    "nested maps": Program(nested, 4),
    "nested maps, four workers": Program(nested, 4, workers=4),
    "nested maps, MPI": Program(nested, 4, more={"mpi": True}),
    "two maps": Program(twice, [SQUARES[:5]] * 2),
    "get": Program(gets, SQUARES[:5]),
    "get, one worker": Program(gets, SQUARES[:5], workers=1),
    "waitAll": Program(waits_for_all, SQUARES[:3]),
    "waitAny": Program(waits_for_any, SQUARES[:4]),
    "testAny": Program(polls, SQUARES[:4]),
    "testAny, one worker": Program(polls, SQUARES[:4], workers=1),
    "testAll": Program(polls_all, SQUARES[:2] * 2),
    "get with a timeout": Program(runs_out_of_time, SQUARES[:4]),
    "wait with a timeout": Program(
        waits_in_time, SQUARES[:6], within=0.6, more={"most_points": 400_000}
    ),
    "imap": Program(lazily, SQUARES[:6]),
    "imap_unordered": Program(unordered, SQUARES[:6]),
    "imap_unordered, three workers": Program(unordered, SQUARES[:6], workers=3),
    "imap ends early": Program(ends_early, SQUARES[:4]),
    "imap fails": Program(fails_lazily, 2),
    "callbacks": Program(calls_back, sorted(map(str, [0, 2, 3, (1,)]))),
    "failure": Program(fails, Sour),
    "failure ends a part": Program(fails_for_good, []),
    "failure, then another map": Program(fails_and_goes_on, [1, 1, 0, 1, 4]),
    "threads of the user's": Program(in_threads, [[0, 1, 4], [1, 4, 9]]),
    "threads of the user's, one worker": Program(in_threads, [[0, 1, 4], [1, 4, 9]], workers=1),
    "beside a thread": Program(beside_a_thread, [SQUARES[:3], SQUARES[:4]], within=0.045),
    "one callback": Program(calls_back_once, SQUARES[:3], within=0.045),
    "threads in tasks": Program(threads_in_tasks, [[0, 1], [0, 1, 4]]),
    "work is left": Program(leaves_work, "gone"),
    "main fails": Program(exits, Sour),
    "lines of output": Program(prints, list(range(5)), "main item-0 item-1 item-2 item-3 item-4"),
    "repeat": Program(repeats, [9] * 4, more={"seed": 1}),
    "filter": Program(selects, [1, 2, 3, 4]),
    "large results, MPI": Program(loaves, [300] * 6, more={"mpi": True}),
    "by value": Program(by_value, [x + 3 for x in SQUARES[:5]]),
}

SMALL: dict[str, tuple[Program, tuple[str, ...], int, dict[str, Any]]] = {
    "one call": (Program(one, 9), (), 2, {}),
    "two items": (Program(two, [0, 1]), (), 2, {"timeouts": False}),
    "two items, lines of run/": (Program(two, [0, 1]), ("dtm.run",), 1, {}),
    "two items, MPI": (Program(two, [0, 1]), (), 1, {"mpi": True, "timeouts": False}),
    "a thread of the user's": (Program(in_thread, [9]), (), 1, {}),
}
