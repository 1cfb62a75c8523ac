"""Scenarios of tasks that do what programs do: threads, processes, runs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import scenarios

from dtm import dtm

WORKERS = int(sys.argv[1])
OVERVIEW = Path(__file__).resolve().parent.parent.parent / "examples" / "overview.py"


def square(item: int) -> int:
    """Return the square, after a moment."""
    time.sleep(0.001)
    return item * item


def squares(count: int) -> list[int]:
    """Return the first squares, by a map."""
    return dtm.map(square, range(count))


SQUARES = [item * item for item in range(20)]


def check_a_thread_pool_of_main_calls_dtm() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(squares, [20] * 24)) == [SQUARES] * 24


def in_a_pool(_: int) -> bool:
    """Call dtm from threads, and wait for them without dtm knowing."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(squares, [20] * 6)) == [SQUARES] * 6


def check_a_thread_pool_of_tasks_calls_dtm() -> None:
    assert all(dtm.map(in_a_pool, range(4 * WORKERS)))


def check_threads_may_use_every_function() -> None:
    outcomes: list[object] = []

    def use() -> None:
        outcomes.append(dtm.apply(square, 3))
        outcomes.append(dtm.map_async(square, range(20)).get())
        outcomes.append(list(dtm.imap(square, range(20))))
        outcomes.append(sorted(dtm.imap_unordered(square, range(20))))
        call = dtm.apply_async(square, 4)
        dtm.waitAll()
        outcomes.append(call.get())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(60)
    assert outcomes == [9, SQUARES, SQUARES, SQUARES, 16], outcomes


def check_a_result_may_be_waited_for_by_another_thread() -> None:
    call = dtm.map_async(square, range(20))
    with ThreadPoolExecutor(2) as pool:
        assert [pool.submit(call.get).result(60) for _ in range(2)] == [SQUARES] * 2


def check_a_thread_that_outlives_its_task() -> None:
    def leave_behind(item: int) -> int:
        threading.Thread(target=squares, args=(20,), daemon=True).start()
        return square(item)

    assert dtm.map(leave_behind, range(20)) == SQUARES


def run_commands(item: int) -> str:
    """Start a process, and read what it writes."""
    command = [sys.executable, "-c", f"print({item}, end='')"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def check_tasks_start_processes() -> None:
    assert dtm.map(run_commands, range(6)) == [str(item) for item in range(6)]


def by_multiprocessing(_: int) -> list[int]:
    """Use a pool of processes."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.map(square, range(20))


def check_tasks_use_multiprocessing() -> None:
    assert dtm.map(by_multiprocessing, range(WORKERS)) == [SQUARES] * WORKERS


def run_a_program_of_dtms(workers: int) -> str:
    """Start a program that is a run of its own."""
    os.environ["DTM_WORKERS"] = str(workers)
    done = subprocess.run(
        [sys.executable, str(OVERVIEW)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.stdout + done.stderr


def check_a_task_starts_a_run_of_its_own() -> None:
    expected = "999 results, sum 499507.484471\n"
    for workers in (1, 2):
        found = dtm.map(run_a_program_of_dtms, [workers] * WORKERS)
        assert found == [expected] * WORKERS, found


def check_a_task_may_change_what_is_its_own() -> None:
    def rude(item: int) -> int:
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
        print("nobody sees this")
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        return square(item)

    before = sys.stdout, sys.stderr
    assert dtm.map(rude, range(20)) == SQUARES
    sys.stdout, sys.stderr = before


def main() -> None:
    """Run the scenarios."""
    scenarios.run_all(globals(), WORKERS, sys.argv[2:])


if __name__ == "__main__":
    dtm.start(main)
