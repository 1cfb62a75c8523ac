"""Runs that end before their time: each mode is a way of it.

Prints ``process RANK PID`` for each worker and then ``ready``, when all work.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time

import scenarios

from dtm import dtm

LONG = 60.0


def introduce(_: object) -> None:
    """Say which process this worker is."""
    time.sleep(0.01)
    print(f"process {dtm.getWorkerId()} {os.getpid()} end", flush=True)


def doze(seconds: float) -> float:
    """Run for that long, in pieces, as Python code that can be interrupted."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)
    return seconds


def short(_: int) -> list[float]:
    """Keep results and messages coming."""
    return dtm.map(doze, [0.001] * 3)


def spin(seconds: float) -> float:
    """Run for that long in pure Python."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass
    return seconds


def sleep_stubbornly(seconds: float) -> None:
    """Sleep on whatever comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            time.sleep(0.1)
        except BaseException:
            pass


def die_on_another_worker(item: int) -> int:
    """End the process of the worker without a word."""
    time.sleep(0.05)
    if dtm.getWorkerId():
        os._exit(7)
    return item


def nested(item: int) -> list[float]:
    """Wait for tasks."""
    return dtm.map(doze, [LONG] * (item + 2))


def main_raises() -> None:
    dtm.map_async(doze, [LONG] * 8)
    time.sleep(0.2)
    raise ValueError("from main")


def main_exits() -> None:
    dtm.map_async(doze, [LONG] * 8)
    sys.exit(7)


def main_returns() -> None:
    dtm.map_async(doze, [0.3] * 8)
    dtm.map_async(short, range(1000))
    time.sleep(0.1)


def map_doze() -> None:
    dtm.map(doze, [LONG] * 8)


def map_spin() -> None:
    dtm.map(spin, [LONG] * 8)


def map_nested() -> None:
    dtm.map(nested, range(6))


def main_sleeps() -> None:
    time.sleep(LONG)


def main_waits_in_a_thread_pool() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: dtm.map(doze, [LONG] * n), [3, 3]))


def main_is_stubborn() -> None:
    dtm.map_async(doze, [LONG] * 8)
    sleep_stubbornly(LONG)


def tasks_are_stubborn() -> None:
    dtm.map(sleep_stubbornly, [LONG] * 8)


def worker_exits() -> None:
    dtm.map(die_on_another_worker, range(200))


def main() -> None:
    """Say who is there, then do what the mode says."""
    workers, mode = int(sys.argv[1]), sys.argv[2]
    scenarios.gather(workers)
    dtm.map(introduce, range(16 * workers))
    print("ready", flush=True)
    globals()[mode]()


def late() -> None:
    """Call dtm when the process ends."""
    for action in (lambda: dtm.map(abs, [1]), lambda: dtm.start(main)):
        try:
            action()
        except RuntimeError as error:
            print(f"at exit: {error}")


def states() -> None:
    """Use dtm at all the wrong times."""
    caught = []

    def attempt(action: object) -> None:
        try:
            action()  # type: ignore[operator]
        except RuntimeError as error:
            caught.append(f"{type(error).__name__}: {error}")
        else:
            caught.append("nothing")

    thread = threading.Thread(target=attempt, args=(lambda: dtm.start(print),))
    thread.start()
    thread.join()
    kept: list[object] = []

    def inside() -> str:
        attempt(lambda: dtm.start(print))
        attempt(lambda: dtm.setOptions(seed=3))
        kept.append(dtm.map_async(abs, [-1, -2]))
        kept.append(dtm.imap(abs, iter(range(100_000))))
        next(kept[1])  # type: ignore[call-overload]
        kept.append(dtm.map_async(doze, [LONG] * 4))
        return "value"

    print(dtm.start(inside))
    for action in (
        lambda: dtm.start(inside),
        lambda: dtm.map(abs, [1]),
        lambda: dtm.apply_async(abs, 1),
        lambda: list(dtm.imap(abs, [1])),
        lambda: dtm.setOptions(seed=3),
        lambda: list(kept[1]),  # type: ignore[call-overload]
        lambda: kept[2].get(),  # type: ignore[attr-defined]
    ):
        attempt(action)
    print("worker", dtm.getWorkerId())
    print("\n".join(caught))


if __name__ == "__main__":
    if sys.argv[2] == "states":
        atexit.register(late)
        states()
    else:
        dtm.start(main)
        print("after start")
