"""The shell in every interleaving of its threads, and that bugs which are put back are found.

``DTM_SCHEDULES`` says about how many schedules are tried in all, ten thousand if nothing is said.
A failure prints the seed of its schedule, and its traceback the lines that were points::

    PROGRAMS["map"].interleavings(FOCI[0]).replay("pct 17 2000 3")
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dtm import dtm
from dtm.comm.mpi.manager import MpiManager
from dtm.comm.mpi.messages import Mail
from dtm.errors import WorkerLostError
from dtm.lazy import Window
from dtm.testing import (
    Check,
    InterleavingError,
    Interleavings,
    Outcome,
    UnlockedAccessError,
    compute,
    locks_checked,
)
from dtm.testing.schedules import from_seed
from tests import launch
from tests.interleaved import FOCI, PROGRAMS, SMALL, SQUARES, square, survives

SCHEDULES = int(os.environ.get("DTM_SCHEDULES", "10000"))
DEPTHS = (3, 16)  # few changes find what few events bring about; many, what takes many switches
A_PROGRAM = max(6, SCHEDULES // 55)
A_DEATH = max(1, SCHEDULES // 5000)
HERE = __name__
ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.timeout(600)


FEW = {"get", "imap_unordered", "threads of the user's"}  # for a fast run of the tests


def _programs(names: Iterable[str]) -> list[Any]:
    return [
        pytest.param(name, marks=[] if name in FEW else pytest.mark.slow, id=name) for name in names
    ]


# What must hold in every schedule.


@pytest.mark.parametrize("name", _programs(PROGRAMS))
def test_random_schedules_end_well(name: str) -> None:
    share = max(1, A_PROGRAM // len(FOCI) // len(DEPTHS))
    for number, lines in enumerate(FOCI):
        program = PROGRAMS[name].interleavings(lines)
        for depth in DEPTHS:
            program.random(share, first=number * share, depth=depth)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SMALL))
def test_all_schedules_with_few_preemptions_end_well(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program, lines, preemptions, options = SMALL[name]
    explored = program.interleavings(lines, **options).systematic(preemptions, 10_000)
    with capsys.disabled():
        print(f" [{name}: {explored}]", end="")
    assert explored.exhausted
    assert explored.schedules > 50


@pytest.mark.slow
@pytest.mark.parametrize("mpi", [False, True])
@pytest.mark.parametrize(("workers", "rank"), [(2, 1), (3, 1), (2, 0), (3, 0)])
def test_a_worker_may_be_lost_at_each_point(workers: int, rank: int, mpi: bool) -> None:
    def judge(outcome: Outcome) -> None:
        assert None not in outcome.statuses
        assert outcome.ended < 8.0
        if rank and outcome.error is None:
            assert outcome.value in ("lost", SQUARES)
        elif rank:
            assert isinstance(outcome.error, WorkerLostError), outcome.error
            assert outcome.statuses[0] == 0

    def dying(number: int) -> Interleavings:
        return Interleavings(
            survives, Check(judge), workers=workers, mpi=mpi, death=(rank, number),
            lines=FOCI[number % len(FOCI)], most_points=400_000,
        )  # fmt: skip

    points = Interleavings(survives, SQUARES, workers=workers, mpi=mpi).replay("chess")
    step = 1 if not mpi or SCHEDULES > 100_000 else 4
    for number in range(1, points.operations[rank] + 1, step):
        dying(number).random(A_DEATH, first=number * A_DEATH)


# What is put back is found.


def twice(window: Window, deadline: float | None) -> list:
    """Take out what has ended in two passes: a call may complete between them."""
    window._runner.wait_any(window._flying, deadline)
    ended = [call for call in window._flying if call.complete]
    window._flying = deque(call for call in window._flying if not call.complete)
    return ended


def test_two_passes_over_what_is_in_flight_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "ended", twice)
    with pytest.raises(InterleavingError, match=r"main returned \[") as found:
        PROGRAMS["imap_unordered"].interleavings((HERE,)).random(500)
    assert "The seed of this schedule is 'pct " in str(found.value)


class Counting(Mail):
    """Mail whose load is counted at each look, over deques that other threads change."""

    @property
    def load(self) -> int:
        return sum(len(content) for _, _, content in self._outgoing)

    @load.setter
    def load(self, value: int) -> None:
        pass


def test_mail_that_is_looked_at_without_the_lock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = MpiManager._sleep

    def look_and_sleep(manager: MpiManager, pause: float) -> bool:
        assert manager._mail.load >= 0
        return sleep(manager, pause)

    monkeypatch.setattr("dtm.comm.mpi.manager.Mail", Counting)
    monkeypatch.setattr(MpiManager, "_sleep", look_and_sleep)
    with pytest.raises(InterleavingError, match=r"(mutated|changed size) during iteration"):
        PROGRAMS["map, MPI"].interleavings((HERE,)).random(400, depth=20)


# The means themselves, on programs of a few lines.


def deadlock() -> None:
    one, other = threading.Lock(), threading.Lock()

    def grab(first: threading.Lock, second: threading.Lock) -> None:
        with first, second:
            pass

    threads = [threading.Thread(target=grab, args=pair) for pair in ((one, other), (other, one))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def plain(main, expected, **options) -> Interleavings:
    return Interleavings(main, expected, workers=1, lines=(HERE,), **options)


def test_a_deadlock_is_found_with_one_preemption_and_shows_where_threads_stand() -> None:
    assert plain(deadlock, None).systematic(0).exhausted
    with pytest.raises(InterleavingError, match="deadlock: no thread can go on") as found:
        plain(deadlock, None).systematic(1)
    text = str(found.value)
    assert text.count("in grab\n    with first, second:") == 2
    assert "the last switches:" in text
    seed = text.rpartition("'chess ")[2].rstrip("'.")
    with pytest.raises(InterleavingError, match="deadlock"):
        plain(deadlock, None).replay(f"chess {seed}")


def spin() -> None:
    ended = threading.Event()
    while not ended.is_set():
        time.sleep(1.0)


def test_a_livelock_is_found_by_steps_or_by_time() -> None:
    with pytest.raises(InterleavingError, match="no end after 60 s of virtual time"):
        plain(spin, None).replay("chess")
    with pytest.raises(InterleavingError, match="no end after 50 points"):
        plain(spin, None, most_points=50).replay("chess")


def lost_update() -> int:
    counter = [0]

    def add() -> None:
        seen = counter[0]
        counter[0] = seen + 1

    threads = [threading.Thread(target=add) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return counter[0]


def test_an_update_that_is_lost_is_found_both_ways() -> None:
    with pytest.raises(InterleavingError, match="main returned 1, not 2"):
        plain(lost_update, 2).systematic(1)
    with pytest.raises(InterleavingError, match="main returned 1, not 2"):
        plain(lost_update, 2).random(200)


def signal_between() -> int:
    condition, turns = threading.Condition(), []

    def wait(which: int) -> None:
        with condition:
            assert condition.wait_for(lambda: len(turns) == which, timeout=5.0)
            turns.append(which)
            condition.notify_all()

    threads = [threading.Thread(target=wait, args=(which,)) for which in (2, 0, 1)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return turns


def test_conditions_events_and_semaphores_do_as_the_real_ones() -> None:
    plain(signal_between, [0, 1, 2]).random(100)
    plain(primitives, "as it should be", timeouts=False).systematic(1, 200)


def primitives() -> str:
    event, lock, both = threading.Event(), threading.RLock(), threading.Semaphore(2)
    timer = threading.Timer(0.5, event.set)
    began = time.perf_counter()
    timer.start()
    assert not event.wait(0.1)
    assert event.wait(5.0)
    assert 0.5 <= time.perf_counter() - began < 0.6
    timer.join()
    assert not timer.is_alive()
    with lock, lock, both:
        assert both.acquire(blocking=False)
        assert not both.acquire(blocking=False)
        both.release()
    stopped = threading.Timer(9.0, event.clear)
    stopped.start()
    stopped.cancel()
    stopped.join()
    plain_lock = threading.Lock()
    assert plain_lock.acquire(timeout=1.0)
    assert not plain_lock.acquire(timeout=0.25)
    plain_lock.release()
    with pytest.raises(RuntimeError):
        plain_lock.release()
    assert event.is_set()
    assert threading.current_thread() is threading.main_thread()
    return "as it should be"


def test_a_thread_that_fails_fails_the_schedule() -> None:
    def dies() -> None:
        thread = threading.Thread(target=lambda: [].pop())
        thread.start()
        thread.join()

    with pytest.raises(InterleavingError, match="died of IndexError: pop from empty list"):
        plain(dies, None).replay("chess")


def test_a_seed_replays_a_schedule_to_the_last_switch() -> None:
    program = PROGRAMS["map, three workers"].interleavings(FOCI[0])
    first = program.replay("pct 17 2000 3")
    assert program.replay("pct 17 2000 3") == first
    assert program.replay("pct 18 2000 3") != first
    assert program.replay("chess 5:1 40:1") == program.replay("chess 5:1 40:1")


REPLAY_IN_A_FRESH_PROCESS = """
from tests.interleaved import FOCI, PROGRAMS
for lines in FOCI:
    program = PROGRAMS["map"].interleavings(lines)
    for seed in ("chess 5:1 40:1", "chess", "pct 17 2000 3"):
        first, second = program.replay(seed).points, program.replay(seed).points
        assert first == second, (lines, seed, first, second)
"""


def test_the_first_schedule_of_a_process_is_like_the_second() -> None:
    command = [sys.executable, "-c", REPLAY_IN_A_FRESH_PROCESS]
    done = launch.run(command, launch.environment(), launch.DEFAULT_TIMEOUT, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("seed", ["", "dice 3", "pct 1 2", "pct one 2 3", "chess 3", "chess a:b"])
def test_what_is_no_seed_is_refused(seed: str) -> None:
    with pytest.raises(ValueError, match="is not the seed of a schedule"):
        from_seed(seed)


def test_real_names_are_back_after_an_exploration() -> None:
    before = threading.Lock, time.perf_counter, os._exit
    PROGRAMS["map"].interleavings(()).replay("chess")
    assert (threading.Lock, time.perf_counter, os._exit) == before
    assert dtm.map(square_of, range(3)) == [0, 1, 4]


def square_of(x: int) -> int:
    return x * x


def test_time_that_is_computed_passes() -> None:
    def takes() -> float:
        began = time.perf_counter()
        compute(2.0)
        return round(time.perf_counter() - began, 3)

    plain(takes, 2.0).replay("chess")
    assert square.__module__ == "tests.interleaved"


def test_processor_time_passes_for_who_works_alone() -> None:
    def measures() -> tuple[float, float]:
        thread = threading.Thread(target=compute, args=(1.0,))
        began = time.thread_time(), time.process_time()
        thread.start()
        time.sleep(3.0)
        thread.join()
        compute(0.25)
        of_thread, of_process = time.thread_time() - began[0], time.process_time() - began[1]
        return round(of_thread, 3), round(of_process, 3)

    plain(measures, (0.25, 1.25)).random(20)


# Locks that must be held.


class Shared:
    SHARED: ClassVar = {"items": "lock"}
    SHARED_READ_FREELY: ClassVar = {"count": "lock"}

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.items: list[int] = []
        self.count = 0


class Slotted:
    SHARED: ClassVar = {"place": "lock"}
    __slots__ = ("lock", "place")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.place = 0


def test_shared_attributes_are_under_their_locks() -> None:
    with locks_checked([Shared, Slotted]):
        shared, slotted = Shared(), Slotted()
        with shared.lock:
            shared.items.append(1)
            shared.count = 1
        assert shared.count == 1
        with pytest.raises(UnlockedAccessError, match=r"Shared.items is read by a thread that"):
            shared.items.append(2)
        with pytest.raises(UnlockedAccessError, match=r"Shared.count is written .* not hold lock"):
            shared.count = 2
        with slotted.lock:
            slotted.place += 1
        with pytest.raises(UnlockedAccessError, match=r"Slotted.place is written"):
            slotted.place = 2
    assert shared.items == [1]
    assert slotted.place == 1
    assert not isinstance(vars(Shared).get("items"), property)
    assert "items" not in vars(Shared)


def test_a_lock_that_another_thread_holds_is_not_held() -> None:
    def main() -> None:
        shared = Shared()
        held = threading.Event()

        def hold() -> None:
            with shared.lock:
                held.set()
                time.sleep(1.0)

        threading.Thread(target=hold).start()
        held.wait()
        with locks_checked([Shared]), pytest.raises(UnlockedAccessError):
            shared.items.append(1)

    plain(main, None).replay("chess")
