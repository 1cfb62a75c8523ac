"""What tasks may rely on: waits that end in time, one thread for all bodies, forks, callbacks.

Prints one JSON line a check.  With less than three workers what needs idle ones is not checked.
"""

import asyncio
import contextvars
import json
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback

from dtm import dtm

LONG = 6.0  # seconds that nobody may be kept waiting for
SOON = 3.0  # instead of LONG, on a machine however busy
variable = contextvars.ContextVar("variable", default="unset")
connection = None


def nap(seconds):
    time.sleep(seconds)
    return seconds


def nap_long(seconds):
    time.sleep(seconds)


def square(x):
    time.sleep(0.005)
    return x * x


def workers():
    return int(sys.argv[1])


def soon(function, *args):
    """Return what a function returns or raises, which must come soon."""
    began = time.perf_counter()
    try:
        found = function(*args)
    except Exception as error:
        found = type(error).__name__
    spent = time.perf_counter() - began
    assert spent < SOON, spent
    return found


def who(_):
    time.sleep(0.02)
    return dtm.getWorkerId()


def wait_until_all_are_free():
    """Wait for what earlier checks have left under way elsewhere."""
    deadline = time.perf_counter() + 30.0
    while len(set(dtm.map(who, range(4 * workers())))) < workers():
        assert time.perf_counter() < deadline


# Waits.


def check_polling_gets_the_work_done():
    call = dtm.map_async(square, range(20))
    while not call.ready():
        pass
    assert call.get() == [x * x for x in range(20)]


def check_polling_with_short_timeouts_gets_the_work_done():
    call = dtm.map_async(square, range(40))
    while True:
        try:
            assert call.get(timeout=0.001) == [x * x for x in range(40)]
            return
        except TimeoutError:
            pass


def poller(seed):
    calls = [dtm.apply_async(square, seed + i) for i in range(6)]
    total = 0
    while calls:
        ended = dtm.waitAny(calls)
        calls.remove(ended)
        total += ended.get()
    return total


def check_tasks_that_all_wait_for_the_first_of_several_end():
    wanted = [sum((seed + i) ** 2 for i in range(6)) for seed in range(24)]
    assert dtm.map(poller, range(24)) == wanted


def check_the_first_of_several_is_not_put_off_by_another():
    if workers() < 3:
        return  # all of them may be at work on the long ones

    def another_nap(seconds):  # one that nothing is known of
        time.sleep(seconds)
        return seconds

    wait_until_all_are_free()
    # The first goes to another worker at once, and not all of the others can.
    calls = [dtm.apply_async(another_nap, seconds) for seconds in (0.3, *[LONG] * workers())]
    began = time.perf_counter()
    assert dtm.waitAny(calls) is calls[0]
    assert time.perf_counter() - began < LONG
    for call in calls:
        call.cancel()


def check_iterators_have_a_timeout():
    if workers() == 1:
        return
    began = time.perf_counter()
    results = dtm.imap(nap, [0.3, 3.0, 0.3])
    assert results.next(9.0) == 0.3
    if time.perf_counter() - began < 2.5:  # else the second may be there on a busy machine
        assert soon(results.next, 0.05) == "TimeoutError"
    assert list(results) == [3.0, 0.3]


def check_results_that_came_before_an_error_of_the_iterable():
    def source():
        yield from range(30)
        raise OSError("input broke")

    for kind in (dtm.imap, dtm.imap_unordered):
        found = []
        try:
            for value in kind(square, source()):
                found.append(value)  # noqa: PERF402 - what came before the error counts
        except OSError:
            assert sorted(found) == [x * x for x in range(30)], (kind, found)
        else:
            raise AssertionError("nothing was raised")


def check_lazy_maps_lose_nothing():
    for _ in range(10):
        assert sorted(dtm.imap_unordered(square, range(40))) == sorted(x * x for x in range(40))


def collects():
    first, second = dtm.apply_async(len, "abc"), dtm.map_async(abs, range(100))
    dtm.waitAny()
    first.get()
    second.wait()
    assert dtm.testAny() is second
    second.get()
    return dtm.testAny()


def check_no_call_is_named_twice_that_has_been_collected():
    assert dtm.apply(collects) is None


# One thread.


class TooLongError(Exception):
    pass


def ring(*_):
    raise TooLongError


def limited(x):
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 1.5)  # or an item is late on a machine that is
    try:
        time.sleep(LONG if x % 5 == 0 else 0.005)
        return "ok"
    except TooLongError:
        return "late"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_alarms_in_nested_tasks():
    found = dtm.map(lambda _: dtm.map(limited, range(5)), range(4))
    assert found == [["late", "ok", "ok", "ok", "ok"]] * 4, found


def ask(x):
    global connection
    if connection is None:
        connection = sqlite3.connect(":memory:")
    time.sleep(0.002)
    return connection.execute("select ? * 2", (x,)).fetchone()[0]


def check_what_is_bound_to_a_thread_works_in_nested_tasks():
    found = dtm.map(lambda group: dtm.map(ask, range(group, group + 8)), range(12))
    assert found == [[2 * x for x in range(group, group + 8)] for group in range(12)]


def loops(x):
    async def double():
        await asyncio.sleep(0.001)
        return 2 * x

    return asyncio.run(double()) + sum(dtm.map(square, range(3)))


def check_event_loops_in_tasks():
    assert dtm.map(loops, range(12)) == [2 * x + 5 for x in range(12)]


def sets(x):
    seen = variable.get()
    variable.set(x)
    time.sleep(0.002)
    return seen


def check_context_variables_do_not_leak_into_who_waits():
    variable.set("of main")
    seen = set(dtm.map(sets, range(12, 24)))
    assert variable.get() == "of main"
    assert not seen & {"of main"}, "items begin with what the run began with"


def check_tasks_run_in_the_main_thread():
    here = dtm.map(lambda _: threading.current_thread() is threading.main_thread(), range(50))
    assert all(here)


# Threads.


def nested(n):
    return sum(dtm.map(square, range(n)))


def check_main_may_join_threads_whose_tasks_wait():
    for _ in range(3):
        threads = [
            threading.Thread(target=dtm.map, args=(each, [4] * 20), daemon=True)
            for each in (square, nested, square, nested)
        ]
        for thread in threads:
            thread.start()
        dtm.map(nested, [3] * 10)
        for thread in threads:
            thread.join(30.0)
        assert not any(thread.is_alive() for thread in threads)


def reads_lazily(n):
    found = []
    thread = threading.Thread(target=lambda: found.extend(dtm.imap(abs, range(n))))
    thread.start()
    thread.join(30.0)
    return found


def check_tasks_may_join_threads_that_read_lazily():
    assert dtm.map(reads_lazily, [20] * 4) == [list(range(20))] * 4


def loops_and_waits(x):
    async def waits():
        return sum(dtm.map(square, range(x)))

    return asyncio.run(waits())


def check_event_loops_of_tasks_that_wait_for_calls():
    assert dtm.map(loops_and_waits, [6] * 8) == [55] * 8


# Callbacks.


def check_main_may_wait_for_a_callback_that_waits_for_calls():
    done = threading.Event()
    found = []

    def again(values):
        found.append((values, dtm.map(square, range(8))))
        done.set()

    call = dtm.options(callback=again).map_async(square, range(8))
    if workers() == 1:
        call.wait()  # nobody else runs the items
    assert done.wait(30.0)
    assert found == [([x * x for x in range(8)],) * 2]


def touched(_):
    return None


def check_main_may_block_outside_of_dtm_until_a_short_call_ends():
    if workers() == 1:
        return
    done = threading.Event()
    dtm.map(touched, range(200))
    call = dtm.options(callback=lambda _: done.set()).apply_async(touched, 1)
    assert done.wait(30.0)
    call.get()


def check_a_callback_has_been_called_when_main_comes_back():
    found = []
    for i in range(50):
        dtm.options(callback=found.append).apply_async(abs, -i).get()
        time.sleep(0)
    deadline = time.perf_counter() + 30.0
    while len(found) < 50 and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert found == list(range(50))


# Forks.


def child(queue, n):
    queue.put((n, dtm.map(abs, [-n]), dtm.getWorkerId()))


def forks(n):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue, n))
    process.start()
    found = queue.get()
    process.join(60.0)
    return (*found, process.exitcode)


def check_a_forked_child_is_no_worker():
    assert dtm.map(forks, range(6)) == [(n, [n], 0, 0) for n in range(6)]


def comes_back(n):
    if os.fork() == 0:
        return "from the child"
    _, status = os.wait()
    return n, status


def check_a_forked_child_that_comes_back_from_its_task_ends_there():
    assert dtm.map(comes_back, range(6)) == [(n, 0) for n in range(6)]


# Waits that end in time; last, for the naps go on.


def check_timeouts_hold_though_nobody_else_could_run_it():
    if workers() == 1:
        return
    assert soon(lambda: dtm.apply_async(nap_long, LONG).get(timeout=0.2)) == "TimeoutError"
    assert soon(lambda: dtm.apply_async(nap_long, LONG).wait(timeout=0.2)) is None
    assert soon(lambda: dtm.apply_async(nap_long, LONG).ready()) is False
    assert soon(lambda: dtm.testAll([dtm.apply_async(nap_long, LONG) for _ in range(3)])) is False


def waits_in_vain(_):
    return soon(lambda: dtm.map_async(nap_long, [LONG] * 2).get(timeout=0.2))


def check_timeouts_hold_in_tasks_that_have_others_beside_them():
    if workers() > 1:
        assert dtm.map(waits_in_vain, range(2)) == ["TimeoutError"] * 2


def leaves(n):
    if os.fork() == 0:
        sys.exit(n)
    return os.waitstatus_to_exitcode(os.wait()[1])


def check_a_forked_child_that_exits_has_its_own_status():
    assert dtm.map(leaves, range(4)) == list(range(4))


def main():
    for name, check in list(globals().items()):
        if name.startswith("check_") and (not sys.argv[2:] or name in sys.argv[2:]):
            try:
                check()
                verdict = "ok"
            except BaseException:
                verdict = traceback.format_exc()
            print(json.dumps({"check": name, "verdict": verdict}), flush=True)


if __name__ == "__main__":
    dtm.start(main)
